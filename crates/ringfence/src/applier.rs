//! One OS thread per pod that has something to enforce, so that a pod whose kernel work hangs delays no other
//! (invariant 7). All work inside the pod's network namespace happens here (invariant 10).
//!
//! The loop leaves the latest ruleset in the [`Mailbox`]; what it leaves while a transaction runs replaces what it
//! left before. The thread answers through the loop's event channel. It ends when it is told to, and releases the
//! namespace then; the rules stay (invariant 8).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use ringfence_model::PodUid;
use ringfence_netlink::{Counters, Enforcer, Outcome};
use ringfence_netns::{Facts, Netns};
use ringfence_ruleset::{Hook, KernelFeatures, Ruleset, Table, Verdict};
use tokio::sync::mpsc::UnboundedSender;

use crate::event::{Applied, Cause, Drift, Event, NetnsEvent, OpenError, Opened, Refusal, Stamp, Success};

/// The threads only fill buffers that are on the heap; 256 KiB is four times what their deepest call takes.
const STACK: usize = 256 * 1024;

/// A ruleset to put in force.
#[derive(Debug, Clone)]
struct Job {
    wanted: Option<Arc<Ruleset>>,
    stamp: Option<Stamp>,
}

/// What the thread is to do next.
#[derive(Debug, Default)]
struct Slot {
    job: Option<Job>,
    verify: bool,
    counters: Vec<UnboundedSender<(PodUid, Counters)>>,
    stop: bool,
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
        });
    }

    /// Asks for a comparison with the kernel, and for the facts if they have changed.
    pub fn verify(&self) {
        self.fill(|slot| slot.verify = true);
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

    fn take(&self) -> Slot {
        let mut slot = self.lock();
        while slot.job.is_none() && !slot.verify && slot.counters.is_empty() && !slot.stop {
            slot = self.filled.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        let stop = slot.stop;
        let taken = std::mem::take(&mut *slot);
        slot.stop = stop;
        taken
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
    /// Starts the thread, which opens the namespace at once. An error is one of the operating system, for a lack of
    /// threads or memory.
    pub fn start(
        pod: PodUid,
        path: PathBuf,
        run: u64,
        features: KernelFeatures,
        events: UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let worker = Worker {
            pod,
            run,
            mailbox: Arc::clone(&mailbox),
            events,
            features,
        };
        thread::Builder::new()
            .name(format!("apply-{run}"))
            .stack_size(STACK)
            .spawn(move || worker.run(&path))?;
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

/// The thread's side.
struct Worker {
    pod: PodUid,
    run: u64,
    mailbox: Arc<Mailbox>,
    events: UnboundedSender<Event>,
    features: KernelFeatures,
}

/// What the thread holds of the namespace.
struct Inside {
    netns: Netns,
    facts: Option<Facts>,
    enforcer: Enforcer,
}

impl Worker {
    fn run(&self, path: &Path) {
        // A panic is a fault in Ringfence. It must not leave the pod for "enforced" for ever: the loop starts another
        // applier, with the back-off of any failure.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work(path))) {
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

    fn work(&self, path: &Path) {
        let (mut inside, facts) = match self.open(path) {
            Ok(it) => it,
            Err(error) => return self.opened(Err(error)),
        };
        self.opened(Ok(Opened {
            id: inside.netns.id(),
            facts,
            has_rules: has_rules(&inside.enforcer),
        }));
        let mut last: Option<Job> = None;
        loop {
            let slot = self.mailbox.take();
            if slot.stop {
                return;
            }
            if let Some(job) = slot.job {
                last = Some(Job {
                    wanted: job.wanted.clone(),
                    stamp: None,
                });
                self.enforce(&mut inside.enforcer, job, None);
            }
            if slot.verify {
                self.refresh_facts(&mut inside);
                // Before the first ruleset there is nothing that the kernel's could be compared with.
                if let Some(job) = &last {
                    self.verify(&mut inside.enforcer, job.clone());
                }
            }
            if !slot.counters.is_empty() {
                // Without an answer the reader goes on with the values it has.
                let counters = inside.enforcer.counters().unwrap_or_else(|_| BTreeMap::new());
                for answer in slot.counters {
                    // The reader may have lost its patience.
                    drop(answer.send((self.pod.clone(), counters.clone())));
                }
            }
        }
    }

    fn open(&self, path: &Path) -> Result<(Inside, Result<Facts, String>), OpenError> {
        let failed = |reason: String| OpenError { pending: false, reason };
        let netns = Netns::open(path).map_err(|error| OpenError {
            pending: error.is_pending(),
            reason: error.to_string(),
        })?;
        let (facts, enforcer) = netns
            .run(|| (ringfence_netns::facts(), Enforcer::open(self.features)))
            .map_err(|error| failed(error.to_string()))?;
        let enforcer = enforcer.map_err(|error| failed(error.to_string()))?;
        let facts = facts.map_err(|error| error.to_string());
        let inside = Inside {
            netns,
            facts: facts.as_ref().ok().cloned(),
            enforcer,
        };
        Ok((inside, facts))
    }

    fn refresh_facts(&self, inside: &mut Inside) {
        let Ok(Ok(facts)) = inside.netns.run(ringfence_netns::facts) else {
            // What was known stays; the next comparison tries again.
            return;
        };
        if inside.facts.as_ref() != Some(&facts) {
            inside.facts = Some(facts.clone());
            self.send(Event::Netns(NetnsEvent::Facts {
                pod: self.pod.clone(),
                run: self.run,
                facts,
            }));
        }
    }

    fn verify(&self, enforcer: &mut Enforcer, mut job: Job) {
        let received = Instant::now();
        match enforcer.verify() {
            Ok(None) => {}
            Ok(Some(drift)) => {
                job.stamp = Some(Stamp {
                    cause: Cause::Drift,
                    received,
                });
                self.enforce(enforcer, job, Some(described(&drift)));
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

    fn enforce(&self, enforcer: &mut Enforcer, job: Job, drift: Option<Drift>) {
        let begun = Instant::now();
        match enforcer.enforce(job.wanted.as_deref()) {
            Ok(outcome) => {
                let (success, repaired) = sorted(&outcome);
                self.applied(job, begun, Ok(success), drift.or(repaired));
            }
            Err(error) => {
                let closed = match &job.wanted {
                    // Never open: what cannot be enforced is at least closed (invariant 6).
                    Some(wanted) if !has_rules(enforcer) => enforcer.enforce(Some(&closed(wanted))).is_ok(),
                    _ => false,
                };
                let refusal = Refusal {
                    reason: error.to_string(),
                    closed,
                };
                self.applied(job, begun, Err(refusal), drift);
            }
        }
    }

    fn applied(&self, job: Job, begun: Instant, result: Result<Success, Refusal>, drift: Option<Drift>) {
        let committed = Instant::now();
        self.send(Event::Apply(Applied {
            pod: self.pod.clone(),
            run: self.run,
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
            pod: self.pod.clone(),
            run: self.run,
            result,
        }));
    }

    fn send(&self, event: Event) {
        // The loop has ended: so does this thread, at its next look at the mailbox.
        drop(self.events.send(event));
    }
}

fn has_rules(enforcer: &Enforcer) -> bool {
    enforcer.current().is_some() || enforcer.unknown().is_some()
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
    out
}
