//! Pods that wait to be started: what a hook asks, and what is in the kernel when it has its answer. The real loop, real
//! namespaces and the real kernel; sandboxes as the runtime's NRI describes them. Needs root.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use common::{PATIENCE, PROGRAM, World, closing, end, eventually, mirror, netns, pod, rules};
use ringfence::controller::{self, Running, Setup};
use ringfence::event::Event;
use ringfence::nri::sandbox;
use ringfence::sandboxes::Sandboxes;
use ringfence::snapshot::State;
use ringfence::start::{Answer, Hook, Start, TOLERATION};
use ringfence_cri::{Change, Health};
use ringfence_kube::directory::{self, Update};
use ringfence_model::{NamespacedName, PodUid, Scope};
use ringfence_nri::{Network, Sandbox};
use ringfence_testkit::manifest::{Manifest, documents};
use ringfence_testkit::{ManifestFolder, NamedNetns, run_program};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;

const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// A node whose runtime asks before pods start.
struct Node {
    folder: ManifestFolder,
    prefix: String,
    running: Option<Running>,
    lists: Option<Sender<Vec<Change>>>,
    _health: Option<watch::Sender<Health>>,
    _source: Option<directory::Watch>,
    _silent: Option<Sender<Vec<Update>>>,
}

/// Where the loop gets objects and places from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// A folder, and hooks alone.
    Folder,
    /// A folder, and a runtime that lists its sandboxes.
    Lists,
    /// A source that never delivers everything.
    Nowhere,
}

impl Node {
    fn start(name: &str, from: From) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rf-agent-{name}-p{}n{count}-", std::process::id());
        let folder = ManifestFolder::new().expect("a folder");
        let (updates, source, silent): (Receiver<Vec<Update>>, _, _) = if from == From::Nowhere {
            let (sender, updates) = channel(1);
            (updates, None, Some(sender))
        } else {
            let path = folder.source().trim_start_matches("dir:").to_owned();
            let (updates, source) = directory::watch(path).expect("a source");
            (updates, Some(source), None)
        };
        let (sandboxes, lists, reporter) = if from == From::Lists {
            let (lists, changes) = channel(16);
            let (reporter, health) = watch::channel(Health::new(None));
            let sandboxes = Sandboxes {
                changes,
                poke: std::sync::Arc::new(|| {}),
                health,
                fallback: false,
            };
            (Some(sandboxes), Some(lists), Some(reporter))
        } else {
            (None, None, None)
        };
        let setup = Setup {
            node: "n1".into(),
            source: "dir:test".into(),
            scope: Scope::Secondary,
            features: ringfence::agent::probe().expect("nftables"),
            node_addresses: BTreeSet::new(),
            // Nothing is ever there.
            netns_path: format!("/run/netns/{prefix}absent.{{namespace}}.{{name}}")
                .parse()
                .expect("a template"),
            resync: Duration::from_secs(1),
        };
        let running = controller::start_with(setup, updates, sandboxes, Box::new(|_| {})).expect("it starts");
        let node = Self {
            folder,
            prefix,
            running: Some(running),
            lists,
            _health: reporter,
            _source: source,
            _silent: silent,
        };
        if from != From::Nowhere {
            eventually(|| node.readers().snapshots.load().synced, |synced| *synced);
        }
        node
    }

    /// A namespace as a runtime would make it, with `eth0` and `net1`.
    fn netns(&self, name: &str) -> NamedNetns {
        netns(format!("{}{name}", self.prefix), &["eth0", "net1"])
    }

    fn save(&self, manifests: &[Manifest]) {
        self.folder.save("all.yaml", &documents(manifests)).expect("saved");
    }

    fn save_and_wait(&self, manifests: &[Manifest], policies: usize, pods: usize) {
        self.save(manifests);
        let known = || {
            let snapshot = self.readers().snapshots.load();
            (snapshot.policies.len(), snapshot.pods.len())
        };
        eventually(known, |found| *found == (policies, pods));
    }

    fn readers(&self) -> &ringfence::http::Readers {
        &self.running.as_ref().expect("it runs").readers
    }

    fn state(&self, name: &str) -> Option<State> {
        let snapshot = self.readers().snapshots.load();
        let status = snapshot.pods.get(&NamespacedName::new("shop", name));
        status.map(|status| status.state.clone())
    }

    fn hook(&self, hook: Hook) {
        self.readers().events.send(Event::Hook(hook)).expect("the loop runs");
    }

    /// Asks as the runtime does, and waits for the answer.
    fn ask(&self, raw: Sandbox) -> Result<(), String> {
        let (sender, answer) = mpsc::channel();
        let received = Instant::now();
        self.hook(Hook::Start(Box::new(Start {
            sandbox: sandbox(raw, "n1", SystemTime::now()),
            answer: Answer::new(move |answer| drop(sender.send(answer))),
            received,
            until: received + Duration::from_secs(10),
        })));
        answer.recv_timeout(PATIENCE).expect("an answer")
    }

    /// The same for a pod that may start: what nft lists in its namespace at that moment. The loop stands still meanwhile, so
    /// what is not there yet cannot come in between.
    #[track_caller]
    fn ask_and_look(&self, raw: Sandbox, netns: &NamedNetns) -> String {
        let (sender, answer) = mpsc::channel();
        let received = Instant::now();
        let inside = std::sync::Arc::clone(netns.netns());
        let look = move |answer: Result<(), String>| {
            let listing = inside.run(|| run_program("nft", &["list", "ruleset"], ""));
            drop(sender.send((answer, listing.expect("entered").expect("listed"))));
        };
        self.hook(Hook::Start(Box::new(Start {
            sandbox: sandbox(raw, "n1", SystemTime::now()),
            answer: Answer::new(look),
            received,
            until: received + Duration::from_secs(10),
        })));
        let (answer, listing) = answer.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!(answer, Ok(()));
        listing
    }

    fn metric(&self, series: &str) -> f64 {
        let snapshot = self.readers().snapshots.load_full();
        let text = self.readers().metrics.render(&snapshot, &[]).expect("it encodes");
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("{series} in\n{text}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            end(running);
        }
    }
}

