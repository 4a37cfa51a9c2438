//! A set of nodes, networks and pods made of real network namespaces, gone when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use ringfence_model::Family;

use crate::command;
use crate::manifest::{self, Manifest};
use crate::namespace::{NamedNetns, Sysctl, sweep};
use crate::plan;
use crate::pod::{Interface, Pod, PodSpec};
use crate::wiring::{self, Leg, Lines, Wiring};

/// How long links may take to come up; normally some milliseconds.
const SETTLE: Duration = Duration::from_secs(10);

/// A network that pods can be attached to.
#[derive(Debug, Clone)]
pub struct Network {
    /// What pods and policies call it: a plugin (`weave`, `cbr0`) or `namespace/name`.
    pub name: String,
    /// How its pods are connected.
    pub wiring: Wiring,
    /// Whether the node has an address on it, through which the pods' default route goes.
    pub gateway: bool,
    ipv6: bool,
}

impl Network {
    /// A network of both families without a gateway; a routed one always has its gateway.
    pub fn new(name: &str, wiring: Wiring) -> Self {
        Self {
            name: name.into(),
            wiring,
            gateway: wiring == Wiring::Routed,
            ipv6: true,
        }
    }

    /// Without IPv6.
    #[must_use]
    pub fn ipv4_only(mut self) -> Self {
        self.ipv6 = false;
        self
    }

    /// With an address of the node and default routes through it, as cluster networks have.
    #[must_use]
    pub fn with_gateway(mut self) -> Self {
        self.gateway = true;
        self
    }

    /// The families of its addresses.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let ipv6 = self.ipv6;
        Family::BOTH
            .into_iter()
            .filter(move |family| ipv6 || *family == Family::V4)
    }

    /// Its NetworkAttachmentDefinition, for a network called `namespace/name`.
    pub fn manifest(&self) -> Result<Manifest> {
        let (namespace, name) = self
            .name
            .split_once('/')
            .with_context(|| format!("network {} has no namespace", self.name))?;
        Ok(manifest::network(namespace, name, self.wiring.plugin()))
    }
}

/// Nodes, networks and pods. The address plan and the names are on the crate's first page.
#[derive(Debug)]
pub struct Topology {
    prefix: String,
    networks: Vec<Network>,
    next_pod: u16,
    // Dropped in this order: pods, then nodes, then the wire between them.
    pods: BTreeMap<String, NamedNetns>,
    nodes: Vec<NamedNetns>,
    fabric: Option<NamedNetns>,
}

