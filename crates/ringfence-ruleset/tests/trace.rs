//! The packet tracer: tables of packets against the usual ruleset, the order of evaluation, and errors.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::dice::{Dice, element, make_disjoint, numbers, rulesets};
use common::{
    SRC, TCP, UDP, V4, V6, accept, base, deny, example, goto, interface, jump, name, ports, regular, ruleset, set,
    table,
};
use proptest::prelude::*;
use ringfence_model::{Family, Protocol};
use ringfence_ruleset::{
    Conntrack, Content, CtDirection, Decision, Element, Fault, Hook, Key, Match, Packet, Path, Ruleset, SetKind, Table,
    TableFamily, TraceError, Tracer, Transport, Verdict, check, trace,
};

const ORIGINAL: CtDirection = CtDirection::Original;
const REPLY: CtDirection = CtDirection::Reply;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a test's address must be valid")
}

fn content(source: &str, destination: &str, transport: Transport) -> Content {
    Content::Ip {
        source: ip(source),
        destination: ip(destination),
        hop_limit: 64,
        transport,
    }
}

/// `10.20.1.11:40000` to `10.20.1.10:80`.
fn segment(protocol: Protocol, source: &str, destination: &str) -> Content {
    let [source, destination] = [source, destination].map(|end| end.parse::<SocketAddr>().expect("address:port"));
    Content::Ip {
        source: source.ip(),
        destination: destination.ip(),
        hop_limit: 64,
        transport: Transport::Ports {
            protocol,
            source: source.port(),
            destination: destination.port(),
        },
    }
}

fn icmp(protocol: Family, kind: u8, code: u8) -> Transport {
    Transport::Icmp { protocol, kind, code }
}

/// ICMPv6 with hop limit 255 between link-local addresses.
fn link(kind: u8, code: u8, hop_limit: u8) -> Content {
    Content::Ip {
        source: ip("fe80::1"),
        destination: ip("ff02::1"),
        hop_limit,
        transport: icmp(V6, kind, code),
    }
}

fn arrives(on: &str) -> Path {
    Path::Arrives(interface(on))
}

fn leaves(on: &str) -> Path {
    Path::Leaves(interface(on))
}

fn raw(on: &str) -> Path {
    Path::Raw(interface(on))
}

/// A packet of a connection between its own ends.
fn tracked(path: Path, content: Content, direction: CtDirection) -> Packet {
    let Content::Ip {
        source, destination, ..
    } = content
    else {
        panic!("only IP is tracked")
    };
    let (original_source, reply_source) = match direction {
        ORIGINAL => (source, destination),
        REPLY => (destination, source),
    };
    Packet {
        path,
        content,
        conntrack: Conntrack::Tracked {
            direction,
            related: false,
            original_source,
            reply_source,
        },
        source_local: true,
    }
}

