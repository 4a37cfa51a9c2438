//! B36: weave, kube-router and AWS, each in its own order.
//!
//! Policy created before its pod, pod before its policy, namespace labelled after both, network defined last: one of these
//! orders was missed. The order of events never changes the final state (statements 131, 143, 162). Shown: every order of
//! them, with a namespace that gets its label late and a network definition that comes last or never, ends the same.

use crate::support::manifest::{BLUE, blue, multi, namespace, orders};
use crate::support::world::World;

const DEFINITION: &str = "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: blue, namespace: shop}\n\
                          spec: {config: '{\"cniVersion\": \"1.0.0\", \"type\": \"macvlan\"}'}\n";

fn events(definition: bool) -> Vec<String> {
    let spec = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], \
                ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}], \
                egress: [{to: [{namespaceSelector: {matchLabels: {team: red}}}]}]}";
    let mut events = vec![
        multi("shop/guard", BLUE, spec),
        blue("shop/web", 10, "app=web").yaml(),
        blue("red/peer", 11, "").yaml(),
        namespace("red", "team=red"),
    ];
    if definition {
        events.push(DEFINITION.to_owned());
    }
    events
}

fn check(world: &World, labelled: bool) {
    world.check(
        BLUE,
        &[
            ("red/peer", "shop/web", "80/tcp", labelled),
            ("shop/web", "red/peer", "80/tcp", labelled),
            ("10.20.0.77", "shop/web@10.20.0.10", "80/tcp", false),
            ("shop/web@10.20.0.10", "10.20.0.77", "80/tcp", false),
        ],
    );
}

#[test]
fn s143_s162_every_order_ends_the_same() {
    for definition in [false, true] {
        for order in orders(&events(definition)) {
            let mut world = World::of::<&str>([]);
            for event in &order {
                world.apply(event);
            }
            check(&world, true);
        }
    }
}

#[test]
fn s013_the_namespace_is_labelled_after_both() {
    for order in orders(&events(false)[..3]) {
        let mut world = World::of([namespace("red", "")]);
        for event in &order {
            world.apply(event);
        }
        check(&world, false);
        world.apply(&namespace("red", "team=red"));
        check(&world, true);
        world.apply(&namespace("red", "team=blue"));
        check(&world, false);
    }
}
