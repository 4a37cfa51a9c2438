//! What rules of an earlier run isolate stays isolated while not everything could be read (statement 139), and while the
//! pod's namespace is being deleted (statement 138).
//!
//! An agent that starts beside an unreadable manifest does not know what the one before it knew. Nor does one that
//! starts while a namespace is being deleted: its policies may have gone before its pods. Policies only allow, so what a
//! missing one can open is an interface and a direction that nothing else isolates. Rules of an earlier run show which
//! were isolated; nothing else is needed to be safe, and one bad file stops nobody but the pods that it may be about
//! (statement 228): those that would be opened.
//!
//! What is held is as old as the agent that has written it: it follows neither peers nor ports. That is the price of
//! not knowing what it was made of.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringfence_model::{Direction, Namespace, NamespacedName, PodUid, Source};
use ringfence_netns::NetnsId;
use ringfence_policy::Openings;
use ringfence_ruleset::Ruleset;
use tracing::info;

use super::Controller;
use super::target::Target;
use crate::event::Found;

/// Sources that a reason names; the others are counted.
const NAMED: usize = 3;

/// Why less may be known than an earlier agent knew.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// What the source has never been able to read.
    pub(super) unread: Vec<Source>,
    /// Namespaces that are being deleted, and those that are gone and have left pods behind.
    ending: BTreeSet<Arc<str>>,
}

/// The reason for one pod.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doubt<'a> {
    /// Not everything could be read.
    Unread(&'a [Source]),
    /// Its namespace is being deleted.
    Ending,
}

impl Doubts {
    /// Whether a policy that isolates the pod may be missing. What people can mend comes first.
    pub(super) fn about(&self, pod: &NamespacedName) -> Option<Doubt<'_>> {
        if !self.unread.is_empty() {
            return Some(Doubt::Unread(&self.unread));
        }
        self.ending.contains(&pod.namespace).then_some(Doubt::Ending)
    }
}

impl Controller {
    /// Another list of what could not be read.
    pub(super) fn unread_changed(&mut self, unread: Vec<Source>) {
        self.doubts.unread = unread;
        if self.doubts.unread.is_empty() {
            info!(source = &*self.setup.source, "Everything in the source has been read");
        }
        self.doubts_changed();
    }

    /// A namespace is as the source says now; `None`: it is gone.
    pub(super) fn note_namespace(&mut self, name: &Arc<str>, namespace: Option<&Namespace>) {
        match namespace {
            Some(namespace) if namespace.terminating => {
                self.doubts.ending.insert(Arc::clone(name));
            }
            // It may be another one of the same name: with what is known of its policies the pods are judged.
            Some(_) => {
                if self.doubts.ending.remove(name) {
                    self.doubts_changed();
                }
            }
            // Its pods go first, but not always on the watch that tells of them.
            None => self.forget_ending(name),
        }
    }

    /// A namespace that is gone is of no interest any more when its last pod here is.
    pub(super) fn forget_ending(&mut self, namespace: &Arc<str>) {
        let first = NamespacedName::new(Arc::clone(namespace), "");
        let next = self.names.range(first..).next();
        if next.is_none_or(|(name, _)| name.namespace != *namespace) && !self.roster.is_terminating(namespace) {
            self.doubts.ending.remove(namespace);
        }
    }

    /// Pods that are held may have their rules now, or have to wait for another reason.
    fn doubts_changed(&mut self) {
        for (pod, target) in &mut self.targets {
            if self.doubts.about(&target.pod.name).is_none() {
                target.forget_found();
            }
            if target.held.is_some() {
                self.due.insert(PodUid::clone(pod));
            }
        }
    }
}

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

    /// Everything is known: whatever is wanted is meant.
    pub(super) fn forget_found(&mut self) {
        if let Some(earlier) = &mut self.earlier {
            earlier.found = None;
        }
    }

    /// The doubt, if what is wanted now would open what rules of an earlier run keep closed, perhaps only because of it.
    pub(super) fn must_hold<'a>(&self, doubt: Option<Doubt<'a>>) -> Option<Doubt<'a>> {
        let (openings, _) = self.earlier.as_ref()?.found.as_ref()?;
        // A new namespace may have the identity of a former one that is gone: without rules there is nothing to hold.
        doubt.filter(|_| self.has_rules && !openings.cover(self.wanted.as_deref()))
    }

    /// Keeps what is in force.
    pub(super) fn hold(&mut self, doubt: Doubt<'_>) {
        let what = joined_or(&self.would_open(), "what they isolate");
        let why = match doubt {
            Doubt::Unread(unread) => format!(
                "nobody can say whether that is meant, because {} could not be read since the agent started; {}",
                listed(unread),
                remedy(unread)
            ),
            Doubt::Ending => format!(
                "namespace {} is being deleted, and what isolated its pods may have gone before them; this ends with \
                 the pod",
                self.pod.name.namespace
            ),
        };
        self.held = Some(format!("its rules stay as they are: {what} would be open otherwise, and {why}").into());
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

    /// The same for every reason to doubt.
    #[track_caller]
    fn check(found: Option<Found>, wanted: Option<Ruleset>, expected: Option<&str>) {
        let unread = unread();
        let named = "File a, File b, File c and 1 more";
        check_in(Doubt::Unread(&unread), named, found.clone(), wanted.clone(), expected);
        let named = "namespace shop is being deleted";
        check_in(Doubt::Ending, named, found, wanted, expected);
    }

    #[track_caller]
    fn check_in(doubt: Doubt<'_>, why: &str, found: Option<Found>, wanted: Option<Ruleset>, expected: Option<&str>) {
        let mut target = Target::new(Arc::new(testing::pod("shop", "web")), Ok("/run/netns/web".into()));
        target.has_rules = found.is_some();
        target.note_found(netns(), found);
        target.wanted = wanted.map(Arc::new);
        assert!(target.must_hold(None).is_none(), "everything is known");
        assert_eq!(target.must_hold(Some(doubt)).is_some(), expected.is_some());
        if let Some(expected) = expected {
            target.hold(doubt);
            let (status, _) = target.status(std::time::SystemTime::now());
            let State::Held(reason) = &status.state else {
                panic!("{:?}", status.state)
            };
            assert!(reason.contains(expected) && reason.contains(why), "{reason}");
            assert!(!status.is_current() && target.settled());
        }
    }

    #[test]
    fn s138_s139_rules_of_an_earlier_run_are_held_where_less_would_be_isolated() {
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
        let holds = |target: &Target| target.must_hold(Some(Doubt::Unread(&unread()))).is_some();
        let mut target = Target::new(Arc::new(testing::pod("shop", "web")), Ok("/run/netns/web".into()));
        target.note_found(netns(), None);
        target.note_found(netns(), Some(Found::Rules(Arc::new(rules()))));
        assert!(!holds(&target), "these rules are of this run");

        let mut target = Target::new(Arc::new(testing::pod("shop", "web")), Ok("/run/netns/web".into()));
        target.has_rules = true;
        target.note_found(netns(), Some(Found::Rules(Arc::new(rules()))));
        assert!(holds(&target));
        target.release("it has gone for a moment".into());
        assert!(!holds(&target), "another one of its identity has no rules (129)");
        target.has_rules = true;
        target.note_found(netns(), Some(Found::Rules(Arc::new(both()))));
        target.wanted = Some(Arc::new(rules()));
        assert!(!holds(&target), "more than the first reading is of this run");
        target.wanted = None;
        assert!(holds(&target));
        target.forget_found();
        target.note_found(netns(), Some(Found::Rules(Arc::new(rules()))));
        assert!(!holds(&target), "everything was known once");
    }
}
