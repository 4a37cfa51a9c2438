//! Kernel events in, catalog calls out: one thread that owns everything.
//!
//! Three races decide the shape of this module:
//! * A folder is watched before it is listed, so nothing is missed in between; what is seen twice does no harm.
//! * A file may be truncated again while it is read. inotify delivers in order, so after reading, a marker is sent
//!   through the same queue ([`Marker`]); if an open write on the file comes out before the marker, the text that was
//!   read is thrown away and the writer's close is awaited. The kernel tells of a truncation only after it has
//!   happened, however, so a text that would lose objects must be found a second time.
//! * Removal of a folder arrives as the removal of its files, one by one, and editors remove a file before they write
//!   it anew. So what removes objects waits a few milliseconds, and everything else does not.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use ringfence_model::Reason;
use tokio::sync::mpsc;

use super::events::{Marker, Message, inotify};
use super::pending::{LAST_REMOVAL, Pending};
use super::tree::{Tree, is_folder_name, is_link, is_manifest_name, is_mount_swap, read_text, walk_with};
use super::{Catalog, ReadError, Update, WatchError};
use crate::document;

/// How long the marker may take through the queue before the source goes on without markers.
const MARKER: Duration = Duration::from_secs(2);

/// How long the first batch waits for files that are being written.
const START: Duration = Duration::from_secs(10);

pub(super) struct Watcher {
    root: PathBuf,
    /// The root is one file; then its folder is watched.
    single: bool,
    batches: mpsc::Sender<Vec<Update>>,
    messages: Sender<Message>,
    inbox: Receiver<Message>,
    catalog: Catalog,
    marker: Option<Marker>,
    /// A new one for each time that the root appears, so that no watch of an older root is left in it.
    inotify: RecommendedWatcher,
    /// Of that one. Events of older ones come late and out of order.
    generation: u64,
    folders: BTreeSet<PathBuf>,
    links: BTreeSet<PathBuf>,
    pending: Pending,
    /// Where the root is gone: its nearest existing parent, which is watched instead.
    lost: Option<PathBuf>,
    rescan: bool,
    stopped: bool,
}

