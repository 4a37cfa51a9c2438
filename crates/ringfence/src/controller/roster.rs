//! Names of all pods, policies and networks, for what people ask: the index keeps what decides.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use imbl::OrdMap;
use ringfence_model::{
    Coverage, Namespace, NamespacedName, NetworkName, Object, ObjectKey, Pod, PodUid, Policy, PolicyKey, PolicyKind,
};

use crate::snapshot::{NetworkSummary, PolicySummary};

/// What is known by name. Its maps of policies and networks are those of the snapshot.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pods: HashMap<PodUid, Entry>,
    /// Few nodes and few combinations of networks serve many pods.
    nodes: HashSet<Arc<str>>,
    combinations: HashSet<Arc<[NetworkName]>>,
    policies: OrdMap<PolicyKey, PolicySummary>,
    networks: OrdMap<NetworkName, NetworkSummary>,
    terminating: HashSet<Arc<str>>,
    /// Deleted, but in force until their namespace is gone (statement 138).
    retained: BTreeSet<PolicyKey>,
}

#[derive(Debug)]
struct Entry {
    name: NamespacedName,
    node: Option<Arc<str>>,
    local: bool,
    on_the_node: bool,
    /// The networks of every attachment, one after the other; sorted, so a network with two interfaces stands twice.
    networks: Arc<[NetworkName]>,
}

impl Roster {
    /// All policies.
    pub(super) fn policies(&self) -> &OrdMap<PolicyKey, PolicySummary> {
        &self.policies
    }

    /// All networks.
    pub(super) fn networks(&self) -> &OrdMap<NetworkName, NetworkSummary> {
        &self.networks
    }

    /// Namespace and name of a pod; its UID where it is not known any more.
    pub(super) fn name(&self, pod: &PodUid) -> String {
        self.pods
            .get(pod)
            .map_or_else(|| pod.to_string(), |entry| entry.name.to_string())
    }

    /// Whether there is such a pod anywhere.
    pub(super) fn knows(&self, pod: &PodUid) -> bool {
        self.pods.contains_key(pod)
    }

    /// Whether the source has said on which node the pod is.
    pub(super) fn is_bound(&self, pod: &PodUid) -> bool {
        self.pods.get(pod).is_some_and(|entry| entry.node.is_some())
    }

    /// Whether the source has said that the pod shares its node's network.
    pub(super) fn is_on_the_node(&self, pod: &PodUid) -> bool {
        self.pods.get(pod).is_some_and(|entry| entry.on_the_node)
    }

    /// Whether the namespace is being deleted.
    pub(super) fn is_terminating(&self, namespace: &str) -> bool {
        self.terminating.contains(namespace)
    }

    /// Takes in an object or its change.
    pub(super) fn apply(&mut self, object: &Object, local: bool) {
        match object {
            Object::Pod(pod) => {
                self.remove_pod(&pod.uid);
                self.insert_pod(pod, local);
            }
            Object::Policy(policy) => {
                self.retained.remove(&policy.key);
                let summary = summary(policy);
                if self.policies.get(&policy.key) != Some(&summary) {
                    self.policies.insert(policy.key.clone(), summary);
                }
            }
            Object::Namespace(namespace) => self.apply_namespace(namespace),
            Object::Network(network) => {
                let name = NetworkName::Namespaced(network.name.clone());
                self.change_network(&name, |summary| summary.declared = true);
            }
        }
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::Pod(uid) => self.remove_pod(uid),
            ObjectKey::Policy(key) => {
                if self.terminating.contains(&key.name.namespace) {
                    self.retained.insert(key.clone());
                } else {
                    self.policies.remove(key);
                }
            }
            ObjectKey::Namespace(name) => {
                self.terminating.remove(name);
                self.forget_retained(name);
                self.policies.remove(&isolation_key(name));
            }
            ObjectKey::Network(name) => {
                let name = NetworkName::Namespaced(name.clone());
                self.change_network(&name, |summary| summary.declared = false);
            }
        }
    }

    /// Pods of that name and their nodes. Looks at every pod (a millisecond for 100,000): for readers who ask for a
    /// pod that is not on this node.
    pub(super) fn locate(&self, namespace: Option<&str>, name: &str) -> Vec<(NamespacedName, Option<Arc<str>>)> {
        let mut found: Vec<_> = self
            .pods
            .values()
            .filter(|entry| *entry.name.name == *name && namespace.is_none_or(|it| *entry.name.namespace == *it))
            .map(|entry| (entry.name.clone(), entry.node.clone()))
            .collect();
        found.sort();
        found.truncate(10);
        found
    }

    fn apply_namespace(&mut self, namespace: &Namespace) {
        if namespace.terminating {
            self.terminating.insert(Arc::clone(&namespace.name));
        } else {
            self.terminating.remove(&namespace.name);
            self.forget_retained(&namespace.name);
        }
        let key = isolation_key(&namespace.name);
        if namespace.isolate_ingress {
            self.policies.insert(
                key,
                PolicySummary {
                    coverage: Coverage::Scope,
                    ingress: true,
                    egress: false,
                },
            );
        } else {
            self.policies.remove(&key);
        }
    }

    fn forget_retained(&mut self, namespace: &str) {
        let policies = &mut self.policies;
        self.retained.retain(|key| {
            let keep = *key.name.namespace != *namespace;
            if !keep {
                policies.remove(key);
            }
            keep
        });
    }

    fn insert_pod(&mut self, pod: &Pod, local: bool) {
        let mut networks: Vec<NetworkName> = if pod.takes_part() {
            pod.attachments
                .iter()
                .flat_map(|attachment| attachment.networks.iter().cloned())
                .collect()
        } else {
            Vec::new()
        };
        networks.sort();
        let networks = interned(&mut self.combinations, networks.into());
        self.count(&networks, local, |count| *count += 1);
        let entry = Entry {
            name: pod.name.clone(),
            node: pod
                .node
                .as_ref()
                .map(|node| interned(&mut self.nodes, Arc::clone(node))),
            local,
            on_the_node: pod.host_network,
            networks,
        };
        self.pods.insert(pod.uid.clone(), entry);
    }

    fn remove_pod(&mut self, uid: &PodUid) {
        if let Some(entry) = self.pods.remove(uid) {
            self.count(&entry.networks, entry.local, |count| *count -= 1);
        }
    }

    /// Counts one pod in or out of its networks.
    fn count(&mut self, networks: &Arc<[NetworkName]>, local: bool, change: impl Fn(&mut usize)) {
        for group in networks.chunk_by(|a, b| a == b) {
            self.change_network(&group[0], |summary| {
                change(&mut summary.pods);
                if local {
                    change(&mut summary.local_pods);
                }
                for _ in group {
                    change(&mut summary.interfaces);
                }
            });
        }
    }

    fn change_network(&mut self, name: &NetworkName, change: impl FnOnce(&mut NetworkSummary)) {
        let mut summary = self.networks.get(name).copied().unwrap_or_default();
        change(&mut summary);
        if summary == NetworkSummary::default() {
            self.networks.remove(name);
        } else {
            self.networks.insert(name.clone(), summary);
        }
    }
}

