//! What several test files need: short constructors, a ruleset of the usual shape, random rulesets, and `nft` in a
//! namespace of its own.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its part")]

pub mod dice;
pub mod kernel;
pub mod nft;

use ringfence_model::{AddressRange, Family, InterfaceName, PortRange, Protocol};
use ringfence_ruleset::{
    BaseChain, Chain, CtDirection, Element, Hook, Key, Match, Name, Rule, Ruleset, Set, SetKind, Side, Table, Verdict,
};

pub const V4: Family = Family::V4;
pub const V6: Family = Family::V6;
pub const TCP: Protocol = Protocol::Tcp;
pub const UDP: Protocol = Protocol::Udp;
pub const SRC: Side = Side::Source;
pub const DST: Side = Side::Destination;

pub fn name(text: &str) -> Name {
    let name = Name::new(text);
    assert_eq!(name.as_str(), text, "a test's name must be an identifier");
    name
}

pub fn interface(text: &str) -> InterfaceName {
    InterfaceName::new(text).expect("a test's interface name must be valid")
}

pub fn range(text: &str) -> AddressRange {
    match text.split_once('-') {
        Some((first, last)) => AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap(),
        None => AddressRange::of_prefix(text.parse().unwrap()),
    }
}

pub fn ports(protocol: Protocol, first: u16, last: u16) -> PortRange {
    PortRange { protocol, first, last }
}

pub fn address(text: &str) -> Element {
    Element::Address(text.parse().unwrap())
}

pub fn service(text: &str, protocol: Protocol, port: u16) -> Element {
    Element::Service(text.parse().unwrap(), protocol, port)
}

pub fn set(kind: SetKind, elements: &[Element]) -> Set {
    Set {
        kind,
        elements: elements.iter().copied().collect(),
    }
}

pub fn accept(matches: &[Match]) -> Rule {
    rule(matches, None, Verdict::Accept)
}

pub fn goto(matches: &[Match], chain: &str) -> Rule {
    rule(matches, None, Verdict::Goto(name(chain)))
}

pub fn jump(matches: &[Match], chain: &str) -> Rule {
    rule(matches, None, Verdict::Jump(name(chain)))
}

pub fn deny(matches: &[Match], counter: &str) -> Rule {
    rule(matches, Some(name(counter)), Verdict::Drop)
}

pub fn rule(matches: &[Match], counter: Option<Name>, verdict: Verdict) -> Rule {
    Rule {
        matches: matches.to_vec(),
        counter,
        verdict,
    }
}

pub fn regular(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

pub fn base(hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        base: Some(BaseChain { hook, priority }),
        rules,
    }
}

pub fn table<const C: usize>(counters: &[&str], sets: Vec<(&str, Set)>, chains: [(&str, Chain); C]) -> Table {
    Table {
        counters: counters.iter().map(|text| name(text)).collect(),
        sets: sets.into_iter().map(|(text, set)| (name(text), set)).collect(),
        chains: chains.into_iter().map(|(text, chain)| (name(text), chain)).collect(),
    }
}

pub fn ruleset(inet: Table, netdev: Table) -> Ruleset {
    Ruleset {
        comment: "ringfence 0b1c2d3e-0000-4000-8000-000000000001".into(),
        inet,
        netdev,
    }
}

pub fn on(text: &str) -> Match {
    Match::ArrivesOn(interface(text))
}

pub fn out(text: &str) -> Match {
    Match::LeavesOn(interface(text))
}

pub const ORIGINAL: Match = Match::CtDirection(CtDirection::Original);
pub const REPLY: Match = Match::CtDirection(CtDirection::Reply);

