//! How plugins wire a pod to its node, as lines of `ip` commands.
//!
//! | wiring | as made by | same node | across nodes |
//! |---|---|---|---|
//! | [`Wiring::Bridge`] | bridge, Weave's bridge | veth on a bridge per node | no |
//! | [`Wiring::Vxlan`] | flannel, Weave's fast datapath | veth on a bridge per node | a vxlan port on each bridge |
//! | [`Wiring::Routed`] | Calico, Canal, Romana | veth, /32 address, gateway 169.254.1.1 answered by proxy ARP | routes over the underlay |
//! | [`Wiring::Macvlan`] | macvlan | macvlan on a parent interface of the node | the parents' wire |
//!
//! One simplification: flannel routes between a bridge and a vxlan device with a subnet per node, here the vxlan is a
//! port of the bridge and the subnet is one. Pods see the same: addresses of other nodes' pods without translation.

use anyhow::Result;
use ringfence_model::Family;

use crate::namespace::Sysctl;
use crate::plan;
use crate::topology::Network;

/// How the pods of one network are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// A veth on a bridge of the node.
    Bridge,
    /// The same, and the bridges of all nodes joined by vxlan.
    Vxlan,
    /// A routed veth with a host address, as Calico makes it.
    Routed,
    /// A macvlan interface on a parent of the node.
    Macvlan,
}

impl Wiring {
    /// Whether it needs the wire between the nodes even on a single node (as a parent, or as the default route that
    /// proxy ARP looks for).
    pub(crate) fn needs_fabric(self) -> bool {
        !matches!(self, Self::Bridge)
    }

    /// Type of the plugin in a NetworkAttachmentDefinition.
    pub fn plugin(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vxlan => "flannel",
            Self::Routed => "calico",
            Self::Macvlan => "macvlan",
        }
    }
}

/// Lines for two namespaces and settings for the first of them.
#[derive(Default)]
pub(crate) struct Lines {
    /// In the node (or in the fabric, where the function says so).
    pub(crate) outside: Vec<String>,
    /// In the pod (or in the node).
    pub(crate) inside: Vec<String>,
    pub(crate) sysctls: Vec<Sysctl>,
}

/// A network on one node of `nodes`: bridge, vxlan port. Lines of the node only.
pub(crate) fn network_on_node(network: &Network, number: u16, node: u16, nodes: u16) -> Result<Lines> {
    let mut lines = Lines::default();
    let out = &mut lines.outside;
    match network.wiring {
        Wiring::Bridge | Wiring::Vxlan => {
            // Snooping off: it could hold back the first neighbour solicitations to a group that it has not learnt yet.
            out.push(format!("link add br{number} type bridge mcast_snooping 0"));
            out.push(format!("link set br{number} up"));
            if network.gateway {
                for family in network.families() {
                    let address = plan::on_network(number, node, 1, family)?;
                    out.push(format!(
                        "addr add {address}/{} dev br{number}{}",
                        plan::network_length(family),
                        nodad(family)
                    ));
                }
            }
        }
        Wiring::Routed | Wiring::Macvlan => {}
    }
    match network.wiring {
        Wiring::Vxlan => {
            let local = plan::node(node, Family::V4)?;
            out.push(format!(
                "link add vx{number} type vxlan id {} local {local} dstport 4789 dev ul",
                100 + number
            ));
            out.push(format!("link set vx{number} master br{number} up"));
        }
        Wiring::Routed => {
            for other in (1..=nodes).filter(|other| *other != node) {
                for family in network.families() {
                    let (prefix, via) = (plan::node_prefix(number, other, family)?, plan::node(other, family)?);
                    out.push(format!("route add {prefix} via {via}"));
                }
            }
        }
        Wiring::Bridge | Wiring::Macvlan => {}
    }
    Ok(lines)
}

/// Lines for `bridge -batch` in the node: frames to addresses that the vxlan has not learnt yet go to every other node.
pub(crate) fn vxlan_floods(number: u16, node: u16, nodes: u16) -> Result<Vec<String>> {
    (1..=nodes)
        .filter(|other| *other != node)
        .map(|other| {
            let remote = plan::node(other, Family::V4)?;
            Ok(format!("fdb append 00:00:00:00:00:00 dev vx{number} dst {remote}"))
        })
        .collect()
}

/// A node's leg on the underlay. Outside is the fabric.
pub(crate) fn underlay(node: u16, node_netns: &str) -> Result<Lines> {
    let mut lines = Lines::default();
    lines.outside.extend([
        format!("link add n{node} type veth peer name ul netns {node_netns}"),
        format!("link set n{node} master ul0 up"),
    ]);
    lines.inside.push("link set ul up".into());
    for family in Family::BOTH {
        let length = match family {
            Family::V4 => 24,
            Family::V6 => 64,
        };
        lines.inside.push(format!(
            "addr add {}/{length} dev ul{}",
            plan::node(node, family)?,
            nodad(family)
        ));
    }
    // Proxy ARP answers for 169.254.1.1 only where the node has a route there over another interface.
    lines.inside.push("route add default dev ul".into());
    Ok(lines)
}

