//! Opening sockets inside a namespace: bound to an address, and to an interface where that matters.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

/// What kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// Echo requests without a raw socket; the kernel fills in identifier and checksum.
    Ping,
}

/// A non-blocking socket of `address`'s family in the calling thread's namespace.
pub(crate) fn open(kind: Kind, address: IpAddr, interface: Option<&str>) -> Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let (kind, protocol) = match (kind, address) {
        (Kind::Tcp, _) => (SockType::Stream, None),
        (Kind::Udp, _) => (SockType::Datagram, None),
        (Kind::Ping, IpAddr::V4(_)) => (SockType::Datagram, Some(SockProtocol::Icmp)),
        (Kind::Ping, IpAddr::V6(_)) => (SockType::Datagram, Some(SockProtocol::IcmpV6)),
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, kind, flags, protocol).context("open a socket")?;
    if let Some(interface) = interface {
        setsockopt(&fd, sockopt::BindToDevice, &OsString::from(interface))
            .with_context(|| format!("bind a socket to interface {interface}"))?;
    }
    Ok(fd)
}

/// Binds a listening or receiving socket. Several may share a port, one per interface and one for what loops back.
pub(crate) fn bind_shared(fd: &OwnedFd, address: SocketAddr) -> Result<()> {
    setsockopt(fd, sockopt::ReuseAddr, &true).context("set SO_REUSEADDR")?;
    setsockopt(fd, sockopt::ReusePort, &true).context("set SO_REUSEPORT")?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).with_context(|| format!("bind a socket to {address}"))
}

/// Binds a client's socket to a source address and any port.
pub(crate) fn bind_source(fd: &OwnedFd, address: IpAddr) -> Result<()> {
    let address = SocketAddr::new(address, 0);
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).with_context(|| format!("use source address {address}"))
}

/// Starts to connect; the answer comes later for TCP.
pub(crate) fn start_connect(fd: &OwnedFd, to: SocketAddr) -> Result<(), Errno> {
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A large matrix needs more descriptors than the usual 1024.
pub(crate) fn raise_descriptor_limit() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            && soft < hard
        {
            // Where this fails, opening sockets fails later with a clear message.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    });
}
