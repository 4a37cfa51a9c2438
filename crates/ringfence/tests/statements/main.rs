//! One test for each statement of the semantics that needs real packets, a real kernel or the agent's own program: each
//! name carries the numbers of its statements. The agent runs on a folder of manifests; pods are network namespaces.
//!
//! Needs root, iproute2, nft and conntrack, and fails without them.

mod classes;
mod discovery;
mod errors;
mod fragments;
mod life;
mod networks;
mod packets;
mod refused;
mod running;
mod state;
mod world;
