//! B22: OVN-K#5004.
//!
//! The CRD of MultiNetworkPolicy sets no defaults, and an engine that relied on them dereferenced a protocol that was not
//! there. A missing or null protocol is TCP (statements 78, 165). Shown for ports, ranges, names and entries with nothing
//! in them, in both directions; absent policyTypes are filled in as well (23).

use crate::support::manifest::{BLUE, blue, multi};
use crate::support::world::World;

fn check(ports: &str, questions: &[(&str, bool)]) {
    let ingress = format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: {ports}}}]}}");
    let egress = format!(
        "{{podSelector: {{matchLabels: {{app: client}}}}, egress: [{{to: [{{podSelector: {{}}}}], ports: {ports}}}]}}"
    );
    for spec in [ingress, egress] {
        let world = World::of([
            blue("shop/web", 10, "app=web")
                .port("http", "TCP", 8080)
                .port("dns", "UDP", 5353)
                .yaml(),
            blue("shop/client", 11, "app=client").yaml(),
            multi("shop/guard", BLUE, &spec),
        ]);
        for (what, expected) in questions {
            world.check(BLUE, &[("shop/client", "shop/web", what, *expected)]);
        }
    }
}

#[test]
fn s078_a_missing_protocol_is_tcp() {
    for ports in [
        "[{port: 80}]",
        "[{protocol: null, port: 80}]",
        "[{port: 80, endPort: 80}]",
    ] {
        check(
            ports,
            &[
                ("80/tcp", true),
                ("80/udp", false),
                ("80/sctp", false),
                ("81/tcp", false),
            ],
        );
    }
    check("[{port: 80, endPort: 90}]", &[("85/tcp", true), ("85/udp", false)]);
    check(
        "[{port: http}, {port: dns}]",
        &[("8080/tcp", true), ("5353/udp", false), ("5353/tcp", false)],
    );
    check(
        "[{}]",
        &[("1/tcp", true), ("65535/tcp", true), ("1/udp", false), ("ping", false)],
    );
}
