//! The world of the scenarios: four real pods on two networks, in either dialect, and the real agent on a folder.

use std::fmt::{self, Write as _};
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use ringfence_model::Family;
use ringfence_testkit::{
    Agent, Dialect, Echo, ManifestFolder, Network, Outcome, Path, PodSpec, Protocol, TIMEOUT, Topology, Wiring,
    free_port, manifest, probe_all,
};

use super::scenarios::{On, Scenario};

/// The four pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pod {
    Server,
    Friend,
    Stranger,
    Guest,
}

impl Pod {
    const ALL: [Self; 4] = [Self::Server, Self::Friend, Self::Stranger, Self::Guest];

    fn spec(self, dialect: Dialect) -> PodSpec {
        match self {
            Self::Server => PodSpec::new(dialect, "x/server")
                .label("app", "server")
                .port("web", "TCP", 80)
                .port("media", "UDP", 81),
            Self::Friend => PodSpec::new(dialect, "x/friend")
                .label("access", "true")
                .port("web", "TCP", 81),
            Self::Stranger => PodSpec::new(dialect, "x/stranger"),
            Self::Guest => PodSpec::new(dialect, "y/guest").label("access", "true"),
        }
    }
}

/// One question: may this connection be made?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub from: Pod,
    pub to: Pod,
    pub green: bool,
    pub ipv6: bool,
    pub protocol: Protocol,
    pub port: u16,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = if self.green { "green" } else { "blue" };
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        write!(
            f,
            "{:?} -> {:?} {:?}/{} {family} on {network}",
            self.from, self.to, self.protocol, self.port
        )
    }
}

/// Pods, networks and the agent. Everything is taken down when it is dropped.
pub struct World {
    // Dropped in this order: the agent first, so that it does not report vanished namespaces.
    agent: Agent,
    folder: ManifestFolder,
    dialect: Dialect,
    pods: Vec<ringfence_testkit::Pod>,
    _servers: Vec<Echo>,
    _topology: Topology,
}

impl World {
    /// CNI-Genie records one address per interface, so there the IPv6 part of blue is an interface of its own.
    pub fn new(dialect: Dialect) -> anyhow::Result<Self> {
        let mut topology = Topology::new(match dialect {
            Dialect::Genie => "traffic-genie",
            _ => "traffic-multus",
        })?;
        let (primary, blue, blue6, green) = names(dialect);
        topology.network(Network::new(primary, Wiring::Bridge).ipv4_only().with_gateway())?;
        let dual = Network::new(blue, Wiring::Bridge);
        topology.network(if dialect == Dialect::Genie {
            dual.ipv4_only()
        } else {
            dual
        })?;
        topology.network(Network::new(green, Wiring::Macvlan).ipv4_only())?;
        if dialect == Dialect::Genie {
            topology.network(Network::new(blue6, Wiring::Bridge))?;
        }
        let specs = Pod::ALL.map(|pod| {
            let spec = pod.spec(dialect);
            match dialect {
                Dialect::Genie => {
                    let number = 10 + Pod::ALL.iter().position(|it| *it == pod).unwrap_or_default();
                    let address = format!("fd00:23::1:{number}").parse().expect("an address");
                    spec.attach("eth0", primary)
                        .attach("eth1", blue)
                        .attach("eth2", green)
                        .attach_with("eth3", blue6, &[address])
                }
                _ => spec.attach("eth0", primary).attach("net1", blue).attach("net2", green),
            }
        });
        let pods = topology.pods(specs.to_vec())?;
        let servers = Echo::start_all(&pods, &[80, 81])?;
        let folder = ManifestFolder::new()?;
        let mut documents = vec![
            manifest::namespace("x", &[]),
            manifest::namespace("y", &[("team", "blue")]),
        ];
        for pod in &pods {
            documents.push(pod.manifest()?);
        }
        folder.save("pods.yaml", &manifest::documents(&documents))?;
        let node = pods[0].node_name.clone();
        let arguments = folder.arguments(&node, &topology.netns_path_template());
        let mut agent = Agent::start(FilePath::new(env!("CARGO_BIN_EXE_ringfence")), &arguments, free_port()?)?;
        agent.wait_ready(Duration::from_secs(20))?;
        Ok(Self {
            agent,
            folder,
            dialect,
            pods,
            _servers: servers,
            _topology: topology,
        })
    }

