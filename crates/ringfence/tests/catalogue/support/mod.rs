//! What the regression files share.
//!
//! * [`manifest`]: objects as a user or a plugin writes them, in YAML.
//! * [`world`]: these objects in the index and in the oracle at once; every question is answered by both.
//! * [`node`]: real pods, the agent's program, real traffic. Needs root and fails without.

pub mod manifest;
pub mod node;
pub mod world;
