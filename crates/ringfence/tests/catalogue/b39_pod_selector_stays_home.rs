//! B39: read in the source of MultiNetworkPolicy for iptables, and measured there.
//!
//! A peer with a podSelector only was looked up in all namespaces, so anybody who may label a pod somewhere was let in. It
//! means the policy's own namespace (statements 39, 44), also for the policy's target (2). Shown in both directions, with an
//! empty selector and with expressions.

use crate::support::manifest::{BLUE, admits, blue, lets_out, namespace};
use crate::support::world::World;

#[test]
fn s039_s044_a_pod_selector_alone_means_the_policys_own_namespace() {
    for peers in [
        "[{podSelector: {matchLabels: {role: friend}}}]",
        "[{podSelector: {}}]",
        "[{podSelector: {matchExpressions: [{key: role, operator: Exists}]}}]",
        "[{podSelector: {matchExpressions: [{key: nothing, operator: DoesNotExist}]}}]",
    ] {
        for (policy, ingress) in [
            (admits("shop/guard", peers), true),
            (lets_out("shop/guard", peers), false),
        ] {
            let world = World::of([
                namespace("shop", ""),
                namespace("other", ""),
                blue("shop/web", 10, "app=web").yaml(),
                blue("shop/friend", 11, "role=friend").yaml(),
                blue("other/friend", 12, "role=friend").yaml(),
                blue("other/web", 13, "app=web").yaml(),
                policy,
            ]);
            for (peer, expected) in [("shop/friend", true), ("other/friend", false)] {
                let (from, to) = if ingress {
                    (peer, "shop/web")
                } else {
                    ("shop/web", peer)
                };
                world.check(BLUE, &[(from, to, "80/tcp", expected)]);
            }
            assert!(world.ruleset("other/web").is_none(), "statement 2");
        }
    }
}
