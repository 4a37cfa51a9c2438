//! The annotations of pods, policies and namespaces.
//!
//! A line that begins with `@WORD ` begins the annotation that the word stands for ([`KEYS`]); what follows up to the
//! next such line is its value. Before the first one stands the pod's `status.podIPs`, separated by commas.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ringfence_kube::{Decoded, decode, decode_value};
use ringfence_model::{Coverage, NetworkName, Object, Pod};
use serde_json::{Map, Value, json};

use crate::{sound, text, write};

/// The words for the annotations.
pub const KEYS: [(&str, &str); 9] = [
    ("cni", "cni"),
    ("networks", "networks"),
    ("result", "multi-ip-preferences"),
    ("request", "k8s.v1.cni.cncf.io/networks"),
    ("status", "k8s.v1.cni.cncf.io/network-status"),
    ("old", "k8s.v1.cni.cncf.io/networks-status"),
    ("calico", "cni.projectcalico.org/podIP"),
    ("for", write::POLICY_FOR),
    ("isolation", "net.beta.kubernetes.io/network-policy"),
];

/// The results of both dialects, in the order of [`KEYS`].
const RESULTS: [&str; 3] = [
    "multi-ip-preferences",
    "k8s.v1.cni.cncf.io/network-status",
    "k8s.v1.cni.cncf.io/networks-status",
];

/// Reads annotations.
pub fn run(data: &[u8]) {
    let text = text(data);
    let (addresses, annotations) = split(&text);
    let pod = decode_pod(&addresses, &annotations);
    for (key, value) in &annotations {
        if RESULTS.contains(key) {
            // By itself, because together they may overrule each other.
            said_is_seen(&decode_pod(&addresses, &[(*key, value.clone())].into()), key, value);
        }
    }
    let Some(Object::Pod(pod)) = &pod.object else {
        panic!("a pod with a name is never lost: {pod:?}");
    };
    for attachment in &pod.attachments {
        for network in &attachment.networks {
            can_be_named(network, pod);
        }
    }
    policies(&annotations);
    namespace(&annotations);
}

/// The addresses before the first annotation, and the annotations.
fn split(text: &str) -> (Vec<&str>, BTreeMap<&'static str, String>) {
    let mut addresses = "";
    let mut annotations: BTreeMap<&str, String> = BTreeMap::new();
    let mut current = None;
    for line in text.split_inclusive('\n') {
        let known = line.strip_prefix('@').and_then(|line| {
            let (word, value) = line.split_once([' ', '\n']).unwrap_or((line, ""));
            let (_, key) = KEYS.iter().find(|(known, _)| *known == word)?;
            Some((*key, value))
        });
        match (known, current) {
            (Some((key, value)), _) => {
                current = Some(key);
                annotations.insert(key, value.to_owned());
            }
            (None, Some(key)) => annotations.entry(key).or_default().push_str(line),
            (None, None) => addresses = line,
        }
    }
    let addresses = addresses.split(',').map(str::trim).filter(|it| !it.is_empty());
    (addresses.collect(), annotations)
}

fn decode_pod(addresses: &[&str], annotations: &BTreeMap<&str, String>) -> Decoded {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    let manifest = |annotations: Map<String, Value>| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": "x", "name": "p", "annotations": annotations },
            "status": { "podIPs": ips },
        })
    };
    let pairs = || {
        annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_str().into()))
    };
    let value = manifest(pairs().collect());
    let mut decoded = decode_value(value.clone(), "fuzz");
    assert_eq!(
        decode(&value.to_string(), "fuzz"),
        decoded,
        "one decoder for texts and values"
    );
    let backwards = decode_value(manifest(pairs().rev().collect()), "fuzz");
    assert_eq!(backwards, decoded, "the order of annotations means nothing");
    let only = decoded.pop().expect("one manifest");
    assert!(decoded.is_empty());
    sound::check(&only);
    only
}