/// A sandbox of pod `shop/NAME`, which has requested `net-a`.
fn raw(name: &str, network: Network) -> Sandbox {
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    Sandbox {
        id: format!("sandbox-{name}"),
        uid: format!("uid-{name}"),
        namespace: "shop".into(),
        name: name.into(),
        labels: text(&[("app", name), ("io.kubernetes.pod.name", name)]),
        annotations: text(&[(NETWORKS, "net-a"), ("kubernetes.io/config.source", "api")]),
        network,
        addresses: vec!["10.0.1.10".into()],
    }
}

fn at(netns: &NamedNetns) -> Network {
    Network::At(netns.path().display().to_string())
}

#[track_caller]
fn check_closed(netns: &NamedNetns) {
    let rules = rules(netns);
    assert!(rules.contains("chain net1-in"), "{rules}");
}

#[track_caller]
fn check_refused(answer: &Result<(), String>, part: &str) {
    match answer {
        Err(reason) => assert!(reason.starts_with("ringfence: ") && reason.contains(part), "{reason}"),
        Ok(()) => panic!("it may start"),
    }
}

#[test]
fn s129_a_pod_that_the_source_knows_is_closed_when_its_start_is_answered() {
    let node = Node::start("known", From::Folder);
    node.save_and_wait(&[pod("web", "10.20.1.10"), closing("guard", "web")], 1, 1);
    let netns = node.netns("web");
    let listing = node.ask_and_look(raw("web", at(&netns)), &netns);
    assert!(listing.contains("chain net1-in"), "{listing}");
    assert!(node.metric("ringfence_pod_start_seconds_count") > 0.5);
    assert!(node.metric("ringfence_pod_start_refused_total") < 0.5);
}

