//! One test in the full cluster: a namespace, networks of Multus, pods that kubelets run.
//!
//! The agent is there already: `hack/e2e` installs the chart. The test program runs in the network namespace of the control
//! plane, where the API server and the nodes are reached.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::{Context as _, Result, bail};
use ringfence_testkit::manifest::{self, Manifest};
use ringfence_testkit::{Outcome, run_program};
use serde_json::{Value, json};

use crate::api::Api;
use crate::lane::Lane;
use crate::wait::eventually;

/// The image that the cluster has.
const IMAGE: &str = "localhost/agnhost:1";
/// Its server listens here, over TCP and UDP.
pub const PORT: u16 = 8080;
const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

/// A test's part of the full cluster. Its namespace goes with it.
#[derive(Debug)]
pub struct Site {
    /// The cluster's API.
    pub api: Api,
    /// Name of the namespace.
    pub name: String,
    /// The cluster.
    pub lane: Lane,
    _turn: Turn,
}

/// A running pod.
#[derive(Debug, Clone)]
pub struct RealPod {
    /// Its name.
    pub name: String,
    /// Its first IPv4 address on each interface.
    pub addresses: BTreeMap<String, IpAddr>,
}

impl RealPod {
    /// The address of an interface.
    #[track_caller]
    pub fn on(&self, interface: &str) -> IpAddr {
        *self
            .addresses
            .get(interface)
            .unwrap_or_else(|| panic!("{} has no {interface}", self.name))
    }
}

/// A running static pod. It goes with its file.
#[derive(Debug)]
pub struct StaticPod {
    /// As the API knows it.
    pub pod: RealPod,
    file: PathBuf,
}

impl Drop for StaticPod {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            eprintln!("e2e: {}: {error}", self.file.display());
        }
    }
}

