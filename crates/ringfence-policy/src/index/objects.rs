//! Namespaces and peers: every pod of the cluster that takes part, in as few bytes as matching and granting need.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{Attachment, Labels, NamedPort, Namespace, PodUid};
use smallvec::SmallVec;

use super::networks::NetworkId;
use super::outline::Outline;
use super::selectors::{PartId, SelectorId};
use super::slab::{Id, Slab};

/// An address on a network.
pub(super) type Place = (NetworkId, IpAddr);

/// A pod that takes part: neither on the host's network nor terminal (statements 21, 49, 132). Others have none.
pub(super) struct PeerRecord {
    pub(super) uid: PodUid,
    pub(super) namespace: NamespaceId,
    /// For questions only, like `outline` and `exceptions`.
    pub(super) name: Arc<str>,
    /// Interned.
    pub(super) outline: Arc<Outline>,
    /// The attachments themselves, where outline and places do not tell them.
    pub(super) exceptions: Option<Box<[Attachment]>>,
    /// Interned.
    pub(super) labels: Labels,
    /// Interned.
    pub(super) ports: Arc<[NamedPort]>,
    /// Sorted, without duplicates, however many interfaces an address is on.
    pub(super) places: Box<[Place]>,
    /// Networks of its attachments, also of those without an address; sorted, without duplicates.
    pub(super) networks: SmallVec<[NetworkId; 4]>,
    /// When it started, for address claims (statement 134).
    pub(super) started: i64,
    /// The selectors in use that select it, sorted.
    pub(super) matched: SmallVec<[SelectorId; 4]>,
}

pub(super) type PeerId = Id<PeerRecord>;

/// A namespace that is known as an object or by a pod that lives in it.
pub(super) struct NamespaceRecord {
    pub(super) name: Arc<str>,
    /// `None` while only its pods are known.
    pub(super) object: Option<Namespace>,
    pub(super) pods: HashSet<PeerId>,
    /// The namespace conditions in use that hold here.
    pub(super) parts: Vec<PartId>,
}

pub(super) type NamespaceId = Id<NamespaceRecord>;

/// Everything that peers are found by.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) peers: Slab<PeerRecord>,
    pub(super) peers_by_uid: HashMap<PodUid, PeerId>,
    pub(super) namespaces: Slab<NamespaceRecord>,
    pub(super) namespaces_by_name: HashMap<Arc<str>, NamespaceId>,
}

impl Objects {
    /// The namespace object of a name.
    pub(super) fn namespace(&self, name: &str) -> Option<&Namespace> {
        let id = self.namespaces_by_name.get(name)?;
        self.namespaces.get(*id)?.object.as_ref()
    }

    /// Of the pods that claim an address the one with the greatest rank has it: the newest, and of equally old ones the
    /// one with the greatest UID, so that every agent decides alike (statement 134).
    pub(super) fn rank(&self, pod: PeerId) -> Option<(i64, &PodUid)> {
        self.peers.get(pod).map(|record| (record.started, &record.uid))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.peers.iter().next().is_none() && self.peers_by_uid.is_empty() && self.namespaces_by_name.is_empty()
    }
}
