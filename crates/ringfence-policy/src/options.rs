//! What the index is told from outside, beside the objects.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{InterfaceName, Pod, Scope};
use ringfence_ruleset::KernelFeatures;

/// Which pods get rulesets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locality {
    /// Those whose `spec.nodeName` is this.
    Node(Arc<str>),
    /// Every one: for commands that look at manifests instead of a node.
    All,
}

impl Locality {
    /// Whether the pod is one to protect. Pods on the host's network never are (statement 21): what is in their
    /// network namespace is the node's.
    pub fn holds(&self, pod: &Pod) -> bool {
        !pod.host_network
            && match self {
                Self::All => true,
                Self::Node(node) => pod.node.as_ref() == Some(node),
            }
    }
}

/// Fixed for the life of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which pods get rulesets.
    pub locality: Locality,
    /// Which attachments NetworkPolicies without `policy-for` act on.
    pub scope: Scope,
    /// What the kernel can do.
    pub kernel: KernelFeatures,
    /// Addresses of this node, from which it may always reach its pods on the cluster network (statement 117).
    pub node_addresses: BTreeSet<IpAddr>,
}

/// What was found in one local pod's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetFacts {
    /// The interfaces that exist: a chain on a device that does not exist would be refused with its whole transaction.
    pub interfaces: BTreeSet<InterfaceName>,
    /// Gateways of the default routes: on the cluster network these are addresses of the node (statement 117).
    pub gateways: BTreeSet<IpAddr>,
}
