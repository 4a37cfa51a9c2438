//! Everything that can wake the agent loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_cri::Change;
use ringfence_kube::directory::Update;
use ringfence_model::{NamespacedName, PodUid};
use ringfence_netns::{Facts, NetnsId};
use ringfence_policy::evaluate::Party;
use ringfence_policy::{Openings, Slice};
use ringfence_ruleset::Ruleset;
use tokio::sync::oneshot;

use crate::start::Hook;

/// A closed list: the loop is the only one that changes state, and these are the only ways to ask it.
#[derive(Debug)]
pub enum Event {
    /// The source has read something: a batch in its order.
    Source(Vec<Update>),
    /// The container runtime has new or other sandboxes: what follows from one list.
    Sandboxes(Vec<Change>),
    /// Something that the container runtime, or its network, asks or tells before pods start.
    Hook(Hook),
    /// Something about a pod's network namespace.
    Netns(NetnsEvent),
    /// A transaction, or a comparison with the kernel, is done.
    Apply(Applied),
    /// A retry or a comparison is due.
    Timer,
    /// A reader needs what snapshots do not hold.
    Query(Query),
    /// SIGTERM or SIGINT.
    Shutdown,
}

/// Something about a pod's network namespace.
#[derive(Debug)]
pub enum NetnsEvent {
    /// What is at the pod's path now, where that is news.
    Seen {
        /// Whose path.
        pod: PodUid,
        /// Which path: the pod may have been given another one meanwhile.
        path: PathBuf,
        /// `None`: nothing, or nothing yet.
        id: Option<NetnsId>,
    },
    /// A look at the pod's path does not come back. What is there is said when it does.
    Silent {
        /// Whose path.
        pod: PodUid,
        /// Which path.
        path: PathBuf,
    },
    /// An applier has opened the namespace, or has not.
    Opened {
        /// Whose namespace.
        pod: PodUid,
        /// Which applier of that pod.
        run: u64,
        /// What it has found.
        result: Result<Opened, OpenError>,
    },
    /// The interfaces or gateways have changed.
    Facts {
        /// Whose namespace.
        pod: PodUid,
        /// Which applier of that pod.
        run: u64,
        /// As they are now.
        facts: Facts,
    },
}

/// An open namespace.
#[derive(Debug)]
pub struct Opened {
    /// Which namespace.
    pub id: NetnsId,
    /// What is in it; an error does not keep the pod from being enforced.
    pub facts: Result<Facts, String>,
    /// The rules of Ringfence that are there already.
    pub found: Option<Found>,
}

/// Rules that were in a namespace when it was opened.
#[derive(Debug, Clone)]
pub enum Found {
    /// These.
    Rules(Arc<Ruleset>),
    /// Something in tables of our name that rulesets cannot say.
    Unknown,
}

impl Found {
    /// What they leave open. Of what is not understood, it must be assumed that it closes everything.
    pub fn openings(&self) -> Openings {
        match self {
            Self::Rules(ruleset) => Openings::of(ruleset),
            Self::Unknown => Openings::none(),
        }
    }
}

/// A namespace that could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// Whether it may still appear by itself.
    pub pending: bool,
    /// Why, in words.
    pub reason: String,
}

/// What an applier has done.
#[derive(Debug)]
pub struct Applied {
    /// Whose ruleset.
    pub pod: PodUid,
    /// Which applier of that pod.
    pub run: u64,
    /// What was to be put in force.
    pub wanted: Option<Arc<Ruleset>>,
    /// Whose time counts.
    pub stamp: Option<Stamp>,
    /// When the kernel had acknowledged.
    pub committed: Instant,
    /// Time inside the netlink crate.
    pub took: Duration,
    /// What came of it.
    pub result: Result<Success, Refusal>,
    /// A foreign change that was found.
    pub drift: Option<Drift>,
}

/// What a successful call has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    /// Nothing had to be written.
    Unchanged,
    /// A transaction.
    Committed,
}

/// A refused transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kernel's reason, in words.
    pub reason: String,
    /// The pod had no rules before, and is closed on its isolated interfaces until they can be written.
    pub closed: bool,
}

/// A foreign change of Ringfence's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// As a metric label.
    pub reason: &'static str,
    /// In words.
    pub detail: String,
}

/// What started a change, and when it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// What.
    pub cause: Cause,
    /// When the agent took it from its source.
    pub received: Instant,
}

impl Stamp {
    /// The earlier of two that one transaction answers: its waiting time is the longer one.
    #[must_use]
    pub fn earlier(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.received < self.received => other,
            _ => self,
        }
    }
}

/// What makes a ruleset change: a closed list, because it becomes a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A policy was created, changed or deleted.
    Policy,
    /// A pod.
    Pod,
    /// A namespace.
    Namespace,
    /// A NetworkAttachmentDefinition.
    Network,
    /// A network namespace appeared, was replaced, or has other interfaces.
    Netns,
    /// Somebody else changed Ringfence's rules.
    Drift,
    /// The agent has started.
    Start,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Policy,
        Self::Pod,
        Self::Namespace,
        Self::Network,
        Self::Netns,
        Self::Drift,
        Self::Start,
    ];

    /// As a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Pod => "pod",
            Self::Namespace => "namespace",
            Self::Network => "network",
            Self::Netns => "netns",
            Self::Drift => "drift",
            Self::Start => "start",
        }
    }
}

/// What snapshots do not hold because it would cost every turn.
#[derive(Debug)]
pub enum Query {
    /// On which nodes are pods of this name?
    Locate {
        /// Only in this namespace.
        namespace: Option<String>,
        /// The pod's name.
        name: String,
        /// Where the answer goes.
        answer: oneshot::Sender<Vec<(NamespacedName, Option<Arc<str>>)>>,
    },
    /// What decides connections between these parties? The reader does the judging: it may take its time.
    Explain {
        /// Both ends.
        parties: Vec<Party>,
        /// Where the answer goes.
        answer: oneshot::Sender<Slice>,
    },
}
