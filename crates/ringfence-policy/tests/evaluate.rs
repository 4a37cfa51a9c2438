//! The oracle, statement by statement. Names carry the numbers of the statements of `semantics.md`.

mod support;

#[path = "evaluate/blocks.rs"]
mod blocks;
#[path = "evaluate/life.rs"]
mod life;
#[path = "evaluate/networks.rs"]
mod networks;
#[path = "evaluate/peers.rs"]
mod peers;
#[path = "evaluate/ports.rs"]
mod ports;
#[path = "evaluate/reasons.rs"]
mod reasons;
#[path = "evaluate/selection.rs"]
mod selection;
#[path = "evaluate/traffic.rs"]
mod traffic;
#[path = "evaluate/world.rs"]
mod world;
