//! One node with real pods on network blue, echo servers in all of them, and the agent's program on a folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringfence_model::Family;
use ringfence_testkit::manifest;
use ringfence_testkit::{
    Agent, Echo, ManifestFolder, Network, Outcome, Path, Pod, PodSpec, Protocol, Stream, TIMEOUT, Topology, Wiring,
    free_port, probe_all,
};
use serde_json::Value;

use super::manifest::BLUE;

/// How long something may take that is to happen at all. No test measures it.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The ports of the echo servers.
const PORTS: [u16; 2] = [80, 81];

/// The node. Dropped in the order of the fields: the agent first, the namespaces last.
pub struct Node {
    agent: Option<Agent>,
    servers: Vec<(String, Echo)>,
    pub folder: ManifestFolder,
    pub pods: BTreeMap<String, Pod>,
    marks: AtomicU32,
    /// More arguments for the agent.
    pub arguments: Vec<String>,
    pub topology: Topology,
}

/// A pod of Multus with `eth0` on the cluster network and `net1` on blue; labels as `app=web,tier=front`.
pub fn spec(name: &str, labels: &str) -> PodSpec {
    labels
        .split(',')
        .filter(|item| !item.is_empty())
        .filter_map(|item| item.split_once('='))
        .fold(PodSpec::multus(name), |spec, (key, value)| spec.label(key, value))
        .attach("eth0", "cbr0")
        .attach("net1", BLUE)
}

impl Node {
    /// With these pods; the agent does not run yet and the folder has the pods and their namespaces in it.
    pub fn new(name: &str, specs: Vec<PodSpec>) -> Self {
        let mut node = Self::empty(name);
        node.add(specs);
        node.save_pods();
        node
    }

    /// Networks only.
    pub fn empty(name: &str) -> Self {
        let mut topology = Topology::new(&format!("bug-{name}")).expect("a topology (are you root?)");
        topology
            .network(Network::new("cbr0", Wiring::Bridge).ipv4_only().with_gateway())
            .expect("the cluster network");
        topology
            .network(Network::new(BLUE, Wiring::Bridge))
            .expect("network blue");
        let folder = ManifestFolder::new().expect("a folder");
        // So that each later mark replaces one, which makes the source wait as long as with any removal.
        folder.save("zz-mark.yaml", &mark(0)).expect("saved");
        Self {
            agent: None,
            servers: Vec::new(),
            folder,
            pods: BTreeMap::new(),
            marks: AtomicU32::new(1),
            arguments: Vec::new(),
            topology,
        }
    }

    /// Makes pods with servers in them, without telling anybody.
    pub fn add(&mut self, specs: Vec<PodSpec>) {
        for pod in self.topology.pods(specs).expect("pods") {
            let name = pod.full_name();
            self.servers
                .push((name.clone(), Echo::start(&pod, &PORTS).expect("servers")));
            self.pods.insert(name, pod);
        }
    }

    /// Ends the servers of a pod and takes its namespace away.
    pub fn destroy(&mut self, name: &str) {
        self.servers.retain(|(of, _)| of != name);
        let pod = self.pods.remove(name).expect("such a pod");
        self.topology.remove(&pod).expect("removed");
    }

    /// Writes the manifests of all pods and of their namespaces.
    pub fn save_pods(&self) {
        let namespaces: std::collections::BTreeSet<&str> = self.pods.values().map(Pod::namespace).collect();
        let mut manifests: Vec<_> = namespaces
            .into_iter()
            .map(|name| manifest::namespace(name, &[]))
            .collect();
        manifests.extend(self.pods.values().map(|pod| pod.manifest().expect("a manifest")));
        self.folder
            .save("pods.yaml", &manifest::documents(&manifests))
            .expect("saved");
    }

    pub fn pod(&self, name: &str) -> &Pod {
        &self.pods[name]
    }

    /// Starts the agent and waits until it is ready, which includes every pod's first transaction.
    pub fn start(&mut self) {
        self.start_unready();
        self.wait_ready();
    }

    pub fn wait_ready(&mut self) {
        self.agent
            .as_mut()
            .expect("the agent runs")
            .wait_ready(PATIENCE)
            .expect("it gets ready");
    }

    /// What the agent is started with.
    pub fn command_line(&self) -> Vec<String> {
        let mut arguments = self.folder.arguments("node1", &self.topology.netns_path_template());
        arguments.extend(["--resync", "1"].map(ToOwned::to_owned));
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }

