//! Pods whose network namespaces the container runtime tells: the real loop, real namespaces and the real kernel, with a
//! channel in place of the runtime. Needs root.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{closing, end, eventually, mirror, netns, pod, pod_with, rules};
use ringfence::controller::{self, Running, Setup};
use ringfence::sandboxes::Sandboxes;
use ringfence::snapshot::State;
use ringfence_cri::{Change, Health};
use ringfence_kube::directory;
use ringfence_model::{NamespacedName, PodUid, Scope};
use ringfence_testkit::manifest::{Manifest, documents};
use ringfence_testkit::{ManifestFolder, NamedNetns};
use tokio::sync::{mpsc, watch};

/// A node whose runtime says what the test wants.
struct Node {
    folder: ManifestFolder,
    prefix: String,
    running: Option<Running>,
    runtime: mpsc::Sender<Vec<Change>>,
    pokes: Arc<AtomicU32>,
    _health: watch::Sender<Health>,
    _source: directory::Watch,
}

impl Node {
    fn start(name: &str, fallback: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rf-agent-{name}-p{}n{count}-", std::process::id());
        let folder = ManifestFolder::new().expect("a folder");
        let path = folder.source().trim_start_matches("dir:").to_owned();
        let (updates, source) = directory::watch(path).expect("a source");
        let (runtime, changes) = mpsc::channel(16);
        let mut health = Health::new(None);
        health.runtime = Some("containerd 1.6.20".into());
        let (reporter, health) = watch::channel(health);
        let pokes = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&pokes);
        let sandboxes = Sandboxes {
            changes,
            poke: Arc::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            }),
            health,
            fallback,
        };
        let setup = Setup {
            node: "n1".into(),
            source: "dir:test".into(),
            scope: Scope::Secondary,
            features: ringfence::agent::probe().expect("nftables"),
            node_addresses: BTreeSet::new(),
            netns_path: format!("/run/netns/{prefix}{{namespace}}.{{name}}")
                .parse()
                .expect("a template"),
            resync: Duration::from_secs(1),
        };
        let running = controller::start_with(setup, updates, Some(sandboxes), Box::new(|_| {})).expect("it starts");
        Self {
            folder,
            prefix,
            running: Some(running),
            runtime,
            pokes,
            _health: reporter,
            _source: source,
        }
    }

    /// A namespace as a runtime would make it, with `eth0` and `net1`.
    fn netns(&self, name: &str) -> NamedNetns {
        netns(format!("{}{name}", self.prefix), &["eth0", "net1"])
    }

    fn say(&self, changes: &[Change]) {
        self.runtime.blocking_send(changes.to_vec()).expect("the loop runs");
    }

    fn save(&self, manifests: &[Manifest]) {
        self.folder.save("all.yaml", &documents(manifests)).expect("saved");
    }

    /// `None` before the pod is known.
    fn state(&self) -> Option<State> {
        let snapshot = self.readers().snapshots.load();
        let name = NamespacedName::new("shop", "web");
        snapshot.pods.get(&name).map(|status| status.state.clone())
    }

    fn readers(&self) -> &ringfence::http::Readers {
        &self.running.as_ref().expect("it runs").readers
    }

    fn settled(&self) -> bool {
        self.readers().snapshots.load().settled
    }

    #[track_caller]
    fn wait_pending(&self, reason: &str) {
        let expected = Some(State::Pending(reason.into()));
        eventually(|| self.state(), |state| *state == expected);
    }

    #[track_caller]
    fn wait_enforced(&self, netns: &NamedNetns) {
        eventually(|| rules(netns), |rules| rules.contains("chain net1-in"));
        eventually(|| self.state(), |state| *state == Some(State::Enforced));
    }

    fn pokes(&self) -> u32 {
        self.pokes.load(Ordering::Relaxed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            end(running);
        }
    }
}

fn web() -> PodUid {
    PodUid::new("uid-web").expect("valid")
}

fn found(netns: &NamedNetns) -> Change {
    Change::Found {
        pod: web(),
        path: netns.path(),
        sandbox: netns.name().into(),
        created: None,
        static_pod: None,
    }
}

