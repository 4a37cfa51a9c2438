//! The chained CNI plugin, for runtimes without NRI: `ringfence cni` is run by the runtime for each network of a pod, and
//! asks the agent over a unix socket whether the pod may have it.
//!
//! One line of JSON goes each way: a request and its answer. The socket belongs to root, and so does who asks.

mod plugin;
mod server;

use serde::{Deserialize, Serialize};

pub use plugin::{is_asked, run};
pub use server::{Server, serve};

/// Where the agent listens, if nothing else is said.
pub const SOCKET: &str = "/run/ringfence/cni.sock";

/// Longest line of a request or a response.
const LONGEST: usize = 16 * 1024;

/// What the plugin asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// A pod has an interface: may it start?
    Add(Pod),
    /// A pod's interface goes.
    Del {
        /// The runtime's identifier of the sandbox.
        sandbox: String,
    },
    /// Is the agent there, and does it know everything?
    Status,
}

/// What a network plugin is told of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pod {
    namespace: String,
    name: String,
    /// Empty where the runtime does not say it.
    uid: String,
    sandbox: String,
    netns: String,
}

/// What the agent answers: nothing, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}
