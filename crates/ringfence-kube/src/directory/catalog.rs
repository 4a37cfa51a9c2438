//! What every file holds, what has been told of it, and the difference: the part of the source without any I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ringfence_model::{Consequence, Diagnostic, ObjectKey, Reason, Severity, Source};

use super::Update;
use crate::decode::{Decoded, Outcome, file_source};
use crate::document::Document;
use crate::kind::Kind;

/// Where an entry stands: the file and its position there. Their order decides between duplicates.
type Place = (PathBuf, usize);

/// One manifest of a file.
#[derive(Debug, Clone)]
struct Entry {
    /// The number of its document, from 0.
    document: usize,
    decoded: Decoded,
}

/// Holds all files with their manifests.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    files: BTreeMap<PathBuf, Vec<Entry>>,
    by_source: BTreeMap<Source, BTreeSet<Place>>,
    /// Which sources have an object of this key. More than one: two pods with one uid.
    by_key: BTreeMap<ObjectKey, BTreeSet<Source>>,
    /// What the receiver knows.
    sent: BTreeMap<Source, Decoded>,
    /// Sources whose places have changed since the last [`Catalog::updates`].
    touched: BTreeSet<Source>,
    /// Files with something in them that has never been read, and what that is.
    unread: BTreeMap<PathBuf, BTreeSet<Source>>,
}

impl Catalog {
    /// A file has been read. Documents that are broken or rejected keep the last good object that they had.
    pub(crate) fn replace(&mut self, path: &Path, documents: Vec<Document>) {
        let old = self.take(path);
        let (entries, failed) = keep_last(old, documents);
        self.note_unread(path, failed);
        self.put(path, entries);
    }

    /// What a file holds is not known yet; the next text tells, or its removal.
    pub(crate) fn await_first(&mut self, path: &Path) {
        if !self.knows(path) {
            let file = file_source(&path.to_string_lossy());
            self.unread.insert(path.to_owned(), BTreeSet::from([file]));
        }
    }

    /// What has never been read, sorted: files, and manifests where they can be named. What has been read once is not
    /// among it, however broken it is now: its last good state is known.
    pub(crate) fn unread(&self) -> Vec<Source> {
        let sources: BTreeSet<&Source> = self.unread.values().flatten().collect();
        sources.into_iter().cloned().collect()
    }

    /// A file stays unread until nothing in it fails any more: which of its documents the broken one is, nobody can
    /// say for certain.
    fn note_unread(&mut self, path: &Path, failed: Failed) {
        if failed.sources.is_empty() {
            self.unread.remove(path);
        } else if failed.for_the_first_time || self.unread.contains_key(path) {
            self.unread.insert(path.to_owned(), failed.sources);
        }
    }

    /// A file cannot be read: its objects stay.
    pub(crate) fn keep(&mut self, path: &Path, reason: Reason, message: String) {
        let mut entries = self.take(path);
        entries.retain(|entry| entry.decoded.object.is_some());
        let consequence = if entries.is_empty() {
            Consequence::ObjectIgnored
        } else {
            Consequence::KeepsLast
        };
        let failed = Failed {
            sources: BTreeSet::from([file_source(&path.to_string_lossy())]),
            for_the_first_time: entries.is_empty(),
        };
        self.note_unread(path, failed);
        entries.push(remark(path, reason, consequence, message));
        self.put(path, entries);
    }

    /// Says something about the watched path as a whole, in place of what was said in this slot before. The slot is a
    /// path that no manifest can have.
    pub(crate) fn remark(&mut self, slot: &Path, about: &Path, message: String) {
        self.take(slot);
        self.put(
            slot,
            vec![remark(about, Reason::Unreadable, Consequence::KeepsLast, message)],
        );
    }

    /// A file is no longer there, and its objects are meant to go.
    pub(crate) fn remove(&mut self, path: &Path) {
        self.unread.remove(path);
        self.take(path);
    }

