//! Three-way agreement: the oracle, the packet tracer over compiled rulesets, and real packets in real namespaces.
//!
//! * `tables`: truth tables in both dialects, through the decoders (`RINGFENCE_TRUTH_TABLES=path:path` adds some)
mod tables;

#[path = "../../../ringfence-policy/tests/agreement/packets.rs"]
mod packets;
