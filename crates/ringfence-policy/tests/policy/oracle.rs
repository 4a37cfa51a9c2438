//! The compiler against the oracle, which reads the specification on its own: at every interface of every local pod of
//! random universes, what the packet tracer says of a packet is what the oracle says of the connection.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use ringfence_model::{Direction, Family, InterfaceName, Object, Pod, Protocol, Scope};
use ringfence_policy::evaluate::{Decision as Word, L4, Universe, evaluate_at};
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::{Conntrack, Content, CtDirection, Decision, KernelFeatures, Packet, Path, Tracer, Transport};

use crate::property::{address, namespace, object, pod, policy};
use crate::support::{addr, interface};

/// Outside of every pod, and at the edges of the blocks.
pub const OTHERS: [&str; 6] = [
    "10.20.1.0",
    "10.20.1.4",
    "192.0.2.1",
    "fd00:20::",
    "fd00:20::ffff",
    "2001:db8::1",
];

pub fn questions() -> Vec<L4> {
    let ports = [0, 67, 68, 79, 80, 81, 82, 83, 84, 90, 100, 65_535];
    let with_ports = Protocol::ALL
        .into_iter()
        .flat_map(|protocol| ports.map(|port| L4::port(protocol, port)));
    let messages = [128, 130, 131, 132, 133, 134, 135, 136, 137, 143].map(|message| L4::Icmpv6 { message });
    with_ports
        .chain(messages)
        .chain([L4::Other(1), L4::Other(47)])
        .collect()
}

/// The packet that opens the connection, where it passes the protected interface.
pub fn packet(interface: &InterfaceName, direction: Direction, own: IpAddr, other: IpAddr, l4: L4) -> Packet {
    let (source, destination) = match direction {
        Direction::Ingress => (other, own),
        Direction::Egress => (own, other),
    };
    let transport = match l4 {
        L4::Port { protocol, port } => Transport::Ports {
            protocol,
            // DHCP comes from the other well-known port; nothing else cares.
            source: match port {
                67 => 68,
                68 => 67,
                _ => 40_000,
            },
            destination: port,
        },
        L4::Icmpv6 { message } => Transport::Icmp {
            protocol: Family::V6,
            kind: message,
            code: 0,
        },
        L4::Other(1) => Transport::Icmp {
            protocol: Family::V4,
            kind: 8,
            code: 0,
        },
        L4::Other(number) => Transport::Other(number),
    };
    Packet {
        path: match direction {
            Direction::Ingress => Path::Arrives(interface.clone()),
            Direction::Egress => Path::Leaves(interface.clone()),
        },
        content: Content::Ip {
            source,
            destination,
            hop_limit: 255,
            transport,
        },
        conntrack: match l4 {
            // What conntrack leaves alone.
            L4::Icmpv6 {
                message: 130..=137 | 143,
            } => Conntrack::Untracked,
            _ => Conntrack::Tracked {
                direction: CtDirection::Original,
                related: false,
                original_source: source,
                reply_source: destination,
            },
        },
        source_local: true,
    }
}

fn check(scope: Scope, node_addresses: BTreeSet<IpAddr>, objects: &[Object]) -> Result<(), TestCaseError> {
    let mut index = Index::new(Options {
        locality: Locality::Node("node-1".into()),
        scope,
        kernel: KernelFeatures::ALL,
        node_addresses: node_addresses.clone(),
    });
    let mut universe = Universe::default();
    universe.scope = scope;
    universe.node_addresses = [("node-1".into(), node_addresses)].into();
    for object in objects {
        index.apply(object.clone());
        universe.apply(object.clone());
    }
    index.commit();
    let others: Vec<IpAddr> = crate::property::ADDRESSES
        .iter()
        .chain(&OTHERS)
        .copied()
        .map(addr)
        .collect();
    let unexplained = interface("eth77");
    for uid in index.local_pods() {
        let Some(Pod { attachments, .. }) = universe.pods.get(uid) else {
            continue;
        };
        let tracer = index.ruleset(uid).map(Tracer::new).transpose();
        let tracer = tracer.map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        for (position, attachment) in attachments.iter().enumerate() {
            // 168: without a name it is to the rules one of those that nothing explains.
            let interface = attachment.interface.as_ref().unwrap_or(&unexplained);
            for (direction, &other) in Direction::BOTH
                .into_iter()
                .flat_map(|it| others.iter().map(move |o| (it, o)))
            {
                // Not from the wire under the pod's own address: what the node's rule says of that is the compiler's
                // own, stricter choice (statement 120).
                if attachment.addresses.contains(&other) {
                    continue;
                }
                let own = addr(if other.is_ipv4() { "10.20.1.200" } else { "fd00:20::200" });
                for l4 in questions() {
                    if matches!(l4, L4::Icmpv6 { .. }) && other.is_ipv4() || l4 == L4::Other(1) && other.is_ipv6() {
                        continue;
                    }
                    let wanted = evaluate_at(&universe, uid, position, direction, other, l4).decision == Word::Allow;
                    let packet = packet(interface, direction, own, other, l4);
                    let found = match &tracer {
                        None => true,
                        Some(tracer) => {
                            let trace = tracer
                                .trace(&packet)
                                .map_err(|it| TestCaseError::fail(it.to_string()))?;
                            trace.decision == Decision::Accept
                        }
                    };
                    prop_assert_eq!(
                        found,
                        wanted,
                        "{} {} {} {:?} {}\n{}",
                        uid,
                        interface,
                        direction,
                        other,
                        l4,
                        index.ruleset(uid).map(ToString::to_string).unwrap_or_default()
                    );
                }
            }
        }
    }
    Ok(())
}

/// Each interface once: which of two attachments with one name an oracle means is nobody's guess.
fn without_twins(mut pod: Pod) -> Pod {
    let mut seen = BTreeSet::new();
    pod.attachments.retain(|attachment| {
        attachment
            .interface
            .as_ref()
            .is_none_or(|name| seen.insert(name.clone()))
    });
    pod
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Every statement of A to G, J and K, and 113, 117, 121 and 123.
    #[test]
    fn s232_the_compiler_says_what_the_oracle_says(
        scope in select(vec![Scope::Secondary, Scope::All, Scope::Annotated, Scope::None]),
        node_addresses in btree_set(address(), 0..2),
        pods in vec(pod(), 2..8),
        policies in vec(policy(), 1..6),
        namespaces in vec(namespace(), 0..3),
        more in vec(object(), 0..4),
    ) {
        let pods = pods.into_iter().map(without_twins).map(Object::Pod);
        let policies = policies.into_iter().map(Object::Policy);
        let namespaces = namespaces.into_iter().map(Object::Namespace);
        let more = more.into_iter().filter(|object| !matches!(object, Object::Pod(_)));
        let objects: Vec<Object> = pods.chain(policies).chain(namespaces).chain(more).collect();
        check(scope, node_addresses, &objects)?;
    }
}
