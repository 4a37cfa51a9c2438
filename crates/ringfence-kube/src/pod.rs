//! Pod: everything that policy needs of it, field by field.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence_model::{Consequence, NamedPort, NamespacedName, Pod, PodUid, PortName, Protocol, Reason};
use serde_json::Value;

use crate::address::pod_address;
use crate::attachments::{self, Given};
use crate::clause::{At, Fields, Findings, given, shown};
use crate::metadata::{Metadata, seconds};

/// On a mirror pod, the hash of the static pod, which is its UID on the node (`kubernetes.io/config.hash`).
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Decodes a pod that has a name. `None` only where no identity can be made for it.
pub(crate) fn decode(
    name: NamespacedName,
    metadata: &Metadata<'_>,
    object: &Fields,
    findings: &mut Findings,
) -> Option<Pod> {
    let uid = uid(&name, metadata, findings)?;
    let spec = part(object, "spec", findings);
    let status = part(object, "status", findings);
    let host_network = spec.is_some_and(|spec| flag(spec.get("hostNetwork")));
    let phase = status.and_then(|status| given(status, "phase")).and_then(Value::as_str);
    let attachments = if host_network {
        // Its interfaces are the node's (statements 21, 49).
        Vec::new()
    } else {
        let addresses = status.map_or_else(Vec::new, |status| addresses(status, "podIP", "podIPs", findings));
        let given = Given::read(&name.namespace, metadata, addresses, findings);
        attachments::attachments(&given, findings)
    };
    let started = status
        .and_then(|status| given(status, "startTime"))
        .and_then(seconds)
        .or_else(|| metadata.created())
        .unwrap_or(0);
    let node = spec
        .and_then(|spec| given(spec, "nodeName"))
        .and_then(Value::as_str)
        .filter(|node| !node.is_empty());
    Some(Pod {
        uid,
        mirror_of: mirror_of(metadata, node, findings),
        node: node.map(Into::into),
        labels: metadata.labels(findings).into_iter().collect(),
        attachments,
        ports: spec.map_or_else(BTreeSet::new, |spec| ports(spec, findings)),
        host_network,
        terminal: matches!(phase, Some("Succeeded" | "Failed")),
        started,
        host_addresses: status.map_or_else(BTreeSet::new, |status| {
            addresses(status, "hostIP", "hostIPs", findings).into_iter().collect()
        }),
        name,
    })
}

/// The UID by which a static pod's runtime knows it. Only the kubelet's own mirror is taken for one: it belongs to the
/// node that it runs on. Who may create pods can imitate that, so whoever uses it needs more than this.
fn mirror_of(metadata: &Metadata<'_>, node: Option<&str>, findings: &mut Findings) -> Option<PodUid> {
    let uid = metadata.annotation(MIRROR, findings)?;
    let uid = PodUid::new(uid).ok()?;
    metadata.belongs_to_node(node?).then_some(uid)
}

fn uid(name: &NamespacedName, metadata: &Metadata<'_>, findings: &mut Findings) -> Option<PodUid> {
    let root = At::root("metadata");
    let at = root.field("uid");
    if let Some(text) = metadata.uid() {
        match PodUid::new(text) {
            Ok(uid) => return Some(uid),
            Err(error) => {
                let message = format!("{error}; the pod goes by its namespace and name");
                findings.error(&at, Reason::Schema, Consequence::PartIgnored, message);
            }
        }
    }
    let own = name.to_string();
    PodUid::new(&own)
        .or_else(|_| PodUid::new(&shortened(&own)))
        .map_or_else(
            |error| {
                let message = format!("the pod has no uid, and none can be made of its name: {error}");
                findings.error(&at, Reason::Schema, Consequence::ObjectIgnored, message);
                None
            },
            Some,
        )
}

/// Namespace and name may have 317 characters together, an identity 128: the rest becomes a hash (FNV-1a, 64 bits).
fn shortened(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let start: String = text.chars().take(100).collect();
    format!("{start}.{hash:016x}")
}

fn part<'a>(object: &'a Fields, name: &str, findings: &mut Findings) -> Option<&'a Fields> {
    match given(object, name)? {
        Value::Object(fields) => Some(fields),
        other => {
            let message = format!("{} instead of an object", shown(other));
            findings.error(&At::root(name), Reason::Schema, Consequence::PartIgnored, message);
            None
        }
    }
}

