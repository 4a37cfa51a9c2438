//! The truth tables: every cell, computed by two independent readings of the specification, against the compiled
//! rulesets and the packet tracer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence_model::{
    Coverage, IpBlock, NamedPort, Namespace, NamespacedName, Object, Peer, Peers, Pod, Policy, PolicyKey, PolicyKind,
    PortMatch, PortName, PortRange, Ports, Protocol, Requirement, Rule, Selector,
};
use ringfence_policy::Index;
use serde_json::Value;

use crate::support::{What, addr, index_with, judge, network, options, pod, uid};

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn pairs(value: &Value) -> impl Iterator<Item = (&str, &str)> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), text(value)))
}

fn protocol(value: &Value) -> Protocol {
    match value.as_str().unwrap_or("TCP") {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        other => panic!("protocol {other}"),
    }
}

fn port_number(value: &Value) -> u16 {
    u16::try_from(value.as_u64().expect("a number")).expect("a port")
}

fn selector(value: &Value) -> Selector {
    let equal = pairs(&value["matchLabels"]).map(|(key, value)| Requirement::In {
        key: key.into(),
        values: vec![value.into()],
    });
    let expressions = list(&value["matchExpressions"]).iter().map(|expression| {
        let key = text(&expression["key"]).into();
        let values: BTreeSet<_> = list(&expression["values"])
            .iter()
            .map(|value| text(value).into())
            .collect();
        let values = values.into_iter().collect();
        match text(&expression["operator"]) {
            "In" => Requirement::In { key, values },
            "NotIn" => Requirement::NotIn { key, values },
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::DoesNotExist(key),
            other => panic!("operator {other}"),
        }
    });
    Selector::new(equal.chain(expressions).collect())
}

fn peer(value: &Value) -> Peer {
    if let Some(block) = value.get("ipBlock") {
        return Peer::IpBlock(IpBlock {
            cidr: text(&block["cidr"]).parse().expect("a CIDR"),
            except: list(&block["except"])
                .iter()
                .map(|value| text(value).parse().expect("a CIDR"))
                .collect(),
        });
    }
    Peer::Pods {
        namespaces: value.get("namespaceSelector").map(selector),
        pods: value.get("podSelector").map(selector).unwrap_or_default(),
    }
}

fn port_match(value: &Value) -> PortMatch {
    let protocol = protocol(&value["protocol"]);
    match &value["port"] {
        Value::Null => PortMatch::Range(PortRange::whole(protocol)),
        Value::String(name) => PortMatch::Named {
            name: PortName::new(name).expect("a port name"),
            protocol,
        },
        number => PortMatch::Range(PortRange {
            protocol,
            first: port_number(number),
            last: port_number(value.get("endPort").unwrap_or(number)),
        }),
    }
}

fn rules(value: &Value, peers: &str) -> Vec<Rule> {
    let rule = |value: &Value| Rule {
        peers: match list(&value[peers]) {
            [] => Peers::All,
            list => Peers::OneOf(list.iter().map(peer).collect()),
        },
        ports: match list(&value["ports"]) {
            [] => Ports::All,
            list => Ports::OneOf(list.iter().map(port_match).collect()),
        },
    };
    list(value).iter().map(rule).collect()
}

fn policy(value: &Value) -> Policy {
    let spec = &value["spec"];
    let types: Vec<&str> = list(&spec["policyTypes"]).iter().map(text).collect();
    let (ingress, egress) = match types.as_slice() {
        [] => (true, !list(&spec["egress"]).is_empty()),
        types => (types.contains(&"Ingress"), types.contains(&"Egress")),
    };
    Policy {
        key: PolicyKey {
            kind: PolicyKind::MultiNetworkPolicy,
            name: NamespacedName::new(text(&value["namespace"]), text(&value["name"])),
        },
        coverage: Coverage::Networks(
            list(&value["networks"])
                .iter()
                .map(|name| network(&full(text(name))))
                .collect(),
        ),
        target: Some(selector(&spec["podSelector"])),
        ingress: ingress.then(|| rules(&spec["ingress"], "from")),
        egress: egress.then(|| rules(&spec["egress"], "to")),
    }
}

