//! The sockets of a network namespace, by `NETLINK_SOCK_DIAG` (`inet_diag`, in every kernel since 3.3).
//!
//! A socket of family IPv6 may carry IPv4 (`::ffff:10.0.0.1`): its addresses are
//! given as the IPv4 addresses that are on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::Error;
use crate::link::Link;
use crate::opener::Reading;
use crate::uapi::{attribute as a, message as m, value as v};
use crate::wire::{Attributes, Malformed, Message};

/// Length of `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// Dumps that are repeated because the sockets changed meanwhile; after that the last one is taken as it is.
const ATTEMPTS: usize = 4;

/// A transport whose sockets are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Its number in IP headers.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// One socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Socket {
    pub(crate) transport: Transport,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// `value::TCP_…`; UDP has ESTABLISHED (connected) and CLOSE.
    pub(crate) state: u8,
    /// Of family IPv6 and not limited to it.
    pub(crate) dual: bool,
    /// Who opened the connection, of TCP.
    pub(crate) opened: Reading,
}

/// All sockets of a transport that are in one of these states. [`Error::Lacks`] where the kernel cannot tell.
pub(crate) fn sockets(link: &mut Link, transport: Transport, states: &[u8]) -> Result<Vec<Socket>, Error> {
    const WHAT: &str = "a question for sockets";
    let mask = states.iter().fold(0_u32, |mask, state| mask | 1 << state);
    let mut all = Vec::new();
    for family in [v::NFPROTO_IPV4, v::NFPROTO_IPV6] {
        // struct inet_diag_req_v2: which sockets, then all zero where it would name a single one.
        let mut request = [0; 56];
        request[..2].copy_from_slice(&[family, transport.number()]);
        // With what TCP counts: a bit for each attribute that is not always there.
        request[2] = 1 << (a::INET_DIAG_INFO - 1);
        request[4..8].copy_from_slice(&mask.to_ne_bytes());
        let before = all.len();
        for _ in 0..ATTEMPTS {
            all.truncate(before);
            let answer = link.question(
                WHAT,
                (m::SOCK_DIAG_BY_FAMILY, true),
                &request,
                |_| {},
                |message| {
                    let socket = parse(transport, message).map_err(|Malformed| Error::Malformed(WHAT))?;
                    all.extend(socket);
                    Ok::<_, Error>(())
                },
            )?;
            match answer {
                None => {
                    return Err(Error::Lacks(
                        "socket diagnosis (CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG)",
                    ));
                }
                Some(true) => break,
                Some(false) => {}
            }
        }
    }
    Ok(all)
}

/// `None` for a message of another kind.
pub(crate) fn parse(transport: Transport, message: &Message<'_>) -> Result<Option<Socket>, Malformed> {
    if message.kind != m::SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let (fixed, attributes) = message.payload.split_first_chunk::<MESSAGE>().ok_or(Malformed)?;
    // family, state, timer, retransmissions, ports, addresses of 16 bytes each, then little that is of interest here.
    let (family, state) = (fixed[0], fixed[1]);
    let port = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let queued = u32::from_ne_bytes([fixed[60], fixed[61], fixed[62], fixed[63]]);
    let (mut only_v6, mut opened) = (false, Reading::Unknown);
    for attribute in Attributes(attributes) {
        match attribute? {
            (a::INET_DIAG_SKV6ONLY, payload) => only_v6 = payload != [0],
            (a::INET_DIAG_INFO, payload) if transport == Transport::Tcp => {
                opened = Reading::new(state, queued, payload);
            }
            _ => {}
        }
    }
    Ok(Some(Socket {
        transport,
        local: SocketAddr::new(address(family, &fixed[8..24])?, port(4)),
        remote: SocketAddr::new(address(family, &fixed[24..40])?, port(6)),
        state,
        dual: family == v::NFPROTO_IPV6 && !only_v6,
        opened,
    }))
}

fn address(family: u8, bytes: &[u8]) -> Result<IpAddr, Malformed> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| Malformed)?;
    match family {
        v::NFPROTO_IPV4 => Ok(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        v::NFPROTO_IPV6 => Ok(Ipv6Addr::from(bytes).to_canonical()),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Message<'_> {
        Message {
            kind: m::SOCK_DIAG_BY_FAMILY,
            flags: 0,
            sequence: 0,
            port: 0,
            payload,
        }
    }

    fn payload(family: u8, local: IpAddr, attributes: &[u8]) -> Vec<u8> {
        let mut payload = vec![family, v::TCP_LISTEN, 0, 0, 0, 80, 0, 0];
        match local {
            IpAddr::V4(address) => payload.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => payload.extend_from_slice(&address.octets()),
        }
        payload.resize(MESSAGE, 0);
        payload.extend_from_slice(attributes);
        payload
    }

    #[test]
    fn sockets_are_read_with_the_addresses_on_the_wire() {
        let v6only = |value: u8| [5, 0, 11, 0, value, 0, 0, 0];
        for (family, local, attributes, expected, dual) in [
            (2, "10.0.0.1", &[][..], "10.0.0.1:80", false),
            (10, "fd00::1", &v6only(1), "[fd00::1]:80", false),
            (10, "::", &v6only(0), "[::]:80", true),
            (10, "::ffff:10.0.0.1", &v6only(0), "10.0.0.1:80", true),
        ] {
            let bytes = payload(family, local.parse().unwrap(), attributes);
            let socket = parse(Transport::Tcp, &message(&bytes)).unwrap().unwrap();
            assert_eq!(socket.local, expected.parse().unwrap());
            assert_eq!((socket.state, socket.dual), (v::TCP_LISTEN, dual));
        }
    }

    #[test]
    fn a_truncated_or_foreign_answer_is_malformed() {
        let bytes = payload(2, "10.0.0.1".parse().unwrap(), &[8, 0, 11, 0, 1]);
        for length in 0..bytes.len() {
            let read = parse(Transport::Tcp, &message(&bytes[..length]));
            assert_eq!(read.is_err(), length != MESSAGE, "{length}");
        }
        let bytes = payload(1, "10.0.0.1".parse().unwrap(), &[]);
        assert_eq!(parse(Transport::Tcp, &message(&bytes)), Err(Malformed));
    }
}
