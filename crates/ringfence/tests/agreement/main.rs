//! Three-way agreement: the oracle, the packet tracer over compiled rulesets, and real packets in real namespaces.
//!
//! * `tables`: truth tables in both dialects, through the decoders. `RINGFENCE_TRUTH_TABLES=/a.jsonl:/b.jsonl` adds some.
//! * `kernel`: random universes in force in six real pods: TCP, UDP and echo probes between them (`RINGFENCE_KERNEL_CASES`
//!   universes, 40 unless set; `RINGFENCE_SEED` makes a run the same again), and by `raw` the packets that no socket
//!   makes: fragments, SCTP, GRE, ESP, IGMP, ND, MLD, stray and related ICMP errors, multicast and broadcast. A universe
//!   in which the three differ is shrunk, asking only what differed.
//! * `dhcp`: what a DHCP client sends past the IP stack (123).
//!
//! Needs root and fails without. The generator of policies, and what packets a connection is made of, are shared with the
//! test of the same name in `ringfence-policy`, which tries many more universes without a kernel.

mod dhcp;
mod frames;
mod kernel;
mod raw;
mod script;
mod stage;
mod tables;

#[path = "../../../ringfence-policy/tests/agreement/generate.rs"]
mod generate;
#[path = "../../../ringfence-policy/tests/agreement/packets.rs"]
mod packets;