    /// Puts the policies of a scenario in force, and those of the one before out of it.
    pub fn install(&self, number: usize, scenario: &Scenario) -> anyhow::Result<()> {
        let (_, blue, blue6, green) = names(self.dialect);
        let mut text = String::new();
        let mut expected = 0;
        for (position, policy) in scenario.policies.iter().enumerate() {
            let networks = match policy.on {
                On::Blue => format!("{blue},{blue6}"),
                On::Green => green.to_owned(),
                On::Both => format!("{blue},{blue6},{green}"),
            };
            let (version, kind) = match self.dialect {
                Dialect::Genie => ("networking.k8s.io/v1", "NetworkPolicy"),
                _ => ("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"),
            };
            write!(
                text,
                "---\napiVersion: {version}\nkind: {kind}\nmetadata:\n  name: scenario-{number}-{position}\n  namespace: {}\n  \
                 annotations:\n    k8s.v1.cni.cncf.io/policy-for: '{networks}'\nspec: {}\n",
                policy.namespace, policy.spec
            )?;
            expected += 1;
        }
        self.folder.save("policies.yaml", &text)?;
        self.settled(number, expected)
    }

    /// Waits until the agent lists exactly these policies and no pod waits for a transaction.
    fn settled(&self, number: usize, expected: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let policies = self.agent.get("/policies?output=json")?.body;
            let pods = self.agent.get("/pods?output=json")?.body;
            let listed = policies.matches("\"scenario-").count();
            let current = policies.matches(&format!("\"scenario-{number}-")).count();
            let waiting = ["\"pending\"", "\"failed\"", "\"current\":false"]
                .iter()
                .any(|word| pods.contains(word));
            if listed == expected && current == expected && !waiting {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the agent does not settle: {policies}\n{pods}\n{}",
                self.agent.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks every question of a scenario by real traffic and compares. Returns how many were asked, and each that
    /// came out otherwise.
    pub fn probe(&self, scenario: &Scenario) -> anyhow::Result<(usize, Vec<String>)> {
        let (_, blue, blue6, green) = names(self.dialect);
        let mut cells = Vec::new();
        let mut probes = Vec::new();
        for (from, from_pod) in Pod::ALL.into_iter().zip(&self.pods) {
            for (to, to_pod) in Pod::ALL.into_iter().zip(&self.pods) {
                if from == to {
                    continue;
                }
                for (network, family, is_green) in [
                    (blue, Family::V4, false),
                    (blue6, Family::V6, false),
                    (green, Family::V4, true),
                ] {
                    let mut kinds = vec![
                        (Protocol::Tcp, 80),
                        (Protocol::Tcp, 81),
                        (Protocol::Udp, 80),
                        (Protocol::Udp, 81),
                    ];
                    if scenario.pings {
                        kinds.push((Protocol::Icmp, 0));
                    }
                    for (protocol, port) in kinds {
                        cells.push(Cell {
                            from,
                            to,
                            green: is_green,
                            ipv6: family == Family::V6,
                            protocol,
                            port,
                        });
                        probes.push(Path::new(from_pod, to_pod, network, family, port)?.probe(protocol));
                    }
                }
            }
        }
        let answers = probe_all(&probes, TIMEOUT)?;
        let mut wrong = Vec::new();
        for (cell, answer) in cells.iter().zip(&answers) {
            let allowed = if cell.green {
                (scenario.green)(*cell)
            } else {
                (scenario.blue)(*cell)
            };
            let expected = if allowed { Outcome::Reached } else { Outcome::Dropped };
            if answer.outcome != expected {
                wrong.push(format!("{cell}: expected {expected}, got {}", answer.outcome));
            }
        }
        Ok((cells.len(), wrong))
    }

    /// The server's rules as HTTP shows them, for a failing test.
    pub fn rules(&self) -> String {
        self.agent
            .get("/pods/server/rules")
            .map_or_else(|error| error.to_string(), |answer| answer.body)
    }
}

/// Names of the primary network, of blue for IPv4 and for IPv6, and of green.
fn names(dialect: Dialect) -> (&'static str, &'static str, &'static str, &'static str) {
    match dialect {
        Dialect::Genie => ("canal", "blue", "blue6", "green"),
        _ => ("cbr0", "x/blue", "x/blue", "x/green"),
    }
}
