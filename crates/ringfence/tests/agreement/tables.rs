//! The truth tables through the program's own decoders, in both dialects: as manifests, decoded, judged by the oracle
//! and, compiled, by the tracer at both ends of every connection.
//!
//! `RINGFENCE_TRUTH_TABLES=/a.jsonl:/b.jsonl` adds tables of the same form.

use std::collections::BTreeMap;

use ringfence_kube::decode_value;
use ringfence_model::{Direction, InterfaceName, NamespacedName, NetworkName, Object, Protocol, Scope};
use ringfence_policy::evaluate::{Decision as Word, L4, Universe, reach};
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::{Decision, KernelFeatures, Tracer};
use ringfence_testkit::Dialect;
use serde_json::{Map, Value, json};

use crate::packets::{Kind, Talk, packet, way};

const RANDOM: &str = include_str!("../../../ringfence-policy/tests/fixtures/random.jsonl");

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

/// A network of the table as policies name it.
fn policy_for(dialect: Dialect, network: &str) -> String {
    match dialect {
        Dialect::Genie => network.to_owned(),
        _ => format!("default/{network}"),
    }
}

fn network_name(dialect: Dialect, network: &str) -> NetworkName {
    match dialect {
        Dialect::Genie => NetworkName::Plugin(network.into()),
        _ => NetworkName::Namespaced(NamespacedName::new("default", network)),
    }
}

/// A pod as the kubelet and the multi-network plugin leave it. CNI-Genie's first plugin makes the primary interface;
/// it writes its annotation for more than one network only. Multus has the cluster network on eth0 first.
fn pod(dialect: Dialect, position: usize, value: &Value) -> Value {
    let ips: Vec<(&str, &str)> = object(&value["ips"])
        .iter()
        .map(|(network, ip)| (network.as_str(), text(ip)))
        .collect();
    let cluster = format!("10.244.{}.{}", position / 200, position % 200 + 2);
    let mut annotations = Map::new();
    let primary = if dialect == Dialect::Genie {
        let plugins: Vec<&str> = ips.iter().map(|(network, _)| *network).collect();
        annotations.insert("cni".into(), plugins.join(",").into());
        if ips.len() > 1 {
            let entries = ips.iter().enumerate().map(|(number, (_, ip))| {
                let entry = json!({"ip": ip, "interface": format!("eth{number}")});
                (format!("ip{}", number + 1), entry)
            });
            let entries: Map<String, Value> = entries.collect();
            let value = json!({"multi_entry": entries.len(), "ips": entries});
            annotations.insert("multi-ip-preferences".into(), value.to_string().into());
        }
        ips.first().map(|(_, ip)| (*ip).to_owned())
    } else {
        let mut status = vec![json!({"name": "cbr0", "interface": "eth0", "ips": [cluster], "default": true})];
        let secondary = ips.iter().enumerate().map(|(number, (network, ip))| {
                json!({"name": format!("default/{network}"), "interface": format!("net{}", number + 1), "ips": [ip]})
            });
        status.extend(secondary);
        let networks: Vec<String> = ips.iter().map(|(network, _)| format!("default/{network}")).collect();
        annotations.insert("k8s.v1.cni.cncf.io/networks".into(), networks.join(",").into());
        let status = Value::from(status).to_string();
        annotations.insert("k8s.v1.cni.cncf.io/network-status".into(), status.into());
        Some(cluster)
    };
    let ports: Vec<Value> = list(&value["ports"])
        .iter()
        .map(|port| json!({"name": port["name"], "containerPort": port["port"], "protocol": port["protocol"]}))
        .collect();
    let addresses: Vec<Value> = primary.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": value["name"],
            "namespace": value["namespace"],
            "uid": format!("{}-{}", text(&value["namespace"]), text(&value["name"])),
            "labels": value["labels"],
            "annotations": annotations,
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "example.invalid/app:1", "ports": ports}]},
        "status": {
            "phase": "Running",
            "podIP": primary,
            "podIPs": addresses,
            "startTime": "2026-01-01T00:00:00Z",
        },
    })
}

fn policy(dialect: Dialect, value: &Value) -> Value {
    let (version, kind) = match dialect {
        Dialect::Genie => ("networking.k8s.io/v1", "NetworkPolicy"),
        _ => ("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"),
    };
    let networks: Vec<String> = list(&value["networks"])
        .iter()
        .map(|network| policy_for(dialect, text(network)))
        .collect();
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": value["name"],
            "namespace": value["namespace"],
            "annotations": {"k8s.v1.cni.cncf.io/policy-for": networks.join(",")},
        },
        "spec": value["spec"],
    })
}

/// The objects of a scenario, decoded from its manifests.
fn objects(dialect: Dialect, scenario: &Value) -> Vec<Object> {
    let namespaces = object(&scenario["namespaces"]).iter().map(
        |(name, labels)| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
    );
    let pods = list(&scenario["pods"]).iter().enumerate();
    let pods = pods.map(|(position, value)| pod(dialect, position, value));
    let policies = list(&scenario["policies"]).iter().map(|value| policy(dialect, value));
    let manifests = namespaces.chain(pods).chain(policies);
    manifests
        .flat_map(|manifest| decode_value(manifest, "table"))
        .map(|decoded| decoded.object.unwrap_or_else(|| panic!("{:?}", decoded.diagnostics)))
        .collect()
}