/// Without a diagnostic, every address and interface that a result speaks of is there.
fn said_is_seen(decoded: &Decoded, key: &str, text: &str) {
    let Some(Object::Pod(pod)) = &decoded.object else {
        panic!("a pod with a name is never lost");
    };
    if !decoded.diagnostics.is_empty() {
        return;
    }
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            return assert!(
                text.trim().is_empty(),
                "{key}: {text:?} is no JSON ({error}), and nobody says so"
            );
        }
    };
    let entries: Vec<&Value> = match &value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(fields) => match fields.get("ips").and_then(Value::as_object) {
            // The empty key is what an old template leaves behind.
            Some(ips) => ips
                .iter()
                .filter(|(key, _)| !key.is_empty())
                .map(|(_, entry)| entry)
                .collect(),
            None => return,
        },
        _ => return assert!(value.is_null(), "{key}: {value} describes nothing, and nobody says so"),
    };
    let seen: BTreeSet<IpAddr> = pod.attachments.iter().flat_map(|it| &it.addresses).copied().collect();
    for entry in entries {
        let Value::Object(fields) = entry else { continue };
        let twice = |name: &str| fields.keys().filter(|key| key.eq_ignore_ascii_case(name)).count() > 1;
        if ["ip", "ips", "interface", "name"].into_iter().any(twice) {
            continue;
        }
        // Each dialect has its own field; the other's is one of the many that mean nothing.
        let texts: Vec<&str> = if key == RESULTS[0] {
            fields.get("ip").and_then(Value::as_str).into_iter().collect()
        } else {
            let listed = fields.get("ips").and_then(Value::as_array);
            listed.into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let interface = fields
            .get("interface")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim();
        let address = |text: &str| text.trim().split('/').next().and_then(|it| it.parse::<IpAddr>().ok());
        // An early version swapped the two fields.
        let swapped = address(interface).is_some();
        for text in texts.iter().filter(|text| !text.trim().is_empty() && !swapped) {
            let address = address(text).map(|it| it.to_canonical());
            assert!(
                address.is_some_and(|it| seen.contains(&it)),
                "{key}: {text:?} is lost in {pod:?}"
            );
        }
        let named = |name: &str| {
            pod.attachments
                .iter()
                .any(|it| it.interface.as_ref().is_some_and(|it| it.as_str() == name))
        };
        if !interface.is_empty() && !swapped {
            assert!(named(interface), "{key}: {interface:?} is lost in {pod:?}");
        }
    }
}

fn policy_for(text: &str) -> (BTreeSet<NetworkName>, usize) {
    let manifest = json!({
        "apiVersion": "k8s.cni.cncf.io/v1beta1",
        "kind": "MultiNetworkPolicy",
        "metadata": { "namespace": "x", "name": "p", "annotations": { write::POLICY_FOR: text } },
        "spec": { "podSelector": {} },
    });
    let decoded = decode_value(manifest, "fuzz");
    let [only] = &decoded[..] else {
        panic!("one manifest: {decoded:?}");
    };
    sound::check(only);
    match &only.object {
        Some(Object::Policy(policy)) => match &policy.coverage {
            Coverage::Networks(networks) => (networks.clone(), only.diagnostics.len()),
            Coverage::Scope => panic!("a MultiNetworkPolicy never acts on everything"),
        },
        other => panic!("a policy with a name is never lost: {other:?}"),
    }
}

/// Whatever network a pod is on, a policy can be for it by the name that is shown.
fn can_be_named(network: &NetworkName, pod: &Pod) {
    let shown = network.to_string();
    match network {
        // A comma separates names, and `default` is the cluster network's.
        NetworkName::Interface(_) if shown.contains(',') => {}
        NetworkName::Plugin(name) if &**name == "default" => {}
        _ => {
            let (found, diagnostics) = policy_for(&shown);
            assert!(
                found.contains(network) && diagnostics == 0,
                "{shown} of {pod:?} is {found:?}"
            );
        }
    }
}

fn policies(annotations: &BTreeMap<&str, String>) {
    let Some(text) = annotations.get(write::POLICY_FOR) else {
        return;
    };
    let (networks, diagnostics) = policy_for(text);
    let items: BTreeSet<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if diagnostics == 0 {
        // A bare name has two meanings, every other item one.
        let expected: usize = items.iter().map(|item| if is_bare(item) { 2 } else { 1 }).sum();
        assert!(
            !items.is_empty() && networks.len() <= expected,
            "{text:?} is {networks:?}"
        );
        let bare = items.iter().filter(|item| is_bare(item)).count();
        let plugins = networks
            .iter()
            .filter(|it| matches!(it, NetworkName::Plugin(_)))
            .count();
        assert_eq!(plugins, bare, "{text:?} is {networks:?}");
    }
    let shown: Vec<String> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(
        policy_for(&shown.join(" , ")).0,
        networks,
        "what is shown is read again"
    );
}

fn is_bare(item: &str) -> bool {
    item != "default" && !item.contains('/') && !item.starts_with("interface:")
}

fn namespace(annotations: &BTreeMap<&str, String>) {
    let Some(text) = annotations.get("net.beta.kubernetes.io/network-policy") else {
        return;
    };
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": "x", "annotations": { "net.beta.kubernetes.io/network-policy": text } },
    });
    let decoded = decode_value(manifest, "fuzz");
    let [only] = &decoded[..] else {
        panic!("one manifest: {decoded:?}");
    };
    sound::check(only);
    let Some(Object::Namespace(namespace)) = &only.object else {
        panic!("a namespace with a name is never lost");
    };
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let wanted = parsed
        .as_ref()
        .and_then(|it| it.get("ingress")?.get("isolation")?.as_str())
        == Some("DefaultDeny");
    assert_eq!(namespace.isolate_ingress, wanted, "{text:?}");
    let told = !only.diagnostics.is_empty();
    assert!(
        parsed.is_some_and(|it| it.is_object()) || told,
        "{text:?} is ignored, and nobody says so"
    );
}
