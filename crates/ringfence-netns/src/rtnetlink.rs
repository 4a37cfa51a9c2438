//! Just enough of rtnetlink to list links, addresses and routes: one dump request, all messages of the answer, and
//! the attributes in them.
//!
//! libc's `getifaddrs` is not used because it names an IPv4 address by its label (`eth0:1`), not by its interface.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};

use crate::Error;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Larger than any datagram of a dump (the kernel stops at 32 KiB).
const BUFFER: usize = 64 * 1024;
/// A dump that was interrupted by a change is asked for again this often.
const ATTEMPTS: usize = 16;

const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A route socket in the namespace that the thread was in when it was opened.
pub(crate) struct Route {
    socket: OwnedFd,
}

/// One message of an answer: its fixed part and its attributes, still as bytes.
pub(crate) struct Message {
    /// RTM_NEW….
    pub(crate) kind: u16,
    /// What follows the netlink header.
    pub(crate) body: Vec<u8>,
}

impl Route {
    pub(crate) fn open() -> Result<Self, Error> {
        let failed = |errno: Errno| Error::System {
            action: "open a route netlink socket".into(),
            source: errno.into(),
        };
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .map_err(failed)?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket })
    }

    /// Everything of one kind (RTM_GET…). `fixed` is the fixed part of the request with the family in its first byte.
    pub(crate) fn dump(&self, what: &'static str, request: u16, fixed: &[u8]) -> Result<Vec<Message>, Error> {
        for _ in 0..ATTEMPTS {
            if let Some(messages) = self.dump_once(what, request, fixed)? {
                return Ok(messages);
            }
        }
        Err(Error::Protocol {
            action: format!("list {what}"),
            why: "the list changed during every attempt to read it",
        })
    }

    /// `None` where the kernel says that the list changed while it was read.
    fn dump_once(&self, what: &'static str, request: u16, fixed: &[u8]) -> Result<Option<Vec<Message>>, Error> {
        let system = |errno: Errno| Error::System {
            action: format!("list {what}"),
            source: errno.into(),
        };
        let malformed = |why| Error::Protocol {
            action: format!("list {what}"),
            why,
        };
        let length = u32::try_from(HEADER + fixed.len()).map_err(|_| malformed("the request is too long"))?;
        let mut bytes = Vec::with_capacity(HEADER + fixed.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(request.to_ne_bytes());
        bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
        bytes.extend([0; 8]); // sequence and port: one request at a time, the kernel fills in the port
        bytes.extend(fixed);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(system)?;

        let mut buffer = vec![0; BUFFER];
        let mut messages = Vec::new();
        let mut whole = true;
        loop {
            // MSG_TRUNC: the answer is the datagram's true length, so a cut one is noticed.
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(system)?,
            };
            let mut rest = buffer.get(..length).ok_or_else(|| malformed("an answer was cut"))?;
            while !rest.is_empty() {
                let (message, flags, after) = split_message(rest).ok_or_else(|| malformed("a message was cut"))?;
                whole &= flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole.then_some(messages)),
                    NLMSG_ERROR => {
                        let code = int32(&message.body, 0).ok_or_else(|| malformed("an error was cut"))?;
                        return Err(Error::System {
                            action: format!("list {what}"),
                            source: io::Error::from_raw_os_error(code.saturating_neg()),
                        });
                    }
                    _ => messages.push(message),
                }
                rest = after;
            }
        }
    }
}

/// The first message of a datagram, its flags, and what follows it.
pub(crate) fn split_message(bytes: &[u8]) -> Option<(Message, u16, &[u8])> {
    let length = usize::try_from(uint32(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let message = Message {
        kind: uint16(bytes, 4)?,
        body: body.to_vec(),
    };
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, uint16(bytes, 6)?, after))
}

/// The attributes in `bytes`: type (without the nesting bits) and value. Stops at the first one that is cut.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(uint16(bytes, 0)?);
        let kind = uint16(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn uint16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

pub(crate) fn uint32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

pub(crate) fn int32(bytes: &[u8], offset: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_stop_at_a_cut_one_and_skip_the_padding() {
        let mut bytes = Vec::new();
        for (kind, value) in [(3_u16, &b"eth0\0"[..]), (0x8001, &[7][..])] {
            bytes.extend(u16::try_from(4 + value.len()).expect("short").to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes.extend([200, 0, 1, 0, 9]);
        let found: Vec<(u16, &[u8])> = attributes(&bytes).collect();
        assert_eq!(found, [(3, &b"eth0\0"[..]), (1, &[7][..])]);
    }

    #[test]
    fn messages_with_impossible_lengths_are_refused() {
        for length in [0_u32, 15, 17, u32::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([0; 12]);
            assert!(split_message(&bytes).is_none(), "length {length}");
        }
        assert!(split_message(&[1, 2]).is_none());
    }
}
