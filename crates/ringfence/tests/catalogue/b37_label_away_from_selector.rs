//! B37: read in the source of kube-network-policies.
//!
//! The handler for a changed pod asked only which policies select the new labels, so a pod that was relabelled away from a
//! policy stayed isolated, or a relabelled peer kept its rights. Isolation and membership follow the labels, both ways
//! (statements 11, 12). Shown for target and peer, in both directions; and the kernel's table goes when nothing isolates.

use crate::support::manifest::{BLUE, admits, blue, lets_out};
use crate::support::node::{Node, spec};
use crate::support::world::World;
use ringfence_testkit::Protocol::Tcp;
use ringfence_testkit::manifest::documents;

#[test]
fn s011_s012_target_and_peer_follow_their_labels() {
    let peers = "[{podSelector: {matchLabels: {role: friend}}}]";
    for (policy, ingress) in [
        (admits("shop/guard", peers), true),
        (lets_out("shop/guard", peers), false),
    ] {
        let mut world = World::of([
            blue("shop/web", 10, "app=web").yaml(),
            blue("shop/peer", 11, "role=friend").yaml(),
            policy,
        ]);
        let ask = |world: &World, expected: bool| {
            let (from, to) = if ingress {
                ("shop/peer", "shop/web")
            } else {
                ("shop/web", "shop/peer")
            };
            world.check(BLUE, &[(from, to, "80/tcp", expected)]);
        };
        ask(&world, true);
        world.apply(&blue("shop/peer", 11, "role=stranger").yaml());
        ask(&world, false);
        world.apply(&blue("shop/web", 10, "app=other").yaml());
        assert!(world.ruleset("shop/web").is_none(), "nothing isolates it any more");
        ask(&world, true);
        world.apply(&blue("shop/web", 10, "app=web,more=yes").yaml());
        ask(&world, false);
        world.apply(&blue("shop/peer", 11, "role=friend,more=yes").yaml());
        ask(&world, true);
    }
}

#[test]
fn s011_the_kernels_rules_go_with_the_label() {
    let mut node = Node::new("unlabel", vec![spec("shop/web", "app=web"), spec("shop/peer", "")]);
    node.start();
    node.save(
        "guard.yaml",
        &admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
    );
    node.check(&[("shop/peer", "shop/web", Tcp, 80, false)]);
    let manifests = |label: &str| {
        let pods = [
            node.pod("shop/web").with_label("app", label),
            node.pod("shop/peer").clone(),
        ];
        documents(&pods.map(|pod| pod.manifest().expect("a manifest")))
    };
    node.save("pods.yaml", &manifests("other"));
    node.check(&[("shop/peer", "shop/web", Tcp, 80, true)]);
    assert_eq!(node.rules("shop/web"), "");
    node.save("pods.yaml", &manifests("web"));
    node.check(&[("shop/peer", "shop/web", Tcp, 80, false)]);
}
