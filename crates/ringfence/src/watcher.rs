//! Which network namespace is at each local pod's path, and when that changes.
//!
//! A look at every path each 200 ms is the ground that this stands on: it works for any kind of path. So that a new
//! pod is not left open for that long, changes of the mount table wake the watcher as well: runtimes and `ip netns`
//! mount the namespace on a file, and the kernel tells at once (`poll` of /proc/self/mountinfo, proc(5)), whereas a
//! watch of the folder would see the file before the namespace is on it. The container runtime is asked then too: a
//! namespace that is mounted is most often that of a sandbox to come.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence_model::PodUid;
use ringfence_netns::NetnsId;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::event::{Event, NetnsEvent};

/// Time between two looks, in milliseconds.
const INTERVAL: u16 = 200;

/// Shortest time between two looks where mounts come and go all the time.
const PAUSE: Duration = Duration::from_millis(2);

/// The loop's side. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    paths: Paths,
    stop: AtomicBool,
}

/// The paths that are looked at, and what was reported of each.
#[derive(Debug, Default)]
pub struct Paths(Mutex<BTreeMap<PodUid, Watched>>);

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// What was reported last.
    reported: Sight,
}

/// What somebody has seen at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sight {
    /// Nobody has looked.
    #[default]
    Unseen,
    /// There was nothing.
    Nothing,
    /// There was this.
    Namespace(NetnsId),
}

impl From<Option<NetnsId>> for Sight {
    fn from(id: Option<NetnsId>) -> Self {
        id.map_or(Self::Nothing, Self::Namespace)
    }
}

impl Paths {
    /// Looks at this path too, from now on, as if for the first time.
    pub fn track(&self, pod: PodUid, path: PathBuf) {
        let watched = Watched {
            path,
            reported: Sight::Unseen,
        };
        self.lock().insert(pod, watched);
    }

    /// Reports nothing more about the pod.
    pub fn forget(&self, pod: &PodUid) {
        self.lock().remove(pod);
    }

    /// Looks at all of them and reports what is news.
    pub fn look(&self, identity: impl Fn(&Path) -> Option<NetnsId>, events: &UnboundedSender<Event>) {
        // The paths are looked at without the lock, which the loop takes too.
        let paths: Vec<(PodUid, PathBuf)> = self
            .lock()
            .iter()
            .map(|(pod, watched)| (pod.clone(), watched.path.clone()))
            .collect();
        for (pod, path) in paths {
            let id = identity(&path);
            let mut watched = self.lock();
            // It may have been forgotten, or tracked anew with another path, in between.
            let Some(entry) = watched.get_mut(&pod).filter(|entry| entry.path == path) else {
                continue;
            };
            if entry.reported != Sight::from(id) {
                entry.reported = id.into();
                drop(watched);
                drop(events.send(Event::Netns(NetnsEvent::Seen { pod, path, id })));
            }
        }
    }

    /// Paths are changed by assignments only, so a map that a panicking thread held is whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodUid, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Starts the thread. `mounted` is called on it when something was mounted or unmounted.
    pub fn start(events: UnboundedSender<Event>, mounted: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        thread::Builder::new()
            .name("watch-netns".into())
            .spawn(move || watch(&own, &events, &mounted))?;
        Ok(Self { shared })
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

fn watch(shared: &Shared, events: &UnboundedSender<Event>, mounted: &dyn Fn()) {
    let mounts = File::open("/proc/self/mountinfo")
        .inspect_err(|error| {
            warn!(%error, interval_ms = INTERVAL, "Mounts cannot be watched: network namespaces are looked for at intervals only");
        })
        .ok();
    while !shared.stop.load(Ordering::Relaxed) {
        // Looked at before waiting: what is mounted from here on wakes the wait that follows.
        look(shared, events);
        thread::sleep(PAUSE);
        let mut wait = mounts
            .iter()
            .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLPRI))
            .collect::<Vec<_>>();
        match poll(&mut wait, PollTimeout::from(INTERVAL)) {
            Ok(0) => {}
            Ok(_) => mounted(),
            // EINTR or a lack of memory: the look at intervals goes on.
            Err(_) => thread::sleep(Duration::from_millis(INTERVAL.into())),
        }
    }
}

fn look(shared: &Shared, events: &UnboundedSender<Event>) {
    let Some(device) = device() else { return };
    shared.paths.look(|path| identity(path, device), events);
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
