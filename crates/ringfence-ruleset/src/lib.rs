//! A pod's nftables ruleset as plain data.
//!
//! [`Ruleset`] says what is to be in one pod's network namespace; its `Display` is nft text that `nft -f` loads.
//! [`transaction`] gives the operations that lead from one ruleset to another in one kernel transaction. Nothing here
//! knows pods, policies, Kubernetes or netlink.

mod ruleset;

pub use ruleset::{
    BaseChain, Chain, CtDirection, Element, Hook, KernelFeatures, Key, Match, Name, Rule, Ruleset, Set, SetKind, Side,
    Table, Verdict,
};
