//! A network namespace that can be entered, and the guard that leaves it again.

use std::ffi::OsStr;
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::Error;

/// `NS_GET_NSTYPE` of `linux/nsfs.h` (kernel ≥ 4.11): `_IO(0xb7, 3)`, answers with the CLONE_NEW… flag of the type.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The thread's own namespace. `/proc/self/ns/net` would be the main thread's, which is another one as soon as any
/// thread has entered a pod.
const OWN: &str = "/proc/thread-self/ns/net";

/// The unix sockets of the thread's namespace.
const SOCKETS: &str = "/proc/thread-self/net/unix";

/// The flag of listening sockets (`__SO_ACCEPTCON`), as the table has it.
const LISTENING: &[u8] = b"00010000";

const SETNS_CAPABILITY: &str = "CAP_SYS_ADMIN";

/// Which namespace it is. Paths are reused and several paths lead to one namespace; this is what tells that a pod
/// of the same UID has been given another sandbox. A number is free for reuse when the namespace is gone, so compare
/// identities only while one of both is held open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    /// Device of the kernel's namespace file system.
    pub device: u64,
    /// Its inode there, as `readlink /proc/<pid>/ns/net` shows it.
    pub inode: u64,
}

/// An open network namespace. It lives at least as long as this value, whatever happens to its path.
#[derive(Debug)]
pub struct Netns {
    file: File,
    id: NetnsId,
}

impl Netns {
    /// Opens the namespace at a path: `/run/netns/NAME`, `/proc/<pid>/ns/net`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // O_NONBLOCK: a pipe at this path must give an error, not wait for somebody to write into it.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file: File = open(path, flags, Mode::empty())
            .map_err(|errno| Error::opening(errno, path))?
            .into();
        let system = |errno: Errno| Error::System {
            action: format!("look at {}", path.display()),
            source: errno.into(),
        };
        let metadata = file.metadata().map_err(|source| Error::System {
            action: format!("look at {}", path.display()),
            source,
        })?;
        if fstatfs(&file).map_err(system)?.filesystem_type() != NSFS_MAGIC {
            let kind = metadata.file_type();
            let found = if kind.is_file() && metadata.len() == 0 {
                return Err(Error::NotMounted { path: path.into() });
            } else if kind.is_dir() {
                "a folder"
            } else if kind.is_fifo() {
                "a pipe"
            } else if kind.is_file() {
                "a file with content"
            } else {
                "a special file"
            };
            return Err(Error::NotANamespace {
                path: path.into(),
                found: found.into(),
            });
        }
        // SAFETY: NS_GET_NSTYPE takes no argument and writes nothing; the descriptor is open for the whole call.
        let kind = Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) }).map_err(system)?;
        if kind != libc::CLONE_NEWNET {
            return Err(Error::NotANamespace {
                path: path.into(),
                found: format!("a namespace of another type ({})", type_name(kind)),
            });
        }
        let id = NetnsId {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        Ok(Self { file, id })
    }

    /// The calling thread's own namespace.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new(OWN))
    }

    /// Its identity.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `f` with the calling thread inside this namespace and brings the thread back, also when `f` panics.
    ///
    /// Threads and processes that `f` starts are born inside and stay there. A thread that cannot be brought back
    /// would do the rest of its work in a pod's namespace; it panics instead, and the process aborts if it is
    /// panicking already.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> Result<T, Error> {
        let inside = Inside::enter(self)?;
        let result = f();
        drop(inside);
        Ok(result)
    }

    /// Whether a unix socket of that file name listens in this namespace. Such a socket belongs to the namespace that its
    /// process was in when it made it, and not to where its file is; so the container runtime's is in the node's.
    pub fn has_listener(&self, name: &OsStr) -> Result<bool, Error> {
        let table = self.run(|| std::fs::read(SOCKETS))?;
        let table = table.map_err(|source| Error::System {
            action: format!("read {SOCKETS}"),
            source,
        })?;
        Ok(listens(&table, name.as_bytes()))
    }
}

/// Whether a table as /proc/net/unix has it (proc_net(5)) names a listening socket whose path ends in that name.
fn listens(table: &[u8], name: &[u8]) -> bool {
    table.split(|byte| *byte == b'\n').any(|line| {
        // Address, references, protocol, flags, type, state, inode, path.
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let is_listening = fields.nth(3) == Some(LISTENING);
        let path = fields.nth(3).filter(|path| path.starts_with(b"/"));
        is_listening && path.and_then(|path| path.rsplit(|byte| *byte == b'/').next()) == Some(name)
    })
}

/// The thread is inside a namespace as long as this lives. Not `Send`: dropped on another thread it would move that
/// one.
struct Inside {
    home: Netns,
    not_send: PhantomData<*mut ()>,
}

impl Inside {
    fn enter(target: &Netns) -> Result<Self, Error> {
        // Opened before the move: afterwards the path would name the target.
        let home = Netns::current()?;
        setns(target.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::of(errno, "enter a network namespace", SETNS_CAPABILITY))?;
        Ok(Self {
            home,
            not_send: PhantomData,
        })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(errno) = setns(self.home.file.as_fd(), CloneFlags::CLONE_NEWNET) {
            // During a panic of the closure this is a second panic, which aborts the process: right, because whoever
            // catches the first one would go on in the wrong namespace.
            panic!("cannot return to the thread's own network namespace: {errno}; this thread must not go on");
        }
    }
}

/// Runs `f` on a thread of its own in a new network namespace that holds nothing but a `lo` that is down, and is
/// gone when `f` has returned (unless `f` hands out something that keeps it, such as a socket). A panic of `f` goes on
/// in the caller.
pub fn scratch<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("scratch-netns".into())
            .spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| Error::of(errno, "make a network namespace", SETNS_CAPABILITY))?;
                Ok(f())
            })
            .map_err(|source| Error::System {
                action: "start a thread for a scratch network namespace".into(),
                source,
            })?;
        // The thread ends with the closure, so it is never brought back: its namespace goes with it.
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What people call a type of namespace.
fn type_name(kind: libc::c_int) -> &'static str {
    match kind {
        libc::CLONE_NEWNS => "mount",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWUSER => "user",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWCGROUP => "cgroup",
        _ => "unknown",
    }
}

#[cfg(test)]
#[path = "namespace_tests.rs"]
mod tests;