#[test]
fn s129_a_pod_that_the_source_has_not_delivered_is_closed_by_what_it_has_requested() {
    let node = Node::start("unknown", From::Folder);
    node.save_and_wait(&[closing("guard", "web")], 1, 0);
    let netns = node.netns("web");
    let listing = node.ask_and_look(raw("web", at(&netns)), &netns);
    assert!(listing.contains("chain net1-in"), "{listing}");
    // Its object comes later and takes its place.
    node.save_and_wait(&[pod("web", "10.20.1.10"), closing("guard", "web")], 1, 1);
    let describe = || {
        let snapshot = node.readers().snapshots.load();
        let status = snapshot.pods.get(&NamespacedName::new("shop", "web")).cloned();
        status.map(|status| (status.state.clone(), status.pod.attachments.len(), status.pod.started))
    };
    eventually(describe, |found| {
        // The manifest's start and not that of the sandbox.
        matches!(found, Some((State::Enforced, 2, 1_767_225_600)))
    });
    // It is the source's now: a sandbox that goes does not take it along.
    node.hook(Hook::Gone {
        sandbox: "sandbox-web".into(),
    });
    eventually(|| node.state("web"), |state| matches!(state, Some(State::Pending(_))));
    check_closed(&netns);
}

#[test]
fn a_pod_that_only_its_sandbox_has_told_of_goes_with_it_and_its_rules_stay() {
    let node = Node::start("gone", From::Folder);
    node.save_and_wait(&[closing("guard", "web")], 1, 0);
    let netns = node.netns("web");
    assert_eq!(node.ask(raw("web", at(&netns))), Ok(()));
    eventually(|| node.state("web"), |state| *state == Some(State::Enforced));
    node.hook(Hook::Gone {
        sandbox: "another".into(),
    });
    node.hook(Hook::Gone {
        sandbox: "sandbox-web".into(),
    });
    eventually(|| node.state("web"), Option::is_none);
    check_closed(&netns);
}

#[test]
fn what_no_policy_isolates_starts_without_rules() {
    let node = Node::start("open", From::Folder);
    node.save_and_wait(&[closing("guard", "another")], 1, 0);
    let netns = node.netns("web");
    assert_eq!(node.ask(raw("web", at(&netns))), Ok(()));
    assert_eq!(rules(&netns), "");
    assert_eq!(node.ask(raw("host", Network::Node)), Ok(()));
}

/// CRI-O names the node's namespace like a pod's own.
#[test]
fn a_pod_that_the_source_has_on_the_nodes_network_starts_and_gets_no_rules() {
    let node = Node::start("node", From::Folder);
    let manifests = documents(&[closing("guard", "host")]);
    let host = "apiVersion: v1\nkind: Pod\nmetadata: {name: host, namespace: shop, uid: uid-host, labels: {app: host}}\n\
                spec: {nodeName: n1, hostNetwork: true}\n";
    node.folder
        .save("all.yaml", &format!("{manifests}---\n{host}"))
        .expect("saved");
    eventually(|| node.readers().snapshots.load().policies.len(), |found| *found == 1);
    let netns = node.netns("host");
    assert_eq!(node.ask(raw("host", at(&netns))), Ok(()));
    assert_eq!(rules(&netns), "");
}

#[test]
fn what_cannot_be_closed_is_refused_with_the_reason() {
    let node = Node::start("refused", From::Folder);
    node.save_and_wait(&[closing("guard", "web")], 1, 0);
    let nowhere = Network::At("/run/netns/rf-agent-nowhere".into());
    check_refused(&node.ask(raw("web", nowhere)), "/run/netns/rf-agent-nowhere");
    check_refused(&node.ask(raw("web", Network::Unsaid)), "does not say where");
    assert!((node.metric("ringfence_pod_start_refused_total") - 2.0).abs() < 0.5);
    // The next attempt has another sandbox.
    let netns = node.netns("web");
    let second = Sandbox {
        id: "second".into(),
        ..raw("web", at(&netns))
    };
    assert_eq!(node.ask(second), Ok(()));
    check_closed(&netns);
}

