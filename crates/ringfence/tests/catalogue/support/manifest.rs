//! Pods, namespaces and policies as text. They go through the real decoder, so a test says what a user can write.
//!
//! Address plan: `shop/blue` is 10.20.0.0/16 and fd00:20::/64 on interface `net1`, `shop/green` 10.30.0.0/16 and
//! fd00:30::/64 on `net2`.

use ringfence_testkit::manifest::{Manifest, namespace as plain_namespace};
use serde_json::{Value, json};

/// The network that most tests protect.
pub const BLUE: &str = "shop/blue";
/// The other one.
pub const GREEN: &str = "shop/green";

/// A pod that is being written.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The manifest without its network status; to be edited at will.
    pub value: Value,
    status: Vec<Value>,
}

/// A running pod `namespace/name` on node `n1`, without any interface. Without a UID: it goes by its name then.
pub fn pod(name: &str) -> Pod {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    Pod {
        value: json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {}},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "example.invalid/app:1"}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"},
        }),
        status: Vec::new(),
    }
}

/// A pod on network blue with this last octet and labels (`app=web,tier=front`), in both families.
pub fn blue(name: &str, host: u8, labels: &str) -> Pod {
    let (four, six) = (format!("10.20.0.{host}"), format!("fd00:20::{host}"));
    pod(name).labels(labels).on("net1", BLUE, &[&four, &six])
}

impl Pod {
    pub fn labels(mut self, text: &str) -> Self {
        for (key, value) in pairs(text) {
            self.value["metadata"]["labels"][key] = value.into();
        }
        self
    }

    pub fn uid(mut self, uid: &str) -> Self {
        self.value["metadata"]["uid"] = uid.into();
        self
    }

    /// Another entry of the network status.
    pub fn on(mut self, interface: &str, network: &str, addresses: &[&str]) -> Self {
        self.status
            .push(json!({"name": network, "interface": interface, "ips": addresses}));
        self
    }

    /// A named container port.
    pub fn port(mut self, name: &str, protocol: &str, number: u16) -> Self {
        let container = &mut self.value["spec"]["containers"][0];
        if container["ports"].is_null() {
            container["ports"] = json!([]);
        }
        let port = json!({"name": name, "protocol": protocol, "containerPort": number});
        container["ports"].as_array_mut().expect("a list").push(port);
        self
    }

    pub fn phase(mut self, phase: &str) -> Self {
        self.value["status"]["phase"] = phase.into();
        self
    }

    /// Day of January 2026 on which it started.
    pub fn started(mut self, day: u8) -> Self {
        self.value["status"]["startTime"] = format!("2026-01-{day:02}T00:00:00Z").into();
        self
    }

    pub fn yaml(&self) -> String {
        let mut value = self.value.clone();
        if !self.status.is_empty() {
            let status = Value::Array(self.status.clone()).to_string();
            value["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/network-status": status});
        }
        Manifest(value).yaml()
    }
}

/// A namespace with labels (`team=red`).
pub fn namespace(name: &str, labels: &str) -> String {
    plain_namespace(name, &pairs(labels).collect::<Vec<_>>()).yaml()
}

/// The same while it is being deleted.
pub fn terminating(name: &str) -> String {
    let mut manifest = plain_namespace(name, &[]);
    manifest.0["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z".into();
    manifest.yaml()
}

/// A MultiNetworkPolicy `namespace/name` for these networks (`shop/blue,shop/green`); `spec` is YAML in flow style.
pub fn multi(name: &str, networks: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
         annotations:\n    k8s.v1.cni.cncf.io/policy-for: '{networks}'\nspec: {spec}\n"
    )
}

/// A policy for network blue that selects `app: web` of namespace shop and admits this list of peers, any port.
pub fn admits(name: &str, peers: &str) -> String {
    let spec =
        format!("{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Ingress], ingress: [{{from: {peers}}}]}}");
    multi(name, BLUE, &spec)
}

/// The same for egress.
pub fn lets_out(name: &str, peers: &str) -> String {
    let spec =
        format!("{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{{to: {peers}}}]}}");
    multi(name, BLUE, &spec)
}

/// Several documents as one file.
pub fn file<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    texts.into_iter().map(String::as_str).collect::<Vec<_>>().join("---\n")
}

/// Every order of some things.
pub fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (position, item) in items.iter().enumerate() {
        let mut rest = items.to_vec();
        rest.remove(position);
        for mut order in orders(&rest) {
            order.insert(0, item.clone());
            all.push(order);
        }
    }
    all
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| item.split_once('=').expect("key=value"))
}