    /// Starts the agent and waits until its HTTP server answers.
    pub fn start_unready(&mut self) {
        let arguments = self.command_line();
        let program = FilePath::new(env!("CARGO_BIN_EXE_ringfence"));
        let agent = Agent::start(program, &arguments, free_port().expect("a port")).expect("it starts");
        self.agent = Some(agent);
        self.eventually("it answers", || {
            self.agent().get("/livez").map_err(|error| error.to_string())
        });
    }

    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("the agent runs")
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        let status = self.agent.take().expect("the agent runs").stop().expect("it ends");
        assert!(status.success(), "{status}");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.agent.take().expect("the agent runs").kill().expect("it ends");
    }

    /// Saves a file and waits until it is in force.
    #[track_caller]
    pub fn save(&self, file: &str, text: &str) {
        self.folder.save(file, text).expect("saved");
        self.settle();
    }

    /// Deletes a file and waits until what was in it is lifted.
    #[track_caller]
    pub fn delete(&self, file: &str) {
        self.folder.delete(file).expect("deleted");
        self.settle();
    }

    /// Waits until everything saved so far has been read and no pod's rules are behind. The source takes files in the
    /// order of their changes, so what was saved before a mark is known when the mark is.
    #[track_caller]
    pub fn settle(&self) {
        let number = self.marks.fetch_add(1, Ordering::Relaxed);
        self.folder.save("zz-mark.yaml", &mark(number)).expect("saved");
        self.eventually("the agent settles", || {
            let policies = self.json("/policies");
            let names: Vec<&str> = policies
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|it| it["name"].as_str().filter(|name| name.starts_with("mark-")))
                .collect();
            let pods = self.json("/pods");
            let behind: Vec<String> = pods
                .as_array()
                .into_iter()
                .flatten()
                .filter(|it| it["current"] != true && it["state"] != "failed" && !without_namespace(it))
                .map(|it| it["name"].to_string())
                .collect();
            if names == [format!("mark-{number}")] && behind.is_empty() {
                Ok(())
            } else {
                Err(format!("{names:?}, behind: {behind:?}"))
            }
        });
    }

    pub fn get(&self, path: &str) -> String {
        self.agent().get(path).expect("an answer").body
    }

    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(&format!("{path}?output=json"))).expect("JSON")
    }

    /// State of a pod: `open`, `enforced`, `pending`, `failed`.
    pub fn state(&self, name: &str) -> String {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        let status = self.json(&format!("/namespaces/{namespace}/pods/{name}"));
        status["state"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn wait_state(&self, name: &str, expected: &str) {
        self.eventually(&format!("{name} is {expected}"), || {
            let state = self.state(name);
            if state == expected { Ok(()) } else { Err(state) }
        });
    }

    /// The value of a series of `/metrics`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        self.get("/metrics")
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// What nft lists in a pod, without who owns the tables.
    pub fn rules(&self, name: &str) -> String {
        let listing = self
            .pod(name)
            .exec("nft", &["--stateless", "list", "ruleset"])
            .expect("listed");
        listing
            .lines()
            .filter(|line| !line.starts_with("\tflags "))
            .map(|line| line.split(" # progname").next().unwrap_or_default())
            .fold(String::new(), |text, line| text + line + "\n")
    }

    #[track_caller]
    pub fn wait_rules(&self, name: &str, wanted: impl Fn(&str) -> bool, what: &str) {
        self.eventually(what, || {
            let rules = self.rules(name);
            if wanted(&rules) { Ok(()) } else { Err(rules) }
        });
    }

    /// Waits for something that is to happen, and shows the log where it does not.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        let log = || self.agent.as_ref().map(Agent::log).unwrap_or_default();
        ringfence_testkit::eventually(PATIENCE, what, look, log)
    }

    /// The way between two pods on blue.
    pub fn path(&self, from: &str, to: &str, family: Family, port: u16) -> Path {
        Path::new(self.pod(from), self.pod(to), BLUE, family, port).expect("a path")
    }

    /// A stream of datagrams over IPv4 on blue, to a port that no echo server has.
    pub fn stream(&self, from: &str, to: &str) -> Stream {
        self.stream_of(from, to, Family::V4)
    }

    pub fn stream_of(&self, from: &str, to: &str, family: Family) -> Stream {
        let path = self.path(from, to, family, 9000);
        Stream::start(&path, Duration::from_millis(1)).expect("a stream")
    }

    /// Asserts who reaches whom on blue, in both families: `(from, to, protocol, port, reached)`.
    #[track_caller]
    pub fn check(&self, expected: &[(&str, &str, Protocol, u16, bool)]) {
        let mut probes = Vec::new();
        let mut wanted = Vec::new();
        for (from, to, protocol, port, reached) in expected {
            for family in Family::BOTH {
                probes.push(self.path(from, to, family, *port).probe(*protocol));
                wanted.push((from, to, protocol, port, family, *reached));
            }
        }
        let answers = probe_all(&probes, TIMEOUT).expect("probes");
        let mut wrong = String::new();
        for (question, answer) in wanted.iter().zip(&answers) {
            let outcome = if question.5 { Outcome::Reached } else { Outcome::Dropped };
            if answer.outcome != outcome {
                let _ = writeln!(wrong, "{question:?}: {}", answer.outcome);
            }
        }
        assert!(wrong.is_empty(), "{wrong}{}", self.rules(expected[0].1));
    }
}

/// Asserts that a stream has sent something after now and that nothing has ever arrived.
#[track_caller]
pub fn assert_shut(stream: &Stream, what: &str) {
    let (before, _) = stream.counts();
    let deadline = Instant::now() + PATIENCE;
    // So many that were sent after the change that is being looked at.
    while stream.counts().0 < before + 20 {
        assert!(Instant::now() < deadline, "{what}: the stream does not send");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (sent, arrived) = stream.counts();
    assert_eq!(arrived, 0, "{what}: {arrived} of {sent} forbidden datagrams arrived");
}

/// A pod that is gone from the node and not from the folder: nothing can be written for it.
fn without_namespace(status: &Value) -> bool {
    let reason = status["reason"].as_str().unwrap_or_default();
    status["state"] == "pending" && reason.contains("no network namespace")
}

/// A policy that acts nowhere and tells how far the agent has read.
fn mark(number: u32) -> String {
    let name = format!("marks/mark-{number}");
    manifest::Policy::multi(&name, &["marks/none"]).manifest().yaml()
}
