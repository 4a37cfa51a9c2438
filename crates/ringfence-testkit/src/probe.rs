//! One question each: can this pod reach that address? Many are asked at once by one thread.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use libc::linger;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, setsockopt, sockopt};
use ringfence_netns::Netns;

use crate::pod::Pod;
use crate::socket::{self, Kind};

/// How long silence lasts until it counts as dropped. Answers come within a millisecond; the rest is for busy machines.
pub const TIMEOUT: Duration = Duration::from_millis(400);

/// Datagrams are sent again after this time.
const RETRY: Duration = Duration::from_millis(100);

/// So many probes are under way at once.
const WAVE: usize = 1000;

/// How a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Connects, sends some bytes and waits for the answer.
    Tcp,
    /// Sends datagrams until one is answered.
    Udp,
    /// ICMP or ICMPv6 echo requests, answered by the kernel of the other end.
    Icmp,
}

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Answered.
    Reached,
    /// Silence until the end, or the sender's own kernel refused to send (a rule of the sending pod).
    Dropped,
    /// The other end said that nobody listens there (reset, port unreachable): the way itself is open.
    Refused,
    /// No route, or a router on the way said so.
    Unreachable,
}

impl Outcome {
    /// Three letters for tables: `yes`, `no`, `rst`, `unr`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reached => "yes",
            Self::Dropped => "no",
            Self::Refused => "rst",
            Self::Unreachable => "unr",
        }
    }

    /// The inverse of [`Outcome::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Reached, Self::Dropped, Self::Refused, Self::Unreachable]
            .into_iter()
            .find(|outcome| outcome.word() == word)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One question.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Where it is asked from.
    pub from: Arc<Netns>,
    /// The source address; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// The interface that it must leave by; `None` leaves it to the routes.
    pub interface: Option<String>,
    /// Whom it asks. Echo requests have no port.
    pub to: SocketAddr,
    /// How.
    pub protocol: Protocol,
    /// For messages.
    pub label: String,
}

impl Probe {
    /// From a pod to any address, with the kernel's choice of route and source.
    pub fn from_pod(from: &Pod, protocol: Protocol, to: SocketAddr) -> Self {
        Self {
            from: from.netns.clone(),
            source: None,
            interface: None,
            to,
            protocol,
            label: format!("{} → {to}", from.full_name()),
        }
    }

    /// From a node or any other namespace.
    pub fn from_netns(from: &Arc<Netns>, protocol: Protocol, to: SocketAddr) -> Self {
        Self {
            from: from.clone(),
            source: None,
            interface: None,
            to,
            protocol,
            label: format!("→ {to}"),
        }
    }

    /// Asks this one alone.
    pub fn ask(&self) -> Result<Outcome> {
        let answers = probe_all(std::slice::from_ref(self), TIMEOUT)?;
        Ok(answers.first().context("no answer")?.outcome)
    }
}

/// What became of a probe, with details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The outcome.
    pub outcome: Outcome,
    /// Whether a TCP connection was made, even if no data came back over it.
    pub connected: bool,
    /// Which pod answered (echo servers say so).
    pub by: Option<String>,
    /// The probe's address as the answering pod saw it.
    pub seen_as: Option<SocketAddr>,
    /// Time from asking to the outcome.
    pub after: Duration,
}

/// Asks all at once and gives the answers in the same order. Takes `timeout` at most (per thousand probes), and
/// less if all are answered. Fails where a probe cannot be asked at all: no such interface, not the pod's address.
pub fn probe_all(probes: &[Probe], timeout: Duration) -> Result<Vec<Answer>> {
    socket::raise_descriptor_limit();
    let mut answers = Vec::with_capacity(probes.len());
    for wave in probes.chunks(WAVE) {
        answers.extend(probe_wave(wave, timeout)?);
    }
    Ok(answers)
}

/// A probe under way.
struct Pending {
    index: usize,
    fd: OwnedFd,
    protocol: Protocol,
    to: SocketAddr,
    started: Instant,
    /// TCP: nothing sent yet.
    connecting: bool,
    connected: bool,
    /// Datagrams: when the next one is due.
    retry: Instant,
    received: Vec<u8>,
}

fn probe_wave(probes: &[Probe], timeout: Duration) -> Result<Vec<Answer>> {
    // Grouped by namespace, so that each is entered once.
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, probe) in probes.iter().enumerate() {
        groups.entry(probe.from.id()).or_default().push(index);
    }
    let mut answers: Vec<Option<Answer>> = vec![None; probes.len()];
    let mut pending = Vec::with_capacity(probes.len());
    for indices in groups.values() {
        let netns = &probes[indices[0]].from;
        netns.run(|| -> Result<()> {
            for index in indices {
                let probe = &probes[*index];
                match ask(*index, probe).with_context(|| format!("probe {} ({:?})", probe.label, probe.protocol))? {
                    Step::Wait(it) => pending.push(it),
                    Step::Done(answer) => answers[*index] = Some(answer),
                }
            }
            Ok(())
        })??;
    }
    let deadline = Instant::now() + timeout;
    while !pending.is_empty() {
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        wait(&pending, deadline.saturating_duration_since(now))?;
        let mut still = Vec::with_capacity(pending.len());
        for one in pending {
            let index = one.index;
            match one.step().with_context(|| format!("probe {}", probes[index].label))? {
                Step::Wait(it) => still.push(it),
                Step::Done(answer) => answers[index] = Some(answer),
            }
        }
        pending = still;
    }
    for one in pending {
        let index = one.index;
        answers[index] = Some(one.answer(Outcome::Dropped));
    }
    answers
        .into_iter()
        .map(|answer| answer.context("a probe without an outcome"))
        .collect()
}

