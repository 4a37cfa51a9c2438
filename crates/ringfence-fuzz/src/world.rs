//! A made-up cluster: manifests put together from small vocabularies that meet often, half of them with something wrong,
//! decoded one by one and sent through [`crate::pipeline::check`]; then the same objects as events in any order.

use std::collections::BTreeMap;

use ringfence_model::{Object, ObjectKey, Scope};
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::KernelFeatures;
use serde_json::{Map, Value, json};

use crate::bytes::Bytes;
use crate::{pipeline, sound};

const NAMESPACES: [&str; 3] = ["x", "y", "default"];
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Few, so that pods contest them and small blocks hit them; some that no pod can have.
const ADDRESSES: [&str; 12] = [
    "10.20.1.1",
    "10.20.1.2",
    "10.20.1.3",
    "10.20.1.255",
    "fd00:20::1",
    "fd00:20::2",
    "255.255.255.254",
    "0.0.0.1",
    "127.0.0.1",
    "::ffff:10.20.1.1",
    "fe80::1",
    "nonsense",
];
const BLOCKS: [&str; 12] = [
    "10.20.1.0/24",
    "10.20.1.0/30",
    "10.20.1.2/32",
    "0.0.0.0/0",
    "::/0",
    "fd00:20::/64",
    "fd00:20::2/128",
    "10.20.1.1/31",
    "255.255.255.254/31",
    "0.0.0.0/1",
    "10.020.01.0/24",
    "10.20.1.0/33",
];
const NETWORKS: [&str; 8] = [
    "net-a",
    "net-b",
    "x/net-a",
    "default",
    "interface:net1",
    "weave",
    "",
    "no such/network",
];
const INTERFACES: [&str; 6] = ["net1", "net2", "eth0", "eth1", "a@b", "much-too-long-a-name"];

/// Takes choices.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let options = options(&mut bytes);
    let mut objects = Vec::new();
    while !bytes.is_empty() && objects.len() < 24 {
        let manifest = match bytes.below(8) {
            0..=2 => pod(&mut bytes),
            3..=5 => policy(&mut bytes),
            6 => namespace(&mut bytes),
            _ => definition(&mut bytes),
        };
        for decoded in ringfence_kube::decode_value(manifest, "world") {
            sound::check(&decoded);
            objects.extend(decoded.object);
        }
    }
    pipeline::check(&objects, &options);
    events(data, &objects, &options);
}

fn options(bytes: &mut Bytes<'_>) -> Options {
    let scopes = [Scope::All, Scope::Secondary, Scope::Annotated, Scope::None];
    Options {
        scope: scopes[bytes.below(4)],
        locality: Locality::Node("n".into()),
        kernel: KernelFeatures {
            owner_persist: true,
            egress_backstop: !bytes.flag(),
            fib: !bytes.flag(),
        },
        node_addresses: if bytes.flag() {
            ["10.20.1.3", "fd00:20::3"]
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect()
        } else {
            [].into()
        },
    }
}

fn metadata(bytes: &mut Bytes<'_>, annotations: &Map<String, Value>) -> Value {
    let mut labels = Map::new();
    for key in ["app", "tier"] {
        if bytes.flag() {
            labels.insert(key.to_owned(), bytes.pick(&["web", "db", ""]).into());
        }
    }
    json!({
        "namespace": bytes.pick(&NAMESPACES),
        "name": bytes.pick(&NAMES),
        "labels": labels,
        "annotations": annotations,
    })
}

