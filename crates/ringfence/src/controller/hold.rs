//! What rules of an earlier run isolate stays isolated while not everything could be read (statement 139).
//!
//! An agent that starts beside an unreadable manifest does not know what the one before it knew. Policies only allow,
//! so what a missing one can open is an interface and a direction that nothing else isolates. Rules of an earlier run
//! show which were isolated; nothing else is needed to be safe, and one bad file stops nobody but the pods that it may
//! be about (statement 228): those that would be opened.

use std::sync::Arc;

use ringfence_model::{Direction, Source};
use ringfence_netns::NetnsId;
use ringfence_policy::Openings;
use ringfence_ruleset::Ruleset;

use super::target::Target;
use crate::event::Found;

/// Sources that a reason names; the others are counted.
const NAMED: usize = 3;

/// What was in a pod's network namespace when it was opened for the first time.
#[derive(Debug)]
pub(super) struct Earlier {
    netns: NetnsId,
    /// `None`: there were no rules. That is remembered too, because later readings find those of this run.
    found: Option<(Openings, Found)>,
}

impl Target {
    /// Notes what was found in a namespace. Only the first reading of each counts: later ones find rules of this run,
    /// and whoever wrote those knew no more than is known now.
    pub(super) fn note_found(&mut self, netns: NetnsId, found: Option<Found>) {
        if self.earlier.as_ref().is_none_or(|earlier| earlier.netns != netns) {
            let found = found.map(|found| (found.openings(), found));
            self.earlier = Some(Earlier { netns, found });
        }
    }

    /// Everything has been read: whatever is wanted is meant.
    pub(super) fn forget_found(&mut self) {
        if let Some(earlier) = &mut self.earlier {
            earlier.found = None;
        }
    }

    /// Whether what is wanted now would open what rules of an earlier run keep closed, and perhaps only because
    /// something could not be read.
    pub(super) fn must_hold(&self, unread: &[Source]) -> bool {
        let found = self.earlier.as_ref().and_then(|earlier| earlier.found.as_ref());
        // A new namespace may have the identity of a former one that is gone: without rules there is nothing to hold.
        !unread.is_empty()
            && self.has_rules
            && found.is_some_and(|(openings, _)| !openings.cover(self.wanted.as_deref()))
    }

    /// Keeps what is in force.
    pub(super) fn hold(&mut self, unread: &[Source]) {
        let what = joined_or(&self.would_open(), "what they isolate");
        self.held = Some(
            format!(
                "its rules stay as they are: {what} would be open otherwise, and nobody can say whether that is meant, \
                 because {} could not be read since the agent started; {}",
                listed(unread),
                remedy(unread)
            )
            .into(),
        );
        // Nothing is being tried, and how long this takes says nothing about the agent.
        self.failure = None;
        self.stamp = None;
    }

    /// The rules that are kept, before this run has written any.
    pub(super) fn kept(&self) -> Option<&Arc<Ruleset>> {
        self.held.as_ref()?;
        match self.earlier.as_ref()?.found.as_ref()? {
            (_, Found::Rules(ruleset)) => Some(ruleset),
            (_, Found::Unknown) => None,
        }
    }

    /// In words, the directions of interfaces that would be opened.
    fn would_open(&self) -> Vec<String> {
        let found = self.earlier.as_ref().and_then(|earlier| earlier.found.as_ref());
        let Some((before, _)) = found else { return Vec::new() };
        let wanted = self.wanted.as_deref().map(Openings::of);
        let interfaces = self.pod.attachments.iter().filter_map(|it| it.interface.as_ref());
        interfaces
            .flat_map(|interface| Direction::BOTH.map(|direction| (interface, direction)))
            .filter(|(interface, direction)| {
                let opened = wanted
                    .as_ref()
                    .is_none_or(|wanted| wanted.contains(interface, *direction));
                opened && !before.contains(interface, *direction)
            })
            .map(|(interface, direction)| format!("{direction} on {interface}"))
            .collect()
    }
}

fn joined_or(items: &[String], otherwise: &str) -> String {
    if items.is_empty() {
        otherwise.to_owned()
    } else {
        items.join(", ")
    }
}

/// Sources in words.
pub(super) fn listed(sources: &[Source]) -> String {
    let named: Vec<String> = sources.iter().take(NAMED).map(ToString::to_string).collect();
    let more = sources.len().saturating_sub(NAMED);
    let rest = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    named.join(", ") + &rest
}

