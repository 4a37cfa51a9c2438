//! Rulesets in the kernel: encode, send, acknowledge, read back.
//!
//! An [`Enforcer`] holds the netlink socket of one pod's network namespace and brings the tables there to a
//! [`ringfence_ruleset::Ruleset`] in one transaction: the first ruleset and every later change. Members that come and
//! go are transactions of elements, which rely on the kernel's acknowledgement and on the generation number; anything
//! larger is read back and compared. Nothing here knows pods, policies or Kubernetes.
//!
//! Reading order: `uapi` (the kernel's numbers), `wire` (messages and attributes), `expression` and `rule` (bytecode),
//! `encode` (operations to one batch), `socket` and `link` (the conversation), `elements` and `read` (the tables as
//! they are), `kernel` (all of this as a trait), `compare`, `enforcer`, `notify` (what others change), `probe`; apart from these `connections` with `diag` (sockets) and `conntrack`
//! (entries), for the moment before a namespace's first ruleset.

mod compare;
pub mod connections;
mod conntrack;
mod diag;
mod elements;
mod encode;
mod enforcer;
mod error;
mod expression;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod golden;
pub mod kernel;
mod link;
mod notify;
mod opener;
mod probe;
mod read;
mod rule;
mod socket;
mod uapi;
mod wire;

pub use compare::{Drift, DriftReason};
pub use connections::{Tracked, track_established};
pub use enforcer::{Enforcer, Outcome};
pub use error::{Error, Refusal};
pub use link::transactions_sent;
pub use notify::{News, Notifications};
pub use probe::probe;
pub use read::{Count, Counters};
