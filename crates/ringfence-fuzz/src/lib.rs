//! What holds for every input, valid or not: one module per fuzz target, each with a function `run` that panics where
//! it does not hold.
//!
//! libFuzzer calls these functions with inputs that it makes up (`hack/fuzz`), and `tests/replay.rs` calls them in every
//! test run with what is kept: `corpus/TARGET` (small inputs that between them reach everything the fuzzer has
//! reached, and the real-world values that they began as) and `regressions/TARGET` (inputs that once failed).
//!
//! Texts are taken as they are where a parser takes texts (manifests, annotations, listings, arguments). Where only
//! arithmetic or a whole world of objects is of interest, [`bytes`] turns the input into choices.

pub mod annotations;
pub mod arguments;
pub mod bytes;
pub mod cidr;
pub mod facts;
pub mod listing;
pub mod manifest;
pub mod names;
pub mod netlink;
pub mod nri;
pub mod pipeline;
pub mod ports;
pub mod ranges;
pub mod selector;
pub mod sound;
pub mod world;
pub mod write;

/// A target: looks at one input, and panics where something does not hold.
pub type Run = fn(&[u8]);

/// Every target by the name of its executable, its corpus and its regressions.
pub const TARGETS: [(&str, Run); 14] = [
    ("annotations", annotations::run),
    ("arguments", arguments::run),
    ("cidr", cidr::run),
    ("facts", facts::run),
    ("listing", listing::run),
    ("manifest", manifest::run),
    ("names", names::run),
    ("netlink", netlink::run),
    ("nri", nri::run),
    ("pipeline", pipeline::run),
    ("ports", ports::run),
    ("ranges", ranges::run),
    ("selector", selector::run),
    ("world", world::run),
];

/// The input as a text; bytes that are no UTF-8 are replaced, so that no input is wasted.
pub fn text(data: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(data)
}
