//! One OS thread per pod that has something to enforce, so that a pod whose kernel work hangs delays no other
//! (invariant 7). All work inside the pod's network namespace happens here (invariant 10).
//!
//! The loop leaves the latest ruleset in the [`Mailbox`]; what it leaves while a transaction runs replaces what it
//! left before. The thread answers through the loop's channels. It ends when it is told to, and releases the
//! namespace then; the rules stay (invariant 8).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ringfence_model::PodUid;
use ringfence_netlink::kernel::Kernel;
use ringfence_netlink::{Counters, Enforcer, Error, Outcome};
use ringfence_ruleset::{Hook, KernelFeatures, Name, Ruleset, Table, Verdict};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::event::{Applied, Cause, Drift, Event, Found, NetnsEvent, OpenError, Opened, Refusal, Stamp, Success};
use crate::host::{Hands, Host, Inside, Order};

/// A ruleset to put in force.
#[derive(Debug, Clone)]
struct Job {
    wanted: Option<Arc<Ruleset>>,
    stamp: Option<Stamp>,
}

/// What the thread is to do next.
#[derive(Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a request of its own, and any may stand together"
)]
pub struct Slot {
    job: Option<Job>,
    /// What was found is to stay for now.
    keep: bool,
    verify: bool,
    counters: Vec<UnboundedSender<(PodUid, Counters)>>,
    stop: bool,
    /// Somebody has given the namespace a filter of traffic control.
    redirected: bool,
    /// Since when there has been a ruleset that is not dealt with.
    busy: Option<Instant>,
}

impl Slot {
    fn is_idle(&self) -> bool {
        self.job.is_none() && !self.keep && !self.verify && self.counters.is_empty() && !self.stop
    }

    /// The thread is back: what it had taken is dealt with.
    fn is_back(&mut self) {
        if self.job.is_none() {
            self.busy = None;
        }
    }

    fn empty(&mut self) -> Self {
        let (stop, busy) = (self.stop, self.busy);
        let taken = std::mem::take(self);
        // For good, and until the thread is back.
        (self.stop, self.busy) = (stop, busy);
        taken
    }
}

/// Where an applier finds its work.
#[derive(Debug, Default)]
pub struct Mailbox {
    slot: Mutex<Slot>,
    filled: Condvar,
}

impl Mailbox {
    /// Leaves a ruleset. One that was left before and not taken yet is not needed any more, but the time since its
    /// event counts.
    pub fn enforce(&self, wanted: Option<Arc<Ruleset>>, stamp: Option<Stamp>) {
        self.fill(|slot| {
            let before = slot.job.take().and_then(|job| job.stamp);
            let stamp = stamp.map(|stamp| stamp.earlier(before)).or(before);
            slot.job = Some(Job { wanted, stamp });
            slot.busy.get_or_insert_with(Instant::now);
        });
    }

    /// What was found in the namespace is to stay, and to be mended like rules of ours where somebody changes it. Holds
    /// until the next ruleset, and does nothing after one.
    pub fn keep(&self) {
        self.fill(|slot| slot.keep = true);
    }

    /// Asks for a comparison with the kernel, and for the facts if they have changed.
    pub fn verify(&self) {
        self.fill(|slot| slot.verify = true);
    }

    /// Somebody has given the namespace a filter of traffic control. To be followed by [`Self::verify`].
    pub fn redirected(&self) {
        self.fill(|slot| slot.redirected = true);
    }

    /// Asks for the drop counters. A thread that has ended or that hangs does not answer.
    pub fn counters(&self, answer: UnboundedSender<(PodUid, Counters)>) {
        self.fill(|slot| {
            // Readers that have lost their patience must not pile up where a thread hangs.
            slot.counters.retain(|waiting| !waiting.is_closed());
            slot.counters.push(answer);
        });
    }

