//! One rule for each thing that rules can say, and the sets and chains that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ringfence_model::{AddressRange, Family, InterfaceName, PortRange, Protocol};
use ringfence_ruleset::{
    BaseChain, Chain, CtDirection, Element, Hook, Key, Match, Name, Rule, Ruleset, Set, SetKind, Side, Table, Verdict,
};

pub fn name(text: &str) -> Name {
    Name::new(text)
}

pub fn interface(text: &str) -> InterfaceName {
    InterfaceName::new(text).expect("an interface name")
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn range(first: &str, last: &str) -> Element {
    Element::Range(AddressRange::new(address(first), address(last)).expect("a range"))
}

pub fn accept(matches: Vec<Match>) -> Rule {
    Rule {
        matches,
        counter: None,
        verdict: Verdict::Accept,
    }
}

pub fn set_name(kind: SetKind) -> Name {
    name(match kind {
        SetKind::Services(Family::V4) => "services-ip",
        SetKind::Services(Family::V6) => "services-ip6",
        SetKind::Addresses(Family::V4) => "addresses-ip",
        SetKind::Addresses(Family::V6) => "addresses-ip6",
        SetKind::Ranges(Family::V4) => "ranges-ip",
        SetKind::Ranges(Family::V6) => "ranges-ip6",
        SetKind::Ports => "ports",
    })
}

/// Every kind of set, with elements at the edges of what it can hold.
pub fn sets() -> BTreeMap<Name, Set> {
    let all: Vec<(SetKind, Vec<Element>)> = vec![
        (
            SetKind::Services(Family::V4),
            vec![
                Element::Service(address("10.20.1.11"), Protocol::Tcp, 80),
                Element::Service(address("255.255.255.255"), Protocol::Sctp, 65535),
            ],
        ),
        (
            SetKind::Services(Family::V6),
            vec![Element::Service(address("fd00:20::11"), Protocol::Udp, 53)],
        ),
        (
            SetKind::Addresses(Family::V4),
            vec![
                Element::Address(address("10.20.1.11")),
                Element::Address(address("10.20.1.12")),
            ],
        ),
        (
            SetKind::Addresses(Family::V6),
            vec![Element::Address(address("fd00:20::11"))],
        ),
        (
            SetKind::Ranges(Family::V4),
            vec![
                range("0.0.0.0", "0.255.255.255"),
                range("10.0.0.0", "10.255.255.255"),
                range("11.0.0.1", "11.0.0.5"),
                range("192.0.2.1", "192.0.2.1"),
                range("255.255.255.0", "255.255.255.255"),
            ],
        ),
        (
            SetKind::Ranges(Family::V6),
            vec![
                range("fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                range("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ],
        ),
        (
            SetKind::Ports,
            vec![Element::Port(Protocol::Tcp, 80), Element::Port(Protocol::Udp, 53)],
        ),
    ];
    all.into_iter()
        .map(|(kind, elements)| {
            let elements = elements.into_iter().collect();
            (set_name(kind), Set { kind, elements })
        })
        .collect()
}

/// Conditions for table inet, each to be the conditions of one rule.
pub fn conditions() -> Vec<Vec<Match>> {
    let (source, destination) = (Side::Source, Side::Destination);
    let tcp = |first, last| PortRange {
        protocol: Protocol::Tcp,
        first,
        last,
    };
    let mut all = vec![
        vec![],
        vec![Match::ArrivesOn(interface("net1"))],
        vec![Match::LeavesOn(interface("fifteen-bytes-x"))],
        vec![Match::CtDirection(CtDirection::Original)],
        vec![Match::CtDirection(CtDirection::Reply)],
        vec![Match::CtRelated],
        vec![Match::CtNew],
        vec![Match::TcpNotSyn],
        vec![Match::Redirect(Family::V4)],
        vec![Match::Redirect(Family::V6)],
        vec![Match::Icmp(Family::V4)],
        vec![Match::Icmp(Family::V6)],
        vec![Match::Nfproto(Family::V4)],
        vec![Match::Nfproto(Family::V6)],
        vec![Match::Ports(destination, tcp(80, 80))],
        vec![Match::Ports(source, tcp(80, 90))],
        vec![Match::Ports(destination, PortRange::single(Protocol::Udp, 53))],
        vec![Match::Ports(destination, PortRange::single(Protocol::Sctp, 65535))],
        vec![Match::Ports(destination, PortRange::whole(Protocol::Tcp))],
        vec![Match::Ports(destination, PortRange::whole(Protocol::Udp))],
        vec![Match::Ports(destination, PortRange::whole(Protocol::Sctp))],
        vec![Match::Address(source, address("10.20.1.10"))],
        vec![Match::Address(destination, address("0.0.0.0"))],
        vec![Match::Address(source, address("::"))],
        vec![Match::Address(destination, address("fd00:20::11"))],
        vec![known(Key::Port(source), SetKind::Ports)],
        vec![known(Key::Port(destination), SetKind::Ports)],
        vec![Match::Neighbour(134)],
        vec![Match::Neighbour(135)],
        vec![Match::ListenerDiscovery(130)],
        vec![Match::ListenerDiscovery(143)],
        vec![Match::SourceNotLocal],
        // Together, where one condition prepares another.
        vec![
            Match::ArrivesOn(interface("net1")),
            Match::CtDirection(CtDirection::Original),
        ],
        vec![Match::CtNew, Match::TcpNotSyn],
        vec![Match::CtNew, Match::LeavesOn(interface("net1")), Match::TcpNotSyn],
        vec![Match::Ports(destination, tcp(80, 80)), Match::TcpNotSyn],
        vec![Match::LeavesOn(interface("net1")), Match::Redirect(Family::V6)],
        vec![
            known(Key::Address(Family::V4, source), SetKind::Addresses(Family::V4)),
            Match::Redirect(Family::V4),
        ],
        vec![Match::Icmp(Family::V4), Match::CtRelated],
        vec![Match::Icmp(Family::V6), Match::CtRelated],
        vec![
            Match::Icmp(Family::V6),
            Match::CtRelated,
            known(Key::CtOriginalSource(Family::V6), SetKind::Addresses(Family::V6)),
        ],
        vec![Match::Nfproto(Family::V4), Match::Ports(destination, tcp(80, 80))],
        vec![
            known(Key::Address(Family::V4, source), SetKind::Addresses(Family::V4)),
            Match::Ports(destination, tcp(1000, 2000)),
        ],
        vec![
            known(Key::Address(Family::V4, source), SetKind::Ranges(Family::V4)),
            Match::Ports(destination, PortRange::whole(Protocol::Udp)),
        ],
        vec![
            known(Key::Address(Family::V6, destination), SetKind::Ranges(Family::V6)),
            known(Key::Port(source), SetKind::Ports),
        ],
        vec![
            Match::LeavesOn(interface("net1")),
            Match::Address(source, address("10.20.1.10")),
        ],
        vec![Match::LeavesOn(interface("net1")), Match::SourceNotLocal],
        vec![
            Match::Address(source, address("10.20.1.1")),
            Match::Address(destination, address("10.20.1.10")),
        ],
        vec![
            Match::Ports(destination, tcp(80, 80)),
            Match::Ports(source, tcp(1024, 65535)),
        ],
    ];
    all.extend(Family::BOTH.into_iter().flat_map(lookups));
    all
}

/// Every key of one family, looked up by itself.
fn lookups(family: Family) -> Vec<Vec<Match>> {
    let sides = [Side::Source, Side::Destination];
    let mut all = Vec::new();
    for side in sides {
        for port in sides {
            all.push(vec![known(Key::Service(family, side, port), SetKind::Services(family))]);
        }
        all.push(vec![known(Key::Address(family, side), SetKind::Addresses(family))]);
    }
    all.push(vec![known(Key::CtOriginalSource(family), SetKind::Addresses(family))]);
    let networks = |key, length| Match::InNetworks(key, length, set_name(SetKind::Addresses(family)));
    all.extend([1, 24, 31].map(|length| vec![networks(Key::Address(family, Side::Source), length)]));
    all.push(vec![
        networks(Key::Address(family, Side::Destination), 20),
        Match::Ports(
            Side::Destination,
            PortRange {
                protocol: Protocol::Tcp,
                first: 1000,
                last: 2000,
            },
        ),
    ]);
    all.push(vec![networks(Key::CtOriginalSource(family), 16)]);
    all.push(vec![networks(Key::CtReplySource(family), 9)]);
    all.push(vec![known(Key::CtReplySource(family), SetKind::Ranges(family))]);
    all
}

fn known(key: Key, kind: SetKind) -> Match {
    Match::InSet(key, set_name(kind))
}

/// Conditions for table netdev.
pub fn netdev_conditions() -> Vec<Vec<Match>> {
    vec![
        vec![Match::Routed],
        vec![Match::EtherType(0x0800)],
        vec![Match::EtherType(0x86dd)],
        vec![Match::EtherType(0x8100)],
        vec![Match::EtherType(0x88a8)],
        vec![udp(Side::Destination, 67)],
    ]
}

/// A condition on a UDP port.
pub fn udp(side: Side, port: u16) -> Match {
    Match::Ports(side, PortRange::single(Protocol::Udp, port))
}

/// Verdicts and counters, each with a condition before it.
pub fn endings() -> Vec<Rule> {
    let verdicts = [
        Verdict::Drop,
        Verdict::Goto(name("net1-in-related")),
        Verdict::Jump(name("net1-in-related")),
    ];
    let counters = [None, Some(name("net1-in-denied"))];
    counters
        .into_iter()
        .flat_map(|counter| {
            verdicts.clone().map(|verdict| Rule {
                matches: vec![Match::CtRelated],
                counter: counter.clone(),
                verdict,
            })
        })
        .collect()
}

fn base(hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        base: Some(BaseChain { hook, priority }),
        rules,
    }
}

/// A ruleset with all of it; the netdev table on `device`.
pub fn everything(device: &str) -> Ruleset {
    let regular = |rules| Chain { base: None, rules };
    let denied = |counter: &str| Rule {
        matches: vec![],
        counter: Some(name(counter)),
        verdict: Verdict::Drop,
    };
    let mut judge: Vec<Rule> = conditions().into_iter().map(accept).collect();
    judge.extend(endings());
    let inet = Table {
        counters: BTreeSet::from([name("net1-in-denied"), name("unexplained-denied")]).into(),
        sets: sets(),
        chains: BTreeMap::from([
            (
                name("arrive"),
                base(
                    Hook::Prerouting,
                    -160,
                    vec![
                        accept(vec![Match::ArrivesOn(interface("lo"))]),
                        denied("unexplained-denied"),
                    ],
                ),
            ),
            (name("leave"), base(Hook::Postrouting, 110, vec![])),
            (name("source"), base(Hook::Output, -160, vec![])),
            (name("net1-in"), regular(judge)),
            (name("net1-in-related"), regular(vec![denied("net1-in-denied")])),
        ])
        .into(),
    };
    let mut backstop: Vec<Rule> = netdev_conditions().into_iter().map(accept).collect();
    backstop.push(denied("net1-out-denied"));
    let netdev = Table {
        counters: BTreeSet::from([name("net1-out-denied")]).into(),
        sets: BTreeMap::new(),
        chains: BTreeMap::from([(
            name("net1-backstop"),
            base(Hook::Egress(interface(device)), 0, backstop),
        )])
        .into(),
    };
    Ruleset {
        comment: "ringfence 5f2b9c1e-0000-4000-8000-000000000001".into(),
        inet,
        netdev,
    }
}
