//! A folder of manifests as a source, kept up to date with inotify.
//!
//! What it promises, in the order of importance:
//! * An object disappears only because somebody has removed it. While a file cannot be read or parsed, is half
//!   written, or the folder is gone, the last good objects stay; a policy that vanishes for a moment opens pods.
//! * A saved file takes effect at once: nothing waits for a quiet time except removals, for milliseconds.
//! * Equal objects are not sent again, and one turn's changes are one batch.
//!
//! `catalog` is the pure part: files in, updates out. `watcher` turns kernel events into calls of it, with `events` in
//! front of it and `pending` to remember what has to wait. `tree` says which files count.

mod catalog;
mod events;
mod pending;
mod tree;
mod watcher;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;

use ringfence_model::{Diagnostic, ObjectKey, Source};
use tokio::sync::mpsc;

pub(crate) use catalog::Catalog;
pub use tree::ReadError;
pub(crate) use tree::{read_text, walk};

use crate::decode::Decoded;

/// Batches that may wait for a slow reader before the source stops reading files.
const WAITING_BATCHES: usize = 64;

/// One change. Whatever is sent for a source replaces the diagnostics that were sent for it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// A new or changed object; there is always one inside. Its diagnostics may be all that changed.
    Apply(Decoded),
    /// The object is no longer there, nor are its diagnostics.
    Gone {
        /// Which.
        key: ObjectKey,
        /// As diagnostics called it.
        source: Source,
    },
    /// All diagnostics of a source that has no object of its own: a file, or a rejected manifest. Empty: all is well.
    Report {
        /// What they are about.
        source: Source,
        /// The complete list.
        diagnostics: Vec<Diagnostic>,
    },
    /// Everything that was there at the start and could be read has been sent.
    Synced {
        /// What could not be read, as in [`Update::Unread`].
        unread: Vec<Source>,
    },
    /// Another list of what has never been read since the source was started, sorted: what it holds is not known, nor
    /// what it held when it was last read by somebody. A file, a manifest, or a kind as a whole that nobody may list.
    /// Empty: everything is known. Comes behind what the same change has brought to light.
    Unread(Vec<Source>),
}

/// The folder or file cannot be watched. The text names it and what to do.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no such file or folder.
    #[error("{path}: there is no such file or folder; create it before the agent starts")]
    NotFound {
        /// As an absolute path.
        path: PathBuf,
    },
    /// It exists and cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// As an absolute path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel refuses the watch.
    #[error("{path} cannot be watched: {source}; the limits are fs.inotify.max_user_instances and max_user_watches")]
    Inotify {
        /// As an absolute path.
        path: PathBuf,
        /// The library's reason.
        source: notify::Error,
    },
}

/// Keeps the source running. Dropping it ends the source's thread.
#[derive(Debug)]
pub struct Watch {
    stop: std_mpsc::Sender<events::Message>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread may have ended already; then there is nobody to tell.
        let _ = self.stop.send(events::Message::Stop);
    }
}

/// Watches a folder, subfolders included, or a single file. Which files count is the same as for [`load`](fn@crate::load).
///
/// Batches arrive in order; the first one ends with [`Update::Synced`], and the list in it holds until
/// an [`Update::Unread`] brings another. Within a batch removals come first, and an
/// object that moves between files is applied, not removed and applied. If one object is in several files, the
/// lexically first path wins.
///
/// Works on a thread of its own and may be called without a runtime.
pub fn watch(path: impl Into<PathBuf>) -> Result<(mpsc::Receiver<Vec<Update>>, Watch), WatchError> {
    let path = path.into();
    let (batches, receiver) = mpsc::channel(WAITING_BATCHES);
    let (messages, inbox) = std_mpsc::channel();
    let watcher = watcher::Watcher::start(&path, batches, messages.clone(), inbox)?;
    watcher.spawn()?;
    Ok((receiver, Watch { stop: messages }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use notify::event::{Event, EventKind, Flag};
    use tempfile::TempDir;

    use super::*;

    /// A queue of the kernel's cannot be made to overflow at will; what it then says can be said.
    #[test]
    fn after_an_overflow_everything_is_read_again() {
        let folder = TempDir::new().unwrap();
        let (root, outside) = (folder.path().join("in"), folder.path().join("outside"));
        fs::create_dir(&root).unwrap();
        let namespace = |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        fs::write(&outside, namespace("a")).unwrap();
        // A second name of one file: what is written to the first is not reported to watchers of the second's folder.
        fs::hard_link(&outside, root.join("a.yaml")).unwrap();
        assert_eq!(fs::metadata(&outside).unwrap().nlink(), 2);
        let (mut batches, watch) = watch(&root).unwrap();
        assert_eq!(batches.blocking_recv().map(|batch| batch.len()), Some(2));
        fs::write(&outside, namespace("b")).unwrap();
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        watch
            .stop
            .send(events::Message::Event {
                generation: u64::MAX,
                event: Ok(overflow),
            })
            .unwrap();
        let mut seen = Vec::new();
        while !seen
            .iter()
            .any(|update| matches!(update, Update::Apply(it) if &*it.source.name == "b"))
        {
            seen.extend(batches.blocking_recv().unwrap());
        }
    }
}
