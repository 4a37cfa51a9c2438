//! B33: antrea#2579, kube-router's REJECT.
//!
//! A denied packet was answered with a reset or an ICMP error, which looped, went out by the wrong interface or was itself
//! denied. Here what is denied is dropped in silence (the vocabulary of rules has no reject). Shown: the sender of a denied
//! packet hears nothing at all, in both families, while the refusals that the pod itself sends for allowed traffic to a
//! closed port do arrive (statement 102).

use std::time::Duration;

use ringfence_model::Family;
use ringfence_testkit::{Outcome, Sniffer, probe_all};

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, spec};

#[test]
fn s102_denied_traffic_is_met_with_silence_and_refusals_pass() {
    let mut node = Node::new(
        "silence",
        vec![
            spec("shop/web", "app=web"),
            spec("shop/friend", "role=friend"),
            spec("shop/stranger", ""),
        ],
    );
    let guard = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]}";
    node.folder
        .save("guard.yaml", &multi("shop/guard", BLUE, guard))
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    for family in Family::BOTH {
        let address = node.pod("shop/web").address(BLUE, family).expect("an address");
        // Nobody listens on 999: an open pod would say so.
        let ask = |from: &str| {
            let path = node.path(from, "shop/web", family, 999);
            let probes = [path.tcp(), path.udp()];
            let answers = probe_all(&probes, ringfence_testkit::TIMEOUT).expect("probes");
            answers.into_iter().map(|it| it.outcome).collect::<Vec<_>>()
        };
        let heard = Sniffer::start(node.pod("shop/stranger"), "net1").expect("a sniffer");
        assert_eq!(ask("shop/stranger"), [Outcome::Dropped, Outcome::Dropped], "{family:?}");
        // Neighbour discovery is no answer to what was sent.
        let answer = heard.wait_for(Duration::from_millis(50), |packet| {
            let discovery = packet.protocol == 58 && packet.rest.first().is_some_and(|kind| (133..=137).contains(kind));
            packet.source.ip() == address && !discovery
        });
        assert_eq!(answer, None, "{family:?}");
        assert_eq!(
            ask("shop/friend"),
            [Outcome::Refused, Outcome::Refused],
            "{family:?}: refusals of allowed traffic"
        );
    }
    assert!(!node.rules("shop/web").contains("reject"));
}
