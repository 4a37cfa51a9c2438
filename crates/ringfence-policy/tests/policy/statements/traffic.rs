//! Groups H and I, as far as rules decide: answers, errors, echoes, discovery, what is no IP, loopback. The kernel's
//! part of the same statements is tested on real packets.
//!
//! x/a is isolated both ways: x/b may open TCP 80 to it, and it may open UDP 53 to x/b.

use ringfence_model::Family;
use ringfence_ruleset::{Conntrack, Content, CtDirection, Decision, Packet, Path, Ruleset, Transport, trace};

use super::*;
use crate::support::{facts, interface};

const OWN: &str = "10.20.1.10";
const PEER: &str = "10.20.1.11";
const STRANGER: &str = "10.20.1.12";

fn ruleset() -> Ruleset {
    let guard = guard()
        .ingress([rule([pods("app=db")], [tcp(80)])])
        .egress([rule([pods("app=db")], [udp(53)])]);
    compiled(guard)
}

fn compiled(guard: PolicyBuilder) -> Ruleset {
    let mut index = Index::new(options());
    for object in world().into_iter().chain([guard.into()]) {
        index.apply(object);
    }
    index.set_facts(&uid("x/a"), Some(facts(&["net1", "net2"], &[])));
    index.commit();
    index.ruleset(&uid("x/a")).expect("rules").clone()
}

fn arrives(on: &str) -> Path {
    Path::Arrives(interface(on))
}

fn leaves(on: &str) -> Path {
    Path::Leaves(interface(on))
}

fn ports(protocol: Protocol, source: u16, destination: u16) -> Transport {
    Transport::Ports {
        protocol,
        source,
        destination,
    }
}

fn icmp(protocol: Family, kind: u8, code: u8) -> Transport {
    Transport::Icmp { protocol, kind, code }
}

/// A packet of a connection between the two ends that stand in it.
fn packet(path: Path, source: &str, destination: &str, transport: Transport, direction: CtDirection) -> Packet {
    let (source, destination) = (addr(source), addr(destination));
    let (opener, other) = match direction {
        CtDirection::Original => (source, destination),
        CtDirection::Reply => (destination, source),
    };
    Packet {
        path,
        content: Content::Ip {
            source,
            destination,
            hop_limit: 64,
            transport,
        },
        conntrack: Conntrack::Tracked {
            direction,
            related: false,
            original_source: opener,
            reply_source: other,
        },
        source_local: true,
    }
}

fn untracked(path: Path, content: Content) -> Packet {
    Packet {
        path,
        content,
        conntrack: Conntrack::Untracked,
        source_local: true,
    }
}

#[track_caller]
fn check_packet(ruleset: &Ruleset, packet: &Packet, passes: bool) {
    let found = trace(ruleset, packet).unwrap_or_else(|error| panic!("{error}\n{ruleset}"));
    assert_eq!(
        found.decision == Decision::Accept,
        passes,
        "{packet:?}\n{}\n{ruleset}",
        found.listing(ruleset)
    );
}

#[test]
fn s100_s101_s103_answers_belong_to_their_connection() {
    use CtDirection::{Original, Reply};
    let rules = ruleset();
    let (tcp, udp) = (|a, b| ports(Protocol::Tcp, a, b), |a, b| ports(Protocol::Udp, a, b));
    for (path, source, destination, transport, direction, passes) in [
        (arrives("net1"), PEER, OWN, tcp(40_000, 80), Original, true),
        // Egress is isolated and does not allow it: the answer passes all the same.
        (leaves("net1"), OWN, PEER, tcp(80, 40_000), Reply, true),
        (leaves("net1"), OWN, PEER, udp(40_000, 53), Original, true),
        (arrives("net1"), PEER, OWN, udp(53, 40_000), Reply, true),
        // The same addresses and ports, opened from the other side.
        (leaves("net1"), OWN, PEER, tcp(80, 40_000), Original, false),
        (leaves("net1"), OWN, PEER, tcp(40_000, 80), Original, false),
        (arrives("net1"), PEER, OWN, udp(53, 40_000), Original, false),
        (arrives("net1"), PEER, OWN, udp(40_000, 53), Original, false),
        // Answers of connections that are not allowed (any more).
        (leaves("net1"), OWN, PEER, tcp(81, 40_000), Reply, false),
        (leaves("net1"), OWN, STRANGER, tcp(80, 40_000), Reply, false),
        (arrives("net1"), STRANGER, OWN, udp(53, 40_000), Reply, false),
    ] {
        check_packet(&rules, &packet(path, source, destination, transport, direction), passes);
    }
}

