//! The Network Plumbing Working Group's annotations: the request (`k8s.v1.cni.cncf.io/networks`) and the result
//! (`network-status`, before Multus 4 also or only `networks-status`).

use std::net::IpAddr;

use ringfence_model::{Consequence, InterfaceName, NamespacedName, NetworkName, Reason};
use serde_json::Value;

use super::{Entry, Given, MOST, Network, address, any_case, interface, text_field, too_many, valid_network};
use crate::clause::{At, Findings, quoted, shown};

/// The request.
pub(super) const REQUEST: &str = "k8s.v1.cni.cncf.io/networks";
/// The result.
pub(super) const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
/// The result of Multus 3.
pub(super) const OLD_STATUS: &str = "k8s.v1.cni.cncf.io/networks-status";

/// The described interfaces, and those that are requested and not described yet (statement 168).
pub(super) fn entries(given: &Given<'_>, findings: &mut Findings) -> Vec<Entry> {
    let mut entries = described(given, findings);
    let requested = requested(given, findings);
    let mut matched = vec![false; entries.len()];
    // By interface first: it is exact. By name afterwards, each entry once, because one network may be requested
    // several times and automatic names differ between implementations.
    let mut open = Vec::new();
    for item in requested {
        let same = |entry: &Entry| entry.interface.is_some() && entry.interface == item.interface;
        match entries.iter().position(same) {
            Some(position) => {
                matched[position] = true;
                adopt_name(&mut entries[position], &item);
            }
            None => open.push(item),
        }
    }
    for item in open {
        let free = |position: usize, entry: &Entry| position < matched.len() && !matched[position] && !entry.flagged;
        let find = |same: &dyn Fn(&Entry) -> bool| {
            let mut positions = entries.iter().enumerate();
            positions
                .find(|(position, entry)| free(*position, entry) && same(entry))
                .map(|(position, _)| position)
        };
        let found = find(&|entry| full(&entry.network, given.namespace) == item.network)
            .or_else(|| find(&|entry| means(&entry.network, &item.network)))
            .filter(|_| item.network != Network::Unknown);
        match found {
            Some(position) => {
                matched[position] = true;
                let entry = &mut entries[position];
                adopt_name(entry, &item);
                if entry.interface.is_none() {
                    entry.interface = item.interface;
                }
            }
            None => entries.push(item),
        }
    }
    entries
}

/// A bare name as the definition of the pod's namespace, which is what it means when nobody says more.
fn full(network: &Network, namespace: &str) -> Network {
    match network {
        Network::Bare(name) => Network::Is(NetworkName::Namespaced(NamespacedName::new(namespace, name.clone()))),
        other => other.clone(),
    }
}

/// Whether a bare name may stand for a requested network: CNI-Genie leaves the namespace out of the result.
fn means(described: &Network, requested: &Network) -> bool {
    match (described, requested) {
        (Network::Bare(bare), Network::Is(NetworkName::Namespaced(requested))) => *bare == requested.name,
        _ => false,
    }
}

fn adopt_name(entry: &mut Entry, requested: &Entry) {
    if !entry.flagged && means(&entry.network, &requested.network) {
        entry.network = requested.network.clone();
    }
}

fn described(given: &Given<'_>, findings: &mut Findings) -> Vec<Entry> {
    let root = At::root("metadata");
    let annotations = root.field("annotations");
    let (key, text) = match (given.status, given.old_status) {
        (Some(new), old) => {
            if old.is_some_and(|old| old.trim() != new.trim()) {
                let message = format!("differs from {STATUS}, which counts");
                let at = annotations.key(OLD_STATUS);
                findings.warn(&at, Reason::StaleAnnotation, Consequence::PartIgnored, message);
            }
            (STATUS, new)
        }
        (None, Some(old)) => (OLD_STATUS, old),
        (None, None) => return Vec::new(),
    };
    if text.trim().is_empty() {
        // Multus clears it when it takes the pod's networks down.
        return Vec::new();
    }
    let at = annotations.key(key);
    let mut reject = |message: String| {
        findings.error(&at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
        Vec::new()
    };
    let items = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(items)) => items,
        Ok(Value::Null) => return Vec::new(),
        Ok(other) => return reject(format!("{} instead of a list of networks", shown(&other))),
        Err(error) => return reject(format!("{} is no JSON ({error})", quoted(text))),
    };
    too_many(items.len(), &at, findings);
    items
        .iter()
        .take(MOST)
        .enumerate()
        .filter_map(|(position, item)| entry(item, &at.index(position), findings))
        .collect()
}

fn entry(value: &Value, at: &At<'_>, findings: &mut Findings) -> Option<Entry> {
    let Value::Object(fields) = value else {
        let message = format!("{} instead of an object that describes a network", shown(value));
        findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
        return None;
    };
    let mut text = |name: &str| text_field(fields, name, at, findings);
    let (name, interface_name) = (text("name"), text("interface"));
    let network = network(name, &at.field("name"), findings);
    let interface_at = at.field("interface");
    let interface = if interface_name.is_empty() {
        None
    } else {
        interface(interface_name, &interface_at, findings)
    };
    let flagged = any_case(fields, "default").and_then(Value::as_bool).unwrap_or(false);
    let addresses: Vec<IpAddr> = ips(any_case(fields, "ips"), &at.field("ips"), findings);
    if network == Network::Unknown && interface.is_none() && !flagged {
        let message = "the entry has neither a network nor an interface, so it describes nothing".to_owned();
        findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
    }
    Some(Entry {
        interface,
        network,
        flagged,
        addresses: addresses.into_iter().collect(),
    })
}

