//! Section I: kinds of traffic. Neighbour discovery and DHCP are in `discovery.rs`, fragments in `fragments.rs`.

use std::net::{IpAddr, SocketAddr};

use ringfence_model::Family;
use ringfence_testkit::manifest::{Policy, block};
use ringfence_testkit::packet::Ip;
use ringfence_testkit::{Probe, RawSender, Sniffer};
use serde_json::json;

use super::packets::{Cases, mac};
use super::world::{
    Asks, BLUE, CLUSTER, Dropped, FRIEND, GREEN, Icmp, Reached, Refused, SERVER, STRANGER, Tcp, Udp, World, friend,
    guard, tcp, udp, usual_pods,
};

/// Protocols other than TCP, UDP and SCTP, by number; 253 is for experiments.
const OTHERS: [(&str, u8); 5] = [("GRE", 47), ("ESP", 50), ("OSPF", 89), ("IPIP", 4), ("experiment", 253)];

/// One packet of each kind.
fn others(cases: &mut Cases, family: Family, ends: (IpAddr, IpAddr), passes: bool) {
    for (name, number) in OTHERS {
        // A GRE header without options that carries IPv4; any bytes for the others.
        cases.one(name, ends, passes, |ip| {
            ip.packet(number, &[0, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8])
        });
    }
    if family == Family::V4 {
        cases.one("IGMP", ends, passes, |ip| {
            ip.packet(2, &[0x16, 0, 0xf9, 0xfd, 239, 1, 1, 1])
        });
        cases.one("AH", ends, passes, |ip| {
            ip.packet(51, &[59, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])
        });
    }
    cases.one("echo", ends, passes, |ip| ip.echo(true, 3, 1));
    cases.one("timestamp or node query", ends, passes, |ip| {
        let kind = if family == Family::V4 { 13 } else { 139 };
        ip.icmp(kind, 0, &[0; 16])
    });
}

#[test]
fn s113_other_protocols_pass_by_rules_without_ports_only() {
    let mut world = World::usual("protocols");
    let every = [
        json!({"protocol": "TCP", "port": 1, "endPort": 65535}),
        json!({"protocol": "UDP"}),
        json!({"protocol": "SCTP"}),
    ];
    for (name, policy, passes) in [
        (
            "a peer without ports",
            guard().ingress(&[friend()], &[]).egress(&[friend()], &[]),
            true,
        ),
        (
            "a peer with every port",
            guard().ingress(&[friend()], &every).egress(&[friend()], &every),
            false,
        ),
        (
            "a block without ports",
            {
                let blocks = [block("10.21.0.0/16", &[]), block("fd00:21::/64", &[])];
                guard().ingress(&blocks, &[]).egress(&blocks, &[])
            },
            true,
        ),
        ("everybody", guard().ingress(&[], &[]).egress(&[], &[]), true),
        (
            "everybody with ports",
            guard().ingress(&[], &every).egress(&[], &every),
            false,
        ),
        ("nobody", guard().isolate_ingress().isolate_egress(), false),
    ] {
        world.policies(&[policy]);
        for family in Family::BOTH {
            let (server, peer) = (world.address(SERVER, BLUE, family), world.address(FRIEND, BLUE, family));
            // An unknown ICMPv6 type opens no connection for conntrack.
            let mut cases = Cases::default();
            others(&mut cases, family, (peer, server), passes);
            cases.arrive(
                &world,
                &format!("{name}, in, {family:?}"),
                (FRIEND, "net1"),
                (SERVER, "net1"),
            );
            let mut cases = Cases::default();
            others(&mut cases, family, (server, peer), passes);
            cases.leave(
                &world,
                &format!("{name}, out, {family:?}"),
                (SERVER, "net1"),
                (FRIEND, "net1"),
            );
        }
    }
}

