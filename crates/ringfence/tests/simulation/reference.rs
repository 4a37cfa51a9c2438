//! What should be in force: the same objects through an index of the test's own, turn by turn.

use std::collections::BTreeMap;
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
                        self.index.set_facts(&pod.uid, None);
                    }
                    Object::Namespace(namespace) => {
                        self.terminating.insert(namespace.name.clone(), namespace.terminating);
                    }
                    _ => {}
                }
                self.index.apply(object.clone());
            }
            Update::Gone { key, .. } => {
                match key {
                    ObjectKey::Pod(pod) => self.index.set_facts(pod, None),
                    ObjectKey::Policy(policy) => {
                        self.retains |= self.terminating.get(&policy.name.namespace).copied().unwrap_or(false);
                    }
                    _ => {}
                }
                self.index.remove(key);
            }
            Update::Synced { .. } => self.synced = true,
            Update::Report { .. } | Update::Unread(_) => {}
        }
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
