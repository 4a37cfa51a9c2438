//! Random universes. Everything is drawn from small stocks (a [`Palette`]), so that what a policy asks for is often what
//! a pod has, and addresses are contested, shared by two networks, and at the edges of blocks.
//!
//! The kernel's test includes this file with a palette of addresses that real namespaces have.
#![allow(dead_code, reason = "each of the two tests that include this file uses a part")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ringfence_model::{
    Attachment, Coverage, InterfaceName, IpBlock, Labels, NamedPort, Namespace, NamespacedName, Network, NetworkName,
    Object, Peer, Peers, Pod, PodUid, Policy, PolicyKey, PolicyKind, PortMatch, PortName, PortRange, Ports, Protocol,
    Requirement, Rule, Scope, Selector,
};

/// What policies and pods are made from.
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    /// Where pods live.
    pub namespaces: &'static [&'static str],
    /// What `policy-for` may name.
    pub networks: &'static [&'static str],
    /// Addresses of ipBlocks.
    pub cidrs: &'static [&'static str],
    /// Addresses that ipBlocks except.
    pub excepts: &'static [&'static str],
    /// Single ports and ends of ranges, ascending.
    pub ports: &'static [u16],
}

/// The palette of universes that exist on paper only.
pub const PAPER: Palette = Palette {
    namespaces: &["x", "x", "x", "y", "z"],
    networks: &[
        "default",
        "canal",
        "weave",
        "default/net-a",
        "default/net-b",
        "default/absent",
    ],
    cidrs: &[
        "10.0.0.0/8",
        "10.20.1.0/30",
        "10.20.1.2/32",
        "10.20.1.3/32",
        "0.0.0.0/0",
        "192.0.2.0/24",
        "::/0",
        "fd00:20::2/128",
        "fd00:20::/64",
        "2001:db8::/32",
    ],
    excepts: &[
        "10.20.1.0/31",
        "10.20.1.2/32",
        "0.0.0.0/2",
        "64.0.0.0/2",
        "fd00:20::2/127",
        "fd00:20::3/128",
    ],
    ports: &[
        1, 53, 67, 68, 79, 80, 81, 82, 83, 84, 85, 443, 546, 547, 1000, 2000, 60000, 60001, 65535,
    ],
};

/// Addresses that pods on paper have, whatever the network.
pub const ADDRESSES: [&str; 8] = [
    "10.20.1.1",
    "10.20.1.2",
    "10.20.1.3",
    "10.20.2.1",
    "fd00:20::1",
    "fd00:20::2",
    "fd00:20::3",
    "fd00:21::1",
];

/// Addresses that no pod has, some at the edges of blocks.
pub const OUTSIDE: [&str; 8] = [
    "10.20.1.0",
    "10.20.1.4",
    "63.255.255.255",
    "64.0.0.0",
    "192.0.2.1",
    "fd00:20::",
    "fd00:20::ffff",
    "2001:db8::1",
];

/// One universe.
#[derive(Debug, Clone)]
pub struct Case {
    /// What NetworkPolicies without `policy-for` act on.
    pub scope: Scope,
    /// Addresses of the node beyond those that pods list.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Gateways that every pod of the node has.
    pub gateways: BTreeSet<IpAddr>,
    /// Whether the interfaces are known to exist.
    pub facts: bool,
    /// Everything that exists, in the order of arrival.
    pub objects: Vec<Object>,
    /// Which connections are tried: a seed, so that a smaller universe is asked the same.
    pub sample: u64,
}

/// A universe on paper.
pub fn case() -> impl Strategy<Value = Case> {
    let objects = (
        vec(pod(), 2..9),
        vec(policy(PAPER), 1..8),
        vec(namespace(PAPER), 0..4),
        vec(definition(), 0..3),
    );
    (
        scope(),
        option::weighted(0.4, btree_set(address(), 1..3)),
        option::weighted(0.2, btree_set(address(), 1..2)),
        prop::bool::weighted(0.8),
        objects,
        any::<u64>(),
    )
        .prop_map(
            |(scope, node_addresses, gateways, facts, (pods, policies, namespaces, definitions), sample)| Case {
                scope,
                node_addresses: node_addresses.unwrap_or_default(),
                gateways: gateways.unwrap_or_default(),
                facts,
                objects: policies
                    .into_iter()
                    .map(Object::Policy)
                    .chain(pods.into_iter().map(Object::Pod))
                    .chain(namespaces.into_iter().map(Object::Namespace))
                    .chain(definitions.into_iter().map(Object::Network))
                    .collect(),
                sample,
            },
        )
}

/// Mostly the scopes in which NetworkPolicies act.
pub fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        3 => Just(Scope::Secondary),
        3 => Just(Scope::All),
        1 => Just(Scope::Annotated),
        1 => Just(Scope::None),
    ]
}

fn parsed<T>(text: &str) -> T
where
    T: std::str::FromStr<Err: std::fmt::Debug>,
{
    text.parse().expect("a text of the palette")
}

