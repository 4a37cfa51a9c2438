//! What the loop tells the cluster: the real loop, real namespaces and the real kernel, with the test in place of the API
//! server. Needs root.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{PATIENCE, closing, end, eventually, netns, pod, rules};
use ringfence::controller::{self, Running, Setup};
use ringfence_kube::announce::{About, Announcement, Announcer};
use ringfence_kube::directory;
use ringfence_model::Scope;
use ringfence_testkit::manifest::{Manifest, Policy, block, documents};
use ringfence_testkit::{ManifestFolder, NamedNetns, run_program};
use serde_json::json;
use tokio::sync::mpsc::Receiver;

struct Node {
    folder: ManifestFolder,
    prefix: String,
    running: Option<Running>,
    told: Receiver<Announcement>,
    _source: directory::Watch,
}

impl Node {
    /// An agent whose tables anybody may change, as on kernels without table owners.
    fn start(name: &str, manifests: &[Manifest]) -> Self {
        let prefix = format!("rf-agent-{name}-p{}-", std::process::id());
        let folder = ManifestFolder::new().expect("a folder");
        folder.save("all.yaml", &documents(manifests)).expect("saved");
        let path = folder.source().trim_start_matches("dir:").to_owned();
        let (updates, source) = directory::watch(path).expect("a source");
        let mut features = ringfence::agent::probe().expect("nftables");
        features.owner_persist = false;
        let setup = Setup {
            node: "n1".into(),
            source: "dir:test".into(),
            scope: Scope::Secondary,
            features,
            node_addresses: BTreeSet::new(),
            netns_path: format!("/run/netns/{prefix}{{namespace}}.{{name}}")
                .parse()
                .expect("a template"),
            resync: Duration::from_secs(1),
        };
        let (announcer, told) = Announcer::new();
        let running = controller::start_announced(setup, updates, None, announcer, Box::new(|_| {}));
        Self {
            folder,
            prefix,
            running: Some(running.expect("it starts")),
            told,
            _source: source,
        }
    }

    fn netns(&self, name: &str) -> NamedNetns {
        netns(format!("{}{name}", self.prefix), &["eth0", "net1"])
    }

    /// The next announcement: `Pod shop/web UnsupportedNetwork`, and its note.
    #[track_caller]
    fn next(&mut self) -> (String, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(it) = self.told.try_recv() {
                let about = match &it.about {
                    About::Pod { name, .. } => format!("Pod {name}"),
                    About::Policy(key) => key.to_string(),
                };
                return (format!("{about} {}", it.topic.reason()), it.note);
            }
            assert!(Instant::now() < deadline, "nothing is told");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn check(&mut self, expected: &str, part: &str) {
        let (what, note) = self.next();
        assert_eq!(what, expected, "{note}");
        assert!(note.contains(part), "{note}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            end(running);
        }
    }
}

fn wrong(name: &str) -> Manifest {
    Policy::multi(name, &["shop/net-a"])
        .ingress(&[block("10.0.0.0/40", &[])], &[])
        .manifest()
}

#[test]
fn agents_speak_of_policies_where_they_have_a_pod() {
    let web = pod("web", "10.20.1.10");
    let mut node = Node::start("speak", &[web, wrong("shop/guard"), wrong("bank/guard")]);
    node.check("MultiNetworkPolicy shop/guard ClauseRejected", "10.0.0.0/40");
    // The first pod of the other namespace, and the same policy of the first one in other words.
    let mut teller = pod("teller", "10.20.1.11");
    teller.0["metadata"]["namespace"] = json!("bank");
    let manifests = documents(&[teller, wrong("bank/guard")]);
    node.folder.save("bank.yaml", &manifests).expect("saved");
    let manifests = documents(&[pod("web", "10.20.1.10"), closing("guard", "web")]);
    node.folder.save("all.yaml", &manifests).expect("saved");
    let mut topics = BTreeSet::new();
    while !topics.contains("MultiNetworkPolicy bank/guard ClauseRejected") {
        topics.insert(node.next().0);
    }
    assert!(
        !topics.contains("MultiNetworkPolicy shop/guard ClauseRejected"),
        "{topics:?}"
    );
}

#[test]
fn pods_hear_of_repairs_and_of_networks_past_the_kernel() {
    let network = json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"namespace": "shop", "name": "net-a"},
        "spec": {"config": "{\"cniVersion\":\"0.3.1\",\"type\":\"userspace\"}"}});
    let manifests = [pod("web", "10.20.1.10"), closing("guard", "web"), Manifest(network)];
    let mut node = Node::start("repairs", &manifests);
    node.check("Pod shop/web UnsupportedNetwork", "net1");
    let web = node.netns("shop.web");
    eventually(|| rules(&web), |rules| rules.contains("chain net1-in"));
    let expected = rules(&web);
    let flush = ["flush", "chain", "inet", "ringfence", "arrive"];
    let flushed = web.netns().run(|| run_program("nft", &flush, "")).expect("entered");
    flushed.expect("flushed");
    node.check("Pod shop/web RulesRepaired", "put back");
    assert_eq!(rules(&web), expected);
}
