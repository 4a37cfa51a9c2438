//! Connections that are open before a network namespace has its first ruleset.
//!
//! A namespace without conntrack rules does not track. When its first ruleset comes, conntrack meets connections in the
//! middle, and takes whoever sends the next packet for the one who opened (mid-stream pick-up). That is wrong in half
//! of the cases: what a peer had opened to a pod that nobody may reach lives on, because the pod seems to have opened
//! it (against statements 105 and 106), and an allowed download stops, because the server seems to have opened it
//! (against 107). [`track_established`] puts entries the right way round into conntrack's table just before, so that
//! the first packet under the ruleset already has its direction.
//!
//! Who opened a connection is no property of a socket, but shows in what TCP has counted (`opener.rs`), which the pod's
//! processes have no influence on. TCP in SYN_SENT was opened by the pod, in SYN_RECV by the peer. Where the counters tell nothing, it is
//! concluded from the other sockets:
//! * If something listens on the local port, at the local or at any address, then the peer opened. A listener on `::`
//!   counts for IPv4 too unless it is limited to IPv6.
//! * Without a listener (a server that takes no new connections but finishes the old ones) the peer opened if the local
//!   port is none that the kernel chooses (`net.ipv4.ip_local_port_range`) and the peer's is: only the side that opens
//!   has its port chosen. A client in the pod that binds a port outside of that range, connected to a port inside of
//!   it, is taken for a server: a mistake to the safe side.
//! * Else the pod opened.
//!
//! For UDP, a connected socket was opened by the pod unless a socket without a peer is bound to the same port, which is
//! then the "listener" that accepted it; ports decide nothing more, since UDP servers rarely connect without one.
//!
//! These conclusions are within the pod's reach: who listens on the port that it calls from seems to have been called. That is
//! why entries are made when a namespace gets rules and at no other time: later, a pod whose connection was revoked and
//! forgotten would have it back by opening a listener.
//!
//! Left out are loopback and connections of the namespace to itself (they cross `lo`, which no ruleset judges), and
//! TCP in TIME_WAIT: all data has arrived, what may still come is a repeated FIN. An entry that exists is left as it is.
//!
//! What remains:
//! * *UDP without a peer* (servers, and clients that only use `sendto`): the kernel keeps no list of their
//!   conversations. The first packet after the ruleset decides, as it does after conntrack's timeout anyway
//!   (statement 108): a query whose answer is on its way is lost once, a client asks again.
//! * *SCTP*: not closed. An entry needs the association's verification tags, which no interface tells. Conntrack takes
//!   a DATA chunk without an entry for invalid, but a HEARTBEAT for a beginning, whoever sends it (they are sent every
//!   30 s): so an association stops until then, and then has the direction of the first heartbeat.
//! * *Between the sockets' list and the ruleset*: a connection that is made in these milliseconds is not in the list. Rules
//!   that drop segments from the middle of a connection without an entry (statement 106) make it wait; a second call
//!   directly after the transaction gives it its entry, and it goes on or stays stopped as policy says.
//! * *Idle, half closed connections*: where an entry runs out (CLOSE_WAIT 60 s, as with every tracked connection), such
//!   rules stop the connection for good.
//! * *Sockets that listen on behalf of others* (transparent proxies, `IP_TRANSPARENT`) are matched by port as others are.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::conntrack::{self, Entry, Phase};
use crate::diag::{self, Socket, Transport};
use crate::error::Error;
use crate::link::Link;
use crate::opener::{End, Reading};
use crate::uapi::value as v;

/// What [`track_established`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tracked {
    /// Number of entries made for connections that peers had opened.
    pub inbound: usize,
    /// Number of entries made for connections that the pod had opened.
    pub outbound: usize,
    /// Number of connections that conntrack knew already.
    pub skipped: usize,
}

