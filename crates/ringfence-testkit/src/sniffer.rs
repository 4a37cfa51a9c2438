//! Packet sockets: sending frames as they are, and seeing what arrives on an interface before any IP hook does.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recvfrom, send, sendto,
    setsockopt, socket, sockopt,
};

use crate::frame::{self, Packet};
use crate::pod::Pod;

/// How long the thread may wait before it looks whether it shall end, in milliseconds.
const PATIENCE: u8 = 20;
/// `PACKET_OUTGOING` of linux/if_packet.h: a frame that this host sends.
const OUTGOING: u8 = 4;

/// An option that nix lacks.
mod option {
    use nix::{setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// Frames go to the driver past the queueing layer (kernel ≥ 3.14).
        QdiscBypass,
        SetOnly,
        libc::SOL_PACKET,
        libc::PACKET_QDISC_BYPASS,
        bool
    );
}

/// A packet socket on an interface of a pod.
fn open(pod: &Pod, interface: &str) -> Result<OwnedFd> {
    pod.netns.run(|| -> Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
            .context("open a packet socket")?;
        let address = getifaddrs()
            .context("list the interfaces")?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .with_context(|| format!("pod {} has no interface {interface}", pod.full_name()))?;
        bind(fd.as_raw_fd(), &address).with_context(|| format!("bind a packet socket to {interface}"))?;
        Ok(fd)
    })?
}

/// Puts frames on the wire as they are, past the IP stack and its hooks.
#[derive(Debug)]
pub struct RawSender {
    fd: OwnedFd,
}

impl RawSender {
    /// On an interface of a pod.
    pub fn open(pod: &Pod, interface: &str) -> Result<Self> {
        Ok(Self {
            fd: open(pod, interface)?,
        })
    }

    /// Past the queueing layer as well (PACKET_QDISC_BYPASS).
    pub fn bypass_queue(self) -> Result<Self> {
        setsockopt(&self.fd, option::QdiscBypass, &true).context("set PACKET_QDISC_BYPASS")?;
        Ok(self)
    }

    /// Sends one frame. That the kernel drops it on its way out is no error; it says so (ENOBUFS) only sometimes.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        match send(self.fd.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENOBUFS) => Ok(()),
            Err(errno) => Err(errno).context("send a frame"),
        }
    }
}

/// Hands IP packets with headers of their own to a pod's IP stack, past its sockets but not past its hooks: protocols
/// that the kernel has no sockets for, fragments, forged addresses.
#[derive(Debug)]
pub struct StackSender {
    ipv4: OwnedFd,
    ipv6: OwnedFd,
}

impl StackSender {
    /// On an interface of a pod, whatever the routes say.
    pub fn open(pod: &Pod, interface: &str) -> Result<Self> {
        let raw = |family| -> Result<OwnedFd> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(family, SockType::Raw, flags, SockProtocol::Raw).context("open a raw socket")?;
            setsockopt(&fd, sockopt::BindToDevice, &OsString::from(interface))
                .with_context(|| format!("bind a raw socket to interface {interface}"))?;
            setsockopt(&fd, sockopt::Broadcast, &true).context("set SO_BROADCAST")?;
            Ok(fd)
        };
        pod.netns.run(|| {
            Ok(Self {
                ipv4: raw(AddressFamily::Inet)?,
                ipv6: raw(AddressFamily::Inet6)?,
            })
        })?
    }

    /// Sends one packet to `target`. False when a rule of the pod itself has dropped it at once.
    pub fn send(&self, packet: &[u8], target: IpAddr) -> Result<bool> {
        let fd = if target.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let address = SockaddrStorage::from(SocketAddr::new(target, 0));
        match sendto(fd.as_raw_fd(), packet, &address, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::EPERM) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("send a packet to {target}")),
        }
    }
}

/// Collects every frame that arrives on an interface of a pod, until it is dropped.
#[derive(Debug)]
pub struct Sniffer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    frames: Mutex<Vec<Vec<u8>>>,
    arrived: Condvar,
}

impl Sniffer {
    /// Starts to collect.
    pub fn start(pod: &Pod, interface: &str) -> Result<Self> {
        let fd = open(pod, interface)?;
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("sniffer {interface}"))
            .spawn(move || collect(&fd, &for_thread))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits for a packet that fulfils a condition, among those that have arrived and those that come. `None` when
    /// none comes in time.
    ///
    /// To show that something does *not* arrive, send it first, then something that does, and wait for that: frames of
    /// one sender arrive in order.
    pub fn wait_for(&self, limit: Duration, condition: impl Fn(&Packet) -> bool) -> Option<Packet> {
        let find = |frames: &[Vec<u8>]| frames.iter().filter_map(|it| frame::parse(it)).find(|it| condition(it));
        let (frames, _) = self
            .shared
            .arrived
            .wait_timeout_while(self.lock(), limit, |frames| find(frames).is_none())
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        find(&frames)
    }

    /// Whether such a packet has arrived until now.
    pub fn saw(&self, condition: impl Fn(&Packet) -> bool) -> bool {
        self.lock()
            .iter()
            .filter_map(|it| frame::parse(it))
            .any(|it| condition(&it))
    }

    /// Every frame until now, also those that are not IP.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.shared
            .frames
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("testkit: a sniffer has panicked");
        }
    }
}

fn collect(fd: &OwnedFd, shared: &Shared) {
    let mut buffer = vec![0; 65536];
    while !shared.stop.load(Ordering::Relaxed) {
        match recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                if from.is_none_or(|from| from.pkttype() != OUTGOING) {
                    let mut frames = shared.frames.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    frames.push(buffer[..length].to_vec());
                    drop(frames);
                    shared.arrived.notify_all();
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                // EINTR: the loop asks again.
                let _ = poll(&mut fds, PollTimeout::from(PATIENCE));
            }
            // ENETDOWN: the interface is gone, and with it everything that could arrive.
            Err(_) => return,
        }
    }
}