/// A pod with `eth0`, which nothing isolates, and `net1` (10.20.1.10, fd00:20::10), isolated in both directions:
///
/// * in: TCP 80 from 10.20.1.11 and fd00:20::11; everything from 10.20.1.12; UDP 1000 to 2000 from 10.30.0.0/16
///   without 10.30.0.0; TCP 443 from everybody;
/// * out: UDP 53 to 10.20.1.53.
pub fn example() -> Ruleset {
    let inet = table(
        &["net1-in-denied", "net1-out-denied", "unexplained-denied"],
        example_sets(),
        [
            (
                "arrive",
                base(
                    Hook::Prerouting,
                    -160,
                    gate(&on, ["net1-in", "net1-out-reply", "net1-in-untracked"]),
                ),
            ),
            (
                "leave",
                base(
                    Hook::Postrouting,
                    110,
                    gate(&out, ["net1-out", "net1-in-reply", "net1-out-untracked"]),
                ),
            ),
            (
                "source",
                base(
                    Hook::Output,
                    -160,
                    vec![
                        accept(&[out("net1"), Match::Address(SRC, "10.20.1.10".parse().unwrap())]),
                        accept(&[out("net1"), Match::Address(SRC, "::".parse().unwrap())]),
                        deny(&[out("net1"), Match::SourceNotLocal], "net1-out-denied"),
                    ],
                ),
            ),
            ("net1-in", regular(ingress(SRC, DST))),
            ("net1-in-reply", regular(ingress(DST, SRC))),
            ("net1-out", regular(egress(DST, DST))),
            ("net1-out-reply", regular(egress(SRC, SRC))),
            (
                "net1-in-related",
                regular(vec![
                    accept(&[Match::InSet(Key::CtOriginalSource(V4), name("net1-in-peers-ip"))]),
                    accept(&[Match::InSet(Key::CtOriginalSource(V4), name("net1-in-any-ip"))]),
                    accept(&[Match::InSet(
                        Key::CtOriginalSource(V4),
                        name("net1-in-udp-1000-2000-net-ip"),
                    )]),
                    deny(&[], "net1-in-denied"),
                ]),
            ),
            (
                "net1-out-related",
                regular(vec![
                    accept(&[Match::InSet(Key::CtReplySource(V4), name("net1-out-peers-ip"))]),
                    deny(&[], "net1-out-denied"),
                ]),
            ),
            ("net1-in-untracked", regular(discovery(134, "net1-in-denied"))),
            ("net1-out-untracked", regular(discovery(133, "net1-out-denied"))),
        ],
    );
    let netdev = table(
        &["net1-out-denied"],
        vec![],
        [(
            "net1-backstop",
            base(
                Hook::Egress(interface("net1")),
                0,
                vec![
                    accept(&[Match::Routed]),
                    deny(&[Match::EtherType(0x0800)], "net1-out-denied"),
                    deny(&[Match::EtherType(0x86dd)], "net1-out-denied"),
                    deny(&[Match::EtherType(0x8100)], "net1-out-denied"),
                    deny(&[Match::EtherType(0x88a8)], "net1-out-denied"),
                ],
            ),
        )],
    );
    ruleset(inet, netdev)
}

fn example_sets() -> Vec<(&'static str, Set)> {
    vec![
        (
            "net1-in-ip",
            set(SetKind::Services(V4), &[service("10.20.1.11", TCP, 80)]),
        ),
        (
            "net1-in-ip6",
            set(SetKind::Services(V6), &[service("fd00:20::11", TCP, 80)]),
        ),
        (
            "net1-in-peers-ip",
            set(SetKind::Addresses(V4), &[address("10.20.1.11")]),
        ),
        ("net1-in-any-ip", set(SetKind::Addresses(V4), &[address("10.20.1.12")])),
        (
            "net1-in-udp-1000-2000-net-ip",
            set(SetKind::Ranges(V4), &[Element::Range(range("10.30.0.1-10.30.255.255"))]),
        ),
        (
            "net1-out-ip",
            set(SetKind::Services(V4), &[service("10.20.1.53", UDP, 53)]),
        ),
        (
            "net1-out-peers-ip",
            set(SetKind::Addresses(V4), &[address("10.20.1.53")]),
        ),
    ]
}

/// The rules of a base chain: loopback, `net1` by direction, `eth0`, and no other interface.
fn gate(at: &dyn Fn(&str) -> Match, [original, reply, untracked]: [&str; 3]) -> Vec<Rule> {
    vec![
        accept(&[at("lo")]),
        goto(&[at("net1"), ORIGINAL], original),
        goto(&[at("net1"), REPLY], reply),
        goto(&[at("net1")], untracked),
        accept(&[at("eth0")]),
        deny(&[], "unexplained-denied"),
    ]
}

fn ingress(peer: Side, port: Side) -> Vec<Rule> {
    let range_of_ports = Match::Ports(port, ports(UDP, 1000, 2000));
    vec![
        accept(&[Match::InSet(Key::Service(V4, peer, port), name("net1-in-ip"))]),
        accept(&[Match::InSet(Key::Service(V6, peer, port), name("net1-in-ip6"))]),
        accept(&[Match::InSet(Key::Address(V4, peer), name("net1-in-any-ip"))]),
        accept(&[
            Match::InSet(Key::Address(V4, peer), name("net1-in-udp-1000-2000-net-ip")),
            range_of_ports,
        ]),
        accept(&[Match::Ports(port, PortRange::single(TCP, 443))]),
        goto(&[Match::Icmp(V4), Match::CtRelated], "net1-in-related"),
        goto(&[Match::Icmp(V6), Match::CtRelated], "net1-in-related"),
        deny(&[], "net1-in-denied"),
    ]
}

fn egress(peer: Side, port: Side) -> Vec<Rule> {
    vec![
        accept(&[Match::InSet(Key::Service(V4, peer, port), name("net1-out-ip"))]),
        goto(&[Match::Icmp(V4), Match::CtRelated], "net1-out-related"),
        deny(&[], "net1-out-denied"),
    ]
}

fn discovery(router: u8, counter: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = [router, 135, 136]
        .map(|kind| accept(&[Match::Neighbour(kind)]))
        .to_vec();
    rules.extend([130, 131, 132, 143].map(|kind| accept(&[Match::ListenerDiscovery(kind)])));
    rules.push(deny(&[], counter));
    rules
}