/// An ICMP error about a connection that `opener` opened to `other`.
fn error_about(path: Path, content: Content, direction: CtDirection, opener: &str, other: &str) -> Packet {
    Packet {
        path,
        content,
        conntrack: Conntrack::Tracked {
            direction,
            related: true,
            original_source: ip(opener),
            reply_source: ip(other),
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

/// The last line of the listing that tells of a rule or policy that decided something, and the decision.
fn decisive(ruleset: &Ruleset, packet: &Packet) -> String {
    let trace = trace(ruleset, packet).unwrap_or_else(|error| panic!("{error}\n{packet:?}"));
    let listing = trace.listing(ruleset);
    let last = listing.lines().filter_map(|line| line.strip_prefix("+ ")).next_back();
    format!("{}: {}", trace.decision, last.unwrap_or("met no chain"))
}

#[track_caller]
fn check_packet(packet: &Packet, expected: &str) {
    let ruleset = example();
    let found = decisive(&ruleset, packet);
    assert_eq!(
        found,
        expected,
        "{}",
        trace(&ruleset, packet).unwrap().listing(&ruleset)
    );
}

const ALLOWED: &str = "accept: inet net1-in: ip saddr . meta l4proto . th dport @net1-in-ip accept";
const DENIED_IN: &str = "drop: inet net1-in: counter name \"net1-in-denied\" drop";
const DENIED_OUT: &str = "drop: inet net1-out: counter name \"net1-out-denied\" drop";
/// What the IP stack sends passes the backstop at last.
const SENT: &str = "accept: netdev net1-backstop: meta rtclassid != 3735928559 accept";

fn tcp_in(source: &str, destination: &str) -> Packet {
    tracked(arrives("net1"), segment(TCP, source, destination), ORIGINAL)
}

#[test]
fn s004_s083_s084_ingress_by_peer_and_destination_port() {
    check_packet(&tcp_in("10.20.1.11:40000", "10.20.1.10:80"), ALLOWED);
    check_packet(&tcp_in("10.20.1.11:40000", "10.20.1.10:81"), DENIED_IN);
    check_packet(&tcp_in("10.20.1.13:40000", "10.20.1.10:80"), DENIED_IN);
    // The right port on the wrong side.
    check_packet(&tcp_in("10.20.1.11:80", "10.20.1.10:40000"), DENIED_IN);
    check_packet(
        &tcp_in("[fd00:20::11]:40000", "[fd00:20::10]:80"),
        "accept: inet net1-in: ip6 saddr . meta l4proto . th dport @net1-in-ip6 accept",
    );
    check_packet(&tcp_in("[fd00:20::12]:40000", "[fd00:20::10]:80"), DENIED_IN);
    check_packet(
        &tcp_in("198.51.100.1:40000", "10.20.1.10:443"),
        "accept: inet net1-in: tcp dport 443 accept",
    );
}

#[test]
fn s082_another_protocol_on_the_same_port_is_denied() {
    for protocol in [UDP, Protocol::Sctp] {
        let content = segment(protocol, "10.20.1.11:40000", "10.20.1.10:80");
        check_packet(&tracked(arrives("net1"), content, ORIGINAL), DENIED_IN);
    }
}

#[test]
fn s063_s085_ranges_of_addresses_and_ports() {
    let rule = "accept: inet net1-in: ip saddr @net1-in-udp-1000-2000-net-ip udp dport 1000-2000 accept";
    for (source, port, expected) in [
        ("10.30.0.1", 1000, rule),
        ("10.30.255.255", 2000, rule),
        ("10.30.128.0", 1500, rule),
        ("10.30.0.0", 1500, DENIED_IN),
        ("10.31.0.0", 1500, DENIED_IN),
        ("10.30.0.1", 999, DENIED_IN),
        ("10.30.0.1", 2001, DENIED_IN),
    ] {
        let content = segment(UDP, &format!("{source}:40000"), &format!("10.20.1.10:{port}"));
        check_packet(&tracked(arrives("net1"), content, ORIGINAL), expected);
    }
    check_packet(&tcp_in("10.30.0.1:40000", "10.20.1.10:1500"), DENIED_IN);
}

#[test]
fn s031_s113_other_protocols_pass_only_where_everything_may() {
    let any = "accept: inet net1-in: ip saddr @net1-in-any-ip accept";
    for transport in [
        Transport::Other(47),
        Transport::Other(6),
        icmp(V4, 8, 0),
        Transport::Other(2),
    ] {
        let from = |source| tracked(arrives("net1"), content(source, "10.20.1.10", transport), ORIGINAL);
        check_packet(&from("10.20.1.12"), any);
        check_packet(&from("10.20.1.11"), DENIED_IN);
    }
}

#[test]
fn s100_s101_s103_answers_are_judged_as_their_connection() {
    // The answer of the pod.
    let answer = tracked(leaves("net1"), segment(TCP, "10.20.1.10:80", "10.20.1.11:40000"), REPLY);
    check_packet(&answer, SENT);
    // The same addresses and ports as a connection of the pod's own.
    let own = tracked(
        leaves("net1"),
        segment(TCP, "10.20.1.10:80", "10.20.1.11:40000"),
        ORIGINAL,
    );
    check_packet(&own, DENIED_OUT);
    // A query and its answer.
    let query = tracked(
        leaves("net1"),
        segment(UDP, "10.20.1.10:40000", "10.20.1.53:53"),
        ORIGINAL,
    );
    check_packet(&query, SENT);
    let answer = tracked(
        arrives("net1"),
        segment(UDP, "10.20.1.53:53", "10.20.1.10:40000"),
        REPLY,
    );
    check_packet(
        &answer,
        "accept: inet net1-out-reply: ip saddr . meta l4proto . th sport @net1-out-ip accept",
    );
    // From the same port, but as a connection of its own.
    let new = tracked(
        arrives("net1"),
        segment(UDP, "10.20.1.53:53", "10.20.1.10:40000"),
        ORIGINAL,
    );
    check_packet(&new, DENIED_IN);
    // The answer of a connection that is no longer allowed (s105, s106).
    let revoked = tracked(leaves("net1"), segment(TCP, "10.20.1.10:81", "10.20.1.11:40000"), REPLY);
    check_packet(
        &revoked,
        "drop: inet net1-in-reply: counter name \"net1-in-denied\" drop",
    );
}

#[test]
fn s102_errors_pass_where_the_connection_s_peer_is_allowed() {
    let unreachable = content("192.0.2.1", "10.20.1.10", icmp(V4, 3, 4));
    let about = |opener, other, direction| error_about(arrives("net1"), unreachable, direction, opener, other);
    check_packet(
        &about("10.20.1.11", "10.20.1.10", ORIGINAL),
        "accept: inet net1-in-related: ct original ip saddr @net1-in-peers-ip accept",
    );
    check_packet(
        &about("10.30.7.7", "10.20.1.10", ORIGINAL),
        "accept: inet net1-in-related: ct original ip saddr @net1-in-udp-1000-2000-net-ip accept",
    );
    check_packet(
        &about("10.20.1.13", "10.20.1.10", ORIGINAL),
        "drop: inet net1-in-related: counter name \"net1-in-denied\" drop",
    );
    check_packet(
        &about("10.20.1.10", "10.20.1.53", REPLY),
        "accept: inet net1-out-related: ct reply ip saddr @net1-out-peers-ip accept",
    );
    check_packet(
        &about("10.20.1.10", "10.20.1.54", REPLY),
        "drop: inet net1-out-related: counter name \"net1-out-denied\" drop",
    );
    // Not an error but an echo (s114).
    let echo = tracked(
        arrives("net1"),
        content("10.20.1.11", "10.20.1.10", icmp(V4, 8, 0)),
        ORIGINAL,
    );
    check_packet(&echo, DENIED_IN);
    // Related, but no ICMP (s111).
    let data = segment(TCP, "10.20.1.11:20", "10.20.1.10:40000");
    check_packet(
        &error_about(arrives("net1"), data, ORIGINAL, "10.20.1.11", "10.20.1.10"),
        DENIED_IN,
    );
}

#[test]
fn s109_invalid_and_untracked_packets_are_denied() {
    let content = segment(TCP, "10.20.1.11:40000", "10.20.1.10:80");
    let denied = "drop: inet net1-in-untracked: counter name \"net1-in-denied\" drop";
    for conntrack in [Conntrack::Invalid, Conntrack::Untracked] {
        let packet = Packet {
            path: arrives("net1"),
            content,
            conntrack,
            source_local: false,
        };
        check_packet(&packet, denied);
    }
}

#[test]
fn s121_s122_neighbour_and_listener_discovery() {
    let passes_in = |kind, code, hop_limit| {
        trace(&example(), &untracked(arrives("net1"), link(kind, code, hop_limit)))
            .unwrap()
            .decision
    };
    let passes_out = |kind, code, hop_limit| {
        trace(&example(), &untracked(leaves("net1"), link(kind, code, hop_limit)))
            .unwrap()
            .decision
    };
    for (kind, code, hop_limit, inward, outward) in [
        (133, 0, 255, Decision::Drop, Decision::Accept),
        (134, 0, 255, Decision::Accept, Decision::Drop),
        (135, 0, 255, Decision::Accept, Decision::Accept),
        (136, 0, 255, Decision::Accept, Decision::Accept),
        (137, 0, 255, Decision::Drop, Decision::Drop),
        (135, 0, 254, Decision::Drop, Decision::Drop),
        (135, 1, 255, Decision::Drop, Decision::Drop),
        (130, 0, 1, Decision::Accept, Decision::Accept),
        (143, 0, 1, Decision::Accept, Decision::Accept),
        (129, 0, 255, Decision::Drop, Decision::Drop),
    ] {
        assert_eq!(passes_in(kind, code, hop_limit), inward, "in {kind} {code} {hop_limit}");
        assert_eq!(
            passes_out(kind, code, hop_limit),
            outward,
            "out {kind} {code} {hop_limit}"
        );
    }
    // The number of ICMPv6 inside IPv4 is no neighbour discovery.
    let odd = content("10.20.1.11", "10.20.1.10", icmp(V6, 130, 0));
    check_packet(
        &untracked(arrives("net1"), odd),
        "drop: inet net1-in-untracked: counter name \"net1-in-denied\" drop",
    );
}

#[test]
fn s118_interfaces_that_are_not_isolated_and_interfaces_that_nothing_explains() {
    let content = segment(TCP, "127.0.0.1:40000", "127.0.0.1:80");
    check_packet(
        &tracked(arrives("lo"), content, ORIGINAL),
        "accept: inet arrive: iifname \"lo\" accept",
    );
    check_packet(
        &tracked(leaves("eth0"), content, ORIGINAL),
        "accept: inet leave: oifname \"eth0\" accept",
    );
    check_packet(
        &tracked(arrives("net2"), content, ORIGINAL),
        "drop: inet arrive: counter name \"unexplained-denied\" drop",
    );
}

#[test]
fn s120_a_foreign_source_address_does_not_leave() {
    let query = segment(UDP, "10.20.1.99:40000", "10.20.1.53:53");
    let mut packet = tracked(leaves("net1"), query, ORIGINAL);
    check_packet(&packet, SENT);
    packet.source_local = false;
    check_packet(
        &packet,
        "drop: inet source: oifname \"net1\" fib saddr type != local counter name \"net1-out-denied\" drop",
    );
    // What is forwarded never meets the output hook.
    packet.path = Path::Forwarded {
        from: interface("eth0"),
        to: interface("net1"),
    };
    check_packet(&packet, SENT);
}

#[test]
fn s115_s116_only_ip_is_stopped_by_the_backstop() {
    let query = segment(UDP, "10.20.1.10:40000", "10.20.1.53:53");
    let drop = |what| format!("drop: netdev net1-backstop: meta protocol {what} counter name \"net1-out-denied\" drop");
    let policy = "accept: netdev net1-backstop: policy accept";
    check_packet(&tracked(raw("net1"), query, ORIGINAL), &drop("ip"));
    check_packet(&untracked(raw("net1"), link(135, 0, 255)), &drop("ip6"));
    check_packet(&untracked(raw("net1"), Content::Other(0x8100)), &drop("8021q"));
    check_packet(&untracked(raw("net1"), Content::Other(0x88a8)), &drop("8021ad"));
    for path in [raw("net1"), leaves("net1")] {
        check_packet(&untracked(path.clone(), Content::Other(0x0806)), policy);
        check_packet(&untracked(path, Content::Other(0x88cc)), policy);
    }
    check_packet(&untracked(raw("eth0"), query), "accept: met no chain");
    check_packet(
        &untracked(arrives("net1"), Content::Other(0x0806)),
        "accept: met no chain",
    );
}

#[test]
fn counters_and_steps_are_told() {
    let ruleset = example();
    let packet = tcp_in("10.20.1.13:40000", "10.20.1.10:80");
    let trace = trace(&ruleset, &packet).unwrap();
    assert_eq!(trace.counted, [(TableFamily::Inet, name("net1-in-denied"))]);
    assert_eq!(
        trace.listing(&ruleset),
        "\
- inet arrive: iifname \"lo\" accept
+ inet arrive: iifname \"net1\" ct direction original goto net1-in
- inet net1-in: ip saddr . meta l4proto . th dport @net1-in-ip accept
- inet net1-in: ip6 saddr . meta l4proto . th dport @net1-in-ip6 accept
- inet net1-in: ip saddr @net1-in-any-ip accept
- inet net1-in: ip saddr @net1-in-udp-1000-2000-net-ip udp dport 1000-2000 accept
- inet net1-in: tcp dport 443 accept
- inet net1-in: meta l4proto icmp ct state related goto net1-in-related
- inet net1-in: meta l4proto ipv6-icmp ct state related goto net1-in-related
+ inet net1-in: counter name \"net1-in-denied\" drop
= drop
"
    );
}

fn only_inet(inet: Table) -> Ruleset {
    ruleset(inet, table(&[], vec![], []))
}

/// After the last rule of a chain the kernel goes on behind the last jump, also where a goto has led there.
#[test]
fn jumps_come_back_and_gotos_do_not() {
    let none = || Match::Icmp(V6);
    let packet = tcp_in("10.20.1.13:40000", "10.20.1.10:80");
    let check = |first, inner, expected: &str| {
        let inet = table(
            &["after"],
            vec![],
            [
                ("arrive", base(Hook::Prerouting, -160, vec![first, deny(&[], "after")])),
                ("a", regular(vec![accept(&[none()]), inner])),
                ("b", regular(vec![accept(&[none()])])),
            ],
        );
        assert_eq!(decisive(&only_inet(inet), &packet), expected);
    };
    let after = "drop: inet arrive: counter name \"after\" drop";
    let policy = "accept: inet arrive: policy accept";
    check(jump(&[], "a"), jump(&[], "b"), after);
    check(jump(&[], "a"), goto(&[], "b"), after);
    check(goto(&[], "a"), jump(&[], "b"), policy);
    check(goto(&[], "a"), goto(&[], "b"), policy);
    check(goto(&[none()], "a"), goto(&[], "b"), after);
    check(jump(&[], "a"), accept(&[]), "accept: inet a: accept");
}

#[test]
fn an_accept_ends_its_base_chain_only_and_priorities_decide_the_order() {
    let inet = table(
        &["late"],
        vec![],
        [
            ("a-late", base(Hook::Prerouting, -150, vec![deny(&[], "late")])),
            ("b-early", base(Hook::Prerouting, -160, vec![accept(&[])])),
        ],
    );
    let ruleset = only_inet(inet);
    let packet = tcp_in("10.20.1.13:40000", "10.20.1.10:80");
    assert_eq!(
        trace(&ruleset, &packet).unwrap().listing(&ruleset),
        "+ inet b-early: accept\n+ inet a-late: counter name \"late\" drop\n= drop\n"
    );
}

/// Never a pass: also for packets that the fault would not have concerned.
#[track_caller]
fn is_an_error(what: &str, damage: impl Fn(&mut Ruleset), is_expected: fn(&Fault) -> bool) {
    let loopback = tracked(arrives("lo"), segment(TCP, "127.0.0.1:1", "127.0.0.1:2"), ORIGINAL);
    let mut ruleset = example();
    damage(&mut ruleset);
    match trace(&ruleset, &loopback) {
        Err(TraceError::Fault(fault)) => assert!(is_expected(&fault), "{what}: {fault}"),
        other => panic!("{what}: {other:?}"),
    }
}

/// Appends a rule that nothing reaches, behind the last one, which drops.
fn push(chain: &'static str, rule: ringfence_ruleset::Rule) -> impl Fn(&mut Ruleset) {
    move |ruleset| {
        let chain = ruleset.inet.chains.get_mut(&name(chain)).unwrap();
        chain.rules.push(rule.clone());
    }
}

#[test]
fn references_that_lead_nowhere_are_errors_for_every_packet() {
    is_an_error(
        "a set is gone",
        |ruleset| drop(ruleset.inet.sets.remove(&name("net1-out-ip"))),
        |fault| matches!(fault, Fault::MissingSet { .. }),
    );
    is_an_error(
        "a set is of another kind",
        |ruleset| {
            ruleset.inet.sets.insert(name("net1-out-ip"), set(SetKind::Ports, &[]));
        },
        |fault| matches!(fault, Fault::KindMismatch { .. }),
    );
    is_an_error(
        "a chain is gone",
        |ruleset| drop(ruleset.inet.chains.remove(&name("net1-out-related"))),
        |fault| matches!(fault, Fault::MissingChain { .. }),
    );
    is_an_error(
        "a counter is gone",
        |ruleset| assert!(ruleset.netdev.counters.remove(&name("net1-out-denied"))),
        |fault| matches!(fault, Fault::MissingCounter { .. }),
    );
    is_an_error("a circle", push("net1-in-related", goto(&[], "net1-in")), |fault| {
        matches!(fault, Fault::Loop { .. })
    });
}

#[test]
fn conditions_without_meaning_are_errors_for_every_packet() {
    is_an_error(
        "the arrival interface is unknown after routing",
        push("net1-out", accept(&[common::on("net1")])),
        |fault| {
            matches!(
                fault,
                Fault::NotHere {
                    hook: Hook::Postrouting,
                    ..
                }
            )
        },
    );
    is_an_error(
        "the departure interface is unknown before routing",
        push("arrive", accept(&[common::out("net1")])),
        |fault| {
            matches!(
                fault,
                Fault::NotHere {
                    hook: Hook::Prerouting,
                    ..
                }
            )
        },
    );
    is_an_error(
        "before conntrack has seen the packet",
        |ruleset| {
            let chain = ruleset.inet.chains.get_mut(&name("arrive")).unwrap();
            chain.base.as_mut().unwrap().priority = -200;
        },
        |fault| matches!(fault, Fault::NotHere { .. }),
    );
    is_an_error(
        "EtherTypes in the inet table",
        push("net1-in", accept(&[Match::EtherType(0x0800)])),
        |fault| matches!(fault, Fault::WrongTable { .. }),
    );
    is_an_error(
        "ports backwards",
        push("net1-in", accept(&[Match::Ports(SRC, ports(TCP, 90, 80))])),
        |fault| matches!(fault, Fault::Undefined { .. }),
    );
    is_an_error(
        "an ICMPv6 type that is no neighbour discovery",
        push("net1-in", accept(&[Match::Neighbour(128)])),
        |fault| matches!(fault, Fault::Undefined { .. }),
    );
    is_an_error(
        "ICMPv6 echo as listener discovery",
        push("net1-in", accept(&[Match::ListenerDiscovery(128)])),
        |fault| matches!(fault, Fault::Undefined { .. }),
    );
    is_an_error(
        "TCP and ICMP at once",
        push(
            "net1-in",
            accept(&[Match::Icmp(V4), Match::Ports(SRC, ports(TCP, 80, 80))]),
        ),
        |fault| matches!(fault, Fault::Contradiction { .. }),
    );
}

#[test]
fn faults_of_chains_that_nothing_leads_to_are_found_too() {
    let inet = table(&[], vec![], [("alone", regular(vec![goto(&[], "nowhere")]))]);
    let fault = check(&only_inet(inet)).unwrap_err();
    assert_eq!(fault.to_string(), "inet alone, rule 1: there is no chain nowhere");
}

#[test]
fn addresses_of_two_families_are_an_error() {
    let mixed = Content::Ip {
        source: ip("10.0.0.1"),
        destination: ip("::1"),
        hop_limit: 64,
        transport: Transport::Other(47),
    };
    let plain = content("10.0.0.1", "10.0.0.2", Transport::Other(47));
    for packet in [
        untracked(arrives("lo"), mixed),
        error_about(arrives("lo"), plain, ORIGINAL, "::1", "10.0.0.1"),
        error_about(arrives("lo"), plain, ORIGINAL, "10.0.0.1", "::1"),
    ] {
        let error = trace(&example(), &packet).unwrap_err();
        assert!(matches!(error, TraceError::MixedFamilies(..)), "{error}");
    }
}

/// The address is looked up by the network of the prefix length that it is in, and only in its own family.
#[test]
fn networks_are_looked_up_by_their_first_address() {
    let inet = |key, length, element: &str| {
        let kind = SetKind::Addresses(if element.contains(':') { V6 } else { V4 });
        let condition = Match::InNetworks(key, length, name("networks"));
        let rules = vec![accept(&[condition]), deny(&[], "denied")];
        let chain = base(Hook::Prerouting, -160, rules);
        let sets = vec![("networks", set(kind, &[Element::Address(element.parse().unwrap())]))];
        only_inet(table(&["denied"], sets, [("arrive", chain)]))
    };
    let source = |family| Key::Address(family, SRC);
    for (key, length, element, from, found) in [
        (source(V4), 24, "10.20.1.0", "10.20.1.0", true),
        (source(V4), 24, "10.20.1.0", "10.20.1.255", true),
        (source(V4), 24, "10.20.1.0", "10.20.2.0", false),
        (source(V4), 24, "10.20.1.0", "10.20.0.255", false),
        (source(V4), 25, "10.20.1.128", "10.20.1.129", true),
        (source(V4), 25, "10.20.1.128", "10.20.1.127", false),
        (source(V4), 1, "128.0.0.0", "192.0.2.1", true),
        (source(V4), 31, "10.20.1.2", "10.20.1.3", true),
        (source(V4), 31, "10.20.1.2", "10.20.1.4", false),
        (source(V4), 24, "10.20.1.1", "10.20.1.1", false),
        (Key::CtOriginalSource(V4), 24, "10.20.1.0", "10.20.1.77", true),
        (Key::CtReplySource(V4), 24, "10.20.1.0", "10.20.1.77", false),
        (source(V6), 64, "fd00:20::", "fd00:20::1:2:3:4", true),
        (source(V6), 64, "fd00:20::", "fd00:20:0:1::1", false),
    ] {
        let to = if element.contains(':') {
            "[fd00:99::1]:80"
        } else {
            "10.99.1.10:80"
        };
        let from = if element.contains(':') {
            format!("[{from}]:1")
        } else {
            format!("{from}:1")
        };
        let packet = tcp_in(&from, to);
        let decision = trace(&inet(key, length, element), &packet).unwrap().decision;
        let expected = if found { Decision::Accept } else { Decision::Drop };
        assert_eq!(decision, expected, "{key} /{length} of {element}, from {from}");
    }
    let other = trace(
        &inet(source(V6), 64, "fd00:20::"),
        &tcp_in("10.20.1.1:1", "10.20.1.10:80"),
    );
    assert_eq!(other.unwrap().decision, Decision::Drop);
    for (key, length) in [
        (source(V4), 0),
        (source(V4), 32),
        (source(V6), 128),
        (Key::Port(SRC), 16),
    ] {
        let element = if key == source(V6) { "fd00::" } else { "10.0.0.0" };
        assert!(Tracer::new(&inet(key, length, element)).is_err(), "{key} /{length}");
    }
}

proptest! {
    /// A look-up among ranges finds what a search through all of them finds.
    #[test]
    fn ranges_are_searched_rightly(numbers in numbers(200), last in 0u8..40, second in 0u8..3) {
        let mut dice = Dice::new(numbers);
        let kind = SetKind::Ranges(V4);
        let elements: Vec<Element> = (0..12).map(|_| element(&mut dice, kind)).collect();
        let mut ranges = set(kind, &elements);
        make_disjoint(&mut ranges);
        let source = IpAddr::from([10, 20, second, last]);
        let expected = ranges.elements.iter().any(|element| matches!(element, Element::Range(range) if range.contains(source)));
        let inet = table(
            &["denied"],
            vec![("net1-in-any-net-ip", ranges)],
            [(
                "arrive",
                base(
                    Hook::Prerouting,
                    -160,
                    vec![
                        accept(&[Match::InSet(Key::Address(V4, SRC), name("net1-in-any-net-ip"))]),
                        deny(&[], "denied"),
                    ],
                ),
            )],
        );
        let packet = tcp_in(&format!("{source}:1"), "10.20.1.10:80");
        let found = trace(&only_inet(inet), &packet).unwrap().decision;
        prop_assert_eq!(found, if expected { Decision::Accept } else { Decision::Drop });
    }

    /// Whatever the ruleset: no packet leaves the tracer without an answer, and a drop is always some rule's.
    #[test]
    fn every_packet_gets_an_answer(ruleset in rulesets()) {
        let tracer = Tracer::new(&ruleset).unwrap();
        for path in [arrives("net1"), leaves("net1"), leaves("lo"), raw("net2")] {
            for direction in [ORIGINAL, REPLY] {
                let content = segment(TCP, "10.20.0.1:80", "10.20.0.2:53");
                let trace = tracer.trace(&tracked(path.clone(), content, direction)).unwrap();
                let dropped_by_rule = trace.steps.last().is_some_and(|step| match step {
                    ringfence_ruleset::Step::Rule { place, unmet: None } => {
                        let rule = &ruleset.table(place.family).unwrap().chains[&place.chain].rules[place.rule];
                        rule.verdict == Verdict::Drop
                    }
                    _ => false,
                });
                prop_assert_eq!(trace.decision == Decision::Drop, dropped_by_rule);
            }
        }
    }
}
