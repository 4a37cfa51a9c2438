//! Statements 121 to 123: what keeps a network alive beneath every policy, and exactly that.

use std::net::IpAddr;

use ringfence_model::Family;
use ringfence_testkit::manifest::Manifest;
use ringfence_testkit::packet::Ip;
use serde_json::json;

use super::packets::Cases;
use super::world::{BLUE, FRIEND, SERVER, STRANGER, World, friend, guard};

/// An ICMPv6 message, and whether it passes when it arrives and when it leaves under a policy that denies everything.
struct Message {
    name: &'static str,
    kind: u8,
    code: u8,
    hops: u8,
    arrives: bool,
    leaves: bool,
}

const fn message(name: &'static str, (kind, code, hops): (u8, u8, u8), arrives: bool, leaves: bool) -> Message {
    Message {
        name,
        kind,
        code,
        hops,
        arrives,
        leaves,
    }
}

const MESSAGES: &[Message] = &[
    message("neighbour solicitation", (135, 0, 255), true, true),
    message("neighbour advertisement", (136, 0, 255), true, true),
    message("neighbour solicitation through a router", (135, 0, 254), false, false),
    message("neighbour advertisement through a router", (136, 0, 64), false, false),
    message("neighbour solicitation with a code", (135, 1, 255), false, false),
    message("neighbour advertisement with a code", (136, 3, 255), false, false),
    message("router solicitation", (133, 0, 255), false, true),
    message("router solicitation with hop limit 64", (133, 0, 64), false, false),
    message("router solicitation with a code", (133, 1, 255), false, false),
    message("router advertisement", (134, 0, 255), true, false),
    message("router advertisement with hop limit 254", (134, 0, 254), false, false),
    message("router advertisement with a code", (134, 1, 255), false, false),
    message("redirect", (137, 0, 255), false, false),
    message("redirect with hop limit 1", (137, 0, 1), false, false),
    message("listener query", (130, 0, 1), true, true),
    message("listener report", (131, 0, 1), true, true),
    message("listener done", (132, 0, 1), true, true),
    message("listener report, version 2", (143, 0, 1), true, true),
    message("echo request", (128, 0, 255), false, false),
    message("echo reply to nobody", (129, 0, 255), false, false),
    message("inverse neighbour solicitation", (141, 0, 255), false, false),
    message("router renumbering", (138, 0, 255), false, false),
    message("multicast router advertisement", (151, 0, 1), false, false),
    message("a type that nobody knows", (200, 0, 255), false, false),
];

/// The server's link-local address, made from its MAC address.
fn link_local(world: &World, pod: &str) -> IpAddr {
    let listing = world
        .pod(pod)
        .exec("ip", &["-6", "-o", "address", "show", "dev", "net1", "scope", "link"])
        .expect("ip");
    let address = listing.split_whitespace().find_map(|word| word.strip_suffix("/64"));
    address.expect("a link-local address").parse().expect("an address")
}

fn add(cases: &mut Cases, name: &str, ends: (IpAddr, IpAddr), passes: bool, message: &Message) {
    let (kind, code, hops) = (message.kind, message.code, message.hops);
    cases.one(format!("{}, {name}", message.name), ends, passes, |ip: Ip| {
        ip.hops(hops).icmp(kind, code, &[0; 28])
    });
}