fn manifests() -> [Manifest; 2] {
    [pod("web", "10.20.1.10"), closing("guard", "web")]
}

#[test]
fn a_sandbox_that_comes_after_its_pod_is_waited_for_asked_for_and_enforced() {
    let node = Node::start("after", false);
    node.save(&manifests());
    node.wait_pending("containerd has not listed its sandboxes yet");
    assert!(!node.settled(), "what the runtime has is not known");
    assert!(node.pokes() > 0, "the runtime was asked for the new pod");
    node.say(&[Change::Synced]);
    node.wait_pending("no sandbox for it in containerd yet");
    assert!(node.settled());
    let netns = node.netns("sandbox");
    node.say(&[found(&netns)]);
    node.wait_enforced(&netns);
}

#[test]
fn a_sandbox_that_comes_before_its_pod_is_remembered() {
    let node = Node::start("before", false);
    let netns = node.netns("sandbox");
    node.say(&[found(&netns), Change::Synced]);
    node.save(&manifests());
    node.wait_enforced(&netns);
    assert!(node.settled());
}

#[test]
fn another_sandbox_of_the_pod_is_a_new_target_and_the_former_one_keeps_its_rules() {
    let node = Node::start("change", false);
    let (first, second) = (node.netns("first"), node.netns("second"));
    node.save(&manifests());
    node.say(&[found(&first), Change::Synced]);
    node.wait_enforced(&first);
    node.say(&[found(&second)]);
    node.wait_enforced(&second);
    assert!(rules(&first).contains("chain net1-in"), "never open");
    // A policy that comes now is only the second one's.
    let before = rules(&first);
    node.save(&[
        pod("web", "10.20.1.10"),
        ringfence_testkit::manifest::Policy::multi("shop/guard", &["shop/net-a"])
            .select(&[("app", "web")])
            .isolate_ingress()
            .isolate_egress()
            .manifest(),
    ]);
    eventually(|| rules(&second), |rules| rules.contains("chain net1-out"));
    assert_eq!(rules(&first), before);
}

#[test]
fn a_sandbox_that_goes_leaves_its_pod_pending_and_its_rules_in_place_until_one_returns() {
    let node = Node::start("gone", false);
    let netns = node.netns("sandbox");
    node.save(&manifests());
    node.say(&[found(&netns), Change::Synced]);
    node.wait_enforced(&netns);
    let before = rules(&netns);
    node.say(&[Change::Gone { pod: web() }]);
    node.wait_pending("no sandbox for it in containerd yet");
    assert_eq!(rules(&netns), before);
    node.say(&[found(&netns)]);
    node.wait_enforced(&netns);
    assert_eq!(rules(&netns), before);
}

#[test]
fn a_namespace_that_vanishes_makes_the_runtime_be_asked_and_what_it_says_counts() {
    let node = Node::start("vanish", false);
    let first = node.netns("first");
    node.save(&manifests());
    node.say(&[found(&first), Change::Synced]);
    node.wait_enforced(&first);
    let path = first.path();
    let pokes = node.pokes();
    drop(first);
    node.wait_pending(&format!("no network namespace at {}", path.display()));
    assert!(node.pokes() > pokes);
    let second = node.netns("second");
    node.say(&[found(&second)]);
    node.wait_enforced(&second);
}

#[test]
fn a_sandbox_without_a_place_is_named_as_the_reason() {
    let node = Node::start("unusable", false);
    node.save(&manifests());
    let unusable = Change::Unusable {
        pod: web(),
        sandbox: "s".into(),
        reason: "the container runtime gives no details of the sandbox".into(),
    };
    node.say(&[unusable, Change::Synced]);
    node.wait_pending("the container runtime gives no details of the sandbox");
}

