//! What manifests say that the objects made of them no longer show.
//!
//! Enforcement has no use for any of it: a rule that policyTypes leaves out is simply not there. People who ask what is
//! surprising in their manifests want to hear of it all the same, so a survey of manifests carries these beside the
//! objects.

use std::sync::Arc;

use crate::{Direction, PortName, Protocol};

/// One such thing, with the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A policy has rules of a direction that its policyTypes leave out (statements 19, 20).
    IgnoredRules {
        /// The direction of the rules.
        direction: Direction,
    },
    /// A policy without policyTypes has `egress: []`, which isolates nothing (statement 24).
    EmptyEgress,
    /// `from`, `to` or `ports` is there and empty: everyone, or every port (statements 30, 31).
    EmptyList {
        /// Where: `spec.ingress[0].from`.
        path: String,
    },
    /// A named port of an ordinary init container, which does not count (statement 94).
    InitPort {
        /// Its name.
        name: PortName,
        /// Its protocol.
        protocol: Protocol,
    },
    /// An interface that a device of user space serves, as network-status tells: the kernel sees none of its packets
    /// (statement 167).
    UserspaceInterface {
        /// Its name in the pod, where the status gives one.
        interface: Arc<str>,
        /// The network as the status names it.
        network: Arc<str>,
        /// `vhost-user` or `memif`.
        device: Arc<str>,
    },
}

/// A CustomResourceDefinition of MultiNetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyCrd {
    /// `multi-networkpolicies.k8s.cni.cncf.io`.
    pub name: Arc<str>,
    /// The versions that it serves, in its own order.
    pub versions: Vec<CrdVersion>,
}

/// A version that a CustomResourceDefinition serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrdVersion {
    /// `v1beta1`.
    pub name: Arc<str>,
    /// Whether the API server keeps `endPort` in it. Where it does not, a range becomes its first port, and nobody
    /// behind the API server can tell (statement 224).
    pub keeps_end_port: bool,
}