#[test]
fn s121_s122_neighbour_and_listener_discovery_pass_exactly() {
    let mut world = World::usual("discovery");
    world.policies(&[guard().isolate_ingress().isolate_egress()]);
    let (server, peer) = (link_local(&world, SERVER), link_local(&world, STRANGER));
    let global = (
        world.address(STRANGER, BLUE, Family::V6),
        world.address(SERVER, BLUE, Family::V6),
    );
    let all_nodes: IpAddr = "ff02::1".parse().expect("an address");
    let all_routers: IpAddr = "ff02::2".parse().expect("an address");
    let (mut arriving, mut leaving) = (Cases::default(), Cases::default());
    for message in MESSAGES {
        add(
            &mut arriving,
            "to all nodes",
            (peer, all_nodes),
            message.arrives,
            message,
        );
        add(
            &mut arriving,
            "between global addresses",
            global,
            message.arrives,
            message,
        );
        add(
            &mut leaving,
            "to all routers",
            (server, all_routers),
            message.leaves,
            message,
        );
        add(
            &mut leaving,
            "between global addresses",
            (global.1, global.0),
            message.leaves,
            message,
        );
    }
    arriving.arrive(&world, "arriving", (STRANGER, "net1"), (SERVER, "net1"));
    leaving.leave(&world, "leaving", (SERVER, "net1"), (STRANGER, "net1"));

    // Other protocols beneath the same hop limit, and ICMP of IPv4 with the same numbers.
    let v4 = (
        world.address(STRANGER, BLUE, Family::V4),
        world.address(SERVER, BLUE, Family::V4),
    );
    let (mut arriving, mut leaving) = (Cases::default(), Cases::default());
    for (cases, v6, v4) in [
        (&mut arriving, global, v4),
        (&mut leaving, (global.1, global.0), (v4.1, v4.0)),
    ] {
        cases.one("UDP with hop limit 255", v6, false, |ip| {
            ip.hops(255).udp(135, 136, &[135, 0, 0, 0])
        });
        cases.one("TCP with hop limit 255", v6, false, |ip| ip.hops(255).tcp(135, 80, 2));
        for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
            cases.one(format!("ICMP of IPv4, type {kind}"), v4, false, |ip| {
                ip.hops(255).icmp(kind, 0, &[0; 28])
            });
        }
    }
    arriving.arrive(&world, "others, arriving", (STRANGER, "net1"), (SERVER, "net1"));
    leaving.leave(&world, "others, leaving", (SERVER, "net1"), (STRANGER, "net1"));

    // A real exchange: both ends have to find each other anew, and the deny holds for what follows.
    for pod in [SERVER, STRANGER, FRIEND] {
        world
            .pod(pod)
            .exec("ip", &["neigh", "flush", "dev", "net1"])
            .expect("flushed");
    }
    world.policies(&[guard().ingress(&[friend()], &[super::world::tcp(80)]).isolate_egress()]);
    world.expect(
        "neighbours are found",
        &[
            (FRIEND, SERVER, BLUE, super::world::Tcp, 80, super::world::Reached),
            (STRANGER, SERVER, BLUE, super::world::Tcp, 80, super::world::Dropped),
            (FRIEND, SERVER, BLUE, super::world::Icmp, 0, super::world::Dropped),
        ],
    );
}

#[test]
fn s121_questions_for_a_router_and_redirects_pass_where_everything_does() {
    let mut world = World::usual("redirect");
    world.policies(&[guard().ingress(&[friend()], &[])]);
    let server = world.address(SERVER, BLUE, Family::V6);
    let mut cases = Cases::default();
    for (peer, passes) in [(FRIEND, true), (STRANGER, false)] {
        let ends = (world.address(peer, BLUE, Family::V6), server);
        for kind in [133, 137] {
            let rest = [0; 28];
            cases.one(format!("{kind} of {peer}"), ends, passes, |ip| {
                ip.hops(255).icmp(kind, 0, &rest)
            });
            cases.one(format!("{kind} of {peer}, hop limit 64"), ends, false, |ip| {
                ip.hops(64).icmp(kind, 0, &rest)
            });
        }
    }
    cases.arrive(
        &world,
        "judged as traffic without ports",
        (STRANGER, "net1"),
        (SERVER, "net1"),
    );
}

/// The NetworkAttachmentDefinition of blue, with addresses by this plugin.
fn definition(ipam: &str) -> Manifest {
    let config = json!({"cniVersion": "1.0.0", "name": "blue", "type": "bridge", "ipam": {"type": ipam}});
    Manifest(json!({
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "blue", "namespace": "x"},
        "spec": {"config": config.to_string()},
    }))
}