enum Step {
    Wait(Pending),
    Done(Answer),
}

/// Opens the socket and sends the first packet; the calling thread is in the right namespace.
fn ask(index: usize, probe: &Probe) -> Result<Step> {
    let kind = match probe.protocol {
        Protocol::Tcp => Kind::Tcp,
        Protocol::Udp => Kind::Udp,
        Protocol::Icmp => Kind::Ping,
    };
    let fd = socket::open(kind, probe.to.ip(), probe.interface.as_deref())?;
    if let Some(source) = probe.source {
        socket::bind_source(&fd, source)?;
    }
    if kind == Kind::Tcp {
        // Closing resets, so that no connection waits for a minute and no later probe meets an old conntrack entry.
        let reset = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&fd, sockopt::Linger, &reset).context("set SO_LINGER")?;
    }
    let now = Instant::now();
    let pending = Pending {
        index,
        protocol: probe.protocol,
        to: probe.to,
        started: now,
        connecting: kind == Kind::Tcp,
        connected: false,
        retry: now,
        received: Vec::new(),
        fd,
    };
    match socket::start_connect(&pending.fd, probe.to) {
        Err(errno) => pending.failed(errno),
        Ok(()) if pending.connecting => Ok(Step::Wait(pending)),
        Ok(()) => pending.step(),
    }
}

/// Waits until any of them has something, or a datagram is due.
fn wait(pending: &[Pending], longest: Duration) -> Result<()> {
    let mut fds: Vec<PollFd<'_>> = pending
        .iter()
        .map(|one| {
            let events = if one.connecting {
                PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            };
            PollFd::new(one.fd.as_fd(), events)
        })
        .collect();
    let due = pending
        .iter()
        .filter(|one| one.protocol != Protocol::Tcp)
        .map(|one| one.retry.saturating_duration_since(Instant::now()))
        .min()
        .unwrap_or(longest);
    // Rounded up: rounded down, the last part of a millisecond would be spent spinning.
    let wait = longest.min(due) + Duration::from_millis(1);
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, wait) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).context("wait for answers"),
    }
}

impl Pending {
    fn answer(self, outcome: Outcome) -> Answer {
        let line = self.received.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let greeting = line.split_once(' ').filter(|_| outcome == Outcome::Reached);
        Answer {
            outcome,
            connected: self.connected,
            by: greeting.map(|(by, _)| by.to_owned()),
            seen_as: greeting.and_then(|(_, peer)| peer.parse().ok()),
            after: self.started.elapsed(),
        }
    }

    fn failed(self, errno: Errno) -> Result<Step> {
        let outcome = match errno {
            Errno::ECONNREFUSED | Errno::ECONNRESET => Outcome::Refused,
            Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EACCES => Outcome::Unreachable,
            // EPERM: a rule of the sending pod drops it; ETIMEDOUT: TCP has given up by itself.
            Errno::EPERM | Errno::ETIMEDOUT => Outcome::Dropped,
            other => bail!("unexpected answer of the kernel: {other}"),
        };
        Ok(Step::Done(self.answer(outcome)))
    }

    /// Does what can be done now.
    fn step(mut self) -> Result<Step> {
        if self.connecting {
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
            poll(&mut fds, PollTimeout::ZERO).context("look at a connection")?;
            if fds[0].revents().is_none_or(|events| events.is_empty()) {
                return Ok(Step::Wait(self));
            }
            let error = getsockopt(&self.fd, sockopt::SocketError).context("ask for a connection's error")?;
            if error != 0 {
                return self.failed(Errno::from_raw(error));
            }
            self.connecting = false;
            self.connected = true;
            if let Err(errno) = send(self.fd.as_raw_fd(), b"probe\n", MsgFlags::MSG_NOSIGNAL) {
                return self.failed(errno);
            }
        }
        let mut buffer = [0; 2048];
        match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) if self.protocol == Protocol::Tcp => return self.failed(Errno::ECONNRESET),
            Ok(length) => {
                self.received.extend(&buffer[..length]);
                if self.protocol == Protocol::Icmp || self.received.contains(&b'\n') {
                    return Ok(Step::Done(self.answer(Outcome::Reached)));
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Own rules drop the datagrams: later ones may pass, the end of time decides.
            Err(Errno::EPERM) if self.protocol != Protocol::Tcp => {}
            Err(errno) => return self.failed(errno),
        }
        if self.protocol != Protocol::Tcp && Instant::now() >= self.retry {
            self.retry = Instant::now() + RETRY;
            match send(self.fd.as_raw_fd(), &self.request(), MsgFlags::MSG_NOSIGNAL) {
                Ok(_) | Err(Errno::EPERM | Errno::EAGAIN | Errno::ENOBUFS) => {}
                Err(errno) => return self.failed(errno),
            }
        }
        Ok(Step::Wait(self))
    }

    fn request(&self) -> Vec<u8> {
        match (self.protocol, self.to) {
            // Type (echo request), code, checksum, identifier, sequence; the kernel fills in checksum and identifier.
            (Protocol::Icmp, SocketAddr::V4(_)) => vec![8, 0, 0, 0, 0, 0, 0, 1, b'p', b'r', b'o', b'b', b'e'],
            (Protocol::Icmp, SocketAddr::V6(_)) => vec![128, 0, 0, 0, 0, 0, 0, 1, b'p', b'r', b'o', b'b', b'e'],
            _ => b"probe\n".to_vec(),
        }
    }
}
