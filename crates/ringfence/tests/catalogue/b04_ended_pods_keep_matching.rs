//! B4: weave#2632, azure NPM#428, KR#1056, antrea#6507, #6508 and #7217.
//!
//! A pod that has Succeeded or Failed keeps its address in its status while the address is given to another pod; engines
//! went on to count it as a peer, so the new owner had the finished job's rights. A terminal pod is neither peer nor
//! target (statement 132). Shown: from the phase on its address has no rights, whoever reuses it has only its own, and the
//! job's later deletion changes nothing.

use crate::support::manifest::{BLUE, admits, blue};
use crate::support::world::World;

fn world() -> World {
    World::of([
        blue("shop/web", 10, "app=web").yaml(),
        admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
        blue("shop/job", 50, "role=friend").started(9).yaml(),
    ])
}

#[test]
fn s132_an_ended_pods_address_has_no_rights() {
    for phase in ["Succeeded", "Failed"] {
        let mut world = world();
        world.check(BLUE, &[("shop/job", "shop/web", "80/tcp", true)]);
        world.apply(&blue("shop/job", 50, "role=friend").started(9).phase(phase).yaml());
        world.check(BLUE, &[("10.20.0.50", "shop/web@10.20.0.10", "80/tcp", false)]);
        world.check(BLUE, &[("fd00:20::50", "shop/web@fd00:20::10", "80/tcp", false)]);
    }
}

#[test]
fn s132_s134_whoever_reuses_the_address_has_only_its_own_rights() {
    for (phase, labels, passes) in [
        ("Succeeded", "role=other", false),
        ("Failed", "role=other", false),
        ("Succeeded", "role=friend", true),
        ("Failed", "role=friend", true),
    ] {
        // Older than the job by its start time: an ended pod does not compete for the address at all.
        let new = blue("shop/new", 50, labels).started(1).yaml();
        let ended = blue("shop/job", 50, "role=friend").started(9).phase(phase).yaml();
        for events in [[&ended, &new], [&new, &ended]] {
            let mut world = world();
            for event in events {
                world.apply(event);
            }
            world.check(BLUE, &[("shop/new", "shop/web", "80/tcp", passes)]);
            world.remove("Pod shop/job");
            world.check(BLUE, &[("shop/new", "shop/web", "80/tcp", passes)]);
        }
    }
}

#[test]
fn s132_an_ended_pod_is_no_target() {
    let mut world = World::of([
        blue("shop/web", 10, "app=web").yaml(),
        admits("shop/guard", "[{podSelector: {}}]"),
    ]);
    assert!(world.ruleset("shop/web").is_some());
    world.apply(&blue("shop/web", 10, "app=web").phase("Succeeded").yaml());
    assert!(world.ruleset("shop/web").is_none());
}
