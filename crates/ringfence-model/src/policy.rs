//! Policies after validation.
//!
//! Positions are those of the manifest: `ingress[0].from[1]` is `rules[0].peers[1]`, because a rejected clause stays
//! in its place as [`Peer::Nothing`] or [`PortMatch::Nothing`]. So a list never becomes empty, and thereby "all", by
//! losing an invalid element (statements 34 to 37, catalogue B5 and B6).

use std::collections::BTreeSet;
use std::fmt;

use crate::{IpBlock, NamespacedName, NetworkName, PortName, PortRange, Protocol, Selector};

/// Which API a policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `k8s.cni.cncf.io/v1beta1` MultiNetworkPolicy.
    MultiNetworkPolicy,
    /// The namespace annotation `net.beta.kubernetes.io/network-policy` with isolation `DefaultDeny`.
    NamespaceIsolation,
}

impl PolicyKind {
    /// The kind as manifests write it; `Namespace` for the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::MultiNetworkPolicy => "MultiNetworkPolicy",
            Self::NamespaceIsolation => "Namespace",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identity of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Which API.
    pub kind: PolicyKind,
    /// Namespace and name.
    pub name: NamespacedName,
}

/// `MultiNetworkPolicy x/guard`.
impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Seen from the pod that is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Connections that others open to the pod.
    Ingress,
    /// Connections that the pod opens.
    Egress,
}

impl Direction {
    /// Both, ingress first.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `ingress` or `egress`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which attachments NetworkPolicies without `policy-for` act on (`--network-policy-scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Every attachment except the primary one.
    #[default]
    Secondary,
    /// The primary attachment too.
    All,
    /// None: only policies that carry `policy-for` act.
    Annotated,
    /// None at all: NetworkPolicies are left to the cluster's own engine, with or without `policy-for`.
    None,
}

/// Which attachments one policy acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    /// Those that the [`Scope`] names.
    Scope,
    /// Those on one of these networks, whatever the scope (statements 146 to 151). Empty: none.
    Networks(BTreeSet<NetworkName>),
}

/// One element of `from` or `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Pods by their labels and their namespaces'.
    Pods {
        /// `None`: the policy's own namespace (statement 39).
        namespaces: Option<Selector>,
        /// Everything where the manifest gives only a namespaceSelector (statement 40).
        pods: Selector,
    },
    /// Addresses.
    IpBlock(IpBlock),
    /// A clause that was rejected or that can match nothing.
    Nothing,
}

/// `from` or `to` of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// The field is missing or empty (statements 29, 30).
    All,
    /// One of these. Never empty by loss: rejected peers are [`Peer::Nothing`].
    OneOf(Vec<Peer>),
}

/// One element of `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMatch {
    /// A number, a range, or a whole protocol.
    Range(PortRange),
    /// A name, resolved on the destination pod (statements 89 to 97).
    Named {
        /// The name to look for.
        name: PortName,
        /// It must have this protocol too.
        protocol: Protocol,
    },
    /// A clause that was rejected.
    Nothing,
}

/// `ports` of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// The field is missing or empty: every protocol (statement 31).
    All,
    /// One of these. Never empty by loss.
    OneOf(Vec<PortMatch>),
}

/// One element of `ingress` or `egress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Who.
    pub peers: Peers,
    /// And what.
    pub ports: Ports,
}

/// A policy. A direction that is `Some` isolates the pods that the target selects, even with no rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Kind, namespace, name.
    pub key: PolicyKey,
    /// Which interfaces of the selected pods.
    pub coverage: Coverage,
    /// Which pods of its namespace; `None` selects nothing (an invalid podSelector, statement 60).
    pub target: Option<Selector>,
    /// Ingress rules in their order, if Ingress is among the effective policyTypes.
    pub ingress: Option<Vec<Rule>>,
    /// Egress rules in their order, if Egress is among the effective policyTypes.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of a direction, `None` where the policy does not isolate it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}
