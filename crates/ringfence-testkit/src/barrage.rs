//! Probes at full rate over many paths at once, some of which must never let one through and some of which must never
//! lose one, while something is done to the node.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::path::Path;
use crate::socket::{self, Kind};

/// Probes in a row on one path.
const BATCH: u64 = 16;
/// Probes on the way at the same time, on a path that must not lose any: far below what any queue holds, so that a loss
/// is one of rules.
const WINDOW: u64 = 64;
/// Time without a sign of life after which a path's probes are taken for lost and the next ones are sent.
const STUCK: Duration = Duration::from_millis(50);
/// What queues hold is out after this long a silence.
const SILENCE: Duration = Duration::from_millis(300);
const RECEIVE_BUFFER: usize = 8 << 20;
/// Of a probe: the number of its path, its own number.
const PROBE: usize = 16;

/// What a path is to do with probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// Every one arrives.
    Pass,
    /// None does.
    Drop,
}

/// A path with its counters.
#[derive(Debug)]
struct Lane {
    label: String,
    must: Must,
    sent: AtomicU64,
    arrived: AtomicU64,
    /// The greatest number that arrived, plus one.
    reached: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    lanes: Vec<Lane>,
    stop: AtomicBool,
    /// The senders have ended; what is on the way is still taken in.
    drain: AtomicBool,
}

/// Probes that are being sent.
#[derive(Debug)]
pub struct Barrage {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

/// What has become of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sent over paths that must drop.
    pub forbidden: u64,
    /// Of these, arrived.
    pub passed: u64,
    /// Sent over paths that must pass.
    pub allowed: u64,
    /// Of these, not arrived.
    pub lost: u64,
    /// The paths of the last two numbers, where they are not 0.
    pub wrong: Vec<String>,
}

impl Tally {
    /// Both together.
    pub fn probes(&self) -> u64 {
        self.forbidden + self.allowed
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9} forbidden, {} passed; {:>9} allowed, {} lost",
            self.forbidden, self.passed, self.allowed, self.lost
        )?;
        if !self.wrong.is_empty() {
            write!(f, " ({})", self.wrong.join(", "))?;
        }
        Ok(())
    }
}

impl Barrage {
    /// Opens the sockets and begins. Nobody else may listen on the targets.
    pub fn start(paths: &[(Path, Must)]) -> Result<Self> {
        let mut receivers: BTreeMap<(String, SocketAddr), UdpSocket> = BTreeMap::new();
        let mut senders = Vec::new();
        let mut lanes = Vec::new();
        for (path, must) in paths {
            let key = (format!("{:?}", path.to.id()), path.target);
            if let Entry::Vacant(entry) = receivers.entry(key) {
                entry.insert(receiver(path)?);
            }
            senders.push(sender(path)?);
            lanes.push(Lane {
                label: format!("{} {}", path.label, path.target),
                must: *must,
                sent: AtomicU64::new(0),
                arrived: AtomicU64::new(0),
                reached: AtomicU64::new(0),
            });
        }
        let shared = Arc::new(Shared {
            lanes,
            stop: AtomicBool::new(false),
            drain: AtomicBool::new(false),
        });
        let receivers: Vec<UdpSocket> = receivers.into_values().collect();
        let (for_sender, for_receiver) = (Arc::clone(&shared), Arc::clone(&shared));
        Ok(Self {
            shared,
            sender: thread::Builder::new()
                .name("barrage-send".into())
                .spawn(move || send_all(&senders, &for_sender))?,
            receiver: thread::Builder::new()
                .name("barrage-receive".into())
                .spawn(move || receive_all(&receivers, &for_receiver))?,
        })
    }

    /// Probes so far.
    pub fn sent(&self) -> u64 {
        self.shared
            .lanes
            .iter()
            .map(|lane| lane.sent.load(Ordering::Relaxed))
            .sum()
    }

