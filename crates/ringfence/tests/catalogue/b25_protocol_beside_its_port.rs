//! B25: read in the source of MultiNetworkPolicy for nftables.
//!
//! `{UDP}` was lost where the same protocol also listed a port, so the rule shrank to that port. The entries of a list
//! are a union (statement 81). Shown for both orders, both directions and all protocols, with ranges and names beside it.

use crate::support::manifest::{BLUE, blue, multi};
use crate::support::world::World;

#[test]
fn s081_a_protocol_and_one_of_its_ports_are_the_whole_protocol() {
    for (protocol, other) in [("udp", "tcp"), ("tcp", "udp"), ("sctp", "udp")] {
        let name = protocol.to_uppercase();
        let entries = [
            format!("{{protocol: {name}}}"),
            format!("{{protocol: {name}, port: 80}}"),
            format!("{{protocol: {name}, port: 90, endPort: 99}}"),
            format!("{{protocol: {name}, port: api}}"),
            format!("{{protocol: {}, port: 53}}", other.to_uppercase()),
        ];
        for turn in 0..entries.len() {
            let mut turned = entries.to_vec();
            turned.rotate_left(turn);
            let ports = turned.join(", ");
            for spec in [
                format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: [{ports}]}}]}}"),
                format!(
                    "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{{podSelector: {{}}}}], ports: [{ports}]}}]}}"
                ),
                format!(
                    "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {{}}}}], ports: [{ports}]}}]}}"
                ),
            ] {
                let world = World::of([
                    blue("shop/web", 10, "app=web").port("api", &name, 8080).yaml(),
                    blue("shop/client", 11, "app=client").yaml(),
                    multi("shop/guard", BLUE, &spec),
                ]);
                for port in [1, 79, 80, 95, 8080, 65535] {
                    let (own, foreign) = (format!("{port}/{protocol}"), format!("{port}/{other}"));
                    world.check(
                        BLUE,
                        &[
                            ("shop/client", "shop/web", &own, true),
                            ("shop/client", "shop/web", &foreign, false),
                        ],
                    );
                }
                let beside = format!("53/{other}");
                world.check(
                    BLUE,
                    &[
                        ("shop/client", "shop/web", &beside, true),
                        ("shop/client", "shop/web", "ping", false),
                    ],
                );
            }
        }
    }
}