#[test]
fn s123_dhcp_passes_where_the_network_has_its_addresses_from_there() {
    let mut world = World::usual("dhcp");
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let (nobody, everybody) = (address("0.0.0.0"), address("255.255.255.255"));
    // The friend is the server.
    let (dhcp4, dhcp6) = (world.address(FRIEND, BLUE, Family::V4), address("fe80::67"));
    let servers6 = address("ff02::1:2");
    let own = world.address(SERVER, BLUE, Family::V4);
    let (own6, other) = (link_local(&world, SERVER), world.address(STRANGER, BLUE, Family::V4));
    for (ipam, passes) in [("host-local", false), ("dhcp", true)] {
        world.put(definition(ipam));
        world.policies(&[guard().isolate_ingress().isolate_egress()]);
        let mut cases = Cases::default();
        cases.one("discover", (own, everybody), passes, |ip| ip.udp(68, 67, b"discover"));
        cases.one("renewal", (own, dhcp4), passes, |ip| ip.udp(68, 67, b"request"));
        cases.one("solicit", (own6, servers6), passes, |ip| ip.udp(546, 547, b"solicit"));
        cases.one("an answer of a server's", (own, everybody), false, |ip| {
            ip.udp(67, 68, b"offer")
        });
        cases.one("another port", (own, everybody), false, |ip| ip.udp(68, 69, b"no"));
        cases.one("another port of the client", (own, everybody), false, |ip| {
            ip.udp(1068, 67, b"no")
        });
        cases.one("TCP", (own, dhcp4), false, |ip| ip.tcp(68, 67, 2));
        cases.leave(&world, &format!("out, {ipam}"), (SERVER, "net1"), (FRIEND, "net1"));

        // A client that has no address yet uses a packet socket, which the IP stack's hooks do not see.
        let mut cases = Cases::default();
        cases.one("discover", (nobody, everybody), passes, |ip| {
            ip.udp(68, 67, b"discover")
        });
        cases.one("request", (own, dhcp4), passes, |ip| ip.udp(68, 67, b"request"));
        cases.one("solicit", (own6, servers6), passes, |ip| ip.udp(546, 547, b"solicit"));
        cases.one("an answer of a server's", (own, everybody), false, |ip| {
            ip.udp(67, 68, b"offer")
        });
        cases.one("another port", (nobody, everybody), false, |ip| ip.udp(68, 69, b"no"));
        cases.one("another port of the client", (own, other), false, |ip| {
            ip.udp(1068, 67, b"no")
        });
        cases.one("TCP", (own, other), false, |ip| ip.tcp(68, 67, 2));
        cases.case("another port in two pieces", (own, other), false, |ip| {
            ip.in_two(17, &ip.udp_segment(68, 69, &[7; 40]), 24).to_vec()
        });
        cases.leave_raw(
            &world,
            &format!("out of a packet socket, {ipam}"),
            (SERVER, "net1"),
            (FRIEND, "net1"),
        );

        let mut cases = Cases::default();
        cases.one("offer to everybody", (dhcp4, everybody), passes, |ip| {
            ip.udp(67, 68, b"offer")
        });
        cases.one("acknowledgement", (dhcp4, own), passes, |ip| ip.udp(67, 68, b"ack"));
        cases.one("advertise", (dhcp6, own6), passes, |ip| ip.udp(547, 546, b"advertise"));
        cases.one("a client's question", (other, everybody), false, |ip| {
            ip.udp(68, 67, b"discover")
        });
        cases.one("another port", (dhcp4, own), false, |ip| ip.udp(67, 80, b"no"));
        cases.one("another port of the server", (dhcp4, own), false, |ip| {
            ip.udp(53, 68, b"no")
        });
        cases.arrive(&world, &format!("in, {ipam}"), (FRIEND, "net1"), (SERVER, "net1"));
    }
}