/// The macvlan parent of one network on one node, on a wire of its own so that two networks do not meet. Outside is the
/// fabric, whose bridge `mb<n>` exists already.
pub(crate) fn macvlan_parent(number: u16, node: u16, node_netns: &str) -> Lines {
    Lines {
        outside: vec![
            format!("link add m{number}n{node} type veth peer name mv{number} netns {node_netns}"),
            format!("link set m{number}n{node} master mb{number} up"),
        ],
        inside: vec![format!("link set mv{number} up")],
        sysctls: Vec::new(),
    }
}

/// What one interface of a pod needs to know about itself.
pub(crate) struct Leg<'a> {
    pub(crate) network: &'a Network,
    pub(crate) number: u16,
    pub(crate) node: u16,
    pub(crate) pod: u16,
    /// Position of the interface in its pod.
    pub(crate) index: u8,
    pub(crate) interface: &'a str,
    pub(crate) netns: &'a str,
    pub(crate) addresses: &'a [std::net::IpAddr],
    /// Families whose default route an earlier interface has already.
    pub(crate) routed: &'a [Family],
}

impl Leg<'_> {
    /// Name of the host side.
    pub(crate) fn host_side(&self) -> Option<String> {
        match self.network.wiring {
            Wiring::Bridge | Wiring::Vxlan => Some(format!("p{}i{}", self.pod, self.index)),
            Wiring::Routed => Some(format!("cali{}i{}", self.pod, self.index)),
            Wiring::Macvlan => None,
        }
    }

    /// The families for which this interface takes the default route.
    pub(crate) fn default_routes(&self) -> Vec<Family> {
        if !self.network.gateway {
            return Vec::new();
        }
        let has = |family| self.addresses.iter().any(|address| Family::of(*address) == family);
        Family::BOTH
            .into_iter()
            .filter(|family| has(*family) && !self.routed.contains(family))
            .collect()
    }

    /// Outside is the node, inside the pod.
    pub(crate) fn lines(&self) -> Result<Lines> {
        let mut lines = Lines::default();
        let mac = plan::mac_text(plan::mac(self.pod, self.index));
        let (interface, netns, number) = (self.interface, self.netns, self.number);
        let host = self.host_side().unwrap_or_default();
        match self.network.wiring {
            Wiring::Bridge | Wiring::Vxlan => lines.outside.extend([
                format!("link add {host} type veth peer name {interface} address {mac} netns {netns}"),
                format!("link set {host} master br{number} up"),
            ]),
            Wiring::Macvlan => lines.outside.push(format!(
                "link add link mv{number} name {interface} address {mac} netns {netns} type macvlan mode bridge"
            )),
            Wiring::Routed => {
                lines.outside.extend([
                    format!(
                        "link add {host} address ee:ee:ee:ee:ee:ee type veth peer name {interface} address {mac} netns {netns}"
                    ),
                    format!("link set {host} up"),
                ]);
                for address in self.addresses {
                    lines.outside.push(format!("route add {address} dev {host}"));
                }
                // Without the second one an answer is held back for a random time of up to 0.8 s.
                lines.sysctls.extend([
                    Sysctl::new(format!("ipv4/conf/{host}/proxy_arp"), "1"),
                    Sysctl::new(format!("ipv4/neigh/{host}/proxy_delay"), "0"),
                ]);
            }
        }
        lines.inside.push(format!("link set {interface} up"));
        for address in self.addresses {
            let family = Family::of(*address);
            let length = match (self.network.wiring, family) {
                (Wiring::Routed, Family::V4) => 32,
                (Wiring::Routed, Family::V6) => 128,
                _ => plan::network_length(family),
            };
            lines
                .inside
                .push(format!("addr add {address}/{length} dev {interface}{}", nodad(family)));
        }
        self.routes(&mut lines.inside)?;
        Ok(lines)
    }

    fn routes(&self, inside: &mut Vec<String>) -> Result<()> {
        let (interface, defaults) = (self.interface, self.default_routes());
        for family in Family::BOTH {
            if !self.addresses.iter().any(|address| Family::of(*address) == family) {
                continue;
            }
            let routed = self.network.wiring == Wiring::Routed;
            let gateway = match (routed, family) {
                (true, Family::V4) => {
                    inside.push(format!("route add 169.254.1.1 dev {interface} scope link"));
                    "169.254.1.1".into()
                }
                // The link-local address that the kernel makes of ee:ee:ee:ee:ee:ee.
                (true, Family::V6) => "fe80::ecee:eeff:feee:eeee".into(),
                (false, _) => plan::on_network(self.number, self.node, 1, family)?.to_string(),
            };
            if defaults.contains(&family) {
                inside.push(format!("route add default via {gateway} dev {interface}"));
            } else if routed {
                let prefix = plan::network_prefix(self.number, family)?;
                inside.push(format!("route add {prefix} via {gateway} dev {interface}"));
            }
        }
        Ok(())
    }
}

/// Duplicate address detection would keep an IPv6 address unusable for a second.
fn nodad(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => " nodad",
    }
}