/// Scenarios, queries and cells of a table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Size {
    scenarios: usize,
    queries: usize,
    cells: usize,
}

fn check_scenario(dialect: Dialect, scenario: &Value, size: &mut Size) {
    let objects = objects(dialect, scenario);
    let universe: Universe = objects.iter().cloned().collect();
    let mut index = Index::new(Options {
        locality: Locality::Node("n1".into()),
        scope: Scope::Secondary,
        kernel: KernelFeatures::ALL,
        node_addresses: [].into(),
    });
    for object in objects {
        index.apply(object);
    }
    index.commit();
    let tracers: BTreeMap<_, _> = index
        .local_pods()
        .filter_map(|uid| Some((uid.clone(), Tracer::new(index.ruleset(uid)?).expect("a sound ruleset"))))
        .collect();
    size.scenarios += 1;
    for query in list(&scenario["queries"]) {
        size.queries += 1;
        let network = network_name(dialect, text(&query["network"]));
        let protocol = Protocol::ALL
            .into_iter()
            .find(|it| it.as_str() == text(&query["protocol"]));
        let port = query["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let l4 = L4::port(protocol.expect("a protocol"), port.expect("a port"));
        let mut found: BTreeMap<(String, String), [String; 2]> = BTreeMap::new();
        for cell in reach(&universe, &network, l4) {
            let verdict = &cell.verdict;
            let oracle = [&verdict.egress, &verdict.ingress].map(|it| letter(it.decision == Word::Allow));
            let talk = Talk {
                source: cell.connection.source.address(),
                destination: cell.connection.destination.address(),
                l4,
                client: 40_000,
            };
            let itself = cell.from.pod.uid == cell.to.pod.uid;
            let traced = [
                (Direction::Egress, cell.from, &cell.connection.source),
                (Direction::Ingress, cell.to, &cell.connection.destination),
            ];
            let traced = traced.map(|(direction, at, endpoint)| {
                let Some(rules) = tracers.get(&at.pod.uid) else {
                    return letter(true);
                };
                let name = if itself {
                    InterfaceName::new("lo").expect("a name")
                } else {
                    at.attachment.interface.clone().expect("a name")
                };
                let passes = |kind: Kind| {
                    let packet = packet(
                        talk,
                        kind,
                        way(direction, kind.goes_back(), name.clone()),
                        endpoint.address(),
                    );
                    rules.trace(&packet).expect("a trace").decision == Decision::Accept
                };
                let (first, answer) = (passes(Kind::Original), passes(Kind::Reply));
                assert_eq!(first, answer, "answers of {endpoint:?}");
                letter(first)
            });
            let pair = (cell.from.pod.name.to_string(), cell.to.pod.name.to_string());
            found.insert(pair, [oracle.concat(), traced.concat()]);
        }
        let names: Vec<String> = list(&scenario["pods"])
            .iter()
            .map(|pod| format!("{}/{}", text(&pod["namespace"]), text(&pod["name"])))
            .collect();
        for from in &names {
            let row: Vec<&str> = text(&query["matrix"][from]).split(' ').collect();
            assert_eq!(row.len(), names.len(), "a word per pod");
            for (to, word) in names.iter().zip(row) {
                size.cells += 1;
                let pair = (from.clone(), to.clone());
                let [oracle, traced] = found.remove(&pair).unwrap_or_else(|| ["..".into(), "..".into()]);
                assert!(
                    oracle == word && traced == word,
                    "{dialect:?} {}: {from} to {to} on {network}, {l4}: table {word}, oracle {oracle}, tracer {traced}",
                    text(&scenario["name"])
                );
            }
        }
        assert!(found.is_empty(), "cells that nobody asked for: {found:?}");
    }
}

fn letter(allowed: bool) -> &'static str {
    if allowed { "a" } else { "d" }
}

fn check(name: &str, table: &str) -> Size {
    let mut sizes = Vec::new();
    for dialect in [Dialect::Genie, Dialect::Multus] {
        let mut size = Size::default();
        for line in table.lines() {
            let scenario = serde_json::from_str(line).expect("a scenario");
            check_scenario(dialect, &scenario, &mut size);
        }
        println!("{name} as {dialect:?} manifests: {size:?}, no difference");
        sizes.push(size);
    }
    assert_eq!(sizes[0], sizes[1]);
    sizes.remove(0)
}

#[test]
fn every_cell_of_the_tables_in_both_dialects() {
    // Whole, so that a file that was cut short does not pass.
    let expected = Size {
        scenarios: 200,
        queries: 2_714,
        cells: 219_834,
    };
    assert_eq!(check("random.jsonl", RANDOM), expected);
    let paths = std::env::var_os("RINGFENCE_TRUTH_TABLES").unwrap_or_default();
    for path in std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()) {
        let table = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let size = check(&path.to_string_lossy(), &table);
        assert!(size.cells > 0, "{}: an empty table", path.display());
    }
}
