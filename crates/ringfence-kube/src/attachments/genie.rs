//! CNI-Genie: the request (`cni`, `networks`) and its result (`multi-ip-preferences`).
//!
//! The result records addresses and interfaces, but no network. `ipN` is a running count that shifts when a plugin
//! gives no address, so it names nothing. The interface names, however, follow from the request by rule; so the
//! names are worked out again and both are joined on the interface.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_model::{Consequence, InterfaceName, NamespacedName, NetworkName, Reason};
use serde_json::Value;

use super::{Entry, Given, MOST, Network, address, any_case, interface, text_field, too_many, valid_network};
use crate::address::pod_address;
use crate::clause::{At, Findings, quoted, shown};

/// Requests plugins by the names of their configuration files.
pub(super) const CNI: &str = "cni";
/// Requests LogicalNetworks of the pod's namespace; counts where `cni` is there and blank.
pub(super) const NETWORKS: &str = "networks";
/// The result.
pub(super) const RESULT: &str = "multi-ip-preferences";

/// The interfaces that the request leads to, with their networks. `None` where there is no request that names
/// anything: the node's default plugins or the "smart" choice are then used, which nothing in the API shows.
pub(super) fn requested(given: &Given<'_>, findings: &mut Findings) -> Option<BTreeMap<InterfaceName, Network>> {
    let cni = given.cni?;
    let (key, text) = if !cni.trim().is_empty() {
        (CNI, cni)
    } else if let Some(networks) = given.networks.filter(|text| !text.trim().is_empty()) {
        (NETWORKS, networks)
    } else {
        return None;
    };
    let root = At::root("metadata");
    let at = root.field("annotations");
    let at = at.key(key);
    if key == NETWORKS && text.trim_start().starts_with(['{', '[']) {
        let message = format!(
            "{}: this is no list of names (Knitter uses the same annotation)",
            quoted(text)
        );
        findings.error(&at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
        return None;
    }
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    too_many(items.len(), &at, findings);
    let items = items
        .into_iter()
        .take(MOST)
        .filter_map(|item| parse(item, key, given.namespace, &at, findings));
    Some(assign(items.collect(), &at, findings))
}

struct Requested {
    network: Network,
    /// Given by the user after `@`, or `:` in older versions.
    explicit: Option<InterfaceName>,
}

/// One item. An item whose network cannot be read still takes its interface, so that the others keep theirs.
fn parse(item: &str, key: &str, namespace: &str, at: &At<'_>, findings: &mut Findings) -> Option<Requested> {
    if item.is_empty() {
        let message = "an item of the list is empty; CNI-Genie refuses such a pod".to_owned();
        findings.warn(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
        return None;
    }
    let (name, explicit) = match item.split_once(['@', ':']) {
        Some((name, explicit)) => (name.trim(), Some(explicit)),
        None => (item, None),
    };
    let network = match valid_network(name) {
        Ok(name) if key == CNI => Network::Is(NetworkName::Plugin(name.into())),
        Ok(name) => Network::Is(NetworkName::Namespaced(NamespacedName::new(namespace, name))),
        Err(why) => {
            let message = format!("{}: {why}", quoted(name));
            findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
            Network::Unknown
        }
    };
    let explicit = match explicit {
        None => None,
        Some(text) => Some(interface(text, at, findings)?),
    };
    Some(Requested { network, explicit })
}

/// Explicit names win; everybody else takes the next `eth<k>` that nobody has asked for.
fn assign(items: Vec<Requested>, at: &At<'_>, findings: &mut Findings) -> BTreeMap<InterfaceName, Network> {
    let reserved: BTreeSet<InterfaceName> = items.iter().filter_map(|item| item.explicit.clone()).collect();
    let mut free = (0..2 * MOST)
        .filter_map(|number| InterfaceName::new(&format!("eth{number}")).ok())
        .filter(|name| !reserved.contains(name));
    let mut assigned = BTreeMap::new();
    for item in items {
        let Some(name) = item.explicit.or_else(|| free.next()) else {
            break;
        };
        let same = assigned.get(&name).is_none_or(|network| *network == item.network);
        if same {
            assigned.insert(name, item.network);
        } else {
            let message = format!("two networks are requested for the interface {name}; its network is unknown");
            findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
            assigned.insert(name, Network::Unknown);
        }
    }
    assigned
}

/// The entries of the result, in the order of their numbers, without their networks.
pub(super) fn described(given: &Given<'_>, findings: &mut Findings) -> Vec<Entry> {
    let Some(text) = given.multi_ip.filter(|text| !text.trim().is_empty()) else {
        return Vec::new();
    };
    let root = At::root("metadata");
    let at = root.field("annotations");
    let at = at.key(RESULT);
    let mut reject = |at: &At<'_>, message: String| {
        findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
    };
    let fields = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => {
            reject(&at, format!("{} instead of an object with \"ips\"", shown(&other)));
            return Vec::new();
        }
        Err(error) => {
            reject(&at, format!("{} is no JSON ({error})", quoted(text)));
            return Vec::new();
        }
    };
    let at = at.field("ips");
    let ips = match any_case(&fields, "ips") {
        None => return Vec::new(),
        Some(Value::Object(ips)) => ips,
        Some(other) => {
            reject(&at, format!("{} instead of an object of entries", shown(other)));
            return Vec::new();
        }
    };
    // Go writes the keys in byte order, ip10 before ip2.
    let mut ordered: Vec<(&String, &Value)> = ips.iter().filter(|(key, _)| !key.is_empty()).collect();
    ordered.sort_by_key(|(key, _)| (number(key), *key));
    too_many(ordered.len(), &at, findings);
    ordered
        .into_iter()
        .take(MOST)
        .filter_map(|(key, value)| entry(value, &at.field(key), given, findings))
        .collect()
}

