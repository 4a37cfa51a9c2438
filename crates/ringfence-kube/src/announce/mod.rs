//! Telling the cluster: Events on pods and policies, as `kubectl describe` and `kubectl get events` show them.
//!
//! ```text
//! agent loop ── Announcer (never waits) ──► bounded queue ──► correlate: seen before? too many? ──► send: create, patch
//! ```
//!
//! Nothing depends on Events: where they cannot be written, that is said once and counted, and everything else goes on.
//!
//! A pod's Events come from its own node's agent alone. What is wrong with a policy is the same for every agent, so all of
//! them give its Event the same name, made of the policy's UID, its generation and the text: the first one creates it,
//! and the others are told that it exists. That needs no leader, no right to read Events, and no agent that is up in
//! particular. Only agents with a pod in the policy's namespace speak at all, see `controller/announce.rs` of the agent.

mod correlate;
mod send;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ringfence_model::{NamespacedName, PodUid, PolicyKey};
use tokio::sync::mpsc;

pub(crate) use self::send::run;

/// Announcements that may wait for the API server. More of them say nothing new.
const WAITING: usize = 256;

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A pod of this node.
    Pod {
        /// Its namespace and name.
        name: NamespacedName,
        /// Its identity: `kubectl describe` shows Events of exactly this pod.
        uid: PodUid,
    },
    /// A policy.
    Policy(PolicyKey),
}

/// Why there is an Event: a closed list, because people filter by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Clauses of a policy match nothing, or are ignored; the rest counts.
    ClauseRejected,
    /// A policy is not used, selects no pod or acts on no network.
    PolicyRejected,
    /// An annotation of a pod is wrong, and what it says is not used.
    InvalidAnnotation,
    /// Another pod claims an address of this one.
    AddressConflict,
    /// Policies isolate an interface whose packets never pass the kernel of the node.
    UnsupportedNetwork,
    /// The rules of a pod cannot be put in force.
    PodEnforcementFailed,
    /// They are in force again.
    PodEnforcementRecovered,
    /// The rules of a pod stay as they are, because what isolates it may not be known any more.
    PodHeld,
    /// That is over.
    PodReleased,
    /// Somebody changed the rules of a pod, and they were put back.
    RulesRepaired,
}

impl Topic {
    /// The column REASON of `kubectl get events`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ClauseRejected => "ClauseRejected",
            Self::PolicyRejected => "PolicyRejected",
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::AddressConflict => "AddressConflict",
            Self::UnsupportedNetwork => "UnsupportedNetwork",
            Self::PodEnforcementFailed => "PodEnforcementFailed",
            Self::PodEnforcementRecovered => "PodEnforcementRecovered",
            Self::PodHeld => "PodHeld",
            Self::PodReleased => "PodReleased",
            Self::RulesRepaired => "RulesRepaired",
        }
    }

    /// What was being done.
    fn action(self) -> &'static str {
        match self {
            Self::ClauseRejected | Self::PolicyRejected | Self::InvalidAnnotation | Self::AddressConflict => "Read",
            _ => "Enforce",
        }
    }

    /// `Warning`, or `Normal` for good news.
    fn kind(self) -> &'static str {
        match self {
            Self::PodEnforcementRecovered | Self::PodReleased => "Normal",
            _ => "Warning",
        }
    }
}

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// What it is about.
    pub about: About,
    /// Why.
    pub topic: Topic,
    /// In words.
    pub note: String,
    /// When it happened.
    pub at: SystemTime,
}

/// The agent loop's side. The default one tells nobody anything.
#[derive(Debug, Clone, Default)]
pub struct Announcer {
    sender: Option<mpsc::Sender<Announcement>>,
    counts: Arc<Counts>,
}

impl Announcer {
    /// With the queue's other end.
    pub fn new() -> (Self, mpsc::Receiver<Announcement>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let announcer = Self {
            sender: Some(sender),
            counts: Arc::default(),
        };
        (announcer, receiver)
    }

    /// Whether anybody listens.
    pub fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Never waits: where too much is waiting already, it is dropped and counted.
    pub fn announce(&self, announcement: Announcement) {
        if let Some(sender) = &self.sender
            && sender.try_send(announcement).is_err()
        {
            self.counts.add(Outcome::Dropped);
        }
    }

    /// What has become of announcements so far.
    pub fn counts(&self) -> [(Outcome, u64); 3] {
        Outcome::ALL.map(|outcome| (outcome, self.counts.of(outcome).load(Ordering::Relaxed)))
    }

    pub(crate) fn counter(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

/// What has become of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The API server has it, also where another agent was first.
    Sent,
    /// Too many: the queue was full, or a limit was reached.
    Dropped,
    /// The API server did not take it.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Dropped, Self::Failed];

    /// As a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

/// Totals since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn of(&self, outcome: Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::Sent => &self.sent,
            Outcome::Dropped => &self.dropped,
            Outcome::Failed => &self.failed,
        }
    }

    fn add(&self, outcome: Outcome) {
        self.of(outcome).fetch_add(1, Ordering::Relaxed);
    }
}

/// Which object a policy is at the moment: what the index does not need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: Box<str>,
    pub(crate) generation: i64,
}

/// Of all policies, written by the watches and read when an Event is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identities {
    known: Arc<Mutex<HashMap<PolicyKey, Identity>>>,
}

impl Identities {
    pub(crate) fn set(&self, key: PolicyKey, identity: Identity) {
        self.lock().insert(key, identity);
    }

    pub(crate) fn remove(&self, key: &PolicyKey) {
        self.lock().remove(key);
    }

    pub(crate) fn get(&self, key: &PolicyKey) -> Option<Identity> {
        self.lock().get(key).cloned()
    }

    /// Entries change as a whole, so a map that a panicking thread held is sound.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PolicyKey, Identity>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(note: usize) -> Announcement {
        Announcement {
            about: About::Pod {
                name: NamespacedName::new("shop", "web"),
                uid: PodUid::new("u1").expect("valid"),
            },
            topic: Topic::RulesRepaired,
            note: note.to_string(),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn nobody_waits_for_the_api_server() {
        let (announcer, mut queue) = Announcer::new();
        for note in 0..WAITING + 3 {
            announcer.announce(announcement(note));
        }
        let counts = announcer.counts().map(|(outcome, count)| (outcome.label(), count));
        assert_eq!(counts, [("sent", 0), ("dropped", 3), ("failed", 0)]);
        assert_eq!(queue.try_recv().expect("it waits").note, "0");
        let off = Announcer::default();
        off.announce(announcement(0));
        assert_eq!(off.counts().map(|(_, count)| count), [0, 0, 0]);
    }
}
