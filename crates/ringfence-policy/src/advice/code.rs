//! The codes: stable, listed in `docs/checks.md`, never given to another finding.

use std::fmt;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Worth knowing; nothing needs to be done.
    Info,
    /// Legal, but likely not what was meant.
    Warning,
    /// Something was rejected.
    Error,
}

impl Level {
    /// `info`, `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal $level:ident,)*) => {
        /// What is legal but surprising. The hundreds are families: 1 what a policy acts on, 2 peers, 3 ports, 4 rules,
        /// 5 pods and their interfaces, 6 the cluster.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable name: `RF112`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// How much it matters.
            pub fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)* }
            }
        }
    };
}

codes! {
    /// No pod of the policy's namespace has these labels.
    SelectsNothing = "RF101" Warning,
    /// Neither the policy's namespace nor a pod in it is in the manifests.
    UnknownNamespace = "RF102" Warning,
    /// Every pod that the policy selects is on the node's network (statement 21).
    SelectsHostNetwork = "RF103" Warning,
    /// policy-for names what nobody has.
    UnknownNetwork = "RF111" Warning,
    /// A bare name in policy-for means the policy's namespace, and the network is in another (statement 146).
    NetworkElsewhere = "RF112" Warning,
    /// The network is defined and no pod is on it (statement 162).
    NetworkUnused = "RF113" Info,
    /// Pods are on the network and its definition is not in the manifests.
    NetworkUndefined = "RF114" Info,
    /// None of the selected pods is on a listed network (statement 152).
    NotAttached = "RF115" Warning,
    /// The scope leaves a NetworkPolicy without policy-for to the cluster's own engine (statement 151).
    LeftToCluster = "RF116" Info,
    /// The scope `none` leaves a NetworkPolicy with policy-for without effect (statement 151).
    PolicyForUnused = "RF117" Warning,
    /// A peer selects no pod (statement 34).
    PeerSelectsNoPod = "RF201" Warning,
    /// A namespaceSelector selects no namespace (statement 34).
    PeerSelectsNoNamespace = "RF202" Warning,
    /// All pods of a peer are on the node's network (statement 49).
    PeerHostNetwork = "RF203" Warning,
    /// No pod of a peer has an address on a network that the policy protects (statements 154, 156).
    PeerNotOnNetwork = "RF204" Warning,
    /// Two list items, one for namespaces and one for pods, where one was likely meant (statement 42).
    SplitPeer = "RF205" Warning,
    /// Labels of a namespace are asked for whose object is not in the manifests.
    NamespaceLabelsUnknown = "RF206" Info,
    /// An except is granted again in full (statements 64 to 67).
    ExceptGranted = "RF211" Warning,
    /// A part of an except, or every pod in it, is granted again (statements 64 to 67).
    ExceptPartlyGranted = "RF212" Info,
    /// An except lies within another one of its ipBlock.
    ExceptRedundant = "RF213" Info,
    /// A peer adds nothing to the others of its rule (statements 69, 70).
    PeerRedundant = "RF214" Info,
    /// Every address of one IP version is allowed, and the pods have both (statement 71).
    OneFamily = "RF215" Warning,
    /// No destination pod declares the named port (statement 93).
    PortUndeclared = "RF301" Warning,
    /// The destination pods declare the named port with another protocol (statement 92).
    PortOtherProtocol = "RF302" Warning,
    /// Only ordinary init containers declare the named port (statement 94).
    PortInitOnly = "RF303" Warning,
    /// A named port of an egress rule beside an ipBlock (statement 96).
    PortOnBlock = "RF304" Warning,
    /// The named port has different numbers on different pods (statement 91).
    PortDiffers = "RF305" Info,
    /// Rules of a direction that policyTypes leave out (statements 19, 20).
    RulesIgnored = "RF401" Warning,
    /// `egress: []` without policyTypes isolates nothing (statement 24).
    EmptyEgress = "RF402" Warning,
    /// A rule allows everything, so the others of its direction say nothing (statement 33).
    AllowAllBeside = "RF403" Warning,
    /// An empty list, which means everyone or every port (statements 30, 31).
    EmptyList = "RF404" Warning,
    /// The egress policies of a pod together leave no way to DNS.
    DnsClosed = "RF405" Warning,
    /// An isolated interface whose addresses nobody knows (statement 50).
    NoAddress = "RF501" Info,
    /// Peers are selected on a network that gives no addresses (statement 164).
    NoIpam = "RF502" Warning,
    /// An interface that is served by user space cannot be enforced (statement 167).
    Userspace = "RF503" Warning,
    /// An isolated interface whose name nobody knows.
    UnnamedInterface = "RF504" Warning,
    /// The beta annotation isolates a namespace.
    NamespaceIsolation = "RF505" Info,
    /// A definition of MultiNetworkPolicy loses endPort (statement 224).
    DefinitionWithoutEndPort = "RF601" Warning,
    /// A policy uses endPort and the definition loses it (statement 224).
    EndPortLost = "RF602" Warning,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
