//! A pod's nftables ruleset as plain data.
//!
//! [`Ruleset`] says what is to be in one pod's network namespace; its `Display` is nft text that `nft -f` loads.
//! [`transaction`] gives the operations that lead from one ruleset to another in one kernel transaction, [`check`]
//! says whether the kernel would take a ruleset at all, and [`trace`] says what a ruleset does to one packet. Nothing
//! here knows pods, policies, Kubernetes or netlink.
//!
//! Reading order: `ruleset` (the data), `render` (the text), `transaction` (the order inside a batch), `trace`.

mod check;
mod op;
mod packet;
mod render;
mod ruleset;
mod shared;
pub mod text;
mod trace;
mod transaction;

pub use check::{Fault, Place, check};
pub use op::{Op, TableFamily};
pub use packet::{Conntrack, Content, Packet, Path, Transport};
pub use ruleset::{
    BaseChain, Chain, CtDirection, Element, Hook, KernelFeatures, Key, Match, Name, Rule, Ruleset, Set, SetKind, Side,
    Table, Verdict, network_mask,
};
pub use shared::Shared;
pub use trace::{Decision, Step, Trace, TraceError, Tracer, trace};
pub use transaction::{replacement, transaction};
