//! The Kubernetes API as a source.
//!
//! What it watches, and how little of it:
//! * this node's pods in full, by `spec.nodeName`;
//! * all other pods as metadata only, without those that have ended or share their node's network (labels and
//!   annotations carry everything that a peer on a second network needs). In full only while a policy asks for what
//!   metadata does not tell: an egress rule's named port, or addresses on the cluster network;
//! * namespaces as metadata only; NetworkPolicies, MultiNetworkPolicies and NetworkAttachmentDefinitions in full.
//!
//! What it promises: nothing changes because of the API's state. A server that is away, slow, starting, overloaded or
//! that has forgotten where a watch was (410) delays changes and makes none; a new list is only the difference to what
//! was known. A kind that is not installed is no error and is picked up when it is installed. An object that cannot be
//! decoded is reported and skipped alone.
//!
//! `raw` is what comes over the wire, `stream` one watch, `merge` the pure part that makes updates of all of them,
//! `run` what drives them, `outage` what is said of a server that is away, `schema` the look at the installed CRD
//! (statement 224).

mod merge;
mod outage;
mod raw;
mod run;
mod schema;
mod stream;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use kube::{Client, Config};
use ringfence_model::Scope;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::stream::{Stream, Trouble};
use crate::announce::{self, Announcer, Identities};
use crate::directory::Update;

/// Batches that may wait for a slow reader before the source stops reading watches.
const WAITING_BATCHES: usize = 64;

/// What the source has to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this node.
    pub node: Arc<str>,
    /// What NetworkPolicies without `policy-for` act on: with [`Scope::All`] addresses on the cluster network count.
    pub scope: Scope,
    /// Whether Events are written.
    pub events: bool,
}

/// How a watch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The first list is not complete.
    Listing,
    /// It delivers.
    Watching,
    /// It does not work at the moment; what it delivered before stays in force.
    Troubled(Trouble),
}

impl State {
    /// As a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Troubled(trouble) => trouble.label(),
        }
    }
}

/// One watch, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Which.
    pub stream: Stream,
    /// How it is.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// Whether a list has been complete once.
    pub synced: bool,
    /// Objects that it knows.
    pub objects: usize,
    /// Objects that it has delivered, those of lists included.
    pub events: u64,
    /// Lists that were completed.
    pub lists: u64,
    /// Errors, by [`Trouble::label`] in the order of [`Trouble::LABELS`].
    pub errors: [u64; Trouble::LABELS.len()],
}

/// Why the source cannot begin. What goes wrong later is a [`State`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no configuration, or none that can be read.
    #[error(
        "the Kubernetes API cannot be reached: {0}; in a pod this needs a service account, elsewhere KUBECONFIG or \
         ~/.kube/config; give --source dir:PATH to run on a folder of manifests"
    )]
    Config(String),
    /// The system refuses a thread or a runtime.
    #[error("the source cannot be started: {0}")]
    System(#[from] std::io::Error),
}

/// A running source. Dropping [`Alive`] ends its thread.
pub struct Source {
    /// Batches in order; one of them ends with [`Update::Synced`].
    pub updates: mpsc::Receiver<Vec<Update>>,
    /// All watches, in the order of [`Stream::ALL`].
    pub health: watch::Receiver<Arc<[Health]>>,
    /// Tells the cluster what is announced; nobody where Events are off.
    pub announcer: Announcer,
    /// Goes with the source.
    pub alive: Alive,
}

/// Keeps the source's thread running.
#[derive(Debug)]
pub struct Alive {
    _stop: oneshot::Sender<()>,
}

/// Starts watching with the in-cluster configuration or `KUBECONFIG`. Works on a thread of its own. A server that does
/// not answer is no error: it is asked again until it does.
pub fn watch(options: Options) -> Result<Source, StartError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (batches, updates) = mpsc::channel(WAITING_BATCHES);
    let (publish, health) = watch::channel(Arc::from(Vec::new()));
    let (stop, stopped) = oneshot::channel();
    let (give, take) = std::sync::mpsc::channel();
    let (announcer, queue) = if options.events {
        let (announcer, queue) = Announcer::new();
        (announcer, Some(queue))
    } else {
        (Announcer::default(), None)
    };
    let counts = announcer.counter();
    // All of it on that thread: the caller's may be driving a runtime of its own, and must not be made to drive this one.
    thread::Builder::new().name("kube-source".into()).spawn(move || {
        runtime.block_on(async {
            let client = match connect().await {
                Ok(client) => client,
                // The caller waits below, so this arrives.
                Err(error) => return drop(give.send(Err(error))),
            };
            let identities = Identities::default();
            let tell = {
                let (client, node, identities) = (client.clone(), Arc::clone(&options.node), identities.clone());
                async move {
                    if let Some(queue) = queue {
                        announce::run(client, node, identities, queue, counts).await;
                    }
                }
            };
            let runner = run::Runner::new(client, options, batches, publish, identities);
            drop(give.send(Ok(())));
            tokio::select! {
                ((), ()) = async { tokio::join!(runner.run(), tell) } => {}
                _ = stopped => {}
            }
        });
    })?;
    take.recv()
        .map_err(|_| StartError::Config("its thread has ended".to_owned()))??;
    Ok(Source {
        updates,
        health,
        announcer,
        alive: Alive { _stop: stop },
    })
}

/// A server that drops packets is given up in this time, so that one that is there again is found soon.
const CONNECT: Duration = Duration::from_secs(5);

async fn connect() -> Result<Client, StartError> {
    let mut config = Config::infer()
        .await
        .map_err(|error| StartError::Config(error.to_string()))?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| StartError::Config(error.to_string()))
}
