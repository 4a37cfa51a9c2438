//! What peers select (RF201 to RF206, RF502).

use ringfence_model::{Direction, NetworkName, Peer, Peers, Selector};

use super::world::{World, asks_for_name_only, peer_path, peers, rules};
use super::{Code, Out, hints};

pub(super) fn look(world: &mut World<'_>, position: usize, out: &mut Out) {
    let policy = world.policies[position].policy;
    for (direction, rule, number, peer) in peers(policy) {
        if let Peer::Pods { namespaces, pods } = peer {
            let path = peer_path(direction, rule, number);
            one(world, position, namespaces.as_ref(), pods, &path, out);
        }
    }
    for (direction, position_of_rule, rule) in rules(policy) {
        if let Peers::OneOf(list) = &rule.peers {
            for (number, pair) in list.windows(2).enumerate() {
                split(world, position, direction, position_of_rule, number, pair, out);
            }
        }
    }
}

fn one(
    world: &mut World<'_>,
    position: usize,
    namespaces: Option<&Selector>,
    pods: &Selector,
    path: &str,
    out: &mut Out,
) {
    let target = &world.policies[position];
    let (source, own, bundle) = (
        target.source.clone(),
        target.policy.key.name.namespace.clone(),
        target.bundle,
    );
    if let Some(selector) = namespaces {
        labels_unknown(world, selector, &source, path, out);
        // Labels of namespaces that are not in the manifests may match in the cluster.
        let can_tell = !world.namespaces.is_empty() || asks_for_name_only(selector) && !world.pods.is_empty();
        if can_tell && world.namespaces_matching(selector).is_empty() {
            let message = format!(
                "no namespace in these manifests matches {}{}",
                hints::selector(selector),
                hints::namespace_labels(world, selector)
            );
            let hint = "correct the labels, or add the namespace; the peer matches nothing now";
            out.say(Code::PeerSelectsNoNamespace, &source, path, message, hint);
            return;
        }
        if world.namespaces_matching(selector).is_empty() {
            return;
        }
    }
    // The namespace itself has been reported.
    if world.pods.is_empty() || namespaces.is_none() && !world.knows_namespace(&own) {
        return;
    }
    let set = world.peer(&own, namespaces, pods);
    let members = world.set(set);
    let hint = "correct the selector; the peer matches nothing now";
    if members.is_empty() {
        let place = match namespaces {
            None => format!("namespace {own}"),
            Some(selector) => format!("the namespaces that match {}", hints::selector(selector)),
        };
        let near = if namespaces.is_none() {
            hints::pod_labels(world, &own, pods)
        } else {
            String::new()
        };
        let message = format!("no pod of {place} matches {}{near}", hints::selector(pods));
        out.say(Code::PeerSelectsNoPod, &source, path, message, hint);
    } else if members.iter().all(|&pod| world.pods[pod].0.host_network) {
        let message = format!(
            "every pod that it selects is on the node's network ({})",
            hints::some(members.iter().map(|&pod| world.pod_name(pod)))
        );
        let hint = "allow the nodes' addresses by an ipBlock; a selector never matches such pods";
        out.say(Code::PeerHostNetwork, &source, path, message, hint);
    } else if !world.bundle_at(bundle).networks.is_empty() && !world.meets(set, bundle) {
        off_network(world, position, &members, path, out);
    }
}

/// The mistake that only several networks allow: the pods are there, and their addresses are elsewhere.
fn off_network(world: &World<'_>, position: usize, members: &[usize], path: &str, out: &mut Out) {
    let networks = &world.bundle_of(position).networks;
    let source = &world.policies[position].source;
    let without_ipam = |network: &NetworkName| match network {
        NetworkName::Namespaced(name) => world
            .networks
            .get(name)
            .is_some_and(|it| it.ipam.is_empty() && !it.plugins.is_empty()),
        NetworkName::Default | NetworkName::Plugin(_) | NetworkName::Interface(_) => false,
    };
    let shown = hints::some(networks);
    if networks.iter().all(without_ipam) {
        let message =
            format!("network {shown} has no IPAM, and no pod that the peer selects has a known address on it");
        let hint = "use an ipBlock, or give the network an IPAM; the peer matches nothing now";
        out.say(Code::NoIpam, source, path, message, hint);
        return;
    }
    let taking_part = members.iter().filter(|&&pod| world.pods[pod].0.takes_part());
    let message = format!(
        "no pod that it selects ({}) has an address on {shown}, which is what the policy protects",
        hints::some(taking_part.map(|&pod| world.pod_name(pod)))
    );
    let hint = "attach the peers to that network, or name the network on which they are; the peer matches nothing now";
    out.say(Code::PeerNotOnNetwork, source, path, message, hint);
}

/// Says once that labels of namespaces are unknown.
fn labels_unknown(world: &World<'_>, selector: &Selector, source: &ringfence_model::Source, path: &str, out: &mut Out) {
    if out.labels_unknown_said || asks_for_name_only(selector) {
        return;
    }
    let mut unknown = world.namespaces_without_object().peekable();
    if unknown.peek().is_some() {
        let message = format!(
            "the labels of namespace {} are not in these manifests, so no selector for other labels than the name \
             matches it here",
            hints::some(unknown)
        );
        let hint = "add the Namespace objects";
        out.say(Code::NamespaceLabelsUnknown, source, path, message, hint);
        out.labels_unknown_said = true;
    }
}

/// `- namespaceSelector` and `- podSelector` as two items are OR, and one dash less would make them AND (statement 42).
/// Both are legal, so it is said only where AND would select somebody.
fn split(
    world: &mut World<'_>,
    position: usize,
    direction: Direction,
    rule: usize,
    number: usize,
    pair: &[Peer],
    out: &mut Out,
) {
    let everything = Selector::everything();
    let by_namespace = |peer: &Peer| match peer {
        Peer::Pods {
            namespaces: Some(namespaces),
            pods,
        } if *pods == everything => Some(namespaces.clone()),
        _ => None,
    };
    let by_pod = |peer: &Peer| match peer {
        Peer::Pods { namespaces: None, pods } if *pods != everything => Some(pods.clone()),
        _ => None,
    };
    let [first, second] = pair else { return };
    let found = match (by_namespace(first), by_pod(second)) {
        (Some(namespaces), Some(pods)) => Some((namespaces, pods)),
        _ => by_namespace(second).zip(by_pod(first)),
    };
    let Some((namespaces, pods)) = found else { return };
    let target = &world.policies[position];
    let (source, own) = (target.source.clone(), target.policy.key.name.namespace.clone());
    if !world.pods.is_empty() {
        let both = world.peer(&own, Some(&namespaces), &pods);
        if world.set(both).is_empty() {
            return;
        }
    }
    let message = format!(
        "this item and the next are two peers: every pod of the namespaces that match {}, or pods of {own} that match {}",
        hints::selector(&namespaces),
        hints::selector(&pods)
    );
    let hint = "if only those pods of those namespaces are meant, take away the second dash";
    out.say(
        Code::SplitPeer,
        &source,
        peer_path(direction, rule, number),
        message,
        hint,
    );
}
