//! The question: who opens what to whom.

use std::fmt;
use std::net::IpAddr;

use ringfence_model::{NetworkName, PodUid, Protocol};

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// An attachment of a pod, with the address that it uses. The address need not be one that the attachment lists
    /// (a virtual IP, a link-local address): the other end sees it as it is.
    Pod {
        /// Which pod.
        uid: PodUid,
        /// Which of [`ringfence_model::Pod::attachments`].
        attachment: usize,
        /// The address in the packets.
        address: IpAddr,
    },
    /// An address. Where a pod holds it on the connection's network, it means that pod (statement 134).
    Address(IpAddr),
}

impl Endpoint {
    /// The address in the packets.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Pod { address, .. } | Self::Address(address) => *address,
        }
    }
}

/// What a connection's first packet carries above IP. Source ports are left out: no policy matches them
/// (statement 84).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4 {
    /// TCP, UDP or SCTP to a destination port, as it is on the wire (statements 83, 127).
    Port {
        /// Which of the three.
        protocol: Protocol,
        /// The destination port. 0 is possible on the wire.
        port: u16,
    },
    /// An ICMPv6 message with a hop limit of 255 and code 0, whose type decides (statements 121, 122).
    Icmpv6 {
        /// The ICMPv6 type: 128 is an echo request.
        message: u8,
    },
    /// Any other IP protocol by its number, for example 1 for ICMP (statement 113). TCP, UDP and SCTP do not belong
    /// here; their numbers are read as "some protocol without ports".
    Other(u8),
}

impl L4 {
    /// TCP to this port.
    pub fn tcp(port: u16) -> Self {
        Self::port(Protocol::Tcp, port)
    }

    /// UDP to this port.
    pub fn udp(port: u16) -> Self {
        Self::port(Protocol::Udp, port)
    }

    /// SCTP to this port.
    pub fn sctp(port: u16) -> Self {
        Self::port(Protocol::Sctp, port)
    }

    /// A protocol with ports.
    pub fn port(protocol: Protocol, port: u16) -> Self {
        Self::Port { protocol, port }
    }
}

/// `TCP 80`, `ICMPv6 type 128`, `IP protocol 1`.
impl fmt::Display for L4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { protocol, port } => write!(f, "{protocol} {port}"),
            Self::Icmpv6 { message } => write!(f, "ICMPv6 type {message}"),
            Self::Other(number) => write!(f, "IP protocol {number}"),
        }
    }
}

/// A connection that is being opened. Replies are not asked about: they pass with their connection (statement 100).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// Where both ends meet. It says which pod a bare address means; what an end's interface is protected by follows
    /// from its attachment.
    pub network: NetworkName,
    /// Who opens it.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// Protocol and destination port.
    pub l4: L4,
}
