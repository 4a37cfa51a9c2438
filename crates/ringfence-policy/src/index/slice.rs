//! What one question needs: the owner of the index hands it out in microseconds, with policies that are shared and not
//! copied, and the rest is done by whoever asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{NamespacedName, NetworkName, Pod, PodUid, Policy};

use super::Index;
use super::objects::{PeerId, PeerRecord};
use crate::Locality;
use crate::evaluate::{Party, Universe};

/// What decides about a few parties.
#[derive(Debug, Clone)]
pub struct Slice {
    /// All but the policies.
    rest: Universe,
    /// Those that may select one of the pods.
    policies: Vec<Arc<Policy>>,
}

/// For the oracle.
impl From<Slice> for Universe {
    fn from(slice: Slice) -> Self {
        let mut universe = slice.rest;
        let policies = slice.policies.into_iter().map(Arc::unwrap_or_clone);
        universe.policies = policies.map(|policy| (policy.key.clone(), policy)).collect();
        universe
    }
}

impl Index {
    /// The same as [`Universe::slice`], of the objects as they are now, committed or not, with the policies that stay
    /// in force although they were removed (statement 138).
    ///
    /// Pods of other nodes that share their node's network or have ended are not kept, so they are not in it.
    /// Addresses of nodes are those of [`crate::Options`]; which node they belong to is known from
    /// [`Locality::Node`], and with [`Locality::All`] they are every node's.
    pub fn slice(&self, parties: &[Party]) -> Universe {
        self.shared_slice(parties).into()
    }

    /// The same for owners who have no time to copy policies.
    pub fn shared_slice(&self, parties: &[Party]) -> Slice {
        let mut pods: BTreeMap<PodUid, Pod> = BTreeMap::new();
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for party in parties {
            match party {
                Party::Pod(name) => pods.extend(self.pods_named(name).map(|pod| (pod.uid.clone(), pod))),
                Party::Address(address) => {
                    addresses.insert(*address);
                }
            }
        }
        for attachment in pods.values().flat_map(|pod| &pod.attachments) {
            addresses.extend(&attachment.addresses);
        }
        for address in &addresses {
            for uid in self.claimants(*address) {
                if !pods.contains_key(uid)
                    && let Some(pod) = self.pod(uid)
                {
                    pods.insert(uid.clone(), pod);
                }
            }
        }
        // Peers end with the pod; a local pod that has ended is still known.
        let ended = self.locals.values().filter_map(|local| local.pod.as_ref());
        for pod in ended.filter(|pod| !pod.takes_part()) {
            if pod.attachments.iter().any(|it| !it.addresses.is_disjoint(&addresses)) {
                pods.insert(pod.uid.clone(), pod.clone());
            }
        }
        self.around(pods)
    }

    /// Everything else that decides about these pods.
    fn around(&self, pods: BTreeMap<PodUid, Pod>) -> Slice {
        let mut policies = Vec::new();
        let mut slice = Universe::default();
        slice.scope = self.options.scope;
        slice.pods = pods;
        for pod in slice.pods.values() {
            if let Some(node) = &pod.node
                && self.options.locality.is_node(node)
            {
                slice
                    .node_addresses
                    .insert(node.clone(), self.options.node_addresses.clone());
            }
            for network in pod.attachments.iter().flat_map(|it| &it.networks) {
                if let NetworkName::Namespaced(name) = network
                    && let Some(definition) = self.definitions.get(name)
                {
                    slice.networks.insert(name.clone(), definition.clone());
                }
            }
        }
        for name in slice.inhabited() {
            if let Some(namespace) = self.objects.namespace(&name) {
                slice.namespaces.insert(name.clone(), namespace.clone());
            }
            for policy in self.shared_policies_of(&name) {
                if slice.may_select(policy) {
                    policies.push(policy.clone());
                }
            }
        }
        Slice { rest: slice, policies }
    }

    fn pods_named<'a>(&'a self, name: &'a NamespacedName) -> impl Iterator<Item = Pod> + 'a {
        let namespace = self.objects.namespaces_by_name.get(&name.namespace);
        let record = namespace.and_then(|id| self.objects.namespaces.get(*id));
        let peers = record.into_iter().flat_map(|record| &record.pods);
        let remote = peers
            .filter_map(|id| self.objects.peers.get(*id))
            .filter(move |record| record.name == name.name)
            .map(|record| self.rebuilt(record));
        let local = self
            .locals_by_namespace
            .get(&name.namespace)
            .into_iter()
            .flatten()
            .filter_map(|uid| self.locals.get(uid)?.pod.as_ref())
            .filter(move |pod| pod.name == *name)
            .cloned();
        remote.chain(local)
    }

    /// Everybody that takes part and lists the address on some network.
    fn claimants(&self, address: IpAddr) -> BTreeSet<&PodUid> {
        let mut found: BTreeSet<&PodUid> = BTreeSet::new();
        for network in self.networks.ids() {
            let place = (network, address);
            let rivals = self.claims.rivals(place).iter().copied();
            let all = self.claims.owner(place).into_iter().chain(rivals);
            found.extend(all.filter_map(|id: PeerId| Some(&self.objects.peers.get(id)?.uid)));
        }
        found
    }

    fn pod(&self, uid: &PodUid) -> Option<Pod> {
        let id = self.objects.peers_by_uid.get(uid)?;
        self.objects.peers.get(*id).map(|record| self.rebuilt(record))
    }

    /// The pod behind a record: the object itself where it is local, else what is kept of it, which is all that
    /// decides.
    fn rebuilt(&self, record: &PeerRecord) -> Pod {
        if let Some(pod) = self.locals.get(&record.uid).and_then(|local| local.pod.as_ref()) {
            return pod.clone();
        }
        let namespace = self.objects.namespaces.get(record.namespace);
        let attachments = if let Some(attachments) = &record.exceptions {
            attachments.to_vec()
        } else {
            let mut places: BTreeMap<NetworkName, BTreeSet<IpAddr>> = BTreeMap::new();
            for (network, address) in &record.places {
                if let Some(state) = self.networks.get(*network) {
                    places.entry(state.name.clone()).or_default().insert(*address);
                }
            }
            record.outline.attachments(&places)
        };
        Pod {
            mirror_of: None,
            uid: record.uid.clone(),
            name: NamespacedName {
                namespace: namespace.map(|it| it.name.clone()).unwrap_or_default(),
                name: record.name.clone(),
            },
            node: record.outline.node.clone(),
            labels: record.labels.clone(),
            attachments,
            ports: record.ports.iter().cloned().collect(),
            // Peers neither share their node's network nor have ended.
            host_network: false,
            terminal: false,
            started: record.started,
            host_addresses: record.outline.host_addresses.clone(),
        }
    }
}

impl Locality {
    /// Whether this node's addresses are those of the node of that name.
    fn is_node(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Node(node) => **node == *name,
        }
    }
}
