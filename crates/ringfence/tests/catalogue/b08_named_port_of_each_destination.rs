//! B8: aws controller#52 and #210, KR f0d7f1e1, cilium#30003.
//!
//! For egress, engines resolved a port name on the pods that the policy selects, or kept one number or one address for
//! all destinations. The name belongs to each destination (statements 90, 91, 95, 97). Shown: two destinations with
//! different numbers are each reached at their own, a pod with two numbers at both, the policy's own pod's number plays no
//! part; the same per selected pod for ingress (89).

use crate::support::manifest::{BLUE, blue, multi};
use crate::support::world::World;

fn world(spec: &str) -> World {
    World::of([
        // Its own number for the name must not be the one that counts.
        blue("shop/client", 10, "app=client").port("api", "TCP", 1).yaml(),
        blue("shop/one", 11, "app=server").port("api", "TCP", 8001).yaml(),
        blue("shop/two", 12, "app=server")
            .port("api", "TCP", 8002)
            .port("api", "TCP", 9002)
            .yaml(),
        blue("shop/udp", 13, "app=server").port("api", "UDP", 8003).yaml(),
        multi("shop/guard", BLUE, spec),
    ])
}

fn check(world: &World) {
    let numbers: [(&str, &[u16]); 3] = [("shop/one", &[8001]), ("shop/two", &[8002, 9002]), ("shop/udp", &[])];
    for (server, own) in numbers {
        for port in [1, 8001, 8002, 8003, 9002] {
            let what = format!("{port}/tcp");
            world.check(BLUE, &[("shop/client", server, &what, own.contains(&port))]);
        }
        world.check(BLUE, &[("shop/client", server, "8003/udp", false)]);
    }
}

#[test]
fn s090_s091_s095_each_destination_has_its_own_numbers() {
    for to in [
        "to: [{podSelector: {matchLabels: {app: server}}}],",
        "to: [{namespaceSelector: {}}],",
        "",
    ] {
        let mut world = world(&format!(
            "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{{{to} ports: [{{port: api}}]}}]}}"
        ));
        check(&world);
        // A number that changes is followed, and the other destination keeps its own.
        world.apply(&blue("shop/one", 11, "app=server").port("api", "TCP", 8111).yaml());
        world.check(
            BLUE,
            &[
                ("shop/client", "shop/one", "8111/tcp", true),
                ("shop/client", "shop/one", "8001/tcp", false),
                ("shop/client", "shop/two", "8002/tcp", true),
            ],
        );
    }
}

#[test]
fn s089_each_selected_pod_has_its_own_numbers() {
    check(&world(
        "{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: api}]}]}",
    ));
}
