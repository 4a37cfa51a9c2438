//! What every watch has delivered, and what the agent has to be told: the part of the source without any I/O.
//!
//! The promises are those of the directory source. An object disappears only because the API says so: a watch that
//! breaks, is refused or starts again changes nothing by itself, and a new list is only the difference to what was
//! known. A pod that moves between the two watches of pods (it is bound to this node) is never gone in between. And a
//! policy is not removed before its namespace's deletion mark is known, as far as anybody can tell: while the watch of
//! namespaces has missed something, removals of policies wait for a list of namespaces that begins behind them
//! (statement 138). That only keeps isolation.

use std::collections::{BTreeMap, HashMap, HashSet};

use ringfence_model::{
    Coverage, NamespacedName, Object, ObjectKey, Policy, PolicyKey, PolicyKind, PortMatch, Ports, Scope, Source,
};
use serde_json::Value;

use super::stream::Stream;
use crate::announce::{Identities, Identity};
use crate::decode::{decode_kind, file_source};
use crate::directory::Update;
use crate::kind::Kind;
use crate::metadata::{identity, source_of};

/// In place of a file's name, for what cannot be named.
const ORIGIN: &str = "the Kubernetes API";

/// One object as a watch knows it.
#[derive(Debug)]
struct Entry {
    /// `metadata.resourceVersion`: what has the same one need not be decoded again.
    version: Option<Box<str>>,
    /// The object that was made of it; `None` where it was rejected from the start.
    key: Option<ObjectKey>,
    /// Whether anything was reported about it.
    reported: bool,
}

/// What one watch knows.
#[derive(Debug, Default)]
struct Known {
    objects: HashMap<NamespacedName, Entry>,
    /// While a list is coming in: what it has held so far.
    listed: Option<HashSet<NamespacedName>>,
}

/// Holds what is known, by watch.
#[derive(Debug)]
pub(super) struct Merge {
    scope: Scope,
    known: BTreeMap<Stream, Known>,
    /// Policies that need more of remote pods than their metadata.
    asking_for_full_pods: HashSet<PolicyKey>,
    /// Which objects the policies are, for Events about them.
    identities: Identities,
    /// The watch of namespaces may have missed something; until a list is complete.
    in_doubt: bool,
    /// Removals of policies that wait, and whether the list of namespaces that is coming in began behind them.
    kept_back: BTreeMap<PolicyKey, (Source, bool)>,
    updates: Vec<Update>,
}

impl Merge {
    pub(super) fn new(scope: Scope, identities: Identities) -> Self {
        Self {
            scope,
            known: Stream::ALL
                .into_iter()
                .map(|stream| (stream, Known::default()))
                .collect(),
            asking_for_full_pods: HashSet::new(),
            identities,
            in_doubt: false,
            kept_back: BTreeMap::new(),
            updates: Vec::new(),
        }
    }

    /// What the agent has to be told since the last call.
    pub(super) fn updates(&mut self) -> Vec<Update> {
        std::mem::take(&mut self.updates)
    }

    /// Number of objects of a watch.
    pub(super) fn count(&self, stream: Stream) -> usize {
        self.known.get(&stream).map_or(0, |known| known.objects.len())
    }

    /// Whether a policy needs to know of remote pods what their metadata does not tell: the named ports of an egress
    /// rule (statement 90), or their addresses on the cluster network, which are in `status.podIPs` where no
    /// annotation repeats them.
    pub(super) fn needs_full_pods(&self) -> bool {
        !self.asking_for_full_pods.is_empty()
    }

    /// A list begins.
    pub(super) fn begin(&mut self, stream: Stream) {
        if stream == Stream::Namespaces {
            self.in_doubt = true;
            for (_, is_behind) in self.kept_back.values_mut() {
                *is_behind = true;
            }
        }
        self.known_mut(stream).listed = Some(HashSet::new());
    }

    /// The watch does not work. When it goes on by itself nobody says so, nor whether it has caught up.
    pub(super) fn doubt(&mut self, stream: Stream) {
        self.in_doubt |= stream == Stream::Namespaces;
    }