    /// The files that are known, or of which something is still to be read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let awaited = self.unread.keys().filter(|path| !self.files.contains_key(*path));
        self.files.keys().chain(awaited)
    }

    /// Whether anything is known of a file.
    pub(crate) fn knows(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// Whether an object would be gone if the file held these documents instead of what it holds. What has never been
    /// read may be any object, and holds pods closed as long as it stands there.
    pub(crate) fn would_lose(&self, path: &Path, documents: &[Document]) -> bool {
        let mut items = documents.iter().flat_map(|document| &document.items);
        if self.unread.contains_key(path) && !items.any(|item| hides_something(&item.decoded.source, item.outcome)) {
            return true;
        }
        let good: BTreeSet<&Source> = documents
            .iter()
            .flat_map(|document| &document.items)
            .filter(|item| item.outcome == Outcome::Good)
            .map(|item| &item.decoded.source)
            .collect();
        self.files.get(path).into_iter().flatten().any(|entry| {
            let source = &entry.decoded.source;
            let elsewhere = || {
                self.placed(source)
                    .any(|((other, _), entry)| other != path && entry.decoded.object.is_some())
            };
            entry.decoded.object.is_some() && !good.contains(source) && !elsewhere()
        })
    }

    fn take(&mut self, path: &Path) -> Vec<Entry> {
        let entries = self.files.remove(path).unwrap_or_default();
        for (position, entry) in entries.iter().enumerate() {
            let source = &entry.decoded.source;
            if let Some(places) = self.by_source.get_mut(source) {
                places.remove(&(path.to_owned(), position));
                if places.is_empty() {
                    self.by_source.remove(source);
                }
            }
            self.touched.insert(source.clone());
        }
        // Keys second, when all places of the file are gone: a source may have the key from another file as well.
        for key in entries
            .iter()
            .filter_map(|entry| entry.decoded.object.as_ref())
            .map(ringfence_model::Object::key)
        {
            self.touch_all_with(&key);
            let still: BTreeSet<Source> = self
                .by_key
                .remove(&key)
                .unwrap_or_default()
                .into_iter()
                .filter(|source| {
                    self.entries_of(source)
                        .any(|entry| key_of(&entry.decoded).as_ref() == Some(&key))
                })
                .collect();
            if !still.is_empty() {
                self.by_key.insert(key, still);
            }
        }
        entries
    }

    fn put(&mut self, path: &Path, entries: Vec<Entry>) {
        for (position, entry) in entries.iter().enumerate() {
            let source = &entry.decoded.source;
            self.by_source
                .entry(source.clone())
                .or_default()
                .insert((path.to_owned(), position));
            self.touched.insert(source.clone());
            if let Some(key) = key_of(&entry.decoded) {
                self.by_key.entry(key.clone()).or_default().insert(source.clone());
                self.touch_all_with(&key);
            }
        }
        if !entries.is_empty() {
            self.files.insert(path.to_owned(), entries);
        }
    }

    fn touch_all_with(&mut self, key: &ObjectKey) {
        if let Some(sources) = self.by_key.get(key) {
            self.touched.extend(sources.iter().cloned());
        }
    }

    fn entries_of(&self, source: &Source) -> impl Iterator<Item = &Entry> {
        self.placed(source).map(|(_, entry)| entry)
    }

    fn placed(&self, source: &Source) -> impl Iterator<Item = (&Place, &Entry)> {
        self.by_source
            .get(source)
            .into_iter()
            .flatten()
            .filter_map(|place| self.files.get(&place.0)?.get(place.1).map(|entry| (place, entry)))
    }

    /// What holds of a source now.
    fn evaluate(&self, source: &Source) -> Option<Decoded> {
        let mut with_object = self.placed(source).filter(|(_, entry)| entry.decoded.object.is_some());
        let first = with_object.next();
        let mut rest = self.entries_of(source).filter(|entry| entry.decoded.object.is_none());
        let Some(((path, _), winner)) = first else {
            let mut decoded = rest.next()?.decoded.clone();
            decoded
                .diagnostics
                .extend(rest.flat_map(|entry| entry.decoded.diagnostics.iter().cloned()));
            return Some(decoded);
        };
        let mut decoded = winner.decoded.clone();
        decoded
            .diagnostics
            .extend(rest.flat_map(|entry| entry.decoded.diagnostics.iter().cloned()));
        for ((other, _), _) in with_object {
            let message = if other == path {
                format!("the manifest is twice in {}; the first one counts", path.display())
            } else {
                format!(
                    "the manifest is in {} and in {}; the first one counts",
                    path.display(),
                    other.display()
                )
            };
            decoded.diagnostics.push(diagnostic(
                source,
                Reason::Duplicate,
                Consequence::ObjectIgnored,
                message,
            ));
        }
        let key = key_of(&decoded)?;
        match self.by_key.get(&key).and_then(BTreeSet::first) {
            Some(first) if first != source => {
                // Two pods with one uid: a copied manifest.
                let message = format!("{first} has the same uid and counts; give each pod its own, or none");
                decoded.object = None;
                decoded.diagnostics.push(diagnostic(
                    source,
                    Reason::Duplicate,
                    Consequence::ObjectIgnored,
                    message,
                ));
            }
            _ => {}
        }
        Some(decoded)
    }

    /// What the receiver has to be told since the last call: removals first.
    pub(crate) fn updates(&mut self) -> Vec<Update> {
        let mut gone = Vec::new();
        let mut changed = Vec::new();
        let mut applied = BTreeSet::new();
        for source in std::mem::take(&mut self.touched) {
            let now = self.evaluate(&source);
            let before = self.sent.get(&source);
            if now.as_ref() == before {
                continue;
            }
            let old_key = before.and_then(key_of);
            let key = now.as_ref().and_then(key_of);
            if let Some(old_key) = old_key.filter(|old| Some(old) != key.as_ref()) {
                gone.push((old_key, source.clone()));
            }
            applied.extend(key);
            if let Some(decoded) = now {
                self.sent.insert(source.clone(), decoded.clone());
                changed.push(if decoded.object.is_some() {
                    Update::Apply(decoded)
                } else {
                    Update::Report {
                        source,
                        diagnostics: decoded.diagnostics,
                    }
                });
            } else if self.sent.remove(&source).is_some_and(|before| before.object.is_none()) {
                changed.push(Update::Report {
                    source,
                    diagnostics: Vec::new(),
                });
            }
        }
        let mut updates = Vec::with_capacity(gone.len() + changed.len());
        for (key, source) in gone {
            // The key lives on under another name; only the old name's diagnostics end.
            if applied.contains(&key) {
                let renamed = changed.iter().any(|update| match update {
                    Update::Apply(decoded) => decoded.source == source,
                    Update::Report { source: other, .. } => *other == source,
                    Update::Gone { .. } | Update::Synced { .. } | Update::Unread(_) => false,
                });
                if !renamed {
                    updates.push(Update::Report {
                        source,
                        diagnostics: Vec::new(),
                    });
                }
            } else {
                updates.push(Update::Gone { key, source });
            }
        }
        updates.append(&mut changed);
        updates
    }

    /// Everything that holds, in the order of files and positions, each with the file in which it stands first.
    pub(crate) fn in_order_of_files(&self) -> impl Iterator<Item = (&Path, Decoded)> {
        let mut seen = BTreeSet::new();
        let places = self
            .files
            .iter()
            .flat_map(|(path, entries)| entries.iter().map(move |entry| (path, entry)));
        places.filter_map(move |(path, entry)| {
            let source = &entry.decoded.source;
            let first = seen.insert(source);
            first
                .then(|| self.evaluate(source))
                .flatten()
                .map(|decoded| (path.as_path(), decoded))
        })
    }
}

