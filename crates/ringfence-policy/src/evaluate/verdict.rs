//! The answer: allow or deny per direction, with everything that led to it (statement 232).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use ringfence_model::{NamespacedName, NetworkName, PolicyKey, PortName, PortRange, Protocol};

use super::L4;

/// Allow or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// The connection passes.
    Allow,
    /// It does not.
    Deny,
}

impl Decision {
    /// `allow` or `deny`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Both directions of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// At the sender.
    pub egress: DirectionVerdict,
    /// At the receiver.
    pub ingress: DirectionVerdict,
}

impl Verdict {
    pub(super) fn both(half: &DirectionVerdict) -> Self {
        Self {
            egress: half.clone(),
            ingress: half.clone(),
        }
    }

    /// Allow only where both ends allow (statement 8).
    pub fn decision(&self) -> Decision {
        if self.egress.decision == Decision::Allow && self.ingress.decision == Decision::Allow {
            Decision::Allow
        } else {
            Decision::Deny
        }
    }
}

/// One direction of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectionVerdict {
    /// Allow or deny.
    pub decision: Decision,
    /// What decided it.
    pub because: Because,
    /// The policies that isolate this attachment in this direction, sorted; for [`Because::Unnamed`] those that isolate
    /// the pod anywhere. Not looked for where the end is no pod or talks to itself.
    pub isolating: Vec<PolicyKey>,
    /// Every clause that allows it, sorted by policy, then in the order of the manifest.
    pub allowed_by: Vec<Allowance>,
    /// For a deny: the clauses that failed on one point only, sorted by policy, then in the order of the manifest.
    pub near_misses: Vec<NearMiss>,
}

impl DirectionVerdict {
    pub(super) fn allow(because: Because) -> Self {
        Self {
            decision: Decision::Allow,
            because,
            isolating: Vec::new(),
            allowed_by: Vec::new(),
            near_misses: Vec::new(),
        }
    }
}

/// What decided a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Because {
    /// This end is an address that no pod holds: nobody enforces anything there.
    NoPod,
    /// This end names a pod or an attachment that is not known.
    UnknownPod,
    /// This end is a pod on the node's own network: never a target (statement 21).
    HostNetwork,
    /// This end is a pod that has succeeded or failed (statement 132).
    Ended,
    /// A loopback address (statement 118).
    Loopback,
    /// Both ends are one pod (statements 119, 169).
    SamePod,
    /// The attachment has no interface name, and a policy isolates the pod on one of its attachments: which interface
    /// is meant cannot be known, so it is closed, whatever the policies allow (statement 168).
    Unnamed,
    /// No policy isolates the attachment in this direction (statement 1).
    NotIsolated,
    /// From the pod's node, on the cluster network (statement 117).
    NodeTraffic,
    /// IPv6 neighbour and multicast listener discovery (statement 121).
    NeighbourDiscovery,
    /// A router's message out of an isolated pod, which no rule can allow (statement 121).
    RouterMessage,
    /// DHCP on a network whose addresses come by DHCP (statement 123).
    Dhcp,
    /// A rule allows it (statement 4).
    Allowed,
    /// The attachment is isolated, and no rule allows it (statement 4).
    NothingAllows,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPod => "this end is no pod on this network",
            Self::UnknownPod => "this end is a pod or an interface that is not known",
            Self::HostNetwork => "this end uses the node's network, and policies never select such pods",
            Self::Ended => "this end is a pod that has ended",
            Self::Loopback => "loopback is never filtered",
            Self::SamePod => "a pod always reaches itself",
            Self::Unnamed => {
                "the interface has no known name, and such interfaces are closed while the pod is isolated"
            }
            Self::NotIsolated => "no policy isolates this interface in this direction",
            Self::NodeTraffic => "traffic from the pod's node is never blocked on the cluster network",
            Self::NeighbourDiscovery => "IPv6 neighbour discovery always passes",
            Self::RouterMessage => "an isolated pod may not send router advertisements or redirects",
            Self::Dhcp => "this network gets its addresses by DHCP",
            Self::Allowed => "a rule allows it",
            Self::NothingAllows => "the interface is isolated and no rule allows it",
        })
    }
}

/// A peer and a port entry of one rule that together allow a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allowance {
    /// Policy and peer: `ingress[0].from[1]`, or `ingress[0]` where the rule has no `from`.
    pub peer: Clause,
    /// `ingress[0].ports[2]`; `None` where the rule has no `ports`.
    pub port: Option<String>,
}

/// `MultiNetworkPolicy x/guard ingress[0].from[1] ingress[0].ports[2]`.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Some(port) => write!(f, "{} {port}", self.peer),
            None => write!(f, "{}", self.peer),
        }
    }
}

