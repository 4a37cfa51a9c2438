//! A continuous stream of numbered datagrams, to measure when the first one was blocked or let through.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::path::Path;
use crate::socket::{self, Kind};

/// How long the receiver may wait before it looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often the waiting functions look.
const LOOK: Duration = Duration::from_micros(500);

/// Datagrams along a path, one every so often, until it is dropped.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    datagrams: Mutex<Vec<Datagram>>,
}

#[derive(Debug, Clone, Copy)]
struct Datagram {
    /// Just before it was handed to the kernel.
    sent: Instant,
    arrived: Option<Instant>,
}

impl Stream {
    /// Starts to send along the path to a receiver that it opens there. The path may be closed. A thread sleeps some 50 µs
    /// longer than asked, so 200 µs gives about 4,000 datagrams a second.
    pub fn start(path: &Path, every: Duration) -> Result<Self> {
        let (client, server) = ends(path)?;
        Self::between(client, server, every)
    }

    /// The same from the end of the path to its beginning, where a client has connected a socket and says nothing.
    pub fn start_back(path: &Path, every: Duration) -> Result<Self> {
        let (client, server) = ends(path)?;
        server.connect(client.local_addr()?)?;
        Self::between(server, client, every)
    }

    fn between(sender: UdpSocket, receiver: UdpSocket, every: Duration) -> Result<Self> {
        receiver.set_nonblocking(false)?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        let shared = Arc::new(Shared::default());
        let (for_sender, for_receiver) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::Builder::new()
                .name("stream sender".into())
                .spawn(move || send(&sender, &for_sender, every))?,
            std::thread::Builder::new()
                .name("stream receiver".into())
                .spawn(move || receive(&receiver, &for_receiver))?,
        ];
        Ok(Self { shared, threads })
    }

    /// How many were sent, and how many of them arrived.
    pub fn counts(&self) -> (usize, usize) {
        let datagrams = self.datagrams();
        let arrived = datagrams.iter().filter(|it| it.arrived.is_some()).count();
        (datagrams.len(), arrived)
    }

    /// How many of those that were sent before `until` have not arrived.
    pub fn missing(&self, until: Instant) -> usize {
        let datagrams = self.datagrams();
        let sent = datagrams.partition_point(|it| it.sent < until);
        datagrams[..sent].iter().filter(|it| it.arrived.is_none()).count()
    }

    /// Waits until the stream is blocked after `since`: nothing that was sent during the last `quiet` has arrived.
    /// Gives the moment when the first lost datagram was sent, all later ones being lost too.
    pub fn wait_blocked(&self, since: Instant, quiet: Duration, limit: Duration) -> Result<Instant> {
        let deadline = Instant::now() + limit;
        loop {
            {
                let datagrams = self.datagrams();
                let lost = datagrams
                    .iter()
                    .rposition(|it| it.arrived.is_some())
                    .map_or(0, |last| last + 1);
                // The latest ones may still be on the way.
                if let Some(first) = datagrams[lost..].first()
                    && first.sent.elapsed() >= quiet
                {
                    let after = datagrams[lost..].iter().find(|it| it.sent >= since);
                    if let Some(first) = after {
                        return Ok(first.sent);
                    }
                }
            }
            ensure!(Instant::now() < deadline, "datagrams still arrive after {limit:?}");
            std::thread::sleep(LOOK);
        }
    }

    /// When the last one of those that have arrived was sent.
    pub fn last_arrived(&self) -> Option<Instant> {
        self.datagrams()
            .iter()
            .rev()
            .find(|it| it.arrived.is_some())
            .map(|it| it.sent)
    }

    /// Waits until a datagram arrives that was sent after `since`, and gives the moment when it was sent.
    pub fn wait_open(&self, since: Instant, limit: Duration) -> Result<Instant> {
        let deadline = Instant::now() + limit;
        loop {
            {
                let datagrams = self.datagrams();
                let start = datagrams.partition_point(|it| it.sent < since);
                if let Some(first) = datagrams[start..].iter().find(|it| it.arrived.is_some()) {
                    return Ok(first.sent);
                }
            }
            ensure!(Instant::now() < deadline, "no datagram arrives after {limit:?}");
            std::thread::sleep(LOOK);
        }
    }

    fn datagrams(&self) -> MutexGuard<'_, Vec<Datagram>> {
        self.shared
            .datagrams
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("testkit: a stream thread has panicked");
            }
        }
    }
}

/// Sockets at both ends of a path: one that is connected, and the one that it is connected to.
fn ends(path: &Path) -> Result<(UdpSocket, UdpSocket)> {
    let server = path.to.run(|| -> Result<OwnedFd> {
        let fd = socket::open(Kind::Udp, path.target.ip(), None)?;
        socket::bind_shared(&fd, path.target)?;
        Ok(fd)
    })??;
    let client = path.from.run(|| -> Result<OwnedFd> {
        let fd = socket::open(Kind::Udp, path.source, path.interface.as_deref())?;
        socket::bind_source(&fd, path.source)?;
        socket::start_connect(&fd, path.target).with_context(|| format!("stream {}", path.label))?;
        Ok(fd)
    })??;
    Ok((client.into(), server.into()))
}

fn send(socket: &UdpSocket, shared: &Shared, every: Duration) {
    for number in 0_u64.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // Noted before it is sent: the receiver may be faster than our next line.
        shared
            .datagrams
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(Datagram {
                sent: Instant::now(),
                arrived: None,
            });
        // Refused by a rule (EPERM) or by the other end's closed port: it is lost, as the record says.
        let _ = socket.send(&number.to_be_bytes());
        std::thread::sleep(every);
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 8];
    while !shared.stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(8) => {
                let now = Instant::now();
                let mut datagrams = shared
                    .datagrams
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let number = usize::try_from(u64::from_be_bytes(buffer)).unwrap_or(usize::MAX);
                if let Some(datagram) = datagrams.get_mut(number) {
                    datagram.arrived.get_or_insert(now);
                }
            }
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                eprintln!("testkit: stream receiver: {error}");
            }
            _ => {}
        }
    }
}
