//! From objects to rulesets: the policy index and the compiler.
//!
//! [`Index`] takes objects in any order and says after each batch which local pods' rulesets have changed. It does no
//! I/O, reads no clock, takes no lock and cannot fail: what is invalid has been dealt with before it gets here.
//!
//! Reading order: `plan` (what the policies of one pod allow), `compile` (how nftables says that), `index` (who the
//! peers are, and what an event changes). Beside them `evaluate` (the oracle, which shares nothing with the former),
//! and upon it `explain` (people's questions to it) and `reach` (the same for every pair of pods, fast).

pub mod advice;
mod compile;
pub mod evaluate;
pub mod explain;
mod index;
mod near;
mod options;
mod plan;
pub mod reach;

pub use index::{AttachmentView, Conflict, Index, NetworkView, PodView, PolicyView, Slice};
pub use near::near;
pub use options::{Locality, Options, TargetFacts};