fn pod(bytes: &mut Bytes<'_>) -> Value {
    let mut annotations = Map::new();
    let mut put = |key: &str, value: String| annotations.insert(key.to_owned(), value.into());
    match bytes.below(4) {
        0 => {}
        1 => {
            let names = bytes.several(3, |bytes| bytes.pick(&["net-a", "x/net-b", "net-a@net2", "bad//name"]));
            put("k8s.v1.cni.cncf.io/networks", names.join(","));
            put("k8s.v1.cni.cncf.io/network-status", status(bytes));
        }
        2 => {
            let names = bytes.several(3, |bytes| bytes.pick(&["weave", "canal", "weave@eth4", ""]));
            put("cni", names.join(","));
            put("multi-ip-preferences", result(bytes));
        }
        _ => {
            put("k8s.v1.cni.cncf.io/network-status", status(bytes));
        }
    }
    let numbers = [80, 81, 53, 0];
    let ports = bytes.several(3, |bytes| {
        json!({
            "name": bytes.pick(&["http", "dns", "80", "Http"]),
            "containerPort": numbers[bytes.below(4)],
            "protocol": bytes.pick(&["TCP", "UDP", "SCTP", "tcp"]),
        })
    });
    let ips = bytes.several(2, |bytes| json!({ "ip": bytes.pick(&ADDRESSES) }));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(bytes, &annotations),
        "spec": {
            "nodeName": if bytes.rarely(4) { "m" } else { "n" },
            "hostNetwork": bytes.rarely(9),
            "containers": [{ "ports": ports }],
        },
        "status": {
            "podIPs": ips,
            "phase": if bytes.rarely(9) { "Succeeded" } else { "Running" },
            "startTime": bytes.pick(&["2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"]),
            "hostIPs": bytes.several(1, |bytes| json!({ "ip": bytes.pick(&ADDRESSES) })),
        },
    })
}

fn status(bytes: &mut Bytes<'_>) -> String {
    if bytes.rarely(12) {
        return "[{".to_owned();
    }
    let entries = bytes.several(3, |bytes| {
        json!({
            "name": bytes.pick(&NETWORKS),
            "interface": bytes.pick(&INTERFACES),
            "ips": bytes.several(2, |bytes| bytes.pick(&ADDRESSES)),
            "default": bytes.rarely(4),
        })
    });
    json!(entries).to_string()
}

fn result(bytes: &mut Bytes<'_>) -> String {
    let entries = bytes.several(3, |bytes| {
        let entry = json!({ "ip": bytes.pick(&ADDRESSES), "interface": bytes.pick(&INTERFACES) });
        (format!("ip{}", bytes.below(12)), entry)
    });
    json!({ "multi_entry": bytes.below(4), "ips": entries.into_iter().collect::<Map<String, Value>>() }).to_string()
}

fn policy(bytes: &mut Bytes<'_>) -> Value {
    let multi = bytes.flag();
    let mut annotations = Map::new();
    if multi || bytes.flag() {
        let names = bytes.several(3, |bytes| bytes.pick(&NETWORKS));
        annotations.insert(crate::write::POLICY_FOR.to_owned(), names.join(",").into());
    }
    let mut spec = Map::new();
    spec.insert("podSelector".to_owned(), selector(bytes));
    if !bytes.rarely(4) {
        let types: &[&str] = [&["Ingress"][..], &["Egress"], &["Ingress", "Egress"], &["ingress"]][bytes.below(4)];
        spec.insert("policyTypes".to_owned(), json!(types));
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        if bytes.flag() {
            let rules = bytes.several(3, |bytes| rule(bytes, peers));
            spec.insert(direction.to_owned(), rules.into());
        }
    }
    json!({
        "apiVersion": if multi { "k8s.cni.cncf.io/v1beta1" } else { "networking.k8s.io/v1" },
        "kind": if multi { "MultiNetworkPolicy" } else { "NetworkPolicy" },
        "metadata": metadata(bytes, &annotations),
        "spec": spec,
    })
}

fn rule(bytes: &mut Bytes<'_>, peers: &str) -> Value {
    let mut fields = Map::new();
    if !bytes.rarely(5) {
        fields.insert(peers.to_owned(), bytes.several(3, peer).into());
    }
    if bytes.flag() {
        fields.insert("ports".to_owned(), bytes.several(10, port).into());
    }
    if bytes.rarely(20) {
        fields.insert("form".to_owned(), Value::Null);
    }
    fields.into()
}

fn peer(bytes: &mut Bytes<'_>) -> Value {
    match bytes.below(8) {
        0 | 1 => json!({ "podSelector": selector(bytes) }),
        2 => json!({ "namespaceSelector": selector(bytes) }),
        3 => json!({ "namespaceSelector": selector(bytes), "podSelector": selector(bytes) }),
        4 | 5 => {
            let except = bytes.several(2, |bytes| bytes.pick(&BLOCKS));
            json!({ "ipBlock": { "cidr": bytes.pick(&BLOCKS), "except": except } })
        }
        6 => json!({}),
        _ => json!({ "ipBlock": { "cidr": "10.0.0.0/8" }, "podSelector": {} }),
    }
}

