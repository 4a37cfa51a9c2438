//! The objects that a question is about, and the look-ups on them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{
    Attachment, Coverage, Direction, Labels, Namespace, NamespacedName, Network, NetworkName, Object, ObjectKey, Pod,
    PodUid, Policy, PolicyKey, PolicyKind, Scope, Selector,
};

/// The label that every namespace carries (statement 46).
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Everything that is known at one moment. Nothing is derived, so any field may be changed at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Universe {
    /// By name.
    pub namespaces: BTreeMap<Arc<str>, Namespace>,
    /// By UID (statement 135).
    pub pods: BTreeMap<PodUid, Pod>,
    /// By kind, namespace and name.
    pub policies: BTreeMap<PolicyKey, Policy>,
    /// NetworkAttachmentDefinitions. They never decide who is isolated (statement 162).
    pub networks: BTreeMap<NamespacedName, Network>,
    /// What NetworkPolicies without `policy-for` act on.
    pub scope: Scope,
    /// Addresses of nodes beyond those that their pods list (a bridge's address), by the node's name (statement 117).
    pub node_addresses: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// Policies that were removed while their namespace was terminating (statement 138).
    outliving: BTreeSet<PolicyKey>,
}

/// One attachment of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachmentRef<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The attachment's position in [`Pod::attachments`].
    pub index: usize,
    /// The attachment.
    pub attachment: &'a Attachment,
}

impl AttachmentRef<'_> {
    /// The networks that both are on; they meet where there is one.
    pub fn meet(&self, other: &AttachmentRef<'_>) -> BTreeSet<NetworkName> {
        self.attachment
            .networks
            .intersection(&other.attachment.networks)
            .cloned()
            .collect()
    }
}

/// The default scope, no node addresses; of two objects with one key the later counts.
impl FromIterator<Object> for Universe {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut universe = Self::default();
        for object in objects {
            universe.apply(object);
        }
        universe
    }
}

impl Universe {
    /// Adds or replaces an object.
    pub fn apply(&mut self, object: Object) {
        match object {
            Object::Namespace(it) => {
                self.namespaces.insert(it.name.clone(), it);
            }
            Object::Pod(it) => {
                self.pods.insert(it.uid.clone(), it);
            }
            Object::Policy(it) => {
                self.outliving.remove(&it.key);
                self.policies.insert(it.key.clone(), it);
            }
            Object::Network(it) => {
                self.networks.insert(it.name.clone(), it);
            }
        }
        self.drop_outlived();
    }

