//! What is shown to people: pods with who isolates them, policies with whom they isolate, networks, contested addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ringfence_model::{Attachment, Coverage, Direction, NamespacedName, NetworkName, PodUid, PolicyKey, PolicyKind};

use super::Index;

/// A local pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Its UID.
    pub uid: PodUid,
    /// Its namespace and name.
    pub name: NamespacedName,
    /// Whether it has ended (Succeeded, Failed): then nothing isolates it (statement 132).
    pub terminal: bool,
    /// Its attachments in the order of their interfaces' names.
    pub attachments: Vec<AttachmentView>,
}

impl PodView {
    /// The policies that isolate the pod in a direction on any attachment, sorted.
    pub fn isolating(&self, direction: Direction) -> BTreeSet<&PolicyKey> {
        self.attachments
            .iter()
            .flat_map(|attachment| attachment.isolating(direction))
            .collect()
    }

    /// Whether anything isolates the pod anywhere, so that it has a ruleset.
    pub fn is_isolated(&self) -> bool {
        self.attachments
            .iter()
            .any(|view| !view.ingress.is_empty() || !view.egress.is_empty())
    }
}

/// One attachment of a local pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentView {
    /// Interface, networks, addresses.
    pub attachment: Attachment,
    /// The policies that isolate its ingress, sorted; none: not isolated.
    pub ingress: Vec<PolicyKey>,
    /// The policies that isolate its egress, sorted; none: not isolated.
    pub egress: Vec<PolicyKey>,
}

impl AttachmentView {
    /// The policies that isolate a direction, sorted; none: not isolated.
    pub fn isolating(&self, direction: Direction) -> &[PolicyKey] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// A policy and what it does on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyView {
    /// Which one.
    pub key: PolicyKey,
    /// Which attachments it is for.
    pub coverage: Coverage,
    /// Whether it declares ingress isolation.
    pub ingress: bool,
    /// Whether it declares egress isolation.
    pub egress: bool,
    /// Number of local pods that it isolates in some direction on some attachment.
    pub local_pods: usize,
    /// It is deleted, and stays in force because its namespace is being deleted (statement 138).
    pub retained: bool,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// Its name.
    pub name: NetworkName,
    /// Pods of the cluster that are attached and take part.
    pub pods: usize,
    /// Local pods that are attached and take part.
    pub local_pods: usize,
    /// Whether there is a NetworkAttachmentDefinition.
    pub defined: bool,
}

/// An address that several pods claim (statement 134).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// On which network.
    pub network: NetworkName,
    /// Which address.
    pub address: IpAddr,
    /// Who has the rights: the newest.
    pub owner: PodUid,
    /// Who has none by this address, newest first.
    pub others: Vec<PodUid>,
}

impl Index {
    /// Every policy, sorted by key, with those that namespaces' annotations amount to.
    pub fn policies(&self) -> Vec<PolicyView> {
        let mut counts: BTreeMap<&PolicyKey, usize> = BTreeMap::new();
        for view in self.locals.values().filter_map(|local| local.view.as_ref()) {
            let isolating: BTreeSet<&PolicyKey> = Direction::BOTH
                .into_iter()
                .flat_map(|direction| view.isolating(direction))
                .collect();
            for key in isolating {
                *counts.entry(key).or_default() += 1;
            }
        }
        let mut views: Vec<PolicyView> = self
            .policies
            .values()
            .map(|policy| PolicyView {
                key: policy.key.clone(),
                coverage: policy.coverage.clone(),
                ingress: policy.ingress.is_some(),
                egress: policy.egress.is_some(),
                local_pods: counts.get(&policy.key).copied().unwrap_or_default(),
                retained: self.retained.contains(&policy.key),
            })
            .collect();
        let namespaces = self
            .objects
            .namespaces
            .iter()
            .filter_map(|(_, record)| record.object.as_ref());
        views.extend(
            namespaces
                .filter(|namespace| namespace.isolate_ingress)
                .map(|namespace| {
                    let key = PolicyKey {
                        kind: PolicyKind::NamespaceIsolation,
                        name: NamespacedName::new(namespace.name.clone(), namespace.name.clone()),
                    };
                    PolicyView {
                        coverage: Coverage::Scope,
                        ingress: true,
                        egress: false,
                        local_pods: counts.get(&key).copied().unwrap_or_default(),
                        retained: false,
                        key,
                    }
                }),
        );
        views.sort_by(|a, b| a.key.cmp(&b.key));
        views
    }

    /// Every network that a pod is attached to or that is defined, sorted by name.
    pub fn networks(&self) -> Vec<NetworkView> {
        let mut views: BTreeMap<NetworkName, NetworkView> = BTreeMap::new();
        let view = |name: &NetworkName| NetworkView {
            name: name.clone(),
            pods: 0,
            local_pods: 0,
            defined: false,
        };
        for state in self.networks.iter().filter(|state| state.pods > 0) {
            views
                .entry(state.name.clone())
                .or_insert_with(|| view(&state.name))
                .pods = state.pods;
        }
        for name in self.definitions.keys().cloned().map(NetworkName::Namespaced) {
            views.entry(name.clone()).or_insert_with(|| view(&name)).defined = true;
        }
        for pod in self
            .locals
            .values()
            .filter_map(|local| local.pod.as_ref())
            .filter(|pod| pod.takes_part())
        {
            let names: BTreeSet<&NetworkName> = pod.attachments.iter().flat_map(|it| &it.networks).collect();
            for name in names {
                views.entry(name.clone()).or_insert_with(|| view(name)).local_pods += 1;
            }
        }
        views.into_values().collect()
    }

    /// The contested addresses, sorted.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts: Vec<Conflict> = self
            .claims
            .conflicts()
            .filter_map(|((network, address), claimants)| {
                let mut uids = claimants
                    .iter()
                    .filter_map(|pod| Some(self.objects.peers.get(*pod)?.uid.clone()));
                Some(Conflict {
                    network: self.networks.get(*network)?.name.clone(),
                    address: *address,
                    owner: uids.next()?,
                    others: uids.collect(),
                })
            })
            .collect();
        conflicts.sort();
        conflicts
    }
}