#[test]
fn s114_deny_all_denies_echo_in_both_directions() {
    let mut world = World::usual("deny-all");
    let rows = |outcome| {
        [
            (FRIEND, SERVER, BLUE, Icmp, 0, outcome),
            (SERVER, FRIEND, BLUE, Icmp, 0, outcome),
            (FRIEND, SERVER, BLUE, Tcp, 80, outcome),
            (SERVER, FRIEND, BLUE, Udp, 80, outcome),
        ]
    };
    world.expect("open", &rows(Reached));
    world.policies(&[guard().isolate_ingress().isolate_egress()]);
    world.expect("closed", &rows(Dropped));
}

#[test]
fn s115_s116_arp_and_other_ethertypes_are_not_affected() {
    let mut world = World::usual("ethertypes");
    world.policies(&[guard().isolate_ingress().isolate_egress()]);
    let (server, peer) = (world.pod(SERVER), world.pod(FRIEND));
    // The kernel of each end answers for its address.
    let request = |from: &str, to: &str| {
        let address = |pod| match world.address(pod, BLUE, Family::V4) {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => panic!("IPv4 was asked for"),
        };
        let sender = mac(world.pod(from), "net1");
        [
            &[0xff; 6][..],
            &sender,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &sender,
            &address(from),
            &[0; 6],
            &address(to),
        ]
        .concat()
    };
    for (from, to) in [(SERVER, FRIEND), (FRIEND, SERVER)] {
        let answers = Sniffer::start(world.pod(from), "net1").expect("a sniffer");
        let sender = RawSender::open(world.pod(from), "net1").expect("a raw sender");
        sender.send(&request(from, to)).expect("sent");
        let answerer = mac(world.pod(to), "net1");
        world.eventually("an ARP answer", || {
            let frames = answers.frames();
            let is_answer = |frame: &Vec<u8>| frame[6..12] == answerer && frame[12..14] == [8, 6] && frame[21] == 2;
            if frames.iter().any(is_answer) {
                Ok(())
            } else {
                Err(format!("{from}: {frames:?}"))
            }
        });
    }
    // Local experiments (88b5), PPPoE, LLDP, MPLS: to the wire and from it, as ever. IP past the IP stack is not.
    for (from, to, ip_passes) in [(server, peer, false), (peer, server, true)] {
        let arrived = Sniffer::start(to, "net1").expect("a sniffer");
        let sender = RawSender::open(from, "net1").expect("a raw sender");
        let frame = |ether_type: u16| {
            let body = [0x5a; 46];
            [
                &mac(to, "net1")[..],
                &mac(from, "net1"),
                &ether_type.to_be_bytes(),
                &body,
            ]
            .concat()
        };
        for ether_type in [0x0800, 0x86dd, 0x88b5, 0x8863, 0x8847, 0x88cc] {
            sender.send(&frame(ether_type)).expect("sent");
        }
        world.eventually("the last of them", || {
            if arrived.frames().contains(&frame(0x88cc)) {
                Ok(())
            } else {
                Err(String::new())
            }
        });
        let frames = arrived.frames();
        for (ether_type, passes) in [
            (0x0800, ip_passes),
            (0x86dd, ip_passes),
            (0x88b5, true),
            (0x8863, true),
            (0x8847, true),
        ] {
            assert_eq!(
                frames.contains(&frame(ether_type)),
                passes,
                "{} {ether_type:x}",
                from.full_name()
            );
        }
    }
}