#[test]
fn s102_errors_follow_their_connection() {
    use CtDirection::{Original, Reply};
    let rules = ruleset();
    let router = "192.0.2.1";
    let error = |path, source, destination, direction, opener, other| {
        let mut packet = packet(path, source, destination, icmp(Family::V4, 3, 4), direction);
        packet.conntrack = Conntrack::Tracked {
            direction,
            related: true,
            original_source: addr(opener),
            reply_source: addr(other),
        };
        packet
    };
    for (packet, passes) in [
        // About what x/b has opened, and what x/a has opened; from a router on the way, and by x/a itself.
        (error(arrives("net1"), router, OWN, Original, PEER, OWN), true),
        (error(arrives("net1"), router, OWN, Reply, OWN, PEER), true),
        (error(leaves("net1"), OWN, PEER, Reply, PEER, OWN), true),
        (error(leaves("net1"), OWN, PEER, Original, OWN, PEER), true),
        (error(arrives("net1"), router, OWN, Original, STRANGER, OWN), false),
        (error(arrives("net1"), router, OWN, Reply, OWN, STRANGER), false),
        (error(leaves("net1"), OWN, STRANGER, Reply, STRANGER, OWN), false),
    ] {
        check_packet(&rules, &packet, passes);
    }
}

#[test]
fn s111_related_data_connections_are_plain_connections() {
    let mut data = packet(
        arrives("net1"),
        PEER,
        OWN,
        ports(Protocol::Tcp, 20, 40_000),
        CtDirection::Original,
    );
    if let Conntrack::Tracked { related, .. } = &mut data.conntrack {
        *related = true;
    }
    check_packet(&ruleset(), &data, false);
}

/// Whoever sends next in a connection that conntrack has forgotten would be the one who opened it. The segment counts as
/// denied in the direction that it would have opened; where that one is not isolated, in the other.
#[test]
fn s106_a_connection_that_conntrack_has_forgotten_is_not_picked_up() {
    let (inside, outside) = ("net1-in-denied", "net1-out-denied");
    for (policy, counters, may_open) in [
        (guard().ingress([]), [inside, inside], [false, true]),
        (guard().egress([]), [outside, outside], [true, false]),
        (guard().ingress([]).egress([]), [inside, outside], [false, false]),
        (
            guard().ingress([]).egress([anything()]),
            [inside, outside],
            [false, true],
        ),
        (
            guard().ingress([anything()]).egress([]),
            [inside, outside],
            [true, false],
        ),
        (
            guard().ingress([]).egress([from([pods("app=db")])]),
            [inside, outside],
            [false, true],
        ),
        (
            guard().ingress([anything()]).egress([anything()]),
            [inside, outside],
            [true, true],
        ),
    ] {
        let rules = compiled(policy);
        let ways = [(arrives("net1"), PEER, OWN), (leaves("net1"), OWN, PEER)];
        for ((way, counter), may_open) in ways.into_iter().zip(counters).zip(may_open) {
            let (path, source, destination) = way;
            let segment = ports(Protocol::Tcp, 40_000, 80);
            let opening = packet(path, source, destination, segment, CtDirection::Original);
            check_packet(&rules, &opening, may_open);
            let found = Packet {
                conntrack: Conntrack::PickedUp,
                ..opening
            };
            check_packet(&rules, &found, false);
            let counted = trace(&rules, &found).expect("a trace").counted;
            let counted: Vec<&str> = counted.iter().map(|(_, name)| name.as_str()).collect();
            assert_eq!(counted, [counter], "{found:?}\n{rules}");
        }
    }
}

#[test]
fn s109_packets_without_a_connection_are_dropped() {
    let rules = ruleset();
    for (path, source, destination) in [(arrives("net1"), PEER, OWN), (leaves("net1"), OWN, PEER)] {
        for conntrack in [Conntrack::Invalid, Conntrack::Untracked] {
            for transport in [
                ports(Protocol::Tcp, 40_000, 80),
                ports(Protocol::Udp, 40_000, 53),
                Transport::Other(47),
            ] {
                let packet = Packet {
                    conntrack,
                    ..packet(path.clone(), source, destination, transport, CtDirection::Original)
                };
                check_packet(&rules, &packet, false);
            }
        }
    }
}

