//! A node under fault: three pods, the agent's program, probes over paths that must and must not pass, and everything
//! that can go wrong meanwhile.

#![allow(dead_code, reason = "the test and the example use a part each")]

use std::path::{Path as FilePath, PathBuf};
use std::slice;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ringfence_model::Family;
use ringfence_netlink::Enforcer;
use ringfence_ruleset::KernelFeatures;
use ringfence_testkit::manifest::{self, Manifest, Policy};
use ringfence_testkit::{
    Agent, Barrage, ManifestFolder, Must, Network, Path, Pod, PodSpec, Tally, Topology, Wiring, free_port,
};
use serde_json::json;

/// How long something may take that is to happen at all.
const PATIENCE: Duration = Duration::from_secs(60);
const BLUE: &str = "x/blue";
/// Peers that come and go.
const PEERS: u32 = 100;

/// What is done to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Nothing,
    /// Peers come and go.
    Peers,
    /// Policies for the same pod come and go.
    Policies,
    /// SIGTERM, and another agent.
    Restart,
    /// SIGKILL at random moments, while peers and policies change.
    Kill,
    /// SIGTERM, and another program.
    Upgrade,
    /// An interface that a ruleset names comes and goes.
    Interfaces,
    /// The tables have another owner when the agent starts, so that the kernel refuses everything.
    Refusals,
    /// `nft flush ruleset` inside the pod.
    Flush,
}

impl Fault {
    pub const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Peers,
        Self::Policies,
        Self::Restart,
        Self::Kill,
        Self::Upgrade,
        Self::Interfaces,
        Self::Refusals,
        Self::Flush,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Peers => "peers come and go",
            Self::Policies => "policies come and go",
            Self::Restart => "restart (SIGTERM)",
            Self::Kill => "kill -9 at random moments",
            Self::Upgrade => "upgrade to another program",
            Self::Interfaces => "an interface comes and goes",
            Self::Refusals => "kernel refuses (another owner)",
            Self::Flush => "nft flush ruleset in the pod",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Row {
    pub fault: Fault,
    /// How often it was done.
    pub times: u64,
    pub tally: Tally,
}

pub struct Node {
    agent: Option<Agent>,
    folder: ManifestFolder,
    program: PathBuf,
    other: PathBuf,
    server: Pod,
    friend: Pod,
    stranger: Pod,
    topology: Topology,
    arguments: Vec<String>,
    random: u64,
}

impl Node {
    /// With the agent's program, and another one that upgrades lead to.
    pub fn start(name: &str, program: &FilePath, other: &FilePath, arguments: &[&str]) -> Result<Self> {
        let mut topology = Topology::new(&format!("fault-{name}"))?;
        topology.network(Network::new("cbr0", Wiring::Bridge).ipv4_only().with_gateway())?;
        for network in [BLUE, "x/red"] {
            topology.network(Network::new(network, Wiring::Bridge))?;
        }
        let spec = |name: &str| {
            PodSpec::multus(name)
                .attach("eth0", "cbr0")
                .attach("net1", BLUE)
                .label("app", name.trim_start_matches("x/"))
        };
        let specs = vec![
            spec("x/server").attach("net9", "x/red"),
            spec("x/friend"),
            spec("x/stranger"),
        ];
        let [server, friend, stranger] = <[Pod; 3]>::try_from(topology.pods(specs)?).ok().context("three pods")?;
        let folder = ManifestFolder::new()?;
        let peer = manifest::pods(&[("app", "friend")]);
        let port = manifest::port("UDP", 80);
        let guard = Policy::multi("x/guard", &[BLUE, "x/red"])
            .select(&[("app", "server")])
            .ingress(slice::from_ref(&peer), slice::from_ref(&port))
            .egress(&[peer], &[port]);
        let mut objects = vec![manifest::namespace("x", &[]), guard.manifest()];
        for pod in [&server, &friend, &stranger] {
            objects.push(pod.manifest()?);
        }
        folder.save("all.yaml", &manifest::documents(&objects))?;
        let mut node = Self {
            agent: None,
            folder,
            program: program.to_owned(),
            other: other.to_owned(),
            server,
            friend,
            stranger,
            topology,
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            random: 0x2545_f491_4f6c_dd1d,
        };
        node.begin()?;
        node.ready()?;
        Ok(node)
    }

    fn begin(&mut self) -> Result<()> {
        let mut arguments = self.folder.arguments("node1", &self.topology.netns_path_template());
        arguments.extend(self.arguments.iter().cloned());
        self.agent = Some(Agent::start(&self.program, &arguments, free_port()?)?);
        Ok(())
    }

    fn ready(&mut self) -> Result<()> {
        let agent = self.agent.as_mut().context("no agent")?;
        agent.wait_ready(PATIENCE)?;
        self.wait_pods("\"enforced\"")
    }

