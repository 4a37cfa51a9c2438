//! The JSON of a NetworkPolicy or MultiNetworkPolicy as a [`Policy`], with the defaults and the outcomes of invalid
//! clauses that the specification lists (sections A to G, K, N). Nothing is reported here: only verdicts count.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use ringfence_model::{
    Coverage, IpBlock, NamespacedName, NetworkName, Peer, Peers, Policy, PolicyKey, PolicyKind, PortMatch, PortName,
    PortRange, Ports, Protocol, Requirement, Rule, Selector,
};
use serde_json::Value;

/// A policy from its `spec`. `policy_for` is the annotation, `None` where it is missing.
pub fn policy(kind: PolicyKind, namespace: &str, name: &str, policy_for: Option<&str>, spec: &Value) -> Policy {
    let (ingress, egress) = directions(spec);
    Policy {
        key: PolicyKey {
            kind,
            name: NamespacedName::new(namespace, name),
        },
        coverage: match (policy_for, kind) {
            (Some(list), _) => Coverage::Networks(networks(list, namespace)),
            // 148: without the annotation a MultiNetworkPolicy acts on no network.
            (None, PolicyKind::MultiNetworkPolicy) => Coverage::Networks(BTreeSet::new()),
            (None, PolicyKind::NetworkPolicy | PolicyKind::NamespaceIsolation) => Coverage::Scope,
        },
        target: match field(spec, "podSelector") {
            Some(it) => selector(it),
            None => Some(Selector::everything()),
        },
        ingress: ingress.then(|| rules(spec, "ingress", "from")),
        egress: egress.then(|| rules(spec, "egress", "to")),
    }
}

/// 146, 147, 149. A bare name is a NAD of the policy's namespace and a CNI-Genie plugin (design, section 2).
pub fn networks(list: &str, namespace: &str) -> BTreeSet<NetworkName> {
    let mut out = BTreeSet::new();
    for item in list.split(',').map(str::trim) {
        match item.split('/').collect::<Vec<_>>()[..] {
            [""] => {}
            ["default"] => {
                out.insert(NetworkName::Default);
            }
            [name] => {
                out.insert(NetworkName::Namespaced(NamespacedName::new(namespace, name)));
                out.insert(NetworkName::Plugin(name.into()));
            }
            [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                out.insert(NetworkName::Namespaced(NamespacedName::new(namespace, name)));
            }
            _ => {}
        }
    }
    out
}