fn key_of(decoded: &Decoded) -> Option<ObjectKey> {
    decoded.object.as_ref().map(ringfence_model::Object::key)
}

fn diagnostic(source: &Source, reason: Reason, consequence: Consequence, message: String) -> Diagnostic {
    let severity = if reason == Reason::Duplicate {
        Severity::Warning
    } else {
        Severity::Error
    };
    Diagnostic {
        source: source.clone(),
        path: String::new(),
        severity,
        reason,
        message,
        consequence,
    }
}

fn remark(path: &Path, reason: Reason, consequence: Consequence, message: String) -> Entry {
    let source = file_source(&path.to_string_lossy());
    let diagnostics = vec![diagnostic(&source, reason, consequence, message)];
    Entry {
        document: usize::MAX,
        decoded: Decoded {
            source,
            object: None,
            diagnostics,
        },
    }
}

/// What of a file's text cannot be read.
#[derive(Default)]
struct Failed {
    sources: BTreeSet<Source>,
    /// Of one of them at least, nothing has been read before.
    for_the_first_time: bool,
}

/// The entries of a file's new text, with the last good objects in place of what cannot be read now, and what that is.
fn keep_last(old: Vec<Entry>, documents: Vec<Document>) -> (Vec<Entry>, Failed) {
    let mut old: Vec<Entry> = old.into_iter().filter(|entry| entry.decoded.object.is_some()).collect();
    let old_documents = old.iter().map(|entry| entry.document + 1).max().unwrap_or(0);
    let new_documents = documents.len();
    let good: BTreeSet<Source> = documents
        .iter()
        .flat_map(|document| &document.items)
        .filter(|item| item.outcome == Outcome::Good)
        .map(|item| item.decoded.source.clone())
        .collect();
    old.retain(|entry| !good.contains(&entry.decoded.source));
    let mut entries = Vec::new();
    let mut failed = Failed::default();
    for (number, document) in documents.into_iter().enumerate() {
        for item in document.items {
            let mut decoded = item.decoded;
            let kept: Vec<Entry> = match item.outcome {
                Outcome::Good | Outcome::Foreign => Vec::new(),
                Outcome::Rejected => take_if(&mut old, |entry| entry.decoded.source == decoded.source),
                Outcome::Unidentified => {
                    let guess = document.guess.as_ref();
                    let names = |entry: &Entry| guess.is_some_and(|guess| guess.names(&entry.decoded.source));
                    let guessed = take_if(&mut old, names);
                    if !guessed.is_empty() {
                        guessed
                    } else if old_documents == new_documents {
                        take_if(&mut old, |entry| entry.document == number)
                    } else {
                        // Any of the missing ones may be the broken one, and to drop a policy by mistake opens pods.
                        std::mem::take(&mut old)
                    }
                }
            };
            if hides_something(&decoded.source, item.outcome) {
                failed.sources.insert(decoded.source.clone());
                failed.for_the_first_time |= kept.is_empty();
            }
            if !kept.is_empty() {
                for diagnostic in &mut decoded.diagnostics {
                    diagnostic.consequence = Consequence::KeepsLast;
                }
            }
            if item.outcome == Outcome::Rejected {
                decoded.object = kept.into_iter().next().and_then(|last| last.decoded.object);
                entries.push(Entry {
                    document: number,
                    decoded,
                });
            } else {
                entries.push(Entry {
                    document: number,
                    decoded,
                });
                entries.extend(kept.into_iter().map(|last| Entry {
                    document: number,
                    ..last
                }));
            }
        }
    }
    (entries, failed)
}

/// Whether somebody who knew this manifest would know more about who is isolated. A pod that is rejected isolates
/// nobody and keeps its own rules, because nobody looks for it.
fn hides_something(source: &Source, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Good | Outcome::Foreign => false,
        Outcome::Rejected => *source.kind != *Kind::Pod.as_str(),
        Outcome::Unidentified => true,
    }
}

fn take_if(entries: &mut Vec<Entry>, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    let (taken, left) = std::mem::take(entries).into_iter().partition(wanted);
    *entries = left;
    taken
}

#[cfg(test)]
mod tests;
