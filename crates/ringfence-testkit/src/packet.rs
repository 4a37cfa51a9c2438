//! IP packets made by hand, with a mark in their header, so that a test can follow each of them: what the IP stack of
//! no peer would send, and what it would send only at a moment that nobody can choose.
//!
//! The mark stands in IPv4's identification and in IPv6's flow label, beside a traffic class that nothing else uses
//! here, so that the kernel's own packets are never taken for one.

use std::net::{IpAddr, Ipv6Addr};

use crate::frame::{crc32c, fold, length, word};

/// Differentiated services code point of every packet that is made here.
pub const CLASS: u8 = 0x2b;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMP6: u8 = 58;
const SCTP: u8 = 132;

/// The header of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Ip {
    /// Source address; any, also one that is not the sender's.
    pub source: IpAddr,
    /// Target address, of the same family.
    pub target: IpAddr,
    /// Time to live, hop limit.
    pub hops: u8,
    /// Tells this packet from others; the pieces of one datagram share it. Not 0, which the kernel would replace.
    pub mark: u16,
}

impl Ip {
    /// Hop limit 64.
    pub fn new(source: IpAddr, target: IpAddr, mark: u16) -> Self {
        Self {
            source,
            target,
            hops: 64,
            mark,
        }
    }

    /// With another hop limit.
    #[must_use]
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// Any protocol.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.headed(protocol, [0, 0], payload)
    }

    /// A UDP datagram.
    pub fn udp(&self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        self.packet(UDP, &self.udp_segment(from, to, payload))
    }

    /// What follows the IP header of a UDP datagram, to be cut into fragments.
    pub fn udp_segment(&self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut segment = ports(from, to);
        segment.extend(length(8 + payload.len()));
        segment.extend([0, 0]);
        segment.extend(payload);
        let checksum = self.checksum(UDP, &segment);
        // Zero would mean "no checksum".
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        segment[6..8].copy_from_slice(&checksum.to_be_bytes());
        segment
    }

    /// A TCP segment without data and with these flags (FIN 1, SYN 2, RST 4, PSH 8, ACK 16).
    pub fn tcp(&self, from: u16, to: u16, flags: u8) -> Vec<u8> {
        let mut segment = ports(from, to);
        segment.extend(1000_u32.to_be_bytes());
        segment.extend(if flags & 16 == 0 { 0 } else { 2000_u32 }.to_be_bytes());
        segment.extend([5 << 4, flags]);
        segment.extend(0xffff_u16.to_be_bytes());
        segment.extend([0; 4]);
        let checksum = self.checksum(TCP, &segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        self.packet(TCP, &segment)
    }

    /// The first chunk of an SCTP association.
    pub fn sctp_init(&self, from: u16, to: u16) -> Vec<u8> {
        let mut segment = ports(from, to);
        // Verification tag (0, as INIT needs it), checksum; INIT, its length, tag, window, streams, sequence number.
        segment.extend([0; 8]);
        segment.extend([1, 0, 0, 20, 0x12, 0x34, 0x56, 0x78, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let checksum = crc32c(&segment);
        segment[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.packet(SCTP, &segment)
    }

    /// An ICMP or ICMPv6 message: type, code, and what follows the checksum.
    pub fn icmp(&self, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest);
        let (protocol, checksum) = if self.source.is_ipv4() {
            (ICMP, fold(&message, 0))
        } else {
            (ICMP6, self.checksum(ICMP6, &message))
        };
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        self.packet(protocol, &message)
    }

    /// An echo request, or the answer to one.
    pub fn echo(&self, request: bool, id: u16, sequence: u16) -> Vec<u8> {
        let kind = match (self.source.is_ipv4(), request) {
            (true, true) => 8,
            (true, false) => 0,
            (false, true) => 128,
            (false, false) => 129,
        };
        let rest = [id.to_be_bytes(), sequence.to_be_bytes(), *b"ri", *b"ng"].concat();
        self.icmp(kind, 0, &rest)
    }

    /// A neighbour solicitation for the target, from a host whose MAC address nobody needs.
    pub fn neighbour_solicitation(&self) -> Vec<u8> {
        let mut rest = vec![0; 4];
        rest.extend(v6(self.target).octets());
        self.hops(255).icmp(135, 0, &rest)
    }

    /// A piece of a datagram: `offset` in bytes, a multiple of 8, and whether more pieces follow.
    pub fn fragment(&self, protocol: u8, offset: u16, more: bool, piece: &[u8]) -> Vec<u8> {
        if self.source.is_ipv4() {
            let field = (offset / 8) | if more { 0x2000 } else { 0 };
            return self.headed(protocol, field.to_be_bytes(), piece);
        }
        let mut payload = vec![protocol, 0];
        payload.extend((offset | u16::from(more)).to_be_bytes());
        payload.extend(u32::from(self.mark).to_be_bytes());
        payload.extend(piece);
        self.packet(FRAGMENT, &payload)
    }

    /// A segment in two pieces, the first of `first` bytes (a multiple of 8).
    pub fn in_two(&self, protocol: u8, segment: &[u8], first: u16) -> [Vec<u8>; 2] {
        let (head, tail) = segment.split_at(usize::from(first).min(segment.len()));
        [
            self.fragment(protocol, 0, true, head),
            self.fragment(protocol, first, false, tail),
        ]
    }

    /// `fragment` is IPv4's field of flags and offset.
    fn headed(&self, protocol: u8, fragment: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let class = CLASS << 2;
        let mut out = Vec::with_capacity(40 + payload.len());
        if let (IpAddr::V4(source), IpAddr::V4(target)) = (self.source, self.target) {
            out.extend([0x45, class]);
            out.extend(length(20 + payload.len()));
            out.extend(self.mark.to_be_bytes());
            out.extend(fragment);
            out.extend([self.hops, protocol, 0, 0]);
            out.extend(source.octets());
            out.extend(target.octets());
            let checksum = fold(&out, 0);
            out[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            out.extend([0x60 | (class >> 4), class << 4]);
            out.extend(self.mark.to_be_bytes());
            out.extend(length(payload.len()));
            out.extend([protocol, self.hops]);
            out.extend(v6(self.source).octets());
            out.extend(v6(self.target).octets());
        }
        out.extend(payload);
        out
    }

    fn checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        let mut pseudo = Vec::new();
        for address in [self.source, self.target] {
            match address {
                IpAddr::V4(it) => pseudo.extend(it.octets()),
                IpAddr::V6(it) => pseudo.extend(it.octets()),
            }
        }
        pseudo.extend([0, protocol]);
        pseudo.extend(length(segment.len()));
        fold(segment, pseudo.chunks(2).map(word).sum())
    }
}

/// An Ethernet frame around an IP packet.
pub fn ethernet(source: [u8; 6], target: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet.first().is_some_and(|first| first >> 4 == 6) {
        [0x86, 0xdd]
    } else {
        [0x08, 0x00]
    };
    [&target[..], &source, &ether_type, packet].concat()
}

/// The mark of a frame, if it was made here.
pub fn mark(frame: &[u8]) -> Option<u16> {
    let (class, mark) = match frame.get(12..14)? {
        [0x08, 0x00] => (frame.get(15)? >> 2, frame.get(18..20)?),
        [0x86, 0xdd] => {
            let class = (frame.get(14)? << 4) | (frame.get(15)? >> 4);
            (class >> 2, frame.get(16..18)?)
        }
        _ => return None,
    };
    (class == CLASS).then(|| u16::from_be_bytes([mark[0], mark[1]]))
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(it) => it,
        IpAddr::V4(it) => it.to_ipv6_mapped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::parse;

    fn ip(source: &str, target: &str) -> Ip {
        let address = |text: &str| text.parse().expect("an address");
        Ip::new(address(source), address(target), 7)
    }

    #[test]
    fn marks_are_found_again_and_nowhere_else() {
        for it in [ip("10.20.1.10", "10.20.1.11"), ip("fd00::1", "fd00::2")] {
            let frame = ethernet([2; 6], [4; 6], &it.udp(1, 80, b"x"));
            assert_eq!(mark(&frame), Some(7));
            let packet = parse(&frame).expect("an IP packet");
            assert_eq!((packet.protocol, packet.target.port()), (UDP, 80));
            let [_, second] = it.in_two(UDP, &[0; 24], 16);
            assert_eq!(mark(&ethernet([2; 6], [4; 6], &second)), Some(7));
        }
        let mut plain = ethernet([2; 6], [4; 6], &ip("10.20.1.10", "10.20.1.11").udp(1, 80, b"x"));
        plain[15] = 0;
        assert_eq!(mark(&plain), None);
        assert_eq!(mark(&[0; 60]), None);
        assert_eq!(mark(&[]), None);
    }

    #[test]
    fn fragments_carry_offset_and_more() {
        let [first, second] = ip("10.20.1.10", "10.20.1.11").in_two(UDP, &[0; 24], 16);
        assert_eq!((&first[6..8], &second[6..8]), (&[0x20, 0][..], &[0, 2][..]));
        let [first, second] = ip("fd00::1", "fd00::2").in_two(UDP, &[0; 24], 16);
        assert_eq!(
            (first[6], &first[42..44], &second[42..44]),
            (44, &[0, 1][..], &[0, 16][..])
        );
    }
}
