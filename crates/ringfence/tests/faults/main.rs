//! Probes at full rate while the node is mistreated: a short version of `examples/probes.rs`, which sends millions.
//! Needs root, iproute2 and nft, and fails without them.

mod isolation;
mod node;

use std::path::Path;

use node::{Fault, Node};
use ringfence_testkit::Tally;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringfence");
/// Per fault; the example sends a hundred times as many.
const PROBES: u64 = 30_000;

#[track_caller]
fn check(fault: Fault) {
    let folder = tempfile::tempdir().expect("a folder");
    let other = folder.path().join("ringfence");
    std::fs::copy(PROGRAM, &other).expect("copied");
    let mut node = Node::start("probes", Path::new(PROGRAM), &other, &[]).expect("a node (are you root?)");
    let row = node.run(fault, PROBES).expect("it runs");
    let Tally { passed, lost, .. } = row.tally;
    assert!(row.tally.forbidden > 0 && row.tally.allowed > 0, "{row:?}");
    assert_eq!((passed, lost), (0, 0), "{row:?}\n{}", node.log());
}

#[test]
fn s226_nothing_passes_and_nothing_is_lost_while_peers_come_and_go() {
    check(Fault::Peers);
}

#[test]
fn s226_nothing_passes_and_nothing_is_lost_while_policies_come_and_go() {
    check(Fault::Policies);
}

#[test]
fn s139_nothing_passes_and_nothing_is_lost_through_restarts() {
    check(Fault::Restart);
}

#[test]
fn s139_nothing_passes_and_nothing_is_lost_when_agents_are_killed() {
    check(Fault::Kill);
}

#[test]
fn s139_nothing_passes_and_nothing_is_lost_through_upgrades() {
    check(Fault::Upgrade);
}

#[test]
fn s142_nothing_passes_and_nothing_is_lost_when_an_interface_comes_and_goes() {
    check(Fault::Interfaces);
}

#[test]
fn s142_nothing_passes_and_nothing_is_lost_when_the_kernel_refuses() {
    check(Fault::Refusals);
}

#[test]
fn s141_nothing_passes_and_nothing_is_lost_when_the_pod_flushes() {
    check(Fault::Flush);
}
