//! The peer selectors that some local table uses, and which pods they select.
//!
//! A pod event finds the selectors that select the pod without looking at all of them: its namespace knows the
//! namespace conditions that hold there, and each of those keeps its selectors by one required label.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ringfence_model::{Labels, Requirement, Selector};
use smallvec::SmallVec;

use super::objects::{NamespaceId, NamespaceRecord, Objects, PeerId};
use super::peer_tables::PeerTableId;
use super::slab::{Id, Slab};
use crate::plan::{NamespacePart, PeerSelector};

/// A selector in use.
pub(super) struct SelectorState {
    pub(super) key: PeerSelector,
    part: PartId,
    /// The pods that it selects.
    pub(super) members: HashSet<PeerId>,
    /// The tables that use it; never empty for long.
    pub(super) tables: Vec<PeerTableId>,
}

pub(super) type SelectorId = Id<SelectorState>;

/// The namespace condition of one or more selectors in use.
pub(super) struct PartState {
    key: NamespacePart,
    /// Where it holds.
    namespaces: HashSet<NamespaceId>,
    /// Selectors that require a label, by its key and each of the values allowed.
    by_label: HashMap<Arc<str>, HashMap<Arc<str>, Vec<SelectorId>>>,
    /// Selectors that require none.
    others: Vec<SelectorId>,
    selectors: usize,
}

pub(super) type PartId = Id<PartState>;

/// See the module.
#[derive(Default)]
pub(super) struct Selectors {
    states: Slab<SelectorState>,
    by_key: HashMap<PeerSelector, SelectorId>,
    parts: Slab<PartState>,
    parts_by_key: HashMap<NamespacePart, PartId>,
}

/// Whether a condition holds for a namespace. Of a namespace that is known by its pods only, nothing but the name is
/// known: what depends on its other labels does not hold, so that a namespace whose object arrives late is never taken
/// for one without labels.
fn holds(part: &NamespacePart, namespace: &NamespaceRecord) -> bool {
    match (part, &namespace.object) {
        (NamespacePart::Named(name), _) => *name == namespace.name,
        (NamespacePart::Matching(selector), Some(object)) => selector.matches(&object.labels),
        (NamespacePart::Matching(selector), None) => {
            let known: Labels = [(NAME_LABEL, namespace.name.clone())].into_iter().collect();
            let is_known = |requirement: &Requirement| requirement_key(requirement) == NAME_LABEL;
            selector.requirements().iter().all(is_known) && selector.matches(&known)
        }
    }
}

/// The label that every namespace has (statement 46).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn requirement_key(requirement: &Requirement) -> &str {
    match requirement {
        Requirement::In { key, .. }
        | Requirement::NotIn { key, .. }
        | Requirement::Exists(key)
        | Requirement::DoesNotExist(key) => key,
    }
}

/// The label by which a selector is filed: of the equality requirements, the one with the fewest values.
fn filing_label(selector: &Selector) -> Option<(&Arc<str>, &[Arc<str>])> {
    let requirements = selector
        .requirements()
        .iter()
        .filter_map(|requirement| match requirement {
            Requirement::In { key, values } => Some((key, values.as_slice())),
            _ => None,
        });
    requirements.min_by_key(|(_, values)| values.len())
}

impl Selectors {
    pub(super) fn get(&self, id: SelectorId) -> Option<&SelectorState> {
        self.states.get(id)
    }

    /// The selectors in use that select a pod, sorted.
    pub(super) fn matching(&self, namespace: &NamespaceRecord, labels: &Labels) -> SmallVec<[SelectorId; 4]> {
        let mut matched = SmallVec::new();
        for part in namespace.parts.iter().filter_map(|part| self.parts.get(*part)) {
            let mut consider = |candidates: &[SelectorId]| {
                matched.extend(
                    candidates
                        .iter()
                        .copied()
                        .filter(|id| self.states.get(*id).is_some_and(|state| state.key.pods.matches(labels))),
                );
            };
            consider(&part.others);
            if !part.by_label.is_empty() {
                for (key, value) in labels.iter() {
                    if let Some(candidates) = part.by_label.get(key).and_then(|by_value| by_value.get(value)) {
                        consider(candidates);
                    }
                }
            }
        }
        matched.sort_unstable();
        matched
    }

    /// The namespace conditions in use that hold for a namespace, sorted.
    pub(super) fn parts_of(&self, namespace: &NamespaceRecord) -> Vec<PartId> {
        self.parts
            .iter()
            .filter(|(_, part)| holds(&part.key, namespace))
            .map(|(id, _)| id)
            .collect()
    }

    /// Tells the conditions that a namespace has come, has changed or is going: `parts` are those that hold now.
    pub(super) fn set_parts(&mut self, id: NamespaceId, before: &[PartId], parts: &[PartId]) {
        for part in before {
            if let Some(part) = self.parts.get_mut(*part) {
                part.namespaces.remove(&id);
            }
        }
        for part in parts {
            if let Some(part) = self.parts.get_mut(*part) {
                part.namespaces.insert(id);
            }
        }
    }

