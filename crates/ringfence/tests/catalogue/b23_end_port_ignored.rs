//! B23: cilium#28684, MultiNetworkPolicy for iptables#13.
//!
//! `endPort` was dropped in silence, so a range became its first port. It is inclusive at both ends (statement 85), and an
//! endPort that makes no sense matches nothing rather than one port (86). Shown: first, middle, last and the two ports
//! outside, for small ranges (one element per port) and large ones (a rule with a range), in both directions.

use crate::support::manifest::{BLUE, blue, multi};
use crate::support::world::World;

fn world(ports: &str, ingress: bool) -> World {
    let spec = if ingress {
        format!(
            "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{{podSelector: {{}}}}], ports: {ports}}}]}}"
        )
    } else {
        format!(
            "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {{}}}}], ports: {ports}}}]}}"
        )
    };
    World::of([
        blue("shop/web", 10, "app=web").port("api", "TCP", 80).yaml(),
        blue("shop/client", 11, "app=client").yaml(),
        multi("shop/guard", BLUE, &spec),
    ])
}

#[test]
fn s085_s088_a_range_is_inclusive() {
    for ingress in [true, false] {
        for (first, last) in [(80_u16, 80_u16), (80, 83), (1000, 2000), (1, 65535), (65534, 65535)] {
            for protocol in ["tcp", "udp", "sctp"] {
                let ports = format!(
                    "[{{protocol: {}, port: {first}, endPort: {last}}}]",
                    protocol.to_uppercase()
                );
                let world = world(&ports, ingress);
                let inside = [first, first + (last - first) / 2, last];
                let outside = [first.checked_sub(1).filter(|it| *it > 0), last.checked_add(1)];
                for (port, expected) in inside
                    .into_iter()
                    .map(|port| (port, true))
                    .chain(outside.into_iter().flatten().map(|port| (port, false)))
                {
                    let what = format!("{port}/{protocol}");
                    world.check(BLUE, &[("shop/client", "shop/web", &what, expected)]);
                }
            }
        }
    }
}

#[test]
fn s086_an_end_that_makes_no_sense_matches_nothing() {
    for ports in [
        "[{port: 80, endPort: 70}]",
        "[{port: api, endPort: 90}]",
        "[{endPort: 90}]",
        "[{port: 80, endPort: 70000}]",
    ] {
        for ingress in [true, false] {
            let world = world(ports, ingress);
            for what in ["70/tcp", "75/tcp", "80/tcp", "85/tcp", "90/tcp", "1/tcp"] {
                world.check(BLUE, &[("shop/client", "shop/web", what, false)]);
            }
            assert!(!world.said.is_empty(), "{ports} is reported");
        }
    }
}
