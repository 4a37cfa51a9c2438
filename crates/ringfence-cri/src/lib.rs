//! Where the pods' network namespaces are, as the container runtime of the node says it over the CRI
//! (`runtime.v1.RuntimeService`, a unix socket; containerd and CRI-O).
//!
//! ```text
//! runtime ──► complete list of ready sandboxes ──► newest of each pod ──► its details, once ──► what is news: Change
//! ```
//!
//! Every look is a complete list, and only a complete list without it makes a sandbox [`Change::Gone`]. A runtime that
//! is away, restarts or answers with errors changes nothing; [`Handle::health`] tells.
//!
//! Reading order: [`watch`], `difference` (which sandbox counts, what is news), `place` (where its namespace is), then
//! `client` and `messages`; `proc` is the fallback without a runtime, [`scan`]. Nothing here enters a namespace.

mod client;
mod difference;
mod health;
mod messages;
mod place;
mod proc;
mod session;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use ringfence_model::{NamespacedName, PodUid};
use tokio::runtime;
use tokio::sync::{Notify, mpsc, watch as channel};

pub use health::{Health, State};
pub use messages::{CONFIG_SOURCE, is_static};
pub use place::visible;
pub use proc::scan;

/// Where runtimes have their sockets: containerd, CRI-O (also under the older name of the folder), k3s.
pub const SOCKETS: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
];

/// Batches that wait for their reader. When it is full, the runtime is not asked any more until there is room.
const BATCHES: usize = 16;

/// What [`watch`] is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The runtime's socket; `None` for the first of [`SOCKETS`] that exists, looked for anew at every attempt.
    pub socket: Option<PathBuf>,
    /// Longest time between two looks.
    pub poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: None,
            poll: Duration::from_secs(1),
        }
    }
}

/// Something new about a pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The pod's network namespace is there. Said again when the sandbox is replaced.
    Found {
        /// Whose it is.
        pod: PodUid,
        /// An absolute path without `..`. What is there is not judged.
        path: PathBuf,
        /// The runtime's identifier of the sandbox.
        sandbox: String,
        /// When the runtime made it, as the runtime says.
        created: Option<SystemTime>,
        /// What the pod is called, if it is a static one: the API knows it under another UID.
        static_pod: Option<NamespacedName>,
    },
    /// The pod has a sandbox, but where its network namespace is cannot be known.
    Unusable {
        /// Whose it is.
        pod: PodUid,
        /// The runtime's identifier of the sandbox.
        sandbox: String,
        /// Why, in words.
        reason: String,
    },
    /// The runtime has no ready sandbox of the pod any more.
    Gone {
        /// Whose it was.
        pod: PodUid,
    },
    /// Everything that was there at the start has been said. Comes once.
    Synced,
}

/// Why the watch cannot be started, or why the runtime cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that no socket can have.
    #[error("{} is no absolute path of a socket", .0.display())]
    Socket(PathBuf),
    /// None of the usual sockets exists.
    #[error("no container runtime found: there is none of {}", SOCKETS.join(", "))]
    NoRuntime,
    /// Nobody answers at the socket.
    #[error("no container runtime answers at {}: {reason}", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The runtime has refused a call, or the connection has broken.
    #[error("the container runtime's answer to {method} is {}: {}", status.code(), status.message())]
    Call {
        /// The method of the CRI.
        method: &'static str,
        /// gRPC's words.
        status: Box<tonic::Status>,
    },
    /// The runtime takes too long.
    #[error("the container runtime has not answered {method} for {} seconds", .after.as_secs())]
    Timeout {
        /// The method of the CRI.
        method: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// /proc does not show the node's processes.
    #[error(
        "{} cannot be looked at: {reason}; looking for the pods' processes needs hostPID and CAP_SYS_PTRACE",
        path.display()
    )]
    Processes {
        /// Where.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The operating system has no thread or no descriptors left.
    #[error("the container runtime cannot be watched: {0}")]
    System(#[from] io::Error),
}

/// What the owner of a watch can do beside reading its changes.
#[derive(Debug, Clone)]
pub struct Handle {
    poke: Arc<Notify>,
    health: channel::Receiver<Health>,
}

impl Handle {
    fn new(poke: Arc<Notify>, health: channel::Receiver<Health>) -> Self {
        Self { poke, health }
    }

    /// Something has happened that may mean a new sandbox: the runtime is asked at once, and several times in the
    /// second after it, because a namespace is mounted and a pod is assigned some time before its sandbox is ready.
    /// Costs nothing to call often.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// How the runtime is.
    pub fn health(&self) -> channel::Receiver<Health> {
        self.health.clone()
    }
}

/// Watches the runtime from a thread of its own, until the receiver is dropped. A runtime that is not there (yet) is no
/// error: it is waited for.
pub fn watch(options: Options) -> Result<(mpsc::Receiver<Vec<Change>>, Handle), Error> {
    if let Some(socket) = options.socket.as_ref()
        && (!socket.is_absolute() || socket.to_str().is_none())
    {
        return Err(Error::Socket(socket.clone()));
    }
    let (sender, receiver) = mpsc::channel(BATCHES);
    let (reporter, health) = channel::channel(Health::new(options.socket.clone()));
    let poke = Arc::new(Notify::new());
    let watcher = session::Watcher::new(options, sender, Arc::clone(&poke), reporter);
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    thread::Builder::new()
        .name("watch-cri".into())
        .spawn(move || runtime.block_on(watcher.run()))?;
    Ok((receiver, Handle::new(poke, health)))
}
