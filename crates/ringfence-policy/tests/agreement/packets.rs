//! The packets of a connection, as the hooks of one of its ends see them.
#![allow(dead_code, reason = "each of the two tests that include this file uses a part")]

use std::net::IpAddr;

use ringfence_model::{Direction, Family, InterfaceName, Protocol};
use ringfence_policy::evaluate::L4;
use ringfence_ruleset::{Conntrack, Content, CtDirection, Packet, Path, Transport};

/// Who talks to whom about what, seen from neither end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Talk {
    /// Who opens the connection.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Protocol and port.
    pub l4: L4,
    /// The source port, where the protocol has ports.
    pub client: u16,
}

/// One of the packets that a connection is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first one.
    Original,
    /// The answer to it.
    Reply,
    /// An ICMP error about the first one: it goes with the answers.
    ErrorAboutOriginal,
    /// An ICMP error about an answer: it goes the way of the first one.
    ErrorAboutReply,
}

impl Kind {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self::Original,
        Self::Reply,
        Self::ErrorAboutOriginal,
        Self::ErrorAboutReply,
    ];

    /// Whether it goes against the way of the first packet.
    pub fn goes_back(self) -> bool {
        matches!(self, Self::Reply | Self::ErrorAboutOriginal)
    }

    /// Whether it is an ICMP error.
    pub fn is_error(self) -> bool {
        matches!(self, Self::ErrorAboutOriginal | Self::ErrorAboutReply)
    }
}

/// Whether conntrack makes a connection of the first packet, so that there are answers and errors to it.
///
/// ND and MLD are untracked; an ICMPv6 redirect that belongs to no connection is invalid.
pub fn is_tracked(l4: L4) -> bool {
    !matches!(
        l4,
        L4::Icmpv6 {
            message: 130..=137 | 143
        }
    )
}

/// Where a packet goes through the end that judges `direction`.
pub fn way(direction: Direction, goes_back: bool, interface: InterfaceName) -> Path {
    if (direction == Direction::Ingress) == goes_back {
        Path::Leaves(interface)
    } else {
        Path::Arrives(interface)
    }
}

/// A packet of a connection. An error comes from `router` where it arrives, and from this end where it leaves.
pub fn packet(talk: Talk, kind: Kind, path: Path, router: IpAddr) -> Packet {
    let (mut source, mut destination) = (talk.source, talk.destination);
    if kind.goes_back() {
        std::mem::swap(&mut source, &mut destination);
    }
    let transport = if kind.is_error() {
        if matches!(path, Path::Arrives(_)) {
            source = router;
        }
        error(Family::of(source))
    } else {
        transport(talk, kind.goes_back())
    };
    Packet {
        path,
        content: Content::Ip {
            source,
            destination,
            hop_limit: 255,
            transport,
        },
        conntrack: if is_tracked(talk.l4) {
            Conntrack::Tracked {
                direction: if kind.goes_back() {
                    CtDirection::Reply
                } else {
                    CtDirection::Original
                },
                related: kind.is_error(),
                original_source: talk.source,
                reply_source: talk.destination,
            }
        } else {
            Conntrack::Untracked
        },
        source_local: true,
    }
}

/// "Fragmentation needed", and "packet too big".
fn error(family: Family) -> Transport {
    let (kind, code) = match family {
        Family::V4 => (3, 4),
        Family::V6 => (2, 0),
    };
    Transport::Icmp {
        protocol: family,
        kind,
        code,
    }
}

fn transport(talk: Talk, goes_back: bool) -> Transport {
    let v4 = talk.source.is_ipv4();
    match talk.l4 {
        L4::Port { protocol, port } => Transport::Ports {
            protocol,
            source: if goes_back { port } else { talk.client },
            destination: if goes_back { talk.client } else { port },
        },
        L4::Icmpv6 { message } => Transport::Icmp {
            protocol: Family::V6,
            kind: message + u8::from(goes_back),
            code: 0,
        },
        L4::Other(1) => Transport::Icmp {
            protocol: Family::V4,
            kind: if goes_back { 0 } else { 8 },
            code: 0,
        },
        // ICMPv6 over IPv4 is a protocol like any other.
        L4::Other(58) if v4 => Transport::Icmp {
            protocol: Family::V6,
            kind: 135,
            code: 0,
        },
        L4::Other(number) => Transport::Other(number),
    }
}

/// The port that a client uses: for DHCP its well-known one, since the oracle judges it so (statement 123).
pub fn client_port(l4: L4) -> u16 {
    match l4 {
        L4::Port {
            protocol: Protocol::Udp,
            port,
        } => match port {
            67 => 68,
            68 => 67,
            546 => 547,
            547 => 546,
            _ => 40_000,
        },
        _ => 40_000,
    }
}

/// The ports of a list over each protocol: what policies name, so that it is asked about often.
pub fn named(ports: &[u16]) -> Vec<L4> {
    let over = |protocol| ports.iter().map(move |port| L4::port(protocol, *port));
    Protocol::ALL.into_iter().flat_map(over).collect()
}

/// What may be asked about in a family: every port around those of `ports`, and what has no ports.
pub fn questions(family: Family, ports: &[u16]) -> Vec<L4> {
    let mut numbers: Vec<u16> = vec![0, 1, 65_535];
    for port in ports {
        numbers.extend([port.saturating_sub(1), *port, port.saturating_add(1)]);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut out: Vec<L4> = Protocol::ALL
        .into_iter()
        .flat_map(|protocol| numbers.iter().map(move |port| L4::port(protocol, *port)))
        .collect();
    // ICMP or ICMPv6 of the other family, IGMP, IPIP, GRE, ESP.
    let others: &[u8] = match family {
        Family::V4 => &[1, 58, 2, 4, 47, 50],
        Family::V6 => &[1, 4, 47, 50],
    };
    out.extend(others.iter().map(|number| L4::Other(*number)));
    if family == Family::V6 {
        out.extend([128, 130, 131, 132, 133, 134, 135, 136, 137, 143].map(|message| L4::Icmpv6 { message }));
    }
    out
}