#[test]
fn s112_s113_s114_protocols_without_ports() {
    check(
        [guard().ingress([rule([pods("app=db")], [tcp(80)]), from([pods("tier=front")])])],
        &[
            "x/b > x/a tcp/80: yes",
            "x/b > x/a ping gre: no",
            "x/c > x/a ping gre: yes",
            "x/b%6 > x/a%6 ping: no",
            "x/c%6 > x/a%6 ping: yes",
        ],
    );
    check(
        [guard().ingress([everybody([
            whole(Protocol::Tcp),
            whole(Protocol::Udp),
            whole(Protocol::Sctp),
        ])])],
        &["x/b > x/a tcp/1 udp/1 sctp/1: yes", "x/b > x/a ping gre: no"],
    );
    check(
        [guard().ingress([]).egress([])],
        &[
            "x/b > x/a ping gre: no",
            "x/a > x/b ping gre: no",
            "x/b%6 > x/a%6 ping: no",
            "x/a%6 > x/b%6 ping: no",
        ],
    );
}

#[test]
fn s104_an_echo_request_is_judged_in_its_own_direction() {
    let one_way = guard().ingress([from([pods("app=db")])]).egress([]);
    check(
        [one_way],
        &[
            "x/b > x/a ping: yes",
            "x/a > x/b ping: no",
            "x/b%6 > x/a%6 ping: yes",
            "x/a%6 > x/b%6 ping: no",
        ],
    );
    let other_way = guard().ingress([]).egress([from([pods("app=db")])]);
    check([other_way], &["x/b > x/a ping: no", "x/a > x/b ping: yes"]);
}

#[test]
fn s126_tunnels_are_judged_by_their_outer_header() {
    // VXLAN is UDP to its port, GRE a protocol without ports: what they carry is nowhere asked for.
    let vxlan = guard().ingress([
        rule([pods("app=db")], [udp(4789)]),
        rule([pods("tier=front")], [tcp(80)]),
    ]);
    check(
        [vxlan],
        &[
            "x/b > x/a udp/4789: yes",
            "x/b > x/a tcp/80 gre: no",
            "x/c > x/a udp/4789 gre: no",
            "x/c > x/a tcp/80: yes",
        ],
    );
}

#[test]
fn s128_each_path_of_an_association_is_judged_by_its_addresses() {
    // x/b is reached by two addresses, and a block names one of them.
    let sctp = PortMatch::Range(ringfence_model::PortRange::single(Protocol::Sctp, 3868));
    let mut index = index_of([guard().ingress([rule([block("10.20.1.11/32", &[])], [sctp])])]);
    index.apply(pod("x/b", "app=db").a(&["10.20.1.11", "10.20.1.21"]).into());
    index.commit();
    for (address, expected) in [("10.20.1.11", true), ("10.20.1.21", false)] {
        let ends = (("x/b", "net1", address), ("x/a", "net1", OWN));
        assert_eq!(
            reaches(&index, ends.0, ends.1, what("sctp/3868")),
            expected,
            "{address}"
        );
    }
}

#[test]
fn s115_s116_what_is_no_ip_passes() {
    let rules = compiled(guard().ingress([]).egress([]));
    for path in [arrives("net1"), leaves("net1"), Path::Raw(interface("net1"))] {
        for ethertype in [0x0806, 0x88cc, 0x8864] {
            check_packet(&rules, &untracked(path.clone(), Content::Other(ethertype)), true);
        }
    }
    // IP that skips the IP stack does not, also inside of VLAN tags.
    let query = packet(
        Path::Raw(interface("net1")),
        OWN,
        PEER,
        ports(Protocol::Udp, 40_000, 53),
        CtDirection::Original,
    );
    check_packet(&rules, &query, false);
    for tag in [0x8100, 0x88a8] {
        check_packet(
            &rules,
            &untracked(Path::Raw(interface("net1")), Content::Other(tag)),
            false,
        );
    }
}

#[test]
fn s118_s119_s169_what_stays_inside_is_not_filtered() {
    let rules = compiled(guard().covering(&[NET_A, NET_B]).ingress([]).egress([]));
    for (source, destination) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.8.9.10"),
        ("::1", "::1"),
        (OWN, OWN),
        (OWN, "10.30.1.10"),
        ("10.30.1.10", OWN),
        ("fd00:20::1:10", "fd00:20::1:10"),
    ] {
        // The kernel takes all of these through lo.
        for path in [arrives("lo"), leaves("lo")] {
            let transport = ports(Protocol::Tcp, 40_000, 80);
            check_packet(
                &rules,
                &packet(path, source, destination, transport, CtDirection::Original),
                true,
            );
        }
    }
}