#[test]
fn s117_the_node_reaches_its_pods_on_the_cluster_network_and_on_no_other() {
    let mut world = World::new("node", usual_pods(), &["--network-policy-scope", "all"]);
    let closed = Policy::network("x/closed")
        .select(&[("app", "server")])
        .isolate_ingress()
        .isolate_egress();
    let from_node = |world: &World, what: &str, cluster, blue| {
        let node = world.topology.node(1).expect("a node").netns();
        let mut asks = Asks::default();
        for (network, family, outcome) in [
            (CLUSTER, Family::V4, cluster),
            (BLUE, Family::V4, blue),
            (BLUE, Family::V6, blue),
        ] {
            let target = SocketAddr::new(world.address(SERVER, network, family), 80);
            for protocol in [Tcp, Udp, Icmp] {
                // The node is a router and may not ping without this.
                if protocol != Icmp {
                    asks.ask(Probe::from_netns(node, protocol, target), outcome);
                }
            }
        }
        asks.check(world, what);
    };
    from_node(&world, "open", Reached, Reached);
    world.policies(std::slice::from_ref(&closed));
    from_node(&world, "closed", Reached, Dropped);
    world.expect(
        "other pods do not",
        &[
            (FRIEND, SERVER, CLUSTER, Tcp, 80, Dropped),
            (FRIEND, SERVER, CLUSTER, Icmp, 0, Dropped),
            (SERVER, FRIEND, CLUSTER, Tcp, 80, Dropped),
        ],
    );
    // The node's addresses there are addresses like others: a block names them, a port restricts them.
    let node = [block("10.21.1.1/32", &[]), block("fd00:21::1:1/128", &[])];
    world.policies(&[closed.clone(), guard().ingress(&node, &[])]);
    from_node(&world, "by a block", Reached, Reached);
    world.policies(&[closed.clone(), guard().ingress(&node, &[tcp(81), udp(81)])]);
    from_node(&world, "by a block with another port", Reached, Dropped);
    world.policies(&[closed, guard().ingress(&[], &[tcp(80), udp(80)])]);
    from_node(&world, "by a missing peer", Reached, Reached);
}

#[test]
fn s118_s119_s169_a_pod_reaches_itself() {
    let mut world = World::new("itself", usual_pods(), &["--network-policy-scope", "all"]);
    world.policies(&[
        Policy::network("x/closed").isolate_ingress().isolate_egress(),
        Policy::multi("x/closed", &[BLUE, GREEN, "default"])
            .isolate_ingress()
            .isolate_egress(),
    ]);
    let server = world.pod(SERVER);
    let mut asks = Asks::default();
    let loopback = ["127.0.0.1", "127.8.9.10", "::1"].map(|text| -> IpAddr { text.parse().expect("an address") });
    for address in loopback {
        // Nobody listens there: the refusal comes over lo.
        asks.ask_from(server, Tcp, SocketAddr::new(address, 80), Refused);
        asks.ask_from(server, Udp, SocketAddr::new(address, 80), Refused);
        asks.ask_from(server, Icmp, SocketAddr::new(address, 0), Reached);
    }
    let all: Vec<IpAddr> = server.interfaces.iter().flat_map(|it| &it.addresses).copied().collect();
    assert_eq!(all.len(), 5, "three interfaces, two of them with both families");
    for target in &all {
        // Servers answer where they were asked; nobody listens at port 90, and the refusal comes over lo, whichever of
        // its own addresses the pod uses.
        for protocol in [Tcp, Udp, Icmp] {
            asks.ask_from(server, protocol, SocketAddr::new(*target, 80), Reached);
        }
        for source in all.iter().filter(|source| source.is_ipv4() == target.is_ipv4()) {
            for (protocol, outcome) in [(Tcp, Refused), (Udp, Refused), (Icmp, Reached)] {
                let mut probe = Probe::from_pod(server, protocol, SocketAddr::new(*target, 90));
                probe.source = Some(*source);
                probe.label = format!("{source} to {target}");
                asks.ask(probe, outcome);
            }
        }
    }
    asks.check(&world, "loopback and own addresses");
    world.expect(
        "nobody else is reached",
        &[
            (SERVER, FRIEND, BLUE, Tcp, 80, Dropped),
            (SERVER, FRIEND, GREEN, Tcp, 80, Dropped),
            (SERVER, FRIEND, CLUSTER, Tcp, 80, Dropped),
        ],
    );
}

