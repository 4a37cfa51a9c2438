//! What was wrong with an input, where, and what Ringfence does about it (invariant 4: nothing invalid vanishes).

use std::fmt;

use crate::Source;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Legal, but likely not what was meant.
    Warning,
    /// A clause or an object was rejected.
    Error,
}

/// Why a clause was rejected or noticed: a closed list, because it becomes a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A file or folder is gone, or the system does not let it be read.
    Unreadable,
    /// The file or document is not YAML or JSON.
    Syntax,
    /// The document has no kind or apiVersion that Ringfence reads.
    UnknownKind,
    /// A field has the wrong type or a required field is missing.
    Schema,
    /// A CIDR that cannot be parsed, or an IPv4-mapped one (statements 73, 221).
    InvalidCidr,
    /// An except outside of its cidr, of another family, or covering it (statements 68, 222).
    InvalidExcept,
    /// A port number or name that does not exist (statements 87, 219, 220).
    InvalidPort,
    /// An endPort without a number before it or below it (statement 86).
    InvalidEndPort,
    /// A protocol other than TCP, UDP and SCTP (statement 218).
    UnknownProtocol,
    /// A selector that breaks the rules of its operators (statements 59, 223).
    InvalidSelector,
    /// A peer with nothing in it, or with an ipBlock beside a selector (statements 36, 37).
    InvalidPeer,
    /// policyTypes other than Ingress and Egress (statement 27).
    InvalidPolicyType,
    /// A MultiNetworkPolicy without policy-for (statement 148).
    NoNetworks,
    /// An item of policy-for that names no network (statement 149).
    InvalidNetworkName,
    /// An annotation that cannot be parsed, or a part of one.
    InvalidAnnotation,
    /// An address in an annotation that no pod can have.
    InvalidAddress,
    /// An interface name that no interface can have.
    InvalidInterface,
    /// Two annotations, or an annotation and the status, that contradict each other.
    StaleAnnotation,
    /// An annotation beyond the size that Kubernetes allows.
    TooLarge,
    /// One object given twice.
    Duplicate,
    /// One address on one network claimed by two pods (statement 134).
    DuplicateAddress,
}

impl Reason {
    /// Every reason, for metrics that show zero before the first case.
    pub const ALL: [Self; 21] = [
        Self::Unreadable,
        Self::Syntax,
        Self::UnknownKind,
        Self::Schema,
        Self::InvalidCidr,
        Self::InvalidExcept,
        Self::InvalidPort,
        Self::InvalidEndPort,
        Self::UnknownProtocol,
        Self::InvalidSelector,
        Self::InvalidPeer,
        Self::InvalidPolicyType,
        Self::NoNetworks,
        Self::InvalidNetworkName,
        Self::InvalidAnnotation,
        Self::InvalidAddress,
        Self::InvalidInterface,
        Self::StaleAnnotation,
        Self::TooLarge,
        Self::Duplicate,
        Self::DuplicateAddress,
    ];

    /// As a metric label: `invalid_cidr`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax",
            Self::UnknownKind => "unknown_kind",
            Self::Schema => "schema",
            Self::InvalidCidr => "invalid_cidr",
            Self::InvalidExcept => "invalid_except",
            Self::InvalidPort => "invalid_port",
            Self::InvalidEndPort => "invalid_end_port",
            Self::UnknownProtocol => "unknown_protocol",
            Self::InvalidSelector => "invalid_selector",
            Self::InvalidPeer => "invalid_peer",
            Self::InvalidPolicyType => "invalid_policy_type",
            Self::NoNetworks => "no_networks",
            Self::InvalidNetworkName => "invalid_network_name",
            Self::InvalidAnnotation => "invalid_annotation",
            Self::InvalidAddress => "invalid_address",
            Self::InvalidInterface => "invalid_interface",
            Self::StaleAnnotation => "stale_annotation",
            Self::TooLarge => "too_large",
            Self::Duplicate => "duplicate",
            Self::DuplicateAddress => "duplicate_address",
        }
    }

    /// The stable code under which the documentation lists it: `RF005`. A code is never given to another reason, so a
    /// reason that goes takes its code with it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "RF001",
            Self::Syntax => "RF002",
            Self::UnknownKind => "RF003",
            Self::Schema => "RF004",
            Self::InvalidCidr => "RF005",
            Self::InvalidExcept => "RF006",
            Self::InvalidPort => "RF007",
            Self::InvalidEndPort => "RF008",
            Self::UnknownProtocol => "RF009",
            Self::InvalidSelector => "RF010",
            Self::InvalidPeer => "RF011",
            Self::InvalidPolicyType => "RF012",
            Self::NoNetworks => "RF013",
            Self::InvalidNetworkName => "RF014",
            Self::InvalidAnnotation => "RF015",
            Self::InvalidAddress => "RF016",
            Self::InvalidInterface => "RF017",
            Self::StaleAnnotation => "RF018",
            Self::TooLarge => "RF019",
            Self::Duplicate => "RF020",
            Self::DuplicateAddress => "RF021",
        }
    }
}

/// What follows from a rejected clause: a closed list of outcomes, so that none is "it was ignored somehow".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consequence {
    /// The clause matches nothing; the policy still isolates.
    MatchesNothing,
    /// The policy selects no pod.
    SelectsNothing,
    /// The policy acts on no network.
    ActsNowhere,
    /// This part is not looked at; everything else counts.
    PartIgnored,
    /// The object is not used; what was known of it before stays.
    ObjectIgnored,
    /// The last good content stays in force.
    KeepsLast,
    /// Nothing: it is only worth knowing.
    None,
}

impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MatchesNothing => "it matches nothing; the policy still isolates",
            Self::SelectsNothing => "the policy selects no pod",
            Self::ActsNowhere => "the policy acts on no network",
            Self::PartIgnored => "this part is ignored; the rest counts",
            Self::ObjectIgnored => "the object is ignored",
            Self::KeepsLast => "what was read before stays in force",
            Self::None => "nothing changes",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Which manifest.
    pub source: Source,
    /// Where in it: `spec.ingress[0].from[1].ipBlock.cidr`, `metadata.annotations[cni]`; empty for the whole.
    pub path: String,
    /// How bad.
    pub severity: Severity,
    /// Why, as a label.
    pub reason: Reason,
    /// Why, in words, with the offending value cut to a readable length, and what to do.
    pub message: String,
    /// What follows.
    pub consequence: Consequence,
}

/// One line: `MultiNetworkPolicy x/guard: spec.ingress[0].from[1].ipBlock.cidr: "10.0.0.0/40" is no CIDR …; it matches
/// nothing; the policy still isolates`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.message, self.consequence)
    }
}
