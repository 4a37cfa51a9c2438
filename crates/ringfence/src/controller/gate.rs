//! Pods that wait to be started: the question of a hook of the container runtime becomes a place, if need be a pod that
//! the source has not delivered yet, and an answer once the kernel has the pod's first rules.
//!
//! Whoever asks holds a lock of the whole node meanwhile, so nothing here waits for anything but the pod's applier: not
//! for the API server, and not for a retry. What cannot be closed at once is refused, and the kubelet tries again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use ringfence_cri::Change;
use ringfence_model::{Object, ObjectKey, Pod, PodUid};
use tracing::{debug, info, warn};

use super::Controller;
use super::target::{InKernel, Phase, Target};
use crate::applier::Applier;
use crate::event::{Applied, Cause, Success};
use crate::start::{Hook, Sandbox, Start};

/// Time before the end of a question's patience at which it is refused with the reason that is known here: whoever asks
/// has less to say.
const MARGIN: Duration = Duration::from_millis(200);

/// What is known of pods that start.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// In the order of their questions; those of this turn too.
    waiting: Vec<Start>,
    /// Pods that are known from their sandboxes only.
    provisional: BTreeMap<PodUid, Provisional>,
    /// Sandboxes that were there before the source had delivered everything.
    listed: Vec<Sandbox>,
    /// When sandboxes were made that nobody has asked about, as long as their pods' first rules are not in force.
    unasked: HashMap<PodUid, SystemTime>,
}

#[derive(Debug)]
struct Provisional {
    /// The sandbox that tells of it.
    sandbox: String,
    /// The pod as the source knows it, but not on which node it is: from the watch of all other nodes' pods.
    remote: Option<Pod>,
}

/// What has become of a question.
type Verdict = Option<Result<(), String>>;

impl Gate {
    /// Whether nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next question must have its answer.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(limit).min()
    }

    /// Nothing isolates the pod: it was not unprotected.
    pub(super) fn needs_nothing(&mut self, pod: &PodUid) {
        self.unasked.remove(pod);
    }
}

fn limit(start: &Start) -> Instant {
    // Where there is next to no patience, half of it is ours.
    let patience = start.until.saturating_duration_since(start.received);
    start.received + patience.saturating_sub(MARGIN.min(patience / 2))
}

impl Controller {
    /// Takes in what a hook says. Questions are answered at the end of a turn.
    pub(super) fn hook(&mut self, hook: Hook, now: Instant) {
        match hook {
            Hook::Start(start) => {
                self.note(Cause::Pod, start.received);
                self.found(&start.sandbox, now);
                self.introduce(&start.sandbox, now);
                self.gate.waiting.push(*start);
            }
            Hook::Gone { sandbox } => {
                if let Some(pod) = self.places.unhook(&sandbox) {
                    self.place(&pod, now);
                }
                self.forget(&sandbox, now);
            }
            Hook::Listed(sandboxes) => {
                self.places.forget_hooked();
                for sandbox in &sandboxes {
                    // The runtime's own list knows which of several sandboxes counts.
                    if !self.places.has_runtime() {
                        self.found(sandbox, now);
                    }
                    if self.synced {
                        self.introduce(sandbox, now);
                    }
                }
                self.gate.listed = if self.synced { Vec::new() } else { sandboxes };
                self.places.poke();
                self.place_all(now);
            }
            // What follows is seen by the runtime's lists alone.
            Hook::Lost => self.places.poke(),
        }
    }

    /// Gives a sandbox's pod its place, before any list has it.
    fn found(&mut self, sandbox: &Sandbox, now: Instant) {
        let Some(pod) = self.of_sandbox(sandbox) else { return };
        let Ok(Some(path)) = &sandbox.place else { return };
        self.gate.unasked.remove(&pod);
        // A network plugin is told the name and the UID of a static pod, and not that it is one. But its UID is a hash.
        let may_be_static = sandbox.from_file || sandbox.pod.is_none() && !is_of_api(&pod);
        let static_pod = may_be_static.then(|| sandbox.name.clone());
        self.places
            .hook(pod.clone(), sandbox.id.clone(), path.clone(), static_pod);
        let owner = self.owner(sandbox);
        let runs = |targets: &BTreeMap<PodUid, Target>| targets.get(owner.as_ref()?)?.applier().map(Applier::run);
        let before = runs(&self.targets);
        self.place(&pod, now);
        // Interfaces may have come since it was opened.
        if before.is_some()
            && before == runs(&self.targets)
            && let Some(applier) = owner.and_then(|pod| self.targets.get(&pod)?.applier())
        {
            applier.mailbox().verify();
        }
    }

    /// Whose sandbox it is. Network plugins are not always told the UID.
    fn of_sandbox(&self, sandbox: &Sandbox) -> Option<PodUid> {
        let by_name = || self.active.get(&sandbox.name);
        sandbox.uid.as_ref().or_else(by_name).cloned()
    }

