//! What the cluster is told (Events), picked out of what the loop does. Nothing here waits: see
//! [`ringfence_kube::announce`].
//!
//! A pod's Events come from this node's agent alone. A policy is read by every agent, so those speak of it that have a
//! pod in its namespace: whom it may select. Whether it does select one is no condition, because a policy that was
//! rejected as a whole selects nobody, and that is what its author has to be told. In a namespace without any pod nobody
//! speaks until the first one comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use ringfence_kube::announce::{About, Announcement, Announcer, Topic};
use ringfence_model::{
    Diagnostic, NamespacedName, Network, NetworkName, Object, ObjectKey, PodUid, PolicyKey, PolicyKind, Severity,
    Source,
};

use super::Controller;
use crate::announce::{self, Told};
use crate::event::Drift;
use crate::findings::FindingKey;
use crate::snapshot::PodStatus;

/// What is still to be told, and what was.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    announcer: Announcer,
    /// Manifests that something new is wrong with.
    due: BTreeSet<Source>,
    /// Namespaces that another local pod is in.
    arrived: BTreeSet<Arc<str>>,
    /// Of the local pods.
    told: BTreeMap<PodUid, Told>,
    /// Networks whose packets do not pass the kernel, with the plugin that makes them.
    past_the_kernel: BTreeMap<NetworkName, &'static str>,
}

impl Announcements {
    pub(super) fn new(announcer: Announcer) -> Self {
        Self {
            announcer,
            ..Self::default()
        }
    }

    /// Something is wrong that was not before.
    pub(super) fn appeared(&mut self, findings: &[Diagnostic]) {
        if self.announcer.is_on() {
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
            self.due.extend(errors.map(|finding| finding.source.clone()));
        }
    }

    /// A local pod is new.
    pub(super) fn arrived(&mut self, name: &NamespacedName) {
        if self.announcer.is_on() {
            self.arrived.insert(Arc::clone(&name.namespace));
        }
    }

    /// A local pod is gone.
    pub(super) fn gone(&mut self, pod: &PodUid) {
        self.told.remove(pod);
    }

    /// Takes in how a network is made. Whether anything about it is new.
    pub(super) fn network(&mut self, network: &Network) -> bool {
        let name = NetworkName::Namespaced(network.name.clone());
        match announce::past_the_kernel(&network.plugins) {
            Some(plugin) => self.past_the_kernel.insert(name, plugin) != Some(plugin),
            None => self.past_the_kernel.remove(&name).is_some(),
        }
    }

    /// Forgets a network.
    pub(super) fn removed(&mut self, key: &ObjectKey) {
        if let ObjectKey::Network(name) = key {
            self.past_the_kernel.remove(&NetworkName::Namespaced(name.clone()));
        }
    }

    /// A row of the snapshot is another one; `news` where its state is.
    pub(super) fn pod(&mut self, uid: &PodUid, status: &PodStatus, news: bool) {
        if !self.announcer.is_on() {
            return;
        }
        let told = self.told.entry(uid.clone()).or_default();
        let mut said = announce::unsupported(told, &status.isolation, |network| {
            self.past_the_kernel.get(network).copied()
        });
        if news {
            said.extend(announce::state(told, &status.state));
        }
        for (topic, note) in said {
            self.about_pod(&status.pod.name, uid, topic, note);
        }
    }

    /// Rules that somebody changed were put back.
    pub(super) fn repaired(&self, name: &NamespacedName, uid: &PodUid, drift: &Drift) {
        let (topic, note) = announce::repaired(drift);
        self.about_pod(name, uid, topic, note);
    }

    fn about_pod(&self, name: &NamespacedName, uid: &PodUid, topic: Topic, note: String) {
        let about = About::Pod {
            name: name.clone(),
            uid: uid.clone(),
        };
        self.say(about, topic, note);
    }

    fn say(&self, about: About, topic: Topic, note: String) {
        self.announcer.announce(Announcement {
            about,
            topic,
            note,
            at: SystemTime::now(),
        });
    }
}

impl Controller {
    /// Tells what is wrong with manifests. At the end of a turn: then it is known which pods are local.
    pub(super) fn announce_findings(&mut self) {
        for namespace in std::mem::take(&mut self.announcements.arrived) {
            let about = self.findings.standing().keys().map(|key| &key.source);
            let there = about.filter(|source| policy_of(source).is_some_and(|key| key.name.namespace == namespace));
            self.announcements.due.extend(there.cloned());
        }
        for source in std::mem::take(&mut self.announcements.due) {
            let Some(about) = self.about(&source) else { continue };
            let standing = FindingKey::all_about(&source.kind, &source.name);
            let standing = standing.iter().filter_map(|key| self.findings.standing().get(key));
            for (topic, note) in announce::findings(standing.flat_map(|findings| findings.iter())) {
                self.announcements.say(about.clone(), topic, note);
            }
        }
    }

    /// The object of an Event; `None` where this agent does not speak of it.
    fn about(&self, source: &Source) -> Option<About> {
        if let Some(key) = policy_of(source) {
            let first = NamespacedName::new(Arc::clone(&key.name.namespace), "");
            let local = self.names.range(first..).next();
            return local
                .is_some_and(|(name, _)| name.namespace == key.name.namespace)
                .then_some(About::Policy(key));
        }
        let (namespace, name) = source.name.split_once('/').filter(|_| &*source.kind == "Pod")?;
        let name = NamespacedName::new(namespace, name);
        let uid = self.active.get(&name)?.clone();
        Some(About::Pod { name, uid })
    }

    /// Another network, or one that is made in another way: every pod on it may have to be told.
    pub(super) fn announce_network(&mut self, object: &Object) {
        if let Object::Network(network) = object
            && self.announcements.network(network)
        {
            self.touched.extend(self.targets.keys().cloned());
        }
    }
}

fn policy_of(source: &Source) -> Option<PolicyKey> {
    let kinds = [PolicyKind::NetworkPolicy, PolicyKind::MultiNetworkPolicy];
    let kind = kinds.into_iter().find(|kind| kind.as_str() == &*source.kind)?;
    let (namespace, name) = source.name.split_once('/')?;
    let name = NamespacedName::new(namespace, name);
    Some(PolicyKey { kind, name })
}
