//! The system calls: the one module of this crate with `unsafe`.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_void, socklen_t};

/// How long an answer may take. The kernel answers from within `send`, so that any wait means a lost answer.
pub(crate) const TIMEOUT_SECONDS: libc::time_t = 5;

/// Receive buffer in bytes. Only what is queued takes memory; a batch of which every message is refused queues an
/// error for each.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Send buffer in bytes at the start; [`Socket::reserve`] enlarges it.
const SEND_BUFFER: usize = 1 << 20;
/// What the kernel takes off the send buffer before it compares (`netlink_sendmsg`), generously.
const SEND_MARGIN: usize = 4096;

/// A netlink socket to one part of the kernel in the network namespace in which it was opened, whatever namespace its
/// thread is in later.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
    /// Its address, by which the kernel knows the owner of a table.
    port: u32,
    send_buffer: usize,
}

impl Socket {
    /// Opens one in the calling thread's network namespace, to `libc::NETLINK_NETFILTER` or another part.
    pub(crate) fn open(protocol: c_int) -> io::Result<Self> {
        Self::open_with(protocol, RECEIVE_BUFFER)
    }

    /// The same with a receive buffer of this many bytes.
    pub(crate) fn open_with(protocol: c_int, receive_buffer: usize) -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is used as a descriptor.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        check(raw)?;
        // SAFETY: `raw` is a descriptor that was just opened and that nothing else knows.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut socket = Self {
            descriptor,
            port: 0,
            send_buffer: 0,
        };
        let one: c_int = 1;
        socket.set(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, &one)?;
        socket.set(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &one)?;
        let timeout = libc::timeval {
            tv_sec: TIMEOUT_SECONDS,
            tv_usec: 0,
        };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
        socket.buffer(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive_buffer)?;
        socket.reserve(SEND_BUFFER)?;
        socket.port = socket.bind()?;
        Ok(socket)
    }

    /// Its address.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// From now on it also receives what the kernel tells this group of listeners.
    pub(crate) fn join(&self, group: c_int) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &group)
    }

    /// What messages say that go back to this port is dropped before it is queued, and wakes nobody.
    pub(crate) fn ignore(&self, port: u32) -> io::Result<()> {
        // The port in the first message's header. A filter loads words in network order, and the header is in the host's.
        let port_at = 12;
        let is_port = u32::from_be_bytes(port.to_ne_bytes());
        let mut filter = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, port_at),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, is_port),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        ];
        let program = libc::sock_fprog {
            len: 4,
            filter: filter.as_mut_ptr(),
        };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Binds to an address that the kernel chooses: needed for owning tables, because the kernel releases those of a
    /// socket that was bound when it closes.
    fn bind(&self) -> io::Result<u32> {
        // SAFETY: all bytes zero is a valid value of this plain C struct.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).map_err(io::Error::other)?;
        let mut length = size::<libc::sockaddr_nl>();
        // SAFETY: the pointer is to a live sockaddr_nl and the length is its size.
        check(unsafe { libc::bind(self.descriptor.as_raw_fd(), (&raw const address).cast(), length) })?;
        // SAFETY: the pointers are to a live sockaddr_nl and to its size, which the kernel does not exceed.
        check(unsafe { libc::getsockname(self.descriptor.as_raw_fd(), (&raw mut address).cast(), &raw mut length) })?;
        Ok(address.nl_pid)
    }

    /// Makes sure that one message of this many bytes can be sent.
    pub(crate) fn reserve(&mut self, bytes: usize) -> io::Result<()> {
        let needed = bytes.saturating_add(SEND_MARGIN);
        if needed > self.send_buffer {
            let size = needed.next_power_of_two();
            self.buffer(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, size)?;
            self.send_buffer = size;
        }
        Ok(())
    }

    /// Sends one datagram to the kernel, which processes it before this returns.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reserve(bytes.len())?;
        // SAFETY: the pointer is to `bytes.len()` bytes that live during the call. Without an address a netlink
        // datagram goes to the kernel.
        let sent = unsafe { libc::send(self.descriptor.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(sent) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Receives one datagram and returns its length, which is larger than the buffer where it was cut. Without
    /// `wait`, [`io::ErrorKind::WouldBlock`] means that there is none; with it, that none came in time.
    pub(crate) fn receive(&self, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
        let flags = libc::MSG_TRUNC | if wait { 0 } else { libc::MSG_DONTWAIT };
        loop {
            // SAFETY: the pointer is to `buffer.len()` writable bytes that live during the call; MSG_TRUNC changes
            // only the result, never how much is written.
            let received = unsafe {
                libc::recv(
                    self.descriptor.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    flags,
                )
            };
            if let Ok(received) = usize::try_from(received) {
                return Ok(received);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Sets a buffer's size beyond the system's limit where allowed (CAP_NET_ADMIN), else up to it.
    fn buffer(&self, forced: c_int, plain: c_int, size: usize) -> io::Result<()> {
        // The kernel doubles the number.
        let size = c_int::try_from(size).unwrap_or(c_int::MAX / 2).clamp(0, c_int::MAX / 2);
        self.set(libc::SOL_SOCKET, forced, &size)
            .or_else(|_| self.set(libc::SOL_SOCKET, plain, &size))
    }

    fn set<T>(&self, level: c_int, option: c_int, value: &T) -> io::Result<()> {
        // SAFETY: the pointer is to a live value of the length given; each option is set with the plain C type that
        // the kernel reads for it (int, timeval).
        check(unsafe {
            libc::setsockopt(
                self.descriptor.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast::<c_void>(),
                size::<T>(),
            )
        })
    }
}

/// One step of a filter.
fn step(code: u32, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        // All codes are below 256.
        code: u16::try_from(code).unwrap_or_default(),
        jt: jump_true,
        jf: jump_false,
        k,
    }
}

fn size<T>() -> socklen_t {
    // C structs of a few bytes.
    socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
