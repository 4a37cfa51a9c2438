//! Named ports (RF301 to RF305).

use std::collections::BTreeSet;
use std::rc::Rc;

use ringfence_model::{Direction, Peer, Peers, PortMatch, PortName, Ports, Protocol, Rule};

use super::world::{Declared, SetId, World, rules};
use super::{Code, Out, hints};

pub(super) fn look(world: &mut World<'_>, position: usize, out: &mut Out) {
    for (direction, number, rule) in rules(world.policies[position].policy) {
        let Ports::OneOf(ports) = &rule.ports else { continue };
        for (entry, port) in ports.iter().enumerate() {
            if let PortMatch::Named { name, protocol } = port {
                let path = format!("spec.{direction}[{number}].ports[{entry}]");
                on_blocks(world, position, direction, rule, name, &path, out);
                let sets = destinations(world, position, direction, rule);
                on_pods(world, position, &sets, name, *protocol, &path, out);
            }
        }
    }
}

/// An address has no port names (statement 96).
fn on_blocks(
    world: &World<'_>,
    position: usize,
    direction: Direction,
    rule: &Rule,
    name: &PortName,
    path: &str,
    out: &mut Out,
) {
    if direction == Direction::Ingress {
        return;
    }
    let Peers::OneOf(peers) = &rule.peers else { return };
    let block = peers.iter().find_map(|peer| match peer {
        Peer::IpBlock(block) => Some(block),
        Peer::Pods { .. } | Peer::Nothing => None,
    });
    if let Some(block) = block {
        let message = format!(
            "the port name {} has no number on the addresses of {block}: for them the entry matches nothing",
            name.as_str()
        );
        let hint = "give the number, or select the pods";
        out.say(Code::PortOnBlock, &world.policies[position].source, path, message, hint);
    }
}

/// The sets of pods on which a name is looked up (statements 89, 90, 97).
fn destinations(world: &mut World<'_>, position: usize, direction: Direction, rule: &Rule) -> Vec<SetId> {
    let target = &world.policies[position];
    if direction == Direction::Ingress {
        return vec![target.selected];
    }
    let own = target.policy.key.name.namespace.clone();
    match &rule.peers {
        Peers::All => vec![world.everybody()],
        Peers::OneOf(peers) => peers
            .iter()
            .filter_map(|peer| match peer {
                Peer::Pods { namespaces, pods } => Some(world.peer(&own, namespaces.as_ref(), pods)),
                Peer::IpBlock(_) | Peer::Nothing => None,
            })
            .collect(),
    }
}

fn on_pods(
    world: &mut World<'_>,
    position: usize,
    sets: &[SetId],
    name: &PortName,
    protocol: Protocol,
    path: &str,
    out: &mut Out,
) {
    let found: Vec<Rc<Declared>> = sets.iter().map(|set| world.declared(*set, name)).collect();
    let source = world.policies[position].source.clone();
    // Where nobody is a destination, that has been reported.
    if found.iter().all(|declared| declared.pods == 0) {
        return;
    }
    let shown = name.as_str();
    let numbers: BTreeSet<u16> = found
        .iter()
        .filter_map(|declared| declared.numbers.get(&protocol))
        .flatten()
        .copied()
        .collect();
    if numbers.len() > 1 {
        let message = format!("{shown} is port {} on different pods", hints::some(&numbers));
        let hint = "nothing; each pod is reached on its own number only";
        out.say(Code::PortDiffers, &source, path, message, hint);
    }
    if !numbers.is_empty() {
        return;
    }
    let others: BTreeSet<Protocol> = found.iter().flat_map(|it| it.numbers.keys().copied()).collect();
    if found.iter().any(|declared| declared.init.contains(&protocol)) {
        let message = format!("only init containers that end before the pod runs declare the port {shown}");
        let hint = "declare the name in the container that listens; the entry matches nothing now";
        out.say(Code::PortInitOnly, &source, path, message, hint);
    } else if let Some(other) = others.first() {
        let message = format!("the destination pods declare the port {shown} with {other} and not with {protocol}");
        let hint = format!("write protocol: {other}; the entry matches nothing now");
        out.say(Code::PortOtherProtocol, &source, path, message, hint);
    } else {
        let names: BTreeSet<&str> = found
            .iter()
            .flat_map(|it| it.names.iter().map(String::as_str))
            .collect();
        let near = hints::near_names(shown, names);
        let message = format!("no destination pod declares a port called {shown}{near}");
        let hint = "correct the name, declare it in the pods, or give the number; the entry matches nothing now";
        out.say(Code::PortUndeclared, &source, path, message, hint);
    }
}
