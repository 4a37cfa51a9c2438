//! Protocols and sets of ports: what an address may do.

use std::fmt;

/// The protocols that NetworkPolicy knows (statement 79).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Transmission Control Protocol, IP protocol 6.
    Tcp,
    /// User Datagram Protocol, IP protocol 17.
    Udp,
    /// Stream Control Transmission Protocol, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// All of them, in the order in which they are printed.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As Kubernetes writes it: `TCP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// As nft writes it: `tcp`.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ports `first` to `last` of one protocol, both included, `first` not after `last`. 0 to 65535 is the whole protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// Which protocol.
    pub protocol: Protocol,
    /// The lowest port.
    pub first: u16,
    /// The highest port, itself in the range.
    pub last: u16,
}

impl PortRange {
    /// Every port of a protocol. 0 is on the wire too, although no policy can name it (statement 87).
    pub fn whole(protocol: Protocol) -> Self {
        Self {
            protocol,
            first: 0,
            last: u16::MAX,
        }
    }

    /// One port.
    pub fn single(protocol: Protocol, port: u16) -> Self {
        Self {
            protocol,
            first: port,
            last: port,
        }
    }

    /// Whether it is the whole protocol.
    pub fn is_whole(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// Number of ports, 1 to 65536.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

/// A set of (protocol, port), or everything including protocols that have no ports (statement 31).
///
/// Ranges are disjoint, non-adjacent and sorted, and 1 to 65535 counts as the whole protocol (statement 88), so
/// equal sets are equal values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSet {
    /// These ranges; none is "nothing".
    Ranges(Vec<PortRange>),
    /// Every protocol, with or without ports.
    Everything,
}

impl PortSet {
    /// The set that matches nothing (statement 35).
    pub fn nothing() -> Self {
        Self::Ranges(Vec::new())
    }

    /// The union of ranges.
    pub fn union_of(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut ranges: Vec<PortRange> = ranges.into_iter().collect();
        ranges.sort();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(before)
                    if before.protocol == range.protocol && u32::from(range.first) <= u32::from(before.last) + 1 =>
                {
                    before.last = before.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        for range in &mut merged {
            if range.first <= 1 && range.last == u16::MAX {
                range.first = 0;
            }
        }
        Self::Ranges(merged)
    }

    /// The union of two sets.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Ranges(ours), Self::Ranges(theirs)) => Self::union_of(ours.iter().chain(theirs).copied()),
            _ => Self::Everything,
        }
    }

    /// Whether it matches nothing.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Ranges(ranges) if ranges.is_empty())
    }

    /// Whether it holds this port.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Ranges(ranges) => ranges
                .iter()
                .any(|range| range.protocol == protocol && (range.first..=range.last).contains(&port)),
        }
    }

    /// The ranges; `None` for everything.
    pub fn ranges(&self) -> Option<&[PortRange]> {
        match self {
            Self::Everything => None,
            Self::Ranges(ranges) => Some(ranges),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s081_s088_unions() {
        let tcp = |first, last| PortRange {
            protocol: Protocol::Tcp,
            first,
            last,
        };
        let check = |ranges: &[PortRange], expected: &[PortRange]| {
            assert_eq!(
                PortSet::union_of(ranges.iter().copied()),
                PortSet::Ranges(expected.to_vec())
            );
        };
        check(
            &[tcp(80, 80), PortRange::whole(Protocol::Tcp)],
            &[PortRange::whole(Protocol::Tcp)],
        );
        check(&[tcp(80, 90), tcp(91, 91), tcp(85, 100)], &[tcp(80, 100)]);
        check(&[tcp(1, 65535)], &[PortRange::whole(Protocol::Tcp)]);
        check(&[tcp(1, 60000), tcp(60001, 65535)], &[PortRange::whole(Protocol::Tcp)]);
        check(
            &[PortRange::single(Protocol::Udp, 80), tcp(80, 80)],
            &[tcp(80, 80), PortRange::single(Protocol::Udp, 80)],
        );
    }
}
