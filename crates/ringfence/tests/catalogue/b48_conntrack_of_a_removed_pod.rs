//! B48: felix#1500.
//!
//! Connections of a removed pod stayed in conntrack, and the next pod with its address went on with them. A pod's own table
//! goes with its namespace, and at the other pods an entry gives no right: each packet is judged by who the address belongs
//! to now (statements 52, 110). Shown in both directions with the very same ports: a pod that lets out to, and one that
//! admits, the old pod only; after another pod has taken the address the old flow gets no datagram through; with the right
//! label it does.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ringfence_model::Family;
use ringfence_testkit::{Pod, PodSpec};

use crate::support::manifest::{BLUE, admits, file, multi};
use crate::support::node::{Node, spec};

fn bind(pod: &Pod, port: u16) -> UdpSocket {
    let address = SocketAddr::new(pod.address(BLUE, Family::V4).expect("an address"), port);
    let socket = pod
        .netns
        .run(|| UdpSocket::bind(address))
        .expect("entered")
        .expect("bound");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a time-out");
    socket
}

/// Whether one of some datagrams arrives; the neighbour may have to be found first.
fn passes(from: &UdpSocket, to: &UdpSocket) -> bool {
    let target = to.local_addr().expect("an address");
    let mut buffer = [0; 16];
    (0..4).any(|_| {
        // Refused by our own rule: EPERM.
        let _ = from.send_to(b"x", target);
        to.recv(&mut buffer).is_ok()
    })
}

#[test]
fn s052_s110_the_next_owner_of_an_address_inherits_no_connection() {
    let mut node = Node::new(
        "reuse",
        vec![spec("shop/web", "app=web"), spec("shop/client", "app=client")],
    );
    let address = "10.21.1.77".parse().expect("an address");
    let owner = |name: &str, role: &str| {
        PodSpec::multus(name)
            .label("role", role)
            .attach("eth0", "cbr0")
            .attach_with("net1", BLUE, &[address])
    };
    let out = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {role: friend}}}]}]}";
    let policies = [
        admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
        multi("shop/out", BLUE, out),
    ];
    node.folder.save("policies.yaml", &file(&policies)).expect("saved");
    node.start();
    let web = bind(node.pod("shop/web"), 7000);
    let client = bind(node.pod("shop/client"), 7001);
    for (name, role, allowed) in [
        ("shop/old", "friend", true),
        ("shop/new", "stranger", false),
        ("shop/third", "friend", true),
    ] {
        node.add(vec![owner(name, role)]);
        node.save_pods();
        node.settle();
        let own = bind(node.pod(name), 7002);
        for pod in ["shop/web", "shop/client"] {
            // Another MAC address has the IP address now.
            node.pod(pod)
                .exec("ip", &["neighbour", "flush", "all"])
                .expect("flushed");
        }
        assert_eq!(passes(&own, &web), allowed, "{name} to web\n{}", node.rules("shop/web"));
        assert_eq!(
            passes(&client, &own),
            allowed,
            "client to {name}\n{}",
            node.rules("shop/client")
        );
        if allowed {
            let entries = node
                .pod("shop/web")
                .exec("conntrack", &["-L", "-p", "udp"])
                .expect("listed");
            assert!(
                entries.contains("10.21.1.77"),
                "there is an entry to be inherited: {entries}"
            );
        }
        drop(own);
        node.destroy(name);
        node.save_pods();
        node.settle();
    }
}
