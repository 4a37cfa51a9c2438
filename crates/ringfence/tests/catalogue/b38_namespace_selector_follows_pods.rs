//! B38: read in the source of MultiNetworkPolicy for nftables.
//!
//! Only peers with a podSelector were looked at when a pod appeared or vanished. With a namespaceSelector alone a new pod
//! stayed refused and the address of a removed one stayed allowed, for whoever got it next (statements 51, 52). Shown in
//! both directions: pods that come, go, end and are replaced under the same address, and namespaces that come and go.

use crate::support::manifest::{BLUE, admits, blue, lets_out, namespace};
use crate::support::world::World;

#[test]
fn s051_s052_pods_of_a_selected_namespace_come_and_go() {
    let peers = "[{namespaceSelector: {matchLabels: {team: red}}}]";
    for (policy, ingress) in [
        (admits("shop/guard", peers), true),
        (lets_out("shop/guard", peers), false),
    ] {
        let mut world = World::of([
            namespace("red", "team=red"),
            namespace("grey", ""),
            blue("shop/web", 10, "app=web").yaml(),
            policy,
        ]);
        let ask = |world: &World, expected: bool| {
            for (web, address) in [
                ("shop/web@10.20.0.10", "10.20.0.50"),
                ("shop/web@fd00:20::10", "fd00:20::50"),
            ] {
                let (from, to) = if ingress { (address, web) } else { (web, address) };
                world.check(BLUE, &[(from, to, "80/tcp", expected)]);
            }
        };
        ask(&world, false);
        world.apply(&blue("red/one", 50, "").yaml());
        ask(&world, true);
        world.remove("Pod red/one");
        ask(&world, false);
        // The address goes to a pod of another namespace.
        world.apply(&blue("grey/two", 50, "").yaml());
        ask(&world, false);
        world.remove("Pod grey/two");
        world.apply(&blue("red/three", 50, "").yaml());
        ask(&world, true);
        world.apply(&blue("red/three", 50, "").phase("Succeeded").yaml());
        ask(&world, false);
        world.apply(&blue("red/four", 50, "").started(3).yaml());
        ask(&world, true);
        world.remove("Namespace red");
        ask(&world, false);
        world.apply(&namespace("red", "team=red"));
        ask(&world, true);
    }
}
