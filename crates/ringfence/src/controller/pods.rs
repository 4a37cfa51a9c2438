//! The local pods: their network namespaces, their appliers, their rulesets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ringfence_cri::Change;
use ringfence_model::{Consequence, Diagnostic, NamespacedName, Pod, PodUid, Reason, Severity, Source};
use ringfence_netns::{Facts, NetnsId};
use ringfence_policy::TargetFacts;
use tracing::{info, warn};

use super::places::NoPlace;
use super::target::{InKernel, Phase, Target};
use super::{Controller, QUIET};
use crate::applier::Applier;
use crate::event::{Applied, Cause, OpenError, Opened, Stamp};
use crate::findings::Finder;

impl Controller {
    pub(super) fn track(&mut self, pod: &Pod, now: Instant) {
        self.touched.insert(pod.uid.clone());
        self.places.look_for(pod);
        if let Some(target) = self.targets.get_mut(&pod.uid) {
            let same = target.pod.attachments == pod.attachments;
            let moved = target.pod.mirror_of != pod.mirror_of;
            target.pod = Arc::new(pod.clone());
            // Other attachments often mean other interfaces: look now and not only at the next comparison.
            if let Some(applier) = target.applier().filter(|_| !same) {
                applier.mailbox().verify();
            } else if matches!(target.phase, Phase::Idle(_)) && !same {
                // What was read when it was looked at last says nothing about these.
                target.interfaces = None;
                self.open(&pod.uid, Cause::Netns, now);
            }
            if moved {
                self.place_one(&pod.uid, now);
            }
            return;
        }
        let path = self.place_of(pod);
        if let Err(NoPlace::Never(message)) = &path {
            let finding = Diagnostic {
                source: pod_source(&pod.name),
                path: "metadata".to_owned(),
                severity: Severity::Error,
                reason: Reason::Schema,
                message: message.to_string(),
                consequence: Consequence::ObjectIgnored,
            };
            let change = self
                .findings
                .replace(Finder::Agent, &finding.source.clone(), vec![finding]);
            self.report(&change);
        }
        let target = Target::new(Arc::new(pod.clone()), path.map_err(NoPlace::into_reason));
        self.targets.insert(pod.uid.clone(), target);
        self.names.entry(pod.name.clone()).or_default().insert(pod.uid.clone());
        self.announcements.arrived(&pod.name);
        self.elect(&pod.name, now);
        self.place_mirrors(&pod.uid, now);
    }

    /// The pod is gone, or it has ended. Its rules stay as long as its network namespace (never open).
    pub(super) fn let_go(&mut self, pod: &PodUid, now: Instant) {
        let Some(target) = self.targets.remove(pod) else {
            return;
        };
        self.hands.forget(pod);
        self.announcements.gone(pod);
        self.index.set_facts(pod, None);
        let name = target.pod.name.clone();
        for finder in [Finder::Agent, Finder::Claims] {
            let change = self.findings.replace(finder, &pod_source(&name), Vec::new());
            self.report(&change);
        }
        if let Some(others) = self.names.get_mut(&name) {
            others.remove(pod);
            if others.is_empty() {
                self.names.remove(&name);
            }
        }
        self.forget_ending(&name.namespace);
        info!(
            pod = name.to_string().as_str(),
            uid = pod.as_str(),
            "Pod is gone: its rules stay as long as its network namespace"
        );
        self.elect(&name, now);
        self.place_mirrors(pod, now);
    }

    /// Of several pods of one name only the newest may use the path: the others' namespaces are gone or going.
    fn elect(&mut self, name: &NamespacedName, now: Instant) {
        let newest = self.names.get(name).and_then(|pods| {
            pods.iter()
                .max_by_key(|uid| {
                    self.targets
                        .get(*uid)
                        .map(|target| (target.pod.started, (*uid).clone()))
                })
                .cloned()
        });
        let before = self.active.get(name).cloned();
        if newest == before {
            return;
        }
        if let Some(before) = before {
            self.hands.forget(&before);
            if let Some(target) = self.targets.get_mut(&before) {
                target.release("a newer pod has its name and its network namespace".into());
            }
        }
        let Some(newest) = newest else {
            self.active.remove(name);
            self.snapshot.pods.remove(name);
            return;
        };
        self.active.insert(name.clone(), newest.clone());
        let path = self.targets.get(&newest).and_then(|target| target.path.clone().ok());
        if let Some(path) = path {
            self.hands.track(newest.clone(), path);
        }
        if self.synced {
            self.open(&newest, Cause::Pod, now);
        }
    }