impl Topology {
    /// One node. `name` says which test this is; letters, digits and `-` of it go into the names of the namespaces.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_nodes(name, 1)
    }

    /// Several nodes, called `node1`, `node2` and so on.
    pub fn with_nodes(name: &str, nodes: u16) -> Result<Self> {
        static SWEPT: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        SWEPT.call_once(|| {
            if let Err(error) = sweep() {
                eprintln!("testkit: sweep: {error:#}");
            }
        });
        let clean: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .take(32)
            .collect();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rf-{clean}-p{}n{count}-", std::process::id());
        let names: Vec<String> = (1..=nodes).map(|node| format!("{prefix}node{node}")).collect();
        let nodes = NamedNetns::create(&names)?;
        for node in &nodes {
            node.sysctls(&node_settings())?;
            node.ip(&["link set lo up".into()])?;
        }
        Ok(Self {
            prefix,
            networks: Vec::new(),
            next_pod: 0,
            pods: BTreeMap::new(),
            nodes,
            fabric: None,
        })
    }

    /// Makes a network on all nodes. Its number in the address plan is how many there were before.
    pub fn network(&mut self, network: Network) -> Result<()> {
        ensure!(self.find(&network.name).is_err(), "network {} exists", network.name);
        let number = u16::try_from(self.networks.len())?;
        if network.wiring.needs_fabric() {
            self.make_fabric()?;
        }
        let count = u16::try_from(self.nodes.len())?;
        for (node, netns) in (1..).zip(&self.nodes) {
            let Lines { outside, sysctls, .. } = wiring::network_on_node(&network, number, node, count)?;
            netns.ip(&outside)?;
            netns.sysctls(&sysctls)?;
            if network.wiring == Wiring::Vxlan {
                let floods = wiring::vxlan_floods(number, node, count)?.join("\n");
                netns
                    .netns()
                    .run(|| command::run("bridge", &["-batch", "-"], &floods))??;
            }
        }
        if let (Wiring::Macvlan, Some(fabric)) = (network.wiring, &self.fabric) {
            fabric.ip(&[
                format!("link add mb{number} type bridge mcast_snooping 0"),
                format!("link set mb{number} up"),
            ])?;
            for (node, netns) in (1..).zip(&self.nodes) {
                let lines = wiring::macvlan_parent(number, node, netns.name());
                fabric.ip(&lines.outside)?;
                netns.ip(&lines.inside)?;
            }
        }
        self.networks.push(network);
        self.settle(&BTreeSet::new())
    }

    /// The wire between the nodes, with every node's underlay address.
    fn make_fabric(&mut self) -> Result<()> {
        if self.fabric.is_some() {
            return Ok(());
        }
        let fabric = NamedNetns::create(&[format!("{}fabric", self.prefix)])?
            .pop()
            .context("no fabric")?;
        fabric.sysctls(&node_settings())?;
        let mut outside = vec![
            "link set lo up".into(),
            "link add ul0 type bridge mcast_snooping 0".into(),
            "link set ul0 up".into(),
        ];
        let mut inside = Vec::new();
        for (node, netns) in (1..).zip(&self.nodes) {
            let lines = wiring::underlay(node, netns.name())?;
            outside.extend(lines.outside);
            inside.push((netns, lines.inside));
        }
        fabric.ip(&outside)?;
        for (netns, lines) in inside {
            netns.ip(&lines)?;
        }
        self.fabric = Some(fabric);
        Ok(())
    }

    /// Makes one pod.
    pub fn pod(&mut self, spec: PodSpec) -> Result<Pod> {
        self.pods(vec![spec])?.pop().context("no pod")
    }

    /// Makes several pods, which is faster than one after the other.
    pub fn pods(&mut self, specs: Vec<PodSpec>) -> Result<Vec<Pod>> {
        let names: Vec<String> = specs
            .iter()
            .map(|spec| format!("{}{}.{}", self.prefix, spec.namespace, spec.name))
            .collect();
        let created = NamedNetns::create(&names)?;
        let mut made = Vec::new();
        let mut on_nodes: BTreeMap<usize, Lines> = BTreeMap::new();
        let mut in_pods = Vec::new();
        for (spec, netns) in specs.into_iter().zip(&created) {
            netns.sysctls(&pod_settings())?;
            let node = usize::from(spec.node).checked_sub(1).context("nodes count from 1")?;
            ensure!(node < self.nodes.len(), "there is no node {}", spec.node);
            let mut inside = vec!["link set lo up".into()];
            let pod = self.plan_pod(spec, netns, on_nodes.entry(node).or_default(), &mut inside)?;
            in_pods.push(inside);
            made.push(pod);
        }
        for (node, lines) in &on_nodes {
            self.nodes[*node].ip(&lines.outside)?;
            self.nodes[*node].sysctls(&lines.sysctls)?;
        }
        for (netns, inside) in created.iter().zip(&in_pods) {
            netns.ip(inside)?;
        }
        let fresh: BTreeSet<String> = names.iter().cloned().collect();
        self.pods.extend(names.into_iter().zip(created));
        self.settle(&fresh)?;
        Ok(made)
    }

    /// Decides numbers and addresses of one pod and collects the commands that make it.
    fn plan_pod(
        &mut self,
        spec: PodSpec,
        netns: &NamedNetns,
        on_node: &mut Lines,
        inside: &mut Vec<String>,
    ) -> Result<Pod> {
        let number = self.next_pod;
        ensure!(
            number < plan::MOST_PODS,
            "a topology has at most {} pods",
            plan::MOST_PODS
        );
        self.next_pod += 1;
        let mut interfaces: Vec<Interface> = Vec::new();
        let mut routed: Vec<Family> = Vec::new();
        for (index, attach) in (0_u8..).zip(&spec.attachments) {
            let (network_number, network) = self.find(&attach.network)?;
            let repeat = interfaces.iter().filter(|it| it.network == attach.network).count();
            let addresses = match &attach.addresses {
                Some(given) => given.clone(),
                None => network
                    .families()
                    .map(|family| plan::pod(network_number, spec.node, number, u16::try_from(repeat)?, family))
                    .collect::<Result<_>>()?,
            };
            let leg = Leg {
                network,
                number: network_number,
                node: spec.node,
                pod: number,
                index,
                interface: &attach.interface,
                netns: netns.name(),
                addresses: &addresses,
                routed: &routed,
            };
            let lines = leg.lines()?;
            let defaults = leg.default_routes();
            on_node.outside.extend(lines.outside);
            on_node.sysctls.extend(lines.sysctls);
            inside.extend(lines.inside);
            routed.extend(defaults);
            interfaces.push(Interface {
                name: attach.interface.clone(),
                network: attach.network.clone(),
                addresses,
                mac: plan::mac(number, index),
            });
        }
        ensure!(!interfaces.is_empty(), "pod {} has no interface", spec.name);
        Ok(Pod {
            uid: format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id()),
            node_name: format!("node{}", spec.node),
            netns_name: netns.name().to_owned(),
            netns: netns.netns().clone(),
            interfaces,
            spec,
        })
    }

    /// Takes a pod's namespace out of /run/netns. Its links go when no clone of the pod is held any more.
    pub fn remove(&mut self, pod: &Pod) -> Result<()> {
        match self.pods.remove(&pod.netns_name) {
            Some(netns) => {
                drop(netns);
                Ok(())
            }
            None => bail!("pod {} is not in this topology", pod.full_name()),
        }
    }

    /// What the agent's `--netns-path` needs to find these pods.
    pub fn netns_path_template(&self) -> String {
        format!("/run/netns/{}{{namespace}}.{{name}}", self.prefix)
    }

    /// A node's namespace; nodes count from 1.
    pub fn node(&self, node: u16) -> Result<&NamedNetns> {
        usize::from(node)
            .checked_sub(1)
            .and_then(|index| self.nodes.get(index))
            .with_context(|| format!("there is no node {node}"))
    }

    /// The networks made so far.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    fn find(&self, name: &str) -> Result<(u16, &Network)> {
        (0..)
            .zip(&self.networks)
            .find(|(_, network)| network.name == name)
            .with_context(|| format!("there is no network {name}"))
    }

    /// Waits until every link carries traffic and every IPv6 address can be used, on the nodes and in these pods.
    /// Without this the first packet could be lost, and with it a verdict.
    fn settle(&self, pods: &BTreeSet<String>) -> Result<()> {
        let outside = self.nodes.iter().chain(&self.fabric).map(|netns| (netns, Place::Node));
        let inside = pods
            .iter()
            .filter_map(|name| self.pods.get(name))
            .map(|netns| (netns, Place::Pod));
        let deadline = Instant::now() + SETTLE;
        for (netns, place) in outside.chain(inside) {
            loop {
                let Some(unready) = netns.netns().run(|| unready(place))?? else {
                    break;
                };
                if Instant::now() > deadline {
                    bail!("{}: {unready} after {} s", netns.name(), SETTLE.as_secs());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Node,
    Pod,
}

/// What is not usable yet in the calling thread's namespace.
fn unready(place: Place) -> Result<Option<String>> {
    let ipv6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6").context("read the IPv6 addresses")?;
    let mut link_local = BTreeSet::new();
    for line in ipv6.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, _, _, flags, interface] = fields[..] else {
            bail!("a line of /proc/net/if_inet6 that cannot be read: {line:?}");
        };
        // IFA_F_TENTATIVE
        if u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 0x40 != 0) {
            return Ok(Some(format!("{address} on {interface} is tentative")));
        }
        if address.starts_with("fe80") {
            link_local.insert(interface.to_owned());
        }
    }
    for entry in getifaddrs().context("list the interfaces")? {
        let (name, flags) = (entry.interface_name, entry.flags);
        if !flags.contains(InterfaceFlags::IFF_UP) || flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        // A bridge has no carrier before its first port.
        let bridge = place == Place::Node && ["br", "mb", "ul0"].iter().any(|start| name.starts_with(start));
        if !bridge && !flags.contains(InterfaceFlags::IFF_RUNNING) {
            return Ok(Some(format!("{name} has no carrier")));
        }
        // The node's link-local address is the pod's IPv6 gateway on a routed veth; a pod needs its own for neighbour
        // discovery.
        let needs_link_local = place == Place::Pod || name.starts_with("cali");
        if needs_link_local && !link_local.contains(&name) {
            return Ok(Some(format!("{name} has no link-local address")));
        }
    }
    Ok(None)
}

