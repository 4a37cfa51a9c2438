//! The API as the agent sees it: one stream for each kind, which may lag, break, and begin anew with a list.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringfence_kube::Decoded;
use ringfence_kube::directory::Update;
use ringfence_model::{Object, ObjectKey, Source as Origin};

use crate::cluster::Edit;
use crate::dice::Dice;

/// The kinds, each with a stream of its own.
const KINDS: usize = 4;

fn kind(key: &ObjectKey) -> usize {
    match key {
        ObjectKey::Namespace(_) => 0,
        ObjectKey::Pod(_) => 1,
        ObjectKey::Policy(_) => 2,
        ObjectKey::Network(_) => 3,
    }
}

/// The source of one agent process.
pub struct Source {
    /// What it has sent.
    sent: BTreeMap<ObjectKey, Object>,
    /// What is still to be listed, before everything has been sent once.
    listing: Option<Vec<ObjectKey>>,
    /// What has happened since then, in the order of each stream; `None` where the stream is broken.
    streams: [Option<VecDeque<Edit>>; KINDS],
    /// What cannot be read.
    unread: BTreeSet<ObjectKey>,
    /// Batches that the agent has not taken yet.
    pub queue: VecDeque<Vec<Update>>,
}

fn origin(key: &ObjectKey) -> Origin {
    Origin {
        kind: "Object".into(),
        name: format!("{key:?}").into(),
    }
}

fn update(key: &ObjectKey, object: Option<&Object>) -> Update {
    match object {
        Some(object) => Update::Apply(Decoded {
            source: origin(key),
            object: Some(object.clone()),
            diagnostics: Vec::new(),
        }),
        None => Update::Gone {
            key: key.clone(),
            source: origin(key),
        },
    }
}

impl Source {
    pub fn new(objects: &BTreeMap<ObjectKey, Object>, dice: &mut Dice) -> Self {
        let mut source = Self {
            sent: BTreeMap::new(),
            listing: Some(Vec::new()),
            streams: std::array::from_fn(|_| Some(VecDeque::new())),
            unread: BTreeSet::new(),
            queue: VecDeque::new(),
        };
        if dice.chance(250) {
            let policies = objects.keys().filter(|key| matches!(key, ObjectKey::Policy(_)));
            source.unread = policies.filter(|_| dice.chance(500)).cloned().collect();
        }
        let mut keys: Vec<ObjectKey> = objects
            .keys()
            .filter(|key| !source.unread.contains(*key))
            .cloned()
            .collect();
        shuffle(&mut keys, dice);
        source.listing = Some(keys);
        source
    }

    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Something has changed.
    pub fn hear(&mut self, edits: &[Edit]) {
        for (key, object) in edits {
            if self.unread.contains(key) {
                continue;
            }
            if let Some(listing) = &mut self.listing
                && !listing.contains(key)
            {
                listing.push(key.clone());
                continue;
            }
            if self.listing.is_none()
                && let Some(stream) = &mut self.streams[kind(key)]
            {
                stream.push_back((key.clone(), object.clone()));
            }
        }
    }

    /// The next thing that the source does; `false` where there is nothing to do.
    pub fn step(&mut self, objects: &BTreeMap<ObjectKey, Object>, dice: &mut Dice) -> bool {
        if let Some(listing) = &mut self.listing {
            let count = (1 + dice.below(8)).min(listing.len());
            let mut batch: Vec<Update> = Vec::new();
            for key in listing.drain(..count) {
                match objects.get(&key) {
                    Some(object) => {
                        batch.push(update(&key, Some(object)));
                        self.sent.insert(key, object.clone());
                    }
                    None if self.sent.remove(&key).is_some() => batch.push(update(&key, None)),
                    None => {}
                }
            }
            if listing.is_empty() {
                self.listing = None;
                batch.push(Update::Synced { unread: self.listed() });
            }
            self.queue.push_back(batch);
            return true;
        }
        let busy = |stream: &Option<VecDeque<Edit>>| stream.as_ref().is_none_or(|stream| !stream.is_empty());
        let ready: Vec<usize> = (0..KINDS).filter(|kind| busy(&self.streams[*kind])).collect();
        if ready.is_empty() {
            return false;
        }
        let chosen = *dice.pick(&ready);
        match &mut self.streams[chosen] {
            None => self.relist(chosen, objects, dice),
            Some(stream) => {
                let mut batch = Vec::new();
                for _ in 0..(1 + dice.below(3)).min(stream.len()) {
                    // Of two objects the second may come first, but never two states of one.
                    let swap = stream.len() > 1 && stream[0].0 != stream[1].0 && dice.chance(200);
                    let (key, object) = stream.remove(usize::from(swap)).expect("it is there");
                    if object.is_none() && !self.sent.contains_key(&key) {
                        continue;
                    }
                    batch.push(update(&key, object.as_ref()));
                    match object {
                        Some(object) => self.sent.insert(key, object),
                        None => self.sent.remove(&key),
                    };
                }
                self.queue.push_back(batch);
            }
        }
        true
    }

    /// A stream breaks: what it held is lost.
    pub fn fail(&mut self, dice: &mut Dice) {
        if self.listing.is_none() {
            self.streams[dice.below(KINDS)] = None;
        }
    }

    /// A new list: the difference to what was known, in any order, sometimes with what is known.
    fn relist(&mut self, chosen: usize, objects: &BTreeMap<ObjectKey, Object>, dice: &mut Dice) {
        let known: BTreeSet<ObjectKey> = self.sent.keys().chain(objects.keys()).cloned().collect();
        let mut keys: Vec<ObjectKey> = known.into_iter().filter(|key| kind(key) == chosen).collect();
        keys.retain(|key| !self.unread.contains(key));
        keys.retain(|key| self.sent.get(key) != objects.get(key) || (objects.contains_key(key) && dice.chance(100)));
        shuffle(&mut keys, dice);
        let batch = keys.iter().map(|key| update(key, objects.get(key))).collect();
        for key in keys {
            match objects.get(&key) {
                Some(object) => self.sent.insert(key, object.clone()),
                None => self.sent.remove(&key),
            };
        }
        self.streams[chosen] = Some(VecDeque::new());
        self.queue.push_back(batch);
    }

    /// Something can be read that could not.
    pub fn mend(&mut self, objects: &BTreeMap<ObjectKey, Object>) {
        if self.listing.is_some() {
            return;
        }
        let Some(key) = self.unread.pop_first() else {
            return;
        };
        let mut batch = Vec::new();
        if let Some(object) = objects.get(&key) {
            batch.push(update(&key, Some(object)));
            self.sent.insert(key, object.clone());
        }
        batch.push(Update::Unread(self.listed()));
        self.queue.push_back(batch);
    }

    fn listed(&self) -> Vec<Origin> {
        self.unread.iter().map(origin).collect()
    }
}

fn shuffle<T>(items: &mut [T], dice: &mut Dice) {
    for end in (1..items.len()).rev() {
        items.swap(end, dice.below(end + 1));
    }
}