    // === Network namespaces ===

    pub(super) fn is_current(&self, pod: &PodUid, run: u64) -> bool {
        self.targets
            .get(pod)
            .and_then(Target::applier)
            .is_some_and(|applier| applier.run() == run)
    }

    /// Starts an applier, which reports what it finds.
    pub(super) fn open(&mut self, pod: &PodUid, cause: Cause, now: Instant) {
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        self.touched.insert(pod.clone());
        let path = match &target.path {
            Ok(path) => path.clone(),
            Err(reason) => {
                target.phase = Phase::Absent(Arc::clone(reason));
                return;
            }
        };
        let stamp = Stamp { cause, received: now };
        target.stamp = Some(stamp.earlier(target.stamp));
        self.runs += 1;
        // The former one ends before the next begins, as far as it depends on the loop.
        target.phase = Phase::Broken;
        let (features, reports) = (self.setup.features, self.reports.clone());
        match Applier::start(&mut *self.hands, pod.clone(), path, self.runs, features, reports) {
            Ok(applier) => {
                // Otherwise the first ruleset waits for the facts, which may change it.
                // Nor is anything written before it is known what is there, where that may have to stay.
                if target.facts_known && self.doubts.about(&target.pod.name).is_none() {
                    applier.mailbox().enforce(target.give(), target.stamp.take());
                }
                target.phase = Phase::Opening(applier);
            }
            Err(error) => {
                let retry = target.fail(format!("no thread could be started: {error}").into(), false, now);
                self.retries.insert((retry, pod.clone()));
            }
        }
    }

    /// The container runtime has something new to say of a pod's sandbox. The pod may be unknown: sandboxes and objects
    /// come in any order.
    pub(super) fn sandbox(&mut self, change: Change, now: Instant) {
        self.note_unasked(&change);
        match self.places.take(change) {
            Some(pod) => self.place(&pod, now),
            // Those without a place have another reason now.
            None => self.place_all(now),
        }
    }

    pub(super) fn place_all(&mut self, now: Instant) {
        for pod in self.targets.keys().cloned().collect::<Vec<_>>() {
            self.place(&pod, now);
        }
    }

    /// Gives a pod the place that is known for it now, and its mirror, if it is one that the API does not know.
    pub(super) fn place(&mut self, pod: &PodUid, now: Instant) {
        self.place_one(pod, now);
        self.place_mirrors(pod, now);
    }

    /// Whoever has the UID itself comes before all who claim it.
    fn place_of(&self, pod: &Pod) -> Result<PathBuf, NoPlace> {
        let claimed = pod.mirror_of.as_ref();
        self.places
            .of(pod, claimed.filter(|uid| !self.targets.contains_key(*uid)))
    }

    fn place_mirrors(&mut self, of: &PodUid, now: Instant) {
        let claims = |target: &Target| target.pod.mirror_of.as_ref() == Some(of);
        let mirrors = self.targets.iter().filter(|(_, target)| claims(target));
        for mirror in mirrors.map(|(pod, _)| pod.clone()).collect::<Vec<_>>() {
            self.place_one(&mirror, now);
        }
    }

