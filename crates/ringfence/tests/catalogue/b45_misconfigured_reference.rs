//! B45: GO-2025-4167 (cilium).
//!
//! An egress rule whose group reference was wrong was dropped together with its restriction, so everything was let out.
//! A clause that cannot be understood matches nothing, and the policy still isolates (statements 22, 36, 37, 60, 166).
//! Shown: each way of writing a peer wrongly lets nothing through, in both directions, is reported, and does not take the
//! right peers beside it along.

use crate::support::manifest::{BLUE, admits, blue, lets_out};
use crate::support::world::World;

const WRONG: [&str; 12] = [
    "{}",
    "{ipBlock: {}}",
    "{ipBlock: {cidr: ''}}",
    "{ipBlock: {cidr: 10.20.0.0/99}}",
    "{ipBlock: {cidr: everywhere}}",
    "{cidrGroupRef: office}",
    "{ipBlock: {cidrGroupRef: office}}",
    "{podSelecter: {matchLabels: {role: friend}}}",
    "{podSelector: {matchLabel: {role: friend}}}",
    "{podSelector: {matchExpressions: [{key: role, operator: Is, values: [friend]}]}}",
    "{podSelector: {matchExpressions: [{key: role, operator: In, values: []}]}}",
    "{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}",
];

fn world(policy: String) -> World {
    World::of([
        blue("shop/web", 10, "app=web").yaml(),
        blue("shop/friend", 11, "role=friend").yaml(),
        blue("shop/good", 12, "role=good").yaml(),
        policy,
    ])
}

#[test]
fn s022_s036_s166_a_wrong_peer_matches_nothing_and_is_reported() {
    for wrong in WRONG {
        for beside in ["", ", {podSelector: {matchLabels: {role: good}}}"] {
            let peers = format!("[{wrong}{beside}]");
            for (policy, ingress) in [
                (admits("shop/guard", &peers), true),
                (lets_out("shop/guard", &peers), false),
            ] {
                let world = world(policy);
                assert!(!world.said.is_empty(), "{wrong} is reported");
                for (peer, expected) in [("shop/friend", false), ("shop/good", !beside.is_empty())] {
                    let (from, to) = if ingress {
                        (peer, "shop/web")
                    } else {
                        ("shop/web", peer)
                    };
                    for what in ["80/tcp", "53/udp", "ping"] {
                        assert_eq!(
                            world.judge(from, to, BLUE, what),
                            expected,
                            "{peers} {from} {to} {what}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn s022_a_misspelt_field_of_the_rule_does_not_open_it() {
    for rule in [
        "{too: [{podSelector: {}}]}",
        "{form: [{podSelector: {}}]}",
        "{from: {podSelector: {}}}",
        "{port: [{port: 80}]}",
    ] {
        let policy = admits("shop/guard", "[]").replace("{from: []}", rule);
        let world = world(policy);
        assert!(!world.said.is_empty(), "{rule} is reported");
        world.check(BLUE, &[("shop/friend", "shop/web", "80/tcp", false)]);
    }
}
