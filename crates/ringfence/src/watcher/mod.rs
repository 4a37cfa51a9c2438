//! Which network namespace is at each local pod's path, and when that changes.
//!
//! A look at every path each 200 ms is the ground that this stands on: it works for any kind of path. So that a new
//! pod is not left open for that long, changes of the mount table wake the watcher as well: runtimes and `ip netns`
//! mount the namespace on a file, and the kernel tells at once (`poll` of /proc/self/mountinfo, proc(5)), whereas a
//! watch of the folder would see the file before the namespace is on it. The container runtime is asked then too: a
//! namespace that is mounted is most often that of a sandbox to come.
//!
//! A look may never come back: a path on FUSE or NFS whose server is away. So somebody minds whoever makes the rounds,
//! and has another thread go on with the other paths (statement 228). There is one such thread for each path that does
//! not answer; it looks at that path alone until it answers in time again, or nobody looks for a pod there.

mod paths;

use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence_model::PodUid;
use ringfence_netns::NetnsId;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use self::paths::Late;
pub use self::paths::Paths;
use crate::event::Event;

/// Time between two looks, in milliseconds.
const INTERVAL: u16 = 200;

/// A look that takes longer than this, and less than twice as long at most, is not waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// Shortest time between two looks where mounts come and go all the time.
const PAUSE: Duration = Duration::from_millis(2);

/// The loop's side. Dropping it ends the threads.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
}

/// What all threads have in common.
struct Shared {
    paths: Paths,
    events: UnboundedSender<Event>,
    /// Is called when something was mounted or unmounted.
    mounted: Box<dyn Fn() + Send + Sync>,
    stop: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Watcher {
    /// Starts the threads. `mounted` is called on one of them when something was mounted or unmounted.
    pub fn start(events: UnboundedSender<Event>, mounted: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            paths: Paths::default(),
            events,
            mounted: Box::new(mounted),
            stop: AtomicBool::new(false),
        });
        // Whoever is left alone when the second thread is refused ends at once.
        let watcher = Self {
            shared: Arc::clone(&shared),
        };
        shared.start_looker(0)?;
        thread::Builder::new()
            .name("mind-netns".into())
            .spawn(move || mind(&shared))?;
        Ok(watcher)
    }

    /// Reports what is at the path, now and whenever it changes.
    pub fn track(&self, pod: PodUid, path: PathBuf) {
        self.shared.paths.track(pod, path);
    }

    /// Reports nothing more about the pod.
    pub fn forget(&self, pod: &PodUid) {
        self.shared.paths.forget(pod);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn start_looker(self: &Arc<Self>, looker: u64) -> io::Result<()> {
        let shared = Arc::clone(self);
        thread::Builder::new()
            .name("watch-netns".into())
            .spawn(move || {
                if let Err(late) = shared.watch(looker) {
                    shared.stay_at(late);
                }
            })
            .map(drop)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes the rounds, until the end or until a look has taken so long that somebody else makes them.
    fn watch(&self, looker: u64) -> Result<(), Late> {
        let mounts = File::open("/proc/self/mountinfo")
            .inspect_err(|error| {
                warn!(%error, interval_ms = INTERVAL, "Mounts cannot be watched: network namespaces are looked for at intervals only");
            })
            .ok();
        while !self.stopped() {
            // Looked at before waiting: what is mounted from here on wakes the wait that follows.
            if let Some(device) = device() {
                self.paths.round(looker, |path| identity(path, device), &self.events)?;
            }
            thread::sleep(PAUSE);
            let mut wait = mounts
                .iter()
                .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLPRI))
                .collect::<Vec<_>>();
            match poll(&mut wait, PollTimeout::from(INTERVAL)) {
                Ok(0) => {}
                Ok(_) => (self.mounted)(),
                // EINTR or a lack of memory: the look at intervals goes on.
                Err(_) => thread::sleep(Duration::from_millis(INTERVAL.into())),
            }
        }
        Ok(())
    }

    /// Looks at a path that has kept the rounds waiting, alone.
    fn stay_at(&self, mut late: Late) {
        let mut in_time = false;
        while self.paths.tell(&late, &self.events) && !in_time && !self.stopped() {
            thread::sleep(Duration::from_millis(INTERVAL.into()));
            let begun = Instant::now();
            late.id = device().and_then(|device| identity(&late.path, device));
            in_time = begun.elapsed() < PATIENCE;
        }
        self.paths.answers(&late.path);
    }
}

/// Has somebody else go on where a look does not come back.
fn mind(shared: &Arc<Shared>) {
    let mut before = None;
    let mut missing = None;
    while !shared.stopped() {
        thread::sleep(PATIENCE);
        let now = shared.paths.under_way();
        if let Some(number) = now.filter(|_| now == before) {
            missing = shared.paths.give_up(number, &shared.events).or(missing);
        }
        before = now;
        if let Some(looker) = missing.take()
            && let Err(error) = shared.start_looker(looker)
        {
            warn!(%error, "No thread could be started: new network namespaces are not seen until one can be");
            missing = Some(looker);
        }
    }
}

/// The device of the kernel's file system of namespaces: a file on another one is no namespace (yet).
fn device() -> Option<u64> {
    fs::metadata("/proc/self/ns/net").ok().map(|metadata| metadata.dev())
}

fn identity(path: &Path, device: u64) -> Option<NetnsId> {
    let metadata = fs::metadata(path).ok()?;
    (metadata.dev() == device).then(|| NetnsId {
        device,
        inode: metadata.ino(),
    })
}
