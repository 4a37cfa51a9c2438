//! Which networks a policy acts on (RF111 to RF117).

use std::collections::BTreeSet;

use ringfence_model::{Coverage, NamespacedName, NetworkName, PolicyKind, Scope};

use super::world::World;
use super::{Code, Out, hints};

const PATH: &str = "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]";

/// An item of policy-for as it was written.
enum Item<'a> {
    /// `namespace/name`
    Full(&'a NamespacedName),
    /// `name`: decoding makes two networks of it, a definition of the policy's namespace and a plugin.
    Bare(&'a NamespacedName),
    /// `default`, `interface:…`: nothing defines them.
    Plain(&'a NetworkName),
}

pub(super) fn look(world: &mut World<'_>, position: usize, out: &mut Out) {
    let target = &world.policies[position];
    let (policy, source) = (target.policy, &target.source);
    let standard = policy.key.kind == PolicyKind::NetworkPolicy;
    match &policy.coverage {
        Coverage::Scope if standard && matches!(world.scope, Scope::Annotated | Scope::None) => {
            let message = "the scope leaves NetworkPolicies without policy-for to the cluster's own engine".to_owned();
            let hint = "add the annotation k8s.v1.cni.cncf.io/policy-for if it is meant for other networks";
            out.say(Code::LeftToCluster, source, "", message, hint);
        }
        Coverage::Scope => {}
        Coverage::Networks(_) if standard && world.scope == Scope::None => {
            let message = "the scope none leaves every NetworkPolicy alone, also those with policy-for".to_owned();
            let hint = "use the scope annotated, or make a MultiNetworkPolicy of it";
            out.say(Code::PolicyForUnused, source, PATH, message, hint);
        }
        Coverage::Networks(networks) => {
            let mut met = false;
            for item in items(&policy.key.name.namespace, networks) {
                met |= look_at_item(world, position, &item, out);
            }
            if met {
                attached(world, position, networks, out);
            }
        }
    }
}

fn items<'a>(own: &str, networks: &'a BTreeSet<NetworkName>) -> Vec<Item<'a>> {
    let plugin = |name: &NamespacedName| NetworkName::Plugin(name.name.clone());
    networks
        .iter()
        .filter_map(|network| match network {
            NetworkName::Namespaced(name) if *name.namespace == *own && networks.contains(&plugin(name)) => {
                Some(Item::Bare(name))
            }
            NetworkName::Namespaced(name) => Some(Item::Full(name)),
            // Its other half stands for it.
            NetworkName::Plugin(_) => None,
            NetworkName::Default | NetworkName::Interface(_) => Some(Item::Plain(network)),
        })
        .collect()
}

/// Returns whether a pod is on the network.
fn look_at_item(world: &World<'_>, position: usize, item: &Item<'_>, out: &mut Out) -> bool {
    let source = &world.policies[position].source;
    let has = |network: &NetworkName| world.attached.contains_key(network);
    let (name, bare) = match item {
        Item::Plain(network) => {
            let met = has(network);
            if !met && !world.pods.is_empty() {
                let message = format!("no pod in these manifests has {network}");
                let hint = "correct the name, or remove it from the list";
                out.say(Code::UnknownNetwork, source, PATH, message, hint);
            }
            return met;
        }
        Item::Full(name) => (*name, false),
        Item::Bare(name) => (*name, true),
    };
    let defined = world.networks.contains_key(name);
    if has(&NetworkName::Namespaced(name.clone())) {
        // Where no definition is given, none is expected.
        if !defined && !world.networks.is_empty() {
            let message = format!("pods are on network {name}, and these manifests do not define it");
            let hint = "add its NetworkAttachmentDefinition to see what is known of its plugins and addresses";
            out.say(Code::NetworkUndefined, source, PATH, message, hint);
        }
        return true;
    }
    if bare && has(&NetworkName::Plugin(name.name.clone())) {
        return true;
    }
    if defined {
        if !world.pods.is_empty() {
            let message = format!("network {name} is defined, and no pod in these manifests is on it");
            let hint = "nothing, if pods will follow; else attach the pods or correct the name";
            out.say(Code::NetworkUnused, source, PATH, message, hint);
        }
        return false;
    }
    if bare {
        let elsewhere = of_other_namespaces(world, &name.name);
        if !elsewhere.is_empty() {
            let message = format!(
                "{0} means {name} or the plugin {0}, and no pod has either; there is {1}",
                name.name,
                hints::some(&elsewhere)
            );
            let hint = format!("write {}", elsewhere[0]);
            out.say(Code::NetworkElsewhere, source, PATH, message, hint);
            return false;
        }
    }
    if world.pods.is_empty() && world.networks.is_empty() {
        return false;
    }
    let known = known_names(world);
    let wanted = if bare { name.name.to_string() } else { name.to_string() };
    let message = format!("no pod is on network {wanted}, and nothing defines it");
    let near = hints::near_names(&name.to_string(), known.iter().map(String::as_str));
    let hint = format!("correct the name, or add the definition{near}");
    out.say(Code::UnknownNetwork, source, PATH, message, hint);
    false
}

/// Networks of this name in other namespaces.
fn of_other_namespaces(world: &World<'_>, name: &str) -> Vec<String> {
    let attached = world.attached.keys().filter_map(|network| match network {
        NetworkName::Namespaced(full) => Some(full),
        _ => None,
    });
    let all: BTreeSet<&NamespacedName> = world.networks.keys().copied().chain(attached).collect();
    let same = all.into_iter().filter(|full| *full.name == *name);
    same.map(ToString::to_string).collect()
}

fn known_names(world: &World<'_>) -> BTreeSet<String> {
    let defined = world.networks.keys().map(ToString::to_string);
    defined.chain(world.attached.keys().map(ToString::to_string)).collect()
}

/// Says when none of the selected pods is on a listed network although others are (statement 152).
fn attached(world: &World<'_>, position: usize, networks: &BTreeSet<NetworkName>, out: &mut Out) {
    let target = &world.policies[position];
    let selected = world.set(target.selected);
    let mut taking_part = selected
        .iter()
        .filter(|&&pod| world.pods[pod].0.takes_part())
        .peekable();
    if taking_part.peek().is_none() || !world.bundle_of(position).pods.is_empty() {
        return;
    }
    let pods = hints::some(taking_part.map(|&pod| world.pod_name(pod)));
    let message = format!(
        "none of the pods that it selects ({pods}) is on {}",
        hints::some(networks.iter().filter(|network| world.attached.contains_key(network)))
    );
    let hint = "attach the pods to the network, or select those that are on it; the policy protects nothing now";
    out.say(Code::NotAttached, &target.source, PATH, message, hint);
}
