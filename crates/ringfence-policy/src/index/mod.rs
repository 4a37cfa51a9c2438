//! Objects in, dirty local pods out.
//!
//! ```text
//! object ──► peers, namespaces, claims ──► selectors ──► tables of peers ─┐ elements
//!        └─► policies, local pods ───────► plan, compile ─────────────────┴─► ruleset of each local pod
//! ```
//!
//! Events only record: which local pods must be compiled anew (a policy, the pod itself, its namespace or its network
//! namespace changed) and which addresses of which tables must be looked at again (a peer changed). [`Index::commit`]
//! does both once for a whole batch. Each is a function of the objects as they are then, so order, repetition and
//! splitting of events make no difference, with one exception that statement 138 asks for: a policy that is removed
//! while its namespace is being deleted stays in force as long as a local pod is left there.

mod claims;
mod interner;
mod local;
mod networks;
mod objects;
mod outline;
mod peer_tables;
mod peers;
mod selectors;
mod slab;
mod slice;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{
    NamespacedName, Network, NetworkName, Object, ObjectKey, Pod, PodUid, Policy, PolicyKey, PolicyKind,
};
use ringfence_ruleset::Ruleset;

use self::claims::Claims;
use self::interner::Interner;
use self::local::{LocalPod, uses_dhcp};
use self::networks::NetworkIds;
use self::objects::Objects;
use self::peer_tables::{PeerTableId, PeerTables, World};
use self::selectors::Selectors;
pub use self::slice::Slice;
pub use self::view::{AttachmentView, Conflict, NetworkView, PodView, PolicyView};
use crate::{Options, TargetFacts};

/// Holds the current objects and the rulesets that follow from them.
///
/// What is asked for between two commits is what the last one left, except for [`Self::networks`] and
/// [`Self::conflicts`], which are counted when they are asked for.
pub struct Index {
    options: Options,
    interner: Interner,
    objects: Objects,
    networks: NetworkIds,
    claims: Claims,
    selectors: Selectors,
    tables: PeerTables,
    definitions: BTreeMap<NamespacedName, Network>,
    policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Policies that were removed while their namespace was being deleted (statement 138, CVE-2024-7598). They go with
    /// the last local pod of the namespace and not with its object, whose end another watch may bring first, or when a
    /// namespace of that name is there that is not being deleted.
    retained: BTreeSet<PolicyKey>,
    locals: BTreeMap<PodUid, LocalPod>,
    locals_by_namespace: BTreeMap<Arc<str>, BTreeSet<PodUid>>,
    facts: BTreeMap<PodUid, TargetFacts>,
    /// Local pods to compile anew.
    rebuild: BTreeSet<PodUid>,
    /// Addresses to look at again. A handle that was given out anew meanwhile costs a look and changes nothing.
    stale: HashSet<(PeerTableId, IpAddr)>,
}