#[test]
fn before_everything_has_been_read_only_what_tolerates_it_starts() {
    let node = Node::start("early", From::Nowhere);
    let netns = node.netns("web");
    check_refused(&node.ask(raw("web", at(&netns))), "has not read everything");
    let mut tolerant = raw("web", at(&netns));
    tolerant.annotations.insert(TOLERATION.into(), "true".into());
    assert_eq!(node.ask(tolerant), Ok(()));
    let mut not_quite = raw("web", at(&netns));
    not_quite.annotations.insert(TOLERATION.into(), "yes".into());
    check_refused(&node.ask(not_quite), "has not read everything");
    assert_eq!(node.ask(raw("host", Network::Node)), Ok(()));
    let mut from_file = raw("static", at(&netns));
    let source = "kubernetes.io/config.source".to_owned();
    from_file.annotations.insert(source, "file".into());
    assert_eq!(node.ask(from_file), Ok(()));
}

/// The same of a static pod.
fn raw_static(name: &str, network: Network) -> Sandbox {
    let mut raw = Sandbox {
        uid: "0123456789abcdef0123456789abcdef".into(),
        ..raw(name, network)
    };
    let source = "kubernetes.io/config.source".to_owned();
    raw.annotations.insert(source, "file".into());
    raw
}

#[test]
fn s129_a_static_pod_whose_mirror_is_known_is_closed_when_its_start_is_answered() {
    let node = Node::start("static", From::Folder);
    let web = raw_static("web", Network::Unsaid);
    let mirrored = mirror("web", "uid-mirror", &web.uid, "10.20.1.10");
    node.save_and_wait(&[mirrored, closing("guard", "web")], 1, 1);
    let netns = node.netns("web");
    let listing = node.ask_and_look(raw_static("web", at(&netns)), &netns);
    assert!(listing.contains("chain net1-in"), "{listing}");
    check_refused(
        &node.ask(raw_static("web", Network::At("/run/netns/rf-agent-nowhere".into()))),
        "/run/netns/rf-agent-nowhere",
    );
    node.hook(Hook::Gone {
        sandbox: "sandbox-web".into(),
    });
    check_closed(&netns);
}

#[test]
fn a_static_pod_that_the_api_does_not_know_starts_and_is_closed_as_soon_as_it_does() {
    let node = Node::start("unmirrored", From::Folder);
    node.save_and_wait(&[closing("guard", "web")], 1, 0);
    let netns = node.netns("web");
    let web = raw_static("web", at(&netns));
    let mirrored = mirror("web", "uid-mirror", &web.uid, "10.20.1.10");
    assert_eq!(node.ask(web), Ok(()));
    assert_eq!(rules(&netns), "");
    node.save(&[mirrored, closing("guard", "web")]);
    eventually(|| rules(&netns), |rules| rules.contains("chain net1-in"));
    eventually(|| node.state("web"), |state| *state == Some(State::Enforced));
}

#[test]
fn a_new_sandbox_of_a_running_pod_is_closed_although_the_lists_are_about_the_old_one() {
    let node = Node::start("again", From::Lists);
    let (first, second) = (node.netns("first"), node.netns("second"));
    let uid = || PodUid::new("uid-web").expect("valid");
    let listed = |netns: &NamedNetns, sandbox: &str| Change::Found {
        pod: uid(),
        path: netns.path(),
        sandbox: sandbox.into(),
        created: Some(SystemTime::now()),
        static_pod: None,
    };
    let lists = node.lists.as_ref().expect("a runtime");
    let say = |changes: Vec<Change>| lists.blocking_send(changes).expect("the loop runs");
    say(vec![Change::Synced]);
    node.save_and_wait(&[pod("web", "10.20.1.10"), closing("guard", "web")], 1, 1);
    say(vec![listed(&first, "first")]);
    eventually(|| rules(&first), |rules| rules.contains("chain net1-in"));
    eventually(
        || node.metric("ringfence_unprotected_start_seconds_count") > 0.5,
        |noted| *noted,
    );
    let anew = Sandbox {
        id: "second".into(),
        ..raw("web", at(&second))
    };
    let listing = node.ask_and_look(anew, &second);
    assert!(listing.contains("chain net1-in"), "{listing}");
    say(vec![Change::Gone { pod: uid() }]);
    say(vec![listed(&second, "second")]);
    // Policies that come now are the second one's.
    node.save_and_wait(&[pod("web", "10.20.1.10")], 0, 1);
    eventually(|| rules(&second), String::is_empty);
    check_closed(&first);
    assert!(
        node.metric("ringfence_unprotected_start_seconds_count") < 1.5,
        "it was asked about"
    );
}

