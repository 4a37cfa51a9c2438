//! A local pod as the loop keeps it: how far its network namespace, its applier and its rules are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ringfence_model::{Direction, Pod};
use ringfence_netns::NetnsId;
use ringfence_policy::PodView;
use ringfence_ruleset::Ruleset;

use super::claims::Interfaces;
use super::hold::Earlier;
use crate::applier::Applier;
use crate::event::Stamp;
use crate::snapshot::{Isolation, PodStatus, State};

/// First and longest time before a refused ruleset is tried again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Refusals in a row after which the applier is started anew, with a new socket and a new reading of the kernel.
pub(super) const REOPEN_AFTER: u32 = 3;

/// A local pod.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what is known of it: each is true or not by itself"
)]
pub(super) struct Target {
    pub(super) pod: Arc<Pod>,
    /// Where its network namespace is, or why that is not known. May come later and change.
    pub(super) path: Result<PathBuf, Arc<str>>,
    pub(super) phase: Phase,
    pub(super) wanted: Option<Arc<Ruleset>>,
    pub(super) in_kernel: InKernel,
    pub(super) isolation: Arc<[Isolation]>,
    view: Option<PodView>,
    pub(super) failure: Option<Failure>,
    /// What the next ruleset is for.
    pub(super) stamp: Option<Stamp>,
    /// Whether the facts of its namespace have been read at least once.
    pub(super) facts_known: bool,
    /// Its interfaces, as they were read last.
    pub(super) interfaces: Option<Interfaces>,
    /// Whether they contradict an address that its annotations claim.
    pub(super) contradicted: bool,
    /// Whether rules of an earlier run were found there.
    pub(super) has_rules: bool,
    /// Whether an applier was given rules. They may be in force before it says so.
    pub(super) handed_over: bool,
    /// What was found there when it was opened first, as long as it may have to stay.
    pub(super) earlier: Option<Earlier>,
    /// Why it stays although something else is wanted.
    pub(super) held: Option<Arc<str>>,
    /// Why nobody can say what is at its path.
    pub(super) silent: Option<Arc<str>>,
    state: State,
    since: SystemTime,
}

/// What this agent has put into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InKernel {
    /// Nothing yet: there may be rules of an earlier run.
    Untouched,
    /// The last successful transaction left this.
    Holds(Option<Arc<Ruleset>>),
}

/// How far the namespace is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing at its path, or nothing that may be used.
    Absent(Arc<str>),
    /// An applier is opening it.
    Opening(Applier),
    /// An applier holds it.
    Live(Applier, NetnsId),
    /// It has been looked at, and there is nothing to do: it is not held.
    Idle(NetnsId),
    /// It could not be opened; see the failure.
    Broken,
}

/// Why the rules are not in force, and how often that has happened.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: Arc<str>,
    pub(super) attempts: u32,
    pub(super) closed: bool,
    /// When it happened last.
    pub(super) at: Instant,
    /// When it is tried again.
    pub(super) retry: Instant,
}

impl Target {
    pub(super) fn new(pod: Arc<Pod>, path: Result<PathBuf, Arc<str>>) -> Self {
        Self {
            pod,
            path,
            phase: Phase::Absent("its network namespace has not been looked for yet".into()),
            wanted: None,
            in_kernel: InKernel::Untouched,
            isolation: Arc::default(),
            view: None,
            failure: None,
            stamp: None,
            facts_known: false,
            interfaces: None,
            contradicted: false,
            has_rules: false,
            handed_over: false,
            earlier: None,
            held: None,
            silent: None,
            state: State::Pending("it is new".into()),
            // The first row says since when.
            since: SystemTime::UNIX_EPOCH,
        }
    }

    /// The applier, if there is one.
    pub(super) fn applier(&self) -> Option<&Applier> {
        match &self.phase {
            Phase::Opening(applier) | Phase::Live(applier, _) => Some(applier),
            Phase::Absent(_) | Phase::Idle(_) | Phase::Broken => None,
        }
    }