/// Tests run side by side but for those that break a node.
#[derive(Debug)]
enum Turn {
    Shared(#[expect(dead_code, reason = "held until the test is over")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held until the test is over")] RwLockWriteGuard<'static, ()>),
}

static TURN: RwLock<()> = RwLock::new(());

impl Site {
    /// In the cluster that `hack/e2e` has brought up.
    pub fn new(name: &str) -> Self {
        Self::make(name, Turn::Shared(TURN.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// With no other test at the same time.
    pub fn alone(name: &str) -> Self {
        Self::make(name, Turn::Alone(TURN.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn make(name: &str, turn: Turn) -> Self {
        let lane = Lane::shared().expect("a cluster");
        let api = Api::new(&lane.kubeconfig()).expect("its API");
        let name = format!("{name}-{}", std::process::id());
        api.apply(&manifest::namespace(&name, &[]).0).expect("a namespace");
        let site = Self {
            api,
            name,
            lane,
            _turn: turn,
        };
        // Without one pods are refused.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": site.name}});
        eventually("the service account", || {
            site.api.get(&account).map_err(|error| format!("{error:#}"))
        });
        site
    }

    /// A network of one node's pods: a bridge. Gives its name as policies call it.
    pub fn bridge(&self, name: &str) -> String {
        // The bridge is the node's, and 15 characters are all that a name may have.
        let bridge = format!("br{}", std::process::id() % 100_000);
        self.network(name, &json!({"type": "bridge", "bridge": format!("{bridge}{name}")}))
    }

    /// A network of both nodes' pods, on the wire between them.
    pub fn macvlan(&self, name: &str) -> String {
        self.network(name, &json!({"type": "macvlan", "master": "eth0", "mode": "bridge"}))
    }

    fn network(&self, name: &str, plugin: &Value) -> String {
        // Addresses of its own: all tests' networks of the wire are on one wire.
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut config = plugin.clone();
        config["cniVersion"] = "1.0.0".into();
        config["name"] = name.into();
        // One folder for both nodes, so that addresses are the cluster's as with a cluster-wide IPAM.
        let folder = self.lane.folder().join("ipam").join(&self.name).join(name);
        config["ipam"] = json!({"type": "host-local", "dataDir": folder,
            "ranges": [[{"subnet": format!("10.20.{number}.0/24")}]]});
        let object = json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name, "namespace": self.name}, "spec": {"config": config.to_string()}});
        self.api.apply(&object).expect("a network");
        format!("{}/{name}", self.name)
    }

    /// Runs a pod with `eth0` and these further networks (`net1`, `net2`, …) on a node, labelled `app: NAME`.
    pub fn pod(&self, node: &str, name: &str, networks: &[&str]) -> RealPod {
        let mut object = self.described(name, networks);
        object["spec"]["nodeName"] = node.into();
        self.api.create(&object).expect("created");
        RealPod {
            name: name.into(),
            addresses: self.wait_ready(&object),
        }
    }

    /// The same of a static pod, which the node's kubelet has from a file. In the API it has the node's name as well.
    pub fn static_pod(&self, node: &str, name: &str, networks: &[&str]) -> StaticPod {
        let file = self.lane.folder().join(node).join("manifests");
        let file = file.join(format!("{}-{name}.json", self.name));
        let object = self.described(name, networks);
        fs::write(&file, object.to_string()).expect("written");
        let name = format!("{name}-{node}");
        let mut pod = StaticPod {
            file,
            pod: RealPod {
                name,
                addresses: BTreeMap::new(),
            },
        };
        pod.pod.addresses = self.wait_ready(&self.object_of(&pod.pod));
        pod
    }

    fn described(&self, name: &str, networks: &[&str]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": self.name, "labels": {"app": name},
                "annotations": {"k8s.v1.cni.cncf.io/networks": networks.join(",")}},
            "spec": {
                "terminationGracePeriodSeconds": 0, "dnsPolicy": "Default",
                "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": "Never",
                    "args": ["netexec", format!("--http-port={PORT}"), format!("--udp-port={PORT}")],
                    "readinessProbe": {"httpGet": {"path": "/hostname", "port": PORT}, "periodSeconds": 1}}],
            },
        })
    }

    /// Waits until the pod is ready and Multus has recorded its addresses.
    fn wait_ready(&self, object: &Value) -> BTreeMap<String, IpAddr> {
        eventually(&format!("pod {} is ready", object["metadata"]["name"]), || {
            let pod = self.api.get(object).map_err(|error| format!("{error:#}"))?;
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if !conditions
                .iter()
                .any(|it| it["type"] == "Ready" && it["status"] == "True")
            {
                return Err(pod["status"].to_string());
            }
            addresses(&pod).map_err(|error| format!("{error:#}: {pod}"))
        })
    }

    /// Deletes a pod and waits until its name is free.
    pub fn remove(&self, pod: &RealPod) {
        let object = self.object_of(pod);
        self.api.delete(&object).expect("deleted");
        eventually(&format!("pod {} is gone", pod.name), || match self.api.get(&object) {
            Ok(found) => Err(found["metadata"].to_string()),
            Err(_) => Ok(()),
        });
    }

    /// Creates or changes.
    pub fn apply(&self, manifest: &Manifest) {
        self.api.apply(&manifest.0).expect("applied");
    }

    /// Deletes.
    pub fn delete(&self, manifest: &Manifest) {
        self.api.delete(&manifest.0).expect("deleted");
    }

    /// Just enough of a pod's object to find it in the API.
    pub fn object_of(&self, pod: &RealPod) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod.name, "namespace": self.name}})
    }

    /// Asks from inside a pod, over TCP.
    pub fn ask(&self, from: &RealPod, to: IpAddr) -> Result<Outcome> {
        let target = format!("{to}:{PORT}");
        let words = [
            "exec",
            "-n",
            &self.name,
            &from.name,
            "--",
            "/bin/agnhost",
            "connect",
            &target,
            "--timeout=1s",
        ];
        let output = Command::new(self.lane.folder().join("kubectl"))
            .args(words)
            .output()
            .context("run kubectl")?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        match text.lines().next().unwrap_or_default() {
            _ if output.status.success() => Ok(Outcome::Reached),
            "TIMEOUT" => Ok(Outcome::Dropped),
            "REFUSED" => Ok(Outcome::Refused),
            _ => bail!("{} asks {target}: {text}", from.name),
        }
    }

    /// Runs kubectl as the cluster's administrator, and gives what it printed.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let program = self.lane.folder().join("kubectl");
        run_program(&program.display().to_string(), words, "")
    }

    /// Nothing that a node's pods send reaches the API server any more, until the value is dropped. The node's kubelet and
    /// its network plugins are not concerned.
    pub fn cut_pods_off(&self, node: &str) -> Result<Cut> {
        let netns = format!("/run/netns/rf-e2e-{}-{node}", self.lane.id()?);
        let cut = Cut { netns };
        // What a pod sends is forwarded, what the kubelet sends is not.
        cut.nft(
            "table inet cut-off {
                chain forward { type filter hook forward priority -200; ip daddr 10.0.0.1 drop; }
            }",
        )?;
        Ok(cut)
    }

    /// What a node's kubelet says of itself and of its probes (`/metrics/probes`), asked over the API server.
    pub fn kubelet_metrics(&self, node: &str) -> Result<String> {
        self.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/metrics/probes")])
    }

    /// Waits until each of these has its outcome, all in one round.
    #[track_caller]
    pub fn expect(&self, cells: &[(&RealPod, IpAddr, Outcome)]) {
        eventually("traffic", || {
            let mut wrong = Vec::new();
            for (from, to, expected) in cells {
                let found = self.ask(from, *to).map_err(|error| format!("{error:#}"))?;
                if found != *expected {
                    wrong.push(format!("{} asks {to}: {found} and not {expected}", from.name));
                }
            }
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(wrong.join("; "))
            }
        });
    }
}

/// See [`Site::cut_pods_off`].
#[derive(Debug)]
pub struct Cut {
    netns: String,
}

impl Cut {
    fn nft(&self, script: &str) -> Result<String> {
        let netns = format!("--net={}", self.netns);
        run_program("nsenter", &[&netns, "nft", "-f", "-"], script)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Err(error) = self.nft("delete table inet cut-off") {
            eprintln!("e2e: {}: {error:#}", self.netns);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}});
        if let Err(error) = self.api.delete(&namespace) {
            eprintln!("e2e: {}: {error:#}", self.name);
        }
    }
}

/// What Multus has recorded.
fn addresses(pod: &Value) -> Result<BTreeMap<String, IpAddr>> {
    let text = pod["metadata"]["annotations"][STATUS]
        .as_str()
        .context("no network-status")?;
    let entries: Vec<Value> = serde_json::from_str(text)?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let interface = entry["interface"].as_str().context("an entry without interface")?;
        let address = entry["ips"][0].as_str().context("an entry without address")?;
        found.insert(interface.to_owned(), address.parse()?);
    }
    Ok(found)
}
