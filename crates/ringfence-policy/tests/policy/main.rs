//! Tests of the index and the compiler through their public interface.
//!
//! * `golden`: whole rulesets as nft text, one per feature
//! * `statements`: the numbered statements of the semantics, judged by the packet tracer
//! * `truth`: the truth tables, every cell
//! * `oracle`: random universes, judged as an independent reading of the specification judges them
//! * `property`: any order, repetition and split of events gives what a fresh index gives
//! * `minimality`: what an event touches, and what it does not
//! * `slice`: what is handed out for one question decides it as everything does
//! * `reach`: the fast matrix against the oracle's

mod golden;
mod minimality;
mod oracle;
mod property;
mod reach;
mod slice;
mod statements;
mod support;
mod truth;
