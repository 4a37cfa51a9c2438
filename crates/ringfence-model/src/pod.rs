//! Pods as policy sees them: labels, attachments, named ports, life.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::{InterfaceName, Labels, NamespacedName, NetworkName, PodUid, PortName, Protocol};

/// One interface of one pod, with its addresses on its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `None` where the annotation gives no name: its addresses still make it a peer, but it cannot be protected by
    /// name (an interface that nothing explains is closed while the pod is isolated anywhere).
    pub interface: Option<InterfaceName>,
    /// One network by name; the primary attachment is on [`NetworkName::Default`] as well.
    pub networks: BTreeSet<NetworkName>,
    /// Whether it carries the pod's address on the cluster network.
    pub primary: bool,
    /// Every address it has, sorted, both families (statement 136). May be empty (DPDK, L2 networks).
    pub addresses: BTreeSet<IpAddr>,
}

impl Attachment {
    /// The name to show to people: the one that is not `default` where there is one.
    pub fn network(&self) -> Option<&NetworkName> {
        self.networks
            .iter()
            .find(|name| **name != NetworkName::Default)
            .or_else(|| self.networks.first())
    }
}

/// A container port that has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Its name.
    pub name: PortName,
    /// Its protocol; TCP where the pod says nothing.
    pub protocol: Protocol,
    /// Its number, never 0.
    pub number: u16,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The key.
    pub uid: PodUid,
    /// The UID by which the container runtime knows it, where that is another one: the API has a mirror of a static pod
    /// (one that the kubelet has from a file on its node), with a UID of its own. It is no more than a claim.
    pub mirror_of: Option<PodUid>,
    /// Where it lives and what it is called.
    pub name: NamespacedName,
    /// `spec.nodeName`, absent before scheduling.
    pub node: Option<Arc<str>>,
    /// Its labels.
    pub labels: Labels,
    /// Its interfaces, in the order of their names, those without a name last.
    pub attachments: Vec<Attachment>,
    /// Named ports of its containers and of its restartable init containers (statement 94), sorted.
    pub ports: BTreeSet<NamedPort>,
    /// Shares the node's network: never a target, never a selector's peer (statements 21, 49).
    pub host_network: bool,
    /// Phase Succeeded or Failed: neither target nor peer (statement 132).
    pub terminal: bool,
    /// `status.startTime`, else the creation time, in seconds since 1970; decides whose an address is that two pods
    /// claim (statement 134).
    pub started: i64,
    /// Addresses of the node it runs on (`status.hostIPs`): allowed on the cluster network (statement 117).
    pub host_addresses: BTreeSet<IpAddr>,
}

impl Pod {
    /// Whether it can be a peer or a target at all.
    pub fn takes_part(&self) -> bool {
        !self.host_network && !self.terminal
    }
}
