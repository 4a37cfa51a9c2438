//! B13: OVN-K#5667, MultiNetworkPolicy for iptables#18, AWS#207.
//!
//! A pod with closed ingress got no answers to what it had asked, or no "fragmentation needed" from a router on the way, and
//! its large transfers hung. Answers and related errors belong to the connection (statements 100, 101, 102). Shown: a pod
//! whose ingress admits nobody, and whose egress knows the two servers only, opens TCP, UDP and ICMP in both families, and carries 30 KB through a router whose further
//! link is narrower, which only works when the router's errors arrive; nobody can open anything to it meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use ringfence_model::Family;
use ringfence_testkit::Protocol::{Icmp, Tcp, Udp};
use ringfence_testkit::{Network, Pod, PodSpec, Wiring};

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, PATIENCE, spec};

const FAR: &str = "shop/far";

fn ip(pod: &Pod, line: &str) {
    pod.exec("ip", &line.split(' ').collect::<Vec<_>>())
        .unwrap_or_else(|error| panic!("{line}: {error:#}"));
}

#[test]
fn s100_s101_s102_answers_and_path_mtu_errors_reach_a_closed_pod() {
    let mut node = Node::empty("replies");
    node.topology
        .network(Network::new(FAR, Wiring::Bridge))
        .expect("the far network");
    node.add(vec![
        spec("shop/client", "app=client"),
        spec("shop/near", "role=near"),
        spec("shop/router", "").attach("net2", FAR),
        PodSpec::multus("shop/server")
            .attach("eth0", "cbr0")
            .attach("net2", FAR),
    ]);
    node.save_pods();
    let [client, router, server] = ["shop/client", "shop/router", "shop/server"].map(|name| node.pod(name).clone());
    let (client, router, server) = (&client, &router, &server);
    router
        .netns
        .run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("IPv4 forwarding");
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("IPv6 forwarding");
        })
        .expect("entered");
    // Large packets fit on blue and not on the far network.
    ip(router, "link set net2 mtu 1300");
    for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
        let address = |pod: &Pod, network: &str| pod.address(network, family).expect("an address");
        ip(
            client,
            &format!(
                "{option} route add {} via {}",
                address(server, FAR),
                address(router, BLUE)
            ),
        );
        // The server keeps to the narrow link and does not tell the client of it.
        let advertised = if family == Family::V4 { 1460 } else { 1440 };
        let back = format!(
            "{option} route add {} via {} mtu 1300 advmss {advertised}",
            address(client, BLUE),
            address(router, FAR)
        );
        ip(server, &back);
    }
    // The router is no peer: its errors pass because of the connections that they are about.
    let deny = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress, Egress], ingress: [], \
                egress: [{to: [{podSelector: {matchLabels: {role: near}}}, {ipBlock: {cidr: 10.22.0.0/16}}, {ipBlock: {cidr: 'fd00:22::/64'}}]}]}";
    node.folder
        .save("guard.yaml", &multi("shop/guard", BLUE, deny))
        .expect("saved");
    node.start();
    node.wait_state("shop/client", "enforced");
    let out = [Tcp, Udp, Icmp].map(|protocol| ("shop/client", "shop/near", protocol, 80, true));
    let back = [Tcp, Udp, Icmp].map(|protocol| ("shop/near", "shop/client", protocol, 80, false));
    node.check(&[out, back].concat());

    for family in Family::BOTH {
        let target = SocketAddr::new(server.address(FAR, family).expect("an address"), 80);
        let mut stream = client
            .netns
            .run(|| TcpStream::connect_timeout(&target, PATIENCE))
            .expect("entered")
            .unwrap_or_else(|error| panic!("{target}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        // In pieces, each echoed before the next, so that neither end's buffers fill up.
        let piece = vec![b'x'; 6000];
        let mut echoed = 0;
        for _ in 0..5 {
            stream.write_all(&piece).expect("sent");
            let mut received = 0;
            let mut buffer = [0; 8192];
            while received < piece.len() {
                let length = stream.read(&mut buffer).unwrap_or_else(|error| {
                    panic!(
                        "{family:?}: {received} bytes came back: {error}\n{}",
                        node.rules("shop/client")
                    )
                });
                assert!(length > 0, "closed");
                received += length;
            }
            echoed += received;
        }
        assert!(echoed >= 30_000, "{echoed}");
        let route = client
            .exec("ip", &["route", "get", &target.ip().to_string()])
            .expect("a route");
        assert!(route.contains("mtu 1300"), "the router's error was needed: {route}");
    }
}