fn ips(value: Option<&Value>, at: &At<'_>, findings: &mut Findings) -> Vec<IpAddr> {
    let items = match value {
        None => return Vec::new(),
        Some(Value::Array(items)) => items.as_slice(),
        Some(single) => std::slice::from_ref(single),
    };
    too_many(items.len(), at, findings);
    let mut found = Vec::new();
    for (position, item) in items.iter().take(MOST).enumerate() {
        let at = at.index(position);
        match item {
            Value::String(text) if text.trim().is_empty() => {}
            Value::String(text) => found.extend(address(text, &at, findings)),
            other => {
                let message = format!("{} instead of an address", shown(other));
                findings.error(&at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
            }
        }
    }
    found
}

fn network(name: &str, at: &At<'_>, findings: &mut Findings) -> Network {
    let parsed = match name.split_once('/') {
        _ if name.is_empty() => return Network::Unknown,
        None => valid_network(name).map(|name| Network::Bare(name.into())),
        Some((namespace, name)) => valid_network(namespace).and_then(|namespace| {
            valid_network(name).map(|name| Network::Is(NetworkName::Namespaced(NamespacedName::new(namespace, name))))
        }),
    };
    parsed.unwrap_or_else(|why| {
        let message = format!("{}: {why}; the network is known by its interface only", quoted(name));
        findings.error(at, Reason::InvalidNetworkName, Consequence::PartIgnored, message);
        Network::Unknown
    })
}

/// The requested networks with the interfaces that they will get: as asked for, else `net1`, `net2` … by position.
fn requested(given: &Given<'_>, findings: &mut Findings) -> Vec<Entry> {
    let Some(text) = given.request.map(str::trim).filter(|text| !text.is_empty()) else {
        return Vec::new();
    };
    let root = At::root("metadata");
    let at = root.field("annotations");
    let at = at.key(REQUEST);
    if text.contains(['[', '{', '"']) {
        return requested_json(text, given.namespace, &at, findings);
    }
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    too_many(items.len(), &at, findings);
    let mut entries = Vec::new();
    for (position, item) in items.into_iter().take(MOST).enumerate() {
        let (name, explicit) = match item.split_once('@') {
            // The name of an interface may hold a second '@', but no implementation reads it so.
            Some((_, explicit)) if explicit.contains('@') => {
                let message = format!("{} has more than one '@'", quoted(item));
                findings.error(&at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
                continue;
            }
            Some((name, explicit)) => (name.trim(), Some(explicit)),
            None => (item, None),
        };
        entries.extend(wanted(name, explicit, position, given.namespace, &at, findings));
    }
    entries
}

fn requested_json(text: &str, namespace: &str, at: &At<'_>, findings: &mut Findings) -> Vec<Entry> {
    let mut reject = |at: &At<'_>, message: String| {
        findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
    };
    let items = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(items)) => items,
        Ok(other) => {
            reject(at, format!("{} instead of a list of networks", shown(&other)));
            return Vec::new();
        }
        Err(error) => {
            reject(at, format!("{} is no JSON ({error})", quoted(text)));
            return Vec::new();
        }
    };
    too_many(items.len(), at, findings);
    let mut entries = Vec::new();
    for (position, item) in items.iter().take(MOST).enumerate() {
        let at = at.index(position);
        let Value::Object(fields) = item else {
            let message = format!("{} instead of an object with a name", shown(item));
            findings.error(&at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
            continue;
        };
        let text = |name: &str| {
            any_case(fields, name)
                .and_then(Value::as_str)
                .map(str::trim)
                .filter(|it| !it.is_empty())
        };
        let namespace = text("namespace").unwrap_or(namespace);
        let explicit = text("interface").or_else(|| text("interfaceRequest"));
        entries.extend(wanted(
            text("name").unwrap_or(""),
            explicit,
            position,
            namespace,
            &at,
            findings,
        ));
    }
    entries
}

/// One requested network. A request that cannot be read is still an interface that will appear.
fn wanted(
    name: &str,
    explicit: Option<&str>,
    position: usize,
    namespace: &str,
    at: &At<'_>,
    findings: &mut Findings,
) -> Option<Entry> {
    let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
    let parsed = valid_network(namespace).and_then(|namespace| valid_network(name).map(|name| (namespace, name)));
    let network = match parsed {
        Ok((namespace, name)) => Network::Is(NetworkName::Namespaced(NamespacedName::new(namespace, name))),
        Err(why) => {
            let message = format!("the requested network {}: {why}", quoted(name));
            findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
            Network::Unknown
        }
    };
    let interface = match explicit {
        Some(text) => interface(text, at, findings)?,
        // The cluster network counts as number 0.
        None => InterfaceName::new(&format!("net{}", position + 1)).ok()?,
    };
    Some(Entry {
        interface: Some(interface),
        network,
        ..Entry::default()
    })
}