/// A part of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clause {
    /// Which policy.
    pub policy: PolicyKey,
    /// Where in its spec: `ingress[0].from[1]`.
    pub path: String,
}

/// `MultiNetworkPolicy x/guard ingress[0].from[1]`.
impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.path)
    }
}

/// A clause that failed although everything else of its rule would have matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NearMiss {
    /// Which clause.
    pub clause: Clause,
    /// On what it failed.
    pub why: Shortfall,
}

/// On what a clause failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Shortfall {
    /// The clause was rejected as invalid and matches nothing (statements 36, 37, 60, 86, 87, 166).
    Invalid,
    /// The address is not in the block.
    OutsideBlock(IpNet),
    /// The block's `except` takes the address away (statement 63).
    Excepted(IpNet),
    /// No pod has this address on any network of the protected interface.
    NoPod(IpAddr),
    /// The pod's labels do not fit.
    PodLabels(NamespacedName),
    /// The pod lives in a namespace that does not fit.
    Namespace(NamespacedName),
    /// The selectors fit, but the address is the pod's on another network (statements 154 to 156).
    OtherNetwork {
        /// Whose address it is.
        pod: NamespacedName,
        /// Where.
        network: NetworkName,
    },
    /// The selectors fit, but the pod shares the node's network (statement 49).
    HostNetwork(NamespacedName),
    /// The selectors fit, but the pod has ended (statement 132).
    Ended(NamespacedName),
    /// The selectors fit, but a newer pod holds the address (statement 134).
    Superseded {
        /// Who lost it.
        pod: NamespacedName,
        /// To whom.
        holder: NamespacedName,
    },
    /// The entry is for other ports.
    OtherPort {
        /// What it allows.
        allowed: PortRange,
        /// What was asked.
        asked: L4,
    },
    /// The entry's name stands for other ports of this pod (statement 91).
    NamedPortElsewhere {
        /// Which pod.
        pod: NamespacedName,
        /// The name.
        name: PortName,
        /// The entry's protocol.
        protocol: Protocol,
        /// What the name stands for, ascending.
        numbers: Vec<u16>,
        /// What was asked.
        asked: L4,
    },
    /// The pod declares no port of this name and protocol (statements 92, 93).
    NamedPortUndeclared {
        /// Which pod.
        pod: NamespacedName,
        /// The name.
        name: PortName,
        /// The entry's protocol.
        protocol: Protocol,
    },
    /// There is no pod on which an egress rule's named port could be looked up (statements 96, 97).
    NamedPortWithoutPod(PortName),
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("the clause is invalid and matches nothing"),
            Self::OutsideBlock(cidr) => write!(f, "the address is not in {cidr}"),
            Self::Excepted(except) => write!(f, "the address is excepted by {except}"),
            Self::NoPod(address) => write!(f, "no pod has the address {address} on this network"),
            Self::PodLabels(pod) => write!(f, "the labels of pod {pod} do not match"),
            Self::Namespace(pod) => write!(f, "the namespace of pod {pod} does not match"),
            Self::OtherNetwork { pod, network } => {
                write!(
                    f,
                    "pod {pod} would match, but the address is its address on network {network}"
                )
            }
            Self::HostNetwork(pod) => write!(
                f,
                "pod {pod} would match, but it uses the node's network, and selectors never match such pods"
            ),
            Self::Ended(pod) => write!(f, "pod {pod} would match, but it has ended"),
            Self::Superseded { pod, holder } => {
                write!(f, "pod {pod} would match, but the address now belongs to pod {holder}")
            }
            Self::OtherPort { allowed, asked } => {
                write!(f, "it allows {}, not {asked}", RangeText(*allowed))
            }
            Self::NamedPortElsewhere {
                pod,
                name,
                protocol,
                numbers,
                asked,
            } => {
                write!(f, "port {name} of pod {pod} is {protocol} ")?;
                for (position, number) in numbers.iter().enumerate() {
                    write!(f, "{}{number}", if position == 0 { "" } else { ", " })?;
                }
                write!(f, ", not {asked}")
            }
            Self::NamedPortUndeclared { pod, name, protocol } => {
                write!(f, "pod {pod} declares no {protocol} port named {name}")
            }
            Self::NamedPortWithoutPod(name) => write!(
                f,
                "port name {name} can only be looked up on a pod that a selector or a missing `to` matches"
            ),
        }
    }
}

/// `TCP 80`, `TCP 80-90`, `all TCP ports`.
struct RangeText(PortRange);

impl fmt::Display for RangeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortRange { protocol, first, last } = self.0;
        if self.0.is_whole() {
            write!(f, "all {protocol} ports")
        } else if first == last {
            write!(f, "{protocol} {first}")
        } else {
            write!(f, "{protocol} {first}-{last}")
        }
    }
}