    /// Whether policies wait for a list of namespaces, and none is coming in.
    pub(super) fn needs_namespaces(&self) -> bool {
        let is_listing = self
            .known
            .get(&Stream::Namespaces)
            .is_some_and(|it| it.listed.is_some());
        !self.kept_back.is_empty() && !is_listing
    }

    /// Remote pods will come in another form: the same version says something else then.
    pub(super) fn forget_versions(&mut self, stream: Stream) {
        for entry in self.known_mut(stream).objects.values_mut() {
            entry.version = None;
        }
    }

    /// The list is complete: what it did not hold is gone.
    pub(super) fn end(&mut self, stream: Stream, kind: Kind) {
        let known = self.known_mut(stream);
        let Some(listed) = known.listed.take() else { return };
        let mut gone: Vec<NamespacedName> = known
            .objects
            .keys()
            .filter(|name| !listed.contains(*name))
            .cloned()
            .collect();
        gone.sort();
        for name in gone {
            self.forget(stream, kind, &name);
        }
        if stream == Stream::Namespaces {
            let (gone, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.kept_back)
                .into_iter()
                .partition(|(_, (_, is_behind))| *is_behind);
            // Those that came while the list did are not behind it: it may be older than their namespace's mark.
            self.in_doubt = !rest.is_empty();
            self.kept_back = rest;
            for (key, (source, _)) in gone {
                self.policy_gone(key, source);
            }
        }
    }

    /// A new, changed or listed object.
    pub(super) fn apply(&mut self, stream: Stream, kind: Kind, value: &Value) {
        let Some(name) = self.name(kind, value) else { return };
        let version = text(value, "resourceVersion").map(Box::from);
        let known = self.known_mut(stream);
        if let Some(listed) = &mut known.listed {
            listed.insert(name.clone());
        }
        let before = known.objects.get(&name);
        if version.is_some() && before.is_some_and(|before| before.version == version) {
            return;
        }
        let old_key = before.and_then(|before| before.key.clone());
        // Also of one that is rejected as a whole: that is what most needs to be told.
        if let Some(key) = policy_key(kind, &name) {
            self.identities.set(key, identity_of(value));
        }
        let mut decoded = decode_kind(kind, value, ORIGIN);
        if stream == Stream::RemotePods {
            // The agent of the pod's own node says it; a thousand agents that say it too help nobody.
            decoded.diagnostics.clear();
        }
        let reported = !decoded.diagnostics.is_empty();
        let new_key = decoded.object.as_ref().map(Object::key);
        if let (Some(old_key), Some(new_key)) = (&old_key, &new_key)
            && old_key != new_key
        {
            // Deleted and created again under the same name while nobody looked.
            self.gone(stream, kind, &name, old_key.clone());
        }
        if let Some(Object::Policy(policy)) = &decoded.object {
            self.note_policy(policy);
            self.kept_back.remove(&policy.key);
        }
        let entry = Entry {
            version,
            key: new_key.or(old_key),
            reported,
        };
        let hidden = stream == Stream::RemotePods && self.holds(Stream::LocalPods, &name, entry.key.as_ref());
        self.known_mut(stream).objects.insert(name, entry);
        if hidden {
            // Bound to this node meanwhile: the watch of local pods knows more.
            return;
        }
        self.updates.push(if decoded.object.is_some() {
            Update::Apply(decoded)
        } else {
            Update::Report {
                source: decoded.source,
                diagnostics: decoded.diagnostics,
            }
        });
    }

    /// A deleted object.
    pub(super) fn delete(&mut self, stream: Stream, kind: Kind, value: &Value) {
        if let Some(name) = self.name(kind, value) {
            self.forget(stream, kind, &name);
        }
    }