    /// Takes in what the index now says.
    pub(super) fn take(&mut self, view: Option<&PodView>, ruleset: Option<&Ruleset>) {
        self.wanted = ruleset.cloned().map(Arc::new);
        // Most changes are of elements: the view stays.
        if self.view.as_ref() != view {
            self.view = view.cloned();
            self.isolation = view.map(isolation).unwrap_or_default();
        }
    }

    /// Gives up what is held of the namespace. The rules in it stay.
    pub(super) fn release(&mut self, why: Arc<str>) {
        self.phase = Phase::Absent(why);
        self.in_kernel = InKernel::Untouched;
        self.facts_known = false;
        self.interfaces = None;
        self.has_rules = false;
        self.handed_over = false;
        self.held = None;
        self.silent = None;
        self.failure = None;
    }

    /// Whether nothing isolates it and nothing of Ringfence is in its namespace, now or before.
    pub(super) fn nothing_to_do(&self) -> bool {
        self.wanted.is_none() && !self.has_rules && !self.handed_over && self.in_kernel == InKernel::Untouched
    }

    /// The latest ruleset, for the applier.
    pub(super) fn give(&mut self) -> Option<Arc<Ruleset>> {
        self.handed_over |= self.wanted.is_some();
        self.wanted.clone()
    }

    /// Lets the applier go; another one is started when there is something to do.
    pub(super) fn retire(&mut self) {
        if let Phase::Live(_, id) = &self.phase {
            self.phase = Phase::Idle(*id);
            self.failure = None;
            self.stamp = None;
        }
    }

    /// Notes a failure and says when to try again: after 100 ms, then twice as long each time, up to 30 s.
    pub(super) fn fail(&mut self, reason: Arc<str>, closed: bool, now: Instant) -> Instant {
        let attempts = self.failure.as_ref().map_or(0, |failure| failure.attempts) + 1;
        // A pod that was closed for want of anything better stays closed until its rules are written.
        let closed = closed || self.failure.as_ref().is_some_and(|failure| failure.closed);
        let retry = now + backoff(attempts);
        self.failure = Some(Failure {
            reason,
            attempts,
            closed,
            at: now,
            retry,
        });
        retry
    }

    /// A changed ruleset may be what the kernel takes, so it does not wait for the whole back-off; but a stream of
    /// changes must not become a stream of refusals either.
    pub(super) fn hasten(&mut self, now: Instant) -> Option<Instant> {
        let failure = self.failure.as_mut()?;
        failure.retry = failure.retry.min((failure.at + FIRST_RETRY).max(now));
        Some(failure.retry)
    }

    /// Whether its first turn is over: something is in force, or there is a reason why not.
    pub(super) fn settled(&self) -> bool {
        self.failure.is_some()
            || self.held.is_some()
            || self.silent.is_some()
            || match &self.phase {
                Phase::Absent(_) | Phase::Idle(_) | Phase::Broken => true,
                Phase::Opening(_) => false,
                Phase::Live(..) => self.in_kernel != InKernel::Untouched,
            }
    }

    /// The row of the snapshot. Whether anything about its state is new is the second value.
    pub(super) fn status(&mut self, now: SystemTime) -> (PodStatus, bool) {
        let state = self.judge();
        let news = state != self.state;
        if news {
            self.state = state;
            self.since = now;
        }
        let status = PodStatus {
            pod: Arc::clone(&self.pod),
            isolation: Arc::clone(&self.isolation),
            state: self.state.clone(),
            since: self.since,
            netns: self.path.as_ref().ok().cloned(),
            wanted: self.wanted.clone(),
            in_kernel: match &self.in_kernel {
                InKernel::Untouched => self.kept().cloned(),
                InKernel::Holds(ruleset) => ruleset.clone(),
            },
            applier: self.applier().map(|applier| Arc::clone(applier.mailbox())),
        };
        (status, news)
    }

