//! Egress policies that leave no way to DNS (RF405).
//!
//! Only what the policies of a pod do together counts, and only where something else is allowed: a pod that may send
//! nothing at all is not surprised that it resolves no names.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ringfence_model::{Attachment, Labels, NetworkName, Peer, Peers, PortMatch, Ports, Protocol, Rule};

use super::world::{BundleId, World};
use super::{Code, Out, hints};

/// The port of DNS, UDP and TCP.
const PORT: u16 = 53;

pub(super) fn look(world: &mut World<'_>, out: &mut Out) {
    let servers: HashSet<usize> = (0..world.pods.len())
        .filter(|&pod| {
            let mut ports = world.pods[pod].0.ports.iter();
            ports.any(|port| port.number == PORT && port.protocol != Protocol::Sctp)
        })
        .collect();
    let networks = carrying(world, &servers);
    // Pods with the same policies are one finding.
    let mut groups: BTreeMap<Vec<BundleId>, Vec<usize>> = BTreeMap::new();
    for (number, (pod, _)) in world.pods.iter().enumerate() {
        if world.bundles_of[number].is_empty() || servers.contains(&number) {
            continue;
        }
        let attachments = pod.attachments.iter().filter(|it| !it.networks.is_disjoint(&networks));
        let isolating: Vec<Vec<BundleId>> = attachments.map(|it| closing(world, number, it)).collect();
        // One interface that is open is a way to DNS.
        if !isolating.is_empty() && isolating.iter().all(|bundles| !bundles.is_empty()) {
            let bundles: BTreeSet<BundleId> = isolating.into_iter().flatten().collect();
            groups.entry(bundles.into_iter().collect()).or_default().push(number);
        }
    }
    for (bundles, pods) in groups {
        report(world, &bundles, &pods, &servers, out);
    }
}

/// The cluster network, and those on which a pod serves port 53.
fn carrying(world: &World<'_>, servers: &HashSet<usize>) -> BTreeSet<NetworkName> {
    let mut networks = BTreeSet::from([NetworkName::Default]);
    for &server in servers {
        let pod = world.pods[server].0;
        for attachment in pod
            .attachments
            .iter()
            .filter(|it| pod.takes_part() && !it.addresses.is_empty())
        {
            networks.extend(attachment.networks.iter().cloned());
        }
    }
    networks
}

/// The bundles that isolate the egress of an attachment.
fn closing(world: &World<'_>, pod: usize, attachment: &Attachment) -> Vec<BundleId> {
    let bundles = world.bundles_of[pod].iter().copied();
    bundles
        .filter(|&id| {
            let policies = &world.bundle_at(id).policies;
            let policy = |position: &usize| world.policies[*position].policy;
            // The policies of a bundle cover the same attachments.
            policies.iter().any(|position| policy(position).egress.is_some())
                && policies
                    .first()
                    .is_some_and(|first| world.covers(policy(first), attachment))
        })
        .collect()
}

fn report(world: &mut World<'_>, bundles: &[BundleId], pods: &[usize], servers: &HashSet<usize>, out: &mut Out) {
    let mut closing = Vec::new();
    let mut allows = false;
    for &id in bundles {
        for position in world.bundle_at(id).policies.clone() {
            let Some(rules) = &world.policies[position].policy.egress else {
                continue;
            };
            closing.push(position);
            for rule in rules {
                if leads_to_dns(world, position, rule, servers) {
                    return;
                }
                allows |= allows_something(rule);
            }
        }
    }
    closing.sort_unstable();
    let Some(&first) = closing.first().filter(|_| allows) else {
        return;
    };
    let message = format!(
        "pod {} can send to some destinations and not to port 53 (DNS): the egress policies are {}",
        hints::some(pods.iter().map(|&pod| world.pod_name(pod))),
        hints::some(closing.iter().map(|&position| &world.policies[position].source))
    );
    let hint = "allow UDP and TCP 53 to the DNS servers, unless the pods need no names";
    out.say(
        Code::DnsClosed,
        &world.policies[first].source,
        "spec.egress",
        message,
        hint,
    );
}

fn allows_something(rule: &Rule) -> bool {
    let somebody = match &rule.peers {
        Peers::All => true,
        Peers::OneOf(peers) => peers.iter().any(|peer| *peer != Peer::Nothing),
    };
    let something = match &rule.ports {
        Ports::All => true,
        Ports::OneOf(ports) => ports.iter().any(|port| *port != PortMatch::Nothing),
    };
    somebody && something
}

/// Whether a rule allows port 53 to somebody who may be a DNS server. In doubt it does: whoever writes port 53 has thought
/// of it, and a block of addresses or the pods of `kube-system` may hold servers that are not in the manifests.
fn leads_to_dns(world: &mut World<'_>, position: usize, rule: &Rule, servers: &HashSet<usize>) -> bool {
    if !allows_something(rule) {
        return false;
    }
    match &rule.ports {
        Ports::All => {}
        Ports::OneOf(ports) => {
            let mut open = false;
            for port in ports {
                match port {
                    PortMatch::Range(range) if range.protocol == Protocol::Sctp => {}
                    PortMatch::Range(range) if range.is_whole() => open = true,
                    PortMatch::Range(range) => {
                        if (range.first..=range.last).contains(&PORT) {
                            return true;
                        }
                    }
                    PortMatch::Named { name, .. } => {
                        let declares = |server: &usize| {
                            let mut declared = world.pods[*server].0.ports.iter();
                            declared.any(|it| it.number == PORT && it.name == *name)
                        };
                        if name.as_str().starts_with("dns") || servers.iter().any(declares) {
                            return true;
                        }
                    }
                    PortMatch::Nothing => {}
                }
            }
            if !open {
                return false;
            }
        }
    }
    let Peers::OneOf(peers) = &rule.peers else { return true };
    let own = world.policies[position].policy.key.name.namespace.clone();
    peers.iter().any(|peer| match peer {
        Peer::IpBlock(_) => true,
        Peer::Pods { namespaces, pods } => {
            let system = namespaces.as_ref().is_some_and(|it| it.matches(&system_labels(world)));
            let set = world.peer(&own, namespaces.as_ref(), pods);
            system || world.set(set).iter().any(|pod| servers.contains(pod))
        }
        Peer::Nothing => false,
    })
}

/// The labels of the namespace in which clusters have their DNS.
fn system_labels(world: &World<'_>) -> Labels {
    const NAME: &str = "kube-system";
    let known = world.namespaces.iter().find(|namespace| &*namespace.name == NAME);
    known.map_or_else(
        || [("kubernetes.io/metadata.name", NAME)].into_iter().collect(),
        |namespace| namespace.labels.clone(),
    )
}