#[test]
fn s120_own_and_loopback_addresses_on_the_wire_are_no_exemption() {
    let mut world = World::new("forged", usual_pods(), &["--network-policy-scope", "all"]);
    let closed = Policy::network("x/closed")
        .select(&[("app", "server")])
        .isolate_ingress();
    world.policies(&[closed, guard().ingress(&[friend()], &[tcp(80)])]);
    for family in Family::BOTH {
        let server = world.address(SERVER, BLUE, family);
        let loopback: IpAddr = match family {
            Family::V4 => "127.0.0.1".parse(),
            Family::V6 => "::1".parse(),
        }
        .expect("an address");
        let mut cases = Cases::default();
        for (name, source, passes) in [
            ("its own address", server, false),
            ("loopback", loopback, false),
            ("its own address on green", world.address(SERVER, GREEN, family), false),
            ("the friend", world.address(FRIEND, BLUE, family), true),
        ] {
            cases.one(format!("TCP of {name}"), (source, server), passes, |ip| {
                ip.tcp(4000, 80, 2)
            });
            cases.one(format!("UDP of {name}"), (source, server), false, |ip| {
                ip.udp(4000, 80, b"x")
            });
        }
        cases.arrive(
            &world,
            &format!("blue, {family:?}"),
            (STRANGER, "net1"),
            (SERVER, "net1"),
        );
    }
    let server = world.address(SERVER, CLUSTER, Family::V4);
    let mut cases = Cases::default();
    cases.one("its own address", (server, server), false, |ip| ip.tcp(4000, 80, 2));
    cases.one(
        "loopback",
        ("127.0.0.1".parse().expect("an address"), server),
        false,
        |ip| ip.tcp(4000, 80, 2),
    );
    cases.one(
        "the node's",
        ("10.20.1.1".parse().expect("an address"), server),
        true,
        |ip| ip.tcp(4000, 80, 2),
    );
    cases.arrive(&world, "the cluster network", (STRANGER, "eth0"), (SERVER, "eth0"));
}

#[test]
fn s124_multicast_and_broadcast_are_destinations_like_others() {
    let mut world = World::usual("multicast");
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let groups = [
        "239.1.1.1",
        "224.0.0.251",
        "255.255.255.255",
        "10.21.255.255",
        "ff02::fb",
        "ff05::1234",
    ]
    .map(address);
    let blocks = [
        block("224.0.0.0/4", &["239.0.0.0/8"]),
        block("255.255.255.255/32", &[]),
        block("ff02::/16", &[]),
    ];
    // Who of the groups gets UDP 5353, and who another port.
    let none = [false; 6];
    for (name, policy, mdns, other) in [
        (
            "pods only",
            guard().egress(&[json!({"podSelector": {}, "namespaceSelector": {}})], &[]),
            none,
            none,
        ),
        (
            "blocks",
            guard().egress(&blocks, &[]),
            [false, true, true, false, true, false],
            [false, true, true, false, true, false],
        ),
        (
            "everybody, one port",
            guard().egress(&[], &[udp(5353)]),
            [true; 6],
            none,
        ),
        ("nobody", guard().isolate_egress(), none, none),
    ] {
        world.policies(&[policy]);
        let mut cases = Cases::default();
        for (group, (mdns, other)) in groups.into_iter().zip(mdns.into_iter().zip(other)) {
            let family = Family::of(group);
            let ends = (world.address(SERVER, BLUE, family), group);
            cases.one(format!("{group}, UDP 5353"), ends, mdns, |ip| {
                ip.udp(5353, 5353, b"who")
            });
            cases.one(format!("{group}, UDP 9"), ends, other, |ip| ip.udp(5353, 9, b"who"));
        }
        cases.leave(&world, name, (SERVER, "net1"), (FRIEND, "net1"));
    }
    // What arrives for a group is judged by who has sent it.
    world.policies(&[guard().ingress(&[friend()], &[udp(5353)])]);
    let mut cases = Cases::default();
    for group in groups {
        let family = Family::of(group);
        for (from, passes) in [(FRIEND, true), (STRANGER, false)] {
            let ends = (world.address(from, BLUE, family), group);
            cases.one(format!("{from} to {group}"), ends, passes, |ip| {
                ip.udp(5353, 5353, b"who")
            });
            cases.one(format!("{from} to {group}, another port"), ends, false, |ip| {
                ip.udp(5353, 9, b"who")
            });
        }
    }
    cases.arrive(&world, "arriving", (FRIEND, "net1"), (SERVER, "net1"));
}

