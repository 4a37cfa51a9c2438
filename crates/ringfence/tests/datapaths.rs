//! The same rules over every kind of link that plugins make inside a pod, by real traffic: veth on a bridge (flannel,
//! Weave Net, bridge), routed veth with a /32 address and gateway 169.254.1.1 (Calico, Canal, Romana), macvlan, and a
//! vxlan between two nodes. As the pods' only interface with scope `all`, and as their second one with the default scope.
//!
//! ipvlan, VLAN and SR-IOV interfaces need kernel parts that development machines lack. The rules match interface names and
//! IP headers at the IP hooks of the pod's namespace, which every interface of an IP stack passes, whatever it is made of.
//!
//! Needs root and fails without.

use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use ringfence_model::Family;
use ringfence_testkit::manifest::{self, Policy};
use ringfence_testkit::{
    Agent, Dialect, Echo, ManifestFolder, Network, Outcome, Path, Pod, PodSpec, Probe, Protocol, TIMEOUT, Topology,
    Wiring, free_port, probe_all,
};

/// Where the network under test is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is the pods' cluster network.
    Primary,
    /// It is their second network; the first one stays out of it.
    Secondary,
}

struct World {
    agents: Vec<Agent>,
    folder: ManifestFolder,
    network: &'static str,
    node_probe: bool,
    topology: Topology,
    pods: Vec<Pod>,
    _servers: Vec<Echo>,
}

const SERVER: usize = 0;
const FRIEND: usize = 1;
const STRANGER: usize = 2;

impl World {
    /// The server is on the first node, the others on the last one.
    fn new(wiring: Wiring, place: Place, nodes: u16) -> anyhow::Result<Self> {
        let mut topology = Topology::with_nodes(&format!("path-{wiring:?}-{place:?}"), nodes)?;
        let network = match place {
            Place::Primary => "cluster",
            Place::Secondary => "x/second",
        };
        let node_probe = place == Place::Primary && wiring != Wiring::Macvlan;
        match place {
            Place::Primary if node_probe => topology.network(Network::new(network, wiring).with_gateway())?,
            Place::Primary => topology.network(Network::new(network, wiring))?,
            Place::Secondary => {
                topology.network(Network::new("cluster", Wiring::Vxlan).ipv4_only().with_gateway())?;
                topology.network(Network::new(network, wiring))?;
            }
        }
        let spec = |name: &str, node| {
            let dialect = if place == Place::Primary {
                Dialect::Plain
            } else {
                Dialect::Multus
            };
            let spec = PodSpec::new(dialect, name).on_node(node).attach("eth0", "cluster");
            if place == Place::Primary {
                spec
            } else {
                spec.attach("net1", network)
            }
        };
        let pods = topology.pods(vec![
            spec("x/server", 1).label("app", "server"),
            spec("x/friend", nodes).label("access", "true"),
            spec("x/stranger", nodes),
        ])?;
        let servers = Echo::start_all(&pods, &[80, 81])?;
        let folder = ManifestFolder::new()?;
        let mut documents = vec![manifest::namespace("x", &[])];
        for pod in &pods {
            documents.push(pod.manifest()?);
        }
        folder.save("pods.yaml", &manifest::documents(&documents))?;
        let scope = if place == Place::Primary { "all" } else { "secondary" };
        let mut agents = Vec::new();
        for node in 1..=nodes {
            let addresses = format!("192.0.2.{0},2001:db8::{0}", 10 + node);
            let mut arguments = folder.arguments(&format!("node{node}"), &topology.netns_path_template());
            arguments.extend(["--network-policy-scope", scope, "--node-address", &addresses].map(ToOwned::to_owned));
            let mut agent = Agent::start(FilePath::new(env!("CARGO_BIN_EXE_ringfence")), &arguments, free_port()?)?;
            agent.wait_ready(Duration::from_secs(20))?;
            agents.push(agent);
        }
        Ok(Self {
            agents,
            folder,
            network,
            node_probe,
            topology,
            pods,
            _servers: servers,
        })
    }