/// `default`, `namespace/name`, or a plugin.
pub fn network(text: &str) -> NetworkName {
    match text.split_once('/') {
        _ if text == "default" => NetworkName::Default,
        Some((namespace, name)) => NetworkName::Namespaced(NamespacedName::new(namespace, name)),
        None => NetworkName::Plugin(text.into()),
    }
}

fn requirement(keys: &'static [(&'static str, [&'static str; 2])]) -> impl Strategy<Value = Requirement> {
    (select(keys), any::<bool>(), any::<bool>(), 0..6).prop_map(|((key, both), second, all, operator)| {
        let mut values = if all {
            both.to_vec()
        } else {
            vec![both[usize::from(second)]]
        };
        values.sort_unstable();
        let (key, values) = (key.into(), values.into_iter().map(Into::into).collect());
        match operator {
            0..=2 => Requirement::In { key, values },
            3 => Requirement::NotIn { key, values },
            4 => Requirement::Exists(key),
            _ => Requirement::DoesNotExist(key),
        }
    })
}

/// Of pods. Often everything.
pub fn pod_selector() -> impl Strategy<Value = Selector> {
    vec(
        requirement(&[("app", ["web", "db"]), ("tier", ["front", "back"])]),
        0..3,
    )
    .prop_map(Selector::new)
}

fn namespace_selector() -> impl Strategy<Value = Selector> {
    let keys = requirement(&[("team", ["red", "blue"]), ("kubernetes.io/metadata.name", ["x", "y"])]);
    vec(keys, 0..3).prop_map(Selector::new)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![3 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

/// Port names; pods declare all but the last.
const PORT_NAMES: [&str; 4] = ["http", "http", "dns", "nobody"];

fn port_name(stock: &'static [&'static str]) -> impl Strategy<Value = PortName> {
    select(stock).prop_map(|name| PortName::new(name).expect("a port name"))
}

/// One port, by number or by name.
fn few_ports(palette: Palette) -> impl Strategy<Value = PortMatch> {
    prop_oneof![
        2 => (protocol(), select(palette.ports))
            .prop_map(|(protocol, port)| PortMatch::Range(PortRange::single(protocol, port))),
        1 => (port_name(&PORT_NAMES), protocol()).prop_map(|(name, protocol)| PortMatch::Named { name, protocol }),
    ]
}

fn port_match(palette: Palette) -> impl Strategy<Value = PortMatch> {
    let port = || select(palette.ports);
    prop_oneof![
        5 => (protocol(), port()).prop_map(|(protocol, port)| PortMatch::Range(PortRange::single(protocol, port))),
        2 => (protocol(), port(), port()).prop_map(|(protocol, one, other)| PortMatch::Range(PortRange {
            protocol,
            first: one.min(other),
            last: one.max(other),
        })),
        1 => protocol().prop_map(|protocol| PortMatch::Range(PortRange::whole(protocol))),
        3 => (port_name(&PORT_NAMES), protocol()).prop_map(|(name, protocol)| PortMatch::Named { name, protocol }),
        1 => Just(PortMatch::Nothing),
    ]
}

fn peer(palette: Palette) -> impl Strategy<Value = Peer> {
    prop_oneof![
        4 => (option::of(namespace_selector()), pod_selector())
            .prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods }),
        3 => (select(palette.cidrs), subsequence(palette.excepts, 0..3)).prop_map(|(cidr, except)| {
            Peer::IpBlock(IpBlock {
                cidr: parsed(cidr),
                except: except.into_iter().map(parsed).collect(),
            })
        }),
        1 => Just(Peer::Nothing),
    ]
}

/// So many that they are looked up by their prefix lengths; some hold addresses of pods, some end beside them.
fn many_blocks() -> impl Iterator<Item = Peer> {
    let v4 = (0..80).map(|number| format!("10.20.{}.0/31", 2 * number + 1));
    let v6 = (0..80).map(|number| format!("fd00:20:0:{:x}::2/127", 2 * number));
    v4.chain(v6).map(|cidr| {
        Peer::IpBlock(IpBlock {
            cidr: parsed(&cidr),
            except: Vec::new(),
        })
    })
}

fn rule(palette: Palette) -> impl Strategy<Value = Rule> {
    // Few single ports become exact elements, all else classes, many a set of ports: each of them often enough.
    let ports = prop_oneof![
        3 => vec(few_ports(palette), 1..4),
        2 => vec(port_match(palette), 1..4),
        1 => vec(port_match(palette), 8..14),
    ];
    (
        option::weighted(0.85, vec(peer(palette), 1..4)),
        prop::bool::weighted(0.04),
        option::weighted(0.75, ports),
    )
        .prop_map(|(peers, many, ports)| Rule {
            peers: peers.map_or(Peers::All, |mut peers| {
                if many {
                    peers.extend(many_blocks());
                }
                Peers::OneOf(peers)
            }),
            ports: ports.map_or(Ports::All, Ports::OneOf),
        })
}

