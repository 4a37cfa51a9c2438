//! The part of a universe that one question needs: a few pods instead of all of them, so that the walks of the oracle
//! are short. Nothing here decides anything; a slice holds more than is needed rather than less.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{NamespacedName, NetworkName, Pod, PodUid, Policy, PolicyKey, PolicyKind};

use super::Universe;

/// One end of a connection, as people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// The pods of this name: more than one for a moment, where a pod is replaced by another one of its name.
    Pod(NamespacedName),
    /// An address, with whoever claims it on whatever network.
    Address(IpAddr),
}

/// The kinds under which a policy may stand, in the order of their keys.
const KINDS: [PolicyKind; 3] = [
    PolicyKind::NetworkPolicy,
    PolicyKind::MultiNetworkPolicy,
    PolicyKind::NamespaceIsolation,
];

/// The pods of a universe by name and by address, for many questions about one universe.
pub struct Lookup<'a> {
    universe: &'a Universe,
    names: HashMap<&'a NamespacedName, Vec<&'a PodUid>>,
    addresses: HashMap<IpAddr, Vec<&'a PodUid>>,
}

impl<'a> Lookup<'a> {
    /// Looks at every pod once.
    pub fn new(universe: &'a Universe) -> Self {
        let mut names: HashMap<&NamespacedName, Vec<&PodUid>> = HashMap::with_capacity(universe.pods.len());
        let mut addresses: HashMap<IpAddr, Vec<&PodUid>> = HashMap::with_capacity(universe.pods.len());
        for pod in universe.pods.values() {
            names.entry(&pod.name).or_default().push(&pod.uid);
            for address in pod.attachments.iter().flat_map(|it| &it.addresses) {
                addresses.entry(*address).or_default().push(&pod.uid);
            }
        }
        Self {
            universe,
            names,
            addresses,
        }
    }

    /// The same as [`Universe::slice`], without looking at other pods.
    pub fn slice(&self, parties: &[Party]) -> Universe {
        let mut uids: BTreeSet<&PodUid> = BTreeSet::new();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for party in parties {
            match party {
                Party::Pod(name) => uids.extend(self.names.get(name).into_iter().flatten().copied()),
                Party::Address(address) => addresses.push(*address),
            }
        }
        for pod in uids.iter().filter_map(|uid| self.universe.pods.get(*uid)) {
            addresses.extend(pod.attachments.iter().flat_map(|it| it.addresses.iter().copied()));
        }
        for claimants in addresses.iter().filter_map(|address| self.addresses.get(address)) {
            uids.extend(claimants.iter().copied());
        }
        self.universe.around(uids)
    }
}

impl Universe {
    /// What decides connections between these parties, on whatever network and with whatever port: the pods of these
    /// names, every pod that claims one of their addresses or of these addresses, the namespaces of all of them, the
    /// policies that may select one of them, and the definitions of their networks. [`super::evaluate`] says of a
    /// connection between these parties what it says of the whole universe.
    ///
    /// Looks at every pod twice, and at the policies of a few namespaces. For more than one question make a [`Lookup`].
    #[must_use]
    pub fn slice(&self, parties: &[Party]) -> Self {
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        let mut names: Vec<&NamespacedName> = Vec::new();
        for party in parties {
            match party {
                Party::Pod(name) => names.push(name),
                Party::Address(address) => {
                    addresses.insert(*address);
                }
            }
        }
        let asked: Vec<&Pod> = self.pods.values().filter(|pod| names.contains(&&pod.name)).collect();
        for attachment in asked.iter().flat_map(|pod| &pod.attachments) {
            addresses.extend(&attachment.addresses);
        }
        let claims = |pod: &&Pod| {
            pod.attachments
                .iter()
                .any(|it| it.addresses.iter().any(|own| addresses.contains(own)))
        };
        let claimants = self.pods.values().filter(claims);
        self.around(asked.into_iter().chain(claimants).map(|pod| &pod.uid).collect())
    }

    /// These pods and everything else that decides about them.
    fn around(&self, uids: BTreeSet<&PodUid>) -> Self {
        let mut slice = Self::default();
        slice.scope = self.scope;
        for pod in uids.into_iter().filter_map(|uid| self.pods.get(uid)) {
            if let Some((name, node)) = pod
                .node
                .as_ref()
                .and_then(|node| self.node_addresses.get_key_value(node))
            {
                slice.node_addresses.insert(name.clone(), node.clone());
            }
            if let Some(namespace) = self.namespaces.get(&pod.name.namespace) {
                slice.namespaces.insert(namespace.name.clone(), namespace.clone());
            }
            for network in pod.attachments.iter().flat_map(|it| &it.networks) {
                if let NetworkName::Namespaced(name) = network
                    && let Some(definition) = self.networks.get(name)
                {
                    slice.networks.insert(name.clone(), definition.clone());
                }
            }
            slice.pods.insert(pod.uid.clone(), pod.clone());
        }
        for namespace in slice.inhabited() {
            for (key, policy) in self.policies_of(&namespace) {
                if slice.may_select(policy) {
                    slice.policies.insert(key.clone(), policy.clone());
                }
            }
        }
        slice
    }

    /// The namespaces that pods live in, known or not.
    pub(crate) fn inhabited(&self) -> BTreeSet<Arc<str>> {
        self.pods.values().map(|pod| pod.name.namespace.clone()).collect()
    }

    /// Whether a policy selects one of the pods, on whatever interface; or selects nothing because it is broken, which
    /// is worth telling.
    pub(crate) fn may_select(&self, policy: &Policy) -> bool {
        let Some(target) = &policy.target else { return true };
        let selected = |pod: &Pod| pod.name.namespace == policy.key.name.namespace && target.matches(&pod.labels);
        self.pods.values().any(selected)
    }

    fn policies_of(&self, namespace: &Arc<str>) -> impl Iterator<Item = (&PolicyKey, &Policy)> {
        KINDS.into_iter().flat_map(move |kind| {
            let first = PolicyKey {
                kind,
                name: NamespacedName::new(namespace.clone(), ""),
            };
            let namespace = namespace.clone();
            self.policies
                .range(first..)
                .take_while(move |(key, _)| key.kind == kind && key.name.namespace == namespace)
        })
    }
}
