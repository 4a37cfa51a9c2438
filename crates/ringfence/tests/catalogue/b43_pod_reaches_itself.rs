//! B43: antrea#5687, k/k#125611, network-policy-api#343, #390 and #405.
//!
//! Engines differed, and erred, on whether a pod may reach itself under a deny: by loopback, by its own address, from one of
//! its interfaces to another. It always does (statements 118, 119, 169). Shown by real traffic under deny-all on every
//! network, in both families; a packet from the wire that claims the pod's own address is not taken for one (120).

use std::net::SocketAddr;

use ringfence_model::Family;
use ringfence_testkit::Protocol::{Icmp, Tcp, Udp};
use ringfence_testkit::frame::Frame;
use ringfence_testkit::{Outcome, Probe, RawSender, TIMEOUT, probe_all};

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, PATIENCE, spec};

#[test]
fn s118_s119_s120_a_pod_reaches_itself_and_nobody_can_pretend_to_be_it() {
    let mut node = Node::new("hairpin", vec![spec("shop/web", "app=web"), spec("shop/other", "")]);
    let deny = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}";
    node.folder
        .save("guard.yaml", &multi("shop/guard", "shop/blue,default", deny))
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let web = node.pod("shop/web");
    let mut probes = Vec::new();
    for interface in &web.interfaces {
        for address in &interface.addresses {
            probes
                .extend([Tcp, Udp, Icmp].map(|protocol| Probe::from_pod(web, protocol, SocketAddr::new(*address, 80))));
        }
    }
    // Blue to the cluster network's address and back.
    for (from, to) in [(0, 1), (1, 0)] {
        let mut probe = Probe::from_pod(web, Tcp, SocketAddr::new(web.interfaces[to].addresses[0], 80));
        probe.source = Some(web.interfaces[from].addresses[0]);
        probes.push(probe);
    }
    for loopback in ["127.0.0.1:9", "[::1]:9"] {
        probes.push(Probe::from_pod(web, Tcp, loopback.parse().expect("an address")));
    }
    let answers = probe_all(&probes, TIMEOUT).expect("probes");
    for (probe, answer) in probes.iter().zip(&answers) {
        // Nobody listens on the loopback address, and says so.
        let expected = if probe.to.port() == 9 {
            Outcome::Refused
        } else {
            Outcome::Reached
        };
        assert_eq!(answer.outcome, expected, "{} {:?}", probe.label, probe.protocol);
    }
    node.check(&[
        ("shop/other", "shop/web", Tcp, 80, false),
        ("shop/web", "shop/other", Tcp, 80, false),
    ]);

    // Forged from the wire, over IPv6, where no martian check helps. The stream's receiver listens on 9000.
    let stream = node.stream_of("shop/other", "shop/web", Family::V6);
    let own = web.address(BLUE, Family::V6).expect("an address");
    let forged = Frame {
        source_mac: node.pod("shop/other").on(BLUE).expect("net1").mac,
        target_mac: web.on(BLUE).expect("net1").mac,
        source: SocketAddr::new(own, 40_000),
        target: SocketAddr::new(own, 9000),
    };
    let sender = RawSender::open(node.pod("shop/other"), "net1").expect("a sender");
    // The number 0, so that the stream would take it for its first datagram.
    sender.send(&forged.udp(&0_u64.to_be_bytes())).expect("sent");
    crate::support::node::assert_shut(&stream, "forged and plain");
    node.delete("guard.yaml");
    stream
        .wait_open(std::time::Instant::now(), PATIENCE)
        .expect("the way is there without a policy");
}