/// A policy of either kind.
pub fn policy(palette: Palette) -> impl Strategy<Value = Policy> {
    let rules = move || option::weighted(0.6, vec(rule(palette), 0..3));
    (
        (any::<bool>(), select(palette.namespaces), select(&["p", "q", "r"][..])),
        option::weighted(0.7, subsequence(palette.networks, 0..=palette.networks.len())),
        option::weighted(
            0.95,
            prop_oneof![2 => Just(Selector::everything()), 1 => pod_selector()],
        ),
        rules(),
        rules(),
    )
        .prop_map(|((multi, namespace, name), networks, target, ingress, egress)| Policy {
            key: PolicyKey {
                kind: if multi {
                    PolicyKind::MultiNetworkPolicy
                } else {
                    PolicyKind::NetworkPolicy
                },
                name: NamespacedName::new(namespace, name),
            },
            coverage: networks.map_or(Coverage::Scope, |names| {
                Coverage::Networks(names.into_iter().map(network).collect())
            }),
            target,
            ingress,
            egress,
        })
}

/// A namespace, perhaps with the annotation that isolates it.
pub fn namespace(palette: Palette) -> impl Strategy<Value = Namespace> {
    (
        select(palette.namespaces),
        option::of(select(&["red", "blue"][..])),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.15),
    )
        .prop_map(|(name, team, terminating, isolate_ingress)| Namespace {
            name: name.into(),
            labels: team
                .into_iter()
                .map(|team| ("team", team))
                .chain([("kubernetes.io/metadata.name", name)])
                .collect(),
            terminating,
            isolate_ingress,
        })
}

/// A NetworkAttachmentDefinition, perhaps with DHCP.
fn definition() -> impl Strategy<Value = Network> {
    (select(&["net-a", "net-b", "absent"][..]), any::<bool>()).prop_map(|(name, dhcp)| Network {
        name: NamespacedName::new("default", name),
        plugins: vec!["macvlan".into()],
        ipam: dhcp.then(|| "dhcp".into()).into_iter().collect(),
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(&ADDRESSES[..]).prop_map(parsed)
}

fn attachment() -> impl Strategy<Value = Attachment> {
    let kinds: [(&str, &[&str]); 10] = [
        ("eth0", &["default", "canal"]),
        ("eth0", &["default"]),
        ("eth1", &["weave"]),
        ("net1", &["default/net-a"]),
        ("net1", &["default/net-a"]),
        ("net2", &["default/net-b"]),
        // A second interface on one network, and one on two.
        ("net3", &["default/net-a"]),
        ("net4", &["default/net-a", "default/net-b"]),
        // No interface name.
        ("", &["default/net-b"]),
        // An interface name that is no nft identifier.
        ("a@b", &["interface:eth9"]),
    ];
    (select(kinds.to_vec()), btree_set(address(), 0..4)).prop_map(|((name, networks), addresses)| Attachment {
        interface: (!name.is_empty()).then(|| InterfaceName::new(name).expect("an interface name")),
        networks: networks.iter().copied().map(network).collect(),
        primary: networks.contains(&"default"),
        addresses,
    })
}

/// Labels of a pod.
pub fn pod_labels() -> impl Strategy<Value = Labels> {
    let value = |values: [&'static str; 2]| option::weighted(0.7, select(values.to_vec()));
    (value(["web", "db"]), value(["front", "back"])).prop_map(|(app, tier)| {
        let pairs = [("app", app), ("tier", tier)].into_iter();
        pairs.filter_map(|(key, value)| Some((key, value?))).collect()
    })
}

/// Named ports of a pod.
pub fn named_ports(palette: Palette) -> impl Strategy<Value = BTreeSet<NamedPort>> {
    btree_set(
        (port_name(&PORT_NAMES[..3]), protocol(), select(palette.ports))
            .prop_map(|(name, protocol, number)| NamedPort { name, protocol, number }),
        0..5,
    )
}

fn pod() -> impl Strategy<Value = Pod> {
    (
        (0..9_usize, select(PAPER.namespaces)),
        pod_labels(),
        vec(attachment(), 0..5),
        named_ports(PAPER),
        (prop::bool::weighted(0.08), prop::bool::weighted(0.1), 0_i64..3),
        option::weighted(0.9, select(&["node-1", "node-1", "node-1", "node-2"][..])),
        option::weighted(0.3, btree_set(address(), 1..2)),
    )
        .prop_map(
            |((number, namespace), labels, mut attachments, ports, life, node, host_addresses)| {
                // Each interface once: which of two attachments of one name an oracle is asked about is nobody's guess.
                let mut seen = BTreeSet::new();
                attachments.retain(|it| it.interface.as_ref().is_none_or(|name| seen.insert(name.clone())));
                Pod {
                    mirror_of: None,
                    uid: PodUid::new(&format!("u{number}")).expect("a UID"),
                    name: NamespacedName::new(namespace, format!("pod-{number}")),
                    node: node.map(Into::into),
                    labels,
                    attachments,
                    ports,
                    host_network: life.0,
                    terminal: life.1,
                    started: life.2,
                    host_addresses: host_addresses.unwrap_or_default(),
                }
            },
        )
}
