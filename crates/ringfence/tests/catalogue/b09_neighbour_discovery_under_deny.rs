//! B9: KR#1701 and #1710, openshift ovn-k#1043, cilium#16285, CNO#2010, MultiNetworkPolicy for iptables#37.
//!
//! A default deny dropped neighbour solicitations too, so IPv6 died as soon as the caches were empty, also for what a rule
//! allowed. Neighbour discovery passes under any policy (statement 121). Shown: with both pods closed in both directions but
//! for one IPv6 port, and their neighbour caches flushed, the allowed connection is made, and another port is not.

use ringfence_model::Family;
use ringfence_testkit::{Outcome, probe_all};

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, PATIENCE, spec};

#[test]
fn s121_an_allowed_ipv6_flow_works_with_empty_neighbour_caches() {
    let mut node = Node::new(
        "nd",
        vec![spec("shop/web", "app=web"), spec("shop/client", "app=client")],
    );
    node.start();
    let spec = "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}], \
                egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}";
    node.save("guard.yaml", &multi("shop/guard", BLUE, spec));
    let allowed = node.path("shop/client", "shop/web", Family::V6, 80).tcp();
    let refused = node.path("shop/client", "shop/web", Family::V6, 81).tcp();
    for round in 0..3 {
        for name in ["shop/web", "shop/client"] {
            node.pod(name)
                .exec("ip", &["-6", "neighbour", "flush", "all"])
                .expect("flushed");
        }
        // A second's worth of solicitations lies between two tries of the kernel, so this one may take long.
        let answers = probe_all(std::slice::from_ref(&allowed), PATIENCE).expect("a probe");
        assert_eq!(
            answers[0].outcome,
            Outcome::Reached,
            "round {round}\n{}",
            node.rules("shop/web")
        );
        assert_eq!(refused.ask().expect("a probe"), Outcome::Dropped);
    }
}
