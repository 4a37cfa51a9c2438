//! Ethernet frames made by hand, and read again: what a process with CAP_NET_RAW can put on the wire, and protocols that
//! the kernel has no sockets for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Whom a forged frame claims to come from, and whom it is for.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// Target MAC address.
    pub target_mac: [u8; 6],
    /// Source address and port; any, also one that is not the sender's.
    pub source: SocketAddr,
    /// Target address and port, of the same family.
    pub target: SocketAddr,
}

impl Frame {
    /// A UDP datagram.
    pub fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend(length(8 + payload.len()));
        segment.extend([0, 0]);
        segment.extend(payload);
        let checksum = self.checksum(UDP, &segment);
        // Zero would mean "no checksum".
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        segment[6..8].copy_from_slice(&checksum.to_be_bytes());
        self.packet(UDP, &segment)
    }

    /// The first segment of a TCP connection.
    pub fn tcp_syn(&self) -> Vec<u8> {
        self.tcp(0x02)
    }

    /// A bare TCP segment with these flags (FIN 1, SYN 2, RST 4, ACK 16), sequence number 1000 and acknowledgement 2000.
    pub fn tcp(&self, flags: u8) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend(1000_u32.to_be_bytes());
        segment.extend(2000_u32.to_be_bytes());
        segment.extend([5 << 4, flags]);
        segment.extend(0xffff_u16.to_be_bytes()); // window
        segment.extend([0; 4]); // checksum, urgent pointer
        let checksum = self.checksum(TCP, &segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        self.packet(TCP, &segment)
    }

    /// The first chunk of an SCTP association.
    pub fn sctp_init(&self) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend([0; 8]); // verification tag 0 as INIT needs it, checksum
        segment.extend([1, 0]); // INIT
        segment.extend(length(20));
        segment.extend(0x1234_5678_u32.to_be_bytes()); // initiate tag
        segment.extend(0x1_0000_u32.to_be_bytes()); // window
        segment.extend([0, 1, 0, 1]); // one stream each way
        segment.extend(1_u32.to_be_bytes()); // first sequence number
        let checksum = crc32c(&segment);
        segment[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.packet(SCTP, &segment)
    }

    fn ports(&self) -> Vec<u8> {
        let mut out = self.source.port().to_be_bytes().to_vec();
        out.extend(self.target.port().to_be_bytes());
        out
    }

    /// Ethernet and IP headers in front of a segment.
    fn packet(&self, protocol: u8, segment: &[u8]) -> Vec<u8> {
        let mut out = [self.target_mac, self.source_mac].concat();
        if let (IpAddr::V4(source), IpAddr::V4(target)) = (self.source.ip(), self.target.ip()) {
            out.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0];
            header.extend(length(20 + segment.len()));
            header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]); // identification 1, do not fragment, hop limit 64
            header.extend(source.octets());
            header.extend(target.octets());
            let checksum = fold(&header, 0);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            out.extend(header);
        } else {
            out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            out.extend(length(segment.len()));
            out.extend([protocol, 64]);
            out.extend(v6(self.source.ip()).octets());
            out.extend(v6(self.target.ip()).octets());
        }
        out.extend(segment);
        out
    }

    /// The checksum over the pseudo header and a segment whose own checksum is zero.
    fn checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        let mut pseudo = Vec::new();
        match (self.source.ip(), self.target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                pseudo.extend(source.octets());
                pseudo.extend(target.octets());
            }
            (source, target) => {
                pseudo.extend(v6(source).octets());
                pseudo.extend(v6(target).octets());
            }
        }
        pseudo.extend([0, protocol]);
        pseudo.extend(length(segment.len()));
        let sum = pseudo.chunks(2).map(word).sum();
        fold(segment, sum)
    }
}

/// What a frame turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address; port 0 for protocols without ports.
    pub source: SocketAddr,
    /// Target address; likewise.
    pub target: SocketAddr,
    /// What follows the ports (with the rest of the header in front).
    pub rest: Vec<u8>,
}

/// Reads an IP packet out of an Ethernet frame. `None` for ARP and everything else, IPv6 extension headers included.
pub fn parse(frame: &[u8]) -> Option<Packet> {
    let (protocol, source, target, segment): (u8, IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let packet = frame.get(14..)?;
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            (
                *packet.get(9)?,
                address(12)?.into(),
                address(16)?.into(),
                packet.get(header..)?,
            )
        }
        [0x86, 0xdd] => {
            let packet = frame.get(14..)?;
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            (
                *packet.get(6)?,
                address(8)?.into(),
                address(24)?.into(),
                packet.get(40..)?,
            )
        }
        _ => return None,
    };
    let (ports, rest) = if matches!(protocol, TCP | UDP | SCTP) {
        let port = |at: usize| Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?));
        ((port(0)?, port(2)?), segment.get(4..)?)
    } else {
        ((0, 0), segment)
    };
    Some(Packet {
        protocol,
        source: SocketAddr::new(source, ports.0),
        target: SocketAddr::new(target, ports.1),
        rest: rest.to_vec(),
    })
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(it) => it,
        IpAddr::V4(it) => it.to_ipv6_mapped(),
    }
}

/// A length field. Frames that are made here are far below its limit.
pub(crate) fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

pub(crate) fn word(pair: &[u8]) -> u32 {
    u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default())
}

/// The Internet checksum (RFC 1071) of `bytes` on top of `sum`.
pub(crate) fn fold(bytes: &[u8], sum: u32) -> u16 {
    let mut sum = sum + bytes.chunks(2).map(word).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// CRC32c (RFC 9260, appendix A), bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(source: &str, target: &str) -> Frame {
        Frame {
            source_mac: [2, 0, 0, 0, 0, 1],
            target_mac: [2, 0, 0, 0, 0, 2],
            source: source.parse().expect("address"),
            target: target.parse().expect("address"),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (source, target) in [("10.20.1.10:1", "10.20.1.11:80"), ("[fd00::1]:1", "[fd00::2]:80")] {
            let it = frame(source, target);
            for (protocol, bytes) in [(UDP, it.udp(b"x")), (TCP, it.tcp_syn()), (SCTP, it.sctp_init())] {
                let packet = parse(&bytes).expect("an IP packet");
                assert_eq!(
                    (packet.protocol, packet.source, packet.target),
                    (protocol, it.source, it.target)
                );
            }
        }
        assert_eq!(parse(&[0; 60]), None);
        assert_eq!(parse(&[]), None);
    }

    /// Examples of RFC 1071 section 3 and RFC 3720 appendix B.4.
    #[test]
    fn checksums() {
        assert_eq!(fold(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), !0xddf2);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