#[test]
fn s120_the_own_address_from_the_wire_is_no_exemption() {
    let forged = |rules: &Ruleset, passes| {
        let transport = ports(Protocol::Tcp, 40_000, 80);
        check_packet(
            rules,
            &packet(arrives("net1"), OWN, OWN, transport, CtDirection::Original),
            passes,
        );
    };
    forged(&compiled(guard().ingress([])), false);
    forged(&ruleset(), false);
    // By policy, where the pod is its own peer.
    forged(&compiled(guard().ingress([from([pods("app=web")])])), true);
}

#[test]
fn s121_s122_discovery() {
    let rules = compiled(guard().ingress([]).egress([]));
    for (kind, code, hop_limit, inward, outward) in [
        (133, 0, 255, false, true),
        (134, 0, 255, true, false),
        (135, 0, 255, true, true),
        (136, 0, 255, true, true),
        (137, 0, 255, false, false),
        (130, 0, 1, true, true),
        (131, 0, 1, true, true),
        (132, 0, 1, true, true),
        (143, 0, 1, true, true),
        (133, 1, 255, false, false),
        (133, 0, 64, false, false),
        (134, 1, 255, false, false),
        (134, 0, 254, false, false),
        (135, 0, 254, false, false),
        (135, 1, 255, false, false),
        (136, 0, 1, false, false),
        (136, 7, 255, false, false),
        (128, 0, 255, false, false),
        (129, 0, 255, false, false),
    ] {
        for (path, passes) in [(arrives("net1"), inward), (leaves("net1"), outward)] {
            let content = Content::Ip {
                source: addr("fe80::1"),
                destination: addr("ff02::1"),
                hop_limit,
                transport: icmp(Family::V6, kind, code),
            };
            check_packet(&rules, &untracked(path, content), passes);
        }
    }
}

#[test]
fn s124_multicast_and_broadcast_are_plain_destinations() {
    let destinations = [
        "x/a > 224.0.0.251 udp/5353",
        "x/a > 255.255.255.255 udp/5353",
        "x/a > 10.20.255.255 udp/5353",
        "x/a%6 > ff02::fb udp/5353",
    ];
    let lines = |answer: &str| destinations.map(|line| format!("{line}: {answer}"));
    let all = |policy: PolicyBuilder, answer: &str| {
        let lines = lines(answer);
        check([policy], &lines.each_ref().map(String::as_str));
    };
    all(guard().egress([]), "no");
    all(guard().egress([from([pods_in("", "")])]), "no");
    all(guard().egress([everybody([udp(5353)])]), "yes");
    let multicast = guard().egress([from([block("224.0.0.0/4", &[]), block("ff02::/16", &[])])]);
    check(
        [multicast],
        &[
            "x/a > 224.0.0.251 udp/5353: yes",
            "x/a%6 > ff02::fb udp/5353: yes",
            "x/a > 10.20.255.255 udp/5353: no",
            "x/a > x/b udp/5353: no",
        ],
    );
}

#[test]
fn s170_what_the_pod_forwards_is_judged_as_its_own() {
    use CtDirection::Original;
    let rules = ruleset();
    let through = |from: &str, to: &str| Path::Forwarded {
        from: interface(from),
        to: interface(to),
    };
    for (path, source, destination, transport, passes) in [
        // In by the protected interface, out by the other one: ingress judges.
        (
            through("net1", "net2"),
            PEER,
            "10.30.1.99",
            ports(Protocol::Tcp, 40_000, 80),
            true,
        ),
        (
            through("net1", "net2"),
            PEER,
            "10.30.1.99",
            ports(Protocol::Tcp, 40_000, 81),
            false,
        ),
        (
            through("net1", "net2"),
            STRANGER,
            "10.30.1.99",
            ports(Protocol::Tcp, 40_000, 80),
            false,
        ),
        // The other way: egress judges, and a source of another host is no reason to drop it.
        (
            through("net2", "net1"),
            "10.30.1.99",
            PEER,
            ports(Protocol::Udp, 40_000, 53),
            true,
        ),
        (
            through("net2", "net1"),
            "10.30.1.99",
            PEER,
            ports(Protocol::Tcp, 40_000, 53),
            false,
        ),
        (
            through("net2", "net1"),
            "10.30.1.99",
            STRANGER,
            ports(Protocol::Udp, 40_000, 53),
            false,
        ),
    ] {
        let mut packet = packet(path, source, destination, transport, Original);
        packet.source_local = false;
        check_packet(&rules, &packet, passes);
    }
}
