//! One turn: events in, one commit, rulesets to the appliers, one snapshot.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use ringfence_kube::directory::Update;
use ringfence_model::{Consequence, Diagnostic, Object, ObjectKey, PodUid, Reason, Severity, Source};
use tracing::{debug, info, warn};

use super::hold::listed;
use super::target::{Phase, REOPEN_AFTER, Target};
use super::{Controller, SLICES};
use crate::event::{Cause, Event, NetnsEvent, Query, Stamp};
use crate::findings::{Change, Finder};
use crate::snapshot::State;

impl Controller {
    /// Takes in an event; the kernel and the readers hear of it in [`Self::finish`]. `false` ends the loop.
    pub fn handle(&mut self, event: Event, now: Instant) -> bool {
        self.quiet_until = self.quiet_until.filter(|until| now < *until);
        match event {
            Event::Source(batch) => batch.into_iter().for_each(|update| self.update(update, now)),
            Event::Sandboxes(changes) => changes.into_iter().for_each(|change| self.sandbox(change, now)),
            Event::Hook(hook) => self.hook(hook, now),
            Event::Netns(NetnsEvent::Seen { pod, path, id }) => self.seen(&pod, &path, id, now),
            Event::Netns(NetnsEvent::Silent { pod, path }) => self.silent(&pod, &path),
            Event::Netns(NetnsEvent::Opened { pod, run, result }) => self.opened(&pod, run, result, now),
            Event::Netns(NetnsEvent::Facts { pod, run, facts }) => {
                if self.is_current(&pod, run) {
                    self.note(Cause::Netns, now);
                    self.take_facts(&pod, facts);
                }
            }
            Event::Apply(applied) => self.applied(applied, now),
            Event::Timer => self.timer(now),
            Event::Query(Query::Locate {
                namespace,
                name,
                answer,
            }) => {
                // The reader may have lost its patience.
                drop(answer.send(self.roster.locate(namespace.as_deref(), &name)));
            }
            Event::Query(Query::Explain { parties, answer }) => drop(answer.send(self.index.shared_slice(&parties))),
            Event::Shutdown => return false,
        }
        true
    }

    /// Commits, hands rulesets over, publishes. The kernel comes first: readers can wait.
    pub fn finish(&mut self, now: Instant) {
        let stamp = self.stamp.take();
        // No kernel write before the source has delivered everything once (invariant 5).
        if self.synced {
            for pod in self.index.commit() {
                let Some(target) = self.targets.get_mut(&pod) else {
                    continue;
                };
                target.take(self.index.view(&pod), self.index.ruleset(&pod));
                target.stamp = stamp.map(|stamp| stamp.earlier(target.stamp)).or(target.stamp);
                if !self.due.contains(&pod) {
                    self.changed(&pod, now);
                }
                self.touched.insert(pod);
            }
            for pod in std::mem::take(&mut self.due) {
                self.hand_over(&pod, now);
                self.touched.insert(pod);
            }
            if std::mem::take(&mut self.pods_changed) {
                let conflicts = self.conflicts();
                let change = self.findings.replace_all(Finder::Index, conflicts);
                self.report(&change);
            }
            self.announce_findings();
        }
        self.answer_starts(now);
        self.publish();
        debug!(duration = ?now.elapsed(), "Turn done");
    }

    // === Objects ===

    fn update(&mut self, update: Update, now: Instant) {
        match update {
            Update::Apply(decoded) => {
                let change = self
                    .findings
                    .replace(Finder::Source, &decoded.source, decoded.diagnostics);
                self.report(&change);
                if let Some(object) = decoded.object {
                    self.apply(object, now);
                }
            }
            Update::Gone { key, source } => {
                let change = self.findings.replace(Finder::Source, &source, Vec::new());
                self.report(&change);
                self.remove(&key, now);
            }
            Update::Report { source, diagnostics } => {
                let change = self.findings.replace(Finder::Source, &source, diagnostics);
                self.report(&change);
            }
            Update::Synced { unread } => {
                self.doubts.unread = unread;
                self.source_synced(now);
            }
            Update::Unread(unread) => self.unread_changed(unread),
        }
    }