impl Index {
    /// Without any object.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            interner: Interner::default(),
            objects: Objects::default(),
            networks: NetworkIds::default(),
            claims: Claims::default(),
            selectors: Selectors::default(),
            tables: PeerTables::default(),
            definitions: BTreeMap::new(),
            policies: BTreeMap::new(),
            retained: BTreeSet::new(),
            locals: BTreeMap::new(),
            locals_by_namespace: BTreeMap::new(),
            facts: BTreeMap::new(),
            rebuild: BTreeSet::new(),
            stale: HashSet::new(),
        }
    }

    /// Adds an object or replaces the one with its key.
    pub fn apply(&mut self, object: Object) {
        match object {
            Object::Namespace(namespace) => {
                let isolated_before = self
                    .objects
                    .namespace(&namespace.name)
                    .is_some_and(|it| it.isolate_ingress);
                let terminating = namespace.terminating;
                let name = namespace.name.clone();
                if isolated_before != namespace.isolate_ingress {
                    self.rebuild_namespace(&name);
                }
                self.put_namespace(&name, Some(namespace));
                if !terminating {
                    // A namespace that is not being deleted (any more: it may be another one of the same name).
                    self.forget_retained(&name);
                }
            }
            Object::Pod(pod) => self.apply_pod(pod),
            Object::Policy(policy) => {
                self.retained.remove(&policy.key);
                let before = self.policies.get(&policy.key);
                if before.is_some_and(|before| **before == policy) {
                    return;
                }
                let policy = Arc::new(policy);
                let before = self.policies.insert(policy.key.clone(), policy.clone());
                if let Some(before) = before {
                    self.rebuild_targets(&before);
                }
                self.rebuild_targets(&policy);
            }
            Object::Network(network) => {
                let name = network.name.clone();
                self.put_definition(&name, Some(network));
            }
        }
    }

    /// Removes an object, if there is one with this key.
    pub fn remove(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::Namespace(name) => {
                if self
                    .objects
                    .namespace(name)
                    .is_some_and(|namespace| namespace.isolate_ingress)
                {
                    self.rebuild_namespace(name);
                }
                self.put_namespace(name, None);
            }
            ObjectKey::Pod(uid) => {
                self.set_local(uid, None);
                self.put_peer(uid, None);
            }
            ObjectKey::Policy(key) => {
                // A second removal says nothing new about a policy that has stayed in force.
                if !self.policies.contains_key(key) || self.retained.contains(key) {
                    return;
                }
                let namespace = &key.name.namespace;
                let terminating = self.objects.namespace(namespace).is_some_and(|it| it.terminating);
                if terminating && self.locals_by_namespace.contains_key(namespace) {
                    self.retained.insert(key.clone());
                } else {
                    self.drop_policy(key);
                }
            }
            ObjectKey::Network(name) => {
                self.put_definition(name, None);
            }
        }
    }

    /// Tells what is in the network namespace of a local pod, or that this is not known. The pod need not be known
    /// yet; facts stay until they are taken back.
    pub fn set_facts(&mut self, pod: &PodUid, facts: Option<TargetFacts>) {
        if self.facts.get(pod) == facts.as_ref() {
            return;
        }
        match facts {
            Some(facts) => self.facts.insert(pod.clone(), facts),
            None => self.facts.remove(pod),
        };
        self.rebuild.insert(pod.clone());
    }

    /// Brings the rulesets up to date and returns the local pods whose ruleset or view is another one than after the
    /// last commit, sorted. Pods that are not local any more are among them.
    pub fn commit(&mut self) -> Vec<PodUid> {
        let mut dirty = BTreeSet::new();
        // Elements before rulesets, so that a ruleset that is compiled anew starts with the current ones.
        let mut changed = BTreeSet::new();
        for (id, address) in std::mem::take(&mut self.stale) {
            if let Some(table) = self.tables.get_mut(id) {
                table.refresh(address, &self.objects, &self.claims);
                if table.changed {
                    changed.insert(id);
                }
            }
        }
        // The old tables go last: what old and new rulesets have in common is not worked out twice.
        let mut given_up = Vec::new();
        for uid in std::mem::take(&mut self.rebuild) {
            if self.rebuild_local(&uid, &mut given_up) {
                dirty.insert(uid);
            }
        }
        for (id, uid) in given_up {
            let mut world = World {
                objects: &mut self.objects,
                selectors: &mut self.selectors,
                networks: &mut self.networks,
                claims: &self.claims,
            };
            self.tables.release(id, &uid, &mut world);
        }
        for id in changed {
            let Some(table) = self.tables.get_mut(id) else { continue };
            table.changed = false;
            for user in table.users.keys() {
                if let Some(local) = self.locals.get_mut(user)
                    && local.take_elements(id, table)
                {
                    dirty.insert(user.clone());
                }
            }
        }
        dirty.into_iter().collect()
    }

    /// A local pod's ruleset; `None` where nothing isolates it, so that it has no table at all.
    pub fn ruleset(&self, pod: &PodUid) -> Option<&Ruleset> {
        self.locals.get(pod)?.ruleset.as_ref()
    }

    /// A local pod with its attachments and who isolates them.
    pub fn view(&self, pod: &PodUid) -> Option<&PodView> {
        self.locals.get(pod)?.view.as_ref()
    }

    /// The local pods, sorted: all of this node that have a network namespace of their own, isolated or not.
    pub fn local_pods(&self) -> impl Iterator<Item = &PodUid> {
        self.locals
            .iter()
            .filter(|(_, local)| local.view.is_some())
            .map(|(uid, _)| uid)
    }

    fn apply_pod(&mut self, pod: Pod) {
        let uid = pod.uid.clone();
        self.put_peer(&uid, pod.takes_part().then_some(&pod));
        let local = self.options.locality.holds(&pod);
        self.set_local(&uid, local.then_some(pod));
    }

    fn set_local(&mut self, uid: &PodUid, pod: Option<Pod>) {
        let before = self.locals.get(uid).and_then(|local| local.pod.as_ref());
        if before == pod.as_ref() {
            return;
        }
        let left = before.map(|before| before.name.namespace.clone());
        if let Some(namespace) = &left
            && let Some(others) = self.locals_by_namespace.get_mut(namespace)
        {
            others.remove(uid);
        }
        if let Some(pod) = &pod {
            let others = self.locals_by_namespace.entry(pod.name.namespace.clone()).or_default();
            others.insert(uid.clone());
        }
        if let Some(namespace) = left
            && self.locals_by_namespace.get(&namespace).is_none_or(BTreeSet::is_empty)
        {
            self.locals_by_namespace.remove(&namespace);
            self.forget_retained(&namespace);
        }
        self.locals.entry(uid.clone()).or_default().pod = pod;
        self.rebuild.insert(uid.clone());
    }

    /// Policies and attachments name networks; enforcement does not wait for a definition and does not end with it
    /// (statement 162). What it decides is whether addresses come by DHCP (statement 123).
    fn put_definition(&mut self, name: &NamespacedName, definition: Option<Network>) {
        let dhcp = definition.as_ref().is_some_and(uses_dhcp);
        let before = match definition {
            Some(definition) => self.definitions.insert(name.clone(), definition),
            None => self.definitions.remove(name),
        };
        if before.as_ref().is_some_and(uses_dhcp) == dhcp {
            return;
        }
        let network = NetworkName::Namespaced(name.clone());
        let is_attached = |pod: &Pod| {
            pod.attachments
                .iter()
                .any(|attachment| attachment.networks.contains(&network))
        };
        let attached = self
            .locals
            .iter()
            .filter(|(_, local)| local.pod.as_ref().is_some_and(is_attached));
        self.rebuild.extend(attached.map(|(uid, _)| uid.clone()));
    }

    fn rebuild_namespace(&mut self, name: &str) {
        if let Some(locals) = self.locals_by_namespace.get(name) {
            self.rebuild.extend(locals.iter().cloned());
        }
    }

    fn rebuild_targets(&mut self, policy: &Policy) {
        let (Some(target), Some(locals)) = (&policy.target, self.locals_by_namespace.get(&policy.key.name.namespace))
        else {
            return;
        };
        for uid in locals {
            let pod = self.locals.get(uid).and_then(|local| local.pod.as_ref());
            if pod.is_some_and(|pod| target.matches(&pod.labels)) {
                self.rebuild.insert(uid.clone());
            }
        }
    }

    fn drop_policy(&mut self, key: &PolicyKey) {
        if let Some(policy) = self.policies.remove(key) {
            self.rebuild_targets(&policy);
        }
    }

    fn forget_retained(&mut self, namespace: &str) {
        let (gone, kept) = std::mem::take(&mut self.retained)
            .into_iter()
            .partition(|key| *key.name.namespace == *namespace);
        self.retained = kept;
        let gone: BTreeSet<PolicyKey> = gone;
        for key in gone {
            self.drop_policy(&key);
        }
    }

    /// The policies of a namespace, in the order of their keys.
    fn policies_of<'a>(&'a self, namespace: &'a Arc<str>) -> impl Iterator<Item = &'a Policy> {
        self.shared_policies_of(namespace).map(|policy| &**policy)
    }

    fn shared_policies_of<'a>(&'a self, namespace: &'a Arc<str>) -> impl Iterator<Item = &'a Arc<Policy>> {
        let kinds = [PolicyKind::NetworkPolicy, PolicyKind::MultiNetworkPolicy];
        kinds.into_iter().flat_map(move |kind| {
            let first = PolicyKey {
                kind,
                name: NamespacedName::new(namespace.clone(), ""),
            };
            self.policies
                .range(first..)
                .take_while(move |(key, _)| key.kind == kind && key.name.namespace == *namespace)
                .map(|(_, policy)| policy)
        })
    }
}
