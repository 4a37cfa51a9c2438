//! What readers see: an immutable picture of the agent's state, published once a turn.
//!
//! The maps are persistent, so a turn costs what it changed and a reader keeps its picture as long as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use imbl::OrdMap;
use ringfence_kube::announce::Announcer;
use ringfence_model::{
    Coverage, Diagnostic, Direction, InterfaceName, NamespacedName, NetworkName, Pod, PolicyKey, PolicyKind, Scope,
    Severity, Source,
};
use ringfence_ruleset::Ruleset;
use tokio::sync::watch;

use crate::applier::Mailbox;
use crate::findings::FindingKey;

/// A picture of the agent's state.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Name of this node.
    pub node: Arc<str>,
    /// What NetworkPolicies without `policy-for` act on.
    pub scope: Scope,
    /// Where objects come from: `dir:/etc/manifests`.
    pub source: Arc<str>,
    /// How the container runtime is that says where the pods' network namespaces are; `None` where none is asked. Not a
    /// part of the picture: it is read when it is asked for.
    pub runtime: Option<watch::Receiver<ringfence_cri::Health>>,
    /// What has become of Events, read when it is asked for too.
    pub announcer: Announcer,
    /// Whether the source has delivered everything once. Nothing is written before.
    pub synced: bool,
    /// Whether every local pod has had its first turn: enforced, refused, or found without a network namespace.
    pub settled: bool,
    /// The local pods.
    pub pods: OrdMap<NamespacedName, Arc<PodStatus>>,
    /// All policies.
    pub policies: OrdMap<PolicyKey, PolicySummary>,
    /// All networks that a pod is on or that a NetworkAttachmentDefinition declares.
    pub networks: OrdMap<NetworkName, NetworkSummary>,
    /// What is wrong with the inputs, as it stands.
    pub findings: OrdMap<FindingKey, Arc<[Diagnostic]>>,
}

impl Snapshot {
    /// The picture before the first event.
    pub fn empty(node: Arc<str>, scope: Scope, source: Arc<str>) -> Self {
        Self {
            node,
            scope,
            source,
            runtime: None,
            announcer: Announcer::default(),
            synced: false,
            settled: false,
            pods: OrdMap::new(),
            policies: OrdMap::new(),
            networks: OrdMap::new(),
            findings: OrdMap::new(),
        }
    }

    /// Local pods of that name, whatever their namespaces.
    pub fn pods_named(&self, name: &str) -> Vec<&Arc<PodStatus>> {
        self.pods
            .values()
            .filter(|status| *status.pod.name.name == *name)
            .collect()
    }

    /// Findings about one policy.
    pub fn findings_of(&self, policy: &PolicyKey) -> impl Iterator<Item = &Diagnostic> + use<'_> {
        let name: Arc<str> = match policy.kind {
            PolicyKind::NamespaceIsolation => policy.name.namespace.clone(),
            _ => policy.name.to_string().into(),
        };
        self.findings_about(policy.kind.as_str(), &name)
    }

    /// Findings about one manifest.
    pub fn findings_about(&self, kind: &str, name: &str) -> impl Iterator<Item = &Diagnostic> + use<'_> {
        FindingKey::all_about(kind, name)
            .into_iter()
            .filter_map(|key| self.findings.get(&key))
            .flat_map(|findings| findings.iter())
    }

    /// Policies that were rejected as a whole, so that nothing of them is in force: only findings are left of them.
    pub fn rejected_policies(&self) -> BTreeSet<PolicyKey> {
        let kinds = [PolicyKind::NetworkPolicy, PolicyKind::MultiNetworkPolicy];
        let key = |source: &Source| {
            let kind = kinds.into_iter().find(|kind| kind.as_str() == &*source.kind)?;
            let (namespace, name) = source.name.split_once('/')?;
            let name = NamespacedName::new(namespace, name);
            Some(PolicyKey { kind, name })
        };
        self.findings
            .keys()
            .filter_map(|finding| key(&finding.source))
            .filter(|key| !self.policies.contains_key(key))
            .collect()
    }

    /// How many local pods each policy isolates, in each direction.
    pub fn isolated_by(&self) -> BTreeMap<&PolicyKey, Isolated> {
        let mut counts: BTreeMap<&PolicyKey, Isolated> = BTreeMap::new();
        for status in self.pods.values() {
            for direction in Direction::BOTH {
                let policies: BTreeSet<&PolicyKey> = status
                    .isolation
                    .iter()
                    .filter(|isolation| isolation.direction == direction)
                    .flat_map(|isolation| &isolation.policies)
                    .collect();
                for policy in policies {
                    let count = counts.entry(policy).or_default();
                    match direction {
                        Direction::Ingress => count.ingress += 1,
                        Direction::Egress => count.egress += 1,
                    }
                }
            }
        }
        counts
    }

    /// What has become of a policy on this node.
    pub fn policy_state(&self, key: &PolicyKey, summary: &PolicySummary, isolated: Isolated) -> PolicyState {
        let ignored = match (&summary.coverage, self.scope, key.kind) {
            (_, Scope::None, PolicyKind::NetworkPolicy | PolicyKind::NamespaceIsolation)
            | (Coverage::Scope, Scope::Annotated | Scope::None, _) => true,
            (Coverage::Networks(networks), ..) => networks.is_empty(),
            (Coverage::Scope, ..) => false,
        };
        if ignored {
            PolicyState::Ignored
        } else if self.findings_of(key).any(|finding| finding.severity == Severity::Error) {
            PolicyState::PartlyRejected
        } else if isolated == Isolated::default() {
            PolicyState::SelectsNothing
        } else {
            PolicyState::Active
        }
    }
}

