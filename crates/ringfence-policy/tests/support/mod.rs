//! What the tests of this crate share: manifests and truth tables as objects of the model.
//!
//! The decoder is written for the tests alone, from the specification. The program's own decoder lives in another
//! crate, so a mistake there cannot hide a mistake here.

#![allow(dead_code, reason = "every test is a crate of its own and uses a part of this")]

pub mod manifest;
pub mod truth_table;