    fn wait_pods(&self, text: &str) -> Result<()> {
        let agent = self.agent.as_ref().context("no agent")?;
        for _ in 0..6000 {
            // Right after its start nobody listens yet.
            if agent
                .get("/pods?output=json")
                .is_ok_and(|answer| answer.body.contains(text))
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("no pod is {text}:\n{}", agent.log())
    }

    /// The paths that are probed: both families, into the server and out of it.
    pub fn paths(&self) -> Result<Vec<(Path, Must)>> {
        let mut paths = Vec::new();
        for family in Family::BOTH {
            for (from, to, port, must) in [
                (&self.friend, &self.server, 80, Must::Pass),
                (&self.friend, &self.server, 81, Must::Drop),
                (&self.stranger, &self.server, 80, Must::Drop),
                (&self.server, &self.friend, 80, Must::Pass),
                (&self.server, &self.friend, 81, Must::Drop),
                (&self.server, &self.stranger, 80, Must::Drop),
            ] {
                paths.push((Path::new(from, to, BLUE, family, port)?, must));
            }
        }
        Ok(paths)
    }

    /// Probes at full rate until there are so many, while the fault happens over and over, at least three times.
    pub fn run(&mut self, fault: Fault, probes: u64) -> Result<Row> {
        let barrage = Barrage::start(&self.paths()?)?;
        let mut times = 0;
        while times < 3 || barrage.sent() < probes {
            self.once(fault, times)?;
            times += 1;
        }
        // What was begun is to be over.
        self.ready()?;
        Ok(Row {
            fault,
            times,
            tally: barrage.finish()?,
        })
    }

    fn once(&mut self, fault: Fault, number: u64) -> Result<()> {
        let pause = |millis| thread::sleep(Duration::from_millis(millis));
        match fault {
            Fault::Nothing => pause(20),
            Fault::Peers => {
                self.peers(number)?;
                pause(5);
            }
            Fault::Policies => {
                self.policies(number)?;
                pause(5);
            }
            Fault::Restart => {
                self.agent.take().context("no agent")?.stop()?;
                pause(self.below(20));
                self.begin()?;
                self.ready()?;
            }
            Fault::Kill => {
                for _ in 0..self.below(8) {
                    self.peers(number)?;
                    self.policies(number)?;
                    pause(self.below(20));
                }
                self.agent.take().context("no agent")?.kill()?;
                self.policies(number + 1)?;
                self.begin()?;
                // Ready or not, the next one comes.
                pause(self.below(300));
            }
            Fault::Upgrade => {
                self.agent.take().context("no agent")?.stop()?;
                std::mem::swap(&mut self.program, &mut self.other);
                self.begin()?;
                self.ready()?;
            }
            Fault::Refusals => {
                self.agent.take().context("no agent")?.kill()?;
                // Tables without a living owner are taken over by whoever comes first, and only that one may change them.
                let owner = self.server.netns.run(|| Enforcer::open(KernelFeatures::ALL))??;
                self.begin()?;
                self.policies(number)?;
                self.peers(number)?;
                self.wait_pods("\"failed\"")?;
                drop(owner);
                self.ready()?;
            }
            Fault::Interfaces => {
                self.policies(number)?;
                self.server.exec("ip", &["link", "del", "net9"])?;
                self.peers(number)?;
                pause(self.below(5));
                self.server
                    .exec("ip", &["link", "add", "net9", "type", "veth", "peer", "name", "far9"])?;
                self.policies(number + 1)?;
                pause(self.below(5));
            }
            Fault::Flush => {
                // Where tables have owners it passes ours by.
                self.server.exec("nft", &["flush", "ruleset"])?;
                pause(5);
            }
        }
        Ok(())
    }

    /// A hundred pods elsewhere, of which every round has others, and all have the friend's label.
    fn peers(&self, round: u64) -> Result<()> {
        let pods: Vec<Manifest> = (0..PEERS)
            .filter(|number| u64::from(*number) % 3 != round % 3)
            .map(|number| {
                let address = format!("10.21.9.{}", number + 1);
                let status = json!([
                    {"name": "cbr0", "interface": "eth0", "ips": [format!("10.20.9.{}", number + 1)], "default": true},
                    {"name": BLUE, "interface": "net1", "ips": [address, format!("fd00:21::9:{}", number + 1)]},
                ]);
                Manifest(json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {
                        "name": format!("peer-{number}"), "namespace": "x", "uid": format!("peer-{number}"),
                        "labels": {"app": "friend"},
                        "annotations": {"k8s.v1.cni.cncf.io/network-status": status.to_string()},
                    },
                    "spec": {"nodeName": "elsewhere", "containers": [{"name": "main", "image": "example.invalid/app:1"}]},
                    "status": {"phase": "Running", "podIPs": [{"ip": format!("10.20.9.{}", number + 1)}]},
                }))
            })
            .collect();
        self.folder.save("peers.yaml", &manifest::documents(&pods))?;
        Ok(())
    }

    /// Policies that let others reach other ports of the server: sets, classes and blocks come and go.
    fn policies(&self, round: u64) -> Result<()> {
        let port = |number: u64| u16::try_from(1000 + number % 500).unwrap_or(1000);
        let select = |name: &str| Policy::multi(name, &[BLUE, "x/red"]).select(&[("app", "server")]);
        let mut all = vec![
            select("x/more")
                .ingress(
                    &[manifest::pods(&[("app", "friend")])],
                    &[manifest::port("TCP", port(round))],
                )
                .manifest(),
        ];
        if round.is_multiple_of(2) {
            let range = manifest::ports("UDP", port(round), port(round) + 100);
            all.push(
                select("x/range")
                    .egress(&[manifest::pods(&[("app", "friend")])], &[range])
                    .manifest(),
            );
        }
        if round.is_multiple_of(3) {
            let block = manifest::block("192.0.2.0/24", &["192.0.2.128/25"]);
            all.push(
                select("x/block")
                    .ingress(slice::from_ref(&block), &[])
                    .egress(&[block], &[])
                    .manifest(),
            );
        }
        self.folder.save("policies.yaml", &manifest::documents(&all))?;
        Ok(())
    }

    /// The agent's log, for a failing test.
    pub fn log(&self) -> String {
        self.agent.as_ref().map(Agent::log).unwrap_or_default()
    }

    /// xorshift: the same moments in every run.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }
}