/// Makes conntrack know the open TCP connections and connected UDP sockets of the calling thread's network namespace.
///
/// To be called directly before the first ruleset of a namespace that has none, each time anew (where rules have gone,
/// tracking has ended), and again directly after it, for what was opened in between. Calling it elsewhere does no harm and changes nothing that conntrack knows.
///
/// Nothing here is a condition for enforcing: on any error the caller does best to log it and commit the ruleset, which
/// judges all connections, some perhaps by the wrong direction. [`Error::Lacks`] means that it will never work on this
/// kernel; [`Error::Refused`] that entries were refused (the table is full: ENOMEM), while all others are made.
///
/// Takes some microseconds and at most about 600 bytes per connection.
pub fn track_established() -> Result<Tracked, Error> {
    let mut link = Link::open_to(libc::NETLINK_SOCK_DIAG).map_err(lacks_diagnosis)?;
    let mut connections = Vec::new();
    let mut listeners = Listeners::default();
    // Connections first: whoever accepted one of them was listening before it, so that asking for listeners afterwards
    // misses none, except one that stopped in between. The other way round misses those that began in between.
    for transport in Transport::ALL {
        connections.extend(ask(&mut link, transport, CONNECTED)?);
    }
    look_again(&mut link, &mut connections)?;
    for transport in Transport::ALL {
        let states = match transport {
            Transport::Tcp => &[v::TCP_LISTEN],
            Transport::Udp => &[v::TCP_CLOSE],
        };
        for socket in ask(&mut link, transport, states)? {
            listeners.add(&socket);
        }
    }
    let (entries, inbound) = plan(connections, &listeners, &chosen_ports());
    if entries.is_empty() {
        return Ok(Tracked::default());
    }
    let mut link = Link::open()?;
    conntrack::check_available(&mut link)?;
    let existing = conntrack::insert(&mut link, &entries)?;
    let existing_inbound = existing.iter().filter(|position| **position < inbound).count();
    Ok(Tracked {
        inbound: inbound - existing_inbound,
        outbound: entries.len() - inbound - (existing.len() - existing_inbound),
        skipped: existing.len(),
    })
}

/// States of sockets that have a peer.
const CONNECTED: &[u8] = &[
    v::TCP_ESTABLISHED,
    v::TCP_SYN_SENT,
    v::TCP_SYN_RECV,
    v::TCP_FIN_WAIT1,
    v::TCP_FIN_WAIT2,
    v::TCP_CLOSE_WAIT,
    v::TCP_LAST_ACK,
    v::TCP_CLOSING,
];

/// Most further looks at connections that are busy.
const LOOKS: usize = 6;

/// Ports that Linux chooses by default.
const CHOSEN_PORTS: RangeInclusive<u16> = 32_768..=60_999;

fn ask(link: &mut Link, transport: Transport, states: &[u8]) -> Result<Vec<Socket>, Error> {
    match diag::sockets(link, transport, states) {
        // An option of its own, and less is at stake: TCP must not suffer from it.
        Err(Error::Lacks(_)) if transport == Transport::Udp => Ok(Vec::new()),
        result => result,
    }
}

/// Further looks at TCP connections, as long as one of them does not say for sure who opened it.
fn look_again(link: &mut Link, connections: &mut [Socket]) -> Result<(), Error> {
    let open = |socket: &Socket| {
        let told = matches!(socket.state, v::TCP_SYN_SENT | v::TCP_SYN_RECV);
        socket.transport == Transport::Tcp && !told && socket.opened.opener().is_none()
    };
    for _ in 0..LOOKS {
        if !connections.iter().any(open) {
            break;
        }
        let ends = |socket: &Socket| (socket.local, socket.remote);
        let next: HashMap<_, Reading> = ask(link, Transport::Tcp, CONNECTED)?
            .iter()
            .map(|socket| (ends(socket), socket.opened))
            .collect();
        for socket in connections.iter_mut().filter(|socket| open(socket)) {
            if let Some(reading) = next.get(&ends(socket)) {
                socket.opened = socket.opened.then(*reading);
            }
        }
    }
    Ok(())
}

fn lacks_diagnosis(error: Error) -> Error {
    match error {
        Error::Socket { source, .. } if source.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            Error::Lacks("socket diagnosis (CONFIG_INET_DIAG)")
        }
        error => error,
    }
}

/// The ports that the kernel chooses in this namespace: below `/proc/sys/net` each thread sees those of its own.
fn chosen_ports() -> RangeInclusive<u16> {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            let (first, last) = text.trim().split_once(char::is_whitespace)?;
            Some(first.parse().ok()?..=last.trim().parse().ok()?)
        })
        .unwrap_or(CHOSEN_PORTS)
}

/// Where peers are waited for.
#[derive(Debug, Default)]
struct Listeners(HashSet<(Transport, IpAddr, u16)>);

impl Listeners {
    fn add(&mut self, socket: &Socket) {
        // A UDP socket that was disconnected or never bound has no port, and waits for nobody.
        if socket.local.port() == 0 {
            return;
        }
        let (transport, port) = (socket.transport, socket.local.port());
        self.0.insert((transport, socket.local.ip(), port));
        if socket.dual && socket.local.ip() == Ipv6Addr::UNSPECIFIED {
            self.0.insert((transport, Ipv4Addr::UNSPECIFIED.into(), port));
        }
    }

    fn accept(&self, socket: &Socket) -> bool {
        let any = match socket.local.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let port = socket.local.port();
        [socket.local.ip(), any]
            .into_iter()
            .any(|address| self.0.contains(&(socket.transport, address, port)))
    }
}

