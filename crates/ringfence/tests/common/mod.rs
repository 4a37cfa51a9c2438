//! A node for one test: a folder of manifests, network namespaces, and the agent's own program.
//!
//! Needs root. All namespaces are called `rf-agent-…` and go when the test ends.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::fmt::Debug;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringfence::controller::Running;
use ringfence_testkit::manifest::{Manifest, Policy, documents};
use ringfence_testkit::{Agent, ManifestFolder, NamedNetns, free_port, run_program};
use serde_json::{Value, json};

/// How long something may take that is to happen at all. No test measures it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringfence");

/// Series of the metrics.
pub const COMMITTED: &str = "ringfence_transactions_total{result=\"committed\"}";
pub const HELD: &str = "ringfence_pods{state=\"held\"}";

/// One node.
pub struct World {
    pub folder: ManifestFolder,
    prefix: String,
    /// Where namespaces are looked for, if not under their names in /run/netns.
    pub netns_path: Option<String>,
    agent: Option<Agent>,
}

impl World {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            folder: ManifestFolder::new().expect("a folder"),
            prefix: format!("rf-agent-{name}-p{}n{count}-", std::process::id()),
            netns_path: None,
            agent: None,
        }
    }

    /// The namespace of pod `shop/NAME`, with these interfaces.
    pub fn netns(&self, name: &str, interfaces: &[&str]) -> NamedNetns {
        netns(format!("{}shop.{name}", self.prefix), interfaces)
    }

    /// Where the namespace of pod `shop/NAME` is looked for.
    pub fn netns_path(&self, name: &str) -> String {
        format!("/run/netns/{}shop.{name}", self.prefix)
    }

    pub fn arguments(&self) -> Vec<String> {
        let usual = || format!("/run/netns/{}{{namespace}}.{{name}}", self.prefix);
        let template = self.netns_path.clone().unwrap_or_else(usual);
        let mut arguments = self.folder.arguments("n1", &template);
        arguments.extend(["--resync", "1"].map(ToOwned::to_owned));
        arguments
    }

    /// Starts the agent and waits until it is ready.
    pub fn start(&mut self) {
        self.start_through(&[]);
    }

    /// The same by way of a program that executes what its arguments end with.
    pub fn start_through(&mut self, wrapper: &[String]) {
        let listen = free_port().expect("a port");
        let mut command: Vec<String> = wrapper.to_vec();
        command.push(PROGRAM.to_owned());
        command.extend(self.arguments());
        let mut agent = Agent::start(Path::new(&command[0]), &command[1..], listen).expect("it starts");
        agent.wait_ready(PATIENCE).expect("it gets ready");
        self.agent = Some(agent);
    }

    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("the agent runs")
    }

    /// SIGTERM. Gives what it had logged.
    pub fn stop(&mut self) {
        let agent = self.agent.take().expect("the agent runs");
        let status = agent.stop().expect("it ends");
        assert!(status.success(), "{status}");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.agent.take().expect("the agent runs").kill().expect("it ends");
    }

    pub fn save(&self, file: &str, manifests: &[Manifest]) {
        self.folder.save(file, &documents(manifests)).expect("saved");
    }

    pub fn delete(&self, file: &str) {
        self.folder.delete(file).expect("deleted");
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let response = self.agent().get(path).expect("an answer");
        (response.status, response.body)
    }

    /// The state of pod `shop/NAME` and the reason for it.
    pub fn state(&self, name: &str) -> (String, String) {
        let (_, body) = self.get(&format!("/namespaces/shop/pods/{name}?output=json"));
        let json: Value = serde_json::from_str(&body).expect("JSON");
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    }

    pub fn wait_state(&self, name: &str, expected: &str) {
        self.eventually(&format!("{name} is {expected}"), || {
            let (state, reason) = self.state(name);
            (state == expected)
                .then_some(())
                .ok_or_else(|| format!("{state}: {reason}"))
        });
    }

    /// The value of a series.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "{body}");
        body.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    pub fn wait_metric(&self, series: &str, expected: Option<f64>) {
        self.eventually(series, || {
            let value = self.metric(series);
            (value == expected)
                .then_some(())
                .ok_or_else(|| format!("{value:?} and not {expected:?}"))
        });
    }

    /// Waits until everything saved so far has been read.
    pub fn settle(&self, mark: &str) {
        self.save("zz-mark.yaml", &[closing(mark, "nobody")]);
        self.eventually("the mark is read", || match self.get("/policies") {
            (_, body) if body.contains(mark) => Ok(()),
            (_, body) => Err(body),
        });
    }

    /// Number of log lines that contain all of these.
    pub fn lines(&self, parts: &[&str]) -> usize {
        let log = self.agent().log();
        log.lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .count()
    }

    pub fn wait_line(&self, parts: &[&str]) {
        self.eventually(&format!("a log line with {parts:?}"), || {
            (self.lines(parts) > 0).then_some(()).ok_or_else(String::new)
        });
    }

    /// Waits for something that is to happen, and shows the log where it does not.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        let log = || self.agent.as_ref().map(Agent::log).unwrap_or_default();
        ringfence_testkit::eventually(PATIENCE, what, look, log)
    }

    #[track_caller]
    pub fn wait_rules(&self, netns: &NamedNetns, part: &str) {
        self.eventually(&format!("rules with {part:?}"), || {
            let rules = rules(netns);
            if rules.contains(part) { Ok(()) } else { Err(rules) }
        });
    }

    #[track_caller]
    pub fn wait_no_rules(&self, netns: &NamedNetns) {
        self.eventually("no rules", || {
            let rules = rules(netns);
            if rules.is_empty() { Ok(()) } else { Err(rules) }
        });
    }
}

