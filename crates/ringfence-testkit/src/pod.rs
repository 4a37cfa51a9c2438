//! Pods: what is asked for ([`PodSpec`]) and what came out of it ([`Pod`]), with the manifest that the multi-network
//! plugin and the kubelet would have left in the API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use ringfence_model::Family;
use ringfence_netns::Netns;
use serde_json::{Value, json};

use crate::manifest::Manifest;
use crate::plan;

/// Which annotations describe the pod's networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// CNI-Genie: `cni` names the plugins, `multi-ip-preferences` has one address per interface (the first one, as
    /// CNI-Genie records it, so a network of both families loses its IPv6 address there).
    Genie,
    /// Multus: `k8s.v1.cni.cncf.io/networks` and `k8s.v1.cni.cncf.io/network-status`. Secondary networks are named
    /// `namespace/name`.
    Multus,
    /// None: one interface and `status.podIPs`.
    Plain,
}

/// One interface that a pod shall have.
#[derive(Debug, Clone)]
pub struct Attach {
    /// Its name inside the pod.
    pub interface: String,
    /// The network, by the name it was given in [`crate::Topology::network`].
    pub network: String,
    /// Its addresses; `None` for the address plan's.
    pub addresses: Option<Vec<IpAddr>>,
}

/// A pod to be made. The first attachment is the primary one.
#[derive(Debug, Clone)]
pub struct PodSpec {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: u16,
    pub(crate) dialect: Dialect,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ports: Vec<(String, String, u16)>,
    pub(crate) attachments: Vec<Attach>,
}

impl PodSpec {
    /// A pod on node 1 without interfaces; `name` is `namespace/name`.
    pub fn new(dialect: Dialect, name: &str) -> Self {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        Self {
            namespace: namespace.into(),
            name: name.into(),
            node: 1,
            dialect,
            labels: BTreeMap::new(),
            ports: Vec::new(),
            attachments: Vec::new(),
        }
    }

    /// A pod of CNI-Genie.
    pub fn genie(name: &str) -> Self {
        Self::new(Dialect::Genie, name)
    }

    /// A pod of Multus.
    pub fn multus(name: &str) -> Self {
        Self::new(Dialect::Multus, name)
    }

