//! Validated domain types of Ringfence.
//!
//! Everything here is plain data that has already been checked: a value of these types can be compiled,
//! compared and printed without any error path. Parsing, Kubernetes types, wire formats, clocks and nftables
//! live in other crates and must stay there (invariant 1 of ARCHITECTURE.md).
//!
//! Reading order: names, then the vocabulary of policies (labels, addresses, ports), then the objects.

mod address;
mod diagnostic;
mod labels;
mod name;
mod object;
mod pod;
mod policy;
mod port;
mod written;

pub use address::{AddressRange, Family, IpBlock, RangeSet};
pub use diagnostic::{Consequence, Diagnostic, Reason, Severity};
pub use labels::{Labels, Requirement, Selector};
pub use name::{InterfaceName, InvalidName, NamespacedName, NetworkName, PodUid, PortName};
pub use object::{Namespace, Network, Object, ObjectKey, Source};
pub use pod::{Attachment, NamedPort, Pod};
pub use policy::{Coverage, Direction, Peer, Peers, Policy, PolicyKey, PolicyKind, PortMatch, Ports, Rule, Scope};
pub use port::{PortRange, PortSet, Protocol};
pub use written::{CrdVersion, Note, PolicyCrd};
