//! A node with real pods and the real agent, whose objects a test changes as it likes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path as FilePath;
use std::time::Duration;

use ringfence_model::Family;
use ringfence_testkit::manifest::{self, Manifest, Policy};
use ringfence_testkit::{
    Agent, Echo, ManifestFolder, Network, Outcome, Path, Pod, PodSpec, Probe, Protocol, TIMEOUT, Topology, Wiring,
    free_port, probe_all,
};
use serde_json::Value;

/// How long something may take that is to happen at all. No test measures it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The cluster network, IPv4 only, with the node as gateway.
pub const CLUSTER: &str = "cbr0";
/// The network that most policies are for, of both families, with an address of the node.
pub const BLUE: &str = "x/blue";
/// Another one.
pub const GREEN: &str = "x/green";

/// The server, whom most policies protect.
pub const SERVER: &str = "x/server";
/// The pod that they name (`access=true`).
pub const FRIEND: &str = "x/friend";
/// The pod that nobody names.
pub const STRANGER: &str = "x/stranger";

pub use Outcome::{Dropped, Reached, Refused};
pub use Protocol::{Icmp, Tcp, Udp};

/// Pods, networks, objects and the agent. Everything is taken down when it is dropped.
pub struct World {
    // Dropped in this order: the agent first, so that it does not report vanished namespaces.
    agent: Option<Agent>,
    folder: ManifestFolder,
    servers: BTreeMap<String, Echo>,
    pods: BTreeMap<String, Pod>,
    pub topology: Topology,
    objects: BTreeMap<String, Manifest>,
    round: u32,
}

/// Server, friend and stranger on the cluster network, blue and green.
pub fn usual_pods() -> Vec<PodSpec> {
    let on_all = |name| {
        PodSpec::multus(name)
            .attach("eth0", CLUSTER)
            .attach("net1", BLUE)
            .attach("net2", GREEN)
    };
    vec![
        on_all(SERVER).label("app", "server"),
        on_all(FRIEND).label("access", "true"),
        on_all(STRANGER),
    ]
}

/// A policy for blue that selects the server.
pub fn guard() -> Policy {
    Policy::multi("x/guard", &[BLUE]).select(&[("app", "server")])
}

/// The friend, as a peer.
pub fn friend() -> Value {
    manifest::pods(&[("access", "true")])
}

pub fn tcp(port: u16) -> Value {
    manifest::port("TCP", port)
}

pub fn udp(port: u16) -> Value {
    manifest::port("UDP", port)
}

impl World {
    /// The usual three pods.
    pub fn usual(name: &str) -> Self {
        Self::new(name, usual_pods(), &[])
    }

    /// These pods, each with servers on ports 80 and 81, and further arguments for the agent.
    pub fn new(name: &str, specs: Vec<PodSpec>, arguments: &[&str]) -> Self {
        let mut topology = Topology::new(&format!("st-{name}")).expect("a topology (are you root?)");
        topology
            .network(Network::new(CLUSTER, Wiring::Bridge).ipv4_only().with_gateway())
            .expect("the cluster network");
        for network in [BLUE, GREEN] {
            topology
                .network(Network::new(network, Wiring::Bridge).with_gateway())
                .expect("a network");
        }
        let mut world = Self {
            agent: None,
            folder: ManifestFolder::new().expect("a folder"),
            servers: BTreeMap::new(),
            pods: BTreeMap::new(),
            topology,
            objects: BTreeMap::new(),
            round: 0,
        };
        world.put(manifest::namespace("x", &[]));
        world.put(manifest::namespace("y", &[("team", "blue")]));
        world.add_pods(specs);
        world.write();
        world.start(arguments);
        world.wait();
        world
    }

    /// Starts the agent, with these arguments beside the usual ones.
    fn start(&mut self, further: &[&str]) {
        let mut arguments = self.folder.arguments("node1", &self.topology.netns_path_template());
        arguments.extend(further.iter().map(|text| (*text).to_owned()));
        let program = FilePath::new(env!("CARGO_BIN_EXE_ringfence"));
        let listen = free_port().expect("a port");
        let mut agent = Agent::start(program, &arguments, listen).expect("the agent starts");
        agent.wait_ready(PATIENCE).expect("the agent gets ready");
        self.agent = Some(agent);
    }

