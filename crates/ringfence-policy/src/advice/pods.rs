//! Pods and their interfaces (RF501, RF503 to RF505, and addresses that two pods claim).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringfence_model::{Attachment, InterfaceName, NetworkName, Note, Pod, Scope, Source};

use super::world::World;
use super::{Code, Out, SharedAddress, hints};

/// CNI plugins that hand an interface to a program of user space.
const USERSPACE_PLUGINS: [&str; 4] = ["userspace", "vhostuser", "vhost-user", "dpdk"];

pub(super) fn look(world: &mut World<'_>, out: &mut Out) {
    for (number, (pod, notes)) in world.pods.iter().enumerate() {
        if world.bundles_of[number].is_empty() {
            continue;
        }
        let source = source(pod);
        let covered = pod.attachments.iter().filter(|it| is_isolated(world, number, it));
        for attachment in covered {
            let shown = shown(attachment);
            if let Some((path, device)) = user_space(world, attachment, notes) {
                let message =
                    format!("{shown} is served by {device} in user space, where no kernel rule sees a packet");
                let hint = "guard that network elsewhere; the policies that select the pod do nothing there";
                out.say(Code::Userspace, &source, path, message, hint);
                continue;
            }
            // A pod that has no address anywhere has not started, and nothing is missing yet.
            if !has_started(pod) {
                continue;
            }
            if attachment.interface.is_none() {
                let message = format!("no annotation names {shown}, and a policy isolates it");
                let hint = "have the CNI plugin report the interface; until then it is closed like every unknown one";
                out.say(Code::UnnamedInterface, &source, "", message, hint);
            } else if attachment.addresses.is_empty() {
                let message =
                    format!("{shown} has no known address, so no selector of other pods' policies matches it");
                let hint = "nothing, if its addresses are not managed; peers are allowed by ipBlock then";
                out.say(Code::NoAddress, &source, "", message, hint);
            }
        }
    }
    if matches!(world.scope, Scope::Secondary | Scope::All) {
        for namespace in world.namespaces.iter().filter(|namespace| namespace.isolate_ingress) {
            let source = Source {
                kind: "Namespace".into(),
                name: namespace.name.clone(),
            };
            let message = "the beta annotation isolates the ingress of every pod of the namespace".to_owned();
            let hint = "nothing, if it is meant; NetworkPolicies say the same in today's words";
            let path = "metadata.annotations[net.beta.kubernetes.io/network-policy]";
            out.say(Code::NamespaceIsolation, &source, path, message, hint);
        }
    }
}

fn source(pod: &Pod) -> Source {
    Source {
        kind: "Pod".into(),
        name: pod.name.to_string().into(),
    }
}

fn has_started(pod: &Pod) -> bool {
    pod.attachments
        .iter()
        .any(|attachment| !attachment.addresses.is_empty())
}

fn is_isolated(world: &World<'_>, pod: usize, attachment: &Attachment) -> bool {
    world.bundles_of[pod].iter().any(|&id| {
        // The policies of a bundle cover the same attachments.
        let first = world.bundle_at(id).policies.first();
        first.is_some_and(|&position| world.covers(world.policies[position].policy, attachment))
    })
}

/// `net1 (network x/blue)`
fn shown(attachment: &Attachment) -> String {
    let network = attachment.network().map_or_else(String::new, ToString::to_string);
    match &attachment.interface {
        Some(interface) => format!("{interface} (network {network})"),
        None => format!("the interface on network {network}"),
    }
}

/// Where it says so, and what serves the interface.
fn user_space(world: &World<'_>, attachment: &Attachment, notes: &[Note]) -> Option<(&'static str, String)> {
    let interface = attachment.interface.as_ref().map_or("", InterfaceName::as_str);
    let device = notes.iter().find_map(|note| match note {
        Note::UserspaceInterface {
            interface: name,
            network,
            device,
        } => {
            let same = if name.is_empty() {
                attachment.networks.iter().any(|it| it.to_string() == **network)
            } else {
                **name == *interface
            };
            same.then(|| device.to_string())
        }
        _ => None,
    });
    if let Some(device) = device {
        return Some(("metadata.annotations[k8s.v1.cni.cncf.io/network-status]", device));
    }
    let mut plugins = attachment.networks.iter().filter_map(|network| match network {
        NetworkName::Namespaced(name) => world.networks.get(name).map(|it| &it.plugins),
        NetworkName::Default | NetworkName::Plugin(_) | NetworkName::Interface(_) => None,
    });
    plugins.find_map(|plugins| {
        let found = plugins.iter().find(|plugin| USERSPACE_PLUGINS.contains(&&***plugin))?;
        Some(("", format!("the plugin {found}")))
    })
}

/// Addresses on one network that several pods claim. Of them the one that started last has the address (statement 134).
pub(super) fn shared_addresses(world: &World<'_>) -> Vec<SharedAddress> {
    let mut claims: BTreeMap<(&NetworkName, IpAddr), Vec<usize>> = BTreeMap::new();
    for (number, (pod, _)) in world.pods.iter().enumerate().filter(|(_, (pod, _))| pod.takes_part()) {
        for attachment in &pod.attachments {
            for network in &attachment.networks {
                for &address in &attachment.addresses {
                    let pods = claims.entry((network, address)).or_default();
                    if pods.last() != Some(&number) {
                        pods.push(number);
                    }
                }
            }
        }
    }
    // The primary interface is on two networks, and what is shared on both is one finding.
    let mut networks: BTreeMap<(usize, usize, IpAddr), Vec<&NetworkName>> = BTreeMap::new();
    for ((network, address), pods) in claims {
        let age = |pod: &&usize| (world.pods[**pod].0.started, &world.pods[**pod].0.uid);
        let Some(&owner) = pods.iter().max_by_key(age).filter(|_| pods.len() > 1) else {
            continue;
        };
        for &other in pods.iter().filter(|pod| **pod != owner) {
            networks.entry((other, owner, address)).or_default().push(network);
        }
    }
    let found = networks
        .into_iter()
        .map(|((other, owner, address), networks)| SharedAddress {
            source: source(world.pods[other].0),
            message: format!(
                "{address} on network {} is claimed by pod {} too, which is newer: this pod has no rights by it",
                hints::some(networks),
                world.pod_name(owner)
            ),
        });
    found.collect()
}