fn full(network: &str) -> String {
    format!("default/{network}")
}

fn pod_name(value: &Value) -> String {
    format!("{}/{}", text(&value["namespace"]), text(&value["name"]))
}

fn pod_object(value: &Value) -> Pod {
    let mut built = pod(&pod_name(value), "");
    for (position, (network, address)) in pairs(&value["ips"]).enumerate() {
        built = built.on(&format!("net{}", position + 1), &[&full(network)], &[address]);
    }
    let mut pod = built.0;
    pod.labels = pairs(&value["labels"]).collect();
    pod.ports = list(&value["ports"])
        .iter()
        .map(|port| NamedPort {
            name: PortName::new(text(&port["name"])).expect("a port name"),
            protocol: protocol(&port["protocol"]),
            number: port_number(&port["port"]),
        })
        .collect();
    pod
}

fn objects(scenario: &Value) -> Vec<Object> {
    let namespaces = scenario["namespaces"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, labels)| {
            Object::Namespace(Namespace {
                name: name.as_str().into(),
                labels: pairs(labels).collect(),
                terminating: false,
                isolate_ingress: false,
            })
        });
    let pods = list(&scenario["pods"])
        .iter()
        .map(|value| Object::Pod(pod_object(value)));
    let policies = list(&scenario["policies"])
        .iter()
        .map(|value| Object::Policy(policy(value)));
    namespaces.chain(pods).chain(policies).collect()
}

/// Address and interface of a pod on a network.
fn place(pod: &Value, network: &str) -> Option<(IpAddr, String)> {
    let position = pairs(&pod["ips"]).position(|(name, _)| name == network)?;
    Some((addr(text(&pod["ips"][network])), format!("net{}", position + 1)))
}

/// Judges every cell and returns how many there were.
fn check_scenario(scenario: &Value) -> usize {
    let name = text(&scenario["name"]);
    let index: Index = index_with(options(), objects(scenario));
    let pods = list(&scenario["pods"]);
    let mut cells = 0;
    for query in list(&scenario["queries"]) {
        let network = text(&query["network"]);
        let what = What::Port(protocol(&query["protocol"]), port_number(&query["port"]));
        for from in pods {
            let row: Vec<&str> = query["matrix"][pod_name(from)]
                .as_str()
                .expect("a row")
                .split(' ')
                .collect();
            assert_eq!(row.len(), pods.len(), "{name}");
            for (to, expected) in pods.iter().zip(row) {
                cells += 1;
                let found = match (place(from, network), place(to, network)) {
                    (Some(_), Some(_)) if pod_name(from) == pod_name(to) => "aa".to_owned(),
                    (Some((source, leaves)), Some((destination, arrives))) => {
                        let word = |allowed| if allowed { 'a' } else { 'd' };
                        let sender = index.ruleset(&uid(&pod_name(from)));
                        let receiver = index.ruleset(&uid(&pod_name(to)));
                        let egress = judge(sender, &leaves, true, source, destination, what);
                        let ingress = judge(receiver, &arrives, false, source, destination, what);
                        [word(egress), word(ingress)].iter().collect()
                    }
                    _ => "..".to_owned(),
                };
                assert_eq!(
                    found,
                    expected,
                    "{name}: {} to {} on {network} {what:?}",
                    pod_name(from),
                    pod_name(to)
                );
            }
        }
    }
    cells
}

/// Every table in the folder, so that another one of this form needs only to be put there.
#[test]
fn every_cell_of_every_table() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let mut cells = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the folder of fixtures") {
        let path = entry.expect("an entry").path();
        let table = std::fs::read_to_string(&path).expect("a table");
        let count: usize = table
            .lines()
            .map(|line| check_scenario(&serde_json::from_str(line).expect("a scenario")))
            .sum();
        cells.insert(path.file_name().expect("a name").to_string_lossy().into_owned(), count);
    }
    // So that a file that was cut short does not pass.
    assert_eq!(cells.get("random.jsonl"), Some(&219_834), "{cells:?}");
}
