//! B26: cilium#9209, #14497 and #35212, calico#6634.
//!
//! An ipBlock did not match addresses inside the cluster, so `0.0.0.0/0` left out every pod. It matches any address,
//! whoever has it (statement 74). Shown: a pod inside the block passes in both directions and both families, whether it is
//! known before or after the policy, without any label, on another node or on the host's network; its end changes nothing
//! (77).

use crate::support::manifest::{BLUE, admits, blue, lets_out};
use crate::support::world::World;

const BLOCK: &str = "[{ipBlock: {cidr: 10.20.0.0/24}}, {ipBlock: {cidr: 'fd00:20::/112'}}]";

#[test]
fn s074_a_block_matches_the_pods_inside_it() {
    for (policy, ingress) in [
        (admits("shop/guard", BLOCK), true),
        (lets_out("shop/guard", BLOCK), false),
    ] {
        let peer = blue("other/peer", 20, "").yaml();
        let ask = |world: &World, expected: bool| {
            let (from, to) = if ingress {
                ("other/peer", "shop/web")
            } else {
                ("shop/web", "other/peer")
            };
            world.check(BLUE, &[(from, to, "80/tcp", expected), (from, to, "ping", expected)]);
        };
        let mut world = World::of([blue("shop/web", 10, "app=web").yaml(), peer.clone(), policy.clone()]);
        ask(&world, true);
        world.remove("MultiNetworkPolicy shop/guard");
        world.remove("Pod other/peer");
        world.apply(&policy);
        world.apply(&peer);
        ask(&world, true);
        // On another node, so that only its address is known here.
        let mut far = blue("other/peer", 20, "");
        far.value["spec"]["nodeName"] = "n2".into();
        world.apply(&far.yaml());
        ask(&world, true);
        // Outside of the block it does not pass.
        world.apply(
            &blue("other/peer", 20, "")
                .yaml()
                .replace("10.20.0.20", "10.20.1.20")
                .replace("fd00:20::20", "fd00:20::1:20"),
        );
        ask(&world, false);
        world.remove("Pod other/peer");
        let (own, address) = ("shop/web@10.20.0.10", "10.20.0.20");
        let (from, to) = if ingress { (address, own) } else { (own, address) };
        world.check(BLUE, &[(from, to, "80/tcp", true)]);
    }
}