    /// Ends the agent as a crash would, lets `meanwhile` happen, and starts another one.
    pub fn crash(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        self.agent.take().expect("the agent runs").kill().expect("it ends");
        meanwhile(self);
        self.start(&[]);
        self.wait();
    }

    /// Makes pods with their servers; the agent hears of them at the next [`World::settle`].
    pub fn add_pods(&mut self, specs: Vec<PodSpec>) {
        for pod in self.topology.pods(specs).expect("pods") {
            self.serve(&pod);
            self.put(pod.manifest().expect("a manifest"));
            self.pods.insert(pod.full_name(), pod);
        }
    }

    fn serve(&mut self, pod: &Pod) {
        let echo = Echo::start(pod, &[80, 81]).expect("servers");
        self.servers.insert(pod.full_name(), echo);
    }

    /// Takes a pod's namespace, servers and object away.
    pub fn remove_pod(&mut self, name: &str) {
        self.servers.remove(name);
        let pod = self.pods.remove(name).expect("a pod");
        self.topology.remove(&pod).expect("removed");
        self.objects.remove(&format!("Pod {name}")).expect("an object");
    }

    /// A pod. It must exist.
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.get(name).unwrap_or_else(|| panic!("there is no pod {name}"))
    }

    /// A pod's address on a network.
    pub fn address(&self, pod: &str, network: &str, family: Family) -> IpAddr {
        self.pod(pod).address(network, family).expect("an address")
    }

    /// Adds or replaces an object.
    pub fn put(&mut self, manifest: Manifest) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &manifest.0["metadata"];
        let namespace = text(&metadata["namespace"]);
        let slash = if namespace.is_empty() { "" } else { "/" };
        let key = format!(
            "{} {namespace}{slash}{}",
            text(&manifest.0["kind"]),
            text(&metadata["name"])
        );
        self.objects.insert(key, manifest);
    }

    /// Removes an object, called `Kind namespace/name`.
    pub fn delete(&mut self, key: &str) {
        assert!(self.objects.remove(key).is_some(), "there is no {key}");
    }

    /// Changes an object, called `Kind namespace/name`.
    pub fn edit(&mut self, key: &str, change: impl FnOnce(&mut Value)) {
        let object = self.objects.get_mut(key).unwrap_or_else(|| panic!("there is no {key}"));
        change(&mut object.0);
    }

    /// Changes the entry of a pod's network-status for one interface; `None` where it had none.
    pub fn edit_status(&mut self, pod: &str, change: impl FnOnce(&mut Vec<Value>)) {
        self.edit(&format!("Pod {pod}"), |object| {
            let text = &mut object["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"];
            let mut status: Vec<Value> = serde_json::from_str(text.as_str().expect("text")).expect("a list");
            change(&mut status);
            *text = serde_json::to_string(&status).expect("JSON").into();
        });
    }

    /// Puts these policies in force, and those that were before out of it.
    #[track_caller]
    pub fn policies(&mut self, policies: &[Policy]) {
        self.leave(policies);
        self.wait();
    }

    /// Tells the agent about all changes at once, and waits until each of them is in force.
    #[track_caller]
    pub fn settle(&mut self) {
        self.write();
        self.wait();
    }

    /// Writes these policies and no others, for an agent that starts later.
    pub fn leave(&mut self, policies: &[Policy]) {
        self.objects.retain(|key, _| !key.contains("NetworkPolicy "));
        for policy in policies {
            self.put(policy.manifest());
        }
        self.write();
    }

    /// Writes the objects, with a policy that selects nobody and tells by its name which state this is.
    fn write(&mut self) {
        self.round += 1;
        let round = Policy::multi(&format!("rounds/round-{}-end", self.round), &["rounds/none"]).manifest();
        let all: Vec<Manifest> = self.objects.values().cloned().chain([round]).collect();
        self.folder.save("all.yaml", &manifest::documents(&all)).expect("saved");
    }

    #[track_caller]
    fn wait(&self) {
        let round = format!("round-{}-end", self.round);
        self.eventually("the objects are in force", || {
            let policies = self.get("/policies?output=json");
            let pods = self.get("/pods?output=json");
            let waiting = ["\"pending\"", "\"failed\"", "\"current\":false"];
            let is_settled = policies.contains(&round)
                && policies.matches("round-").count() == policies.matches(&round).count()
                && !waiting.iter().any(|word| pods.contains(word));
            if is_settled {
                Ok(())
            } else {
                Err(format!("{policies}\n{pods}"))
            }
        });
    }

    /// What the agent's HTTP server says.
    pub fn get(&self, path: &str) -> String {
        let agent = self.agent.as_ref().expect("the agent runs");
        agent.get(path).expect("an answer").body
    }

    /// Waits for something that is to happen, and shows the agent's log where it does not.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        let log = || self.agent.as_ref().map(Agent::log).unwrap_or_default();
        ringfence_testkit::eventually(PATIENCE, what, look, log)
    }

    /// A way between two pods on a network.
    pub fn path(&self, from: &str, to: &str, network: &str, family: Family, port: u16) -> Path {
        Path::new(self.pod(from), self.pod(to), network, family, port).expect("a path")
    }

    /// Connections between pods, in each family that the network has: from, to, network, protocol, port, outcome.
    #[track_caller]
    pub fn expect(&self, what: &str, rows: &[(&str, &str, &str, Protocol, u16, Outcome)]) {
        let mut asks = Asks::default();
        for (from, to, network, protocol, port, outcome) in rows {
            let families = if *network == CLUSTER {
                &Family::BOTH[..1]
            } else {
                &Family::BOTH[..]
            };
            for family in families {
                asks.ask(self.path(from, to, network, *family, *port).probe(*protocol), *outcome);
            }
        }
        asks.check(self, what);
    }

    /// Writes a setting below /proc/sys/net in a pod.
    pub fn sysctl(&self, pod: &str, path: &str, value: &str) {
        self.pod(pod)
            .netns
            .run(|| std::fs::write(format!("/proc/sys/net/{path}"), value))
            .expect("entered")
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// What conntrack lists in a pod.
    pub fn connections(&self, pod: &str, filter: &[&str]) -> String {
        let arguments: Vec<&str> = ["--dump"].iter().chain(filter).copied().collect();
        self.pod(pod).exec("conntrack", &arguments).expect("conntrack")
    }

    /// The server's rules, for a failing test.
    pub fn rules(&self) -> String {
        self.get("/namespaces/x/pods/server/rules")
    }
}

