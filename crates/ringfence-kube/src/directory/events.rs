//! The kernel's events as messages to the one thread that owns everything, and the marker among them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::Sender;

use notify::event::{AccessKind, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// What wakes the thread.
#[derive(Debug)]
pub(super) enum Message {
    /// Something has happened to a file or folder.
    Event {
        /// Of the instance that tells it.
        generation: u64,
        event: notify::Result<notify::Event>,
    },
    /// The marker has come through the queue.
    Marked,
    /// Nobody wants to know any more.
    Stop,
}

/// A file of our own without a name, watched like the others: opening it puts an event into the kernel's queue
/// behind all that have happened before.
pub(super) struct Marker {
    path: PathBuf,
    /// Keeps the path valid.
    _file: File,
}

impl Marker {
    pub(super) fn new() -> nix::Result<Self> {
        let file = nix::sys::memfd::memfd_create(c"ringfence-marker", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        let file = File::from(file);
        Ok(Self {
            path: PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            _file: file,
        })
    }

    /// Sends it: [`Message::Marked`] comes after all events until now.
    pub(super) fn send(&self) -> std::io::Result<()> {
        // Opened for reading like any other file; writing through the original would not be reported (Linux 6.14).
        File::open(&self.path).map(drop)
    }

    /// Lets it go through this instance's queue.
    pub(super) fn watch_by(&self, inotify: &mut RecommendedWatcher) -> notify::Result<()> {
        inotify.watch(&self.path, RecursiveMode::NonRecursive)
    }
}

/// A new instance without watches. It knows the marker, but the marker must be watched to come through.
pub(super) fn inotify(
    messages: &Sender<Message>,
    generation: u64,
    marker: Option<&Marker>,
) -> notify::Result<RecommendedWatcher> {
    let messages = messages.clone();
    let marker = marker.map(|marker| marker.path.clone());
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let is_marker = |event: &notify::Event| marker.is_some() && event.paths.first() == marker.as_ref();
        let message = match event {
            Ok(event) if matches!(event.kind, EventKind::Access(AccessKind::Open(_))) => {
                // Reading causes these, so they must not cause reading.
                if !is_marker(&event) {
                    return;
                }
                Message::Marked
            }
            Ok(event) if is_marker(&event) => return,
            event => Message::Event { generation, event },
        };
        // If the thread has ended, the watcher will follow.
        let _ = messages.send(message);
    })
}
