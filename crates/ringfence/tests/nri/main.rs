//! Pods that start, on a real containerd or CRI-O with NRI: real sandboxes and containers, the agent's own program.
//!
//! ```text
//! hack/e2e full                              # runs them among others; by hand:
//! e2e/tools/build containerd crio
//! RINGFENCE_CONTAINERD=/var/cache/ringfence-e2e/bin/containerd cargo test -p ringfence --features nri --test nri
//! RINGFENCE_CRIO=/var/cache/ringfence-e2e/bin/crio cargo test -p ringfence --features nri --test nri
//! ```
//!
//! Needs root and runc, and a containerd 2.x with its shim and `ctr` beside it, or a CRI-O with `pinns` and `copyimg` beside
//! it and conmon. The runtime is in a network namespace of its own, which stands for the node's. Every pod has `eth0` and, on a second network,
//! `net1`; its only process sends datagrams to that network from its first instruction on. Whatever comes out at the other
//! end is counted.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../ringfence-cri/tests/containerd/runtime.rs"]
mod runtime;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{World, pod};
use ringfence::start::TOLERATION;
use ringfence_testkit::manifest::{Manifest, Policy};
use ringfence_testkit::{NamedNetns, run_program};
use runtime::{ContainerRuntime, Network, Nri, PodRequest, Wishes};

/// How long something may take that is to happen at all. No test measures it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom the pods' processes send to.
const TARGET: &str = "10.20.0.1:9999";

/// Enough to say that a process sends.
const MANY: u64 = 1000;

/// Makes `eth0`, and `net1` with its other end in the namespace that listens. The neighbour is there already, so that
/// nothing has to be resolved before the first datagram.
const PLUGIN: &str = r#"#!/bin/sh
cat > /dev/null
case $CNI_COMMAND in
ADD)
    end=p$(echo "$CNI_CONTAINERID" | cut -c1-10)
    {
        set -e
        inside="nsenter --net=$CNI_NETNS ip"
        $inside link add eth0 type veth peer name eth0-far
        $inside addr add 10.0.0.2/24 dev eth0
        $inside link set eth0 up
        $inside link add net1 type veth peer name "$end" address 02:00:00:00:00:01 netns LISTENER
        $inside addr add 10.20.0.2/24 dev net1
        ip -n LISTENER link set "$end" up
        $inside link set net1 up
        $inside neigh add 10.20.0.1 lladdr 02:00:00:00:00:01 dev net1 nud permanent
    } >&2
    echo '{"cniVersion":"0.4.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"version":"4","interface":0,"address":"10.0.0.2/24"}]}' ;;
DEL) nsenter --net="$CNI_NETNS" ip link del net1 2>/dev/null || true ;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
esac
"#;

/// Counts what arrives from second networks.
const COUNTING: &str = "table inet listener {
    counter arrived { }
    chain arrive {
        type filter hook prerouting priority -300; policy accept;
        udp dport 9999 counter name arrived
    }
}
";

/// A runtime, an agent, and the other end of the second network.
struct Site {
    world: World,
    listener: NamedNetns,
    node: NamedNetns,
    runtime: ContainerRuntime,
}