    /// Ends it and counts, when what is on the way has arrived.
    pub fn finish(self) -> Result<Tally> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.sender.join().map_err(|_| anyhow!("the sender has failed"))?;
        self.shared.drain.store(true, Ordering::Relaxed);
        self.receiver.join().map_err(|_| anyhow!("the receiver has failed"))?;
        let mut tally = Tally::default();
        for lane in &self.shared.lanes {
            let (sent, arrived) = (lane.sent.load(Ordering::Relaxed), lane.arrived.load(Ordering::Relaxed));
            let wrong = match lane.must {
                Must::Pass => {
                    tally.allowed += sent;
                    let lost = sent.saturating_sub(arrived);
                    tally.lost += lost;
                    lost
                }
                Must::Drop => {
                    tally.forbidden += sent;
                    tally.passed += arrived;
                    arrived
                }
            };
            if wrong > 0 {
                tally.wrong.push(format!("{wrong} of {sent} on {}", lane.label));
            }
        }
        Ok(tally)
    }
}

fn receiver(path: &Path) -> Result<UdpSocket> {
    let fd = path.to.run(|| -> Result<OwnedFd> {
        let fd = socket::open(Kind::Udp, path.target.ip(), None)?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("enlarge a receive buffer")?;
        socket::bind_shared(&fd, path.target)?;
        Ok(fd)
    })??;
    Ok(fd.into())
}

fn sender(path: &Path) -> Result<UdpSocket> {
    let fd = path.from.run(|| -> Result<OwnedFd> {
        let fd = socket::open(Kind::Udp, path.source, path.interface.as_deref())?;
        socket::bind_source(&fd, path.source)?;
        socket::start_connect(&fd, path.target).with_context(|| format!("barrage {}", path.label))?;
        Ok(fd)
    })??;
    Ok(fd.into())
}

fn send_all(senders: &[UdpSocket], shared: &Shared) {
    let mut last: Vec<(u64, Instant)> = vec![(0, Instant::now()); senders.len()];
    while !shared.stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for (number, (socket, lane)) in senders.iter().zip(&shared.lanes).enumerate() {
            let sent = lane.sent.load(Ordering::Relaxed);
            if lane.must == Must::Pass {
                let reached = lane.reached.load(Ordering::Relaxed);
                if let Some((before, since)) = last.get_mut(number) {
                    if reached != *before {
                        (*before, *since) = (reached, Instant::now());
                    }
                    if sent.saturating_sub(reached) >= WINDOW {
                        if since.elapsed() < STUCK {
                            continue;
                        }
                        *since = Instant::now();
                    }
                }
            }
            idle = false;
            for probe in sent..sent + BATCH {
                let mut bytes = [0; PROBE];
                bytes[..8].copy_from_slice(&(number as u64).to_ne_bytes());
                bytes[8..].copy_from_slice(&probe.to_ne_bytes());
                deliver(socket, &bytes);
            }
            lane.sent.fetch_add(BATCH, Ordering::Relaxed);
        }
        if idle {
            thread::yield_now();
        }
    }
}

/// Hands one probe to the kernel, which may refuse it at once where a rule of the pod itself drops it.
fn deliver(socket: &UdpSocket, bytes: &[u8]) {
    while let Err(error) = socket.send(bytes) {
        match error.kind() {
            ErrorKind::WouldBlock => thread::yield_now(),
            // Tells of an ICMP error that an earlier one has brought, instead of sending this one.
            ErrorKind::ConnectionRefused | ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn receive_all(receivers: &[UdpSocket], shared: &Shared) {
    let mut buffer = [0; 64];
    let mut quiet_since = Instant::now();
    loop {
        let mut waiting: Vec<PollFd<'_>> = receivers
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        // EINTR: asked again.
        let _ = poll(&mut waiting, PollTimeout::from(20_u8));
        for socket in receivers {
            while let Ok(length) = socket.recv(&mut buffer) {
                quiet_since = Instant::now();
                let Some((number, probe)) = read(&buffer[..length]) else {
                    continue;
                };
                if let Some(lane) = usize::try_from(number).ok().and_then(|number| shared.lanes.get(number)) {
                    lane.arrived.fetch_add(1, Ordering::Relaxed);
                    lane.reached.fetch_max(probe + 1, Ordering::Relaxed);
                }
            }
        }
        if !shared.drain.load(Ordering::Relaxed) {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() > SILENCE {
            return;
        }
    }
}

fn read(bytes: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some((number(0)?, number(8)?))
}