    /// Lets the thread end and release the namespace.
    pub fn stop(&self) {
        self.fill(|slot| {
            slot.stop = true;
            slot.counters.clear();
        });
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    /// Whether the loop has given the thread up.
    pub fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Since when it has had a ruleset that the thread has not dealt with.
    pub fn busy_since(&self) -> Option<Instant> {
        let slot = self.lock();
        slot.busy.filter(|_| !slot.stop)
    }

    fn fill(&self, change: impl FnOnce(&mut Slot)) {
        let mut slot = self.lock();
        if slot.stop {
            return;
        }
        change(&mut slot);
        // Released first: the thread would wake only to wait for it.
        drop(slot);
        self.filled.notify_one();
    }

    /// Waits for something to do.
    fn take(&self) -> Slot {
        let mut slot = self.lock();
        slot.is_back();
        while slot.is_idle() {
            slot = self.filled.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        slot.empty()
    }

    /// What there is to do, if anything.
    pub fn try_take(&self) -> Option<Slot> {
        let mut slot = self.lock();
        slot.is_back();
        (!slot.is_idle()).then(|| slot.empty())
    }

    /// A slot is changed by assignments only, so one that a panicking thread held is whole.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running applier. Dropping it lets its thread end.
#[derive(Debug)]
pub struct Applier {
    mailbox: Arc<Mailbox>,
    run: u64,
}

impl Applier {
    /// Has one started, which opens the namespace at once. An error is one of the operating system, for a lack of threads
    /// or memory.
    pub fn start(
        hands: &mut dyn Hands,
        pod: PodUid,
        path: PathBuf,
        run: u64,
        features: KernelFeatures,
        reports: Reports,
    ) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        hands.start(Order {
            pod,
            path,
            run,
            features,
            mailbox: Arc::clone(&mailbox),
            reports,
        })?;
        Ok(Self { mailbox, run })
    }

    /// Its mailbox.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Its number among the appliers of this process; reports of earlier ones are out of date.
    pub fn run(&self) -> u64 {
        self.run
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.mailbox.stop();
    }
}

/// Where appliers report to. What a transaction has come to goes by a channel of its own, because the loop does not
/// want to be woken for each of them.
#[derive(Debug, Clone)]
pub struct Reports {
    /// What the loop is to hear at once.
    pub events: UnboundedSender<Event>,
    /// What has become of rulesets.
    pub results: UnboundedSender<Applied>,
}

/// The thread's side.
#[derive(Debug)]
pub struct Worker<H> {
    order: Order,
    host: H,
}

/// What it holds between two pieces of work.
pub struct Session<H: Host> {
    inside: Inside<H>,
    last: Option<Job>,
}

impl<H: Host> Worker<H> {
    /// Does nothing yet.
    pub fn new(order: Order, host: H) -> Self {
        Self { order, host }
    }

    /// Works until it is told to stop, or cannot open the namespace.
    pub(crate) fn run(&self) {
        // A panic is a fault in Ringfence. It must not leave the pod for "enforced" for ever: the loop starts another
        // applier, with the back-off of any failure.
        let work = || {
            if let Some(mut session) = self.begin() {
                while self.serve(&mut session, self.order.mailbox.take()) {}
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            self.opened(Err(OpenError {
                pending: false,
                reason: format!("the applier failed unexpectedly: {reason}"),
            }));
        }
    }

    /// Opens the namespace and reports what is there; `None` where that has failed.
    pub fn begin(&self) -> Option<Session<H>> {
        // It must not take the tables over from its successor.
        if self.order.mailbox.is_stopped() {
            return None;
        }
        match self.host.open(&self.order) {
            Ok(inside) => {
                self.opened(Ok(Opened {
                    id: inside.id,
                    facts: inside.facts.clone(),
                    found: found(&inside.enforcer),
                }));
                Some(Session { inside, last: None })
            }
            Err(error) => {
                self.opened(Err(error));
                None
            }
        }
    }

    /// Does what there is to do. `false`: it was told to stop.
    pub fn serve(&self, session: &mut Session<H>, slot: Slot) -> bool {
        let Session { inside, last } = session;
        if slot.stop {
            return false;
        }
        if slot.keep && last.is_none() {
            let found = inside.enforcer.current().cloned();
            *last = found.map(|found| Job {
                wanted: Some(Arc::new(found)),
                stamp: None,
            });
        }
        if let Some(job) = slot.job {
            *last = Some(Job {
                wanted: job.wanted.clone(),
                stamp: None,
            });
            let wanted = job.wanted.clone();
            // Taken before the rules, let go behind them: closing what is held takes the kernel tens of milliseconds.
            if wanted.is_some() {
                self.guard(inside, wanted.as_deref(), false);
            }
            if !self.enforce(inside, job, None) {
                // The reason is often an interface that has gone: rules without it follow from the facts.
                self.refresh_facts(inside);
            } else if wanted.is_none() {
                self.guard(inside, None, false);
            }
            // The rules are in force, so this may take its time.
            if self.host.settle(&inside.guards) {
                self.guard(inside, wanted.as_deref(), true);
            }
        }
        let guards_frames = |rules: &Ruleset| !rules.netdev.chains.is_empty();
        if slot.redirected && inside.enforcer.current().is_some_and(guards_frames) {
            warn!(
                uid = %self.order.pod,
                "A tc filter is new in the pod: what such a filter redirects passes behind its egress rules"
            );
        }
        if slot.verify {
            self.refresh_facts(inside);
            // Before the first ruleset there is nothing that the kernel's could be compared with.
            if let Some(job) = last {
                if job.wanted.is_some() {
                    self.guard(inside, job.wanted.as_deref(), true);
                }
                self.verify(inside, job.clone());
            }
        }
        if !slot.counters.is_empty() {
            // Without an answer the reader goes on with the values it has.
            let counters = inside.enforcer.counters().unwrap_or_else(|_| BTreeMap::new());
            for answer in slot.counters {
                // The reader may have lost its patience.
                drop(answer.send((self.order.pod.clone(), counters.clone())));
            }
        }
        true
    }

    fn refresh_facts(&self, inside: &mut Inside<H>) {
        let Ok(facts) = self.host.facts(&inside.netns) else {
            // What was known stays; the next comparison tries again.
            return;
        };
        if inside.facts.as_ref() != Ok(&facts) {
            inside.facts = Ok(facts.clone());
            self.send(Event::Netns(NetnsEvent::Facts {
                pod: self.order.pod.clone(),
                run: self.order.run,
                facts,
            }));
        }
    }

    fn verify(&self, inside: &mut Inside<H>, mut job: Job) {
        let received = self.host.now();
        match inside.enforcer.verify() {
            Ok(None) => {}
            Ok(Some(drift)) => {
                job.stamp = Some(Stamp {
                    cause: Cause::Drift,
                    received,
                });
                self.enforce(inside, job, Some(described(&drift)));
            }
            Err(error) => {
                let refusal = Refusal {
                    reason: error.to_string(),
                    closed: false,
                };
                self.applied(job, received, Err(refusal), None);
            }
        }
    }

    /// Whether the kernel has taken it.
    fn enforce(&self, inside: &mut Inside<H>, job: Job, drift: Option<Drift>) -> bool {
        let begun = self.host.now();
        let is_first = job.wanted.is_some() && !inside.enforcer.has_rules();
        // Where somebody has deleted the tables, conntrack knows the connections still. And the socket that tells it of them
        // cannot be closed before the kernel is done with what was deleted: tens of milliseconds in which the pod is open.
        if is_first && drift.is_none() {
            // A namespace without rules does not track connections. Those that are open when the first ruleset comes would
            // get their direction from whichever packet comes first: a denied one could live on, and an allowed one could
            // stall (statements 105 to 107). So conntrack is told of them, with nothing slow between this and the transaction.
            self.host.track_connections(&self.order.pod, &inside.netns);
        }
        let enforced = self.enforce_now(&mut inside.enforcer, job, drift, begun);
        if is_first {
            // What was opened between the first look and the transaction has no entry, and segments from the middle of a
            // connection make none under the rules (statement 106): an allowed one would stall for ever (107). Under the
            // rules everything begins with a packet that conntrack sees, so nothing is missed any more.
            self.host.track_connections(&self.order.pod, &inside.netns);
        }
        enforced
    }

    fn enforce_now(&self, enforcer: &mut Enforcer<H::Kernel>, job: Job, drift: Option<Drift>, begun: Instant) -> bool {
        let current = || !self.order.mailbox.is_stopped();
        match enforcer.enforce_while(job.wanted.as_deref(), current) {
            Ok(outcome) => {
                let (success, repaired) = sorted(&outcome);
                self.applied(job, begun, Ok(success), drift.or(repaired));
                true
            }
            // Nobody listens any more.
            Err(Error::Superseded) => true,
            Err(error) => {
                let closed = match &job.wanted {
                    // Never open: what cannot be enforced is at least closed (invariant 6). But a lost answer is no refusal:
                    // what is in force, though nobody has said so, must not be closed again.
                    Some(wanted) if !enforcer.has_rules() => {
                        enforcer.enforce_while(Some(&closed(wanted)), current).is_ok()
                    }
                    _ => false,
                };
                let refusal = Refusal {
                    reason: error.to_string(),
                    closed,
                };
                self.applied(job, begun, Err(refusal), drift);
                false
            }
        }
    }

    /// Keeps the pod from sending past these rules, before they are in force. `again`: its interfaces may be others now.
    fn guard(&self, inside: &mut Inside<H>, wanted: Option<&Ruleset>, again: bool) {
        self.host
            .guard(&self.order.pod, &inside.netns, &mut inside.guards, wanted, again);
    }

    fn applied(&self, job: Job, begun: Instant, result: Result<Success, Refusal>, drift: Option<Drift>) {
        let committed = self.host.now();
        // The loop has ended: so does this thread, at its next look at the mailbox.
        drop(self.order.reports.results.send(Applied {
            pod: self.order.pod.clone(),
            run: self.order.run,
            wanted: job.wanted,
            stamp: job.stamp,
            committed,
            took: committed.duration_since(begun),
            result,
            drift,
        }));
    }

    fn opened(&self, result: Result<Opened, OpenError>) {
        self.send(Event::Netns(NetnsEvent::Opened {
            pod: self.order.pod.clone(),
            run: self.order.run,
            result,
        }));
    }

    fn send(&self, event: Event) {
        // As for results.
        drop(self.order.reports.events.send(event));
    }
}

fn found<K: Kernel>(enforcer: &Enforcer<K>) -> Option<Found> {
    match enforcer.current() {
        Some(ruleset) => Some(Found::Rules(Arc::new(ruleset.clone()))),
        None => enforcer.unknown().map(|_| Found::Unknown),
    }
}

fn sorted(outcome: &Outcome) -> (Success, Option<Drift>) {
    let success = match outcome {
        Outcome::Unchanged => Success::Unchanged,
        Outcome::Elements { .. } | Outcome::Ruleset { .. } => Success::Committed,
    };
    (success, outcome.repaired().map(described))
}

fn described(drift: &ringfence_netlink::Drift) -> Drift {
    Drift {
        reason: drift.reason.as_str(),
        detail: drift.detail.clone(),
    }
}

/// The same ruleset with nothing allowed on what it isolates: what is written where the kernel refuses a pod's first
/// ruleset. It has neither sets nor a netdev table nor a chain at the output hook, which are what kernels differ in.
///
/// Every chain that protects something ends in a drop; a chain without one allows everything to everyone and stays.
pub fn closed(ruleset: &Ruleset) -> Ruleset {
    let mut out = ruleset.clone();
    out.netdev = Table::default();
    out.inet.sets.clear();
    out.inet
        .chains
        .retain(|_, chain| !chain.base.as_ref().is_some_and(|base| base.hook == Hook::Output));
    for chain in out.inet.chains.values_mut().filter(|chain| chain.base.is_none()) {
        if let Some(last) = chain.rules.last().filter(|rule| rule.verdict == Verdict::Drop) {
            chain.rules = vec![last.clone()];
        }
    }
    // Chains that only allowing rules led to may look up sets that are gone, and the kernel would refuse this too.
    let reached = reached(&out.inet);
    out.inet.chains.retain(|name, _| reached.contains(name));
    out
}

/// The chains that packets can get to.
fn reached(table: &Table) -> BTreeSet<Name> {
    let mut reached = BTreeSet::new();
    let bases = table.chains.iter().filter(|(_, chain)| chain.base.is_some());
    let mut ahead: Vec<&Name> = bases.map(|(name, _)| name).collect();
    while let Some(name) = ahead.pop() {
        if reached.insert(name.clone()) {
            let rules = table.chains.get(name).map_or(&[][..], |chain| &chain.rules);
            ahead.extend(rules.iter().filter_map(|rule| match &rule.verdict {
                Verdict::Goto(next) | Verdict::Jump(next) => Some(next),
                Verdict::Accept | Verdict::Drop => None,
            }));
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringfence_ruleset::{Chain, Key, Match, Rule, Set, SetKind, Side, check};

    use super::*;
    use crate::testing;

    fn stamp(cause: Cause, received: Instant) -> Stamp {
        Stamp { cause, received }
    }

    #[test]
    fn of_several_rulesets_the_latest_is_taken_and_the_earliest_event_counts() {
        let mailbox = Mailbox::default();
        let begin = Instant::now();
        let wanted = Arc::new(testing::ruleset(&PodUid::new("x").expect("valid")));
        mailbox.enforce(None, Some(stamp(Cause::Policy, begin)));
        mailbox.enforce(None, None);
        mailbox.enforce(
            Some(Arc::clone(&wanted)),
            Some(stamp(Cause::Pod, begin + Duration::from_secs(1))),
        );
        assert!(mailbox.busy_since() >= Some(begin), "it waits");
        let slot = mailbox.take();
        assert!(mailbox.busy_since().is_some(), "it is being dealt with");
        let job = slot.job.expect("a job");
        assert!(job.wanted.is_some_and(|it| Arc::ptr_eq(&it, &wanted)));
        assert_eq!(job.stamp, Some(stamp(Cause::Policy, begin)));
        assert!(!slot.verify && !slot.stop && slot.counters.is_empty());
        mailbox.verify();
        let slot = mailbox.take();
        assert!(slot.job.is_none() && slot.verify);
        assert_eq!(mailbox.busy_since(), None, "it is done");
    }

    #[test]
    fn a_stopped_mailbox_takes_nothing_more_and_lets_readers_go() {
        let mailbox = Mailbox::default();
        let (answer, mut answers) = tokio::sync::mpsc::unbounded_channel();
        mailbox.counters(answer.clone());
        mailbox.stop();
        mailbox.counters(answer);
        mailbox.enforce(None, None);
        let slot = mailbox.take();
        assert!(slot.stop && slot.job.is_none() && slot.counters.is_empty());
        assert!(answers.blocking_recv().is_none(), "nobody is left who could answer");
        assert!(mailbox.take().stop, "for good");
    }

    #[test]
    fn readers_who_have_gone_do_not_pile_up() {
        let mailbox = Mailbox::default();
        for _ in 0..3 {
            let (answer, _) = tokio::sync::mpsc::unbounded_channel();
            mailbox.counters(answer);
        }
        assert_eq!(mailbox.take().counters.len(), 1);
    }

    #[test]
    fn what_is_closed_keeps_the_drops_and_nothing_else() {
        let mut ruleset = testing::ruleset(&PodUid::new("x").expect("valid"));
        let allow = Rule {
            matches: vec![Match::CtRelated],
            counter: None,
            verdict: Verdict::Accept,
        };
        let chains = &mut ruleset.inet.chains;
        let inside = chains.get_mut(&Name::new("net1-in")).expect("it is there");
        let drops = inside.rules.clone();
        inside.rules.insert(0, allow.clone());
        // Everything is allowed to everyone in this direction: there is nothing to close.
        let everything = Chain {
            base: None,
            rules: vec![allow],
        };
        chains.insert(Name::new("net2-in"), everything.clone());
        let way = Rule {
            matches: Vec::new(),
            counter: None,
            verdict: Verdict::Goto(Name::new("net2-in")),
        };
        chains
            .get_mut(&Name::new("arrive"))
            .expect("it is there")
            .rules
            .insert(0, way);
        let arrive = chains[&Name::new("arrive")].clone();
        let mut source = arrive.clone();
        source.base.as_mut().expect("a base chain").hook = Hook::Output;
        chains.insert(Name::new("source"), source);

        let closed = closed(&ruleset);
        assert_eq!(closed.inet.chains[&Name::new("net1-in")].rules, drops);
        assert_eq!(closed.inet.chains[&Name::new("net2-in")], everything);
        assert_eq!(closed.inet.chains[&Name::new("arrive")], arrive);
        assert_eq!(closed.inet.chains.len(), 3, "the chain at the output hook is left out");
        assert!(closed.inet.sets.is_empty() && closed.netdev == Table::default());
    }

    #[test]
    fn what_is_closed_has_no_chain_left_that_looks_up_a_set_that_is_gone() {
        let mut ruleset = testing::ruleset(&PodUid::new("x").expect("valid"));
        let ports = Name::new("net1-in-tcp-80-and-9-more-ports");
        let class = Name::new("net1-in-tcp-80-and-9-more");
        let set = Set {
            kind: SetKind::Ports,
            elements: imbl::OrdSet::new(),
        };
        ruleset.inet.sets.insert(ports.clone(), set);
        let rule = |matches, verdict| Rule {
            matches,
            counter: None,
            verdict,
        };
        let port = vec![Match::InSet(Key::Port(Side::Destination), ports)];
        let allowing = Chain {
            base: None,
            rules: vec![rule(port, Verdict::Accept)],
        };
        ruleset.inet.chains.insert(class.clone(), allowing);
        let inside = ruleset.inet.chains.get_mut(&Name::new("net1-in")).expect("it is there");
        inside.rules.insert(0, rule(Vec::new(), Verdict::Jump(class.clone())));
        check(&ruleset).expect("the kernel would take it");

        let closed = closed(&ruleset);
        assert!(!closed.inet.chains.contains_key(&class));
        check(&closed).expect("the kernel would take what is closed too");
    }
}
