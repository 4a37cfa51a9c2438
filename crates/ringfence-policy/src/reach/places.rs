//! Everybody on a network, with numbers: attachments, and the addresses by which they are judged ("slots").

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{Family, IpBlock, NetworkName, Pod};

use super::bits::Bits;
use super::first_of;
use super::layer::Layer;
use crate::evaluate::{AttachmentRef, Universe};

/// See the module. Cheap to clone but for the views.
pub(super) struct Places<'a> {
    pub(super) attachments: Vec<AttachmentRef<'a>>,
    /// The number of each attachment's pod: equal for the attachments of one pod.
    pub(super) pods: Vec<usize>,
    /// The lowest address of each family of each attachment.
    pub(super) slots: Arc<[IpAddr]>,
    /// Which slots are an attachment's, IPv4 first.
    own: Vec<[Option<usize>; 2]>,
    /// The slots in the order of their addresses, for blocks.
    sorted: Arc<[usize]>,
    pub(super) loopback: Bits,
    /// The attachments by the networks they are on.
    pub(super) on: HashMap<NetworkName, Bits>,
    pub(super) primary: Bits,
    pub(super) views: Vec<View>,
}

/// Attachments on the same networks see the same pods behind addresses (statement 154).
pub(super) struct View {
    /// The attachments.
    pub(super) members: Bits,
    /// Who holds the address of each slot. Several only where an address is held by different pods on the networks of
    /// one attachment: the second holder is in the second layer.
    pub(super) layers: Vec<Layer>,
}

/// What a matrix needs: all but the views.
impl Clone for Places<'_> {
    fn clone(&self) -> Self {
        Self {
            attachments: self.attachments.clone(),
            pods: self.pods.clone(),
            slots: Arc::clone(&self.slots),
            own: self.own.clone(),
            sorted: Arc::clone(&self.sorted),
            loopback: self.loopback.clone(),
            on: HashMap::new(),
            primary: self.primary.clone(),
            views: Vec::new(),
        }
    }
}

impl<'a> Places<'a> {
    pub(super) fn new(universe: &'a Universe, network: &NetworkName) -> Self {
        let attachments = universe.attachments_on(network);
        let count = attachments.len();
        let mut slots: Vec<IpAddr> = Vec::new();
        let mut own = Vec::with_capacity(count);
        let mut pods: Vec<usize> = Vec::with_capacity(count);
        let mut on: HashMap<NetworkName, Bits> = HashMap::new();
        let mut primary = Bits::none(count);
        for (position, at) in attachments.iter().enumerate() {
            own.push(Family::BOTH.map(|family| {
                first_of(*at, family).map(|address| {
                    slots.push(address);
                    slots.len() - 1
                })
            }));
            // Attachments of one pod stand side by side.
            let same = position
                .checked_sub(1)
                .filter(|before| attachments[*before].pod.uid == at.pod.uid);
            pods.push(same.map_or(position, |before| pods[before]));
            for network in &at.attachment.networks {
                let attached = on.entry(network.clone()).or_insert_with(|| Bits::none(count));
                attached.insert(position);
            }
            if at.attachment.primary {
                primary.insert(position);
            }
        }
        let mut sorted: Vec<usize> = (0..slots.len()).collect();
        sorted.sort_by_key(|slot| slots[*slot]);
        let mut loopback = Bits::none(slots.len());
        for (slot, _) in slots.iter().enumerate().filter(|(_, address)| address.is_loopback()) {
            loopback.insert(slot);
        }
        let views = views(universe, &attachments, &slots);
        Self {
            attachments,
            pods,
            slots: slots.into(),
            own,
            sorted: sorted.into(),
            loopback,
            on,
            primary,
            views,
        }
    }

    /// The slots by which a pair is judged: of the first address family that both have.
    pub(super) fn slots_of(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let (ours, theirs) = (self.own.get(from)?, self.own.get(to)?);
        ours.iter().zip(theirs).find_map(|pair| match pair {
            (Some(ours), Some(theirs)) => Some((*ours, *theirs)),
            _ => None,
        })
    }