    fn place_one(&mut self, pod: &PodUid, now: Instant) {
        let Some(target) = self.targets.get(pod) else { return };
        let path = self.place_of(&target.pod).map_err(NoPlace::into_reason);
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        // Another sandbox at the same path is seen there as another namespace.
        if path == target.path {
            return;
        }
        target.path.clone_from(&path);
        self.touched.insert(pod.clone());
        if self.active.get(&target.pod.name) != Some(pod) {
            return;
        }
        let held = !matches!(target.phase, Phase::Absent(_) | Phase::Broken);
        if held {
            info!(
                pod = target.pod.name.to_string().as_str(),
                uid = pod.as_str(),
                path = path.as_ref().map_or("", |path| path.to_str().unwrap_or_default()),
                "The pod has another sandbox, or none: its former network namespace keeps its rules"
            );
        }
        match path {
            Ok(path) => {
                target.release("its network namespace is another one".into());
                self.hands.track(pod.clone(), path);
                if self.synced {
                    self.open(pod, Cause::Netns, now);
                }
            }
            Err(reason) => {
                target.release(reason);
                self.hands.forget(pod);
            }
        }
    }

    pub(super) fn seen(&mut self, pod: &PodUid, path: &Path, id: Option<NetnsId>, now: Instant) {
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        // It has another place since then.
        if target.path.as_deref() != Ok(path) {
            return;
        }
        if target.silent.take().is_some() {
            self.touched.insert(pod.clone());
        }
        // Before that, nothing is opened; then everything is.
        if !self.synced {
            return;
        }
        let held = match &target.phase {
            Phase::Live(_, held) | Phase::Idle(held) => Some(*held),
            // What the applier is opening may be this one or the one before: it will say.
            Phase::Opening(_) => return,
            Phase::Absent(_) | Phase::Broken => None,
        };
        match id {
            Some(id) if held == Some(id) => {}
            Some(_) => {
                if held.is_some() {
                    info!(
                        pod = target.pod.name.to_string().as_str(),
                        uid = pod.as_str(),
                        "Network namespace was replaced: the new one is opened"
                    );
                    target.release("its network namespace was replaced".into());
                }
                self.open(pod, Cause::Netns, now);
            }
            None => {
                if held.is_some() {
                    info!(
                        pod = target.pod.name.to_string().as_str(),
                        uid = pod.as_str(),
                        "Network namespace is gone"
                    );
                    target.release(absent(target).into());
                    self.touched.insert(pod.clone());
                    // Often another sandbox follows.
                    self.places.poke();
                }
            }
        }
    }

    /// Nobody can say what is at the pod's path. Rules that are in force stay, and nobody else waits for it.
    pub(super) fn silent(&mut self, pod: &PodUid, path: &Path) {
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        if target.path.as_deref() != Ok(path) {
            return;
        }
        warn!(
            pod = target.pod.name.to_string().as_str(),
            uid = pod.as_str(),
            path = path.to_str().unwrap_or_default(),
            "The path of a network namespace does not answer: it is waited for, and others are not"
        );
        let reason = format!(
            "{} does not answer: the file system that it is on hangs",
            path.display()
        );
        target.silent = Some(reason.into());
        self.touched.insert(pod.clone());
    }

    pub(super) fn opened(&mut self, pod: &PodUid, run: u64, result: Result<Opened, OpenError>, now: Instant) {
        if !self.is_current(pod, run) {
            return;
        }
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        self.touched.insert(pod.clone());
        target.silent = None;
        match result {
            Ok(Opened { id, facts, found }) => {
                if let Phase::Opening(applier) = std::mem::replace(&mut target.phase, Phase::Broken) {
                    target.phase = Phase::Live(applier, id);
                }
                target.facts_known = true;
                target.has_rules = found.is_some();
                let doubt = self.doubts.about(&target.pod.name);
                target.note_found(id, found.filter(|_| doubt.is_some()));
                // What the watcher has seen before may be another one, and its number is free for the next: now that this
                // one is held, the watcher is to say anew what is there.
                if let Ok(path) = target.path.clone() {
                    self.hands.track(pod.clone(), path);
                }
                match facts {
                    Ok(facts) => self.take_facts(pod, facts),
                    Err(error) => {
                        warn!(
                            pod = target.pod.name.to_string().as_str(),
                            error = error.as_str(),
                            "Interfaces cannot be read: rules are made without them"
                        );
                    }
                }
                self.due.insert(pod.clone());
            }
            Err(OpenError { pending: true, reason }) => {
                target.release(reason.into());
                // The watcher may have reported the namespace while the applier was still running into the void: it
                // is to say once more what it sees.
                if let Ok(path) = target.path.clone() {
                    self.hands.track(pod.clone(), path);
                }
            }
            Err(OpenError { pending: false, reason }) => {
                target.phase = Phase::Broken;
                let retry = target.fail(reason.into(), false, now);
                self.retries.insert((retry, pod.clone()));
            }
        }
    }