    fn judge(&self) -> State {
        if let Some(failure) = &self.failure {
            return State::Failed(if failure.closed {
                format!("{}; the isolated interfaces are closed until then", failure.reason).into()
            } else {
                Arc::clone(&failure.reason)
            });
        }
        if let Some(why) = &self.held {
            return State::Held(Arc::clone(why));
        }
        if self.wanted.is_none() {
            return match (&self.phase, &self.in_kernel) {
                (Phase::Live(..), InKernel::Holds(Some(_))) => State::Pending("its rules are being removed".into()),
                _ => State::Open,
            };
        }
        if let (Some(why), Phase::Absent(_) | Phase::Opening(_) | Phase::Idle(_) | Phase::Broken) =
            (&self.silent, &self.phase)
        {
            return State::Pending(Arc::clone(why));
        }
        match (&self.phase, &self.in_kernel) {
            (Phase::Live(..), InKernel::Holds(Some(_))) => State::Enforced,
            (Phase::Absent(why), _) => State::Pending(Arc::clone(why)),
            (Phase::Opening(_) | Phase::Idle(_) | Phase::Broken, _) => {
                State::Pending("its network namespace is being opened".into())
            }
            (Phase::Live(..), _) => State::Pending("its first rules are being written".into()),
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST_RETRY
        .saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)))
        .min(LAST_RETRY)
}

fn isolation(view: &PodView) -> Arc<[Isolation]> {
    let mut out = Vec::new();
    for attachment in &view.attachments {
        for direction in Direction::BOTH {
            let policies = attachment.isolating(direction);
            if !policies.is_empty() {
                out.push(Isolation {
                    interface: attachment.attachment.interface.clone(),
                    networks: attachment.attachment.networks.clone(),
                    direction,
                    policies: policies.to_vec(),
                });
            }
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, ruleset};

    fn target() -> Target {
        let pod = pod("shop", "web");
        let mut target = Target::new(Arc::new(pod), Ok("/run/netns/shop.web".into()));
        target.wanted = Some(Arc::new(ruleset(&target.pod.uid)));
        target
    }

    #[test]
    fn the_back_off_doubles_from_100_ms_to_30_s() {
        let mut target = target();
        let now = Instant::now();
        let waits: Vec<u128> = (0..12)
            .map(|_| target.fail("EPERM".into(), false, now).duration_since(now).as_millis())
            .collect();
        let expected = [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000,
        ];
        assert_eq!(waits, expected);
        assert_eq!(backoff(u32::MAX), LAST_RETRY);
    }

    #[test]
    fn a_changed_ruleset_is_tried_100_ms_after_the_last_attempt_at_the_latest() {
        let mut target = target();
        let begin = Instant::now();
        assert_eq!(target.hasten(begin), None);
        for _ in 0..8 {
            target.fail("EPERM".into(), false, begin);
        }
        assert_eq!(target.hasten(begin), Some(begin + FIRST_RETRY));
        let later = begin + Duration::from_secs(5);
        target.fail("EPERM".into(), false, begin);
        assert_eq!(target.hasten(later), Some(later));
    }

    #[test]
    fn s227_a_pod_that_was_given_rules_is_not_let_go_before_they_are_taken_back() {
        let mut target = target();
        assert!(target.give().is_some());
        target.wanted = None;
        assert!(
            !target.nothing_to_do(),
            "they may be in force although nobody has said so"
        );
        target.release("its network namespace is another one".into());
        assert!(target.nothing_to_do());
    }

    #[test]
    fn states_follow_from_namespace_failure_and_rules() {
        let mut target = target();
        let now = SystemTime::now();
        target.release("no network namespace at /run/netns/shop.web".into());
        let (status, news) = target.status(now);
        assert_eq!(
            status.state,
            State::Pending("no network namespace at /run/netns/shop.web".into())
        );
        assert!(news);
        assert!(!target.status(now).1, "nothing new");
        target.fail("EPERM".into(), true, Instant::now());
        let closed = "EPERM; the isolated interfaces are closed until then";
        assert_eq!(target.status(now).0.state, State::Failed(closed.into()));
        // Later refusals find the closed table in place and do not close it again.
        target.fail("EPERM".into(), false, Instant::now());
        assert_eq!(target.status(now).0.state, State::Failed(closed.into()));
        target.failure = None;
        target.wanted = None;
        assert_eq!(target.status(now).0.state, State::Open);
    }
}
