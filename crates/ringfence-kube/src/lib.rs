//! The only crate that names Kubernetes types: it turns manifests and annotations into Ringfence's own objects.
//!
//! Reading order: [`decode()`] (text to objects), the object kinds (`policy`, `pod`, `namespace`, `network`), the two
//! annotation dialects under `attachments`, then the sources: [`load()`] for the command line and [`directory`] for
//! the agent. The API source uses [`decode_value`] and [`decode_kind`], so that there is one decoder for all. [`announce`]
//! goes the other way.
//!
//! Decoding never fails as a whole and never panics. It looks at every field by itself: what is wrong spoils the
//! smallest clause that holds it, stays in its place as "matches nothing", and becomes a
//! [`Diagnostic`](ringfence_model::Diagnostic) (invariant 4 of ARCHITECTURE.md). Typed decoding would lose a whole
//! policy over one port of 70000, and a lost policy opens pods.
//!
//! Ringfence is stricter than the API server in one point: a field that it does not know inside of a rule closes that
//! clause. The API server drops such a field, and a rule with `form:` for `from:` then admits everyone.

#![cfg_attr(
    test,
    allow(clippy::needless_raw_string_hashes, reason = "expect-test writes its texts this way")
)]

mod address;
pub mod announce;
pub mod api;
mod attachments;
mod clause;
mod crd;
mod decode;
#[cfg(test)]
mod decode_tests;
pub mod directory;
mod document;
mod kind;
mod load;
mod metadata;
mod namespace;
mod network;
mod pod;
mod policy;

#[cfg(test)]
mod show;
mod survey;

pub use decode::{Decoded, decode, decode_kind, decode_value};
pub use kind::Kind;
pub use load::{LoadError, load};
pub use survey::{Survey, Surveyed, survey};
