//! What others change in a network namespace: tables of our name, interfaces, addresses. The kernel tells it in the
//! moment of the change, so that nobody has to look at intervals.
//!
//! Our own transactions are told too, to everybody who listens. A filter in the kernel drops those before they are
//! queued: 10,000 elements of ours must neither fill the buffer nor wake the thread that listens.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::encode::TABLE;
use crate::error::Error;
use crate::socket::Socket;
use crate::uapi::attribute as a;
use crate::uapi::message::SUBSYSTEM;
use crate::wire::{Message, Messages, text};

/// Groups of listeners (linux/netfilter/nfnetlink.h, linux/rtnetlink.h): nftables; links, traffic control, IPv4 and IPv6
/// addresses.
const NFTABLES: libc::c_int = 7;
const ROUTES: [libc::c_int; 4] = [1, 4, 5, 9];
/// Messages of traffic control (linux/rtnetlink.h) lie between these; a filter that is new is this one.
const TRAFFIC_CONTROL: std::ops::RangeInclusive<u16> = 36..=47;
const NEW_FILTER: u16 = 44;

/// Enough for some hundred messages. What does not fit is told as "lost", which says as much as the messages would.
const RECEIVE_BUFFER: usize = 64 << 10;
/// Larger than any datagram of notifications (the kernel builds them in pages).
const RECEIVE: usize = 64 << 10;
/// Datagrams that one look takes off a socket; a pod that talks all the time must not keep the listener.
const AT_ONCE: usize = 64;

/// What was told since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct News {
    /// Somebody else has changed a table of our name, or nobody knows because messages were lost.
    pub tables: bool,
    /// An interface or an address is new, gone or another one.
    pub links: bool,
    /// A filter of traffic control is new, which can redirect packets behind every rule.
    pub filters: bool,
}

impl News {
    /// Whether anything was told.
    pub fn is_some(self) -> bool {
        self.tables || self.links || self.filters
    }
}

/// The kernel's notifications from one network namespace. Reading them never waits.
#[derive(Debug)]
pub struct Notifications {
    nftables: Socket,
    routes: Socket,
    /// Whose changes are no news.
    own: u32,
}

impl Notifications {
    /// Listens in the calling thread's network namespace from now on. Open it before what it watches is read, so that
    /// no change falls in between.
    pub fn open() -> Result<Self, Error> {
        let open = |protocol, groups: &[libc::c_int]| {
            let socket = Socket::open_with(protocol, RECEIVE_BUFFER)?;
            for group in groups {
                socket.join(*group)?;
            }
            Ok(socket)
        };
        let failed = |source| Error::Socket {
            action: "listen to",
            source,
        };
        Ok(Self {
            nftables: open(libc::NETLINK_NETFILTER, &[NFTABLES]).map_err(failed)?,
            routes: open(libc::NETLINK_ROUTE, &ROUTES).map_err(failed)?,
            own: 0,
        })
    }

    /// Changes that come from this port, an [`Enforcer`](crate::Enforcer)'s, are no news.
    pub fn ignore(&mut self, port: u32) -> Result<(), Error> {
        self.own = port;
        self.nftables.ignore(port).map_err(|source| Error::Socket {
            action: "set a filter on",
            source,
        })
    }

    /// What can be waited on: both become readable when there is news.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.nftables.as_fd(), self.routes.as_fd()]
    }

    /// Takes in what has been told. The buffer is for this call only; one will do for many namespaces.
    pub fn look(&self, buffer: &mut Vec<u8>) -> News {
        buffer.resize(RECEIVE, 0);
        let mut filters = false;
        News {
            tables: drain(&self.nftables, buffer, |message| {
                message.port != self.own && names_our_table(message)
            }),
            links: drain(&self.routes, buffer, |message| {
                filters |= message.kind == NEW_FILTER;
                !TRAFFIC_CONTROL.contains(&message.kind)
            }),
            filters,
        }
    }
}

/// Takes what is queued off the socket; whether any of it matters, or something was lost.
fn drain(socket: &Socket, buffer: &mut [u8], mut matters: impl FnMut(&Message<'_>) -> bool) -> bool {
    let mut news = false;
    for _ in 0..AT_ONCE {
        match socket.receive(buffer, false) {
            Ok(length) => {
                let Some(datagram) = buffer.get(..length) else {
                    news = true;
                    continue;
                };
                for message in Messages(datagram) {
                    // What cannot be read may be anything.
                    news |= message.map_or(true, |message| matters(&message));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return news,
            // ENOBUFS: messages were lost. Anything else does not get better by asking again.
            Err(_) => news = true,
        }
    }
    // There is more; whatever it is, somebody should look.
    true
}

/// Whether a message of nftables is about a table of our name. All of them have the table's name as their first kind of
/// attribute, but those that tell a new generation, which say nothing that the others do not.
fn names_our_table(message: &Message<'_>) -> bool {
    if message.kind >> 8 != SUBSYSTEM {
        return false;
    }
    let Ok(attributes) = message.attributes() else {
        return true;
    };
    for attribute in attributes {
        match attribute {
            Ok((a::TABLE_NAME, payload)) => return text(payload).is_ok_and(|name| name == TABLE),
            Ok(_) => {}
            Err(_) => return true,
        }
    }
    false
}
