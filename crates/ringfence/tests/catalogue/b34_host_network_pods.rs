//! B34: KNP#379, #380 and #389, KR#332.
//!
//! A pod on the host's network has the node's address; engines put it into the sets of a selector, so everything from the
//! node (and everything that it masquerades) passed. Such pods are never a selector's peer and never a target (statements
//! 21, 49). Shown: with matching labels, in both directions and also with a network status that lists an address on the
//! network; an ipBlock with the address does match.

use crate::support::manifest::{BLUE, admits, blue, lets_out, pod};
use crate::support::world::World;

#[test]
fn s021_s049_a_host_network_pod_brings_no_address_into_a_selector() {
    let mut host = pod("shop/host")
        .labels("role=friend,app=web")
        .on("net1", BLUE, &["10.20.0.99", "fd00:20::99"]);
    host.value["spec"]["hostNetwork"] = true.into();
    host.value["status"]["podIP"] = "10.20.0.1".into();
    host.value["status"]["hostIP"] = "10.20.0.1".into();
    let friend = blue("shop/friend", 11, "role=friend").yaml();
    let addresses = ["10.20.0.1", "10.20.0.99"];
    for (peers, blocked) in [
        ("[{podSelector: {matchLabels: {role: friend}}}]", true),
        ("[{namespaceSelector: {}}]", true),
        (
            "[{ipBlock: {cidr: 10.20.0.1/32}}, {ipBlock: {cidr: 10.20.0.99/32}}]",
            false,
        ),
    ] {
        for (policy, ingress) in [
            (admits("shop/guard", peers), true),
            (lets_out("shop/guard", peers), false),
        ] {
            let world = World::of([
                blue("shop/web", 10, "app=web").yaml(),
                friend.clone(),
                host.yaml(),
                policy,
            ]);
            for address in addresses {
                let web = "shop/web@10.20.0.10";
                let (from, to) = if ingress { (address, web) } else { (web, address) };
                world.check(BLUE, &[(from, to, "80/tcp", !blocked)]);
            }
            let (from, to) = if ingress {
                ("shop/friend", "shop/web")
            } else {
                ("shop/web", "shop/friend")
            };
            world.check(BLUE, &[(from, to, "80/tcp", blocked)]);
            assert!(world.ruleset("shop/host").is_none(), "no target");
        }
    }
}

#[test]
fn s134_a_host_network_pod_takes_no_address_from_a_pod() {
    let mut host = pod("shop/host")
        .labels("role=other")
        .on("net1", BLUE, &["10.20.0.11"])
        .started(28);
    host.value["spec"]["hostNetwork"] = true.into();
    let world = World::of([
        blue("shop/web", 10, "app=web").yaml(),
        blue("shop/friend", 11, "role=friend").yaml(),
        host.yaml(),
        admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
    ]);
    world.check(BLUE, &[("shop/friend", "shop/web", "80/tcp", true)]);
}