/// N of `ipN`; other keys come after all of them.
fn number(key: &str) -> u64 {
    key.strip_prefix("ip")
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(u64::MAX)
}

fn entry(value: &Value, at: &At<'_>, given: &Given<'_>, findings: &mut Findings) -> Option<Entry> {
    let fields = match value {
        Value::Null => return None,
        // A dialect that no version of CNI-Genie has written: only the address.
        Value::String(text) => return without_interface(text, at, given, findings),
        Value::Object(fields) => fields,
        other => {
            let message = format!("{} instead of an object with \"ip\" and \"interface\"", shown(other));
            findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
            return None;
        }
    };
    let mut text = |name: &str| text_field(fields, name, at, findings);
    let (ip, name) = (text("ip"), text("interface"));
    if ip.is_empty() && name.is_empty() {
        // What the template leaves behind.
        return None;
    }
    if name.is_empty() {
        return without_interface(ip, at, given, findings);
    }
    // An untagged development version wrote the two fields the wrong way round.
    let (ip, name) = if pod_address(name).is_ok() && pod_address(ip).is_err() {
        (name, ip)
    } else {
        (ip, name)
    };
    let interface = interface(name, &at.field("interface"), findings)?;
    let address = if ip.is_empty() {
        None
    } else {
        address(ip, &at.field("ip"), findings)
    };
    Some(Entry {
        interface: Some(interface),
        addresses: address.into_iter().collect(),
        ..Entry::default()
    })
}

/// Without an interface an entry cannot be joined to a network, unless its address is the pod's.
fn without_interface(ip: &str, at: &At<'_>, given: &Given<'_>, findings: &mut Findings) -> Option<Entry> {
    let address = address(ip, at, findings)?;
    if given.addresses.contains(&address) {
        return Some(Entry {
            addresses: [address].into(),
            ..Entry::default()
        });
    }
    let message = format!("{address} has no interface, so its network is unknown");
    findings.error(at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
    None
}

/// Names the described entries by their interfaces. Requested interfaces that the result does not hold (yet) are
/// attachments as well: they must be closed before they are described (statement 168).
pub(super) fn join(described: Vec<Entry>, mut requested: BTreeMap<InterfaceName, Network>) -> Vec<Entry> {
    // Of a single network CNI-Genie leaves no result; it is then the pod's only one, whatever its interface.
    let only =
        described.is_empty() && requested.len() == 1 && requested.values().all(|network| *network != Network::Unknown);
    let mut seen = BTreeSet::new();
    let mut entries: Vec<Entry> = described
        .into_iter()
        .map(|mut entry| {
            if let Some((name, network)) = entry.interface.as_ref().and_then(|name| requested.get_key_value(name)) {
                seen.insert(name.clone());
                entry.network = network.clone();
            }
            entry
        })
        .collect();
    requested.retain(|name, _| !seen.contains(name));
    entries.extend(requested.into_iter().map(|(name, network)| Entry {
        interface: Some(name),
        network,
        flagged: only,
        ..Entry::default()
    }));
    entries
}
