//! Policies and pods as manifests: the way back from the model, and the frames around fuzzed parts.

use std::collections::BTreeSet;

use ringfence_kube::Decoded;
use ringfence_model::{
    Coverage, Direction, Object, Peer, Peers, Policy, PolicyKind, PortMatch, PortRange, Ports, Requirement, Rule,
    Selector,
};
use serde_json::{Map, Value, json};

/// The annotation that names a policy's networks.
pub const POLICY_FOR: &str = "k8s.v1.cni.cncf.io/policy-for";

/// A policy as a manifest that is decoded to the same policy.
pub fn policy(policy: &Policy) -> Value {
    let api_version = match policy.key.kind {
        PolicyKind::MultiNetworkPolicy => "k8s.cni.cncf.io/v1beta1",
        PolicyKind::NetworkPolicy | PolicyKind::NamespaceIsolation => "networking.k8s.io/v1",
    };
    let mut annotations = Map::new();
    if let Coverage::Networks(networks) = &policy.coverage {
        let names: Vec<String> = networks.iter().map(ToString::to_string).collect();
        annotations.insert(POLICY_FOR.to_owned(), names.join(",").into());
    }
    let mut spec = Map::new();
    let target = policy.target.as_ref().map_or_else(|| json!("none"), selector);
    spec.insert("podSelector".to_owned(), target);
    let mut types = BTreeSet::new();
    for (direction, word, peers) in [
        (Direction::Ingress, "Ingress", "from"),
        (Direction::Egress, "Egress", "to"),
    ] {
        if let Some(rules) = policy.rules(direction) {
            types.insert(word);
            let rules: Vec<Value> = rules.iter().map(|it| rule(it, peers)).collect();
            spec.insert(direction.as_str().to_owned(), rules.into());
        }
    }
    spec.insert("policyTypes".to_owned(), json!(types));
    json!({
        "apiVersion": api_version,
        "kind": policy.key.kind.as_str(),
        "metadata": {
            "namespace": &*policy.key.name.namespace,
            "name": &*policy.key.name.name,
            "annotations": annotations,
        },
        "spec": spec,
    })
}

fn rule(rule: &Rule, peers: &str) -> Value {
    let mut fields = Map::new();
    if let Peers::OneOf(all) = &rule.peers {
        fields.insert(peers.to_owned(), all.iter().map(peer).collect());
    }
    if let Ports::OneOf(all) = &rule.ports {
        fields.insert("ports".to_owned(), all.iter().map(port).collect());
    }
    fields.into()
}

fn peer(peer: &Peer) -> Value {
    match peer {
        Peer::Nothing => json!({}),
        Peer::IpBlock(block) => {
            let except: Vec<String> = block.except.iter().map(ToString::to_string).collect();
            json!({ "ipBlock": { "cidr": block.cidr.to_string(), "except": except } })
        }
        Peer::Pods { namespaces: None, pods } => json!({ "podSelector": selector(pods) }),
        Peer::Pods {
            namespaces: Some(namespaces),
            pods,
        } => {
            json!({ "podSelector": selector(pods), "namespaceSelector": selector(namespaces) })
        }
    }
}

fn port(port: &PortMatch) -> Value {
    match port {
        PortMatch::Nothing => json!({ "port": 0 }),
        PortMatch::Named { name, protocol } => json!({ "protocol": protocol.as_str(), "port": name.as_str() }),
        PortMatch::Range(range) if range.is_whole() => json!({ "protocol": range.protocol.as_str() }),
        PortMatch::Range(PortRange { protocol, first, last }) => {
            json!({ "protocol": protocol.as_str(), "port": first, "endPort": last })
        }
    }
}

/// A selector with everything as an expression.
pub fn selector(selector: &Selector) -> Value {
    let expression = |requirement: &Requirement| match requirement {
        Requirement::In { key, values } => {
            let values: Vec<&str> = values.iter().map(|it| &**it).collect();
            json!({ "key": &**key, "operator": "In", "values": values })
        }
        Requirement::NotIn { key, values } => {
            let values: Vec<&str> = values.iter().map(|it| &**it).collect();
            json!({ "key": &**key, "operator": "NotIn", "values": values })
        }
        Requirement::Exists(key) => json!({ "key": &**key, "operator": "Exists" }),
        Requirement::DoesNotExist(key) => json!({ "key": &**key, "operator": "DoesNotExist" }),
    };
    let expressions: Vec<Value> = selector.requirements().iter().map(expression).collect();
    json!({ "matchExpressions": expressions })
}

/// Decodes `spec.ingress` of a NetworkPolicy and checks what comes out.
pub fn ingress(rules: &Value) -> (Policy, Decoded) {
    let manifest = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "namespace": "x", "name": "p" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules },
    });
    let mut decoded = ringfence_kube::decode_value(manifest, "fuzz");
    let only = decoded.pop().expect("one manifest");
    assert!(decoded.is_empty(), "one manifest gives one result");
    crate::sound::check(&only);
    match only.object.clone() {
        Some(Object::Policy(policy)) => (policy, only),
        other => panic!("a policy with a name is never lost: {other:?}"),
    }
}

/// The first peer of the first rule, and how many diagnostics there are.
pub fn first_peer(peer: &Value) -> (Peer, usize) {
    let (policy, decoded) = ingress(&json!([{ "from": [peer] }]));
    match policy.ingress.as_deref() {
        Some(
            [
                Rule {
                    peers: Peers::OneOf(peers),
                    ..
                },
            ],
        ) if peers.len() == 1 => (peers[0].clone(), decoded.diagnostics.len()),
        other => panic!("one rule with one peer stays that: {other:?}"),
    }
}
