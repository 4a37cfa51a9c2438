//! Random universes in force in real namespaces, and what the kernel then does to real connections.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use ringfence_model::{Direction, Family, NetworkName, Protocol as Carrier};
use ringfence_policy::evaluate::{Connection, Decision, Endpoint, L4, Verdict, evaluate};
use ringfence_testkit::{Answer, Outcome, Probe, Protocol, TIMEOUT, probe_all};

use crate::generate::network;
use crate::packets::{Kind, Talk, packet, way};
use crate::raw;
use crate::script::{PODS, Script, World, interface, script, uid};
use crate::stage::{CLUSTER, GREEN, SERVED, Stage};

/// Universes in a run, unless `RINGFENCE_KERNEL_CASES` says otherwise.
const CASES: u32 = 40;
/// Connections of a universe, allowed ones and denied ones each.
const PROBES: usize = 60;
/// How long an allowed connection may take on a busy machine before its silence counts.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection between real pods.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    /// `None`: the node.
    from: Option<(usize, usize)>,
    /// Pod and interface.
    to: (usize, usize),
    family: Family,
    protocol: Protocol,
    port: u16,
}

/// What was found to differ, to look at that alone while the universe is shrunk.
#[derive(Debug, Clone)]
enum Focus {
    Connection(Question),
    Frame(raw::Shot),
}

#[derive(Default)]
struct Tally {
    universes: Cell<usize>,
    allowed: Cell<usize>,
    denied: Cell<usize>,
    frames: RefCell<raw::Tally>,
}

fn add(cell: &Cell<usize>, number: usize) {
    cell.set(cell.get() + number);
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text} is no number: {error}")),
    )
}

