//! B21: KR#642, #643 and 79ef16b4, antrea#877 and #882, aci#1279.
//!
//! A port entry with a protocol and no port crashed engines or became a rule that the kernel's tool could not parse. It
//! means every port of that protocol and of no other (statement 80). Shown: the verdicts in both directions for all three
//! protocols, and that nft accepts the ruleset.

use crate::support::manifest::{BLUE, blue, multi};
use crate::support::world::World;
use ringfence_testkit::NamedNetns;

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

fn world(spec: &str) -> World {
    World::of([
        blue("shop/web", 10, "app=web").yaml(),
        blue("shop/client", 11, "app=client").yaml(),
        multi("shop/guard", BLUE, spec),
    ])
}

fn specs(protocol: &str) -> [String; 4] {
    let ports = format!("ports: [{{protocol: {}}}]", protocol.to_uppercase());
    [
        format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{{ports}}}]}}"),
        format!(
            "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{{podSelector: {{}}}}], {ports}}}]}}"
        ),
        format!("{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{{{ports}}}]}}"),
        format!(
            "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], \
             egress: [{{to: [{{podSelector: {{}}}}], {ports}}}]}}"
        ),
    ]
}

#[test]
fn s080_s082_every_port_of_the_protocol_and_no_other_protocol() {
    for protocol in PROTOCOLS {
        for spec in specs(protocol) {
            let world = world(&spec);
            for other in PROTOCOLS {
                for port in [1, 80, 65535] {
                    let what = format!("{port}/{other}");
                    world.check(BLUE, &[("shop/client", "shop/web", &what, protocol == other)]);
                }
            }
            world.check(
                BLUE,
                &[
                    ("shop/client", "shop/web", "ping", false),
                    ("shop/client", "shop/web", "gre", false),
                ],
            );
        }
    }
}

#[test]
fn s080_nft_takes_the_ruleset() {
    let netns =
        NamedNetns::create(&[format!("rf-bug-b21-p{}", std::process::id())]).expect("a namespace (are you root?)");
    // The netdev chains of the ruleset ask for a device.
    netns[0]
        .ip(&["link add net1 type veth peer name far".to_owned()])
        .expect("an interface");
    for protocol in PROTOCOLS {
        for spec in specs(protocol) {
            let world = world(&spec);
            let isolated = ["shop/web", "shop/client"]
                .into_iter()
                .find_map(|name| world.ruleset(name));
            // Loaded and taken away again; nft 1.0.6 has no word for the flag persist.
            let text = isolated.expect("one is isolated").to_string();
            let text: String = text
                .lines()
                .filter(|line| !line.trim().starts_with("flags owner"))
                .fold(String::new(), |out, line| out + line + "\n");
            netns[0].nft(&text).expect("nft takes it");
            netns[0].nft("flush ruleset").expect("flushed");
        }
    }
}
