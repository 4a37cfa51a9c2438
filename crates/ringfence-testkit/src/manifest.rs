//! Kubernetes manifests as text, by builders.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::yaml;

/// One Kubernetes object. The value may be edited at will.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest(pub Value);

impl Manifest {
    /// As YAML.
    pub fn yaml(&self) -> String {
        yaml::write(&self.0)
    }

    /// As JSON.
    pub fn json(&self) -> String {
        self.0.to_string()
    }
}

/// Several objects as one YAML file.
pub fn documents(manifests: &[Manifest]) -> String {
    let texts: Vec<String> = manifests.iter().map(Manifest::yaml).collect();
    texts.join("---\n")
}

/// A namespace with labels.
pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Manifest {
    let mut metadata = json!({"name": name});
    if !labels.is_empty() {
        metadata["labels"] = map(labels);
    }
    Manifest(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
}

/// A NetworkAttachmentDefinition whose configuration names one plugin.
pub fn network(namespace: &str, name: &str, plugin: &str) -> Manifest {
    let config = json!({"cniVersion": "1.0.0", "name": name, "type": plugin});
    Manifest(json!({
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"config": config.to_string()},
    }))
}

/// A NetworkPolicy or MultiNetworkPolicy that is being built. Without any rule it denies what its types name.
#[derive(Debug, Clone)]
pub struct Policy {
    multi: bool,
    namespace: String,
    name: String,
    networks: Option<String>,
    selector: Value,
    types: Vec<&'static str>,
    ingress: Vec<Value>,
    egress: Vec<Value>,
}

impl Policy {
    fn new(multi: bool, name: &str) -> Self {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        Self {
            multi,
            namespace: namespace.into(),
            name: name.into(),
            networks: None,
            selector: json!({}),
            types: Vec::new(),
            ingress: Vec::new(),
            egress: Vec::new(),
        }
    }

    /// A NetworkPolicy called `namespace/name` that selects every pod of its namespace.
    pub fn network(name: &str) -> Self {
        Self::new(false, name)
    }

    /// A MultiNetworkPolicy for these networks.
    pub fn multi(name: &str, networks: &[&str]) -> Self {
        Self::new(true, name).policy_for(networks)
    }

    /// Sets the annotation `k8s.v1.cni.cncf.io/policy-for`.
    #[must_use]
    pub fn policy_for(mut self, networks: &[&str]) -> Self {
        self.networks = Some(networks.join(","));
        self
    }

    /// Selects pods by labels.
    #[must_use]
    pub fn select(mut self, labels: &[(&str, &str)]) -> Self {
        self.selector = json!({"matchLabels": map(labels)});
        self
    }

    /// Isolates ingress, and admits nothing unless rules follow.
    #[must_use]
    pub fn isolate_ingress(mut self) -> Self {
        if !self.types.contains(&"Ingress") {
            self.types.push("Ingress");
        }
        self
    }

    /// Isolates egress, and lets nothing out unless rules follow.
    #[must_use]
    pub fn isolate_egress(mut self) -> Self {
        if !self.types.contains(&"Egress") {
            self.types.push("Egress");
        }
        self
    }

    /// Admits these peers to these ports; an empty list stands for all of them.
    #[must_use]
    pub fn ingress(mut self, peers: &[Value], ports: &[Value]) -> Self {
        self.ingress.push(rule("from", peers, ports));
        self.isolate_ingress()
    }

    /// Lets out to these peers and ports; an empty list stands for all of them.
    #[must_use]
    pub fn egress(mut self, peers: &[Value], ports: &[Value]) -> Self {
        self.egress.push(rule("to", peers, ports));
        self.isolate_egress()
    }

    /// The object.
    pub fn manifest(&self) -> Manifest {
        let (version, kind) = if self.multi {
            ("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy")
        } else {
            ("networking.k8s.io/v1", "NetworkPolicy")
        };
        let mut metadata = json!({"name": self.name, "namespace": self.namespace});
        if let Some(networks) = &self.networks {
            metadata["annotations"] = json!({"k8s.v1.cni.cncf.io/policy-for": networks});
        }
        let mut spec = json!({"podSelector": self.selector, "policyTypes": self.types});
        if !self.ingress.is_empty() {
            spec["ingress"] = json!(self.ingress);
        }
        if !self.egress.is_empty() {
            spec["egress"] = json!(self.egress);
        }
        Manifest(json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}))
    }
}

/// Peer: pods of the policy's own namespace with these labels.
pub fn pods(labels: &[(&str, &str)]) -> Value {
    json!({"podSelector": {"matchLabels": map(labels)}})
}

/// Peer: all pods of namespaces with these labels.
pub fn namespaces(labels: &[(&str, &str)]) -> Value {
    json!({"namespaceSelector": {"matchLabels": map(labels)}})
}

/// Peer: pods with these labels in namespaces with those.
pub fn pods_in(namespaces: &[(&str, &str)], labels: &[(&str, &str)]) -> Value {
    json!({"namespaceSelector": {"matchLabels": map(namespaces)}, "podSelector": {"matchLabels": map(labels)}})
}

/// Peer: a block of addresses.
pub fn block(cidr: &str, except: &[&str]) -> Value {
    if except.is_empty() {
        json!({"ipBlock": {"cidr": cidr}})
    } else {
        json!({"ipBlock": {"cidr": cidr, "except": except}})
    }
}

/// One port.
pub fn port(protocol: &str, number: u16) -> Value {
    json!({"protocol": protocol, "port": number})
}

/// A range of ports.
pub fn ports(protocol: &str, first: u16, last: u16) -> Value {
    json!({"protocol": protocol, "port": first, "endPort": last})
}

/// A port by its name in the pod.
pub fn named_port(protocol: &str, name: &str) -> Value {
    json!({"protocol": protocol, "port": name})
}

fn rule(direction: &str, peers: &[Value], ports: &[Value]) -> Value {
    let mut rule = serde_json::Map::new();
    if !peers.is_empty() {
        rule.insert(direction.into(), peers.into());
    }
    if !ports.is_empty() {
        rule.insert("ports".into(), ports.into());
    }
    Value::Object(rule)
}

fn map(labels: &[(&str, &str)]) -> Value {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    json!(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_reads_as_people_write_it() {
        let policy = Policy::network("demo/httpd")
            .select(&[("app", "httpd")])
            .ingress(&[pods(&[("access", "true")])], &[port("TCP", 80)]);
        let expected = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: httpd
  namespace: demo
spec:
  podSelector:
    matchLabels:
      app: httpd
  policyTypes:
    - Ingress
  ingress:
    - from:
        - podSelector:
            matchLabels:
              access: "true"
      ports:
        - protocol: TCP
          port: 80
"#;
        assert_eq!(policy.manifest().yaml(), expected);
    }

    #[test]
    fn rules_without_peers_or_ports_leave_the_fields_out() {
        let policy = Policy::multi("x/out", &["x/a", "x/b"])
            .egress(&[], &[])
            .isolate_ingress();
        assert_eq!(
            policy.manifest().0["spec"],
            json!({"podSelector": {}, "policyTypes": ["Egress", "Ingress"], "egress": [{}]})
        );
        assert_eq!(
            policy.manifest().0["metadata"]["annotations"]["k8s.v1.cni.cncf.io/policy-for"],
            "x/a,x/b"
        );
        let text = documents(&[namespace("x", &[("team", "a")]), network("x", "a", "macvlan")]);
        assert_eq!(text.matches("---\n").count(), 1);
        assert!(text.contains("type\":\"macvlan"), "{text}");
    }
}
