//! Entering pods' network namespaces, telling them apart, and reading what is in them.
//!
//! This is the only crate that calls `setns` and `unshare`. Work inside a namespace is synchronous and stays on the
//! thread that entered (invariant 10 of ARCHITECTURE.md): [`Netns::run`] takes a closure, so no `.await` and no guard
//! can leave it, and the thread is back in its own namespace when the closure returns or panics. Sockets that are
//! opened inside stay in the namespace for their whole life, so a thread needs to be there only while it opens them.
//!
//! Needed capabilities: CAP_SYS_ADMIN to enter or make a namespace; CAP_SYS_PTRACE to open `/proc/<pid>/ns/net` of
//! another user's process; CAP_NET_RAW to hold an interface's AF_XDP queues.

mod error;
mod facts;
#[doc(hidden)]
pub mod fuzzing;
mod namespace;
mod rtnetlink;
mod transmit;

pub use error::Error;
pub use facts::{Facts, facts};
pub use namespace::{Netns, NetnsId, scratch};
pub use transmit::{Hold, TransmitGuard};
