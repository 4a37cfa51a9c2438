//! What a ruleset leaves open, read off the ruleset itself, so that it can be asked of rules that an earlier agent left
//! in the kernel.
//!
//! Policies only allow. One that is missing takes rights away from peers, or it takes the isolation of an interface and
//! a direction away, and only that opens anything. So whoever knows that policies may be missing need only compare
//! openings (statement 139).

use std::collections::BTreeSet;

use ringfence_model::{Direction, InterfaceName};
use ringfence_ruleset::{Match, Name, Ruleset};

use super::names::{ARRIVE, Names};

/// The interfaces and directions that nothing isolates although a ruleset is there. Every interface that is not
/// listed is closed in that direction but for what the rules allow, those included that no attachment explains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Openings(BTreeSet<(InterfaceName, Direction)>);

impl Openings {
    /// None at all. Also what is to be assumed of rules that cannot be understood.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of a ruleset that [`Index::ruleset`](crate::Index::ruleset) has given, now or in an earlier run.
    pub fn of(ruleset: &Ruleset) -> Self {
        let chains = &ruleset.inet.chains;
        let dispatch = chains.get(&Name::new(ARRIVE));
        // The dispatch names every interface that an attachment explains, isolated or not.
        let explained = dispatch
            .into_iter()
            .flat_map(|chain| &chain.rules)
            .flat_map(|rule| &rule.matches)
            .filter_map(|it| match it {
                Match::ArrivesOn(interface) if interface.as_str() != "lo" => Some(interface),
                _ => None,
            });
        let both = |interface: &InterfaceName| Direction::BOTH.map(|direction| (interface.clone(), direction));
        let is_open = |(interface, direction): &(InterfaceName, Direction)| {
            !chains.contains_key(&Names::new(interface, *direction).chain())
        };
        Self(explained.flat_map(both).filter(is_open).collect())
    }

    /// Whether this direction of this interface is open.
    pub fn contains(&self, interface: &InterfaceName, direction: Direction) -> bool {
        self.0.contains(&(interface.clone(), direction))
    }

    /// Whether a ruleset isolates at least what rules with these openings isolate. No ruleset (`None`) isolates
    /// nothing, and is less than any.
    pub fn cover(&self, ruleset: Option<&Ruleset>) -> bool {
        ruleset.is_some_and(|ruleset| Self::of(ruleset).0.is_subset(&self.0))
    }
}