    /// Removes an object. A policy whose namespace is terminating stays in force while a pod is left in that
    /// namespace (statement 138), as long as the namespace was seen to terminate first.
    pub fn remove(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::Namespace(name) => {
                self.namespaces.remove(name);
            }
            ObjectKey::Pod(uid) => {
                self.pods.remove(uid);
            }
            ObjectKey::Policy(policy) => {
                let namespace = self.namespaces.get(&policy.name.namespace);
                if namespace.is_some_and(|namespace| namespace.terminating) {
                    self.outliving.insert(policy.clone());
                } else {
                    self.policies.remove(policy);
                }
            }
            ObjectKey::Network(name) => {
                self.networks.remove(name);
            }
        }
        self.drop_outlived();
    }

    fn drop_outlived(&mut self) {
        let mut over = Vec::new();
        for key in &self.outliving {
            let namespace = &key.name.namespace;
            let live_again = self.namespaces.get(namespace).is_some_and(|it| !it.terminating);
            let empty = !self.pods.values().any(|pod| pod.name.namespace == *namespace);
            if live_again || empty {
                over.push(key.clone());
            }
        }
        for key in over {
            self.outliving.remove(&key);
            self.policies.remove(&key);
        }
    }

    /// An attachment by its pod and position; `None` where there is none.
    pub fn attachment(&self, uid: &PodUid, index: usize) -> Option<AttachmentRef<'_>> {
        let pod = self.pods.get(uid)?;
        let attachment = pod.attachments.get(index)?;
        Some(AttachmentRef { pod, index, attachment })
    }

    /// The attachments on a network of pods that take part (statements 21, 49, 132), by namespace, name, UID and
    /// position.
    pub fn attachments_on(&self, network: &NetworkName) -> Vec<AttachmentRef<'_>> {
        self.attachments_where(|pod, attachment| pod.takes_part() && attachment.networks.contains(network))
    }

    /// The attachments that list an address, on any network and of any pod, in the same order.
    pub(super) fn claimants(&self, address: IpAddr) -> Vec<AttachmentRef<'_>> {
        self.attachments_where(|_, attachment| attachment.addresses.contains(&address))
    }

    fn attachments_where(&self, wanted: impl Fn(&Pod, &Attachment) -> bool) -> Vec<AttachmentRef<'_>> {
        let mut out = Vec::new();
        for pod in self.pods.values() {
            for (index, attachment) in pod.attachments.iter().enumerate() {
                if wanted(pod, attachment) {
                    out.push(AttachmentRef { pod, index, attachment });
                }
            }
        }
        out.sort_by(|a, b| (&a.pod.name, &a.pod.uid, a.index).cmp(&(&b.pod.name, &b.pod.uid, b.index)));
        out
    }

    /// Every network that a pod that takes part is attached to.
    pub fn network_names(&self) -> BTreeSet<NetworkName> {
        let mut out = BTreeSet::new();
        for pod in self.pods.values().filter(|pod| pod.takes_part()) {
            for attachment in &pod.attachments {
                out.extend(attachment.networks.iter().cloned());
            }
        }
        out
    }

    /// Who holds an address on a network. Of several pods the one that started last (statement 134); of those that
    /// started in one second the one with the greatest UID, so that the answer does not depend on any order. Pods on
    /// the node's network and ended pods hold nothing (statements 49, 132).
    pub fn holder(&self, network: &NetworkName, address: IpAddr) -> Option<AttachmentRef<'_>> {
        let mut winner: Option<AttachmentRef<'_>> = None;
        for pod in self.pods.values() {
            for (index, attachment) in pod.attachments.iter().enumerate() {
                let claims = attachment.networks.contains(network) && attachment.addresses.contains(&address);
                if !claims || !pod.takes_part() {
                    continue;
                }
                let wins = match winner {
                    None => true,
                    Some(before) => (pod.started, &pod.uid) > (before.pod.started, &before.pod.uid),
                };
                if wins {
                    winner = Some(AttachmentRef { pod, index, attachment });
                }
            }
        }
        winner
    }

    /// Whether a namespaceSelector selects a namespace. Of one that is not known only the label is certain that every
    /// namespace carries (statement 46).
    pub(crate) fn namespace_matches(&self, name: &str, selector: &Selector) -> bool {
        if let Some(namespace) = self.namespaces.get(name) {
            return selector.matches(&namespace.labels);
        }
        // A selector that asks about anything else could be right or wrong: unknown never opens.
        let certain: Labels = [(NAMESPACE_NAME, name)].into_iter().collect();
        let only_the_name = selector.requirements().iter().all(|requirement| {
            use ringfence_model::Requirement::{DoesNotExist, Exists, In, NotIn};
            match requirement {
                In { key, .. } | NotIn { key, .. } | Exists(key) | DoesNotExist(key) => **key == *NAMESPACE_NAME,
            }
        });
        only_the_name && selector.matches(&certain)
    }

    /// The policies that isolate an attachment in a direction, sorted by their keys.
    pub(super) fn isolating(&self, at: AttachmentRef<'_>, direction: Direction) -> Vec<Cow<'_, Policy>> {
        let mut out = Vec::new();
        for policy in self.policies.values() {
            if policy.rules(direction).is_some() && self.selects(policy, at) {
                out.push(Cow::Borrowed(policy));
            }
        }
        // The beta annotation of a namespace is a policy without rules.
        if let Some(namespace) = self.namespaces.get(&at.pod.name.namespace)
            && namespace.isolate_ingress
        {
            let policy = isolation_by_annotation(&namespace.name);
            let known = self.policies.contains_key(&policy.key);
            if !known && policy.rules(direction).is_some() && self.selects(&policy, at) {
                out.push(Cow::Owned(policy));
            }
        }
        out.sort_by(|a, b| a.key.cmp(&b.key));
        out
    }

    /// The policies that isolate any attachment of a pod in any direction, sorted by their keys.
    pub(crate) fn isolating_anywhere(&self, pod: &Pod) -> Vec<PolicyKey> {
        let mut out = BTreeSet::new();
        for (index, attachment) in pod.attachments.iter().enumerate() {
            let at = AttachmentRef { pod, index, attachment };
            for direction in Direction::BOTH {
                out.extend(self.isolating(at, direction).iter().map(|policy| policy.key.clone()));
            }
        }
        out.into_iter().collect()
    }

    /// Whether a policy acts on this attachment of this pod.
    fn selects(&self, policy: &Policy, at: AttachmentRef<'_>) -> bool {
        // 21, 132.
        if !at.pod.takes_part() {
            return false;
        }
        // 2: only pods of the policy's own namespace.
        if policy.key.name.namespace != at.pod.name.namespace {
            return false;
        }
        // 60: an invalid podSelector selects nothing. 3: an empty one selects every pod.
        let Some(target) = &policy.target else { return false };
        target.matches(&at.pod.labels) && self.covers(policy, at.attachment)
    }

    /// Whether a policy acts on this attachment (design, section 2).
    fn covers(&self, policy: &Policy, attachment: &Attachment) -> bool {
        // 151: with scope "none" NetworkPolicies, and the annotation of their predecessor, are somebody else's.
        let left_to_others = self.scope == Scope::None && policy.key.kind != PolicyKind::MultiNetworkPolicy;
        if left_to_others {
            return false;
        }
        match &policy.coverage {
            // 150, 151, 161: a listed network, be it `default` or the one that made the primary attachment.
            Coverage::Networks(networks) => networks.iter().any(|network| attachment.networks.contains(network)),
            // 148: a MultiNetworkPolicy without policy-for acts nowhere, so the scope is none of its business.
            Coverage::Scope if policy.key.kind == PolicyKind::MultiNetworkPolicy => false,
            Coverage::Scope => match self.scope {
                Scope::Secondary => !attachment.primary,
                Scope::All => true,
                Scope::Annotated | Scope::None => false,
            },
        }
    }
}

fn isolation_by_annotation(namespace: &Arc<str>) -> Policy {
    Policy {
        key: PolicyKey {
            kind: PolicyKind::NamespaceIsolation,
            name: NamespacedName::new(namespace.clone(), namespace.clone()),
        },
        coverage: Coverage::Scope,
        target: Some(Selector::everything()),
        ingress: Some(Vec::new()),
        egress: None,
    }
}