    /// Puts it on another node (from 1).
    #[must_use]
    pub fn on_node(mut self, node: u16) -> Self {
        self.node = node;
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a named container port (`TCP`, `UDP` or `SCTP`).
    #[must_use]
    pub fn port(mut self, name: &str, protocol: &str, number: u16) -> Self {
        self.ports.push((name.into(), protocol.into(), number));
        self
    }

    /// Adds an interface with the address plan's addresses.
    #[must_use]
    pub fn attach(mut self, interface: &str, network: &str) -> Self {
        self.attachments.push(Attach {
            interface: interface.into(),
            network: network.into(),
            addresses: None,
        });
        self
    }

    /// Adds an interface with these addresses, for example one that another network has too.
    #[must_use]
    pub fn attach_with(mut self, interface: &str, network: &str, addresses: &[IpAddr]) -> Self {
        self.attachments.push(Attach {
            interface: interface.into(),
            network: network.into(),
            addresses: Some(addresses.to_vec()),
        });
        self
    }
}

/// One interface of a pod that exists.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its name inside the pod.
    pub name: String,
    /// The network it is on.
    pub network: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// A pod that exists: a network namespace with its interfaces, and a manifest. Clones share the namespace, so a
/// changed label is a changed clone.
#[derive(Debug, Clone)]
pub struct Pod {
    /// What was asked for; labels may be changed before asking for the manifest.
    pub(crate) spec: PodSpec,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.nodeName`.
    pub node_name: String,
    /// Name of its namespace in /run/netns.
    pub netns_name: String,
    /// Its open namespace.
    pub netns: Arc<Netns>,
    /// Its interfaces in the order of the spec; the first is the primary one.
    pub interfaces: Vec<Interface>,
}

impl Pod {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.spec.namespace, self.spec.name)
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        &self.spec.namespace
    }

    /// The same pod with a label changed or added.
    #[must_use]
    pub fn with_label(&self, key: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.spec.labels.insert(key.into(), value.into());
        changed
    }

    /// The same pod with a label removed.
    #[must_use]
    pub fn without_label(&self, key: &str) -> Self {
        let mut changed = self.clone();
        changed.spec.labels.remove(key);
        changed
    }

    /// The first interface on a network.
    pub fn on(&self, network: &str) -> Result<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.network == network)
            .with_context(|| format!("pod {} is not on network {network}", self.full_name()))
    }

    /// Its first address of a family on a network.
    pub fn address(&self, network: &str, family: Family) -> Result<IpAddr> {
        let interface = self.on(network)?;
        let found = interface
            .addresses
            .iter()
            .find(|address| Family::of(**address) == family);
        found
            .copied()
            .with_context(|| format!("pod {} has no {family:?} address on {network}", self.full_name()))
    }

    /// Loads nft text inside the pod, as a test that puts rules in by hand does.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.netns.run(|| crate::command::nft(script))?
    }

    /// Runs a program inside the pod's network namespace.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.netns.run(|| crate::command::run(program, arguments, ""))?
    }

    /// The Pod object: labels, the dialect's annotations, node, ports and status.
    pub fn manifest(&self) -> Result<Manifest> {
        let spec = &self.spec;
        let primary = self.interfaces.first().context("a pod without interfaces")?;
        let pod_ips: Vec<Value> = primary
            .addresses
            .iter()
            .map(|ip| json!({"ip": ip.to_string()}))
            .collect();
        let ports: Vec<Value> = spec
            .ports
            .iter()
            .map(|(name, protocol, number)| json!({"name": name, "protocol": protocol, "containerPort": number}))
            .collect();
        let mut container = json!({"name": "main", "image": "example.invalid/app:1"});
        if !ports.is_empty() {
            container["ports"] = ports.into();
        }
        let mut metadata = json!({"name": spec.name, "namespace": spec.namespace, "uid": self.uid});
        if !spec.labels.is_empty() {
            metadata["labels"] = json!(spec.labels);
        }
        let annotations = self.annotations()?;
        if !annotations.is_empty() {
            metadata["annotations"] = json!(annotations);
        }
        Ok(Manifest(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"nodeName": self.node_name, "containers": [container]},
            "status": {
                "phase": "Running",
                "podIP": primary.addresses.first().map(ToString::to_string),
                "podIPs": pod_ips,
                "startTime": "2026-01-01T00:00:00Z",
            },
        })))
    }

    fn annotations(&self) -> Result<BTreeMap<&'static str, String>> {
        match self.spec.dialect {
            Dialect::Genie => Ok(self.genie_annotations()),
            Dialect::Multus => self.multus_annotations(),
            Dialect::Plain if self.interfaces.len() == 1 => Ok(BTreeMap::new()),
            Dialect::Plain => bail!("{}: a pod without annotations has one interface", self.full_name()),
        }
    }

    /// What CNI-Genie 3 reads and writes. It numbers the entries in the order of the plugins and records an
    /// annotation only for more than one of them.
    fn genie_annotations(&self) -> BTreeMap<&'static str, String> {
        let numbered = |(position, interface): (usize, &Interface)| interface.name == format!("eth{position}");
        let plain = self.interfaces.iter().enumerate().all(numbered);
        let plugins: Vec<String> = self
            .interfaces
            .iter()
            .map(|interface| {
                if plain {
                    interface.network.clone()
                } else {
                    format!("{}@{}", interface.network, interface.name)
                }
            })
            .collect();
        let mut annotations = BTreeMap::from([("cni", plugins.join(","))]);
        if self.interfaces.len() > 1 {
            let mut entries = serde_json::Map::new();
            for interface in &self.interfaces {
                if let Some(address) = interface.addresses.first() {
                    let entry = json!({"ip": address.to_string(), "interface": interface.name});
                    entries.insert(format!("ip{}", entries.len() + 1), entry);
                }
            }
            let value = json!({"multi_entry": entries.len(), "ips": entries});
            annotations.insert("multi-ip-preferences", value.to_string());
        }
        annotations
    }

    /// What Multus 4 reads and writes.
    fn multus_annotations(&self) -> Result<BTreeMap<&'static str, String>> {
        let mut request = Vec::new();
        let mut status = Vec::new();
        for (position, interface) in self.interfaces.iter().enumerate() {
            let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
            let mut entry = json!({
                "name": interface.network,
                "interface": interface.name,
                "ips": addresses,
                "mac": plan::mac_text(interface.mac),
            });
            if position == 0 {
                entry["default"] = true.into();
            } else if !interface.network.contains('/') {
                bail!(
                    "{}: Multus names secondary networks namespace/name, not {}",
                    self.full_name(),
                    interface.network
                );
            } else if interface.name == format!("net{position}") {
                request.push(interface.network.clone());
            } else {
                request.push(format!("{}@{}", interface.network, interface.name));
            }
            entry["dns"] = json!({});
            status.push(entry);
        }
        let mut annotations = BTreeMap::new();
        if !request.is_empty() {
            annotations.insert("k8s.v1.cni.cncf.io/networks", request.join(","));
        }
        let text = serde_json::to_string_pretty(&status).context("write the network status")?;
        annotations.insert("k8s.v1.cni.cncf.io/network-status", text);
        Ok(annotations)
    }

    /// Every family that some interface has.
    pub fn families(&self) -> BTreeSet<Family> {
        let all = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        all.map(|address| Family::of(*address)).collect()
    }
}