/// Questions that are asked at the same time.
#[derive(Default)]
pub struct Asks {
    probes: Vec<Probe>,
    expected: Vec<Outcome>,
}

impl Asks {
    /// One more.
    pub fn ask(&mut self, probe: Probe, expected: Outcome) {
        self.probes.push(probe);
        self.expected.push(expected);
    }

    /// One more, from a pod with the kernel's choice of way and source.
    pub fn ask_from(&mut self, pod: &Pod, protocol: Protocol, to: SocketAddr, expected: Outcome) {
        self.ask(Probe::from_pod(pod, protocol, to), expected);
    }

    /// Compares all of them with what is expected.
    #[track_caller]
    pub fn check(&self, world: &World, what: &str) {
        let mut answers = probe_all(&self.probes, TIMEOUT).expect("answers");
        // On a busy machine an answer may be late: silence where one is expected is given a second, longer chance.
        let is_silent = |position: &usize| answers[*position].outcome == Dropped && self.expected[*position] != Dropped;
        let silent: Vec<usize> = (0..answers.len()).filter(is_silent).collect();
        let again: Vec<Probe> = silent.iter().map(|position| self.probes[*position].clone()).collect();
        for (position, answer) in silent
            .into_iter()
            .zip(probe_all(&again, PATIENCE / 4).expect("answers"))
        {
            answers[position] = answer;
        }
        let all = self.probes.iter().zip(&self.expected).zip(&answers);
        let wrong: Vec<String> = all
            .filter(|((_, expected), answer)| answer.outcome != **expected)
            .map(|((probe, expected), answer)| {
                format!(
                    "{} {:?}/{} {}: expected {expected}, got {}",
                    probe.label,
                    probe.protocol,
                    probe.to.port(),
                    probe.to.ip(),
                    answer.outcome
                )
            })
            .collect();
        assert!(wrong.is_empty(), "{what}:\n{}\n{}", wrong.join("\n"), world.rules());
    }
}
