//! A TCP connection that carries as much as it can, to see whether a byte of it is lost, and whether a revoked one stops.
//! [`crate::Flow`] sends little and tells when each piece arrived; this one keeps the windows full.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::flow::{Load, is_patience, pair};
use crate::path::Path;

/// How long a thread may wait before it looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often the waiting functions look.
const LOOK: Duration = Duration::from_millis(1);
/// What is sent repeats after so many bytes: a prime, so that no piece that is lost or doubled leaves it in step.
const PERIOD: usize = 65_521;
/// Bytes in one call.
const PIECE: usize = 1 << 16;
/// What the receiver says in the end: how much it has got.
const RECEIPT: usize = 8;

/// A connection in which one end sends without pause and the other one nothing, until [`Bulk::finish`] or its drop.
#[derive(Debug)]
pub struct Bulk {
    shared: Arc<Shared>,
    sender: TcpStream,
    receiver: TcpStream,
    _listener: TcpListener,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The sender is to say that this was all.
    finish: AtomicBool,
    /// Nobody is interested any more.
    abandon: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sent: u64,
    arrived: u64,
    /// When the last of it arrived.
    last: Option<Instant>,
    /// The receiver has read to the end.
    complete: bool,
    /// What went wrong.
    failed: Option<String>,
}

impl Bulk {
    /// Connects along the path, which must be open, to a listener that it opens there and keeps, and begins to send.
    pub fn open(path: &Path, load: Load) -> Result<Self> {
        let (client, server, listener) = pair(path)?;
        let (sender, receiver) = match load {
            Load::Upload => (client, server),
            Load::Download => (server, client),
        };
        for stream in [&sender, &receiver] {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        let shared = Arc::new(Shared::default());
        // Long enough for a piece from any place of it. The high byte of a product looks random and repeats with the place.
        let byte = |place: usize| ((place % PERIOD * 40_503) >> 8).to_le_bytes()[0];
        let pattern: Arc<Vec<u8>> = Arc::new((0..PERIOD + PIECE).map(byte).collect());
        let spawn = |name: &str, stream: TcpStream, work: fn(TcpStream, &[u8], &Shared)| {
            let (shared, pattern) = (Arc::clone(&shared), Arc::clone(&pattern));
            std::thread::Builder::new()
                .name(name.into())
                .spawn(move || work(stream, &pattern, &shared))
                .with_context(|| format!("start the thread {name}"))
        };
        let threads = vec![
            spawn("bulk sender", sender.try_clone()?, send)?,
            spawn("bulk receiver", receiver.try_clone()?, receive)?,
        ];
        Ok(Self {
            shared,
            sender,
            receiver,
            _listener: listener,
            threads,
        })
    }

    /// How many bytes have arrived.
    pub fn arrived(&self) -> u64 {
        self.shared.state().arrived
    }

    /// Waits until so many more bytes have arrived.
    pub fn wait_for_more(&self, bytes: u64, limit: Duration) -> Result<()> {
        let goal = self.arrived() + bytes;
        self.wait(limit, |state| state.arrived >= goal)
    }

    /// Waits until nothing has arrived for `quiet`.
    pub fn wait_for_silence(&self, quiet: Duration, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let last = self.shared.state().last.context("nothing has ever arrived")?;
            if last.elapsed() >= quiet {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "bytes still arrive after {limit:?}");
            std::thread::sleep(LOOK);
        }
    }

    /// Lets the receiver say something too, which the kernel sends again and again where nobody acknowledges it.
    pub fn say(&mut self) -> Result<()> {
        self.receiver
            .write_all(&[0; RECEIPT])
            .context("send in the other direction")
    }

    /// Whether the sender has heard any of it.
    pub fn heard(&mut self) -> Result<bool> {
        match self.sender.read(&mut [0; RECEIPT]) {
            Ok(length) => Ok(length > 0),
            Err(error) if is_patience(&error) => Ok(false),
            Err(error) => Err(error).context("listen at the sender"),
        }
    }

    /// Ends the sending, waits for all of it, and has the receiver say how much that was: to the last byte, and over a
    /// connection that lives on. Gives the number of bytes.
    pub fn finish(mut self, limit: Duration) -> Result<u64> {
        self.shared.finish.store(true, Ordering::Relaxed);
        self.wait(limit, |state| state.complete)?;
        let (sent, arrived) = {
            let state = self.shared.state();
            (state.sent, state.arrived)
        };
        ensure!(sent == arrived, "{sent} bytes were sent and {arrived} have arrived");
        self.receiver.write_all(&arrived.to_be_bytes()).context("the receipt")?;
        let mut receipt = [0; RECEIPT];
        self.sender.set_read_timeout(Some(limit))?;
        self.sender.read_exact(&mut receipt).context("wait for the receipt")?;
        ensure!(receipt == arrived.to_be_bytes(), "a wrong receipt: {receipt:?}");
        Ok(arrived)
    }

    fn wait(&self, limit: Duration, done: impl Fn(&State) -> bool) -> Result<()> {
        let (state, waited) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.state(), limit, |state| {
                state.failed.is_none() && !done(state)
            })
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &state.failed {
            bail!("after {} bytes: {reason}", state.arrived);
        }
        let arrived = state.arrived;
        ensure!(!waited.timed_out(), "it stalls: {arrived} bytes after {limit:?}");
        Ok(())
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.shared.abandon.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("testkit: a bulk thread has panicked");
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn fail(&self, reason: String) {
        self.change(|state| {
            state.failed.get_or_insert(reason);
        });
    }

    fn is_abandoned(&self) -> bool {
        self.abandon.load(Ordering::Relaxed)
    }
}

fn send(mut stream: TcpStream, pattern: &[u8], shared: &Shared) {
    let mut place = 0;
    while !shared.is_abandoned() {
        if shared.finish.load(Ordering::Relaxed) {
            // What the kernel has of it is sent before the end of it.
            if let Err(error) = stream.shutdown(Shutdown::Write) {
                shared.fail(format!("ending: {error}"));
            }
            return;
        }
        match stream.write(&pattern[place..place + PIECE]) {
            Ok(written) => {
                place = (place + written) % PERIOD;
                shared.state().sent += count(written);
            }
            Err(error) if is_patience(&error) => {}
            Err(error) => return shared.fail(format!("sending: {error}")),
        }
    }
}

fn receive(mut stream: TcpStream, pattern: &[u8], shared: &Shared) {
    let mut buffer = vec![0; PIECE];
    let mut place = 0;
    while !shared.is_abandoned() {
        match stream.read(&mut buffer) {
            Ok(0) => return shared.change(|state| state.complete = true),
            Ok(length) => {
                if buffer[..length] != pattern[place..place + length] {
                    return shared.fail("the bytes are not those that were sent".into());
                }
                place = (place + length) % PERIOD;
                shared.change(|state| {
                    state.arrived += count(length);
                    state.last = Some(Instant::now());
                });
            }
            Err(error) if is_patience(&error) || error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return shared.fail(format!("receiving: {error}")),
        }
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