#[test]
fn sandboxes_that_are_there_when_the_connection_is_made_are_placed() {
    let node = Node::start("listed", From::Folder);
    node.save_and_wait(
        &[
            pod("web", "10.20.1.10"),
            closing("guard", "web"),
            closing("next", "api"),
        ],
        2,
        1,
    );
    let (web, api) = (node.netns("web"), node.netns("api"));
    let now = SystemTime::now();
    let sandboxes = [raw("web", at(&web)), raw("api", at(&api))];
    node.hook(Hook::Listed(sandboxes.map(|raw| sandbox(raw, "n1", now)).into()));
    eventually(|| rules(&web), |rules| rules.contains("chain net1-in"));
    eventually(|| rules(&api), |rules| rules.contains("chain net1-in"));
}

// === The chained network plugin ===

/// The program as a runtime calls it. Its exit code and what it has printed.
fn plugin(command: &str, configuration: &Value, netns: &Path) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let program: PathBuf = folder.path().join("ringfence-cni");
    symlink(PROGRAM, &program).expect("a link");
    let mut child = Command::new(&program)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "sandbox-web")
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .env(
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=uid-web",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let input = child.stdin.take().expect("an input");
    serde_json::to_writer(input, configuration).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("a text");
    (output.status.code(), text)
}

#[test]
fn s129_without_nri_a_chained_network_plugin_closes_the_pod() {
    let mut world = World::new("cni");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("cni.sock");
    let result = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [], "dns": {}});
    let configuration = json!({
        "cniVersion": "1.0.0", "name": "cluster", "type": "ringfence-cni",
        "socket": socket, "prevResult": result,
    });
    // Elsewhere than the template says: only the plugin's word leads there.
    let other = World::new("cni-netns");
    let netns = other.netns("web", &["eth0", "net1"]);
    world.save("policy.yaml", &[closing("guard", "web")]);

    let (code, output) = plugin("ADD", &configuration, &netns.path());
    assert_eq!(code, Some(1));
    let error: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(
        (&error["code"], &error["cniVersion"]),
        (&json!(11), &json!("1.0.0")),
        "{output}"
    );
    assert!(
        error["msg"]
            .as_str()
            .is_some_and(|text| text.contains("the agent is away")),
        "{output}"
    );

    let socket = socket.display().to_string();
    world.start_through(&["env".to_owned(), format!("RINGFENCE_CNI_SOCKET={socket}")]);
    assert_eq!(
        plugin("STATUS", &configuration, &netns.path()),
        (Some(0), String::new())
    );
    let adding = std::thread::spawn({
        let (configuration, path) = (configuration.clone(), netns.path());
        move || plugin("ADD", &configuration, &path)
    });
    // Its object comes while the plugin waits.
    world.save("pod.yaml", &[pod("web", "10.20.1.10")]);
    let (code, output) = adding.join().expect("it ends");
    check_closed(&netns);
    assert_eq!((code, serde_json::from_str(&output).ok()), (Some(0), Some(result)));
    world.wait_state("web", "enforced");
    assert_eq!(plugin("DEL", &configuration, &netns.path()), (Some(0), String::new()));
    world.wait_state("web", "pending");
    check_closed(&netns);
    world.stop();
}