    /// The pod that the source knows it as: of a static pod that is its mirror.
    fn owner(&self, sandbox: &Sandbox) -> Option<PodUid> {
        let pod = self.of_sandbox(sandbox)?;
        let is_mirror = |named: &&PodUid| {
            let target = self.targets.get(*named);
            target.is_some_and(|target| target.pod.mirror_of.as_ref() == Some(&pod))
        };
        let mirror = || self.active.get(&sandbox.name).filter(is_mirror).cloned();
        if self.targets.contains_key(&pod) {
            return Some(pod);
        }
        mirror().or(Some(pod))
    }

    /// Makes a pod of the sandbox where the source has not delivered it yet, so that policies select it.
    fn introduce(&mut self, sandbox: &Sandbox, now: Instant) {
        let Some(pod) = sandbox.pod.as_ref().filter(|_| !sandbox.from_file && self.synced) else {
            return;
        };
        // On this node and let go: it has ended. On another one: then the sandbox is not the pod's.
        if self.roster.is_bound(&pod.uid) {
            return;
        }
        let mut pod = pod.clone();
        // Its node's addresses are those of its neighbours' node (statement 117).
        let neighbours = self.targets.values().map(|target| &target.pod.host_addresses);
        pod.host_addresses = neighbours.flatten().copied().collect();
        debug!(
            pod = pod.name.to_string().as_str(),
            uid = pod.uid.as_str(),
            "Pod is known from its sandbox first"
        );
        // Without a node it is known from the watch of all other nodes' pods, and stays known when the sandbox goes.
        let remote = match self.gate.provisional.remove(&pod.uid) {
            Some(before) => before.remote,
            None if self.roster.knows(&pod.uid) => Some(elsewhere(&pod)),
            None => None,
        };
        let uid = pod.uid.clone();
        self.apply(Object::Pod(pod), now);
        let sandbox = sandbox.id.clone();
        self.gate.provisional.insert(uid, Provisional { sandbox, remote });
    }

    /// What the source says of a pod that is known from its sandbox. As long as it does not say where the pod runs, its
    /// sandbox does.
    pub(super) fn adopt(&mut self, object: Object) -> Object {
        let Object::Pod(mut pod) = object else { return object };
        if let Some(provisional) = self.gate.provisional.get_mut(&pod.uid) {
            if pod.node.is_some() || pod.terminal {
                self.gate.provisional.remove(&pod.uid);
            } else {
                provisional.remote = Some(pod.clone());
                pod.node = Some(self.setup.node.clone());
            }
        }
        Object::Pod(pod)
    }

    /// The source has taken the pod out.
    pub(super) fn disown(&mut self, pod: &PodUid) {
        self.gate.provisional.remove(pod);
        self.gate.unasked.remove(pod);
    }

    /// The sandbox goes, and with it the pod that only it has told of.
    fn forget(&mut self, sandbox: &str, now: Instant) {
        let told = |(_, provisional): &(&PodUid, &Provisional)| provisional.sandbox == sandbox;
        let Some(pod) = self.gate.provisional.iter().find(told).map(|(pod, _)| pod.clone()) else {
            return;
        };
        let provisional = self.gate.provisional.remove(&pod);
        match provisional.and_then(|provisional| provisional.remote) {
            Some(remote) => self.apply(Object::Pod(remote), now),
            None => self.remove(&ObjectKey::Pod(pod), now),
        }
    }

    /// The source has delivered everything once: what it has not delivered is known from sandboxes only.
    pub(super) fn introduce_listed(&mut self, now: Instant) {
        for sandbox in std::mem::take(&mut self.gate.listed) {
            self.introduce(&sandbox, now);
        }
    }

    /// Notes when a sandbox was made that nobody has asked about.
    pub(super) fn note_unasked(&mut self, change: &Change) {
        match change {
            // Those that were there at the start may be older than the policies, and than Ringfence.
            Change::Found {
                pod,
                sandbox,
                created: Some(created),
                // Those start before it is known what they are; see docs/start.md.
                static_pod: None,
                ..
            } if self.synced && self.places.complete() && !self.places.was_hooked(pod, sandbox) => {
                self.gate.unasked.insert(pod.clone(), *created);
            }
            Change::Gone { pod } => {
                self.gate.unasked.remove(pod);
            }
            Change::Found { .. } | Change::Unusable { .. } | Change::Synced => {}
        }
    }

    /// The first rules of a pod that nobody has asked about are in force: it was open until now.
    pub(super) fn note_first_rules(&mut self, applied: &Applied) {
        if applied.result == Ok(Success::Committed)
            && applied.wanted.is_some()
            && let Some(created) = self.gate.unasked.remove(&applied.pod)
        {
            let open = created.elapsed().unwrap_or_default();
            self.metrics.starts().unprotected(open);
            info!(
                uid = applied.pod.as_str(),
                ?open,
                "A sandbox was found late: it was open that long"
            );
        }
    }