fn interned<T: ?Sized + Eq + std::hash::Hash>(known: &mut HashSet<Arc<T>>, value: Arc<T>) -> Arc<T> {
    if let Some(known) = known.get(&value) {
        return Arc::clone(known);
    }
    known.insert(Arc::clone(&value));
    value
}

fn summary(policy: &Policy) -> PolicySummary {
    PolicySummary {
        coverage: policy.coverage.clone(),
        ingress: policy.ingress.is_some(),
        egress: policy.egress.is_some(),
    }
}

/// The key under which the index knows the annotation of a namespace.
fn isolation_key(namespace: &Arc<str>) -> PolicyKey {
    PolicyKey {
        kind: PolicyKind::NamespaceIsolation,
        name: NamespacedName::new(Arc::clone(namespace), Arc::clone(namespace)),
    }
}

#[cfg(test)]
mod tests {
    use ringfence_model::{Labels, Selector};

    use super::*;
    use crate::testing::{guard, pod};

    fn namespace(terminating: bool, isolate_ingress: bool) -> Object {
        Object::Namespace(Namespace {
            name: "shop".into(),
            labels: Labels::default(),
            terminating,
            isolate_ingress,
        })
    }

    fn policy() -> Object {
        Object::Policy(Policy {
            key: guard(),
            coverage: Coverage::Scope,
            target: Some(Selector::everything()),
            ingress: Some(Vec::new()),
            egress: None,
        })
    }

    #[test]
    fn networks_count_pods_and_interfaces_up_and_down() {
        let net_a = NetworkName::Namespaced(NamespacedName::new("shop", "net-a"));
        let mut roster = Roster::default();
        let mut twice = pod("shop", "web");
        twice.attachments.push(twice.attachments[1].clone());
        roster.apply(&Object::Pod(twice.clone()), true);
        roster.apply(&Object::Pod(pod("shop", "db")), false);
        let expected = NetworkSummary {
            declared: false,
            pods: 2,
            local_pods: 1,
            interfaces: 3,
        };
        assert_eq!(roster.networks().get(&net_a), Some(&expected));
        // The same pod again, with one interface less.
        roster.apply(&Object::Pod(pod("shop", "web")), true);
        assert_eq!(
            roster.networks().get(&net_a).map(|it| (it.pods, it.interfaces)),
            Some((2, 2))
        );
        roster.remove(&ObjectKey::Pod(twice.uid));
        roster.remove(&ObjectKey::Pod(pod("shop", "db").uid));
        assert!(roster.networks().is_empty());
    }

    #[test]
    fn pods_elsewhere_are_found_by_name() {
        let mut roster = Roster::default();
        let mut remote = pod("shop", "web");
        remote.node = Some("n2".into());
        roster.apply(&Object::Pod(remote), false);
        let expected = vec![(NamespacedName::new("shop", "web"), Some("n2".into()))];
        assert_eq!(roster.locate(None, "web"), expected);
        assert_eq!(roster.locate(Some("shop"), "web"), expected);
        assert!(roster.locate(Some("bank"), "web").is_empty());
    }

    #[test]
    fn s138_policies_are_listed_until_their_namespace_is_gone() {
        let mut roster = Roster::default();
        roster.apply(&namespace(true, true), false);
        roster.apply(&policy(), false);
        roster.remove(&ObjectKey::Policy(guard()));
        assert_eq!(roster.policies().len(), 2, "the policy and the annotation");
        roster.remove(&ObjectKey::Namespace("shop".into()));
        assert!(roster.policies().is_empty());

        roster.apply(&namespace(false, false), false);
        roster.apply(&policy(), false);
        roster.remove(&ObjectKey::Policy(guard()));
        assert!(roster.policies().is_empty());
    }
}