    pub(super) fn apply(&mut self, object: Object, now: Instant) {
        let object = self.adopt(object);
        let mut local = false;
        match &object {
            Object::Pod(pod) => {
                self.note(Cause::Pod, now);
                self.pods_changed = true;
                // A pod that has ended is let go like one that is deleted: its rules stay as long as its namespace.
                local = self.locality.holds(pod) && !pod.terminal;
                if local {
                    self.track(pod, now);
                } else {
                    self.let_go(&pod.uid, now);
                }
            }
            Object::Policy(_) => self.note(Cause::Policy, now),
            Object::Namespace(namespace) => {
                self.note(Cause::Namespace, now);
                self.note_namespace(&namespace.name, Some(namespace));
            }
            Object::Network(_) => self.note(Cause::Network, now),
        }
        self.roster.apply(&object, local);
        self.announce_network(&object);
        match object {
            // What it claims counts as far as its own interfaces do not contradict it.
            Object::Pod(pod) if local => {
                let believed = self.believe(&pod);
                self.index.apply(Object::Pod(believed));
            }
            object => self.index.apply(object),
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey, now: Instant) {
        match key {
            ObjectKey::Pod(pod) => {
                self.note(Cause::Pod, now);
                self.pods_changed = true;
                self.disown(pod);
                self.let_go(pod, now);
            }
            ObjectKey::Policy(_) => self.note(Cause::Policy, now),
            ObjectKey::Namespace(_) => self.note(Cause::Namespace, now),
            ObjectKey::Network(_) => self.note(Cause::Network, now),
        }
        self.roster.remove(key);
        self.announcements.removed(key);
        self.index.remove(key);
        if let ObjectKey::Namespace(name) = key {
            self.note_namespace(name, None);
        }
    }

    fn source_synced(&mut self, now: Instant) {
        if self.synced {
            return;
        }
        self.synced = true;
        self.stamp = Some(Stamp {
            cause: Cause::Start,
            received: now,
        });
        info!(
            source = &*self.setup.source,
            local_pods = self.targets.len(),
            policies = self.roster.policies().len(),
            "Source has delivered everything once: enforcement begins"
        );
        if !self.doubts.unread.is_empty() {
            warn!(
                source = &*self.setup.source,
                unread = listed(&self.doubts.unread).as_str(),
                "Not everything could be read: what rules of an earlier run isolate stays isolated until it can"
            );
        }
        // Every pod is opened once, isolated or not: rules of an earlier run may have to go.
        for pod in self.active.values().cloned().collect::<Vec<_>>() {
            self.open(&pod, Cause::Start, now);
        }
        self.introduce_listed(now);
    }

    /// The event that started this turn: the first one's kind and time count for all.
    pub(super) fn note(&mut self, cause: Cause, received: Instant) {
        self.stamp.get_or_insert(Stamp { cause, received });
    }

    pub(super) fn report(&mut self, change: &Change) {
        change.log();
        self.metrics.appeared(&change.appeared);
        self.announcements.appeared(&change.appeared);
    }

    fn conflicts(&self) -> Vec<Diagnostic> {
        // The primary interface is on two networks, and what it shares on both is one conflict to people.
        let mut networks: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for conflict in self.index.conflicts() {
            for other in conflict.others {
                let key = (other, conflict.owner.clone(), conflict.address);
                networks.entry(key).or_default().push(conflict.network.to_string());
            }
        }
        let finding = |((other, owner, address), networks): ((PodUid, PodUid, IpAddr), Vec<String>)| Diagnostic {
            source: Source {
                kind: "Pod".into(),
                name: self.roster.name(&other).into(),
            },
            path: String::new(),
            severity: Severity::Error,
            reason: Reason::DuplicateAddress,
            message: format!(
                "{address} on network {} is claimed by pod {} too, which is newer: this pod has no rights by it",
                networks.join(", "),
                self.roster.name(&owner)
            ),
            consequence: Consequence::PartIgnored,
        };
        networks.into_iter().map(finding).collect()
    }

    // === Time ===

    fn timer(&mut self, now: Instant) {
        while let Some((retry, _)) = self.retries.first()
            && *retry <= now
        {
            if let Some((_, pod)) = self.retries.pop_first() {
                self.retry(&pod, now);
            }
        }
        if self.next_verify <= now {
            self.next_verify = now + self.setup.resync / SLICES;
            self.verify_slice(now);
        }
    }

    fn retry(&mut self, pod: &PodUid, now: Instant) {
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        // It has recovered, or the date was put off.
        let Some(failure) = target.failure.as_ref().filter(|failure| failure.retry <= now) else {
            return;
        };
        let reopen = failure.attempts % REOPEN_AFTER == 0;
        match &target.phase {
            Phase::Live(..) if !reopen => {
                self.due.insert(pod.clone());
            }
            Phase::Live(..) | Phase::Broken => self.open(pod, Cause::Netns, now),
            // Under way, or waiting for a namespace.
            Phase::Opening(_) | Phase::Absent(_) | Phase::Idle(_) => {}
        }
    }

    /// Asks the next tenth of the pods for a comparison with the kernel.
    fn verify_slice(&mut self, now: Instant) {
        let count = self.targets.len().div_ceil(usize::try_from(SLICES).unwrap_or(1));
        let start = self.verified.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut asked = 0;
        let mut doubtful = Vec::new();
        for (pod, target) in self.targets.range((start, Bound::Unbounded)).take(count) {
            asked += 1;
            self.verified = Some(pod.clone());
            if let Phase::Live(applier, _) = &target.phase {
                applier.mailbox().verify();
            }
            if matches!(target.phase, Phase::Idle(_)) && target.contradicted {
                doubtful.push(pod.clone());
            }
        }
        self.look_again(doubtful, now);
        // The end of the list: the next tick begins anew.
        if asked < count {
            self.verified = None;
        }
    }

    // === Readers ===

    fn publish(&mut self) {
        let now = self.hands.date();
        for pod in std::mem::take(&mut self.touched) {
            let Some(target) = self.targets.get_mut(&pod) else {
                continue;
            };
            if self.active.get(&target.pod.name) != Some(&pod) {
                continue;
            }
            let (status, news) = target.status(now);
            let name = target.pod.name.clone();
            let transient = !matches!(target.phase, Phase::Absent(_));
            // Before the source has delivered everything, states would be guesses.
            if self.synced {
                self.announcements.pod(&pod, &status, news);
            }
            if news && self.synced {
                // As strings: see `Change::log`.
                let (name, uid) = (name.to_string(), pod.as_str());
                let (pod, reason) = (name.as_str(), status.state.reason().unwrap_or_default());
                match &status.state {
                    State::Open => debug!(pod, uid, "Pod is not isolated"),
                    State::Enforced => info!(pod, uid, "Pod is enforced"),
                    State::Held(_) => warn!(pod, uid, reason, "Pod is held: its rules stay as they are"),
                    State::Pending(_) if transient => debug!(pod, uid, reason, "Pod is pending"),
                    State::Pending(_) => info!(pod, uid, reason, "Pod is pending"),
                    State::Failed(_) => warn!(pod, uid, reason, "Pod has failed"),
                }
            }
            self.snapshot.pods.insert(name, Arc::new(status));
        }
        self.snapshot.policies.clone_from(self.roster.policies());
        self.snapshot.networks.clone_from(self.roster.networks());
        self.snapshot.findings.clone_from(self.findings.standing());
        self.snapshot.synced = self.synced;
        if self.synced && self.places.complete() && !self.snapshot.settled {
            self.snapshot.settled = self
                .active
                .values()
                .filter_map(|pod| self.targets.get(pod))
                .all(Target::settled);
            if self.snapshot.settled {
                info!("Every local pod has been dealt with once: ready");
            }
        }
        self.snapshots.store(Arc::new(self.snapshot.clone()));
    }
}
