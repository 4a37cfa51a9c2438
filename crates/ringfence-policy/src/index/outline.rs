//! What decides nothing on another node, and is kept all the same so that questions about any pod can be answered
//! ([`super::Index::slice`]): where a pod runs and what its interfaces are. Many pods have it in common.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{Attachment, InterfaceName, NetworkName, Pod};

/// A pod without everything that is its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Outline {
    /// `spec.nodeName`.
    pub(super) node: Option<Arc<str>>,
    /// Addresses of the node.
    pub(super) host_addresses: BTreeSet<IpAddr>,
    /// Its attachments without their addresses.
    attachments: Vec<Shape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Shape {
    interface: Option<InterfaceName>,
    networks: BTreeSet<NetworkName>,
    primary: bool,
}

impl Outline {
    pub(super) fn of(pod: &Pod) -> Self {
        let shape = |attachment: &Attachment| Shape {
            interface: attachment.interface.clone(),
            networks: attachment.networks.clone(),
            primary: attachment.primary,
        };
        Self {
            node: pod.node.clone(),
            host_addresses: pod.host_addresses.clone(),
            attachments: pod.attachments.iter().map(shape).collect(),
        }
    }

    /// The attachments, where each has the addresses that the pod has on all of its networks: nearly always what they
    /// were.
    pub(super) fn attachments(&self, places: &BTreeMap<NetworkName, BTreeSet<IpAddr>>) -> Vec<Attachment> {
        let filled = |shape: &Shape| {
            let mut addresses: Option<BTreeSet<IpAddr>> = None;
            for network in &shape.networks {
                let there = places.get(network).cloned().unwrap_or_default();
                addresses = Some(match addresses {
                    None => there,
                    Some(before) => &before & &there,
                });
            }
            Attachment {
                interface: shape.interface.clone(),
                networks: shape.networks.clone(),
                primary: shape.primary,
                addresses: addresses.unwrap_or_default(),
            }
        };
        self.attachments.iter().map(filled).collect()
    }

    /// The attachments of a pod where [`Self::attachments`] would not give them back: two of them share a network, or
    /// one has addresses on no network.
    pub(super) fn exceptions(pod: &Pod) -> Option<Box<[Attachment]>> {
        let mut seen = BTreeSet::new();
        let plain = pod.attachments.iter().all(|attachment| {
            let on_some = !attachment.networks.is_empty() || attachment.addresses.is_empty();
            on_some && attachment.networks.iter().all(|network| seen.insert(network))
        });
        (!plain).then(|| pod.attachments.clone().into_boxed_slice())
    }
}