/// A number of local pods per direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Isolated {
    /// Whose ingress is isolated.
    pub ingress: usize,
    /// Whose egress is isolated.
    pub egress: usize,
}

/// A local pod.
#[derive(Debug, Clone)]
pub struct PodStatus {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Which policies isolate it, where, in which direction; only what is isolated.
    pub isolation: Arc<[Isolation]>,
    /// How far the kernel is.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// Where its network namespace is looked for; `None` where its names cannot be a path.
    pub netns: Option<PathBuf>,
    /// What is to be in force; `None` where nothing isolates it.
    pub wanted: Option<Arc<Ruleset>>,
    /// What the last successful transaction put into the kernel; before the first one of a held pod, what was found.
    pub in_kernel: Option<Arc<Ruleset>>,
    /// Where its drop counters can be asked for.
    pub applier: Option<Arc<Mailbox>>,
}

impl PodStatus {
    /// Whether what is to be in force is in force, so that no transaction is on its way.
    pub fn is_current(&self) -> bool {
        match (&self.wanted, &self.in_kernel) {
            _ if matches!(self.state, State::Held(_)) => false,
            // The same ruleset is the same allocation; comparing contents would cost what 100,000 elements cost.
            (Some(wanted), Some(there)) => Arc::ptr_eq(wanted, there),
            (None, None) => true,
            _ => false,
        }
    }
}

/// One isolated direction of one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// The interface; `None` where the annotation names none.
    pub interface: Option<InterfaceName>,
    /// The networks that the interface is on.
    pub networks: BTreeSet<NetworkName>,
    /// Which direction.
    pub direction: Direction,
    /// By whom, sorted.
    pub policies: Vec<PolicyKey>,
}

/// How far the kernel is with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing isolates it.
    Open,
    /// Its rules are in force.
    Enforced,
    /// The rules that are in force stay, although others are wanted, and why: those would open what rules of an earlier
    /// run isolate, and not everything could be read (statement 139) or the namespace is being deleted (138).
    Held(Arc<str>),
    /// Its rules are not in force yet, and why.
    Pending(Arc<str>),
    /// Its rules cannot be put in force, and why. What was in force before stays.
    Failed(Arc<str>),
}

impl State {
    /// All labels.
    pub const LABELS: [&'static str; 5] = ["enforced", "open", "held", "pending", "failed"];

    /// As a metric label and in listings.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Open => "open",
            Self::Held(_) => "held",
            Self::Pending(_) => "pending",
            Self::Failed(_) => "failed",
        }
    }

    /// Why, where there is a why.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Open | Self::Enforced => None,
            Self::Held(reason) | Self::Pending(reason) | Self::Failed(reason) => Some(reason),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())?;
        match self.reason() {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// What listings say of a policy; its rules stay in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySummary {
    /// Which attachments it acts on.
    pub coverage: Coverage,
    /// Whether it isolates ingress.
    pub ingress: bool,
    /// Whether it isolates egress.
    pub egress: bool,
}

/// What has become of a policy on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyState {
    /// It isolates local pods, as it is written.
    Active,
    /// No pod of this node.
    SelectsNothing,
    /// It acts on no network: no `policy-for`, or the scope excludes it.
    Ignored,
    /// A part of it was rejected; the rest counts.
    PartlyRejected,
    /// It was rejected as a whole: nothing of it is in force.
    Rejected,
}

impl PolicyState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Active,
        Self::SelectsNothing,
        Self::Ignored,
        Self::PartlyRejected,
        Self::Rejected,
    ];

    /// As a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::SelectsNothing => "selects_nothing",
            Self::Ignored => "ignored",
            Self::PartlyRejected => "partly_rejected",
            Self::Rejected => "rejected",
        }
    }
}

/// In words, for listings.
impl fmt::Display for PolicyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::SelectsNothing => "selects nothing here",
            Self::Ignored => "ignored",
            Self::PartlyRejected => "partly rejected",
            Self::Rejected => "rejected",
        })
    }
}

/// A network in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkSummary {
    /// Whether a NetworkAttachmentDefinition of this name is known.
    pub declared: bool,
    /// Pods on it, everywhere.
    pub pods: usize,
    /// Pods on it, on this node.
    pub local_pods: usize,
    /// Interfaces on it, everywhere.
    pub interfaces: usize,
}

/// What kind of network a name means.
pub fn network_kind(name: &NetworkName, summary: NetworkSummary) -> &'static str {
    match name {
        NetworkName::Default => "cluster network",
        NetworkName::Namespaced(_) if summary.declared => "NetworkAttachmentDefinition",
        NetworkName::Namespaced(_) => "named by pods only",
        NetworkName::Plugin(_) => "plugin",
        NetworkName::Interface(_) => "interface without a network name",
    }
}

/// Addresses in a line.
pub fn addresses(addresses: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if texts.is_empty() {
        "no address".to_owned()
    } else {
        texts.join(" ")
    }
}
