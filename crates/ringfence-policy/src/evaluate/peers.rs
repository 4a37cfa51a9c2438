//! One element of `from` or `to` against the other end's address.

use std::net::IpAddr;

use ringfence_model::{IpBlock, Peer, Pod, Policy, Selector};

use super::{AttachmentRef, Shortfall, Universe};

/// The other end as a protected interface sees it.
pub(super) struct Other<'a> {
    /// Its address in the packets.
    pub(super) address: IpAddr,
    /// The pods that hold the address on a network of the protected attachment: at most one per network, and almost
    /// always at most one in all.
    pub(super) holders: Vec<&'a Pod>,
    /// Every attachment that lists the address, on any network, of any pod: only for saying why something failed.
    pub(super) claimants: Vec<AttachmentRef<'a>>,
}

impl<'a> Other<'a> {
    /// Looks an address up from the point of view of an attachment (statements 47, 136, 154).
    pub(super) fn find(universe: &'a Universe, at: AttachmentRef<'_>, address: IpAddr) -> Self {
        let mut holders: Vec<&Pod> = Vec::new();
        // 154 to 156: only addresses on the protected interface's own networks count. The primary attachment is on
        // two networks, and packets do not say which of them they belong to.
        for network in &at.attachment.networks {
            if let Some(holder) = universe.holder(network, address)
                && !holders.iter().any(|known| known.uid == holder.pod.uid)
            {
                holders.push(holder.pod);
            }
        }
        Self {
            address,
            holders,
            claimants: universe.claimants(address),
        }
    }
}

/// Whether a peer matches: the pods that made it match (none for an ipBlock), or why it does not.
pub(super) fn peer_matches<'a>(
    universe: &Universe,
    policy: &Policy,
    peer: &Peer,
    other: &Other<'a>,
) -> Result<Vec<&'a Pod>, Shortfall> {
    match peer {
        // 36, 37, 60, 166: a rejected clause matches nothing.
        Peer::Nothing => Err(Shortfall::Invalid),
        // 74: any address, also a pod's. 96: it names no pod on which a named port could count.
        Peer::IpBlock(block) => block_matches(block, other.address).map(|()| Vec::new()),
        Peer::Pods { namespaces, pods } => {
            let mut matching = Vec::new();
            for pod in &other.holders {
                if selects(universe, policy, namespaces.as_ref(), pods, pod).is_ok() {
                    matching.push(*pod);
                }
            }
            if matching.is_empty() {
                Err(why_no_pod(universe, policy, namespaces.as_ref(), pods, other))
            } else {
                Ok(matching)
            }
        }
    }
}

/// 62, 71: within the prefix, of its family. 63, 68: not within an except, however that relates to the prefix.
fn block_matches(block: &IpBlock, address: IpAddr) -> Result<(), Shortfall> {
    if !block.cidr.contains(&address) {
        return Err(Shortfall::OutsideBlock(block.cidr));
    }
    for except in &block.except {
        if except.contains(&address) {
            return Err(Shortfall::Excepted(*except));
        }
    }
    Ok(())
}

/// 39 to 45: which pods the selectors of a peer mean.
fn selects(
    universe: &Universe,
    policy: &Policy,
    namespaces: Option<&Selector>,
    pods: &Selector,
    pod: &Pod,
) -> Result<(), Shortfall> {
    let namespace_fits = match namespaces {
        // 39, 44: without a namespaceSelector only the policy's own namespace.
        None => pod.name.namespace == policy.key.name.namespace,
        // 40, 43.
        Some(selector) => universe.namespace_matches(&pod.name.namespace, selector),
    };
    if !namespace_fits {
        return Err(Shortfall::Namespace(pod.name.clone()));
    }
    // 41: and by its own labels.
    if !pods.matches(&pod.labels) {
        return Err(Shortfall::PodLabels(pod.name.clone()));
    }
    Ok(())
}

/// Why a selector peer does not match. A pod that would fit but for its network, its life or its successor says more
/// than "no pod".
fn why_no_pod(
    universe: &Universe,
    policy: &Policy,
    namespaces: Option<&Selector>,
    pods: &Selector,
    other: &Other<'_>,
) -> Shortfall {
    let mut fitting = other.claimants.clone();
    fitting.retain(|claimant| selects(universe, policy, namespaces, pods, claimant.pod).is_ok());

    // Somebody holds the address, so nobody who fits does: has one of those lost it to the holder?
    for holder in &other.holders {
        for claimant in &fitting {
            let here = claimant.attachment.networks.iter().any(|network| {
                universe
                    .holder(network, other.address)
                    .is_some_and(|winner| winner.pod.uid == holder.uid)
            });
            if here && claimant.pod.takes_part() {
                return Shortfall::Superseded {
                    pod: claimant.pod.name.clone(),
                    holder: holder.name.clone(),
                };
            }
        }
        if let Err(why) = selects(universe, policy, namespaces, pods, holder) {
            return why;
        }
    }

    for claimant in &fitting {
        let pod = claimant.pod.name.clone();
        if claimant.pod.host_network {
            return Shortfall::HostNetwork(pod);
        }
        if claimant.pod.terminal {
            return Shortfall::Ended(pod);
        }
        if let Some(network) = claimant.attachment.network() {
            return Shortfall::OtherNetwork {
                pod,
                network: network.clone(),
            };
        }
    }
    Shortfall::NoPod(other.address)
}
