//! From the plan of one pod to its ruleset: names, sets, chains.
//!
//! Which sets, rules and chains there are follows from the plan alone; the elements of the peers' sets are put in by
//! the index, so one peer more or less never touches a rule (statement 230).

mod chains;
mod names;
mod networks;
mod table;

pub(crate) use chains::{Environment, compile};

use ringfence_model::{Direction, Family};
use ringfence_ruleset::{Name, Ruleset};

/// A ruleset whose peers' sets are still empty, and which those are.
pub(crate) struct Compiled {
    /// The ruleset.
    pub ruleset: Ruleset,
    /// The sets of table inet that the index fills, in no particular order.
    pub links: Vec<SetLink>,
}

/// A set of the ruleset that holds peers.
pub(crate) struct SetLink {
    /// Position of the interface in the plan.
    pub interface: usize,
    /// Which of its tables.
    pub direction: Direction,
    /// Which of the table's sets.
    pub set: PeerSet,
    /// Which half of it.
    pub family: Family,
    /// Its name in the ruleset.
    pub name: Name,
}

/// The sets into which single addresses go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerSet {
    /// `address . protocol . port`
    Exact,
    /// The addresses of the set above: an ICMP error has no ports to look up.
    ExactAddresses,
    /// Addresses that may do everything.
    Any,
    /// Addresses that may use the ports of a class, by its position in the layout.
    Class(usize),
}
