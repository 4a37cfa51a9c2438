//! What should be in force: the same objects through an index of the test's own, turn by turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfence::event::{Event, NetnsEvent};
use ringfence_kube::directory::Update;
use ringfence_model::{Object, ObjectKey, PodUid};
use ringfence_netns::Facts;
use ringfence_policy::{Index, Options, TargetFacts};
use ringfence_ruleset::Ruleset;

/// A pod's wanted rules, one state after the other, since the agent has started.
pub type History = Vec<Option<Arc<Ruleset>>>;

pub struct Reference {
    options: Options,
    index: Index,
    pub synced: bool,
    pub histories: BTreeMap<PodUid, History>,
    /// A policy may have stayed in force beyond its deletion (statement 138), which a new index cannot know.
    pub retains: bool,
    terminating: BTreeMap<Arc<str>, bool>,
    /// Namespaces that were being deleted when the source had said everything, and have not been anything else since: what
    /// an earlier agent has isolated there stays so (statement 138).
    ending: BTreeSet<Arc<str>>,
    /// The local pods, by namespace.
    locals: BTreeMap<PodUid, Arc<str>>,
}

/// The part of what was found that rulesets depend on.
pub fn target_facts(facts: &Facts) -> TargetFacts {
    TargetFacts {
        interfaces: facts.interfaces.keys().cloned().collect(),
        gateways: facts.gateways.clone(),
    }
}

impl Reference {
    pub fn new(options: Options) -> Self {
        Self {
            index: Index::new(options.clone()),
            options,
            synced: false,
            histories: BTreeMap::new(),
            retains: false,
            terminating: BTreeMap::new(),
            ending: BTreeSet::new(),
            locals: BTreeMap::new(),
        }
    }

    /// Before the loop takes it in. `current` says of an applier whether the loop still listens to it.
    pub fn observe(&mut self, event: &Event, current: impl Fn(u64) -> bool) {
        match event {
            Event::Source(batch) => batch.iter().for_each(|update| self.update(update)),
            Event::Netns(NetnsEvent::Opened {
                pod,
                run,
                result: Ok(opened),
            }) if current(*run) => {
                if let Ok(facts) = &opened.facts {
                    self.index.set_facts(pod, Some(target_facts(facts)));
                }
            }
            Event::Netns(NetnsEvent::Facts { pod, run, facts }) if current(*run) => {
                self.index.set_facts(pod, Some(target_facts(facts)));
            }
            _ => {}
        }
    }

    fn update(&mut self, update: &Update) {
        match update {
            Update::Apply(decoded) => {
                let Some(object) = &decoded.object else { return };
                match object {
                    Object::Pod(pod) if !self.options.locality.holds(pod) || pod.terminal => {
                        self.locals.remove(&pod.uid);
                        self.index.set_facts(&pod.uid, None);
                    }
                    Object::Pod(pod) => {
                        self.locals.insert(pod.uid.clone(), pod.name.namespace.clone());
                    }
                    Object::Namespace(namespace) => {
                        self.terminating.insert(namespace.name.clone(), namespace.terminating);
                        if !namespace.terminating {
                            self.ending.remove(&namespace.name);
                        }
                    }
                    _ => {}
                }
                self.index.apply(object.clone());
            }
            Update::Gone { key, .. } => {
                match key {
                    ObjectKey::Pod(pod) => {
                        self.locals.remove(pod);
                        self.index.set_facts(pod, None);
                    }
                    ObjectKey::Namespace(namespace) => {
                        self.terminating.remove(namespace);
                    }
                    ObjectKey::Policy(policy) => {
                        self.retains |= self.terminating.get(&policy.name.namespace).copied().unwrap_or(false);
                    }
                    ObjectKey::Network(_) => {}
                }
                self.index.remove(key);
            }
            Update::Synced { .. } => {
                self.synced = true;
                let ending = self.terminating.iter().filter(|(_, ending)| **ending);
                self.ending = ending.map(|(name, _)| name.clone()).collect();
            }
            Update::Report { .. } | Update::Unread(_) => {}
        }
        // One that is gone is known by the pods that it has left behind, as long as there are any.
        let (terminating, locals) = (&self.terminating, &self.locals);
        self.ending
            .retain(|name| terminating.contains_key(name) || locals.values().any(|it| it == name));
    }

    /// Whether the pod's namespace has been on its way out for as long as the agent knows it.
    pub fn ends(&self, pod: &PodUid) -> bool {
        self.locals
            .get(pod)
            .is_some_and(|namespace| self.ending.contains(namespace))
    }

    /// Whether it is on its way out now.
    pub fn is_ending(&self, pod: &PodUid) -> bool {
        let terminating = |namespace| self.terminating.get(namespace).copied().unwrap_or(true);
        self.locals.get(pod).is_some_and(terminating)
    }

    /// The turn is over: the pods that want something else now.
    pub fn commit(&mut self) -> Vec<PodUid> {
        if !self.synced {
            return Vec::new();
        }
        let dirty = self.index.commit();
        for pod in &dirty {
            let wanted = self.index.ruleset(pod).cloned().map(Arc::new);
            self.histories.entry(pod.clone()).or_default().push(wanted);
        }
        dirty
    }

    /// What is wanted now.
    pub fn wanted(&self, pod: &PodUid) -> Option<&Ruleset> {
        self.index.ruleset(pod)
    }

    /// The same from nothing but what is there.
    pub fn made_anew(&self, objects: &BTreeMap<ObjectKey, Object>, facts: &[(PodUid, Facts)]) -> Index {
        let mut index = Index::new(self.options.clone());
        for object in objects.values() {
            index.apply(object.clone());
        }
        for (pod, facts) in facts {
            index.set_facts(pod, Some(target_facts(facts)));
        }
        index.commit();
        index
    }
}