/// VXLAN network 7 around an Ethernet frame.
fn vxlan(inner: &[u8]) -> Vec<u8> {
    let mut out = vec![8, 0, 0, 0, 0, 0, 7, 0];
    out.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    out.extend(inner);
    out
}

#[test]
fn s126_tunnels_are_judged_by_their_outer_header() {
    let mut world = World::usual("tunnels");
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    // Inside: the friend to port 80, the stranger to port 81.
    let server = world.address(SERVER, BLUE, Family::V4);
    let good = Ip::new(world.address(FRIEND, BLUE, Family::V4), server, 9).tcp(4000, 80, 2);
    let bad = Ip::new(address("192.0.2.99"), address("192.0.2.98"), 9).tcp(4000, 81, 2);
    let tried = |world: &World, name: &str, udp_passes: bool, plain_passes: bool| {
        for (from, to, arrives) in [
            (FRIEND, SERVER, true),
            (STRANGER, SERVER, true),
            (SERVER, FRIEND, false),
        ] {
            for family in Family::BOTH {
                let ends = (world.address(from, BLUE, family), world.address(to, BLUE, family));
                let known = from != STRANGER;
                let mut cases = Cases::default();
                for (inside, inner) in [("good", &good), ("bad", &bad)] {
                    cases.one(format!("VXLAN, {inside}"), ends, known && udp_passes, |ip| {
                        ip.udp(5000, 4789, &vxlan(inner))
                    });
                    cases.one(format!("other port, {inside}"), ends, known && plain_passes, |ip| {
                        ip.udp(5000, 4790, &vxlan(inner))
                    });
                    cases.one(format!("IPIP, {inside}"), ends, known && plain_passes, |ip| {
                        ip.packet(4, inner)
                    });
                    cases.one(format!("GRE, {inside}"), ends, known && plain_passes, |ip| {
                        ip.packet(47, &[&[0, 0, 8, 0][..], inner].concat())
                    });
                }
                let what = format!("{name}: {from} to {to}, {family:?}");
                if arrives {
                    cases.arrive(world, &what, (from, "net1"), (to, "net1"));
                } else {
                    cases.leave(world, &what, (from, "net1"), (to, "net1"));
                }
            }
        }
    };
    world.policies(&[guard()
        .ingress(&[friend()], &[udp(4789), tcp(80)])
        .egress(&[friend()], &[udp(4789), tcp(80)])]);
    tried(&world, "VXLAN and TCP 80", true, false);
    world.policies(&[guard().ingress(&[friend()], &[]).egress(&[friend()], &[])]);
    tried(&world, "everything of the friend's", true, true);
    world.policies(&[guard().ingress(&[friend()], &[tcp(80)]).egress(&[friend()], &[tcp(80)])]);
    tried(&world, "TCP 80 only", false, false);
}

#[test]
fn s127_a_redirect_inside_the_pod_does_not_change_what_is_judged() {
    let mut world = World::usual("redirected");
    // A sidecar takes what is for port 80 at port 81.
    world
        .pod(SERVER)
        .nft(
            "table inet sidecar {\n chain in {\n type nat hook prerouting priority dstnat;\n \
             iifname \"net1\" tcp dport 80 redirect to :81\n }\n}\n",
        )
        .expect("nft");
    world.policies(&[guard().ingress(&[friend()], &[tcp(80)])]);
    world.expect(
        "the port on the wire is allowed",
        &[
            (FRIEND, SERVER, BLUE, Tcp, 80, Reached),
            (FRIEND, SERVER, BLUE, Tcp, 81, Dropped),
            (STRANGER, SERVER, BLUE, Tcp, 80, Dropped),
        ],
    );
    world.policies(&[guard().ingress(&[friend()], &[tcp(81)])]);
    world.expect(
        "only the port behind is allowed",
        &[
            (FRIEND, SERVER, BLUE, Tcp, 80, Dropped),
            (FRIEND, SERVER, BLUE, Tcp, 81, Reached),
        ],
    );
    // What the pod sends to port 80 of the friend's leaves for its port 81.
    let rewrite = Family::BOTH.map(|family| {
        let address = world.address(FRIEND, BLUE, family);
        let ip = if family == Family::V4 { "ip" } else { "ip6" };
        let target = SocketAddr::new(address, 81);
        format!("{ip} daddr {address} tcp dport 80 dnat {ip} to {target}\n")
    });
    let rewrite = rewrite.concat();
    world
        .pod(SERVER)
        .nft(&format!(
            "delete table inet sidecar\ntable inet sidecar {{\n chain out {{\n type nat hook output priority -100;\n {rewrite} }}\n}}\n"
        ))
        .expect("nft");
    world.policies(&[guard().egress(&[friend()], &[tcp(81)])]);
    world.expect(
        "it leaves for a port that is allowed",
        &[
            (SERVER, FRIEND, BLUE, Tcp, 80, Reached),
            (SERVER, FRIEND, BLUE, Tcp, 81, Reached),
        ],
    );
    world.policies(&[guard().egress(&[friend()], &[tcp(80)])]);
    world.expect(
        "it leaves for a port that is not",
        &[
            (SERVER, FRIEND, BLUE, Tcp, 80, Dropped),
            (SERVER, FRIEND, BLUE, Tcp, 81, Dropped),
        ],
    );
}

