//! B1: k/k#83191, antrea#367, openshift/sdn#26 and #55, azure NPM#558, OVN-K#845 and #1674.
//!
//! Engines turned `except` into a deny or an early return. An address excepted by one peer was then refused although
//! another peer, rule or policy granted it. Here except is arithmetic inside its own ipBlock (statements 63 to 67).
//! Shown: the excepted address passes when a second peer, rule, policy or pod selector grants it, in every order, both
//! directions and both families, and is refused when nobody does.

use crate::support::manifest::{BLUE, admits, blue, file, lets_out, multi, orders};
use crate::support::world::World;

const WIDE: &str = "{ipBlock: {cidr: 10.20.0.0/16, except: [10.20.0.128/25]}}, {ipBlock: {cidr: 'fd00:20::/64', except: ['fd00:20::100/120']}}";
const NARROW: &str = "{ipBlock: {cidr: 10.20.0.200/32}}, {ipBlock: {cidr: 'fd00:20::1c8/128'}}";
/// Excepted and not granted elsewhere.
const REFUSED: [&str; 2] = ["10.20.0.201", "fd00:20::1c9"];
/// Excepted and granted by the narrow peer.
const GRANTED: [&str; 2] = ["10.20.0.200", "fd00:20::1c8"];
/// Not excepted.
const PLAIN: [&str; 2] = ["10.20.0.5", "fd00:20::5"];

fn web() -> String {
    blue("shop/web", 10, "app=web").yaml()
}

fn check(world: &World, ingress: bool, granted: bool) {
    for (addresses, expected) in [(PLAIN, true), (GRANTED, granted), (REFUSED, false)] {
        for address in addresses {
            let web = if address.contains(':') {
                "shop/web@fd00:20::10"
            } else {
                "shop/web@10.20.0.10"
            };
            let ends = if ingress { (address, web) } else { (web, address) };
            world.check(
                BLUE,
                &[(ends.0, ends.1, "80/tcp", expected), (ends.0, ends.1, "ping", expected)],
            );
        }
    }
}

#[test]
fn s063_excepted_and_granted_by_nobody_else() {
    check(&World::of([web(), admits("shop/a", &format!("[{WIDE}]"))]), true, false);
    check(
        &World::of([web(), lets_out("shop/a", &format!("[{WIDE}]"))]),
        false,
        false,
    );
}

#[test]
fn s064_another_peer_of_the_rule_grants_it() {
    for peers in [format!("[{WIDE}, {NARROW}]"), format!("[{NARROW}, {WIDE}]")] {
        check(&World::of([web(), admits("shop/a", &peers)]), true, true);
        check(&World::of([web(), lets_out("shop/a", &peers)]), false, true);
    }
}

#[test]
fn s065_another_rule_grants_it() {
    for (first, second) in [(WIDE, NARROW), (NARROW, WIDE)] {
        let ingress = format!("{{podSelector: {{}}, ingress: [{{from: [{first}]}}, {{from: [{second}]}}]}}");
        check(&World::of([web(), multi("shop/a", BLUE, &ingress)]), true, true);
        let egress =
            format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{first}]}}, {{to: [{second}]}}]}}");
        check(&World::of([web(), multi("shop/a", BLUE, &egress)]), false, true);
    }
}

#[test]
fn s066_another_policy_grants_it_whatever_comes_first() {
    let policies = [
        admits("shop/a", &format!("[{WIDE}]")),
        admits("shop/b", &format!("[{NARROW}]")),
    ];
    for order in orders(&policies) {
        let mut world = World::of([web()]);
        for policy in &order {
            world.apply(policy);
        }
        check(&world, true, true);
        // Without the grant it is refused again, and the rest stays.
        world.remove("MultiNetworkPolicy shop/b");
        check(&world, true, false);
    }
}

#[test]
fn s067_a_selector_grants_the_pod_that_has_the_address() {
    let friend = blue("shop/friend", 200, "role=friend")
        .yaml()
        .replace("fd00:20::200", "fd00:20::1c8");
    let peers = format!("[{WIDE}, {{podSelector: {{matchLabels: {{role: friend}}}}}}]");
    let mut world = World::of([file(&[web(), friend]), admits("shop/a", &peers)]);
    check(&world, true, true);
    world.remove("Pod shop/friend");
    check(&world, true, false);
}
