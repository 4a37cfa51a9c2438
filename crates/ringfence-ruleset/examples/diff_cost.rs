//! What it costs to find one changed element among many: `cargo run --release --example diff_cost`.
//!
//! For the eye only. No test asserts a duration.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ringfence_model::{Family, Protocol};
use ringfence_ruleset::{Element, Name, Ruleset, Set, SetKind, Table, Tracer, transaction};

const ROUNDS: u32 = 2_000;

fn main() {
    println!("elements  one added or removed, p50 / p99   nothing shared   rules unchanged   text   check");
    for size in [100, 10_000, 100_000] {
        let before = ruleset(size);
        let mut times: Vec<Duration> = (0..ROUNDS).map(|round| one_change(&before, size, round)).collect();
        times.sort();
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        let other = ruleset(size);
        let unshared = time(|| assert!(transaction(Some(&before), Some(&other)).is_empty()));
        let same = time(|| assert!(transaction(Some(&before), Some(&before.clone())).is_empty()));
        let text = time(|| assert!(!before.to_string().is_empty()));
        let check = time(|| assert!(Tracer::new(&before).is_ok()));
        println!("{size:8}  {p50:?} / {p99:?}   {unshared:?}   {same:?}   {text:?}   {check:?}");
    }
}

/// One pod's ruleset with that many peers.
fn ruleset(size: u32) -> Ruleset {
    let set = Set {
        kind: SetKind::Services(Family::V4),
        elements: (0..size).map(|number| element(number * 2)).collect(),
    };
    Ruleset {
        comment: "ringfence example".into(),
        inet: Table {
            sets: [(Name::new("net1-in-ip"), set)].into(),
            ..Table::default()
        },
        netdev: Table::default(),
    }
}

fn element(number: u32) -> Element {
    let address = Ipv4Addr::from(0x0a00_0000 + number);
    Element::Service(IpAddr::V4(address), Protocol::Tcp, 80)
}

/// Edits a clone at a place that depends on the round, and times the comparison alone.
fn one_change(before: &Ruleset, size: u32, round: u32) -> Duration {
    let mut after = before.clone();
    let place = element(round.wrapping_mul(2_654_435_761) % (size * 2));
    for set in after.inet.sets.values_mut() {
        if set.elements.remove(&place).is_none() {
            set.elements.insert(place);
        }
    }
    let start = Instant::now();
    let ops = transaction(Some(before), Some(&after));
    let taken = start.elapsed();
    assert_eq!(ops.len(), 1, "one element, one operation");
    taken
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