    fn forget(&mut self, stream: Stream, kind: Kind, name: &NamespacedName) {
        let Some(entry) = self.known_mut(stream).objects.remove(name) else {
            return;
        };
        if let Some(key) = policy_key(kind, name) {
            self.identities.remove(&key);
        }
        match entry.key {
            Some(key) => self.gone(stream, kind, name, key),
            None if entry.reported => self.updates.push(Update::Report {
                source: source_of(kind, name),
                diagnostics: Vec::new(),
            }),
            None => {}
        }
    }

    fn gone(&mut self, stream: Stream, kind: Kind, name: &NamespacedName, key: ObjectKey) {
        let other = match stream {
            Stream::LocalPods => Some(Stream::RemotePods),
            Stream::RemotePods => Some(Stream::LocalPods),
            _ => None,
        };
        if other.is_some_and(|other| self.holds(other, name, Some(&key))) {
            return;
        }
        let source = source_of(kind, name);
        match key {
            ObjectKey::Policy(key) if self.in_doubt => drop(self.kept_back.insert(key, (source, false))),
            ObjectKey::Policy(key) => self.policy_gone(key, source),
            key => self.updates.push(Update::Gone { key, source }),
        }
    }

    fn policy_gone(&mut self, key: PolicyKey, source: Source) {
        self.asking_for_full_pods.remove(&key);
        let key = ObjectKey::Policy(key);
        self.updates.push(Update::Gone { key, source });
    }

    fn holds(&self, stream: Stream, name: &NamespacedName, key: Option<&ObjectKey>) -> bool {
        let entry = self.known.get(&stream).and_then(|known| known.objects.get(name));
        entry.is_some_and(|entry| entry.key.is_some() && entry.key.as_ref() == key)
    }

    fn note_policy(&mut self, policy: &Policy) {
        if asks_for_full_pods(policy, self.scope) {
            self.asking_for_full_pods.insert(policy.key.clone());
        } else {
            self.asking_for_full_pods.remove(&policy.key);
        }
    }

    /// Who an object is. One that nobody can name is reported and cannot be followed.
    fn name(&mut self, kind: Kind, value: &Value) -> Option<NamespacedName> {
        let name = value
            .as_object()
            .ok_or_else(|| "it is no object".to_owned())
            .and_then(|fields| identity(kind, fields));
        if name.is_err() {
            let decoded = decode_kind(kind, value, ORIGIN);
            self.updates.push(Update::Report {
                source: file_source(ORIGIN),
                diagnostics: decoded.diagnostics,
            });
        }
        name.ok()
    }

    fn known_mut(&mut self, stream: Stream) -> &mut Known {
        self.known.entry(stream).or_default()
    }
}

fn policy_key(kind: Kind, name: &NamespacedName) -> Option<PolicyKey> {
    let kind = match kind {
        Kind::NetworkPolicy => PolicyKind::NetworkPolicy,
        Kind::MultiNetworkPolicy => PolicyKind::MultiNetworkPolicy,
        Kind::Namespace | Kind::Pod | Kind::NetworkAttachmentDefinition => return None,
    };
    let name = name.clone();
    Some(PolicyKey { kind, name })
}

fn identity_of(value: &Value) -> Identity {
    Identity {
        uid: text(value, "uid").unwrap_or_default().into(),
        generation: value
            .pointer("/metadata/generation")
            .and_then(Value::as_i64)
            .unwrap_or_default(),
    }
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get("metadata")?.get(field)?.as_str()
}

fn asks_for_full_pods(policy: &Policy, scope: Scope) -> bool {
    let named = |ports: &Ports| match ports {
        Ports::All => false,
        Ports::OneOf(ports) => ports.iter().any(|port| matches!(port, PortMatch::Named { .. })),
    };
    let named_egress = policy.egress.iter().flatten().any(|rule| named(&rule.ports));
    let on_the_cluster_network = match &policy.coverage {
        Coverage::Networks(networks) => networks.contains(&ringfence_model::NetworkName::Default),
        Coverage::Scope => policy.key.kind != PolicyKind::MultiNetworkPolicy && scope == Scope::All,
    };
    named_egress || on_the_cluster_network
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
