//! Servers inside a pod: they answer every TCP connection and every datagram with who they are and whom they saw.
//!
//! An answer is one line, `<pod> <address of the client as seen>`, and then what the client sent. A connection that begins
//! with `GET ` gets the line as an HTTP answer, so that `curl` can play too.
//!
//! Every address of the pod has its own sockets, so that an answer leaves from the address that was asked; bound to the
//! interface of that address as well, so that it leaves by the way the question came, even where two interfaces are on
//! networks that overlap. A second set without an interface serves what the pod sends to itself, which arrives on `lo`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, listen};

use crate::pod::Pod;
use crate::socket::{self, Kind};

/// The servers of one pod, until it is dropped.
#[derive(Debug)]
pub struct Echo {
    /// Closing it wakes the thread and ends it.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// Sockets of one pod.
#[derive(Default)]
struct Sockets {
    name: String,
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    greeted: bool,
}

impl Echo {
    /// Serves these ports over TCP and UDP on every address of the pod.
    pub fn start(pod: &Pod, ports: &[u16]) -> Result<Self> {
        socket::raise_descriptor_limit();
        let mut sockets = pod.netns.run(|| open_sockets(pod, ports))??;
        let (stop, stopped) = UnixStream::pair().context("make a stop signal")?;
        let thread = std::thread::Builder::new()
            .name(format!("echo {}", pod.full_name()))
            .spawn(move || while sockets.turn(&stopped) {})
            .context("start a server thread")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The same for several pods.
    pub fn start_all<'a>(pods: impl IntoIterator<Item = &'a Pod>, ports: &[u16]) -> Result<Vec<Self>> {
        pods.into_iter().map(|pod| Self::start(pod, ports)).collect()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("testkit: an echo server has panicked");
        }
    }
}

fn open_sockets(pod: &Pod, ports: &[u16]) -> Result<Sockets> {
    let mut sockets = Sockets {
        name: pod.full_name(),
        ..Sockets::default()
    };
    for interface in &pod.interfaces {
        for address in &interface.addresses {
            for port in ports {
                let bound = SocketAddr::new(*address, *port);
                for device in [Some(interface.name.as_str()), None] {
                    let tcp = socket::open(Kind::Tcp, *address, device)?;
                    socket::bind_shared(&tcp, bound)?;
                    listen(&tcp, Backlog::new(128).context("backlog")?)
                        .with_context(|| format!("listen on {bound}"))?;
                    sockets.listeners.push(tcp.into());
                    let udp = socket::open(Kind::Udp, *address, device)?;
                    socket::bind_shared(&udp, bound)?;
                    sockets.datagrams.push(udp.into());
                }
            }
        }
    }
    Ok(sockets)
}

impl Sockets {
    /// Waits for something and serves it; false when it is time to end.
    fn turn(&mut self, stopped: &UnixStream) -> bool {
        let everything = std::iter::once(stopped.as_fd())
            .chain(self.listeners.iter().map(|it| it.as_fd()))
            .chain(self.datagrams.iter().map(|it| it.as_fd()))
            .chain(self.connections.iter().map(|it| it.stream.as_fd()));
        let mut waiting: Vec<PollFd<'_>> = everything.map(readable).collect();
        if poll(&mut waiting, PollTimeout::NONE).is_err() {
            return true; // EINTR
        }
        let ready: Vec<bool> = waiting.iter().map(|it| it.any().unwrap_or(true)).collect();
        drop(waiting);
        let (stop, ready) = ready.split_at(1);
        let (listeners, ready) = ready.split_at(self.listeners.len());
        let (datagrams, connections) = ready.split_at(self.datagrams.len());

        let mut kept = Vec::with_capacity(self.connections.len());
        for (mut connection, ready) in std::mem::take(&mut self.connections).into_iter().zip(connections) {
            if !ready || connection.serve(&self.name) {
                kept.push(connection);
            }
        }
        for (listener, _) in self.listeners.iter().zip(listeners).filter(|(_, ready)| **ready) {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nonblocking(true).is_ok() {
                    kept.push(Connection { stream, greeted: false });
                }
            }
        }
        self.connections = kept;
        for (socket, _) in self.datagrams.iter().zip(datagrams).filter(|(_, ready)| **ready) {
            serve_datagrams(socket, &self.name);
        }
        !stop[0]
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

impl Connection {
    /// False when the connection is over.
    fn serve(&mut self, name: &str) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    let request = &buffer[..length];
                    let http = !self.greeted && request.starts_with(b"GET ");
                    let mut answer = Vec::new();
                    if http {
                        answer.extend(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n");
                    }
                    if !self.greeted
                        && let Ok(peer) = self.stream.peer_addr()
                    {
                        answer.extend(format!("{name} {peer}\n").into_bytes());
                        self.greeted = true;
                    }
                    if !http {
                        answer.extend(request);
                    }
                    // Probes send some bytes only, so a full send buffer means that the other end is gone.
                    if self.stream.write_all(&answer).is_err() || http {
                        return false;
                    }
                }
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

fn serve_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 2048];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => {
                let mut answer = format!("{name} {peer}\n").into_bytes();
                answer.extend(&buffer[..length]);
                // A refusal (EPERM from a rule that drops answers) is what some tests are about; the client sees it as
                // silence.
                let _ = socket.send_to(&answer, peer);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // The kernel reports an earlier answer that was refused; the next call goes on.
            Err(_) => {}
        }
    }
}
