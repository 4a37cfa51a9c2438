//! One pod's trouble is nobody else's (statement 228): a namespace in which the kernel is busy, a ruleset that it refuses,
//! ten thousand events at once.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringfence_testkit::manifest::{self, Manifest, Policy};
use ringfence_testkit::{Agent, ManifestFolder, NamedNetns, free_port};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringfence");
const PATIENCE: Duration = Duration::from_secs(60);
const BLUE: &str = "shop/blue";

/// Pods that are namespaces with `net1` and nothing else.
struct Small {
    agent: Agent,
    folder: ManifestFolder,
    pods: Vec<NamedNetns>,
}

fn pod(name: &str, node: &str, address: &str) -> Manifest {
    let status = json!([
        {"name": "cbr0", "interface": "eth0", "ips": ["10.0.0.9"], "default": true},
        {"name": BLUE, "interface": "net1", "ips": [address]},
    ]);
    Manifest(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": name, "node": node},
            "annotations": {"k8s.v1.cni.cncf.io/network-status": status.to_string()},
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "example.invalid/app:1"}]},
        "status": {"phase": "Running"},
    }))
}

fn admits(name: &str, target: &str, port: u16) -> Manifest {
    Policy::multi(name, &[BLUE])
        .select(&[("app", target)])
        .ingress(&[manifest::pods(&[("node", "far")])], &[manifest::port("TCP", port)])
        .egress(&[manifest::pods(&[("node", "far")])], &[manifest::port("TCP", port)])
        .manifest()
}

impl Small {
    /// Pods `a` and `b`, each with a policy for port 80.
    fn start(name: &str) -> Self {
        let prefix = format!("rf-small-{name}-p{}n0-", std::process::id());
        let names = ["a", "b"].map(|pod| format!("{prefix}shop.{pod}"));
        let pods = NamedNetns::create(&names).expect("namespaces (are you root?)");
        for pod in &pods {
            pod.ip(&[
                "link add net1 type veth peer name far".to_owned(),
                "link set net1 up".to_owned(),
            ])
            .expect("an interface");
        }
        let folder = ManifestFolder::new().expect("a folder");
        let all = [
            manifest::namespace("shop", &[]),
            pod("a", "near", "10.21.0.1"),
            pod("b", "near", "10.21.0.2"),
            pod("c", "far", "10.21.0.3"),
            admits("shop/a-80", "a", 80),
            admits("shop/b-80", "b", 80),
        ];
        folder.save("all.yaml", &manifest::documents(&all)).expect("saved");
        let template = format!("/run/netns/{prefix}{{namespace}}.{{name}}");
        let arguments = folder.arguments("near", &template);
        let mut agent = Agent::start(Path::new(PROGRAM), &arguments, free_port().expect("a port")).expect("it starts");
        agent.wait_ready(PATIENCE).expect("it gets ready");
        let small = Self { agent, folder, pods };
        for name in ["a", "b"] {
            small.wait_rules(name, ". tcp . 80");
        }
        small
    }

    fn get(&self, path: &str) -> String {
        self.agent.get(path).expect("an answer").body
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// In the kernel, whatever the agent says.
    #[track_caller]
    fn wait_rules(&self, pod: &str, text: &str) {
        let netns = &self.pods[usize::from(pod == "b")];
        let list = || {
            netns
                .netns()
                .run(|| ringfence_testkit::run_program("nft", &["list", "ruleset"], ""))
                .expect("entered")
                .expect("listed")
        };
        let look = || {
            let rules = list();
            if rules.contains(text) { Ok(()) } else { Err(rules) }
        };
        ringfence_testkit::eventually(PATIENCE, text, look, || self.agent.log());
    }
}

/// A transaction of somebody else's that takes seconds keeps everybody from nftables in its namespace, Ringfence too.
#[test]
fn s228_a_namespace_where_the_kernel_is_busy_delays_no_other() {
    let small = Small::start("busy");
    let name = small.pods[0].name().to_owned();
    let sets: Vec<String> = (0..2_000)
        .map(|number| format!("add set inet busy s{number} {{ type ipv4_addr; flags interval; }}\n"))
        .collect();
    let script = format!("table inet busy {{\n}}\n{}", sets.concat());
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // One after the other, until it is told to end.
        let busy = scope.spawn(|| {
            let mut rounds = 0_u32;
            while !end.load(Ordering::Relaxed) {
                let mut child = Command::new("ip")
                    .args(["netns", "exec", &name, "nft", "-f", "-"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("nft");
                let text = format!("{script}delete table inet busy\n");
                child
                    .stdin
                    .take()
                    .expect("a pipe")
                    .write_all(text.as_bytes())
                    .expect("written");
                child.wait().expect("it ends");
                rounds += 1;
            }
            rounds
        });
        for port in 81..91 {
            let both = [admits("shop/a-more", "a", port), admits("shop/b-more", "b", port)];
            small
                .folder
                .save("more.yaml", &manifest::documents(&both))
                .expect("saved");
            small.wait_rules("b", &format!(". tcp . {port}"));
        }
        end.store(true, Ordering::Relaxed);
        assert!(busy.join().expect("no panic") > 0);
    });
    small.wait_rules("a", ". tcp . 90");
    assert!(small.metric("ringfence_queue_length") < 1.0);
}

#[test]
fn s228_ten_thousand_events_at_once() {
    let small = Small::start("many");
    let status = std::fs::read_to_string(format!("/proc/{}/status", small.agent.pid())).expect("status");
    let resident = |status: &str| -> u64 {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let before = resident(&status);
    for round in 0..2 {
        let many: Vec<Manifest> = (0..5_000_u32)
            .map(|number| {
                let address = std::net::Ipv4Addr::from(0x0a16_0000 + number + round * 5_000);
                pod(&format!("far-{number}"), "far", &address.to_string())
            })
            .collect();
        small
            .folder
            .save("many.yaml", &manifest::documents(&many))
            .expect("saved");
    }
    let last = std::net::Ipv4Addr::from(0x0a16_0000 + 9_999);
    for name in ["a", "b"] {
        small.wait_rules(name, &format!("{last} . tcp . 80"));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", small.agent.pid())).expect("status");
    let grown = resident(&status).saturating_sub(before);
    // 5,000 pods in the index, in two rulesets and in the kernel's answers: a queue that grows would be far beyond.
    assert!(grown < 300 << 10, "{grown} KiB");
    assert!(small.metric("ringfence_queue_oldest_seconds") >= 0.0);
}

/// An interface that the rules name goes: the kernel refuses what was made for it, and takes what follows from the rest.
#[test]
fn s228_an_interface_that_goes_concerns_its_pod_only() {
    let small = Small::start("gone");
    let a = &small.pods[0];
    a.ip(&["link del net1".to_owned()]).expect("deleted");
    let both = [admits("shop/a-more", "a", 443), admits("shop/b-more", "b", 443)];
    small
        .folder
        .save("more.yaml", &manifest::documents(&both))
        .expect("saved");
    small.wait_rules("b", ". tcp . 443");
    // Its rules follow from the interfaces that are left.
    small.wait_rules("a", ". tcp . 443");
    a.ip(&["link add net1 type veth peer name far".to_owned()])
        .expect("an interface");
    small.wait_rules("a", "device \"net1\"");
}