/// The kernel's SCTP sockets are not needed: associations begin with crafted packets, which conntrack follows.
#[test]
fn s128_each_path_of_an_sctp_association_is_judged_by_its_addresses() {
    let mut world = World::usual("sctp");
    let ports = [json!({"protocol": "SCTP", "port": 3868})];
    world.policies(&[guard().ingress(&[friend()], &ports).egress(&[friend()], &ports)]);
    for family in Family::BOTH {
        let server = world.address(SERVER, BLUE, family);
        // The friend's second address, which no annotation has.
        let second: IpAddr = match family {
            Family::V4 => "10.21.1.201".parse(),
            Family::V6 => "fd00:21::1:201".parse(),
        }
        .expect("an address");
        let paths = [(world.address(FRIEND, BLUE, family), true), (second, false)];
        let (mut arriving, mut leaving) = (Cases::default(), Cases::default());
        for (address, passes) in paths {
            arriving.one(format!("INIT from {address}"), (address, server), passes, |ip| {
                ip.sctp_init(4000, 3868)
            });
            arriving.one(format!("another port from {address}"), (address, server), false, |ip| {
                ip.sctp_init(4000, 3869)
            });
            arriving.one(format!("TCP from {address}"), (address, server), false, |ip| {
                ip.tcp(4000, 3868, 2)
            });
            leaving.one(format!("INIT to {address}"), (server, address), passes, |ip| {
                ip.sctp_init(5000, 3868)
            });
            leaving.one(format!("another port to {address}"), (server, address), false, |ip| {
                ip.sctp_init(5000, 3869)
            });
        }
        arriving.arrive(&world, &format!("in, {family:?}"), (FRIEND, "net1"), (SERVER, "net1"));
        // The second address exists, so that what passes can be delivered.
        let length = if family == Family::V4 { 16 } else { 64 };
        let with_length = format!("{second}/{length}");
        world
            .pod(FRIEND)
            .exec("ip", &["address", "add", &with_length, "dev", "net1", "nodad"])
            .expect("added");
        leaving.leave(&world, &format!("out, {family:?}"), (SERVER, "net1"), (FRIEND, "net1"));
        // With a rule of its own the second path passes.
        let second = [
            friend(),
            block(
                &format!("{second}/{}", if family == Family::V4 { 32 } else { 128 }),
                &[],
            ),
        ];
        world.policies(&[guard().ingress(&second, &ports)]);
        let mut both = Cases::default();
        for (address, _) in paths {
            both.one(format!("INIT from {address}"), (address, server), true, |ip| {
                ip.sctp_init(4001, 3868)
            });
        }
        both.arrive(&world, &format!("both, {family:?}"), (FRIEND, "net1"), (SERVER, "net1"));
        world.policies(&[guard().ingress(&[friend()], &ports).egress(&[friend()], &ports)]);
    }
}