    /// Adds the addresses in a block (statements 62, 63, 68, 71).
    pub(super) fn add_block(&self, block: &IpBlock, out: &mut Bits) {
        let first = block.cidr.network();
        let start = self.sorted.partition_point(|slot| self.slots[*slot] < first);
        let rest = self.sorted[start..].iter();
        for slot in rest.take_while(|slot| block.cidr.contains(&self.slots[**slot])) {
            let address = &self.slots[*slot];
            if !block.except.iter().any(|except| except.contains(address)) {
                out.insert(*slot);
            }
        }
    }

    /// Adds the addresses of the node that a pod runs on.
    pub(super) fn add_node(&self, universe: &Universe, at: AttachmentRef<'_>, out: &mut Bits) {
        let node = at.pod.node.as_ref().and_then(|node| universe.node_addresses.get(node));
        let addresses = at.pod.host_addresses.iter().chain(node.into_iter().flatten());
        for address in addresses {
            let start = self.sorted.partition_point(|slot| self.slots[*slot] < *address);
            let rest = self.sorted[start..].iter();
            for slot in rest.take_while(|slot| self.slots[**slot] == *address) {
                out.insert(*slot);
            }
        }
    }
}

fn views(universe: &Universe, attachments: &[AttachmentRef<'_>], slots: &[IpAddr]) -> Vec<View> {
    let mut members: Vec<(&BTreeSet<NetworkName>, Bits)> = Vec::new();
    for (position, at) in attachments.iter().enumerate() {
        let networks = &at.attachment.networks;
        let known = members.iter().position(|(known, _)| *known == networks);
        let view = known.unwrap_or_else(|| {
            members.push((networks, Bits::none(attachments.len())));
            members.len() - 1
        });
        members[view].1.insert(position);
    }
    let holders = holders(universe, members.iter().flat_map(|(networks, _)| *networks), slots);
    let view = |(networks, members): (&BTreeSet<NetworkName>, Bits)| {
        let mut layers: Vec<Vec<(usize, &Pod)>> = Vec::new();
        for (slot, address) in slots.iter().enumerate() {
            let mut seen: Vec<&Pod> = Vec::new();
            for pod in networks.iter().filter_map(|network| holders.get(&(network, *address))) {
                if seen.iter().any(|known| known.uid == pod.uid) {
                    continue;
                }
                if layers.len() == seen.len() {
                    layers.push(Vec::new());
                }
                layers[seen.len()].push((slot, *pod));
                seen.push(pod);
            }
        }
        View {
            members,
            layers: layers.into_iter().map(|pods| Layer::new(slots.len(), pods)).collect(),
        }
    };
    members.into_iter().map(view).collect()
}

/// Whose these addresses are on these networks (statement 134).
fn holders<'a, 'n>(
    universe: &'a Universe,
    networks: impl Iterator<Item = &'n NetworkName>,
    slots: &[IpAddr],
) -> HashMap<(&'a NetworkName, IpAddr), &'a Pod>
where
    'n: 'a,
{
    let networks: HashSet<&NetworkName> = networks.collect();
    let wanted: HashSet<&IpAddr> = slots.iter().collect();
    let mut holders: HashMap<(&NetworkName, IpAddr), &Pod> = HashMap::new();
    for pod in universe.pods.values().filter(|pod| pod.takes_part()) {
        for attachment in &pod.attachments {
            for network in attachment.networks.iter().filter(|network| networks.contains(network)) {
                for address in attachment.addresses.iter().filter(|address| wanted.contains(address)) {
                    let holder = holders.entry((network, *address)).or_insert(pod);
                    if (pod.started, &pod.uid) > (holder.started, &holder.uid) {
                        *holder = pod;
                    }
                }
            }
        }
    }
    holders
}