/// YAML 1.1 writes booleans in many ways, and `hostNetwork: yes` reaches Kubernetes as true.
fn flag(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => ["true", "yes", "on", "y"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word)),
        _ => false,
    }
}

/// `podIP` and `podIPs`, or the same of the host: the single one first, each once.
fn addresses(status: &Fields, single: &str, list: &str, findings: &mut Findings) -> Vec<IpAddr> {
    let root = At::root("status");
    let at = root.field(list);
    let mut found = Vec::new();
    let mut add = |at: &At<'_>, value: &Value| match value.as_str().map(pod_address) {
        Some(Ok(address)) => {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        Some(Err(why)) => {
            let message = format!("{}: {why}", shown(value));
            findings.error(at, Reason::InvalidAddress, Consequence::PartIgnored, message);
        }
        None => {
            let message = format!("{} instead of an address", shown(value));
            findings.error(at, Reason::Schema, Consequence::PartIgnored, message);
        }
    };
    let is_there = |value: &&Value| value.as_str() != Some("");
    if let Some(value) = given(status, single).filter(is_there) {
        add(&root.field(single), value);
    }
    match given(status, list) {
        None => {}
        Some(Value::Array(items)) => {
            for (position, item) in items.iter().enumerate() {
                let at = at.index(position);
                let value = item.get("ip").filter(|value| !value.is_null());
                if let Some(value) = value.filter(is_there) {
                    add(&at.field("ip"), value);
                } else if value.is_none() && !item.is_object() {
                    add(&at, item);
                }
            }
        }
        Some(other) => add(&at, other),
    }
    found
}

/// Named ports of containers and of restartable init containers (statements 92 to 95).
fn ports(spec: &Fields, findings: &mut Findings) -> BTreeSet<NamedPort> {
    let mut found = BTreeSet::new();
    let root = At::root("spec");
    for (list, init) in [("containers", false), ("initContainers", true)] {
        let at = root.field(list);
        let Some(Value::Array(containers)) = given(spec, list) else {
            continue;
        };
        for (position, container) in containers.iter().enumerate() {
            let restarts = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            if init && !restarts {
                continue;
            }
            let at = at.index(position);
            let at = at.field("ports");
            let Some(Value::Array(ports)) = container.get("ports") else {
                continue;
            };
            for (position, port) in ports.iter().enumerate() {
                found.extend(named_port(port, &at.index(position), findings));
            }
        }
    }
    found
}

fn named_port(port: &Value, at: &At<'_>, findings: &mut Findings) -> Option<NamedPort> {
    let name = port.get("name").filter(|name| !name.is_null())?;
    let mut reject = |field: &str, reason: Reason, message: String| {
        findings.error(&at.field(field), reason, Consequence::PartIgnored, message);
    };
    let name = match name.as_str().map(PortName::new) {
        Some(Ok(name)) => name,
        Some(Err(error)) => {
            reject("name", Reason::InvalidPort, error.to_string());
            return None;
        }
        None => {
            reject(
                "name",
                Reason::InvalidPort,
                format!("{} instead of a name", shown(name)),
            );
            return None;
        }
    };
    let number = port.get("containerPort").unwrap_or(&Value::Null);
    let number = match number.as_u64().map(u16::try_from) {
        Some(Ok(number)) if number > 0 => number,
        _ => {
            let message = format!("{} is no port; ports are 1 to 65535", shown(number));
            reject("containerPort", Reason::InvalidPort, message);
            return None;
        }
    };
    let protocol = match port.get("protocol") {
        None | Some(Value::Null) => Protocol::Tcp,
        // The API server fills in TCP for an empty text here, unlike in policies.
        Some(Value::String(text)) if text.is_empty() => Protocol::Tcp,
        Some(other) => {
            let known = Protocol::ALL.into_iter().find(|it| other.as_str() == Some(it.as_str()));
            let Some(known) = known else {
                reject(
                    "protocol",
                    Reason::UnknownProtocol,
                    format!("{} is none of TCP, UDP and SCTP", shown(other)),
                );
                return None;
            };
            known
        }
    };
    Some(NamedPort { name, protocol, number })
}