/// Each kind of condition, and each number that has a name. The sets that they name are those of [`vocabulary_sets`].
pub fn vocabulary() -> Vec<Match> {
    let mut all = vec![on("net1"), out("a@b"), ORIGINAL, REPLY, Match::CtRelated];
    for family in Family::BOTH {
        all.extend([Match::Icmp(family), Match::Nfproto(family)]);
        for side in [SRC, DST] {
            let own = if family == V4 { "10.20.1.10" } else { "fd00:20::10" };
            all.push(Match::Address(side, own.parse().unwrap()));
            all.push(lookup(Key::Address(family, side)));
            all.extend([SRC, DST].map(|port| lookup(Key::Service(family, side, port))));
        }
        all.extend([Key::CtOriginalSource(family), Key::CtReplySource(family)].map(lookup));
        let set = if family == V4 { "addresses-ip" } else { "addresses-ip6" };
        let networks = |key, length| Match::InNetworks(key, length, name(set));
        all.extend([1, 12, 24, 31].map(|length| networks(Key::Address(family, SRC), length)));
        all.push(networks(Key::CtOriginalSource(family), 24));
        all.push(networks(Key::CtReplySource(family), 9));
    }
    for side in [SRC, DST] {
        all.push(lookup(Key::Port(side)));
        all.extend(Protocol::ALL.map(|protocol| Match::Ports(side, PortRange::single(protocol, 80))));
        all.push(Match::Ports(side, ports(UDP, 1000, 2000)));
        all.push(Match::Ports(side, ports(UDP, 1, u16::MAX)));
    }
    all.extend(Protocol::ALL.map(|protocol| Match::Ports(SRC, PortRange::whole(protocol))));
    all.extend([133, 134, 135, 136, 137].map(Match::Neighbour));
    all.extend([130, 131, 132, 143].map(Match::ListenerDiscovery));
    all.extend([Match::SourceNotLocal, Match::Routed]);
    all.extend([0x0800, 0x0806, 0x8100, 0x86dd, 0x88a8, 0x88cc, 0x0001].map(Match::EtherType));
    all
}

/// Whether a condition belongs into the netdev table.
pub fn is_netdev(condition: &Match) -> bool {
    matches!(condition, Match::Routed | Match::EtherType(_))
}

fn lookup(key: Key) -> Match {
    let set = match key {
        Key::Service(V4, ..) => "services-ip",
        Key::Service(V6, ..) => "services-ip6",
        Key::Port(_) => "ports",
        Key::Address(V4, _) | Key::CtOriginalSource(V4) => "addresses-ip",
        Key::Address(V6, _) | Key::CtOriginalSource(V6) => "addresses-ip6",
        Key::CtReplySource(V4) => "ranges-ip",
        Key::CtReplySource(V6) => "ranges-ip6",
    };
    Match::InSet(key, name(set))
}

/// One set of each kind, with enough elements to see how nft wraps and orders them.
pub fn vocabulary_sets() -> Vec<(&'static str, Set)> {
    let addresses = |prefix: &str| [3, 1, 20, 2, 10].map(|number| address(&format!("{prefix}{number}")));
    let services = |prefix: &str| {
        let of = |number, protocol, port| service(&format!("{prefix}{number}"), protocol, port);
        [
            of(11, UDP, 53),
            of(2, UDP, 53),
            of(11, TCP, 8080),
            of(11, TCP, 80),
            of(11, Protocol::Sctp, 0),
        ]
    };
    let ranges = |texts: &[&str]| -> Vec<Element> { texts.iter().map(|text| Element::Range(range(text))).collect() };
    let odd = [
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::102:304",
        "::1:0",
        "64:ff9b::a00:1",
        "1:0:0:2::",
        "1:2:3:4:5:6:7:0",
    ];
    let mut addresses_of_6 = odd.map(address).to_vec();
    addresses_of_6.extend(addresses("fd00:20::"));
    vec![
        ("addresses-ip", set(SetKind::Addresses(V4), &addresses("10.20.1."))),
        ("addresses-ip6", set(SetKind::Addresses(V6), &addresses_of_6)),
        (
            "ports",
            set(
                SetKind::Ports,
                &[
                    Element::Port(Protocol::Sctp, 9),
                    Element::Port(UDP, 53),
                    Element::Port(TCP, 80),
                ],
            ),
        ),
        (
            "ranges-ip",
            set(
                SetKind::Ranges(V4),
                &ranges(&[
                    "192.0.2.0/24",
                    "10.0.0.0/8",
                    "12.0.0.1/32",
                    "13.0.0.1-13.0.0.6",
                    "0.0.0.0-0.0.0.6",
                    "224.0.0.1-255.255.255.255",
                ]),
            ),
        ),
        (
            "ranges-ip6",
            set(
                SetKind::Ranges(V6),
                &ranges(&[
                    "fd00::/8",
                    "::1:0/112",
                    "2001:db8::1-2001:db8::5",
                    "::102:304/128",
                    "ff00::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                ]),
            ),
        ),
        ("services-ip", set(SetKind::Services(V4), &services("10.20.1."))),
        ("services-ip6", set(SetKind::Services(V6), &services("fd00:20::"))),
        ("whole-ip", set(SetKind::Ranges(V4), &ranges(&["0.0.0.0/0"]))),
        ("whole-ip6", set(SetKind::Ranges(V6), &ranges(&["::/0"]))),
    ]
}
