//! Section H, for connections that carry as much as they can while the pod gets its very first rules: conntrack has never
//! heard of them then, because a namespace without rules does not track. Beside that the same transfers while one policy takes
//! over from another.

use std::time::{Duration, Instant};

use ringfence_model::Family;
use ringfence_testkit::manifest::{Policy, block, pods};
use ringfence_testkit::{Bulk, Load, Stream};

use super::world::{BLUE, FRIEND, PATIENCE, SERVER, World, friend, guard, tcp};

/// How long nothing arrives until a transfer counts as stopped.
const QUIET: Duration = Duration::from_millis(500);
/// Enough for the windows to be wide open.
const BEFORE: u64 = 4 << 20;
/// Enough for anything that lies in buffers to have gone, and the windows to have come round many times.
const AFTER: u64 = 16 << 20;
/// Where the transfers go, and their number.
const PORTS: std::ops::Range<u16> = 9400..9408;

/// How the pod comes by its first rules.
#[derive(Debug, Clone, Copy)]
enum First {
    /// The agent runs, and a policy comes.
    Policy,
    /// The policy is there, and an agent comes.
    Agent,
}

/// Between the server, which is the pod that policies isolate, and its friend.
struct Transfer {
    name: String,
    opener: &'static str,
    bulk: Bulk,
}

/// One of every kind: whoever opened it, whoever sends, in both families. All of them under way.
fn transfers(world: &World) -> Vec<Transfer> {
    let mut ports = PORTS;
    let mut all = Vec::new();
    for family in Family::BOTH {
        for (opener, other) in [(FRIEND, SERVER), (SERVER, FRIEND)] {
            for load in [Load::Upload, Load::Download] {
                let path = world.path(opener, other, BLUE, family, ports.next().expect("enough ports"));
                let name = format!("{load:?} by {opener}, {family:?}");
                let bulk = Bulk::open(&path, load).expect("a connection along an open path");
                all.push(Transfer { name, opener, bulk });
            }
        }
    }
    for transfer in &all {
        transfer.more(BEFORE);
    }
    all
}

impl Transfer {
    #[track_caller]
    fn more(&self, bytes: u64) {
        let moved = self.bulk.wait_for_more(bytes, PATIENCE);
        moved.unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
    }

    #[track_caller]
    fn finish(self) {
        let finished = self.bulk.finish(PATIENCE);
        finished.unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
    }
}

/// What conntrack lists of the transfers in the server's namespace.
fn known(world: &World) -> String {
    let families = ["ipv4", "ipv6"].map(|family| world.connections(SERVER, &["--family", family, "--proto", "tcp"]));
    let lines = families.iter().flat_map(|text| text.lines());
    let ours = |line: &&str| PORTS.clone().any(|port| line.contains(&format!("dport={port} ")));
    lines.filter(ours).collect::<Vec<_>>().join("\n")
}

/// Packets that the server's rules have dropped.
fn denied(world: &World) -> u64 {
    let words = ["list", "counters", "table", "inet", "ringfence"];
    let text = world.pod(SERVER).exec("nft", &words).expect("nft");
    let counts = text.lines().filter_map(|line| line.trim().strip_prefix("packets "));
    counts
        .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Waits until so many more packets were dropped.
#[track_caller]
fn wait_denied(world: &World, more: u64) {
    let before = denied(world);
    world.eventually("what is denied is sent again", || match denied(world) {
        now if now >= before + more => Ok(()),
        now => Err(format!("{before} {now}")),
    });
}

/// These have stopped, and stay so, whichever end has something to send.
#[track_caller]
fn stopped(world: &World, transfers: &mut [Transfer]) {
    for transfer in transfers.iter_mut() {
        let silent = transfer.bulk.wait_for_silence(QUIET, PATIENCE);
        silent.unwrap_or_else(|error| panic!("{}: {error:#}", transfer.name));
        transfer.bulk.say().expect("said");
    }
    let before: Vec<u64> = transfers.iter().map(|it| it.bulk.arrived()).collect();
    // Both ends of each, several times.
    wait_denied(world, 6 * u64::try_from(transfers.len()).expect("few"));
    for (transfer, before) in transfers.iter_mut().zip(before) {
        let name = &transfer.name;
        assert_eq!(transfer.bulk.arrived(), before, "{name}: more has arrived");
        let heard = transfer.bulk.heard();
        assert!(matches!(heard, Ok(false)), "{name}: the other direction: {heard:?}");
    }
}

/// The pod's first rules come while everything is under way: what these ends have opened goes on, the rest stops.
fn first_rules(name: &str, first: First, policy: Policy, go_on: &[&str]) {
    let mut world = World::usual(name);
    let mut under_way = Vec::new();
    let begin = |world: &World| {
        let all = transfers(world);
        assert_eq!(known(world), "", "conntrack has heard of them before there were rules");
        all
    };
    match first {
        First::Policy => {
            under_way = begin(&world);
            world.policies(&[policy]);
        }
        First::Agent => world.crash(|world| {
            under_way = begin(world);
            world.leave(&[policy]);
        }),
    }
    let (kept, mut others): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|it| go_on.contains(&it.opener));
    for transfer in &kept {
        transfer.more(AFTER);
    }
    if !others.is_empty() {
        stopped(&world, &mut others);
    }
    for transfer in kept {
        transfer.finish();
    }
}

