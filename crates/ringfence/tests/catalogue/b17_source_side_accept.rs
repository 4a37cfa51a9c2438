//! B17: CVE-2022-0567 (OVN-K), KR#915 and #916, antrea#3809.
//!
//! The egress policy of the sender accepted a packet for good, and the ingress policy of the receiver on the same node was
//! never asked. Both ends are asked, each in its own namespace (statements 8, 9). Shown on one node by real traffic in both
//! families, for TCP, UDP and ICMP, and the other way round: an ingress that admits does not open a closed egress.

use ringfence_testkit::Protocol::{Icmp, Tcp, Udp};

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, spec};

#[test]
fn s008_s009_neither_end_decides_for_the_other() {
    let mut node = Node::new("both-ends", vec![spec("shop/a", "app=a"), spec("shop/b", "app=b")]);
    node.start();
    let a = |types: &str, rules: &str| {
        multi(
            "shop/for-a",
            BLUE,
            &format!("{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [{types}], {rules}}}"),
        )
    };
    let b = |types: &str, rules: &str| {
        multi(
            "shop/for-b",
            BLUE,
            &format!("{{podSelector: {{matchLabels: {{app: b}}}}, policyTypes: [{types}], {rules}}}"),
        )
    };
    let all = |reached: bool| [Tcp, Udp, Icmp].map(|protocol| ("shop/a", "shop/b", protocol, 80, reached));

    node.save("a.yaml", &a("Egress", "egress: [{}]"));
    node.check(&all(true));
    node.save("b.yaml", &b("Ingress", "ingress: []"));
    node.check(&all(false));
    node.save(
        "a.yaml",
        &a("Egress", "egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]"),
    );
    node.check(&all(false));
    node.save(
        "b.yaml",
        &b("Ingress", "ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]"),
    );
    node.check(&all(true));
    node.save("a.yaml", &a("Egress", "egress: []"));
    node.check(&all(false));
    node.save("b.yaml", &b("Ingress", "ingress: [{}]"));
    node.check(&all(false));
}