/// Every statement that a packet can show; needs root and fails without.
#[test]
fn oracle_tracer_and_kernel_agree_on_random_universes() {
    let seed = number("RINGFENCE_SEED").unwrap_or_else(|| std::hash::RandomState::new().hash_one(0));
    let cases = number("RINGFENCE_KERNEL_CASES").map_or(CASES, |it| u32::try_from(it).expect("cases fit 32 bits"));
    println!("RINGFENCE_KERNEL_CASES={cases} RINGFENCE_SEED={seed}");
    let stage = RefCell::new(Stage::new().expect("real pods"));
    let range = raw::Range::new(&stage.borrow()).expect("a place for frames");
    let (tally, focus) = (Tally::default(), RefCell::new(None));
    let mut runner = TestRunner::new(Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        // A universe of real pods fails for what the kernel does, too: its seed is printed and not kept.
        failure_persistence: None,
        // Each step puts a universe in force and asks one question.
        max_shrink_iters: 200,
        ..Config::default()
    });
    let result = runner.run(&script(), |script| {
        round(&mut stage.borrow_mut(), &range, &script, &focus, &tally)
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    println!(
        "{} universes, {} allowed and {} denied connections, {}",
        tally.universes.get(),
        tally.allowed.get(),
        tally.denied.get(),
        tally.frames.borrow()
    );
    if let Err(error) = result {
        panic!("{error}\nRINGFENCE_SEED={seed}");
    }
    if cases >= CASES {
        assert!(
            tally.allowed.get() > 0 && tally.denied.get() > 0,
            "a generator without a choice"
        );
        tally.frames.borrow().require_everything();
    }
}

fn round(
    stage: &mut Stage,
    range: &raw::Range,
    script: &Script,
    focus: &RefCell<Option<Focus>>,
    tally: &Tally,
) -> Result<()> {
    let world = World::new(stage, script)?;
    for (pod, enforcer) in stage.enforcers.iter_mut().enumerate() {
        enforcer
            .enforce(world.ruleset(pod))
            .with_context(|| format!("p{pod}\n{}", world.rules(&[pod])))?;
    }
    let narrowed = focus.borrow().clone();
    let (questions, shots) = match narrowed {
        None => (choose(stage, &world, script.sample)?, range.shots(script.sample)),
        Some(Focus::Connection(question)) => (vec![question], Vec::new()),
        Some(Focus::Frame(shot)) => (Vec::new(), vec![shot]),
    };
    tally.universes.set(tally.universes.get() + 1);
    if let Some((question, why)) = connections(stage, &world, &questions, tally)? {
        *focus.borrow_mut() = Some(Focus::Connection(question));
        anyhow::bail!(why);
    }
    if let Some((shot, why)) = range.fire(stage, &world, &shots, &mut tally.frames.borrow_mut())? {
        *focus.borrow_mut() = Some(Focus::Frame(shot));
        anyhow::bail!(why);
    }
    Ok(())
}

/// Every connection that can be tried: between interfaces that share a wire, from a pod to itself, from the node.
fn every_question(stage: &Stage) -> Vec<Question> {
    let mut out = Vec::new();
    let mut ask = |from, to| {
        for family in Family::BOTH {
            let mut add = |protocol, port| {
                out.push(Question {
                    from,
                    to,
                    family,
                    protocol,
                    port,
                });
            };
            for port in SERVED {
                add(Protocol::Tcp, port);
                add(Protocol::Udp, port);
            }
            add(Protocol::Icmp, 0);
        }
    };
    for to in 0..PODS {
        for (inner, target) in stage.pods[to].interfaces.iter().enumerate() {
            if target.network == CLUSTER {
                ask(None, (to, inner));
            }
            for from in 0..PODS {
                for (outer, source) in stage.pods[from].interfaces.iter().enumerate() {
                    // p4 and p5 have addresses on green that belong to no prefix of the others there.
                    let apart = source.network == GREEN && (from > 3) != (to > 3);
                    let wired = source.network == target.network && !apart;
                    if wired && (from != to || outer == inner) {
                        ask(Some((from, outer)), (to, inner));
                    }
                }
            }
        }
    }
    out
}

/// As many allowed as denied connections, if there are that many.
fn choose(stage: &Stage, world: &World, sample: u64) -> Result<Vec<Question>> {
    let dice = |question: &Question| {
        let mut hasher = DefaultHasher::new();
        (sample, question).hash(&mut hasher);
        hasher.finish()
    };
    let mut all = every_question(stage);
    all.sort_by_cached_key(dice);
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    for question in all {
        let verdict = evaluate(&world.universe, &connection(stage, &question)?);
        match verdict.decision() {
            Decision::Allow => allowed.push(question),
            Decision::Deny => denied.push(question),
        }
    }
    allowed.truncate(PROBES);
    denied.truncate(PROBES);
    allowed.append(&mut denied);
    Ok(allowed)
}

fn address_of(stage: &Stage, (pod, interface): (usize, usize), family: Family) -> Result<std::net::IpAddr> {
    let addresses = &stage.pods[pod].interfaces[interface].addresses;
    let found = addresses.iter().find(|address| Family::of(**address) == family);
    found.copied().context("an interface without an address of this family")
}

fn connection(stage: &Stage, question: &Question) -> Result<Connection> {
    let endpoint = |at: (usize, usize)| -> Result<Endpoint> {
        Ok(Endpoint::Pod {
            uid: uid(at.0),
            attachment: at.1,
            address: address_of(stage, at, question.family)?,
        })
    };
    let name = &stage.pods[question.to.0].interfaces[question.to.1].network;
    let network = if name == CLUSTER {
        NetworkName::Default
    } else {
        network(name)
    };
    Ok(Connection {
        network,
        source: match question.from {
            Some(from) => endpoint(from)?,
            None => Endpoint::Address(Stage::gateway(question.family)?),
        },
        destination: endpoint(question.to)?,
        l4: match (question.protocol, question.family) {
            (Protocol::Tcp, _) => L4::port(Carrier::Tcp, question.port),
            (Protocol::Udp, _) => L4::port(Carrier::Udp, question.port),
            (Protocol::Icmp, Family::V4) => L4::Other(1),
            (Protocol::Icmp, Family::V6) => L4::Icmpv6 { message: 128 },
        },
    })
}

fn probe(stage: &Stage, question: &Question, connection: &Connection) -> Result<Probe> {
    let target = std::net::SocketAddr::new(connection.destination.address(), question.port);
    let label = format!("{question:?}");
    let Some((pod, interface)) = question.from else {
        let node = stage.topology.node(1)?.netns();
        return Ok(Probe {
            label,
            ..Probe::from_netns(node, question.protocol, target)
        });
    };
    let from = &stage.pods[pod];
    Ok(Probe {
        source: Some(connection.source.address()),
        // What a pod sends to itself goes over lo.
        interface: (pod != question.to.0).then(|| from.interfaces[interface].name.clone()),
        label,
        ..Probe::from_pod(from, question.protocol, target)
    })
}

/// What the tracer says of one end: the first packet and its answer must be judged alike.
fn traced(
    world: &World,
    stage: &Stage,
    question: &Question,
    connection: &Connection,
    direction: Direction,
) -> Result<bool> {
    let at = match direction {
        Direction::Egress => question.from,
        Direction::Ingress => Some(question.to),
    };
    // The node has no rules.
    let Some((pod, number)) = at else { return Ok(true) };
    let itself = question.from.is_some_and(|from| from.0 == question.to.0);
    let name = if itself {
        "lo"
    } else {
        &stage.pods[pod].interfaces[number].name
    };
    let talk = Talk {
        source: connection.source.address(),
        destination: connection.destination.address(),
        l4: connection.l4,
        client: 40_000,
    };
    let passes = |kind: Kind| {
        let path = way(direction, kind.goes_back(), interface(name));
        world.passes(pod, &packet(talk, kind, path, talk.source))
    };
    let (first, answer) = (passes(Kind::Original)?, passes(Kind::Reply)?);
    ensure!(
        first == answer,
        "{question:?}: the answer is judged otherwise at p{pod}\n{}",
        world.rules(&[pod])
    );
    Ok(first)
}

/// The first connection about which the three differ, with everything that somebody needs to see.
fn connections(
    stage: &Stage,
    world: &World,
    questions: &[Question],
    tally: &Tally,
) -> Result<Option<(Question, String)>> {
    let mut asked = Vec::new();
    let mut probes = Vec::new();
    for question in questions {
        let connection = connection(stage, question)?;
        probes.push(probe(stage, question, &connection)?);
        asked.push((question, evaluate(&world.universe, &connection), connection));
    }
    let answers = probe_all(&probes, TIMEOUT)?;
    for (((question, verdict, connection), probe), answer) in asked.into_iter().zip(&probes).zip(answers) {
        let allowed = verdict.decision() == Decision::Allow;
        let egress = traced(world, stage, question, &connection, Direction::Egress)?;
        let ingress = traced(world, stage, question, &connection, Direction::Ingress)?;
        // Silence may be a busy machine's; an answer never is.
        let answer = if allowed && answer.outcome == Outcome::Dropped {
            probe_all(std::slice::from_ref(probe), PATIENCE)?
                .pop()
                .context("no answer")?
        } else {
            answer
        };
        let wanted = if allowed { Outcome::Reached } else { Outcome::Dropped };
        add(if allowed { &tally.allowed } else { &tally.denied }, 1);
        if answer.outcome != wanted || (egress && ingress) != allowed {
            let ends: Vec<usize> = question
                .from
                .map(|from| from.0)
                .into_iter()
                .chain([question.to.0])
                .collect();
            let why = difference(question, &connection, &verdict, [egress, ingress], &answer);
            return Ok(Some((question.clone(), format!("{why}\n{}", world.rules(&ends)))));
        }
    }
    Ok(None)
}

fn difference(
    question: &Question,
    connection: &Connection,
    verdict: &Verdict,
    [egress, ingress]: [bool; 2],
    answer: &Answer,
) -> String {
    format!(
        "{question:?}\n{connection:?}\noracle: {} ({verdict:?})\ntracer: egress {}, ingress {}\nkernel: {answer:?}",
        verdict.decision(),
        if egress { "allow" } else { "deny" },
        if ingress { "allow" } else { "deny" },
    )
}
