//! Frames that no socket sends, each with a number by which the receiver's namespace knows it again: the identification
//! of an IPv4 packet, the flow label of an IPv6 one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Source MAC address of every frame made here, so that nothing else is taken for one.
pub const SENDER: [u8; 6] = [0x02, 0x72, 0x66, 0xff, 0xff, 0xfe];
/// The same as nft writes it.
pub const SENDER_TEXT: &str = "02:72:66:ff:ff:fe";

/// Everything below the payload.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Target MAC address.
    pub target: [u8; 6],
    /// Source address, any.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// What the frame is known by, not 0.
    pub number: u16,
}

impl Header {
    /// One packet.
    pub fn whole(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.frame(protocol, payload, None)
    }

    /// The same in two fragments, the first with `first` bytes, a multiple of 8.
    pub fn fragments(&self, protocol: u8, payload: &[u8], first: u16) -> [Vec<u8>; 2] {
        let (head, tail) = payload.split_at(usize::from(first));
        [
            self.frame(protocol, head, Some((0, true))),
            self.frame(protocol, tail, Some((first, false))),
        ]
    }

    fn frame(&self, protocol: u8, payload: &[u8], fragment: Option<(u16, bool)>) -> Vec<u8> {
        let mut out = [self.target, SENDER].concat();
        out.extend(self.packet(protocol, payload, fragment));
        out
    }

    /// EtherType and packet.
    fn packet(&self, protocol: u8, payload: &[u8], fragment: Option<(u16, bool)>) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (offset, more) = fragment.unwrap_or((0, false));
                let flags = (offset / 8) | if more { 0x2000 } else { 0 };
                let mut header = vec![0x45, 0];
                header.extend(length(20 + payload.len()));
                header.extend(self.number.to_be_bytes());
                header.extend(flags.to_be_bytes());
                header.extend([self.hop_limit, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let checksum = checksum(&[&header]);
                header[10..12].copy_from_slice(&checksum);
                [&[0x08, 0x00][..], &header, payload].concat()
            }
            (source, destination) => {
                let [high, low] = self.number.to_be_bytes();
                let mut header = vec![0x60, 0, high, low];
                let mut extension = Vec::new();
                let mut next = protocol;
                if let Some((offset, more)) = fragment {
                    next = 44;
                    extension.extend([protocol, 0]);
                    extension.extend((offset | u16::from(more)).to_be_bytes());
                    extension.extend([0, 0, high, low]);
                }
                header.extend(length(extension.len() + payload.len()));
                header.extend([next, self.hop_limit]);
                header.extend(v6(source).octets());
                header.extend(v6(destination).octets());
                [&[0x86, 0xdd][..], &header, &extension, payload].concat()
            }
        }
    }

    /// A datagram, as a payload.
    pub fn udp(&self, from: u16, to: u16, data: &[u8]) -> Vec<u8> {
        let mut out = [from.to_be_bytes(), to.to_be_bytes(), length(8 + data.len()), [0, 0]].concat();
        out.extend(data);
        let sum = match checksum(&[&self.pseudo(17, out.len()), &out]) {
            [0, 0] => [0xff, 0xff],
            other => other,
        };
        out[6..8].copy_from_slice(&sum);
        out
    }

    /// A TCP segment with these flags (SYN 2, ACK 16), as a payload.
    pub fn tcp(&self, from: u16, to: u16, flags: u8) -> Vec<u8> {
        let mut out = [from.to_be_bytes(), to.to_be_bytes()].concat();
        out.extend([0, 0, 3, 232, 0, 0, 7, 208, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = checksum(&[&self.pseudo(6, out.len()), &out]);
        out[16..18].copy_from_slice(&sum);
        out
    }

    /// An ICMP or ICMPv6 message, by the family of the addresses, as a payload.
    pub fn icmp(&self, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, code, 0, 0];
        out.extend(rest);
        let sum = if self.source.is_ipv4() {
            checksum(&[&out])
        } else {
            checksum(&[&self.pseudo(58, out.len()), &out])
        };
        out[2..4].copy_from_slice(&sum);
        out
    }

    /// The packet without its frame, as an ICMP error quotes it: headers and the first bytes.
    pub fn quoted(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.packet(protocol, payload, None).split_off(2)
    }

    fn pseudo(&self, protocol: u8, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.extend(source.octets());
                out.extend(destination.octets());
            }
            (source, destination) => {
                out.extend(v6(source).octets());
                out.extend(v6(destination).octets());
            }
        }
        out.extend([0, protocol]);
        out.extend(length(size));
        out
    }
}

/// The MAC address to which a destination's frames go: multicast and broadcast have their own.
pub fn target_mac(destination: IpAddr, otherwise: [u8; 6]) -> [u8; 6] {
    match destination {
        IpAddr::V4(it) if it.is_multicast() => {
            let [_, b, c, d] = it.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V4(it) if it.is_broadcast() || it.octets()[2..] == [255, 255] => [0xff; 6],
        IpAddr::V6(it) if it.is_multicast() => {
            let [.., a, b, c, d] = it.octets();
            [0x33, 0x33, a, b, c, d]
        }
        _ => otherwise,
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(it) => it,
        IpAddr::V4(it) => Ipv4Addr::to_ipv6_mapped(&it),
    }
}

fn length(size: usize) -> [u8; 2] {
    u16::try_from(size).expect("a small packet").to_be_bytes()
}

/// The Internet checksum (RFC 1071) of parts of even length, but for the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
    let mut sum: u32 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or_default()).to_be_bytes()
}