/// Missing and `null` are one (225).
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|it| !it.is_null())
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    field(value, name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether ingress and egress are isolated: 23 to 28.
fn directions(spec: &Value) -> (bool, bool) {
    let types = list(spec, "policyTypes");
    if types.is_empty() {
        return (true, !list(spec, "egress").is_empty());
    }
    let ingress = types.iter().any(|it| it == "Ingress");
    let egress = types.iter().any(|it| it == "Egress");
    if ingress || egress {
        (ingress, egress)
    } else {
        (true, true)
    }
}

fn rules(spec: &Value, direction: &str, peers_field: &str) -> Vec<Rule> {
    let types = list(spec, "policyTypes");
    if !types.is_empty() && !types.iter().any(|it| it == "Ingress" || it == "Egress") {
        // 27: no valid type at all is isolation without rules.
        return Vec::new();
    }
    let rule = |it: &Value| Rule {
        peers: match list(it, peers_field) {
            [] => Peers::All,
            peers => Peers::OneOf(peers.iter().map(peer).collect()),
        },
        ports: match list(it, "ports") {
            [] => Ports::All,
            ports => Ports::OneOf(ports.iter().map(port).collect()),
        },
    };
    list(spec, direction).iter().map(rule).collect()
}

fn peer(value: &Value) -> Peer {
    let namespaces = field(value, "namespaceSelector");
    let pods = field(value, "podSelector");
    match (field(value, "ipBlock"), namespaces, pods) {
        (Some(block), None, None) => ip_block(block).map_or(Peer::Nothing, Peer::IpBlock),
        // 37 and 36.
        (Some(_), _, _) | (None, None, None) => Peer::Nothing,
        (None, _, _) => {
            let namespaces = namespaces.map(selector);
            let pods = pods.map_or(Some(Selector::everything()), selector);
            match (namespaces, pods) {
                // 60: an invalid selector makes the peer match nothing.
                (Some(None), _) | (_, None) => Peer::Nothing,
                (Some(Some(namespaces)), Some(pods)) => Peer::Pods {
                    namespaces: Some(namespaces),
                    pods,
                },
                (None, Some(pods)) => Peer::Pods { namespaces: None, pods },
            }
        }
    }
}

/// `None` where it is invalid (59, 223).
fn selector(value: &Value) -> Option<Selector> {
    let mut out = Vec::new();
    if let Some(labels) = field(value, "matchLabels") {
        for (key, wanted) in labels.as_object()? {
            out.push(Requirement::In {
                key: key.as_str().into(),
                values: vec![wanted.as_str()?.into()],
            });
        }
    }
    for expression in list(value, "matchExpressions") {
        let key = field(expression, "key")?.as_str()?;
        let values: BTreeSet<&str> = list(expression, "values")
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()?;
        let none = values.is_empty();
        let key = key.into();
        let values = values.into_iter().map(Into::into).collect();
        out.push(match field(expression, "operator")?.as_str()? {
            "In" if !none => Requirement::In { key, values },
            "NotIn" if !none => Requirement::NotIn { key, values },
            "Exists" if none => Requirement::Exists(key),
            "DoesNotExist" if none => Requirement::DoesNotExist(key),
            _ => return None,
        });
    }
    Some(Selector::new(out))
}

/// `None` where it is invalid (73, 221).
fn ip_block(value: &Value) -> Option<IpBlock> {
    let cidr = cidr(field(value, "cidr")?.as_str()?)?;
    let mut except = Vec::new();
    for hole in list(value, "except") {
        // No statement speaks of an except that is no prefix at all: the block then matches nothing (166).
        let hole = self::cidr(hole.as_str()?)?;
        // 222: another family is ignored.
        if hole.addr().is_ipv4() == cidr.addr().is_ipv4() {
            except.push(hole);
        }
    }
    Some(IpBlock { cidr, except })
}

/// 72: host bits are masked, and octets may have leading zeros, which are still decimal.
fn cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let octets: Vec<&str> = address.split('.').collect();
    let address = if let [a, b, c, d] = octets[..]
        && !address.contains(':')
    {
        IpAddr::V4(Ipv4Addr::new(
            a.parse().ok()?,
            b.parse().ok()?,
            c.parse().ok()?,
            d.parse().ok()?,
        ))
    } else {
        address.parse().ok()?
    };
    // 73.
    if let IpAddr::V6(address) = address
        && address.to_ipv4_mapped().is_some()
    {
        return None;
    }
    Some(IpNet::new(address, length.parse().ok()?).ok()?.trunc())
}

/// 78 to 88, 98, 218 to 220.
fn port(value: &Value) -> PortMatch {
    let protocol = match field(value, "protocol").map(|it| it.as_str()) {
        None | Some(Some("TCP")) => Protocol::Tcp,
        Some(Some("UDP")) => Protocol::Udp,
        Some(Some("SCTP")) => Protocol::Sctp,
        Some(_) => return PortMatch::Nothing,
    };
    let end = field(value, "endPort");
    match field(value, "port") {
        None if end.is_none() => PortMatch::Range(PortRange::whole(protocol)),
        Some(Value::Number(_)) => {
            let first = number(field(value, "port"));
            let last = if end.is_some() { number(end) } else { first };
            match (first, last) {
                (Some(first), Some(last)) if first <= last => PortMatch::Range(PortRange { protocol, first, last }),
                _ => PortMatch::Nothing,
            }
        }
        Some(Value::String(name)) if end.is_none() => match PortName::new(name) {
            Ok(name) => PortMatch::Named { name, protocol },
            Err(_) => PortMatch::Nothing,
        },
        _ => PortMatch::Nothing,
    }
}

fn number(value: Option<&Value>) -> Option<u16> {
    let number = u16::try_from(value?.as_u64()?).ok()?;
    (number > 0).then_some(number)
}
