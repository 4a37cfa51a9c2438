//! Policies and pods, and the ruleset that comes of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use ringfence_model::{
    Attachment, Coverage, Family, InterfaceName, IpBlock, NamespacedName, NetworkName, Object, Peer, Peers, Pod,
    PodUid, Policy, PolicyKey, PolicyKind, PortMatch, PortRange, Ports, Protocol, Requirement, Rule, Scope, Selector,
};
use ringfence_policy::{Index, Locality, Options, TargetFacts};
use ringfence_ruleset::{KernelFeatures, Ruleset};

use crate::world::{self, FLOWS, PORT, blocks, peer_address, pod_address};

/// Intervals of the cases that look an address up among intervals.
pub const INTERVALS: u16 = 10_000;

/// What isolates the pod, and who else there is.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// So many peers, each allowed one UDP port, by so many policies.
    Exact {
        /// Pods, the one that sends among them.
        peers: u32,
        /// Policies, each with a selector of its own; every pod is selected by one of them.
        policies: u32,
    },
    /// 1,000 peers that are allowed everything.
    Any,
    /// Three kinds of peers with a range of ports for each kind; the sender is one of the third kind.
    ThirdClass,
    /// 10,000 ipBlocks.
    Blocks {
        /// Whether they are allowed one UDP port; everything otherwise.
        port: bool,
        /// The family of the blocks.
        family: Family,
        /// Whether the last address of each is excepted, so that what is left is a network no more: eight prefix
        /// lengths in IPv4, 76 in IPv6, which are searched for as intervals.
        odd: bool,
    },
}

/// A policy's direction is isolated or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Ingress only.
    Ingress,
    /// Ingress and egress, with the same rules.
    Both,
}

/// An index with the pod, and everything that the shape asks for.
pub fn index(features: KernelFeatures, shape: Shape, isolation: Isolation, interfaces: u8) -> Result<(Index, PodUid)> {
    let mut index = Index::new(Options {
        locality: Locality::Node("here".into()),
        scope: Scope::Secondary,
        kernel: features,
        node_addresses: BTreeSet::new(),
    });
    for (number, rules) in (0..).zip(rules(shape, interfaces - 1)?) {
        index.apply(Object::Policy(policy(number, rules, isolation, interfaces)));
    }
    let target = target(interfaces)?;
    let uid = target.uid.clone();
    let names = (0..interfaces).map(interface_name).collect::<Result<_>>()?;
    index.apply(Object::Pod(target));
    let facts = TargetFacts {
        interfaces: names,
        gateways: BTreeSet::new(),
    };
    index.set_facts(&uid, Some(facts));
    let (peers, groups) = match shape {
        Shape::Exact { peers, policies } => (peers, policies),
        Shape::Any => (1_000, 1),
        Shape::ThirdClass => (1_000, 3),
        Shape::Blocks { .. } => (0, 1),
    };
    for number in 0..peers {
        index.apply(Object::Pod(peer(number, groups, interfaces - 1)?));
    }
    index.commit();
    Ok((index, uid))
}

/// The ruleset alone.
pub fn ruleset(features: KernelFeatures, shape: Shape, isolation: Isolation, interfaces: u8) -> Result<Ruleset> {
    let (index, uid) = index(features, shape, isolation, interfaces)?;
    index.ruleset(&uid).cloned().context("a ruleset")
}

/// The rule of each policy.
fn rules(shape: Shape, interface: u8) -> Result<Vec<Rule>> {
    let group = |number: u32| Peer::Pods {
        namespaces: None,
        pods: equal("group", &number.to_string()),
    };
    let rule = |peers, ports| Rule {
        peers: Peers::OneOf(peers),
        ports,
    };
    Ok(match shape {
        Shape::Exact { policies, .. } => (0..policies)
            .map(|number| rule(vec![group(number)], one_port()))
            .collect(),
        Shape::Any => vec![rule(vec![group(0)], Ports::All)],
        // Classes come in the order of their ports, and the sender is of group 0.
        Shape::ThirdClass => vec![
            rule(vec![group(0)], udp(PORT, PORT + 999)),
            rule(vec![group(1)], udp(1_000, 1_999)),
            rule(vec![group(2)], udp(2_000, 2_999)),
        ],
        Shape::Blocks { port, family, odd } => {
            let peers: Result<Vec<Peer>> = blocks(interface, family, INTERVALS)
                .map(|cidr| ip_block(&cidr, odd))
                .collect();
            vec![rule(peers?, if port { one_port() } else { Ports::All })]
        }
    })
}

