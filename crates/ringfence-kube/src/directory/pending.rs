//! Files about which something has to be done, and how long that may wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};

use super::tree::is_manifest_name;

/// How long a removal waits for the next one: the last removal of a folder's is that of the folder itself. Also the
/// time after which a text that loses objects is looked at again.
const REMOVAL: Duration = Duration::from_millis(5);
/// The same where the folder has become empty, as it is just before it is removed.
pub(super) const LAST_REMOVAL: Duration = Duration::from_millis(100);
/// The same where a file has become empty, as it is just before it is written. Nobody is in a hurry who removes
/// objects by emptying a file.
const EMPTIED: Duration = Duration::from_secs(1);
/// How long a file may be missing that was renamed to an editor's backup name: the editor writes it anew.
const BACKUP: Duration = Duration::from_secs(1);
/// A file that is not closed for so long after the last write is read all the same, for what it adds or changes. It is
/// long, because a copy over a slow connection may stall, and half a policy may have another meaning.
const HELD_OPEN: Duration = Duration::from_secs(5);
/// The same where its close may have gone unseen, because the folder was moved about.
const UNSEEN_CLOSE: Duration = Duration::from_millis(200);

/// Files about which something has to be done.
#[derive(Default)]
pub(super) struct Pending {
    /// To be read.
    dirty: BTreeSet<PathBuf>,
    /// Written and not closed.
    writing: BTreeMap<PathBuf, Writing>,
    /// Not there; gone for good then.
    pub(super) missing: BTreeMap<PathBuf, Instant>,
    /// Read, but not believed yet.
    doubtful: BTreeMap<PathBuf, Doubt>,
    /// The folder was seen empty, and the longer wait for its own removal has begun.
    pub(super) emptied: bool,
}

#[derive(Clone, Copy)]
struct Writing {
    /// It is read at the latest then.
    due: Instant,
    /// When it is due, somebody still has it open; otherwise the close may have gone unseen.
    held_open: bool,
}

/// A text that would lose objects. It counts if it is still there after a while.
struct Doubt {
    text: String,
    due: Instant,
}

/// Files that can be read now.
#[derive(Default)]
pub(super) struct Ready {
    pub(super) paths: BTreeSet<PathBuf>,
    /// Those of them that somebody has open for writing.
    pub(super) held_open: BTreeSet<PathBuf>,
}

impl Pending {
    /// When something has to be done without any event; now where there is something already.
    pub(super) fn next_due(&self) -> Option<Instant> {
        // What was changed and closed while it was read is complete, and no event will come for it.
        let now = (!self.dirty.is_empty()).then(Instant::now);
        let writing = self.writing.values().map(|writing| writing.due);
        // What is written again is looked at after its close.
        let doubtful = self
            .doubtful
            .iter()
            .filter(|(path, _)| !self.writing.contains_key(*path))
            .map(|(_, doubt)| doubt.due);
        writing
            .chain(doubtful)
            .chain(self.missing.values().copied())
            .chain(now)
            .min()
    }

    /// Files of which a text is still to come.
    pub(super) fn unread(&self) -> Vec<PathBuf> {
        let waiting = self.dirty.iter().chain(self.writing.keys()).chain(self.doubtful.keys());
        waiting.cloned().collect()
    }

    /// Takes in an event on a manifest.
    pub(super) fn note(&mut self, path: &Path, event: &notify::Event) {
        match event.kind {
            // Whoever creates a file by opening it will close it; links are complete at once.
            EventKind::Create(_) if fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink() || it.nlink() > 1) => {
                self.read(path.to_owned());
            }
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => {
                let due = Instant::now() + HELD_OPEN;
                self.writing.insert(path.to_owned(), Writing { due, held_open: true });
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                // The two halves of the rename have come as events of their own.
                let to_backup = event.paths.get(1).is_some_and(|to| !is_manifest_name(to));
                if to_backup && event.paths.first().is_some_and(|from| from == path) {
                    self.missing.insert(path.to_owned(), Instant::now() + BACKUP);
                }
            }
            // Complete, as far as the writer is concerned, or no longer there: reading tells.
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                self.writing.remove(path);
                self.read(path.to_owned());
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => self.read(path.to_owned()),
            _ => {}
        }
    }

    /// A file is to be read as soon as it is closed.
    pub(super) fn read(&mut self, path: PathBuf) {
        self.dirty.insert(path);
    }

    /// A file was shorter after reading than before: an event will tell, and if not, this does.
    pub(super) fn read_later(&mut self, path: &Path) {
        let writing = Writing {
            due: Instant::now() + REMOVAL,
            held_open: false,
        };
        self.writing.entry(path.to_owned()).or_insert(writing);
    }

    /// Some events may have been missed.
    pub(super) fn closes_may_be_lost(&mut self) {
        let due = Instant::now() + UNSEEN_CLOSE;
        for writing in self.writing.values_mut() {
            *writing = Writing {
                due: writing.due.min(due),
                held_open: false,
            };
        }
    }

    /// What can be read now. What is being written is left for its close.
    pub(super) fn ready(&mut self) -> Ready {
        let now = Instant::now();
        let mut ready = Ready {
            paths: std::mem::take(&mut self.dirty),
            held_open: BTreeSet::new(),
        };
        self.writing.retain(|path, writing| {
            if writing.due > now {
                // Its close will make it dirty again.
                ready.paths.remove(path);
                return true;
            }
            ready.paths.insert(path.clone());
            if writing.held_open {
                ready.held_open.insert(path.clone());
            }
            false
        });
        for (path, doubt) in &self.doubtful {
            if doubt.due <= now && !self.writing.contains_key(path) {
                ready.paths.insert(path.clone());
            }
        }
        ready
    }

    /// Whether something has happened to a file since it was [`ready`](Self::ready).
    pub(super) fn touched(&self, path: &Path) -> bool {
        self.writing.contains_key(path) || self.dirty.contains(path)
    }

    /// A file is not there.
    pub(super) fn miss(&mut self, path: &Path) {
        let due = Instant::now() + REMOVAL;
        self.missing.entry(path.to_owned()).or_insert(due);
        // All wait for the last one.
        for until in self.missing.values_mut() {
            *until = (*until).max(due);
        }
    }

    /// A file is there.
    pub(super) fn found(&mut self, path: &Path) {
        self.missing.remove(path);
    }

    /// Nothing is open about a file's text any more.
    pub(super) fn settled(&mut self, path: &Path) {
        self.doubtful.remove(path);
    }

    /// Whether a text that loses objects has been there for long enough.
    pub(super) fn confirms(&mut self, path: &Path, text: String, held_open: bool) -> bool {
        if held_open {
            // Its writer may have yet to write what is missing.
            self.doubtful.remove(path);
            return false;
        }
        let now = Instant::now();
        if let Some(doubt) = self.doubtful.get(path)
            && doubt.text == text
        {
            return doubt.due <= now;
        }
        let due = now + if text.trim().is_empty() { EMPTIED } else { REMOVAL };
        self.doubtful.insert(path.to_owned(), Doubt { text, due });
        false
    }
}