impl Site {
    /// Everything but the agent.
    fn new(name: &str, nri: Nri) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let listener = format!("rf-nri-p{}n{count}", std::process::id());
        let node = format!("{listener}-node");
        let plugin = PLUGIN.replace("LISTENER", &listener);
        let mut made = NamedNetns::create(&[listener, node]).expect("namespaces").into_iter();
        let (listener, node) = (made.next().expect("one"), made.next().expect("another"));
        listener.nft(COUNTING).expect("counted");
        let mut runtime = ContainerRuntime::prepare_with(Wishes {
            plugin,
            nri,
            node: Some(node.path()),
        });
        runtime.start();
        Self {
            world: World::new(name),
            listener,
            node,
            runtime,
        }
    }

    /// Starts the agent and waits until it is asked before pods start.
    fn start_agent(&mut self) {
        self.start_agent_unready(&[]);
        self.wait_asked(1.0);
    }

    fn start_agent_unready(&mut self, more: &[&str]) {
        let mut wrapper = vec![
            "env".to_owned(),
            format!("RINGFENCE_NRI_SOCKET={}", self.runtime.nri_socket().display()),
            format!("RINGFENCE_CRI_SOCKET={}", self.runtime.socket().display()),
        ];
        wrapper.extend(more.iter().map(|text| (*text).to_owned()));
        self.world.start_through(&wrapper);
    }

    /// Waits until the connection has been made so many times.
    fn wait_asked(&self, sessions: f64) {
        self.world.wait_metric("ringfence_nri_sessions_total", Some(sessions));
        self.world.wait_metric("ringfence_nri_up", Some(1.0));
    }

    fn arrived(&self) -> u64 {
        count(&self.listener, "inet", "listener", "arrived")
    }

    /// Runs a pod. Its sandbox.
    fn run(&mut self, name: &str) -> String {
        let pod = request(name);
        let sandbox = self.runtime.run_pod(&pod);
        let sandbox = sandbox.unwrap_or_else(|status| panic!("{status}\n{}", self.runtime.log()));
        let started = self.runtime.run_sender(&sandbox, &pod, TARGET);
        started.unwrap_or_else(|status| panic!("{status}\n{}", self.runtime.log()));
        sandbox
    }

    /// Waits until many datagrams of a pod have been dropped on their way out.
    #[track_caller]
    fn wait_dropped(&self, name: &str) {
        let series = format!(
            "ringfence_dropped_packets_total{{direction=\"egress\",namespace=\"shop\",network=\"shop/net-a\",pod=\"{name}\"}}"
        );
        self.world.eventually(&series, || {
            let dropped = self.world.metric(&series);
            if dropped.is_some_and(|dropped| dropped > 1000.0) {
                Ok(())
            } else {
                Err(format!("{dropped:?}"))
            }
        });
    }

    #[track_caller]
    fn wait_arriving(&self) {
        let before = self.arrived();
        ringfence_testkit::eventually(
            PATIENCE,
            "datagrams that arrive",
            || {
                let arrived = self.arrived() - before;
                if arrived > MANY {
                    Ok(())
                } else {
                    Err(arrived.to_string())
                }
            },
            String::new,
        );
    }
}

/// A process that is killed with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A named counter's packets.
fn count(netns: &NamedNetns, family: &str, table: &str, name: &str) -> u64 {
    let listing = netns
        .netns()
        .run(|| run_program("nft", &["list", "counter", family, table, name], ""))
        .expect("entered")
        .expect("listed");
    let mut words = listing.split_whitespace().skip_while(|word| *word != "packets");
    words
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{listing}"))
}

fn request(name: &str) -> PodRequest {
    let network = ("k8s.v1.cni.cncf.io/networks".to_owned(), "net-a".to_owned());
    let source = ("kubernetes.io/config.source".to_owned(), "api".to_owned());
    PodRequest {
        name: name.into(),
        uid: format!("uid-{name}"),
        labels: [("app".to_owned(), name.to_owned())].into(),
        annotations: [network, source].into(),
        ..PodRequest::default()
    }
}

/// Isolates the egress of `net1` of the pods with these labels.
fn silencing(apps: &[&str]) -> Vec<Manifest> {
    let policy = |app: &&str| {
        Policy::multi(&format!("shop/silence-{app}"), &["shop/net-a"])
            .select(&[("app", app)])
            .isolate_egress()
            .manifest()
    };
    apps.iter().map(policy).collect()
}

#[test]
fn s129_the_first_process_of_an_isolated_pod_sends_nothing_on_its_second_network() {
    let mut site = Site::new("first", Nri::On);
    site.world.save("policies.yaml", &silencing(&["web", "late"]));
    site.world.save("pods.yaml", &[pod("web", "10.20.0.2")]);
    site.start_agent();
    // One whose object is there, and one whose object never comes.
    site.run("web");
    site.wait_dropped("web");
    site.run("late");
    site.wait_dropped("late");
    assert_eq!(site.arrived(), 0, "not one");
    // That it would be counted: a pod that nothing isolates.
    site.run("free");
    site.wait_arriving();
    let metric = |series: &str| site.world.metric(series);
    assert_eq!(metric("ringfence_pod_start_seconds_count"), Some(3.0));
    assert_eq!(metric("ringfence_pod_start_refused_total"), Some(0.0));
    assert_eq!(metric("ringfence_unprotected_start_seconds_count"), Some(0.0));
    println!(
        "three starts were held for {:?} s together",
        metric("ringfence_pod_start_seconds_sum")
    );
    let (_, ready) = site.world.get("/readyz?verbose");
    let connected = format!("[ok] nri: {}", site.runtime.name());
    assert!(ready.contains(&connected), "{ready}");
}