fn ip_block(cidr: &str, odd: bool) -> Result<Peer> {
    let mut block = IpBlock {
        cidr: cidr.parse()?,
        except: Vec::new(),
    };
    if odd {
        let last = block.ranges().ranges().first().context("a block")?.last();
        let length = if last.is_ipv4() { 32 } else { 128 };
        block.except.push(format!("{last}/{length}").parse()?);
    }
    Ok(Peer::IpBlock(block))
}

fn one_port() -> Ports {
    udp(PORT, PORT)
}

fn udp(first: u16, last: u16) -> Ports {
    Ports::OneOf(vec![PortMatch::Range(PortRange {
        protocol: Protocol::Udp,
        first,
        last,
    })])
}

fn equal(key: &str, value: &str) -> Selector {
    Selector::new(vec![Requirement::In {
        key: key.into(),
        values: vec![value.into()],
    }])
}

fn policy(number: u32, rule: Rule, isolation: Isolation, interfaces: u8) -> Policy {
    Policy {
        key: PolicyKey {
            kind: PolicyKind::MultiNetworkPolicy,
            name: NamespacedName::new("bench", format!("policy-{number}")),
        },
        coverage: Coverage::Networks((0..interfaces).map(network).collect()),
        target: Some(equal("app", "target")),
        egress: (isolation == Isolation::Both).then(|| vec![rule.clone()]),
        ingress: Some(vec![rule]),
    }
}

fn network(interface: u8) -> NetworkName {
    NetworkName::Namespaced(NamespacedName::new("bench", format!("net-{interface}")))
}

fn interface_name(interface: u8) -> Result<InterfaceName> {
    Ok(InterfaceName::new(&world::interface_name(interface))?)
}

fn pod(name: String, labels: &[(&str, &str)], node: &str, attachments: Vec<Attachment>) -> Result<Pod> {
    Ok(Pod {
        mirror_of: None,
        uid: PodUid::new(&name)?,
        name: NamespacedName::new("bench", name),
        node: Some(node.into()),
        labels: labels.iter().copied().collect(),
        attachments,
        ports: BTreeSet::new(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::new(),
    })
}

fn target(interfaces: u8) -> Result<Pod> {
    let attachment = |interface| {
        Ok(Attachment {
            interface: Some(interface_name(interface)?),
            networks: [network(interface)].into(),
            primary: false,
            addresses: Family::BOTH.map(|family| pod_address(interface, family)).into(),
        })
    };
    let attachments: Result<Vec<Attachment>> = (0..interfaces).map(attachment).collect();
    pod("target".into(), &[("app", "target")], "here", attachments?)
}

/// A pod of one of the groups. Number 0 is the one that sends; it has all of the sender's addresses.
pub fn peer(number: u32, groups: u32, interface: u8) -> Result<Pod> {
    let addresses: BTreeSet<IpAddr> = if number == 0 {
        let flows = (0..FLOWS).flat_map(|flow| Family::BOTH.map(|family| peer_address(interface, family, flow)));
        flows.collect()
    } else {
        let v4 = Ipv4Addr::new(172, 16, 0, 0).to_bits() + number;
        let v6 = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0).to_bits() + u128::from(number);
        [Ipv4Addr::from_bits(v4).into(), Ipv6Addr::from_bits(v6).into()].into()
    };
    let attachment = Attachment {
        interface: Some(interface_name(0)?),
        networks: [network(interface)].into(),
        primary: false,
        addresses,
    };
    let group = (number % groups).to_string();
    pod(
        format!("peer-{number}"),
        &[("group", &group)],
        "elsewhere",
        vec![attachment],
    )
}