/// What to do about it: files are people's, resources are hidden by RBAC.
fn remedy(unread: &[Source]) -> &'static str {
    if unread.iter().any(|source| &*source.kind == "Resource") {
        "allow the agent to list and watch it"
    } else {
        "mend or delete it"
    }
}

#[cfg(test)]
mod tests {
    use ringfence_model::PodUid;
    use ringfence_ruleset::Name;

    use super::*;
    use crate::snapshot::State;
    use crate::testing;

    fn unread() -> Vec<Source> {
        ["a", "b", "c", "d"].map(|name| testing::source("File", name)).into()
    }

    /// A namespace with an identity of its own.
    fn netns() -> NetnsId {
        ringfence_netns::Netns::current().expect("opened").id()
    }

    fn rules() -> Ruleset {
        testing::ruleset(&PodUid::new("x").expect("valid"))
    }

    /// Which isolates egress as well.
    fn both() -> Ruleset {
        let mut ruleset = rules();
        let chain = ruleset.inet.chains[&Name::new("net1-in")].clone();
        ruleset.inet.chains.insert(Name::new("net1-out"), chain);
        ruleset
    }

    #[track_caller]
    fn check(found: Option<Found>, wanted: Option<Ruleset>, expected: Option<&str>) {
        let mut target = Target::new(Arc::new(testing::pod("shop", "web")), Ok("/run/netns/web".into()));
        target.has_rules = found.is_some();
        target.note_found(netns(), found);
        target.wanted = wanted.map(Arc::new);
        assert!(!target.must_hold(&[]), "everything is known");
        assert_eq!(target.must_hold(&unread()), expected.is_some());
        if let Some(expected) = expected {
            target.hold(&unread());
            let (status, _) = target.status(std::time::SystemTime::now());
            let State::Held(reason) = &status.state else {
                panic!("{:?}", status.state)
            };
            assert!(reason.contains(expected), "{reason}");
            assert!(reason.contains("File a, File b, File c and 1 more"), "{reason}");
            assert!(!status.is_current() && target.settled());
        }
    }

    #[test]
    fn s139_rules_of_an_earlier_run_are_held_where_less_would_be_isolated() {
        let found = |ruleset: Ruleset| Some(Found::Rules(Arc::new(ruleset)));
        check(None, None, None);
        check(None, Some(rules()), None);
        check(found(rules()), Some(rules()), None);
        // More is isolated than before.
        check(found(rules()), Some(both()), None);
        check(found(both()), Some(rules()), Some("egress on net1"));
        // Without any rules, eth0 would be open too, which nothing explained and which was closed for that.
        check(
            found(rules()),
            None,
            Some("ingress on eth0, egress on eth0, ingress on net1"),
        );
        check(Some(Found::Unknown), None, Some("ingress on eth0"));
        check(Some(Found::Unknown), Some(both()), None);
        check(Some(Found::Unknown), Some(rules()), Some("egress on net1"));
    }

    #[test]
    fn s139_only_the_first_reading_of_a_namespace_is_of_an_earlier_run() {
        let mut target = Target::new(Arc::new(testing::pod("shop", "web")), Ok("/run/netns/web".into()));
        target.note_found(netns(), None);
        target.note_found(netns(), Some(Found::Rules(Arc::new(rules()))));
        assert!(!target.must_hold(&unread()), "these rules are of this run");

        let mut target = Target::new(Arc::new(testing::pod("shop", "web")), Ok("/run/netns/web".into()));
        target.has_rules = true;
        target.note_found(netns(), Some(Found::Rules(Arc::new(rules()))));
        assert!(target.must_hold(&unread()));
        target.release("it has gone for a moment".into());
        assert!(
            !target.must_hold(&unread()),
            "another one of its identity has no rules (129)"
        );
        target.has_rules = true;
        target.note_found(netns(), Some(Found::Rules(Arc::new(both()))));
        target.wanted = Some(Arc::new(rules()));
        assert!(
            !target.must_hold(&unread()),
            "more than the first reading is of this run"
        );
        target.wanted = None;
        assert!(target.must_hold(&unread()));
        target.forget_found();
        target.note_found(netns(), Some(Found::Rules(Arc::new(rules()))));
        assert!(!target.must_hold(&unread()), "everything was known once");
    }
}
