//! Truth tables: scenarios with objects, questions and answers, one JSON object a line.
//!
//! Keys of a scenario: `namespaces` (their labels), `pods` (labels, an address per network, named ports), `policies`
//! (`networks` that they apply to, namespace, name, NetworkPolicy `spec`) and `queries`. A query's `matrix[from]` is
//! a row with one word per pod in the order of `pods`: the sender's egress, then the receiver's ingress, `a` allowed,
//! `d` denied, `..` where one of the two has no address on that network. A pod always reaches itself.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_model::{
    Attachment, InterfaceName, NamedPort, Namespace, NamespacedName, NetworkName, Object, Pod, PodUid, PolicyKind,
    PortName, Protocol,
};
use serde_json::Value;

use super::manifest;

/// How a scenario is turned into objects; the answers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Every pod has `eth0` on the cluster network, and its scenario networks are NADs of namespace `default` on
    /// `net1`, `net2`, …; the policies are MultiNetworkPolicies.
    Multus,
    /// The scenario networks are CNI-Genie plugins, the first one's interface is the primary one; the policies are
    /// NetworkPolicies with `policy-for`.
    Genie,
}

/// One line of a table.
pub struct Scenario {
    /// For messages.
    pub name: String,
    /// Everything that exists.
    pub objects: Vec<Object>,
    /// `namespace/name` of the pods in the order of the columns.
    pub pods: Vec<NamespacedName>,
    /// What is asked.
    pub queries: Vec<Query>,
}

/// One matrix.
pub struct Query {
    /// On which network.
    pub network: NetworkName,
    /// Protocol of the connection.
    pub protocol: Protocol,
    /// Destination port of the connection.
    pub port: u16,
    /// Every cell, row by row.
    pub cells: Vec<ExpectedCell>,
}

/// One answer.
pub struct ExpectedCell {
    /// The sender.
    pub from: NamespacedName,
    /// The receiver.
    pub to: NamespacedName,
    /// `aa`, `ad`, `da`, `dd` or `..`.
    pub word: String,
}

/// Reads a whole table. Panics on anything unexpected, so that no line can be passed over.
pub fn read(text: &str, form: Form) -> Vec<Scenario> {
    text.lines()
        .map(|line| scenario(&serde_json::from_str(line).expect("a line of JSON"), form))
        .collect()
}

fn scenario(value: &Value, form: Form) -> Scenario {
    let mut objects = Vec::new();
    for (name, labels) in object(&value["namespaces"]) {
        objects.push(Object::Namespace(Namespace {
            name: name.as_str().into(),
            labels: pairs(labels).collect(),
            terminating: false,
            isolate_ingress: false,
        }));
    }
    let mut pods = Vec::new();
    for (position, it) in array(&value["pods"]).iter().enumerate() {
        let pod = pod(it, position, form);
        pods.push(pod.name.clone());
        objects.push(Object::Pod(pod));
    }
    for it in array(&value["policies"]) {
        let networks: Vec<String> = array(&it["networks"])
            .iter()
            .map(|name| match form {
                Form::Multus => format!("default/{}", text(name)),
                Form::Genie => text(name).to_owned(),
            })
            .collect();
        let kind = match form {
            Form::Multus => PolicyKind::MultiNetworkPolicy,
            Form::Genie => PolicyKind::NetworkPolicy,
        };
        objects.push(Object::Policy(manifest::policy(
            kind,
            text(&it["namespace"]),
            text(&it["name"]),
            Some(&networks.join(",")),
            &it["spec"],
        )));
    }
    Scenario {
        name: text(&value["name"]).to_owned(),
        queries: array(&value["queries"])
            .iter()
            .map(|it| query(it, &pods, form))
            .collect(),
        objects,
        pods,
    }
}

fn query(value: &Value, pods: &[NamespacedName], form: Form) -> Query {
    let rows: BTreeMap<&str, Vec<&str>> = object(&value["matrix"])
        .iter()
        .map(|(from, row)| (from.as_str(), text(row).split(' ').collect()))
        .collect();
    assert_eq!(rows.len(), pods.len(), "a row per pod");
    let mut cells = Vec::new();
    for from in pods {
        let row = &rows[from.to_string().as_str()];
        assert_eq!(row.len(), pods.len(), "a word per pod");
        for (to, word) in pods.iter().zip(row) {
            assert!(["aa", "ad", "da", "dd", ".."].contains(word), "{word:?}");
            cells.push(ExpectedCell {
                from: from.clone(),
                to: to.clone(),
                word: (*word).to_owned(),
            });
        }
    }
    Query {
        network: network(text(&value["network"]), form),
        protocol: protocol(&value["protocol"]),
        port: number(&value["port"]),
        cells,
    }
}

fn network(name: &str, form: Form) -> NetworkName {
    match form {
        Form::Multus => NetworkName::Namespaced(NamespacedName::new("default", name)),
        Form::Genie => NetworkName::Plugin(name.into()),
    }
}

fn pod(value: &Value, position: usize, form: Form) -> Pod {
    let name = NamespacedName::new(text(&value["namespace"]), text(&value["name"]));
    let mut attachments = Vec::new();
    if form == Form::Multus {
        attachments.push(Attachment {
            interface: Some(InterfaceName::new("eth0").expect("a name")),
            networks: BTreeSet::from([NetworkName::Default]),
            primary: true,
            addresses: BTreeSet::from([format!("10.244.0.{}", position + 1).parse().expect("an address")]),
        });
    }
    for (network_name, address) in object(&value["ips"]) {
        let mut networks = BTreeSet::from([network(network_name, form)]);
        let primary = attachments.is_empty();
        if primary {
            networks.insert(NetworkName::Default);
        }
        let interface = match form {
            Form::Multus => format!("net{}", attachments.len()),
            Form::Genie => format!("eth{}", attachments.len()),
        };
        attachments.push(Attachment {
            interface: Some(InterfaceName::new(&interface).expect("a name")),
            networks,
            primary,
            addresses: BTreeSet::from([text(address).parse().expect("an address")]),
        });
    }
    let ports = array(&value["ports"]).iter().map(|it| NamedPort {
        name: PortName::new(text(&it["name"])).expect("a port name"),
        protocol: protocol(&it["protocol"]),
        number: number(&it["port"]),
    });
    Pod {
        mirror_of: None,
        uid: PodUid::new(&name.to_string()).expect("a uid"),
        node: Some("n1".into()),
        labels: pairs(&value["labels"]).collect(),
        attachments,
        ports: ports.collect(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::new(),
        name,
    }
}

fn protocol(value: &Value) -> Protocol {
    Protocol::ALL
        .into_iter()
        .find(|it| it.as_str() == text(value))
        .expect("a protocol")
}

fn number(value: &Value) -> u16 {
    value
        .as_u64()
        .and_then(|it| u16::try_from(it).ok())
        .expect("a port number")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    value.as_object().expect("an object")
}

fn pairs(value: &Value) -> impl Iterator<Item = (&str, &str)> {
    object(value).iter().map(|(key, value)| (key.as_str(), text(value)))
}