    /// Adds or removes a pod of a selector.
    pub(super) fn set_member(&mut self, selector: SelectorId, pod: PeerId, member: bool) {
        if let Some(state) = self.states.get_mut(selector) {
            if member {
                state.members.insert(pod);
            } else {
                state.members.remove(&pod);
            }
        }
    }

    /// The selector for a table that begins to use it. A new one looks once at every pod of the namespaces where it
    /// holds.
    pub(super) fn subscribe(&mut self, key: &PeerSelector, table: PeerTableId, objects: &mut Objects) -> SelectorId {
        let id = match self.by_key.get(key) {
            Some(id) => *id,
            None => self.create(key, objects),
        };
        if let Some(state) = self.states.get_mut(id) {
            state.tables.push(table);
        }
        id
    }

    /// Ends a table's use; the last one's end is the selector's.
    pub(super) fn unsubscribe(&mut self, id: SelectorId, table: PeerTableId, objects: &mut Objects) {
        let Some(state) = self.states.get_mut(id) else { return };
        state.tables.retain(|user| *user != table);
        if !state.tables.is_empty() {
            return;
        }
        let Some(state) = self.states.remove(id) else { return };
        self.by_key.remove(&state.key);
        for pod in &state.members {
            if let Some(record) = objects.peers.get_mut(*pod) {
                record.matched.retain(|matched| *matched != id);
            }
        }
        self.unfile(id, &state, objects);
    }

    fn create(&mut self, key: &PeerSelector, objects: &mut Objects) -> SelectorId {
        let part = match self.parts_by_key.get(&key.namespaces) {
            Some(part) => *part,
            None => self.create_part(&key.namespaces, objects),
        };
        let id = self.states.insert(SelectorState {
            key: key.clone(),
            part,
            members: HashSet::new(),
            tables: Vec::new(),
        });
        self.by_key.insert(key.clone(), id);
        let Some(part) = self.parts.get_mut(part) else {
            return id;
        };
        part.selectors += 1;
        match filing_label(&key.pods) {
            Some((label, values)) => {
                let by_value = part.by_label.entry(label.clone()).or_default();
                for value in values {
                    by_value.entry(value.clone()).or_default().push(id);
                }
            }
            None => part.others.push(id),
        }
        let mut members = HashSet::new();
        for namespace in &part.namespaces {
            let Some(namespace) = objects.namespaces.get(*namespace) else {
                continue;
            };
            for pod in &namespace.pods {
                if let Some(record) = objects.peers.get_mut(*pod)
                    && key.pods.matches(&record.labels)
                {
                    members.insert(*pod);
                    if let Err(position) = record.matched.binary_search(&id) {
                        record.matched.insert(position, id);
                    }
                }
            }
        }
        if let Some(state) = self.states.get_mut(id) {
            state.members = members;
        }
        id
    }

    fn create_part(&mut self, key: &NamespacePart, objects: &mut Objects) -> PartId {
        let namespaces: HashSet<NamespaceId> = objects
            .namespaces
            .iter()
            .filter(|(_, record)| holds(key, record))
            .map(|(id, _)| id)
            .collect();
        let id = self.parts.insert(PartState {
            key: key.clone(),
            namespaces: namespaces.clone(),
            by_label: HashMap::new(),
            others: Vec::new(),
            selectors: 0,
        });
        self.parts_by_key.insert(key.clone(), id);
        for namespace in namespaces {
            if let Some(record) = objects.namespaces.get_mut(namespace) {
                record.parts.push(id);
                record.parts.sort_unstable();
            }
        }
        id
    }

    fn unfile(&mut self, id: SelectorId, state: &SelectorState, objects: &mut Objects) {
        let Some(part) = self.parts.get_mut(state.part) else {
            return;
        };
        part.others.retain(|other| *other != id);
        if let Some((label, values)) = filing_label(&state.key.pods)
            && let Some(by_value) = part.by_label.get_mut(label)
        {
            for value in values {
                if let Some(filed) = by_value.get_mut(value) {
                    filed.retain(|other| *other != id);
                    if filed.is_empty() {
                        by_value.remove(value);
                    }
                }
            }
            if by_value.is_empty() {
                part.by_label.remove(label);
            }
        }
        part.selectors -= 1;
        if part.selectors == 0
            && let Some(part_state) = self.parts.remove(state.part)
        {
            self.parts_by_key.remove(&part_state.key);
            for namespace in part_state.namespaces {
                if let Some(record) = objects.namespaces.get_mut(namespace) {
                    record.parts.retain(|part| *part != state.part);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.parts_by_key.is_empty()
    }
}
