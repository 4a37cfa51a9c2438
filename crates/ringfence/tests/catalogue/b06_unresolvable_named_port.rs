//! B6: OVN-K#2117, aci#1707, MultiNetworkPolicy for iptables (the port chain was skipped).
//!
//! A port name that no container declares was left out, and the rule without ports then allowed every port. Engines that
//! hand the name to nft or iptables look it up in /etc/services instead. A name that nothing declares matches nothing
//! (statements 35, 93, 98). Shown: an unknown name, the right name with the wrong protocol and a name from /etc/services
//! open no port, in both directions, also when the declaring pod goes; entries beside it still count.

use crate::support::manifest::{BLUE, blue, multi};
use crate::support::world::World;

fn world(direction: &str, ports: &str) -> World {
    let spec = match direction {
        "ingress" => format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: {ports}}}]}}"),
        _ => format!(
            "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], \
             egress: [{{to: [{{podSelector: {{}}}}], ports: {ports}}}]}}"
        ),
    };
    World::of([
        blue("shop/web", 10, "app=web").port("metrics", "TCP", 9100).yaml(),
        blue("shop/client", 11, "app=client")
            .port("client-only", "TCP", 80)
            .yaml(),
        multi("shop/guard", BLUE, &spec),
    ])
}

#[test]
fn s035_s093_s098_a_name_that_the_destination_does_not_declare_opens_nothing() {
    let names = [
        "[{port: nosuch}]",
        "[{protocol: UDP, port: metrics}]",
        "[{port: http}]",
        "[{port: ssh}, {protocol: UDP, port: domain}]",
        "[{port: client-only}]",
        "[{port: '80'}]",
    ];
    for direction in ["ingress", "egress"] {
        for ports in names {
            let world = world(direction, ports);
            for what in [
                "22/tcp",
                "53/udp",
                "80/tcp",
                "9100/tcp",
                "9100/udp",
                "1/tcp",
                "65535/sctp",
                "ping",
            ] {
                world.check(BLUE, &[("shop/client", "shop/web", what, false)]);
            }
        }
    }
}

#[test]
fn s035_entries_beside_an_unknown_name_still_count() {
    for direction in ["ingress", "egress"] {
        let world = world(
            direction,
            "[{port: nosuch}, {port: metrics}, {protocol: UDP, port: 53}]",
        );
        world.check(
            BLUE,
            &[
                ("shop/client", "shop/web", "9100/tcp", true),
                ("shop/client", "shop/web", "53/udp", true),
                ("shop/client", "shop/web", "80/tcp", false),
            ],
        );
    }
}

#[test]
fn s090_a_name_that_stops_being_declared_closes() {
    for direction in ["ingress", "egress"] {
        let mut world = world(direction, "[{port: metrics}]");
        world.check(BLUE, &[("shop/client", "shop/web", "9100/tcp", true)]);
        world.apply(&blue("shop/web", 10, "app=web").yaml());
        world.check(
            BLUE,
            &[
                ("shop/client", "shop/web", "9100/tcp", false),
                ("shop/client", "shop/web", "80/tcp", false),
            ],
        );
    }
}
