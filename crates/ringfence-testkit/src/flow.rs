//! A long-lived TCP connection that carries a numbered byte stream, to see whether a revoked connection stops and a
//! restored one goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, getsockopt, listen, sockopt};

use crate::path::Path;
use crate::socket::{self, Kind};

/// A number is sent this often.
const EVERY: Duration = Duration::from_millis(1);
/// How long a thread may wait before it looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long the path, which should be open, may take for the handshake and the first numbers.
const LIMIT: Duration = Duration::from_secs(3);
/// Length of one number on the wire.
const NUMBER: usize = 8;

/// Who sends the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The end that opened the connection.
    Upload,
    /// The end that accepted it; the opener sends nothing at all after the handshake.
    Download,
}

/// A connection that sends a number every millisecond until it is dropped.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// When each number arrived; the index is the number.
    arrivals: Vec<Instant>,
    /// Why the connection is over, if it is.
    ended: Option<String>,
}

impl Flow {
    /// Connects along the path, which must be open, to a listener that it opens there, and waits for the first numbers.
    pub fn open(path: &Path, load: Load) -> Result<Self> {
        let (client, server, _) = pair(path)?;
        let (sender, receiver) = match load {
            Load::Upload => (client, server),
            Load::Download => (server, client),
        };
        Self::start(path, sender, receiver)
    }

    /// Connects along the path to an [`crate::Echo`] server, which sends every number back: both directions must stay
    /// open.
    pub fn open_echo(path: &Path) -> Result<Self> {
        let mut client = connect(path)?;
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(LIMIT))?;
        client
            .write_all(b"flow\n")
            .with_context(|| format!("greet {}", path.label))?;
        // The greeting and our own line; nothing else comes before the first number.
        let mut lines = 0;
        let mut byte = [0];
        while lines < 2 {
            client
                .read_exact(&mut byte)
                .with_context(|| format!("wait for the greeting on {}", path.label))?;
            lines += usize::from(byte == [b'\n']);
        }
        let sender = client.try_clone().context("use one socket for both directions")?;
        Self::start(path, sender, client)
    }

    fn start(path: &Path, sender: TcpStream, receiver: TcpStream) -> Result<Self> {
        for stream in [&sender, &receiver] {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
        }
        let shared = Arc::new(Shared::default());
        let (for_sender, for_receiver) = (shared.clone(), shared.clone());
        let threads = vec![
            spawn("flow sender", move || send_numbers(sender, &for_sender))?,
            spawn("flow receiver", move || receive_numbers(receiver, &for_receiver))?,
        ];
        let flow = Self { shared, threads };
        flow.wait_for_more(LIMIT)
            .with_context(|| format!("first bytes on {}", path.label))?;
        Ok(flow)
    }

    /// How many numbers have arrived.
    pub fn arrived(&self) -> usize {
        self.state().arrivals.len()
    }

    /// How many numbers have arrived since a moment.
    pub fn arrived_since(&self, moment: Instant) -> usize {
        let state = self.state();
        state.arrivals.len() - state.arrivals.partition_point(|arrival| *arrival < moment)
    }

    /// Why the connection is over; `None` while it lasts, also while it is silent.
    pub fn ended(&self) -> Option<String> {
        self.state().ended.clone()
    }

    /// Waits until one more number arrives. TCP sends again after 0.2 s, 0.4 s, 0.8 s and so on, so a flow that was
    /// blocked for a while needs about as long again.
    pub fn wait_for_more(&self, limit: Duration) -> Result<()> {
        let before = self.arrived();
        let (state, waited) = self
            .shared
            .changed
            .wait_timeout_while(self.state(), limit, |state| {
                state.arrivals.len() == before && state.ended.is_none()
            })
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(reason) = &state.ended {
            bail!("the flow has ended: {reason}");
        }
        ensure!(!waited.timed_out(), "nothing arrived for {limit:?}");
        Ok(())
    }

    /// Waits until nothing has arrived for `quiet`, and gives the moment of the last arrival.
    pub fn wait_for_silence(&self, quiet: Duration, limit: Duration) -> Result<Instant> {
        let deadline = Instant::now() + limit;
        loop {
            let last = *self.state().arrivals.last().context("nothing has ever arrived")?;
            if last.elapsed() >= quiet {
                return Ok(last);
            }
            ensure!(Instant::now() < deadline, "bytes still arrive after {limit:?}");
            std::thread::sleep(EVERY);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("testkit: a flow thread has panicked");
            }
        }
    }
}