impl Watcher {
    /// Checks the path and sets the watches; nothing is read yet.
    pub(super) fn start(
        path: &Path,
        batches: mpsc::Sender<Vec<Update>>,
        messages: Sender<Message>,
        inbox: Receiver<Message>,
    ) -> Result<Self, WatchError> {
        let unreadable = |path: &Path, source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => WatchError::NotFound { path: path.to_owned() },
            _ => WatchError::Unreadable {
                path: path.to_owned(),
                source,
            },
        };
        let root = std::path::absolute(path).map_err(|source| unreadable(path, source))?;
        let single = !fs::metadata(&root)
            .map_err(|source| unreadable(&root, source))?
            .is_dir();
        if !single {
            fs::read_dir(&root).map_err(|source| unreadable(&root, source))?;
        }
        let marker = match Marker::new() {
            Ok(marker) => Some(marker),
            Err(error) => {
                tracing::warn!(%error, "No marker file; a file that is rewritten while it is read may be seen in part");
                None
            }
        };
        let refused = |source: notify::Error| WatchError::Inotify {
            path: root.clone(),
            source,
        };
        let inotify = inotify(&messages, 0, marker.as_ref()).map_err(refused)?;
        let mut watcher = Self {
            single,
            batches,
            messages,
            inbox,
            catalog: Catalog::default(),
            marker,
            inotify,
            generation: 0,
            folders: BTreeSet::new(),
            links: BTreeSet::new(),
            pending: Pending::default(),
            lost: None,
            rescan: false,
            stopped: false,
            root: root.clone(),
        };
        if let Some(marker) = &watcher.marker {
            marker.watch_by(&mut watcher.inotify).map_err(refused)?;
        }
        let anchor = watcher.anchor().to_owned();
        watcher
            .inotify
            .watch(&anchor, RecursiveMode::NonRecursive)
            .map_err(refused)?;
        Ok(watcher)
    }

    /// Starts the thread; the first batch is sent from there.
    pub(super) fn spawn(self) -> Result<(), WatchError> {
        let path = self.root.clone();
        thread::Builder::new()
            .name("directory-source".to_owned())
            .spawn(move || self.run())
            .map(drop)
            .map_err(|source| WatchError::Unreadable { path, source })
    }

    fn run(mut self) {
        self.scan();
        self.work();
        // A file that is being written right now is part of the beginning: without its policies pods would be opened.
        let patience = Instant::now() + START;
        while !self.stopped && self.pending.next_due().is_some() && Instant::now() < patience {
            self.wait();
            self.work();
        }
        let mut first = self.catalog.updates();
        // What is still being written has not been read.
        for path in self.pending.unread() {
            self.catalog.await_first(&path);
        }
        let mut told = self.catalog.unread();
        first.push(Update::Synced { unread: told.clone() });
        if self.batches.blocking_send(first).is_err() {
            return;
        }
        while !self.stopped {
            self.wait();
            self.work();
            let mut updates = self.catalog.updates();
            let unread = self.catalog.unread();
            if unread != told {
                told.clone_from(&unread);
                updates.push(Update::Unread(unread));
            }
            if !updates.is_empty() && self.batches.blocking_send(updates).is_err() {
                // Nobody listens any more.
                return;
            }
        }
    }

    /// The folder whose watch tells that the root appears or goes.
    fn anchor(&self) -> &Path {
        if self.single {
            self.root.parent().unwrap_or(&self.root)
        } else {
            &self.root
        }
    }

    fn root_exists(&self) -> bool {
        fs::metadata(&self.root).is_ok_and(|metadata| metadata.is_dir() != self.single)
    }

    /// Blocks until something has happened or is due, and takes in all that has happened.
    fn wait(&mut self) {
        let due = if self.rescan {
            Some(Instant::now())
        } else {
            self.pending.next_due()
        };
        let first = match due {
            None => self.inbox.recv().ok(),
            Some(due) => match self.inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => None,
            },
        };
        match first {
            Some(message) => self.note(message),
            None => self.stopped = true,
        }
        while let Ok(message) = self.inbox.try_recv() {
            self.note(message);
        }
    }

    fn note(&mut self, message: Message) {
        match message {
            Message::Stop => self.stopped = true,
            Message::Marked => {}
            Message::Event { generation, .. } if generation < self.generation => {}
            Message::Event { event: Ok(event), .. } => self.note_event(&event),
            Message::Event { event: Err(error), .. } => {
                tracing::warn!(%error, "Trouble with inotify; the folder is read again");
                self.rescan = true;
            }
        }
    }

    fn note_event(&mut self, event: &notify::Event) {
        if event.need_rescan() {
            tracing::warn!(root = %self.root.display(), "The kernel's event queue overflowed; the folder is read again");
            self.rescan = true;
            return;
        }
        for path in &event.paths {
            if self.lost.as_ref() == Some(path) {
                // The parent is gone, and one of the same name may be there by now: another folder.
                self.rescan = true;
                continue;
            }
            if *path == self.root && !self.single {
                // The folder itself, or the link to it.
                self.rescan |= !matches!(
                    event.kind,
                    EventKind::Modify(ModifyKind::Metadata(_)) | EventKind::Access(_)
                );
                continue;
            }
            let is_content = matches!(
                event.kind,
                EventKind::Modify(ModifyKind::Metadata(_)) | EventKind::Access(_)
            );
            let new_folder = matches!(event.kind, EventKind::Create(CreateKind::Folder)) && is_folder_name(path);
            if is_mount_swap(path) {
                self.rescan = true;
            } else if self.folders.contains(path) || (new_folder && path.starts_with(&self.root)) {
                // Folders come and go seldom, and what is below one must be found in any case.
                self.rescan |= !is_content;
            } else if self.links.contains(path) {
                // The kernel has one watch per file, whatever number of links lead there.
                for link in self.links.clone() {
                    self.pending.note(&link, event);
                }
            } else if self.counts(path) {
                self.pending.note(path, event);
            } else if matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To))) && path.is_dir() {
                self.rescan = true;
            }
        }
    }

    fn counts(&self, path: &Path) -> bool {
        if self.single {
            *path == self.root
        } else {
            is_manifest_name(path) && path.starts_with(&self.root)
        }
    }

    /// Does everything that can be done now.
    fn work(&mut self) {
        let parent = self.lost.is_some().then(|| self.nearest_parent());
        if self.rescan || parent.is_some_and(|parent| parent != self.lost || self.root_exists()) {
            self.scan();
        }
        self.read_dirty();
        self.settle_missing();
    }

    fn nearest_parent(&self) -> Option<PathBuf> {
        self.root
            .ancestors()
            .skip(1)
            .find(|path| path.is_dir())
            .map(Path::to_owned)
    }

    /// Looks at the whole folder: at the start, and whenever single events do not tell enough.
    fn scan(&mut self) {
        self.rescan = false;
        let reachable = self.root_exists() || (self.single && self.anchor().is_dir());
        if !reachable {
            self.lose();
            return;
        }
        // A new one, because watches of folders that were moved or replaced would report under their old names. The
        // old one is kept until the new one has all watches, so that no write goes unseen in between.
        let mut inotify = match inotify(&self.messages, self.generation + 1, self.marker.as_ref()) {
            Ok(inotify) => inotify,
            Err(error) => {
                self.report_refused(&error);
                return;
            }
        };
        let mut refused = None;
        let mut watch = |path: &Path| {
            if let Err(error) = inotify.watch(path, RecursiveMode::NonRecursive) {
                refused = Some(error);
            }
        };
        let tree = if self.single {
            watch(self.anchor());
            Tree {
                files: BTreeSet::from([self.root.clone()]),
                links: is_link(&self.root).then(|| self.root.clone()).into_iter().collect(),
                folders: BTreeSet::from([self.anchor().to_owned()]),
            }
        } else {
            if is_link(&self.root) {
                // The link may be pointed elsewhere without any event inside.
                self.root.parent().into_iter().for_each(&mut watch);
            }
            let Ok(tree) = walk_with(&self.root, &mut watch) else {
                self.lose();
                return;
            };
            tree
        };
        self.mark();
        if let Some(marker) = &self.marker
            && let Err(error) = marker.watch_by(&mut inotify)
        {
            refused = Some(error);
            self.marker = None;
        }
        self.inotify = inotify;
        self.generation += 1;
        self.pending.closes_may_be_lost();
        self.folders = tree.folders;
        self.links = tree.links;
        match refused {
            Some(error) => self.report_refused(&error),
            None => self.catalog.remove(&self.report_slot()),
        }
        if self.lost.take().is_some() {
            tracing::info!(root = %self.root.display(), "The folder is back");
        }
        // Also the known files that were not found: to read them shows that they are gone.
        let report = self.report_slot();
        let known: Vec<PathBuf> = self.catalog.files().filter(|path| **path != report).cloned().collect();
        for path in tree.files.into_iter().chain(known) {
            self.pending.read(path);
        }
    }

    /// Where the catalog keeps remarks about the root: hidden names are never manifests.
    fn report_slot(&self) -> PathBuf {
        self.root.join(".ringfence")
    }

    fn report_refused(&mut self, error: &notify::Error) {
        let message = format!(
            "not everything below can be watched ({error}), so changes may go unseen; raise \
             fs.inotify.max_user_watches and max_user_instances"
        );
        tracing::warn!(root = %self.root.display(), %error, "Not everything can be watched");
        self.catalog.remark(&self.report_slot(), &self.root, message);
    }

    /// The root is not there: everything stays as it is, and the nearest existing parent tells when it is back.
    fn lose(&mut self) {
        if self.lost.is_none() {
            tracing::warn!(root = %self.root.display(), "The folder is gone; what was read before stays in force");
            let message = "the folder is gone; create it again to go on".to_owned();
            self.catalog.remark(&self.report_slot(), &self.root, message);
        }
        self.pending = Pending::default();
        self.folders.clear();
        self.links.clear();
        let mut watched = None;
        if let Ok(mut inotify) = inotify(&self.messages, self.generation + 1, self.marker.as_ref()) {
            if let Some(marker) = &self.marker
                && marker.watch_by(&mut inotify).is_err()
            {
                self.marker = None;
            }
            // Again after each watch: what appears between the look and the watch would never be reported.
            loop {
                let parent = self.nearest_parent();
                let Some(path) = parent.as_ref().filter(|_| parent != watched) else {
                    break;
                };
                if inotify.watch(path, RecursiveMode::NonRecursive).is_err() {
                    break;
                }
                watched = parent;
            }
            self.inotify = inotify;
            self.generation += 1;
        }
        self.lost = Some(watched.unwrap_or_default());
        // It may have come back before the watch was set.
        self.rescan = self.root_exists();
    }

    fn read_dirty(&mut self) {
        let ready = self.pending.ready();
        if ready.paths.is_empty() {
            return;
        }
        let mut texts = Vec::with_capacity(ready.paths.len());
        for path in ready.paths {
            if is_link(&path) {
                self.links.insert(path.clone());
                // The link may lead elsewhere now; the old watch goes by itself with the old file.
                let _ = self.inotify.unwatch(&path);
                let _ = self.inotify.watch(&path, RecursiveMode::NonRecursive);
            }
            let text = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => read_whole(&path),
                // Reading a pipe would wait for its writer.
                Ok(_) => Err(ReadError::Io(io::ErrorKind::NotFound.into())),
                Err(error) => Err(ReadError::Io(error)),
            };
            texts.push((path, text));
        }
        self.mark();
        for (path, text) in texts {
            if self.pending.touched(&path) {
                // Read in the middle of a change.
                continue;
            }
            self.take(&path, text, ready.held_open.contains(&path));
        }
    }

    fn take(&mut self, path: &Path, text: Result<String, ReadError>, held_open: bool) {
        use io::ErrorKind::{Interrupted, NotADirectory, NotFound};
        let text = match text {
            Ok(text) => text,
            Err(ReadError::Io(error)) if matches!(error.kind(), NotFound | NotADirectory) => {
                self.pending.settled(path);
                if self.catalog.knows(path) {
                    self.pending.miss(path);
                } else {
                    // It may have been waited for.
                    self.catalog.remove(path);
                }
                return;
            }
            Err(ReadError::Io(error)) if error.kind() == Interrupted => {
                self.pending.read_later(path);
                return;
            }
            Err(error) => {
                self.pending.found(path);
                self.pending.settled(path);
                let reason = match error {
                    ReadError::TooLarge(_) => Reason::TooLarge,
                    ReadError::NoText => Reason::Syntax,
                    ReadError::Io(_) => Reason::Unreadable,
                };
                self.catalog.keep(path, reason, error.to_string());
                return;
            }
        };
        self.pending.found(path);
        let documents = document::read(&text, &path.to_string_lossy());
        if self.catalog.would_lose(path, &documents) && !self.pending.confirms(path, text, held_open) {
            return;
        }
        self.pending.settled(path);
        self.catalog.replace(path, documents);
    }

    /// Removals whose time has come.
    fn settle_missing(&mut self) {
        if self.pending.missing.is_empty() {
            self.pending.emptied = false;
            return;
        }
        if !self.single && !self.root_exists() {
            self.lose();
            return;
        }
        // What is elsewhere as well has only moved, and nobody has to wait for that.
        let moved: Vec<PathBuf> = self
            .pending
            .missing
            .keys()
            .filter(|path| !self.catalog.would_lose(path, &[]))
            .cloned()
            .collect();
        for path in moved.into_iter().filter(|path| !self.single && !path.is_file()) {
            self.pending.missing.remove(&path);
            self.catalog.remove(&path);
        }
        let now = Instant::now();
        let is_due = self.pending.missing.values().any(|due| *due <= now);
        if is_due && !self.pending.emptied && !self.single && self.is_empty() {
            // The state right before the folder's own removal.
            self.pending.emptied = true;
            for due in self.pending.missing.values_mut() {
                *due = now + LAST_REMOVAL;
            }
            return;
        }
        let due: Vec<PathBuf> = self
            .pending
            .missing
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(path, _)| path.clone())
            .collect();
        for path in due {
            self.pending.missing.remove(&path);
            if path.is_file() {
                self.pending.read(path);
            } else if self.single {
                let message = "the file is gone; write it again to go on".to_owned();
                self.catalog.keep(&path, Reason::Unreadable, message);
            } else {
                self.catalog.remove(&path);
            }
        }
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Takes in every event that has happened until now.
    fn mark(&mut self) {
        let Some(marker) = &self.marker else {
            return;
        };
        if marker.send().is_err() {
            return;
        }
        let until = Instant::now() + MARKER;
        loop {
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Marked) => return,
                Ok(message) => self.note(message),
                Err(_) => {
                    tracing::warn!("The marker did not come back; going on without markers");
                    self.marker = None;
                    return;
                }
            }
        }
    }
}

/// The text of a file, as long as the file's length says afterwards: one that is cut while it is read gives only its
/// start, which may be a valid manifest of another meaning.
fn read_whole(path: &Path) -> Result<String, ReadError> {
    let text = read_text(path)?;
    if usize::try_from(fs::metadata(path)?.len()).is_ok_and(|length| length == text.len()) {
        Ok(text)
    } else {
        Err(ReadError::Io(io::ErrorKind::Interrupted.into()))
    }
}