/// Nodes route, do not filter what they bridge, and skip duplicate address detection.
fn node_settings() -> Vec<Sysctl> {
    let mut settings = vec![
        Sysctl::new("ipv4/ip_forward", "1"),
        Sysctl::new("ipv6/conf/all/forwarding", "1"),
        Sysctl::new("ipv6/conf/default/accept_dad", "0"),
        Sysctl::new("ipv6/conf/all/accept_dad", "0"),
    ];
    for what in ["iptables", "ip6tables", "arptables"] {
        settings.push(Sysctl {
            path: format!("bridge/bridge-nf-call-{what}"),
            value: "0",
            optional: true,
        });
    }
    settings
}

/// Pods skip duplicate address detection, may ping, and answer every probe of a closed port.
fn pod_settings() -> Vec<Sysctl> {
    vec![
        Sysctl::new("ipv6/conf/default/accept_dad", "0"),
        Sysctl::new("ipv6/conf/all/accept_dad", "0"),
        Sysctl::new("ipv6/conf/default/accept_ra", "0"),
        Sysctl::new("ipv4/ping_group_range", "0 2147483647"),
        Sysctl::new("ipv4/icmp_ratelimit", "0"),
        Sysctl::new("ipv6/icmp/ratelimit", "0"),
    ]
}
