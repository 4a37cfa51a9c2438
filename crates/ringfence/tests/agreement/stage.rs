//! The real pods: six that take part, and one without rules on the same bridge that sends what nobody else would.
//!
//! | pod | eth0 | net1 | net2 |
//! |---|---|---|---|
//! | x/p0, x/p1, y/p3 | cluster | blue | green |
//! | x/p2 | cluster | blue | blue, a second time |
//! | y/p4, z/p5 | cluster | | green, with the addresses that p0 and p1 have on blue |
//! | w/raw | | blue | |
//!
//! Everything has IPv4 and IPv6. The cluster network's gateway is the node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ringfence_model::{Attachment, Family, InterfaceName, Labels, NamespacedName, NetworkName, Pod as Model, PodUid};
use ringfence_netlink::Enforcer;
use ringfence_ruleset::KernelFeatures;
use ringfence_testkit::{Echo, Network, Pod, PodSpec, Topology, Wiring, run_program};

use crate::generate::{Palette, network};

/// The cluster network's name as its plugin's, and the two others.
pub const CLUSTER: &str = "cbr0";
pub const BLUE: &str = "x/blue";
pub const GREEN: &str = "x/green";

/// The ports on which every pod serves, TCP and UDP.
pub const SERVED: [u16; 4] = [80, 81, 82, 1000];

/// What policies are made from: the addresses that the pods really have.
pub const PALETTE: Palette = Palette {
    namespaces: &["x", "x", "y", "z"],
    networks: &["default", "x/blue", "x/green", "x/absent"],
    cidrs: &[
        "10.20.0.0/16",
        "10.20.1.1/32",
        "10.21.0.0/16",
        "10.21.1.10/32",
        "10.21.1.8/29",
        "10.22.1.0/24",
        "0.0.0.0/0",
        "::/0",
        "fd00:20::/64",
        "fd00:21::/64",
        "fd00:21::1:10/128",
        "fd00:22::1:10/125",
    ],
    excepts: &[
        "10.20.1.10/31",
        "10.21.1.10/32",
        "10.21.1.12/30",
        "fd00:20::1:10/127",
        "fd00:21::1:10/127",
        "fd00:22::1:11/128",
    ],
    ports: &[1, 80, 81, 82, 443, 1000, 1001, 65535],
};

/// Pods, their servers, and the hands on their rules.
pub struct Stage {
    /// The pods of the universe, in the order of their numbers.
    pub pods: Vec<Pod>,
    /// The pod that sends frames by hand.
    pub raw: Pod,
    /// One for each pod of the universe.
    pub enforcers: Vec<Enforcer>,
    /// What the kernel can do.
    pub features: KernelFeatures,
    _servers: Vec<Echo>,
    /// Dropped last.
    pub topology: Topology,
}

impl Stage {
    /// Makes everything. Fails without root.
    pub fn new() -> Result<Self> {
        let mut topology = Topology::new("agreement")?;
        topology.network(Network::new(CLUSTER, Wiring::Bridge).with_gateway())?;
        topology.network(Network::new(BLUE, Wiring::Bridge))?;
        topology.network(Network::new(GREEN, Wiring::Macvlan))?;
        let spec = |name: &str| PodSpec::multus(name).attach("eth0", CLUSTER);
        let both = |name: &str| spec(name).attach("net1", BLUE).attach("net2", GREEN);
        let borrowed = |number: u8| -> Result<[IpAddr; 2]> {
            Ok([
                format!("10.21.1.{number}").parse()?,
                format!("fd00:21::1:{number}").parse()?,
            ])
        };
        let specs = vec![
            both("x/p0"),
            both("x/p1"),
            spec("x/p2").attach("net1", BLUE).attach("net2", BLUE),
            both("y/p3"),
            spec("y/p4").attach_with("net2", GREEN, &borrowed(10)?),
            spec("z/p5").attach_with("net2", GREEN, &borrowed(11)?),
            PodSpec::multus("w/raw").attach("net1", BLUE),
        ];
        let mut pods = topology.pods(specs)?;
        let raw = pods.pop().context("the pod that sends by hand")?;
        for pod in &pods {
            // Two interfaces on one network: each answers for its own addresses only.
            let set =
                "for it in arp_ignore=1 arp_announce=2; do echo ${it#*=} > /proc/sys/net/ipv4/conf/all/${it%=*}; done";
            pod.exec("sh", &["-c", set])?;
        }
        // The node sends echo requests like the pods do.
        let ping = "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range";
        topology
            .node(1)?
            .netns()
            .run(|| run_program("sh", &["-c", ping], ""))??;
        let servers = Echo::start_all(&pods, &SERVED)?;
        let features = ringfence_netlink::probe()?;
        let mut enforcers = Vec::new();
        for pod in &pods {
            enforcers.push(pod.netns.run(|| Enforcer::open(features))??);
        }
        Ok(Self {
            pods,
            raw,
            enforcers,
            features,
            _servers: servers,
            topology,
        })
    }

    /// The node's address on the cluster network.
    pub fn gateway(family: Family) -> Result<IpAddr> {
        ringfence_testkit::plan::on_network(0, 1, 1, family)
    }

    /// A pod as policy sees it, without labels and ports.
    pub fn model(&self, number: usize) -> Result<Model> {
        let pod = self.pods.get(number).context("no such pod")?;
        let attachments = pod.interfaces.iter().map(|it| {
            let primary = it.network == CLUSTER;
            let mut networks: BTreeSet<NetworkName> = [network(&it.network)].into();
            if primary {
                networks.insert(NetworkName::Default);
            }
            Ok(Attachment {
                interface: Some(InterfaceName::new(&it.name)?),
                networks,
                primary,
                addresses: it.addresses.iter().copied().collect(),
            })
        });
        Ok(Model {
            uid: PodUid::new(&format!("p{number}"))?,
            mirror_of: None,
            name: NamespacedName::new(pod.namespace(), pod.name()),
            node: Some("node-1".into()),
            labels: Labels::default(),
            attachments: attachments.collect::<Result<_>>()?,
            ports: BTreeSet::new(),
            host_network: false,
            terminal: false,
            started: 0,
            host_addresses: Family::BOTH.into_iter().map(Self::gateway).collect::<Result<_>>()?,
        })
    }
}
