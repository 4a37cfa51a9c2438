//! Manifests for the tests: the world in which each case stands, and short ways to write policies and pods.

use std::fmt::Write as _;

/// Two namespaces, the network `x/blue` with three pods on it. Whatever a case adds is the only thing to be found.
pub fn base() -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {team: red}}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: y, labels: {team: blue}}\n---\n\
         apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: blue, namespace: x}\n\
         spec: {config: '{\"type\": \"macvlan\", \"ipam\": {\"type\": \"whereabouts\"}}'}\n",
    );
    for pod in [
        pod("x/server", 10, "app: server").on("x/blue").spec(
            "containers: [{ports: [{name: web, containerPort: 80}, {name: media, containerPort: 81, protocol: UDP}]}]",
        ),
        pod("x/friend", 11, "access: 'true'").on("x/blue"),
        pod("y/guest", 12, "access: 'true', app: guest").on("x/blue"),
    ] {
        text.push_str(&pod.yaml());
    }
    text
}

/// A pod that is being written.
pub struct Pod {
    name: String,
    number: u16,
    labels: String,
    status: Vec<String>,
    spec: String,
    rest: String,
}

/// A pod with an address on the cluster network.
pub fn pod(name: &str, number: u16, labels: &str) -> Pod {
    Pod {
        name: name.to_owned(),
        number,
        labels: labels.to_owned(),
        status: Vec::new(),
        spec: "containers: []".to_owned(),
        rest: String::new(),
    }
}

impl Pod {
    /// Attached to a network, with an IPv4 address there.
    pub fn on(self, network: &str) -> Self {
        let octet = self.status.len() + 20;
        let address = format!("10.{octet}.{}.{}", self.number / 256, self.number % 256);
        self.with(network, &format!("\"ips\": [\"{address}\"]"))
    }

    /// Attached to a network, with these fields beside name and interface.
    pub fn with(mut self, network: &str, fields: &str) -> Self {
        let interface = format!("net{}", self.status.len() + 1);
        self.status.push(format!(
            "{{\"name\": \"{network}\", \"interface\": \"{interface}\", {fields}}}"
        ));
        self
    }

    /// An entry of network-status as it is.
    pub fn entry(mut self, entry: &str) -> Self {
        self.status.push(entry.to_owned());
        self
    }

    /// Its spec.
    pub fn spec(mut self, spec: &str) -> Self {
        spec.clone_into(&mut self.spec);
        self
    }

    /// More lines of its metadata.
    pub fn metadata(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.rest);
        self
    }

    /// The document.
    pub fn yaml(&self) -> String {
        let (namespace, name) = self.name.split_once('/').expect("namespace/name");
        let address = format!("10.1.{}.{}", self.number / 256, self.number % 256);
        let mut text = format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {{{}}}\n{}",
            self.labels, self.rest
        );
        if !self.status.is_empty() {
            let default =
                format!("{{\"name\": \"cbr0\", \"interface\": \"eth0\", \"ips\": [\"{address}\"], \"default\": true}}");
            writeln!(
                text,
                "  annotations:\n    k8s.v1.cni.cncf.io/network-status: '[{default}, {}]'",
                self.status.join(", ")
            )
            .expect("a String takes it");
        }
        writeln!(text, "spec: {{{}}}\nstatus: {{podIP: {address}}}", self.spec).expect("a String takes it");
        text
    }
}

/// `MultiNetworkPolicy NAMESPACE/NAME` for some networks.
pub fn multi(name: &str, networks: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "---\napiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
         annotations: {{k8s.v1.cni.cncf.io/policy-for: '{networks}'}}\nspec: {spec}\n"
    )
}

/// `NetworkPolicy NAMESPACE/NAME`.
pub fn standard(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n"
    )
}

/// A definition of MultiNetworkPolicy whose port entries have these fields.
pub fn definition(fields: &str) -> String {
    let rules = format!("{{items: {{properties: {{ports: {{items: {{properties: {{{fields}}}}}}}}}}}}}");
    format!(
        "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: \
         multi-networkpolicies.k8s.cni.cncf.io}}\nspec:\n  group: k8s.cni.cncf.io\n  names: {{kind: MultiNetworkPolicy}}\n  \
         versions:\n  - name: v1beta1\n    served: true\n    schema: {{openAPIV3Schema: {{properties: {{spec: {{properties: \
         {{ingress: {rules}, egress: {rules}}}}}}}}}}}\n"
    )
}
