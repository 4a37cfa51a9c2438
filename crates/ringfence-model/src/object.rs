//! The objects that a source delivers, and how they are named.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::{Labels, NamespacedName, Pod, PodUid, Policy, PolicyKey};

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels, always with `kubernetes.io/metadata.name` (statement 46).
    pub labels: Labels,
    /// Has a deletionTimestamp: isolation outlives its policies (statement 138).
    pub terminating: bool,
    /// Carries the beta annotation that isolates the ingress of all its pods.
    pub isolate_ingress: bool,
}

/// A NetworkAttachmentDefinition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Types of all plugins in its configuration, in order (statement 163); empty where it has none inline.
    pub plugins: Vec<Arc<str>>,
    /// The `ipam.type`s in its configuration.
    pub ipam: BTreeSet<Arc<str>>,
}

/// Anything that a source delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A pod.
    Pod(Pod),
    /// A NetworkPolicy or MultiNetworkPolicy.
    Policy(Policy),
    /// A NetworkAttachmentDefinition.
    Network(Network),
}

impl Object {
    /// What it is known by.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Namespace(it) => ObjectKey::Namespace(it.name.clone()),
            Self::Pod(it) => ObjectKey::Pod(it.uid.clone()),
            Self::Policy(it) => ObjectKey::Policy(it.key.clone()),
            Self::Network(it) => ObjectKey::Network(it.name.clone()),
        }
    }
}

/// What an object is known by. Pods go by UID (statement 135).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A namespace by its name.
    Namespace(Arc<str>),
    /// A pod by its UID.
    Pod(PodUid),
    /// A policy by kind, namespace and name.
    Policy(PolicyKey),
    /// A NetworkAttachmentDefinition.
    Network(NamespacedName),
}

/// The manifest that a diagnostic speaks of, as people name it: `MultiNetworkPolicy x/guard`, `Pod x/web`,
/// `Namespace x`, or a file that could not be read at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The kind as manifests write it, or `File`.
    pub kind: Arc<str>,
    /// `namespace/name`, `name`, or a path.
    pub name: Arc<str>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