    /// Compares real traffic with what is expected; `open` says that no policy is in force.
    fn check(&self, open: bool) -> anyhow::Result<()> {
        let mut probes = Vec::new();
        let mut expected = Vec::new();
        let mut names = Vec::new();
        for (from, sender) in self.pods.iter().enumerate() {
            for (to, receiver) in self.pods.iter().enumerate() {
                for family in Family::BOTH {
                    for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Udp, 80)] {
                        if from == to {
                            continue;
                        }
                        let allowed = match (from, to) {
                            (FRIEND, SERVER) => protocol == Protocol::Tcp && port == 80,
                            (STRANGER, SERVER) | (SERVER, STRANGER) => false,
                            _ => true,
                        };
                        probes.push(Path::new(sender, receiver, self.network, family, port)?.probe(protocol));
                        expected.push(open || allowed);
                        names.push(format!(
                            "{} -> {} {protocol:?}/{port} {family:?}",
                            sender.name(),
                            receiver.name()
                        ));
                    }
                }
            }
        }
        if self.node_probe {
            // The kubelet's probes: the node reaches its own pods whatever their policies say (statement 117).
            let node = self.topology.node(1)?.netns();
            for family in Family::BOTH {
                let target = SocketAddr::new(self.pods[SERVER].address(self.network, family)?, 81);
                probes.push(Probe::from_netns(node, Protocol::Tcp, target));
                expected.push(true);
                names.push(format!("node1 -> server Tcp/81 {family:?}"));
            }
        }
        let answers = probe_all(&probes, TIMEOUT)?;
        let wrong: Vec<String> = names
            .iter()
            .zip(&expected)
            .zip(&answers)
            .filter(|((_, allowed), answer)| **allowed != (answer.outcome == Outcome::Reached))
            .map(|((name, _), answer)| format!("{name}: {}", answer.outcome))
            .collect();
        anyhow::ensure!(
            wrong.is_empty(),
            "open={open}: {wrong:#?}\n{}",
            self.agents[0].get("/pods/server/rules")?.body
        );
        Ok(())
    }

    /// Waits for the server to be enforced, or to be open again.
    fn wait(&self, state: &str) -> anyhow::Result<()> {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let pod = self.agents[0].get("/pods/server?output=json")?.body;
            if pod.contains(&format!("\"state\":\"{state}\"")) {
                return Ok(());
            }
            anyhow::ensure!(
                std::time::Instant::now() < deadline,
                "not {state}: {pod}\n{}",
                self.agents[0].log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn check(wiring: Wiring, place: Place, nodes: u16) {
    let world = World::new(wiring, place, nodes).expect("the topology and the agents");
    world.check(true).expect("everything is open without a policy");
    let policy = match place {
        Place::Primary => Policy::network("x/guard"),
        Place::Secondary => Policy::multi("x/guard", &["x/second"]),
    };
    let friends = manifest::pods(&[("access", "true")]);
    let policy = policy
        .select(&[("app", "server")])
        .ingress(std::slice::from_ref(&friends), &[manifest::port("TCP", 80)])
        .egress(std::slice::from_ref(&friends), &[]);
    world
        .folder
        .save("policy.yaml", &policy.manifest().yaml())
        .expect("save the policy");
    world.wait("enforced").expect("the server is enforced");
    world.check(false).expect("the policy decides");
    world.folder.delete("policy.yaml").expect("delete the policy");
    world.wait("open").expect("the server is open again");
    world.check(true).expect("everything is open again");
}

#[test]
fn veth_on_a_bridge_as_flannel_weave_and_bridge_make_it() {
    check(Wiring::Bridge, Place::Primary, 1);
    check(Wiring::Bridge, Place::Secondary, 1);
}

#[test]
fn routed_veth_with_a_host_address_as_calico_canal_and_romana_make_it() {
    check(Wiring::Routed, Place::Primary, 1);
}

#[test]
fn routed_veth_between_two_nodes() {
    check(Wiring::Routed, Place::Primary, 2);
}

#[test]
fn macvlan() {
    check(Wiring::Macvlan, Place::Primary, 1);
    check(Wiring::Macvlan, Place::Secondary, 2);
}

#[test]
fn vxlan_between_two_nodes() {
    check(Wiring::Vxlan, Place::Primary, 2);
    check(Wiring::Vxlan, Place::Secondary, 2);
}
