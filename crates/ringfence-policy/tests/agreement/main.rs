//! Agreement of the oracle with the packet tracer over compiled rulesets, on random universes.
//!
//! A case is a random universe and a sample of connections in it. Each connection is judged by the oracle, which reads
//! the specification, and by the tracer at both of its ends: the packet that opens it where it leaves and where it
//! arrives, the answer where it leaves and where it arrives (statements 100, 101, 103), and ICMP errors about either
//! (102). Beside connections: packets without a connection (109, 121, 122), forwarded ones (170), frames of packet
//! sockets, forged sources, interfaces that nothing explains (168).
//!
//! Every run counts what its cases came across: each reason and each shortfall of the oracle, each kind of set, chain
//! and condition of the rulesets. It fails where one of them never came up, so a generator that has gone blind is
//! noticed.
//!
//! * `RINGFENCE_CASES=100000` tries that many universes instead of 1,000.
//! * `RINGFENCE_SEED=7` starts from that seed; otherwise every run has one of its own and prints it.
//! * A failing case is shrunk, and its seed is kept in `regressions.txt` beside this file, where later runs try it
//!   first. The file belongs into version control.

mod cover;
mod ends;
mod generate;
mod packets;
mod strays;
mod world;

use std::cell::RefCell;

use cover::Cover;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};

/// Universes in a run, unless `RINGFENCE_CASES` says otherwise.
const CASES: u32 = 1_000;

/// A number from the environment. What is no number fails instead of being passed over.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text} is no number: {error}")),
    )
}

#[test]
fn the_oracle_and_the_tracer_agree_on_random_universes() {
    let seed = number("RINGFENCE_SEED").unwrap_or_else(rand_seed);
    let cases = number("RINGFENCE_CASES").map_or(CASES, |cases| u32::try_from(cases).expect("cases fit 32 bits"));
    println!("RINGFENCE_CASES={cases} RINGFENCE_SEED={seed}");
    let regressions = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agreement/regressions.txt");
    let mut runner = TestRunner::new(Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        source_file: Some(file!()),
        max_shrink_iters: 4_000,
        ..Config::default()
    });
    let cover = RefCell::new(Cover::default());
    let result = runner.run(&generate::case(), |case| world::check(&case, &mut cover.borrow_mut()));
    if let Err(error) = result {
        panic!("{error}\nRINGFENCE_SEED={seed}");
    }
    let cover = cover.into_inner();
    println!("{cover}");
    cover.require_everything(cases);
}

/// A seed that nobody has chosen.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}
