//! What is said before a pod starts: by the container runtime itself (NRI), or by its network (a chained CNI plugin).
//! The loop's side, which decides, is `controller/gate.rs`.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use ringfence_model::{NamespacedName, Pod, PodUid};

/// A pod with this annotation, set to `true`, may start before the agent has read all policies. The same key can be
/// given to the runtime as the annotation that tolerates a missing plugin.
pub const TOLERATION: &str = "ringfence/unprotected-start";

/// What is said.
#[derive(Debug)]
pub enum Hook {
    /// A pod's network is there, and its first container waits for the answer.
    Start(Box<Start>),
    /// A sandbox is being stopped or removed, or its network is taken down.
    Gone {
        /// The runtime's identifier.
        sandbox: String,
    },
    /// All sandboxes that have a network of their own at the moment.
    Listed(Vec<Sandbox>),
    /// Nobody asks at the moment.
    Lost,
}

/// A pod that waits.
#[derive(Debug)]
pub struct Start {
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// Where the answer goes.
    pub answer: Answer,
    /// When the question came.
    pub received: Instant,
    /// When there must be an answer.
    pub until: Instant,
}

/// A sandbox, as far as it is known before any list has it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The runtime's identifier.
    pub id: String,
    /// Whose it is; `None` where nobody has said, or where it belongs to no pod.
    pub uid: Option<PodUid>,
    /// Whose it is.
    pub name: NamespacedName,
    /// Where its network namespace is; `None` where it shares the node's. An error says in words why it is not known.
    pub place: Result<Option<PathBuf>, String>,
    /// The pod as the sandbox describes it; `None` where it does not.
    pub pod: Option<Pod>,
    /// It was made from a file on the node: the API knows it by a mirror, which has another UID, or not at all.
    pub from_file: bool,
    /// Its pod carries [`TOLERATION`].
    pub tolerates: bool,
}

/// Takes the answer. Dropped without one, whoever asks gets an error.
pub struct Answer(Box<dyn FnOnce(Result<(), String>) + Send>);

impl Answer {
    /// Hands the answer to a function.
    pub fn new(take: impl FnOnce(Result<(), String>) + Send + 'static) -> Self {
        Self(Box::new(take))
    }

    /// The pod may start, or why not.
    pub fn send(self, answer: Result<(), String>) {
        (self.0)(answer);
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}