#[test]
fn s105_s106_s107_transfers_while_a_running_pod_gets_its_first_policy() {
    let both = guard().ingress(&[friend()], &[]).egress(&[friend()], &[]);
    first_rules("first-both", First::Policy, both, &[FRIEND, SERVER]);
    let inward = guard().ingress(&[friend()], &[]).isolate_egress();
    first_rules("first-in", First::Policy, inward, &[FRIEND]);
    let outward = guard().egress(&[friend()], &[]).isolate_ingress();
    first_rules("first-out", First::Policy, outward, &[SERVER]);
    let nobody = guard().isolate_ingress().isolate_egress();
    first_rules("first-none", First::Policy, nobody, &[]);
}

#[test]
fn s105_s106_s107_transfers_while_an_agent_comes_to_a_running_pod() {
    // One direction is not isolated at all.
    let ingress = guard().isolate_ingress();
    first_rules("agent-in", First::Agent, ingress, &[SERVER]);
    let egress = guard().isolate_egress();
    first_rules("agent-out", First::Agent, egress, &[FRIEND]);
    let both = guard().ingress(&[friend()], &[]).egress(&[friend()], &[]);
    first_rules("agent-both", First::Agent, both, &[FRIEND, SERVER]);
}

#[test]
fn s107_transfers_while_another_policy_takes_over() {
    let mut world = World::usual("takeover");
    let by_label = guard().ingress(&[friend()], &[]).egress(&[friend()], &[]);
    let blocks = [block("10.21.0.0/16", &[]), block("fd00:21::/64", &[])];
    let ports = [ringfence_testkit::manifest::ports("TCP", PORTS.start, PORTS.end)];
    let by_block = Policy::multi("x/other", &[BLUE])
        .select(&[("app", "server")])
        .ingress(&blocks, &ports)
        .egress(&blocks, &ports);
    let elsewhere = [pods(&[("no", "such")])];
    let nobody = guard().ingress(&elsewhere, &[tcp(80)]).isolate_egress();
    world.policies(std::slice::from_ref(&by_label));
    let mut all = transfers(&world);
    // Each with sets and rules of another kind, and together.
    for policies in [vec![by_block.clone()], vec![by_label.clone(), by_block], vec![by_label]] {
        world.policies(&policies);
        for transfer in &all {
            transfer.more(BEFORE);
        }
    }
    for transfer in all.drain(..all.len() / 2) {
        transfer.more(AFTER);
        transfer.finish();
    }
    world.policies(&[nobody]);
    stopped(&world, &mut all);
}

/// Datagrams of a client in the server's namespace, and those that come back to its connected socket: both of a
/// conversation that the server has begun.
fn conversation(world: &World, family: Family) -> [(String, Stream); 2] {
    let every = Duration::from_millis(1);
    let path = |port| world.path(SERVER, FRIEND, BLUE, family, port);
    let forth = Stream::start(&path(9500), every).expect("a stream");
    let back = Stream::start_back(&path(9501), every).expect("a stream");
    let streams = [
        (format!("forth, {family:?}"), forth),
        (format!("back, {family:?}"), back),
    ];
    for (name, stream) in &streams {
        let open = stream.wait_open(Instant::now(), PATIENCE);
        open.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    streams
}

#[test]
fn s105_s107_datagrams_while_a_running_pod_gets_its_first_policy() {
    for (name, allowed) in [("udp-allowed", true), ("udp-denied", false)] {
        let mut world = World::usual(name);
        let streams: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(|family| conversation(&world, family))
            .collect();
        let policy = guard().isolate_ingress();
        let policy = if allowed {
            policy.egress(&[friend()], &[])
        } else {
            policy.isolate_egress()
        };
        world.policies(&[policy]);
        let since = Instant::now();
        if allowed {
            for (name, stream) in &streams {
                let open = stream.wait_open(since, PATIENCE);
                open.unwrap_or_else(|error| panic!("{name}: {error:#}"));
                let until = Instant::now();
                world.eventually(name, || match stream.missing(until) {
                    0 => Ok(()),
                    lost => Err(format!("{lost} of {} datagrams are lost", stream.counts().0)),
                });
            }
        } else {
            for (name, stream) in &streams {
                let blocked = stream.wait_blocked(since, QUIET, PATIENCE);
                blocked.unwrap_or_else(|error| panic!("{name}: {error:#}"));
            }
            wait_denied(&world, 1000);
            for (name, stream) in &streams {
                let last = stream.last_arrived().expect("some have arrived");
                assert!(last < since, "{name}: one that was sent after the commit has arrived");
            }
        }
    }
}
