//! B35: kube-network-policies' fix for SCTP behind its queue.
//!
//! SCTP packets that went through the engine's queue came out with a wrong checksum or not at all. Here nothing leaves the
//! kernel's path. Shown: SCTP that a router pod forwards, judged by its ingress on one interface and its egress on the other,
//! arrives byte for byte, in both families; SCTP to another port and TCP to the same port do not (statements 82, 170). The
//! frames are made by hand, so no kernel support for SCTP sockets is needed.

use std::net::SocketAddr;

use ringfence_model::Family;
use ringfence_testkit::frame::{self, Frame};
use ringfence_testkit::{Network, Outcome, PodSpec, Probe, Protocol, RawSender, Sniffer, Wiring};

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, PATIENCE, spec};

const FAR: &str = "shop/far";
const SCTP: u8 = 132;

#[test]
fn s082_s170_allowed_sctp_passes_both_judgements_unchanged() {
    let mut node = Node::empty("sctp");
    node.topology
        .network(Network::new(FAR, Wiring::Bridge))
        .expect("the far network");
    node.add(vec![
        spec("shop/client", ""),
        spec("shop/router", "app=router").attach("net2", FAR),
        PodSpec::multus("shop/server")
            .attach("eth0", "cbr0")
            .attach("net2", FAR),
    ]);
    node.save_pods();
    let (client, router, server) = (
        node.pod("shop/client").clone(),
        node.pod("shop/router").clone(),
        node.pod("shop/server").clone(),
    );
    router
        .netns
        .run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("IPv4 forwarding");
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("IPv6 forwarding");
        })
        .expect("entered");
    for (family, word) in [(Family::V4, "-4"), (Family::V6, "-6")] {
        // So that the answers to the TCP probe would find their way, and the neighbours are known.
        let via = router.address(FAR, family).expect("an address").to_string();
        let to = client.address(BLUE, family).expect("an address").to_string();
        server
            .exec("ip", &[word, "route", "add", &to, "via", &via])
            .expect("a route");
        let via = router.address(BLUE, family).expect("an address").to_string();
        let to = server.address(FAR, family).expect("an address").to_string();
        client
            .exec("ip", &[word, "route", "add", &to, "via", &via])
            .expect("a route");
    }
    let ports = "ports: [{protocol: SCTP, port: 5000}]";
    let blocks = "[{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 'fd00::/8'}}]";
    node.folder
        .save(
            "guard.yaml",
            &multi(
                "shop/guard",
                "shop/blue,shop/far",
                &format!(
                    "{{podSelector: {{matchLabels: {{app: router}}}}, policyTypes: [Ingress, Egress], \
             ingress: [{{from: {blocks}, {ports}}}], egress: [{{to: {blocks}, {ports}}}]}}"
                ),
            ),
        )
        .expect("saved");
    node.start();
    node.wait_state("shop/router", "enforced");
    let sender = RawSender::open(&client, "net1").expect("a sender");
    let heard = Sniffer::start(&server, "net2").expect("a sniffer");
    for family in Family::BOTH {
        let frame = |port: u16| Frame {
            source_mac: client.on(BLUE).expect("net1").mac,
            target_mac: router.on(BLUE).expect("net1").mac,
            source: SocketAddr::new(client.address(BLUE, family).expect("an address"), 6000),
            target: SocketAddr::new(server.address(FAR, family).expect("an address"), port),
        };
        // Denied ones first: when the allowed one has arrived, these would have too.
        sender.send(&frame(5001).sctp_init()).expect("sent");
        sender.send(&frame(5000).tcp_syn()).expect("sent");
        let sent = frame(5000).sctp_init();
        sender.send(&sent).expect("sent");
        let target = frame(5000).target;
        let arrived = heard
            .wait_for(PATIENCE, |packet| packet.protocol == SCTP && packet.target == target)
            .unwrap_or_else(|| panic!("{family:?}: allowed SCTP\n{}", node.rules("shop/router")));
        assert_eq!(Some(arrived), frame::parse(&sent), "{family:?}: unchanged");
        assert!(
            !heard.saw(|packet| packet.target.port() == 5001),
            "{family:?}: SCTP to another port"
        );
        assert!(
            !heard.saw(|packet| packet.protocol == 6 && packet.target == target),
            "{family:?}: TCP to that port"
        );
        let tcp = SocketAddr::new(target.ip(), 80);
        assert_eq!(
            Probe::from_pod(&client, Protocol::Tcp, tcp).ask().expect("a probe"),
            Outcome::Dropped
        );
    }
    node.delete("guard.yaml");
    let tcp = SocketAddr::new(server.address(FAR, Family::V4).expect("an address"), 80);
    node.eventually("the way is there", || {
        match Probe::from_pod(&client, Protocol::Tcp, tcp).ask() {
            Ok(Outcome::Reached) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
