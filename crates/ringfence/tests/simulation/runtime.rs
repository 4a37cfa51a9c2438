//! The container runtime: sandboxes come, go and are replaced; it says so when it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ringfence_cri::Change;
use ringfence_model::{InterfaceName, Pod, PodUid};
use ringfence_netns::Facts;

use crate::cluster::{Cluster, addresses, interface};
use crate::node::Node;

/// Who says where namespaces are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Template,
    Runtime,
    Both,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sandbox {
    serial: u64,
    path: PathBuf,
    id: String,
}

pub struct Runtime {
    pub mode: Mode,
    sandboxes: BTreeMap<PodUid, Sandbox>,
    told: BTreeMap<PodUid, Sandbox>,
    told_all: bool,
    /// Paths that are unmounted for a moment.
    hidden: BTreeMap<PathBuf, u64>,
    count: u32,
}

impl Runtime {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            sandboxes: BTreeMap::new(),
            told: BTreeMap::new(),
            told_all: false,
            hidden: BTreeMap::new(),
            count: 0,
        }
    }

    /// The agent begins to watch: it knows nothing.
    pub fn restart_watch(&mut self) {
        self.told.clear();
        self.told_all = false;
    }

    /// The namespace of a pod, if it has one.
    pub fn namespace(&self, pod: &PodUid) -> Option<u64> {
        self.sandboxes.get(pod).map(|sandbox| sandbox.serial)
    }

    /// Something happens to a sandbox.
    pub fn step(&mut self, cluster: &Cluster, node: &Node) {
        let what = node.dice.borrow_mut().weighted(&[50, 20, 8, 8, 14]);
        match what {
            0 => {
                self.make_one(cluster, node);
            }
            1 => {
                self.remove_one(cluster, node);
            }
            2 => {
                let Some((pod, sandbox)) = self.one(node) else { return };
                if let Some(object) = cluster.pods().find(|it| it.uid == pod) {
                    // The same pod, another sandbox: at another path, or at the same.
                    self.unmount(&sandbox, node);
                    let path = node.chance(500).then_some(sandbox.path);
                    self.make(object, path, node);
                }
            }
            3 => {
                if let Some((path, serial)) = self.hidden.pop_first() {
                    node.paths.borrow_mut().entry(path).or_insert(serial);
                    node.with(serial, |namespace| namespace.held -= 1);
                } else if let Some((_, sandbox)) = self.one(node)
                    && node.paths.borrow_mut().remove(&sandbox.path).is_some()
                {
                    node.say(|| format!("{} is unmounted for a moment", sandbox.path.display()));
                    // Something still leads to it.
                    node.with(sandbox.serial, |namespace| namespace.held += 1);
                    self.hidden.insert(sandbox.path, sandbox.serial);
                }
            }
            _ => {
                let Some((_, sandbox)) = self.one(node) else { return };
                let name: &str = ["net1", "net2", "eth9", "net2"][node.below(4)];
                let name = interface(name);
                let there = node.with(sandbox.serial, |namespace| {
                    namespace.facts.interfaces.contains_key(&name)
                });
                node.say(|| format!("{name} of namespace {} comes or goes", sandbox.serial));
                if there {
                    node.unplug(sandbox.serial, &name);
                } else {
                    // Without any, so that it contradicts no claim of an annotation: that is held against the interfaces by the
                    // loop, which the reference would have to do as well. The dice are thrown, so that seeds stay what they were.
                    drop(addresses(&mut node.dice.borrow_mut()));
                    node.plug(sandbox.serial, name, BTreeSet::new());
                }
            }
        }
        node.sweep();
    }

    /// Everything that is due happens.
    pub fn catch_up(&mut self, cluster: &Cluster, node: &Node) {
        for (path, serial) in std::mem::take(&mut self.hidden) {
            node.paths.borrow_mut().entry(path).or_insert(serial);
            node.with(serial, |namespace| namespace.held -= 1);
        }
        while self.remove_one(cluster, node) {}
        // What nothing leads to any more is no sandbox.
        self.sandboxes
            .retain(|_, sandbox| node.paths.borrow().get(&sandbox.path) == Some(&sandbox.serial));
        while self.make_one(cluster, node) {}
        node.sweep();
    }

    fn make_one(&mut self, cluster: &Cluster, node: &Node) -> bool {
        let pods: Vec<&Pod> = cluster
            .local()
            .filter(|pod| !self.sandboxes.contains_key(&pod.uid))
            .collect();
        if pods.is_empty() {
            return false;
        }
        let pod = pods[node.below(pods.len())];
        self.make(pod, None, node);
        true
    }

    /// Sandboxes of pods that are gone or have ended.
    fn remove_one(&mut self, cluster: &Cluster, node: &Node) -> bool {
        let live = |pod: &PodUid| cluster.local().any(|it| it.uid == *pod);
        let dead: Vec<PodUid> = self.sandboxes.keys().filter(|pod| !live(pod)).cloned().collect();
        if dead.is_empty() {
            return false;
        }
        let pod = &dead[node.below(dead.len())];
        if let Some(sandbox) = self.sandboxes.remove(pod) {
            node.say(|| format!("the sandbox of {pod} is removed"));
            self.unmount(&sandbox, node);
        }
        true
    }

    fn unmount(&mut self, sandbox: &Sandbox, node: &Node) {
        let mut paths = node.paths.borrow_mut();
        if paths.get(&sandbox.path) == Some(&sandbox.serial) {
            paths.remove(&sandbox.path);
        }
        if self.hidden.get(&sandbox.path) == Some(&sandbox.serial) {
            self.hidden.remove(&sandbox.path);
            node.with(sandbox.serial, |namespace| namespace.held -= 1);
        }
    }

    fn make(&mut self, pod: &Pod, path: Option<PathBuf>, node: &Node) {
        self.count += 1;
        let names = pod.attachments.iter().filter_map(|it| it.interface.clone());
        let mut interfaces: BTreeMap<InterfaceName, BTreeSet<IpAddr>> =
            names.map(|name| (name, BTreeSet::new())).collect();
        interfaces.insert(interface("lo"), BTreeSet::new());
        let facts = Facts {
            interfaces,
            ..Facts::default()
        };
        let reuse = node.chance(300);
        let serial = node.create(facts, reuse);
        let path = match self.mode {
            Mode::Template => format!("/run/netns/{}.{}", pod.name.namespace, pod.name.name).into(),
            Mode::Runtime | Mode::Both => path.unwrap_or_else(|| format!("/run/netns/cni-{}", self.count).into()),
        };
        node.say(|| {
            format!(
                "{} ({}) gets namespace {serial} at {}",
                pod.uid,
                pod.name,
                path.display()
            )
        });
        node.paths.borrow_mut().insert(path.clone(), serial);
        let id = format!("sandbox-{}", self.count);
        self.sandboxes.insert(pod.uid.clone(), Sandbox { serial, path, id });
        node.sweep();
    }

    fn one(&self, node: &Node) -> Option<(PodUid, Sandbox)> {
        let all: Vec<_> = self
            .sandboxes
            .iter()
            .filter(|(_, it)| node.namespaces.borrow().contains_key(&it.serial))
            .collect();
        if all.is_empty() {
            return None;
        }
        let (pod, sandbox) = all[node.below(all.len())];
        Some((pod.clone(), sandbox.clone()))
    }

    /// What a look at the runtime brings: the difference of a complete list to what was told.
    pub fn look(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for pod in self.told.keys().filter(|pod| !self.sandboxes.contains_key(*pod)) {
            changes.push(Change::Gone { pod: pod.clone() });
        }
        for (pod, sandbox) in &self.sandboxes {
            if self.told.get(pod) != Some(sandbox) {
                changes.push(Change::Found {
                    pod: pod.clone(),
                    path: sandbox.path.clone(),
                    sandbox: sandbox.id.clone(),
                    created: None,
                    static_pod: None,
                });
            }
        }
        self.told.clone_from(&self.sandboxes);
        if !std::mem::replace(&mut self.told_all, true) {
            changes.push(Change::Synced);
        }
        changes
    }
}
