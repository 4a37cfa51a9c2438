//! A plugin of the container runtime's Node Resource Interface (NRI): it is asked before a pod's first container is
//! made, when the pod's network is there already, and the pod waits for its answer.
//!
//! ```text
//! runtime ──► unix socket ──► mux (two connections in one) ──► ttrpc frames ──► messages ──► News
//!         ◄───────────────────────────────────────────────────────── Reply::send (any order, within a time)
//! ```
//!
//! What has to be known of NRI: the runtime holds one lock of the whole node while a plugin thinks, and a plugin that
//! takes longer than the runtime's patience (two seconds by default) is disconnected *and the pod starts*. So every
//! question has an answer in time, whatever its owner does: [`Reply`] answers with an error when it is dropped, and the
//! session does when the time is over. A connection that is lost is made anew at once.
//!
//! Reading order: [`watch`], `session` (the connection's life), `call` (what a frame asks for), then `frame` and
//! `messages`. Nothing here knows policies or namespaces.

mod call;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod messages;
#[cfg(test)]
mod runtime;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch as channel};

pub use frame::Malformed;
pub use health::{Health, State};

/// Where runtimes have the socket.
pub const SOCKET: &str = "/var/run/nri/nri.sock";

/// What [`watch`] is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The runtime's socket. It need not be there yet.
    pub socket: PathBuf,
    /// Name of the plugin, by which the runtime's configuration may require it.
    pub name: String,
    /// Two digits: the place among other plugins.
    pub index: String,
    /// Time after which a question without an answer is answered with an error. Where the runtime says that it is less
    /// patient, three fifths of its patience count.
    pub patience: Duration,
}

impl Options {
    /// A plugin at a socket, with half a second less patience than runtimes have by default.
    pub fn new(socket: PathBuf, name: &str) -> Self {
        Self {
            socket,
            name: name.to_owned(),
            index: "10".to_owned(),
            patience: Duration::from_millis(1500),
        }
    }
}

/// A pod's sandbox as the runtime describes it. Nothing in it has been judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sandbox {
    /// The runtime's identifier.
    pub id: String,
    /// UID of the pod.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// The pod's labels when the sandbox was made, and some of the kubelet's.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations when the sandbox was made, and some of the kubelet's.
    pub annotations: BTreeMap<String, String>,
    /// Where its network namespace is.
    pub network: Network,
    /// Addresses on the cluster network.
    pub addresses: Vec<String>,
}

/// A sandbox's network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// The node's.
    #[default]
    Node,
    /// Its own, at this path.
    At(String),
    /// Its own, but the runtime does not say where.
    Unsaid,
}

/// What the runtime says.
#[derive(Debug)]
pub enum News {
    /// A connection has been made: all sandboxes that there are.
    Listed(Vec<Sandbox>),
    /// A sandbox is there with its network, and its pod waits.
    Run {
        /// The sandbox.
        sandbox: Sandbox,
        /// Where the answer goes.
        reply: Reply,
        /// When the question came.
        received: Instant,
        /// When it is answered with an error at the latest.
        until: Instant,
    },
    /// A sandbox is being stopped, or removed. Comes also after a refused start, and often twice.
    Gone(Sandbox),
    /// The connection is lost: what is told from now on is told by the next one, which begins with a list.
    Lost,
}

/// Where the answer to a question goes. Dropped without one, the answer is an error: in doubt a pod does not start.
#[derive(Debug)]
pub struct Reply {
    stream: u32,
    answers: Option<UnboundedSender<(u32, Answer)>>,
}

/// Nothing, or why not.
type Answer = Result<(), String>;

impl Reply {
    /// Lets the pod start, or refuses it: the reason becomes an event of the pod, and the kubelet tries again.
    pub fn send(mut self, answer: Answer) {
        if let Some(answers) = self.answers.take() {
            // The connection has ended: the runtime does not wait any more.
            drop(answers.send((self.stream, answer)));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(answers) = self.answers.take() {
            drop(answers.send((self.stream, Err("nobody has decided whether it may start".to_owned()))));
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that no socket can have, a name without letters, an index that is not two digits.
    #[error("{0}")]
    Options(String),
    /// Nobody answers at the socket.
    #[error("no NRI at {}: {reason}", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The runtime does not want the plugin.
    #[error("the container runtime refuses the NRI plugin: {0}")]
    Refused(String),
    /// It accepts the connection and says nothing.
    #[error("the container runtime has not configured the NRI plugin within {} seconds", .0.as_secs())]
    Silent(Duration),
    /// What came cannot be read.
    #[error("the container runtime's NRI messages cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// It has closed the connection: it restarts, or an answer was too late for it.
    #[error("the container runtime has closed the NRI connection")]
    Closed,
    /// More at once than a runtime ever asks, or sandboxes than a node can have.
    #[error("the container runtime has too many {0} at once for the NRI plugin")]
    TooMany(&'static str),
    /// The operating system has no thread or no descriptors left.
    #[error("the NRI connection has failed: {0}")]
    System(#[from] io::Error),
}

/// A running plugin. Dropping it ends the connection.
pub struct Handle {
    stop: Arc<Notify>,
    health: channel::Receiver<Health>,
}

impl Handle {
    /// How the connection is.
    pub fn health(&self) -> channel::Receiver<Health> {
        self.health.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("health", &*self.health.borrow())
            .finish_non_exhaustive()
    }
}

/// Connects to the runtime from a thread of its own, again and again, until the handle is dropped. `tell` is called on
/// that thread and must not take long. A runtime that is not there (yet) is no error: it is waited for.
pub fn watch(options: Options, tell: impl FnMut(News) + Send + 'static) -> Result<Handle, Error> {
    check(&options)?;
    let stop = Arc::new(Notify::new());
    let (reporter, health) = channel::channel(Health::new(options.socket.clone()));
    let plugin = session::Plugin::new(options, Box::new(tell), Arc::clone(&stop), reporter);
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    thread::Builder::new()
        .name("nri".into())
        .spawn(move || runtime.block_on(plugin.run()))?;
    Ok(Handle { stop, health })
}

fn check(options: &Options) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::Options(text));
    if !options.socket.is_absolute() {
        return refuse(format!("{} is no absolute path of a socket", options.socket.display()));
    }
    if options.name.is_empty() || options.index.len() != 2 || !options.index.bytes().all(|b| b.is_ascii_digit()) {
        return refuse(format!(
            "an NRI plugin has a name and an index of two digits, not {:?} and {:?}",
            options.name, options.index
        ));
    }
    Ok(())
}
