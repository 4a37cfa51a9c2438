//! A packet as the tracer sees it.
//!
//! The types leave out what cannot be: a packet from outside has no departure interface, a frame that a packet socket
//! sends meets only the egress hook.

use std::net::IpAddr;

use ringfence_model::{Family, InterfaceName, Protocol};

use crate::{CtDirection, Side};

/// One packet on one way through a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which way, and thereby which hooks.
    pub path: Path,
    /// What is in it.
    pub content: Content,
    /// What conntrack says about it. Nothing asks for it on the paths that meet only the egress hook.
    pub conntrack: Conntrack,
    /// The source address belongs to this namespace.
    pub source_local: bool,
}

/// A way through the namespace, outermost hooks included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// From outside to a process: prerouting.
    Arrives(InterfaceName),
    /// From a process, by the IP stack: output, postrouting, egress of the device.
    Leaves(InterfaceName),
    /// From outside to outside (routers, VMs): prerouting, postrouting, egress of the device.
    Forwarded {
        /// Where it arrives.
        from: InterfaceName,
        /// Where it leaves.
        to: InterfaceName,
    },
    /// Past the IP stack, from a packet socket (AF_PACKET) or a bridge inside the namespace: egress of the device
    /// only, and without a route.
    Raw(InterfaceName),
}

impl Path {
    /// The interface that it arrives on.
    pub fn arrival(&self) -> Option<&InterfaceName> {
        match self {
            Self::Arrives(from) | Self::Forwarded { from, .. } => Some(from),
            Self::Leaves(_) | Self::Raw(_) => None,
        }
    }

    /// The interface that it leaves on.
    pub fn departure(&self) -> Option<&InterfaceName> {
        match self {
            Self::Leaves(to) | Self::Forwarded { to, .. } | Self::Raw(to) => Some(to),
            Self::Arrives(_) => None,
        }
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// An IP packet, whole: conntrack has put fragments together before any `inet` hook.
    Ip {
        /// Address on the wire, of the same family as the destination.
        source: IpAddr,
        /// Address on the wire.
        destination: IpAddr,
        /// TTL or hop limit.
        hop_limit: u8,
        /// The layer above.
        transport: Transport,
    },
    /// Anything else, by its EtherType in host order: ARP is 0x0806, a VLAN tag 0x8100. It meets only the egress hook.
    Other(u16),
}

/// The layer above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A protocol with ports.
    Ports {
        /// Which one.
        protocol: Protocol,
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP (protocol 1) or ICMPv6 (58).
    Icmp {
        /// IPv4 for ICMP, IPv6 for ICMPv6; usually that of the addresses, but nothing on a wire ensures it.
        protocol: Family,
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// Any protocol by its number, with no ports and no type that could be read: GRE, ESP, a header cut short.
    Other(u8),
}

impl Transport {
    /// The number in the IP header.
    pub fn protocol(self) -> u8 {
        match self {
            Self::Ports { protocol, .. } => protocol.number(),
            Self::Icmp { protocol, .. } => icmp_number(protocol),
            Self::Other(number) => number,
        }
    }

    /// Protocol and port of one end.
    pub(crate) fn port(self, side: Side) -> Option<(Protocol, u16)> {
        match (self, side) {
            (Self::Ports { protocol, source, .. }, Side::Source) => Some((protocol, source)),
            (
                Self::Ports {
                    protocol, destination, ..
                },
                Side::Destination,
            ) => Some((protocol, destination)),
            _ => None,
        }
    }
}

impl Conntrack {
    /// `ct direction`
    pub(crate) fn direction(self) -> Option<CtDirection> {
        match self {
            Self::Tracked { direction, .. } => Some(direction),
            Self::PickedUp => Some(CtDirection::Original),
            Self::Untracked | Self::Invalid => None,
        }
    }

    /// `ct state related`
    pub(crate) fn is_related(self) -> bool {
        matches!(self, Self::Tracked { related: true, .. })
    }

    /// `ct state new`
    pub(crate) fn is_new(self) -> bool {
        self.direction() == Some(CtDirection::Original) && !self.is_related()
    }

    /// Whether a TCP segment of which this is known opens a connection. What has no direction has no entry either, and
    /// is taken for a segment that does not.
    pub(crate) fn is_syn(self) -> bool {
        self != Self::PickedUp && self.is_new()
    }
}

pub(crate) fn icmp_number(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 58,
    }
}

/// What conntrack says about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conntrack {
    /// It belongs to a connection, be it the first packet of it. Where that makes a difference, a packet in direction
    /// original is taken for the first one, which opens the connection as its protocol demands (TCP: with SYN).
    Tracked {
        /// Which way within the connection.
        direction: CtDirection,
        /// `ct state related`: an error about the connection (ICMP).
        related: bool,
        /// Source address of the first packet: who opened the connection.
        original_source: IpAddr,
        /// Source address of the answers: whom it was opened to, as on the wire.
        reply_source: IpAddr,
    },
    /// Conntrack would enter a connection because of this packet, although it is from the middle of one: a TCP segment
    /// without SYN and without an entry (`net.netfilter.nf_conntrack_tcp_loose`, on by default). For conntrack it is
    /// new, and its sender the one who opened, be that so or not (statement 106).
    PickedUp,
    /// Conntrack leaves it alone: neighbour and listener discovery.
    Untracked,
    /// Conntrack cannot make sense of it.
    Invalid,
}
