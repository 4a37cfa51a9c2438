//! Networks, pods and policies of the story.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use ringfence_model::Family;
use ringfence_testkit::manifest::{self, Manifest, Policy};
use ringfence_testkit::{Echo, ManifestFolder, Network, Pod, PodSpec, Topology, Wiring};

/// The first network of the CNI-Genie pods; it has a policy engine of its own.
pub(crate) const FIRST: &str = "canal";
/// Their second network; nobody guards it.
pub(crate) const SECOND: &str = "weave";
/// The second network of the Multus pods, of both families.
pub(crate) const STORAGE: &str = "lab/storage";

/// Files that the story changes.
pub(crate) const HTTPD_POLICY: &str = "policy-httpd.yaml";
pub(crate) const STORAGE_POLICY: &str = "policy-storage.yaml";

/// Ports that every pod serves.
const SERVED: [u16; 4] = [80, 8080, 5432, 22];

/// Everything that is on stage. Servers go first, then the pods, then the namespaces.
pub(crate) struct Cast {
    _servers: Vec<Echo>,
    pods: BTreeMap<&'static str, Pod>,
    pub(crate) folder: ManifestFolder,
    pub(crate) topology: Topology,
}

impl Cast {
    pub(crate) fn assemble() -> Result<Self> {
        let mut topology = Topology::new("demo")?;
        topology.network(Network::new(FIRST, Wiring::Routed))?;
        topology.network(Network::new(SECOND, Wiring::Bridge).ipv4_only())?;
        topology.network(Network::new(STORAGE, Wiring::Macvlan))?;
        let genie = |name: &str| PodSpec::genie(name).attach("eth0", FIRST).attach("eth1", SECOND);
        let multus = |name: &str| PodSpec::multus(name).attach("eth0", FIRST).attach("net1", STORAGE);
        let specs = vec![
            genie("demo/httpd").label("app", "httpd").port("http", "TCP", 80),
            genie("demo/friend").label("access", "true"),
            genie("demo/guest").label("app", "guest"),
            genie("demo/stranger").label("app", "stranger"),
            multus("lab/db").label("app", "db"),
            multus("lab/app").label("role", "app"),
            multus("lab/spy").label("role", "spy"),
        ];
        let names = ["httpd", "friend", "guest", "stranger", "db", "app", "spy"];
        let made = topology.pods(specs)?;
        let servers = Echo::start_all(&made, &SERVED)?;
        let cast = Self {
            _servers: servers,
            pods: names.into_iter().zip(made).collect(),
            folder: ManifestFolder::new()?,
            topology,
        };
        cast.save_objects()?;
        cast.guard_first_network()?;
        Ok(cast)
    }

    pub(crate) fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods
            .get(name)
            .with_context(|| format!("no pod {name} in this story"))
    }

    /// Everything that is in the API before the story begins: namespaces, the network, the pods.
    fn save_objects(&self) -> Result<()> {
        let mut namespaces = vec![manifest::namespace("demo", &[]), manifest::namespace("lab", &[])];
        for network in self.topology.networks().iter().filter(|it| it.name.contains('/')) {
            namespaces.push(network.manifest()?);
        }
        self.folder.save("namespaces.yaml", &manifest::documents(&namespaces))?;
        for pod in self.pods.values() {
            self.folder.save(&pod_file(pod.name()), &pod.manifest()?.yaml())?;
        }
        Ok(())
    }

    /// Stands for the policy engine of the first network's plugin: rules on the node that admit pods with the label to
    /// port 80 of httpd, put in by hand. Ringfence has no part in them.
    fn guard_first_network(&self) -> Result<()> {
        let address = |pod: &str, family| self.pod(pod)?.address(FIRST, family);
        let (httpd4, httpd6) = (address("httpd", Family::V4)?, address("httpd", Family::V6)?);
        let (friend4, friend6) = (address("friend", Family::V4)?, address("friend", Family::V6)?);
        self.topology.node(1)?.nft(&format!(
            "table inet canal {{
                set admitted4 {{ type ipv4_addr; elements = {{ {friend4} }}; }}
                set admitted6 {{ type ipv6_addr; elements = {{ {friend6} }}; }}
                chain forward {{
                    type filter hook forward priority 0
                    ct state established,related accept
                    ip daddr {httpd4} ip saddr @admitted4 tcp dport 80 accept
                    ip6 daddr {httpd6} ip6 saddr @admitted6 tcp dport 80 accept
                    ip daddr {httpd4} drop
                    ip6 daddr {httpd6} drop
                }}
            }}\n"
        ))
    }

    /// The first network's engine follows a label, as it does in a cluster.
    pub(crate) fn admit_on_first_network(&self, pod: &str) -> Result<()> {
        let pod = self.pod(pod)?;
        let (v4, v6) = (pod.address(FIRST, Family::V4)?, pod.address(FIRST, Family::V6)?);
        self.topology.node(1)?.nft(&format!(
            "add element inet canal admitted4 {{ {v4} }}\nadd element inet canal admitted6 {{ {v6} }}\n"
        ))
    }
}

/// The file of a pod.
pub(crate) fn pod_file(name: &str) -> String {
    format!("pod-{name}.yaml")
}

/// Admits only pods with `access: "true"` to port 80.
pub(crate) fn httpd_policy() -> Manifest {
    Policy::network("demo/httpd")
        .select(&[("app", "httpd")])
        .ingress(&[manifest::pods(&[("access", "true")])], &[manifest::port("TCP", 80)])
        .manifest()
}

/// Closes the database on the storage network in both directions but for the application.
pub(crate) fn storage_policy() -> Manifest {
    let application = [manifest::pods(&[("role", "app")])];
    Policy::multi("lab/db", &[STORAGE])
        .select(&[("app", "db")])
        .ingress(&application, &[manifest::port("TCP", 5432)])
        .egress(&application, &[manifest::port("TCP", 8080)])
        .manifest()
}