/// The entries, those of connections opened by peers first, and how many these are.
fn plan(mut connections: Vec<Socket>, listeners: &Listeners, chosen: &RangeInclusive<u16>) -> (Vec<Entry>, usize) {
    connections.retain(|socket| {
        let (local, remote) = (socket.local.ip(), socket.remote.ip());
        !local.is_loopback() && !remote.is_loopback() && local != remote && socket.remote.port() != 0
    });
    // Of a connection of the namespace to itself both ends are in the list.
    let ends: HashSet<_> = connections
        .iter()
        .map(|socket| (socket.transport, socket.local, socket.remote))
        .collect();
    connections.retain(|socket| !ends.contains(&(socket.transport, socket.remote, socket.local)));
    let (inbound, outbound): (Vec<Socket>, Vec<Socket>) = connections
        .into_iter()
        .partition(|socket| peer_opened(socket, listeners, chosen));
    let entry = |socket: &Socket, from, to| {
        phase(socket).map(|phase| Entry {
            transport: socket.transport,
            from,
            to,
            phase,
        })
    };
    let mut entries: Vec<Entry> = inbound
        .iter()
        .filter_map(|socket| entry(socket, socket.remote, socket.local))
        .collect();
    let count = entries.len();
    entries.extend(
        outbound
            .iter()
            .filter_map(|socket| entry(socket, socket.local, socket.remote)),
    );
    (entries, count)
}

/// Number of entries, and of those that peers opened, if all of these were both listeners and connections: for
/// [`crate::fuzzing`].
pub(crate) fn planned(sockets: &[Socket]) -> (usize, usize) {
    let mut listeners = Listeners::default();
    for socket in sockets {
        listeners.add(socket);
    }
    let (entries, inbound) = plan(sockets.to_vec(), &listeners, &CHOSEN_PORTS);
    (entries.len(), inbound)
}

fn peer_opened(socket: &Socket, listeners: &Listeners, chosen: &RangeInclusive<u16>) -> bool {
    match (socket.transport, socket.state) {
        (Transport::Udp, _) => listeners.accept(socket),
        (Transport::Tcp, v::TCP_SYN_SENT) => false,
        (Transport::Tcp, v::TCP_SYN_RECV) => true,
        (Transport::Tcp, _) => {
            let concluded = || {
                let (local, remote) = (socket.local.port(), socket.remote.port());
                listeners.accept(socket) || (!chosen.contains(&local) && chosen.contains(&remote))
            };
            socket.opened.opener().map_or_else(concluded, |end| end == End::Remote)
        }
    }
}