/// A network namespace of this name, with these interfaces.
pub fn netns(name: String, interfaces: &[&str]) -> NamedNetns {
    let netns = NamedNetns::create(&[name]).expect("a namespace").pop().expect("one");
    for interface in interfaces {
        add_link(&netns, interface);
    }
    netns
}

/// Waits until what is seen is good.
#[track_caller]
pub fn eventually<T: Debug>(look: impl Fn() -> T, good: impl Fn(&T) -> bool) {
    let look = || {
        let seen = look();
        if good(&seen) { Ok(()) } else { Err(format!("{seen:?}")) }
    };
    ringfence_testkit::eventually(PATIENCE, "what is waited for", look, String::new);
}

/// Lets the loop end, which must not have failed.
pub fn end(running: Running) {
    running.shut_down();
    let ended = running.join();
    assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
}

/// Adds an interface, which hears nobody.
pub fn add_link(netns: &NamedNetns, interface: &str) {
    let lines = [
        format!("link add {interface} type veth peer name {interface}-far"),
        format!("link set {interface} up"),
    ];
    netns.ip(&lines).expect("an interface");
}

/// What nft lists in a namespace, without anything that counts and without who owns the tables.
pub fn rules(netns: &NamedNetns) -> String {
    let listing = netns
        .netns()
        .run(|| run_program("nft", &["--stateless", "list", "ruleset"], ""))
        .expect("entered")
        .expect("listed");
    let lines = listing.lines().filter(|line| !line.starts_with("\tflags "));
    lines
        .map(|line| line.split(" # progname").next().unwrap_or_default())
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Pod `shop/NAME` on node `n1` with `eth0` on the cluster network and `net1` on `shop/net-a`.
pub fn pod(name: &str, address: &str) -> Manifest {
    pod_with(name, &format!("uid-{name}"), address, "2026-01-01T00:00:00Z")
}

pub fn pod_with(name: &str, uid: &str, address: &str, started: &str) -> Manifest {
    let primary = address.replace("10.20.", "10.0.");
    let status = json!([
        {"name": "cbr0", "interface": "eth0", "ips": [primary], "default": true},
        {"name": "shop/net-a", "interface": "net1", "ips": [address]},
    ]);
    Manifest(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": uid,
            "labels": {"app": name},
            "annotations": {"k8s.v1.cni.cncf.io/network-status": status.to_string()},
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "example.invalid/app:1"}]},
        "status": {"phase": "Running", "podIP": primary, "startTime": started},
    }))
}

/// The mirror that the kubelet of `n1` makes of a static pod `shop/NAME`, which the runtime knows by that other UID.
pub fn mirror(name: &str, uid: &str, of: &str, address: &str) -> Manifest {
    let mut mirror = pod_with(name, uid, address, "2026-01-01T00:00:00Z");
    let metadata = &mut mirror.0["metadata"];
    for key in ["mirror", "hash"] {
        metadata["annotations"][format!("kubernetes.io/config.{key}")] = of.into();
    }
    metadata["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n", "controller": true}]);
    mirror
}

/// Closes the ingress of `net1` of the pods with this label.
pub fn closing(name: &str, app: &str) -> Manifest {
    Policy::multi(&format!("shop/{name}"), &["shop/net-a"])
        .select(&[("app", app)])
        .isolate_ingress()
        .manifest()
}

/// Runs the program to its end.
pub fn ringfence(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("it starts")
}

/// Exit code, standard output and standard error.
pub fn parts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