    // === Rulesets ===

    /// The index has another ruleset for the pod.
    pub(super) fn changed(&mut self, pod: &PodUid, now: Instant) {
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        match target.hasten(now) {
            Some(retry) => {
                self.retries.insert((retry, pod.clone()));
            }
            None => self.hand_over(pod, now),
        }
    }

    /// Hands the latest ruleset to the pod's applier.
    pub(super) fn hand_over(&mut self, pod: &PodUid, now: Instant) {
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        let doubt = self.doubts.about(&target.pod.name);
        if let Phase::Live(applier, _) = &target.phase
            && let Some(doubt) = target.must_hold(doubt)
        {
            applier.mailbox().keep();
            target.hold(doubt);
            return;
        }
        match &target.phase {
            Phase::Live(..) if target.nothing_to_do() => {
                self.gate.needs_nothing(pod);
                target.retire();
            }
            Phase::Live(applier, _) => {
                let mailbox = Arc::clone(applier.mailbox());
                target.held = None;
                // Whoever waits for a pod's start is told at once.
                if self.gate.is_idle() {
                    self.quiet_until = Some(now + QUIET);
                }
                mailbox.enforce(target.give(), target.stamp.take());
            }
            Phase::Opening(applier) if target.facts_known && doubt.is_none() => {
                let mailbox = Arc::clone(applier.mailbox());
                mailbox.enforce(target.give(), target.stamp.take());
            }
            Phase::Idle(_) if target.wanted.is_some() => {
                let cause = target.stamp.map_or(Cause::Policy, |stamp| stamp.cause);
                self.open(pod, cause, now);
            }
            Phase::Idle(_) | Phase::Opening(_) | Phase::Absent(_) | Phase::Broken => {}
        }
    }

    pub(super) fn applied(&mut self, applied: Applied, now: Instant) {
        self.metrics.applied(&applied);
        (self.observer)(&applied);
        self.note_first_rules(&applied);
        if let Some(drift) = &applied.drift {
            warn!(
                uid = applied.pod.as_str(),
                reason = drift.reason,
                detail = drift.detail.as_str(),
                repaired = applied.result.is_ok(),
                "Rules were changed by somebody else"
            );
        }
        if !self.is_current(&applied.pod, applied.run) {
            return;
        }
        let Some(target) = self.targets.get_mut(&applied.pod) else {
            return;
        };
        if let (Some(drift), Ok(_)) = (&applied.drift, &applied.result) {
            self.announcements.repaired(&target.pod.name, &applied.pod, drift);
        }
        match applied.result {
            Ok(_) => {
                // This may be an older ruleset than the one that was put off until the retry, which now does not come.
                if target.failure.take().is_some() {
                    self.due.insert(applied.pod.clone());
                }
                target.in_kernel = InKernel::Holds(applied.wanted);
                self.touched.insert(applied.pod);
            }
            Err(refusal) => {
                // The event still waits for its rules.
                target.stamp = applied.stamp.map(|stamp| stamp.earlier(target.stamp)).or(target.stamp);
                let retry = target.fail(refusal.reason.into(), refusal.closed, now);
                self.retries.insert((retry, applied.pod.clone()));
                self.touched.insert(applied.pod);
            }
        }
    }
}

fn absent(target: &Target) -> String {
    match &target.path {
        Ok(path) => format!("no network namespace at {}", path.display()),
        Err(reason) => reason.to_string(),
    }
}

pub(super) fn pod_source(name: &NamespacedName) -> Source {
    Source {
        kind: "Pod".into(),
        name: name.to_string().into(),
    }
}

/// The part of what was found that rulesets depend on.
pub(super) fn target_facts(facts: Facts) -> TargetFacts {
    TargetFacts {
        interfaces: facts.interfaces.into_keys().collect(),
        gateways: facts.gateways,
    }
}