#[test]
fn a_restarted_runtime_is_met_again_and_pods_that_start_then_are_closed() {
    let mut site = Site::new("restart", Nri::On);
    site.world.save("policies.yaml", &silencing(&["web", "next"]));
    site.start_agent();
    site.run("web");
    site.wait_dropped("web");
    site.runtime.kill();
    site.world.wait_metric("ringfence_nri_up", Some(0.0));
    site.runtime.start();
    site.wait_asked(2.0);
    site.run("next");
    site.wait_dropped("next");
    site.wait_dropped("web");
    assert_eq!(site.arrived(), 0, "not one");
}

#[test]
fn without_the_agent_the_runtimes_validator_refuses_what_does_not_tolerate_it() {
    let requires = Nri::Requires {
        plugin: "ringfence".into(),
        annotation: TOLERATION.into(),
    };
    let mut site = Site::new("required", requires);
    site.world.save("policies.yaml", &silencing(&["web"]));
    site.start_agent();
    site.run("web");
    site.wait_dropped("web");
    site.world.kill();

    let refused = request("refused");
    let sandbox = site.runtime.run_pod(&refused).expect("nobody is asked");
    let status = site
        .runtime
        .run_sender(&sandbox, &refused, TARGET)
        .expect_err("refused");
    assert!(status.message().contains("required plugin \"ringfence\""), "{status}");
    assert_eq!(site.arrived(), 0, "rules stay without the agent");

    // The agent's own pod.
    let mut tolerant = request("agent");
    tolerant.annotations.insert(TOLERATION.into(), "true".into());
    let sandbox = site.runtime.run_pod(&tolerant).expect("nobody is asked");
    site.runtime.run_sender(&sandbox, &tolerant, TARGET).expect("tolerated");
    site.wait_arriving();

    site.start_agent();
    site.run("again");
}

#[test]
fn a_pod_on_the_nodes_network_starts_and_the_node_gets_no_rules() {
    let mut site = Site::new("node", Nri::On);
    // Were it a network of its own, both would be isolated.
    site.world.save("policies.yaml", &silencing(&["host", "known"]));
    let known = "apiVersion: v1\nkind: Pod\nmetadata: {name: known, namespace: shop, uid: uid-known, labels: {app: known}}\n\
                 spec: {nodeName: n1, hostNetwork: true}\n";
    site.world.folder.save("known.yaml", known).expect("saved");
    site.start_agent();
    for name in ["host", "known"] {
        let pod = PodRequest {
            network: Network::Node,
            ..request(name)
        };
        let sandbox = site.runtime.run_pod(&pod);
        sandbox.unwrap_or_else(|status| panic!("{name}: {status}"));
    }
    // After them in every queue.
    site.run("free");
    let rules = site.node.netns().run(|| run_program("nft", &["list", "ruleset"], ""));
    assert_eq!(rules.expect("entered").expect("listed"), "");
    assert_eq!(site.world.metric("ringfence_pod_start_refused_total"), Some(0.0));
}

#[test]
fn an_agent_that_knows_nothing_refuses_what_has_a_network_of_its_own() {
    let mut site = Site::new("early", Nri::On);
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    // Nobody answers there.
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n\
                clusters: [{name: c, cluster: {server: 'https://127.0.0.1:9'}}]\nusers: [{name: u, user: {token: t}}]\n";
    std::fs::write(&kubeconfig, text).expect("written");
    let _agent = Ended(
        std::process::Command::new(common::PROGRAM)
            .args(["agent", "--node", "n1", "--source", "kube", "--listen", "off"])
            .arg("--nri-socket")
            .arg(site.runtime.nri_socket())
            .arg("--cri-socket")
            .arg(site.runtime.socket())
            .env("KUBECONFIG", &kubeconfig)
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("a log"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("it starts"),
    );
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let connected = || {
        let log = log();
        if log.contains("NRI is connected") {
            Ok(())
        } else {
            Err(log)
        }
    };
    ringfence_testkit::eventually(PATIENCE, "the connection", connected, String::new);
    let status = site.runtime.run_pod(&request("web")).expect_err("refused");
    assert!(
        status.message().contains("ringfence: nobody knows yet"),
        "{status}\n{}",
        log()
    );
    let host = PodRequest {
        network: Network::Node,
        ..request("host")
    };
    site.runtime.run_pod(&host).expect("the node's network is not ours");
    let mut tolerant = request("tolerant");
    tolerant.annotations.insert(TOLERATION.into(), "true".into());
    site.runtime.run_pod(&tolerant).expect("tolerated");
}
