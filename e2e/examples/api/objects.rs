//! The objects, as kubelets, Multus and people would write them.

use std::net::Ipv4Addr;

use ringfence_testkit::manifest::{Policy, pods, port};
use serde_json::{Value, json};

/// Of everything.
pub const NAMESPACE: &str = "bench";
/// The agent's node.
pub const NODE: &str = "node-0";
const NETWORK: &str = "bench/net-a";
const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

/// Isolates the pods with these labels and lets a tenth of the remote pods in.
pub fn guard(name: &str, labels: &[(&str, &str)]) -> Value {
    peers_of(&format!("guard-{name}"), labels, ("group", "group-0"))
}

/// Isolates the pods with these labels and lets in who has that one.
pub fn peers_of(name: &str, labels: &[(&str, &str)], peers: (&str, &str)) -> Value {
    Policy::multi(&format!("{NAMESPACE}/{name}"), &[NETWORK])
        .select(labels)
        .ingress(&[pods(&[peers])], &[port("TCP", 8080)])
        .manifest()
        .0
}

/// The name of a pod of this node.
pub fn local(number: usize) -> String {
    format!("local-{number}")
}

fn address(first: [u8; 4], number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes(first) + u32::try_from(number).unwrap_or(0))
}

/// An object of the size that real ones have, without its addresses, and what gives it them: Multus writes them when the
/// pod exists.
pub fn pod(name: &str, node: &str, labels: &[(&str, &str)], number: usize) -> (Value, Value) {
    let container = |name: &str| {
        let environment: Vec<Value> = (0..20)
            .map(|number| json!({"name": format!("SETTING_{number}"), "value": format!("the value of setting {number}")}))
            .collect();
        let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
        json!({"name": name, "image": "example.invalid/application:1.2.3", "args": ["--listen=:8080", "--log-format=json"],
            "ports": [{"name": "web", "containerPort": 8080}], "env": environment, "readinessProbe": probe,
            "livenessProbe": probe, "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]})
    };
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels,
            "annotations": {"k8s.v1.cni.cncf.io/networks": NETWORK}},
        "spec": {"nodeName": node, "automountServiceAccountToken": false, "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [container("application"), container("proxy")]},
    });
    let (primary, second) = (address([10, 128, 0, 2], number), address([10, 20, 0, 2], number));
    let interfaces = json!([
        {"name": "cluster", "interface": "eth0", "ips": [primary], "default": true, "dns": {}, "gateway": ["<nil>"]},
        {"name": NETWORK, "interface": "net1", "ips": [second], "mac": "02:00:00:00:00:01", "dns": {}},
    ]);
    let status = json!({
        "metadata": {"annotations": {STATUS: serde_json::to_string_pretty(&interfaces).unwrap_or_default()}},
        "status": {"phase": "Running", "podIP": primary, "podIPs": [{"ip": primary}],
            "startTime": "2026-01-01T00:00:00Z"},
    });
    (object, status)
}