    /// Answers what can be answered.
    pub(super) fn answer_starts(&mut self, now: Instant) {
        for mut start in std::mem::take(&mut self.gate.waiting) {
            // Its object has come meanwhile: only now it is known whose place that is.
            if start.sandbox.uid.is_none()
                && let Some(pod) = self.active.get(&start.sandbox.name)
            {
                start.sandbox.uid = Some(pod.clone());
                self.found(&start.sandbox, now);
            }
            let verdict = self.verdict(&start).or_else(|| self.too_late(&start, now));
            let Some(answer) = verdict else {
                self.gate.waiting.push(start);
                continue;
            };
            let took = start.received.elapsed();
            self.metrics.starts().answered(took, answer.is_ok());
            let name = start.sandbox.name.to_string();
            let (pod, sandbox) = (name.as_str(), start.sandbox.id.as_str());
            match &answer {
                Ok(()) => debug!(pod, sandbox, ?took, "Pod may start"),
                Err(reason) => warn!(pod, sandbox, reason = reason.as_str(), "Start of a pod refused"),
            }
            start
                .answer
                .send(answer.map_err(|reason| format!("ringfence: {reason}")));
        }
    }

    /// `None`: it cannot be said yet.
    fn verdict(&self, start: &Start) -> Verdict {
        let sandbox = &start.sandbox;
        match &sandbox.place {
            Err(reason) => return Some(Err(reason.clone())),
            Ok(None) => return Some(Ok(())),
            Ok(Some(_)) => {}
        }
        let pod = self.owner(sandbox);
        let target = pod.as_ref().and_then(|pod| self.targets.get(pod));
        // Which policies mean it is not known before its mirror is, and without the API server the kubelet makes none.
        if sandbox.from_file && (!self.synced || target.is_none()) {
            return Some(Ok(()));
        }
        if !self.synced {
            return Some(if sandbox.tolerates {
                Ok(())
            } else {
                Err(format!(
                    "nobody knows yet whether policies isolate this pod, because the agent has not read everything from \
                     its source ({}) since it started",
                    self.setup.source
                ))
            });
        }
        match target {
            Some(target) => decided(target),
            // Whatever the runtime calls its network: it gets no rules.
            None if pod.as_ref().is_some_and(|pod| self.roster.is_on_the_node(pod)) => Some(Ok(())),
            // A network plugin is told no more than the name: its object is waited for.
            None if sandbox.uid.is_none() || !self.knows(sandbox) && sandbox.pod.is_none() => None,
            None => Some(Err("the pod has ended, or it is bound to another node".to_owned())),
        }
    }

    fn knows(&self, sandbox: &Sandbox) -> bool {
        sandbox.uid.as_ref().is_some_and(|pod| self.roster.is_bound(pod))
    }

    fn too_late(&self, start: &Start, now: Instant) -> Verdict {
        if now < limit(start) {
            return None;
        }
        let target = self.owner(&start.sandbox).and_then(|pod| self.targets.get(&pod));
        let why = target.map_or("the pod is not known to the agent yet", |target| match target.phase {
            Phase::Opening(_) => "its network namespace is still being opened",
            _ => "its first rules are still being written",
        });
        Some(Err(format!(
            "its rules were not in force within {} ms: {why}",
            limit(start).saturating_duration_since(start.received).as_millis()
        )))
    }
}

/// Whether the API server gives such UIDs (RFC 9562); it lets nobody else choose them.
fn is_of_api(pod: &PodUid) -> bool {
    let groups = pod.as_str().split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12])
}

/// The pod as other nodes know it: without the addresses of a sandbox that goes.
fn elsewhere(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    pod.node = None;
    for attachment in &mut pod.attachments {
        attachment.addresses.clear();
    }
    pod
}

/// Whether the pod's isolated interfaces are closed, as far as its policies want it.
fn decided(target: &Target) -> Verdict {
    if target.wanted.is_none() || target.held.is_some() {
        return Some(Ok(()));
    }
    if let Some(failure) = &target.failure {
        return Some(if failure.closed {
            Ok(())
        } else {
            Err(format!("its rules cannot be put in force: {}", failure.reason))
        });
    }
    match &target.phase {
        Phase::Live(..) if matches!(target.in_kernel, InKernel::Holds(Some(_))) => Some(Ok(())),
        Phase::Absent(why) => Some(Err(format!("its rules cannot be put in force: {why}"))),
        Phase::Live(..) | Phase::Opening(_) | Phase::Idle(_) | Phase::Broken => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_of_the_api_are_told_from_hashes() {
        let is_of_api = |text: &str| is_of_api(&PodUid::new(text).expect("valid"));
        assert!(is_of_api("7b2c3e1a-0d4f-4c5b-9a6e-1f2d3c4b5a69"));
        assert!(!is_of_api("0123456789abcdef0123456789abcdef"));
    }
}
