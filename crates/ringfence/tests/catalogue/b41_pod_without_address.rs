//! B41: KR#378.
//!
//! A pod that had no address yet became a match without an address, that is, any. It contributes nothing (statement 50).
//! Shown for every way of having none, in both directions: absent, empty, unreadable, of a network without addresses; and
//! the address counts as soon as it is there (137).

use crate::support::manifest::{BLUE, admits, blue, lets_out, pod};
use crate::support::world::World;

#[test]
fn s050_a_pod_without_an_address_is_nobody() {
    let friend = || pod("shop/friend").labels("role=friend");
    let mut empty_ip = friend();
    empty_ip.value["status"]["podIP"] = "".into();
    let ways = [
        friend().yaml(),
        empty_ip.yaml(),
        friend().on("net1", BLUE, &[]).yaml(),
        friend().on("net1", BLUE, &[""]).yaml(),
        friend().on("net1", BLUE, &["0.0.0.0/0"]).yaml(),
        friend().on("net1", BLUE, &["not-yet"]).yaml(),
        friend().on("net1", BLUE, &["0.0.0.0", "::"]).yaml(),
    ];
    let peers = "[{podSelector: {matchLabels: {role: friend}}}]";
    for way in ways {
        for (policy, ingress) in [
            (admits("shop/guard", peers), true),
            (lets_out("shop/guard", peers), false),
        ] {
            let mut world = World::of([blue("shop/web", 10, "app=web").yaml(), way.clone(), policy]);
            for (web, address) in [
                ("shop/web@10.20.0.10", "10.20.0.50"),
                ("shop/web@10.20.0.10", "192.0.2.1"),
                ("shop/web@fd00:20::10", "fd00:20::50"),
            ] {
                let (from, to) = if ingress { (address, web) } else { (web, address) };
                world.check(BLUE, &[(from, to, "80/tcp", false)]);
            }
            world.apply(&blue("shop/friend", 50, "role=friend").yaml());
            let (from, to) = if ingress {
                ("shop/friend", "shop/web")
            } else {
                ("shop/web", "shop/friend")
            };
            world.check(BLUE, &[(from, to, "80/tcp", true)]);
        }
    }
}
