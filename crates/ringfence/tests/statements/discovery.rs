//! Statements 121 to 123: what keeps a network alive beneath every policy, and exactly that.

use std::net::{IpAddr, Ipv6Addr};

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

/// A redirect to somebody else that quotes a packet, which makes it related to conntrack.
fn redirect(ip: Ip, quoted: &[u8]) -> Vec<u8> {
    if quoted[0] >> 4 == 4 {
        // For the host; the better gateway.
        return ip.icmp(5, 1, &[&[10, 21, 1, 251][..], quoted].concat());
    }
    let target: Ipv6Addr = "fe80::251".parse().expect("an address");
    let mut rest = [&[0; 4][..], &target.octets(), &quoted[24..40]].concat();
    // Option "redirected header": its length in units of 8 bytes, 6 bytes reserved, the packet.
    let mut quoted = quoted.to_vec();
    quoted.resize(quoted.len().next_multiple_of(8), 0);
    let units = u8::try_from(quoted.len() / 8 + 1).expect("a short packet");
    rest.extend([4, units, 0, 0, 0, 0, 0, 0]);
    rest.extend(quoted);
    ip.hops(255).icmp(137, 0, &rest)
}

#[test]
fn s102_s121_a_redirect_about_a_connection_is_no_error() {
    let mut world = World::usual("related");
    let count = |pod: &str, hook: &str| {
        // Before the agent's chains, so that it is certain that conntrack has called them related.
        let script = format!(
            "table inet look {{}}\ndelete table inet look\ntable inet look {{ counter four {{}}\ncounter six {{}}\n\
             chain look {{ type filter hook {hook} priority -190;\n\
             icmp type redirect ct state related counter name four\n\
             icmpv6 type nd-redirect ct state related counter name six\n}}\n}}\n"
        );
        (pod.to_owned(), script)
    };
    // A port each, then everything: a redirect of IPv4 is then traffic without ports like other (113).
    for (name, policy, all) in [
        (
            "ports",
            guard()
                .ingress(&[friend()], &[super::world::udp(80)])
                .egress(&[friend()], &[super::world::udp(81)]),
            false,
        ),
        (
            "everything",
            guard().ingress(&[friend()], &[]).egress(&[friend()], &[]),
            true,
        ),
    ] {
        world.policies(&[policy]);
        let (own, router6) = (link_local(&world, SERVER), link_local(&world, STRANGER));
        let (mut requests, mut out) = (Cases::default(), Cases::default());
        let (mut arriving, mut leaving) = (Cases::default(), Cases::default());
        for family in Family::BOTH {
            let (server, peer) = (world.address(SERVER, BLUE, family), world.address(FRIEND, BLUE, family));
            let stranger = world.address(STRANGER, BLUE, family);
            let v4 = family == Family::V4;
            requests.one("to the server", (peer, server), true, |ip| ip.udp(5001, 80, b"hello"));
            out.one("of the server", (server, peer), true, |ip| ip.udp(5002, 81, b"hello"));
            let (from, to) = (Ip::new(server, peer, 1), Ip::new(peer, server, 1));
            for (what, quoted) in [
                ("an answer", from.udp(80, 5001, b"answer")),
                ("a request", from.udp(5002, 81, b"request")),
            ] {
                let ends = (if v4 { stranger } else { router6 }, server);
                arriving.one(format!("about {what}, {family:?}"), ends, false, |ip| {
                    redirect(ip, &quoted)
                });
            }
            for (what, quoted) in [
                ("a request", to.udp(5001, 80, b"request")),
                ("an answer", to.udp(81, 5002, b"answer")),
            ] {
                let ends = (if v4 { server } else { own }, peer);
                leaving.one(format!("about {what}, {family:?}"), ends, v4 && all, |ip| {
                    redirect(ip, &quoted)
                });
            }
        }
        requests.arrive(&world, "a connection to the server", (FRIEND, "net1"), (SERVER, "net1"));
        out.leave(&world, "a connection of the server", (SERVER, "net1"), (FRIEND, "net1"));
        for hook in ["prerouting", "output"] {
            let (pod, script) = count(SERVER, hook);
            world.pod(&pod).nft(&script).expect("nft");
            if hook == "prerouting" {
                arriving.arrive(&world, &format!("in, {name}"), (STRANGER, "net1"), (SERVER, "net1"));
            } else {
                leaving.leave(&world, &format!("out, {name}"), (SERVER, "net1"), (FRIEND, "net1"));
            }
            let seen = world
                .pod(SERVER)
                .exec("nft", &["list", "table", "inet", "look"])
                .expect("nft");
            assert_eq!(
                seen.matches("packets 2 ").count(),
                2,
                "conntrack calls them related at {hook}: {seen}"
            );
        }
    }
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