impl Shared {
    fn end(&self, reason: String) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.ended.get_or_insert(reason);
        self.changed.notify_all();
    }
}

/// Both ends of a connection along an open path, the client's and the server's, and the listener that was opened for it.
pub(crate) fn pair(path: &Path) -> Result<(TcpStream, TcpStream, TcpListener)> {
    let listener = path.to.run(|| -> Result<OwnedFd> {
        let fd = socket::open(Kind::Tcp, path.target.ip(), None)?;
        socket::bind_shared(&fd, path.target)?;
        listen(&fd, Backlog::new(8)?).with_context(|| format!("listen on {}", path.target))?;
        Ok(fd)
    })??;
    let client = connect(path)?;
    wait_for(&listener, PollFlags::POLLIN, LIMIT).context("wait for the connection")?;
    let listener = TcpListener::from(listener);
    let (server, _): (TcpStream, SocketAddr) = listener.accept().context("accept")?;
    Ok((client, server, listener))
}

/// A connection along an open path.
fn connect(path: &Path) -> Result<TcpStream> {
    let client = path.from.run(|| -> Result<OwnedFd> {
        let fd = socket::open(Kind::Tcp, path.source, path.interface.as_deref())?;
        socket::bind_source(&fd, path.source)?;
        socket::start_connect(&fd, path.target).with_context(|| format!("connect {}", path.label))?;
        Ok(fd)
    })??;
    wait_for(&client, PollFlags::POLLOUT, LIMIT).with_context(|| format!("connect {}", path.label))?;
    let error = getsockopt(&client, sockopt::SocketError).context("ask for the connection's error")?;
    ensure!(error == 0, "{}: {}", path.label, nix::errno::Errno::from_raw(error));
    Ok(client.into())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .with_context(|| format!("start the thread {name}"))
}

fn wait_for(fd: &OwnedFd, events: PollFlags, limit: Duration) -> Result<()> {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    ensure!(poll(&mut fds, limit).context("poll")? > 0, "no answer in time");
    Ok(())
}

/// Full buffers (a blocked flow) make the write time out; it goes on where it stopped.
fn send_numbers(mut stream: TcpStream, shared: &Shared) {
    let mut number: u64 = 0;
    let mut rest: Vec<u8> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        if rest.is_empty() {
            rest.extend(number.to_be_bytes());
            number += 1;
            std::thread::sleep(EVERY);
        }
        match stream.write(&rest) {
            Ok(written) => drop(rest.drain(..written)),
            Err(error) if is_patience(&error) => {}
            Err(error) => return shared.end(format!("sending: {error}")),
        }
    }
}

fn receive_numbers(mut stream: TcpStream, shared: &Shared) {
    let mut rest: Vec<u8> = Vec::new();
    let mut buffer = [0; 8192];
    while !shared.stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return shared.end("the sender has closed".into()),
            Ok(length) => rest.extend(&buffer[..length]),
            Err(error) if is_patience(&error) => continue,
            Err(error) => return shared.end(format!("receiving: {error}")),
        }
        let whole = rest.len() / NUMBER * NUMBER;
        let now = Instant::now();
        let mut state = shared.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for number in rest.drain(..whole).collect::<Vec<u8>>().chunks_exact(NUMBER) {
            let expected = u64::try_from(state.arrivals.len()).unwrap_or(u64::MAX).to_be_bytes();
            if number != expected {
                state.ended = Some(format!("number {} is wrong on the wire", state.arrivals.len()));
            }
            state.arrivals.push(now);
        }
        drop(state);
        shared.changed.notify_all();
    }
}

/// The time-out that lets the thread look whether it shall end.
pub(crate) fn is_patience(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