#[test]
fn with_a_folder_the_sandbox_goes_before_the_template() {
    let node = Node::start("both", true);
    let by_name = node.netns("shop.web");
    let sandbox = node.netns("sandbox");
    node.save(&manifests());
    node.say(&[Change::Synced]);
    node.wait_enforced(&by_name);
    node.say(&[found(&sandbox)]);
    node.wait_enforced(&sandbox);
    node.say(&[Change::Gone { pod: web() }]);
    let current = || {
        let snapshot = node.readers().snapshots.load();
        let status = snapshot.pods.get(&NamespacedName::new("shop", "web")).cloned();
        status.and_then(|status| status.netns.clone())
    };
    eventually(current, |path| *path == Some(by_name.path()));
    node.wait_enforced(&by_name);
}

#[test]
fn a_mount_makes_the_runtime_be_asked() {
    let node = Node::start("mount", false);
    let pokes = node.pokes();
    let _netns = node.netns("sandbox");
    eventually(|| node.pokes(), |now| *now > pokes);
}

/// What the runtime calls a static pod.
const STATIC: &str = "0123456789abcdef0123456789abcdef";

fn found_static(netns: &NamedNetns, name: &str) -> Change {
    Change::Found {
        pod: PodUid::new(STATIC).expect("valid"),
        path: netns.path(),
        sandbox: netns.name().into(),
        created: None,
        static_pod: Some(NamespacedName::new("shop", name)),
    }
}

#[test]
fn a_static_pod_is_enforced_by_its_mirror_and_by_nobody_who_claims_to_be_one() {
    for place_first in [false, true] {
        let node = Node::start("static", false);
        let netns = node.netns("sandbox");
        let claims = |uid: &str| [mirror("web", uid, STATIC, "10.20.1.10"), closing("guard", "web")];
        // Its own namespace, its own node, the right owner: all of that anybody can write.
        let thief = || mirror("thief", "uid-thief", STATIC, "10.20.1.11");
        let say = || node.say(&[found_static(&netns, "web"), Change::Synced]);
        if place_first {
            say();
        }
        node.save(&claims("uid-1"));
        if !place_first {
            node.wait_pending("containerd has not listed its sandboxes yet");
            say();
        }
        node.wait_enforced(&netns);
        let before = rules(&netns);
        let [web, guard] = claims("uid-1");
        node.save(&[web, guard, thief()]);
        let thief_waits = || {
            let snapshot = node.readers().snapshots.load();
            let status = snapshot.pods.get(&NamespacedName::new("shop", "thief")).cloned();
            status.is_some_and(|status| status.netns.is_none())
        };
        eventually(thief_waits, |waits| *waits);
        // Also while there is no mirror: somebody has deleted it, and the kubelet makes another one.
        node.save(&[thief(), closing("guard", "web")]);
        eventually(|| node.state(), Option::is_none);
        assert!(thief_waits());
        assert_eq!(rules(&netns), before);
        let [web, guard] = claims("uid-2");
        node.save(&[web, guard, thief()]);
        node.wait_enforced(&netns);
        node.say(&[Change::Gone {
            pod: PodUid::new(STATIC).expect("valid"),
        }]);
        node.wait_pending("no sandbox for it in containerd yet");
        assert!(rules(&netns).contains("chain net1-in"));
    }
}

#[test]
fn whoever_has_a_sandboxs_own_uid_comes_before_its_mirror() {
    let node = Node::start("owner", false);
    let netns = node.netns("sandbox");
    let web = || mirror("web", "uid-1", STATIC, "10.20.1.10");
    node.say(&[found_static(&netns, "web"), Change::Synced]);
    node.save(&[web(), closing("guard", "web")]);
    node.wait_enforced(&netns);
    let owner = pod_with("owner", STATIC, "10.20.1.11", "2026-01-01T00:00:00Z");
    node.save(&[web(), closing("guard", "web"), owner, closing("other", "owner")]);
    node.wait_pending("no sandbox for it in containerd yet");
    eventually(
        || rules(&netns),
        |rules| rules.contains(STATIC) && rules.contains("chain net1-in"),
    );
    // It goes, and the mirror has the place again.
    node.save(&[web(), closing("guard", "web")]);
    eventually(|| rules(&netns), |rules| rules.contains("uid-1"));
    node.wait_enforced(&netns);
}
