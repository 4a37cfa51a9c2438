//! Entries for conntrack's table, by `NETLINK_NETFILTER`, subsystem ctnetlink (CONFIG_NF_CT_NETLINK).

use std::net::{IpAddr, SocketAddr};

use crate::diag::Transport;
use crate::error::{Error, Refusal};
use crate::link::Link;
use crate::uapi::{attribute as a, flag, message as m, value as v};
use crate::wire::{Writer, netfilter_head};

/// Entries in one datagram: with IPv6 some 50 kB, far below the socket's send buffer, and answers of at most 20 kB.
const ENTRIES: usize = 256;

/// How far a connection has got: what decides the entry beside the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase {
    /// `value::CT_TCP_…`, `None` for UDP.
    pub(crate) tcp: Option<u8>,
    /// `value::IPS_…`
    pub(crate) status: u32,
    /// Seconds until it is forgotten unless a packet comes; each packet sets it anew by the namespace's settings.
    pub(crate) timeout: u32,
}

/// An entry to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) transport: Transport,
    /// Who opened the connection.
    pub(crate) from: SocketAddr,
    /// Whom it was opened to.
    pub(crate) to: SocketAddr,
    pub(crate) phase: Phase,
}

/// [`Error::Lacks`] where the kernel has no ctnetlink.
pub(crate) fn check_available(link: &mut Link) -> Result<(), Error> {
    const WHAT: &str = "a question for conntrack's statistics";
    let answer = link.question(
        WHAT,
        (m::CT_GET_STATS, false),
        &netfilter_head(0, 0),
        |_| {},
        |_| Ok::<_, Error>(()),
    );
    available(answer)
}

fn available(answer: Result<Option<bool>, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) => Ok(()),
        // What netfilter says about a subsystem that it does not have: an entry could be refused so for other reasons.
        Err(Error::Refused(refusal)) if matches!(refusal.errno, libc::EINVAL | libc::EOPNOTSUPP) => {
            Err(Error::Lacks("conntrack's netlink interface (CONFIG_NF_CT_NETLINK)"))
        }
        Err(error) => Err(error),
    }
}

/// Puts entries in, as far as nothing is there yet, and gives the positions of those that existed, in order. All are
/// tried, also after a refusal, which is then returned.
pub(crate) fn insert(link: &mut Link, entries: &[Entry]) -> Result<Vec<usize>, Error> {
    let mut existing = Vec::new();
    let mut refusals = 0_usize;
    let mut first = None;
    let mut writer = Writer::default();
    for (chunk, entries) in entries.chunks(ENTRIES).enumerate() {
        writer.clear();
        let mut sequence = link.sequence();
        for entry in entries {
            encode(&mut writer, sequence, entry);
            sequence = sequence.wrapping_add(1);
        }
        writer.flag_last(flag::ACK);
        let bytes = writer.bytes().unwrap_or_default();
        let count = u32::try_from(entries.len()).unwrap_or_default();
        link.each("entries for conntrack", bytes, count, |position, errno, detail| {
            let Ok(position) = usize::try_from(position) else {
                return;
            };
            if errno == libc::EEXIST {
                existing.push(chunk * ENTRIES + position);
                return;
            }
            refusals += 1;
            if let (None, Some(entry)) = (&first, entries.get(position)) {
                first = Some((*entry, errno, detail));
            }
        })?;
    }
    let Some((entry, errno, detail)) = first else {
        return Ok(existing);
    };
    let total = entries.len();
    Err(Error::Refused(Box::new(Refusal {
        operation: format!(
            "{refusals} of {total} conntrack entries for open connections, first that from {} to {}",
            entry.from, entry.to
        ),
        errno,
        detail,
    })))
}

fn encode(writer: &mut Writer, sequence: u32, entry: &Entry) {
    let family = match entry.from {
        SocketAddr::V4(_) => v::NFPROTO_IPV4,
        SocketAddr::V6(_) => v::NFPROTO_IPV6,
    };
    let flags = flag::REQUEST | flag::CREATE | flag::EXCL;
    writer.begin(m::CT_NEW, flags, sequence, family, 0);
    tuple(writer, a::CTA_TUPLE_ORIG, entry.transport, entry.from, entry.to);
    tuple(writer, a::CTA_TUPLE_REPLY, entry.transport, entry.to, entry.from);
    writer.be32(a::CTA_STATUS, entry.phase.status);
    writer.be32(a::CTA_TIMEOUT, entry.phase.timeout);
    if let Some(state) = entry.phase.tcp {
        // The scales of the windows were said in a SYN that conntrack has not seen: without leniency it takes what lies
        // beyond the unscaled window for invalid. Its own pick-up in mid-stream sets the same two. Flags, then mask.
        let flags = v::IP_CT_TCP_FLAG_BE_LIBERAL | v::IP_CT_TCP_FLAG_SACK_PERM;
        writer.nest(a::CTA_PROTOINFO, |writer| {
            writer.nest(a::CTA_PROTOINFO_TCP, |writer| {
                writer.u8(a::CTA_PROTOINFO_TCP_STATE, state);
                writer.bytes_attribute(a::CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &[flags, flags]);
                writer.bytes_attribute(a::CTA_PROTOINFO_TCP_FLAGS_REPLY, &[flags, flags]);
            });
        });
    }
    writer.end();
}

fn tuple(writer: &mut Writer, kind: u16, transport: Transport, from: SocketAddr, to: SocketAddr) {
    writer.nest(kind, |writer| {
        writer.nest(a::CTA_TUPLE_IP, |writer| {
            address(writer, a::CTA_IP_V4_SRC, a::CTA_IP_V6_SRC, from.ip());
            address(writer, a::CTA_IP_V4_DST, a::CTA_IP_V6_DST, to.ip());
        });
        writer.nest(a::CTA_TUPLE_PROTO, |writer| {
            writer.u8(a::CTA_PROTO_NUM, transport.number());
            writer.be16(a::CTA_PROTO_SRC_PORT, from.port());
            writer.be16(a::CTA_PROTO_DST_PORT, to.port());
        });
    });
}

fn address(writer: &mut Writer, v4: u16, v6: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => writer.bytes_attribute(v4, &address.octets()),
        IpAddr::V6(address) => writer.bytes_attribute(v6, &address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ctnetlink_is_told_from_other_refusals() {
        let refused = |errno| {
            Err(Error::Refused(Box::new(Refusal {
                operation: String::new(),
                errno,
                detail: None,
            })))
        };
        assert!(matches!(available(refused(libc::EINVAL)), Err(Error::Lacks(_))));
        assert!(matches!(available(refused(libc::EPERM)), Err(Error::Refused(_))));
        assert!(matches!(available(Ok(Some(true))), Ok(())));
    }
}
