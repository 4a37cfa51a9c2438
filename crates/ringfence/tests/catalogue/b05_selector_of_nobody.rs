//! B5: OVN-K#5372, cilium#4513 and #5250, antrea#2383.
//!
//! A peer selector that resolved to no pod became an empty list of peers, and an empty list was read as "everybody".
//! A peer that selects nobody matches nothing (statement 34). Shown: for every way of selecting nobody, from the start
//! and when the last pod goes, in both directions, nothing passes; a missing `from` still means everybody (29).

use crate::support::manifest::{BLUE, admits, blue, lets_out, namespace, pod};
use crate::support::world::World;

const NOBODY: [&str; 6] = [
    "{podSelector: {matchLabels: {role: nobody}}}",
    "{namespaceSelector: {matchLabels: {team: nobody}}}",
    "{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {role: nobody}}}",
    "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: nowhere}}}",
    "{podSelector: {matchExpressions: [{key: role, operator: In, values: [nobody]}]}}",
    // Selects a pod that is on another network only (statement 156).
    "{podSelector: {matchLabels: {role: elsewhere}}}",
];

fn world() -> World {
    World::of([
        namespace("shop", ""),
        namespace("red", "team=red"),
        blue("shop/web", 10, "app=web").yaml(),
        blue("shop/friend", 11, "role=friend").yaml(),
        blue("red/guest", 12, "role=friend").yaml(),
        pod("shop/far")
            .labels("role=elsewhere")
            .on("net2", "shop/green", &["10.30.0.9", "fd00:30::9"])
            .yaml(),
    ])
}

#[test]
fn s034_a_peer_that_selects_nobody_is_nobody() {
    for nobody in NOBODY {
        for (other, host) in [("shop/friend", "10.20.0.77"), ("red/guest", "10.30.0.9")] {
            let mut ingress = world();
            ingress.apply(&admits("shop/guard", &format!("[{nobody}]")));
            ingress.check(
                BLUE,
                &[
                    (other, "shop/web", "80/tcp", false),
                    (other, "shop/web", "ping", false),
                    (host, "shop/web@10.20.0.10", "53/udp", false),
                ],
            );
            let mut egress = world();
            egress.apply(&lets_out("shop/guard", &format!("[{nobody}]")));
            egress.check(
                BLUE,
                &[
                    ("shop/web", other, "80/tcp", false),
                    ("shop/web", other, "gre", false),
                    ("shop/web@10.20.0.10", host, "53/udp", false),
                ],
            );
        }
    }
}

#[test]
fn s034_the_last_peer_that_goes_leaves_nobody_behind() {
    let mut world = world();
    world.apply(&admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"));
    world.check(
        BLUE,
        &[
            ("shop/friend", "shop/web", "80/tcp", true),
            ("red/guest", "shop/web", "80/tcp", false),
        ],
    );
    world.remove("Pod shop/friend");
    world.check(
        BLUE,
        &[
            ("red/guest", "shop/web", "80/tcp", false),
            ("10.20.0.11", "shop/web@10.20.0.10", "80/tcp", false),
        ],
    );
    world.apply(&blue("shop/friend", 11, "role=friend").yaml());
    world.check(BLUE, &[("shop/friend", "shop/web", "80/tcp", true)]);
}

#[test]
fn s029_s030_a_missing_or_empty_list_is_everybody() {
    for spec in [
        "{podSelector: {}, ingress: [{}]}",
        "{podSelector: {}, ingress: [{from: []}]}",
    ] {
        let mut world = world();
        world.apply(&crate::support::manifest::multi("shop/guard", BLUE, spec));
        world.check(BLUE, &[("red/guest", "shop/web", "80/tcp", true)]);
    }
}