/// Conntrack's view of a socket's state, with the kernel's default timeouts; `None` for a state that was not asked for.
fn phase(socket: &Socket) -> Option<Phase> {
    let both = v::IPS_CONFIRMED | v::IPS_SEEN_REPLY;
    let assured = both | v::IPS_ASSURED;
    let (tcp, status, timeout) = match (socket.transport, socket.state) {
        // As a stream, so that it is not the first to go when the table is full.
        (Transport::Udp, v::TCP_ESTABLISHED) => (None, assured, 120),
        (Transport::Udp, _) => return None,
        (Transport::Tcp, state) => {
            let (state, status, timeout) = match state {
                v::TCP_SYN_SENT => (v::CT_TCP_SYN_SENT, v::IPS_CONFIRMED, 120),
                v::TCP_SYN_RECV => (v::CT_TCP_SYN_RECV, both, 60),
                v::TCP_ESTABLISHED => (v::CT_TCP_ESTABLISHED, assured, 432_000),
                // Conntrack does not ask whose the FIN is, only whether it was acknowledged and answered.
                v::TCP_FIN_WAIT1 => (v::CT_TCP_FIN_WAIT, assured, 120),
                v::TCP_FIN_WAIT2 | v::TCP_CLOSE_WAIT => (v::CT_TCP_CLOSE_WAIT, assured, 60),
                v::TCP_CLOSING | v::TCP_LAST_ACK => (v::CT_TCP_LAST_ACK, assured, 30),
                _ => return None,
            };
            (Some(state), status, timeout)
        }
    };
    Some(Phase { tcp, status, timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(transport: Transport, local: &str, remote: &str, state: u8) -> Socket {
        Socket {
            transport,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            state,
            dual: false,
            opened: Reading::Unknown,
        }
    }

    fn listener(transport: Transport, local: &str, dual: bool) -> Socket {
        Socket {
            dual,
            ..socket(transport, local, "0.0.0.0:0", v::TCP_LISTEN)
        }
    }

    /// `>` opened by the pod, `<` by the peer, nothing where it is left out.
    #[track_caller]
    fn check(listening: &[Socket], connections: &[Socket], expected: &str) {
        let mut listeners = Listeners::default();
        for socket in listening {
            listeners.add(socket);
        }
        let (entries, inbound) = plan(connections.to_vec(), &listeners, &CHOSEN_PORTS);
        let text = "<".repeat(inbound) + &">".repeat(entries.len() - inbound);
        assert_eq!(text, expected, "{entries:?}");
        for (position, entry) in entries.iter().enumerate() {
            let ends = (entry.from, entry.to);
            let known = connections.iter().any(|socket| {
                ends == if position < inbound {
                    (socket.remote, socket.local)
                } else {
                    (socket.local, socket.remote)
                }
            });
            assert!(known, "{entry:?}");
        }
    }

    #[test]
    fn s105_who_opened_a_connection() {
        use Transport::{Tcp, Udp};
        let served = [socket(Tcp, "10.0.0.1:40000", "10.0.0.2:80", v::TCP_ESTABLISHED)];
        check(&[], &served, ">");
        check(&[listener(Tcp, "10.0.0.1:40000", false)], &served, "<");
        check(&[listener(Tcp, "0.0.0.0:40000", false)], &served, "<");
        check(&[listener(Tcp, "[::]:40000", true)], &served, "<");
        check(&[listener(Tcp, "[::]:40000", false)], &served, ">");
        check(&[listener(Tcp, "10.0.0.9:40000", false)], &served, ">");
        check(&[listener(Tcp, "0.0.0.0:40001", false)], &served, ">");
        check(&[listener(Udp, "0.0.0.0:40000", false)], &served, ">");
        let six = [socket(Tcp, "[fd00::1]:40000", "[fd00::2]:80", v::TCP_CLOSE_WAIT)];
        check(&[listener(Tcp, "[::]:40000", false)], &six, "<");
        check(&[listener(Tcp, "0.0.0.0:40000", false)], &six, ">");
    }

    #[test]
    fn s105_without_a_listener_the_port_that_was_chosen_tells() {
        use Transport::{Tcp, Udp};
        for (transport, local, remote, expected) in [
            (Tcp, "10.0.0.1:80", "10.0.0.2:40000", "<"),
            (Tcp, "10.0.0.1:40000", "10.0.0.2:40000", ">"),
            (Tcp, "10.0.0.1:800", "10.0.0.2:2049", ">"),
            (Udp, "10.0.0.1:80", "10.0.0.2:40000", ">"),
        ] {
            check(&[], &[socket(transport, local, remote, v::TCP_ESTABLISHED)], expected);
        }
    }

    #[test]
    fn s105_what_tcp_has_counted_goes_before_ports_and_listeners() {
        let listening = [listener(Transport::Tcp, "0.0.0.0:80", false)];
        let opened = |local, end| Socket {
            opened: Reading::Sure(end),
            ..socket(Transport::Tcp, local, "10.0.0.2:40000", v::TCP_ESTABLISHED)
        };
        check(&listening, &[opened("10.0.0.1:80", End::Local)], ">");
        check(&[], &[opened("10.0.0.1:40000", End::Remote)], "<");
        let unsure = Socket {
            opened: Reading::Unsure(End::Local),
            ..opened("10.0.0.1:80", End::Local)
        };
        check(&listening, &[unsure], "<");
    }

    #[test]
    fn s105_handshakes_tell_by_themselves() {
        let opening = socket(Transport::Tcp, "10.0.0.1:80", "10.0.0.2:40000", v::TCP_SYN_SENT);
        let opened = socket(Transport::Tcp, "10.0.0.1:40000", "10.0.0.2:80", v::TCP_SYN_RECV);
        check(&[listener(Transport::Tcp, "0.0.0.0:80", false)], &[opening], ">");
        check(&[], &[opened], "<");
    }

    #[test]
    fn what_crosses_lo_is_left_out() {
        for (local, remote) in [
            ("127.0.0.1:40000", "127.0.0.1:80"),
            ("[::1]:40000", "[::1]:80"),
            ("10.0.0.1:40000", "10.0.0.1:80"),
        ] {
            check(&[], &[socket(Transport::Tcp, local, remote, v::TCP_ESTABLISHED)], "");
        }
        // Two addresses of its own.
        let ends = [
            socket(Transport::Tcp, "10.0.0.1:40000", "10.0.1.1:80", v::TCP_ESTABLISHED),
            socket(Transport::Tcp, "10.0.1.1:80", "10.0.0.1:40000", v::TCP_ESTABLISHED),
        ];
        check(&[listener(Transport::Tcp, "0.0.0.0:80", false)], &ends, "");
    }

    #[test]
    fn every_state_that_is_asked_for_has_a_phase() {
        for state in CONNECTED {
            let connection = socket(Transport::Tcp, "10.0.0.1:40000", "10.0.0.2:80", *state);
            assert!(phase(&connection).is_some(), "{state}");
        }
    }
}
