//! AF_XDP, kept from everybody else. Such a socket hands frames to an interface's driver behind every hook of netfilter,
//! the netdev egress hook included (tried on 6.18), and CAP_NET_RAW is enough for it. The kernel gives each queue of an
//! interface to one such memory only, so whoever holds all queues keeps others from sending. Nothing is ever sent or
//! received through what is held here.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, socklen_t};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use ringfence_model::InterfaceName;

use crate::Error;

/// One frame of memory is the least that the kernel takes for it.
const FRAME: u32 = 4096;
/// No driver has as many queues; a limit so that a wrong answer does not make an endless loop.
const QUEUES: u32 = 1024;

/// Whether an interface is held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// All queues are.
    Whole,
    /// Somebody else had these queues before, and may send past all rules there; or whoever had them has just gone, and the
    /// kernel is not done with it.
    Taken(BTreeSet<u32>),
    /// The kernel has no such sockets.
    Needless,
}

/// Keeps others from AF_XDP on one interface until it is dropped, or until the interface is gone.
#[derive(Debug)]
pub struct TransmitGuard {
    index: u32,
    hold: Hold,
    /// Closed before the memory goes.
    sockets: Vec<OwnedFd>,
    memory: Vec<Memory>,
}

impl TransmitGuard {
    /// Takes all queues of an interface in the calling thread's namespace. Needs CAP_NET_RAW.
    pub fn take(interface: &InterfaceName) -> Result<Self, Error> {
        // A kernel that was built without them says so for each; asking it once is enough.
        static NEEDLESS: AtomicBool = AtomicBool::new(false);
        let failed = |errno: Errno| Error::of(errno, format!("keep others from AF_XDP on {interface}"), "CAP_NET_RAW");
        let index = if_nametoindex(interface.as_str()).map_err(failed)?;
        let mut guard = Self {
            index,
            hold: Hold::Whole,
            sockets: Vec::new(),
            memory: Vec::new(),
        };
        let mut taken = BTreeSet::new();
        if NEEDLESS.load(Ordering::Relaxed) {
            guard.hold = Hold::Needless;
            return Ok(guard);
        }
        for queue in 0..QUEUES {
            match hold(index, queue) {
                Ok((socket, memory)) => {
                    guard.sockets.push(socket);
                    guard.memory.push(memory);
                }
                // Behind the last queue.
                Err(Errno::EINVAL) if queue > 0 => break,
                Err(Errno::EBUSY) => {
                    taken.insert(queue);
                }
                Err(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT) => {
                    NEEDLESS.store(true, Ordering::Relaxed);
                    guard.hold = Hold::Needless;
                    return Ok(guard);
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        if !taken.is_empty() {
            guard.hold = Hold::Taken(taken);
        }
        Ok(guard)
    }

    /// What is held.
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Whether it still holds the interface of this name in the calling thread's namespace, as far as it ever did: another
    /// one may have got the name.
    pub fn is_on(&self, interface: &InterfaceName) -> bool {
        !matches!(self.hold, Hold::Taken(_)) && if_nametoindex(interface.as_str()) == Ok(self.index)
    }
}

/// A page that the kernel may keep frames in.
#[derive(Debug)]
struct Memory(NonNull<c_void>);

// SAFETY: nobody reads or writes through the pointer; it is only given back.
unsafe impl Send for Memory {}

impl Memory {
    fn new() -> Result<Self, Errno> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(address).map(Self).ok_or(Errno::ENOMEM)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and nothing else knows it. Where a socket still used it
        // the kernel would keep the page.
        unsafe { libc::munmap(self.0.as_ptr(), length()) };
    }
}

fn length() -> usize {
    FRAME as usize
}

/// Takes one queue.
fn hold(index: u32, queue: u32) -> Result<(OwnedFd, Memory), Errno> {
    // SAFETY: no pointers; the result is checked before it is used as a descriptor.
    let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    Errno::result(raw)?;
    // SAFETY: `raw` was just opened and nothing else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let memory = Memory::new()?;
    let registration = libc::xdp_umem_reg {
        addr: memory.0.as_ptr() as u64,
        len: FRAME.into(),
        chunk_size: FRAME,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(&socket, libc::XDP_UMEM_REG, &registration)?;
    // The least that the kernel wants before it binds. Nothing is put into any of them.
    let ring: c_int = 1;
    for option in [
        libc::XDP_UMEM_FILL_RING,
        libc::XDP_UMEM_COMPLETION_RING,
        libc::XDP_TX_RING,
    ] {
        set(&socket, option, &ring)?;
    }
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::sa_family_t::try_from(libc::AF_XDP).unwrap_or_default(),
        // By copying: every driver can, and none is asked for anything.
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: index,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: the pointer is to a live sockaddr_xdp and the length is its size.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size(&address)) })?;
    Ok((socket, memory))
}

fn set<T>(socket: &OwnedFd, option: c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: the pointer is to a live value of the length given, of the plain C type that the kernel reads for the option.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            size(value),
        )
    };
    Errno::result(result).map(drop)
}

fn size<T>(value: &T) -> socklen_t {
    // C structs of a few bytes.
    socklen_t::try_from(size_of_val(value)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    //! Against the kernel: they need root and iproute2, and fail without.

    use std::process::Command;

    use super::*;
    use crate::scratch;

    fn ip(line: &str) {
        let status = Command::new("ip").args(line.split(' ')).status().expect("run ip");
        assert!(status.success(), "ip {line}");
    }

    fn name(text: &str) -> InterfaceName {
        InterfaceName::new(text).expect("a good name")
    }

    #[test]
    fn who_holds_an_interface_keeps_others_from_it() {
        scratch(|| {
            ip("link add net1 type veth peer name far");
            let net1 = name("net1");
            let guard = TransmitGuard::take(&net1).expect("taken");
            assert_eq!(*guard.hold(), Hold::Whole);
            assert!(guard.is_on(&net1));
            // Interfaces that are down count too, and a queue is taken once.
            assert_eq!(
                *TransmitGuard::take(&net1).expect("asked").hold(),
                Hold::Taken(BTreeSet::from([0]))
            );
            assert!(TransmitGuard::take(&name("far")).is_ok());
            drop(guard);
            // The kernel gives the queues back a moment after the sockets are closed.
            let taken = std::iter::repeat_with(|| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                TransmitGuard::take(&net1).expect("taken")
            });
            let guard = taken.take(10_000).find(|guard| *guard.hold() == Hold::Whole);
            let guard = guard.expect("whole again");
            // It hinders nobody who removes the interface, and knows when another one has its name.
            ip("link del net1");
            assert!(!guard.is_on(&net1));
            ip("link add net1 type veth peer name far");
            assert!(!guard.is_on(&net1));
            assert!(
                TransmitGuard::take(&name("net9")).is_err(),
                "there is no such interface"
            );
        })
        .expect("a namespace (are you root?)");
    }
}