fn port(bytes: &mut Bytes<'_>) -> Value {
    let protocol = bytes.pick(&["TCP", "TCP", "UDP", "SCTP", "tcp"]);
    match bytes.below(6) {
        0 => json!({ "protocol": protocol }),
        1 | 2 => json!({ "protocol": protocol, "port": bytes.pick(&["http", "dns", "Bad Name"]) }),
        3 => json!({ "protocol": protocol, "port": 79 + bytes.below(4), "endPort": 79 + bytes.below(6) }),
        4 => json!({ "protocol": protocol, "port": bytes.u16() }),
        _ => json!({ "port": 80 }),
    }
}

fn selector(bytes: &mut Bytes<'_>) -> Value {
    let operators = ["In", "NotIn", "Exists", "DoesNotExist", "in"];
    match bytes.below(5) {
        0 | 1 => json!({}),
        2 => json!({ "matchLabels": { "app": bytes.pick(&["web", "db", ""]) } }),
        3 => json!({ "matchLabels": { "kubernetes.io/metadata.name": bytes.pick(&NAMESPACES) } }),
        _ => {
            let expressions = bytes.several(2, |bytes| {
                let operator = bytes.pick(&operators);
                let values = bytes.several(2, |bytes| bytes.pick(&["web", "db"]));
                json!({ "key": bytes.pick(&["app", "tier"]), "operator": operator, "values": values })
            });
            json!({ "matchExpressions": expressions })
        }
    }
}

fn namespace(bytes: &mut Bytes<'_>) -> Value {
    let mut metadata = json!({ "name": bytes.pick(&NAMESPACES), "labels": { "app": bytes.pick(&["web", "db"]) } });
    if bytes.rarely(4) {
        metadata["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    }
    if bytes.rarely(3) {
        let isolation = bytes.pick(&[
            "{\"ingress\":{\"isolation\":\"DefaultDeny\"}}",
            "true",
            "{\"ingress\":{}}",
        ]);
        metadata["annotations"] = json!({ "net.beta.kubernetes.io/network-policy": isolation });
    }
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
}

fn definition(bytes: &mut Bytes<'_>) -> Value {
    let configs = [
        "{\"type\":\"macvlan\",\"ipam\":{\"type\":\"dhcp\"}}",
        "{\"plugins\":[{\"type\":\"bridge\"}]}",
        "",
        "{",
    ];
    json!({
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": { "namespace": bytes.pick(&NAMESPACES), "name": bytes.pick(&["net-a", "net-b"]) },
        "spec": { "config": bytes.pick(&configs) },
    })
}

/// Objects come, go and come again as the input says; at every commit all is as if it had always been so.
fn events(data: &[u8], objects: &[Object], options: &Options) {
    if objects.is_empty() {
        return;
    }
    // From the end, so that the events change when the objects do not.
    let backwards: Vec<u8> = data.iter().rev().take(32).copied().collect();
    let mut bytes = Bytes::new(&backwards);
    let mut index = Index::new(options.clone());
    let mut there: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    while !bytes.is_empty() {
        let object = &objects[bytes.below(objects.len())];
        match bytes.below(4) {
            // Statement 138 lets policies outlive their removal while their namespace is being deleted: history counts
            // there, and the property tests of the index keep an account of it. Here only what can come back goes.
            0 if !is_terminating(objects) => {
                index.remove(&object.key());
                there.remove(&object.key());
            }
            0..=2 => {
                index.apply(object.clone());
                there.insert(object.key(), object.clone());
            }
            _ => {
                index.commit();
                let mut fresh = Index::new(options.clone());
                there.values().rev().for_each(|object| fresh.apply(object.clone()));
                fresh.commit();
                assert!(index.local_pods().eq(fresh.local_pods()), "other local pods");
                for pod in fresh.local_pods() {
                    let (found, wanted) = (index.ruleset(pod), fresh.ruleset(pod));
                    assert_eq!(found, wanted, "{pod}: incremental is from scratch");
                    assert_eq!(index.view(pod), fresh.view(pod));
                }
            }
        }
    }
}

fn is_terminating(objects: &[Object]) -> bool {
    objects
        .iter()
        .any(|object| matches!(object, Object::Namespace(it) if it.terminating))
}
