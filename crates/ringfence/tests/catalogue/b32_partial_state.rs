//! B32: antrea#2084, #4028 and #1186.
//!
//! Parts of one state arrive one by one (a group before its members, members before the group), and engines enforced a
//! part and never completed it, or waited for each other. Whatever is known is what counts, and the end is the same
//! (statements 143, 226). Shown: for every order of policy, namespaces, target and peers, after every single event, the
//! index equals a fresh one, the target is never opened to what neither the state before nor after allows, and the end is
//! right.

use crate::support::manifest::{BLUE, blue, multi, namespace, orders};
use crate::support::world::World;

#[test]
fn s143_every_order_of_arrival_ends_the_same_and_opens_nothing_on_the_way() {
    let spec = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, \
                podSelector: {matchLabels: {role: friend}}}], ports: [{port: api}]}]}";
    let web = blue("shop/web", 10, "app=web").port("api", "TCP", 8080).yaml();
    let policy = multi("shop/guard", BLUE, spec);
    let events = [
        policy.clone(),
        namespace("red", "team=red"),
        web.clone(),
        blue("red/friend", 11, "role=friend").yaml(),
        blue("red/stranger", 12, "role=stranger").yaml(),
    ];
    let mut checked = 0;
    for order in orders(&events) {
        let mut world = World::of::<&str>([]);
        let mut seen = Vec::new();
        for event in &order {
            world.apply(event);
            seen.push(event.clone());
            if !seen.contains(&web) {
                continue;
            }
            let isolated = seen.contains(&policy);
            // The address is asked about, known or not.
            for (address, role) in [("10.20.0.11", 3), ("10.20.0.12", 4)] {
                let friend = role == 3 && seen.contains(&events[1]) && seen.contains(&events[3]);
                world.check(
                    BLUE,
                    &[
                        (address, "shop/web@10.20.0.10", "8080/tcp", !isolated || friend),
                        (address, "shop/web@10.20.0.10", "8081/tcp", !isolated),
                    ],
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn s143_s226_a_policy_may_change_together_with_its_peers() {
    // One batch holds the new members of the old group, the new group, and the end of the old one.
    let mut world = World::of([
        namespace("shop", ""),
        blue("shop/web", 10, "app=web").yaml(),
        blue("shop/one", 11, "role=one").yaml(),
        multi(
            "shop/guard",
            BLUE,
            "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {role: one}}}]}]}",
        ),
    ]);
    let batch = [
        blue("shop/one", 11, "role=two").yaml(),
        multi(
            "shop/guard",
            BLUE,
            "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {role: two}}}]}]}",
        ),
        blue("shop/three", 13, "role=one").yaml(),
    ];
    for order in orders(&batch) {
        world.apply(&order.join("---\n"));
        world.check(
            BLUE,
            &[
                ("shop/one", "shop/web", "80/tcp", true),
                ("shop/three", "shop/web", "80/tcp", false),
            ],
        );
    }
}
