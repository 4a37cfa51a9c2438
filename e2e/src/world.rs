//! One test: a namespace in the cluster, pods made of network namespaces, and the agent.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use ringfence_model::Family;
use ringfence_testkit::manifest::{self, Manifest, Policy};
use ringfence_testkit::{
    Agent, Echo, Network, Outcome, Path, Pod, PodSpec, Protocol, TIMEOUT, Topology, Wiring, free_port, probe_all,
};
use serde_json::{Value, json};

use crate::api::Api;
use crate::lane::Lane;
use crate::wait::{PATIENCE, eventually};

/// Ports that every pod answers on.
const PORTS: [u16; 2] = [80, 81];
/// The cluster network.
const PRIMARY: &str = "cluster";

/// What the agent may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Pods and namespaces.
    Core,
    /// NetworkPolicies.
    NetworkPolicies,
    /// MultiNetworkPolicies.
    MultiNetworkPolicies,
    /// NetworkAttachmentDefinitions.
    Networks,
    /// Writing Events.
    Events,
}

impl Right {
    /// All that the chart gives it.
    pub const ALL: [Self; 5] = [
        Self::Core,
        Self::NetworkPolicies,
        Self::MultiNetworkPolicies,
        Self::Networks,
        Self::Events,
    ];

    fn rule(self) -> Value {
        let mut verbs = ["list", "watch"];
        let (group, resources): (_, &[&str]) = match self {
            Self::Core => ("", &["pods", "namespaces"]),
            Self::NetworkPolicies => ("networking.k8s.io", &["networkpolicies"]),
            Self::MultiNetworkPolicies => ("k8s.cni.cncf.io", &["multi-networkpolicies"]),
            Self::Networks => ("k8s.cni.cncf.io", &["network-attachment-definitions"]),
            Self::Events => {
                verbs = ["create", "patch"];
                ("events.k8s.io", &["events"])
            }
        };
        json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
    }
}

/// One test's part of a cluster. Dropped, it leaves nothing that another test's agent could take for its own.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: the agent first, so that it does not report vanished namespaces.
    agent: Option<Agent>,
    servers: Vec<(String, Echo)>,
    topology: Topology,
    /// The cluster's API.
    pub api: Api,
    /// The name of its namespace and of its node.
    pub name: String,
    /// The cluster.
    pub lane: Lane,
    kubeconfig: Option<tempfile::NamedTempFile>,
    /// Whose it is.
    account: Option<String>,
    namespaces: RefCell<BTreeSet<String>>,
    turn: Option<MutexGuard<'static, ()>>,
}

impl World {
    /// In the shared cluster. One test at a time: all of them use the same addresses, and on the cluster network that
    /// would be pods of one address in one cluster.
    pub fn shared(name: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self::make(name, Lane::shared(), Some(turn)).expect("a world in the shared cluster")
    }

    /// In a cluster of its own, which the test may break.
    pub fn own(name: &str) -> Self {
        Self::make(name, Lane::own(), None).expect("a world in a cluster of its own")
    }

    fn make(name: &str, lane: Result<Lane>, turn: Option<MutexGuard<'static, ()>>) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let lane = lane?;
        let api = Api::new(&lane.kubeconfig())?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not the name of an earlier run of the same test: without controllers, namespaces never go.
        let name = format!("{name}-{}-{count}", std::process::id());
        let mut topology = Topology::new(&name)?;
        topology.network(Network::new(PRIMARY, Wiring::Bridge).with_gateway())?;
        let world = Self {
            agent: None,
            servers: Vec::new(),
            topology,
            api,
            name,
            lane,
            kubeconfig: None,
            account: None,
            namespaces: RefCell::default(),
            turn,
        };
        world.namespace(&world.name, &[]);
        Ok(world)
    }

    /// Creates a namespace, or changes its labels to these.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) {
        self.namespaces.borrow_mut().insert(name.to_owned());
        self.apply(&manifest::namespace(name, labels));
    }

    /// Wires a network `NAMESPACE/name` of the test's namespace, without its NetworkAttachmentDefinition.
    pub fn wire(&mut self, name: &str) -> String {
        let name = format!("{}/{name}", self.name);
        self.topology
            .network(Network::new(&name, Wiring::Bridge))
            .expect("a network");
        name
    }

    /// The NetworkAttachmentDefinition of a network that is wired.
    pub fn definition(&self, network: &str) -> Manifest {
        let found = self.topology.networks().iter().find(|it| it.name == network);
        found.expect("a network that is wired").manifest().expect("a manifest")
    }

    /// A network with its NetworkAttachmentDefinition.
    pub fn network(&mut self, name: &str) -> String {
        let name = self.wire(name);
        self.apply(&self.definition(&name));
        name
    }

    /// A pod to be made in the test's namespace, with `eth0` on the cluster network and `net1` on this one.
    pub fn spec(&self, name: &str, network: &str) -> PodSpec {
        PodSpec::multus(&format!("{}/{name}", self.name))
            .label("app", name)
            .attach("eth0", PRIMARY)
            .attach("net1", network)
    }

    /// The same with these addresses on the network, for example those of a pod that has ended.
    pub fn spec_at(&self, name: &str, network: &str, addresses: &[IpAddr]) -> PodSpec {
        PodSpec::multus(&format!("{}/{name}", self.name))
            .label("app", name)
            .attach("eth0", PRIMARY)
            .attach_with("net1", network, addresses)
    }

    /// Makes a pod's namespace with servers in it, without telling the cluster.
    pub fn sandbox(&mut self, spec: PodSpec) -> Pod {
        let pod = self.topology.pod(spec).expect("a pod");
        let servers = Echo::start(&pod, &PORTS).expect("servers");
        self.servers.push((pod.netns_name.clone(), servers));
        pod
    }

    /// Makes a pod and tells the cluster.
    pub fn pod(&mut self, spec: PodSpec) -> Pod {
        let pod = self.sandbox(spec);
        self.announce(&pod);
        pod
    }

    /// A pod of another node: the agent knows it as a peer only.
    pub fn remote_pod(&mut self, spec: PodSpec) -> Pod {
        let pod = self.sandbox(spec);
        self.announce_on(&pod, "elsewhere");
        pod
    }

    /// Creates the Pod object as a controller would, then its status as kubelet and Multus would.
    pub fn announce(&self, pod: &Pod) {
        self.announce_on(pod, &self.name);
    }

    fn announce_on(&self, pod: &Pod, node: &str) {
        let mut object = pod.manifest().expect("a manifest").0;
        object["spec"]["nodeName"] = node.into();
        object["spec"]["automountServiceAccountToken"] = false.into();
        let fields = object.as_object_mut().expect("an object");
        let status = fields.remove("status").unwrap_or_default();
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        // The API server gives UIDs.
        metadata.remove("uid");
        let written = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
            .and_then(|annotations| annotations.remove("k8s.v1.cni.cncf.io/network-status"));
        self.api.create(&object).expect("created");
        let mut patch = json!({"status": status});
        if let Some(written) = written.as_ref().and_then(Value::as_str) {
            patch["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"] = as_multus_writes(written).into();
        }
        self.api.merge_status(&object, &patch).expect("status written");
    }

    /// Ends a pod: its object and its namespace go. Taken by value: whoever holds a pod holds its namespace, and the address
    /// would still be answered from there.
    #[expect(clippy::needless_pass_by_value, reason = "the pod's namespace goes with it")]
    pub fn end(&mut self, pod: Pod) {
        self.api.delete(&object_of(&pod)).expect("deleted");
        self.servers.retain(|(netns, _)| *netns != pod.netns_name);
        self.topology.remove(&pod).expect("removed");
    }

    /// Merges into a pod's object.
    pub fn change(&self, pod: &Pod, patch: &Value) {
        self.api.merge(&object_of(pod), patch).expect("merged");
    }

    /// Creates or changes.
    pub fn apply(&self, manifest: &Manifest) {
        self.api.apply(&manifest.0).expect("applied");
    }

    /// Installs a kind, and waits until the API server serves it.
    pub fn install(&self, definition: &Manifest) {
        // Deleted a moment ago it may still be there, and would go on going after it was applied.
        eventually("the former definition is gone", || match self.api.get(&definition.0) {
            Ok(found) if found["metadata"]["deletionTimestamp"].is_string() => Err("it is going".to_owned()),
            _ => Ok(()),
        });
        self.apply(definition);
        self.wait("the kind is served", || {
            let stored = self.api.get(&definition.0).map_err(|error| format!("{error:#}"))?;
            let conditions = stored["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let established = |it: &Value| it["type"] == "Established" && it["status"] == "True";
            if conditions.iter().any(established) {
                Ok(())
            } else {
                Err(stored["status"].to_string())
            }
        });
    }

    /// Deletes.
    pub fn delete(&self, manifest: &Manifest) {
        self.api.delete(&manifest.0).expect("deleted");
    }

    /// A MultiNetworkPolicy of the test's namespace for one network and the pods of one `app`.
    pub fn policy(&self, name: &str, network: &str, app: &str) -> Policy {
        Policy::multi(&format!("{}/{name}", self.name), &[network]).select(&[("app", app)])
    }

    /// Gives the agent a service account with these rights.
    pub fn grant(&mut self, rights: &[Right]) {
        let rules: Vec<Value> = rights.iter().map(|right| right.rule()).collect();
        self.grant_rules("ringfence", &rules);
    }

    /// Gives the agent this service account with these rules of a ClusterRole. Another account than before is one that
    /// nothing was ever granted to: what is taken from a role may be allowed for a moment longer.
    pub fn grant_rules(&mut self, account: &str, rules: &[Value]) {
        let name = &self.name;
        let role = format!("{name}-{account}");
        let rbac = "rbac.authorization.k8s.io";
        let objects = [
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": name}}),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules}),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": role},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": name}]}),
        ];
        for object in objects {
            self.api.apply(&object).expect("applied");
        }
        if self.account.as_deref() != Some(account) {
            self.kubeconfig = Some(self.kubeconfig_of(account).expect("a kubeconfig"));
            self.account = Some(account.to_owned());
        }
    }

    /// The administrator's with another token.
    fn kubeconfig_of(&self, account: &str) -> Result<tempfile::NamedTempFile> {
        let token = self.api.token(&self.name, account)?;
        let file = self.lane.kubeconfig();
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let (before, rest) = text.split_once("token: \"").context("a kubeconfig without token")?;
        let (_, after) = rest.split_once('"').context("a token without end")?;
        let kubeconfig = tempfile::NamedTempFile::new()?;
        std::fs::write(kubeconfig.path(), format!("{before}token: \"{token}\"{after}"))?;
        Ok(kubeconfig)
    }

    /// Starts the agent with all its rights and waits until it is ready.
    pub fn start(&mut self) {
        self.grant(&Right::ALL);
        self.launch();
        self.agent
            .as_mut()
            .expect("it runs")
            .wait_ready(PATIENCE)
            .expect("it gets ready");
    }

    /// Starts the agent with the rights that were granted, and waits for nothing.
    pub fn launch(&mut self) {
        let kubeconfig = self.kubeconfig.as_ref().expect("rights were granted").path().display();
        let arguments = [
            format!("KUBECONFIG={kubeconfig}"),
            // The pods are no containers: their namespaces are found by their paths.
            "RINGFENCE_CRI_SOCKET=off".into(),
            agent_program().expect("the agent's program").display().to_string(),
            "agent".into(),
            "--source=kube".into(),
            format!("--node={}", self.name),
            format!("--netns-path={}", self.topology.netns_path_template()),
            "--resync=1".into(),
        ];
        // env ends by becoming the agent, so that signals and the process number are the agent's.
        let agent = Agent::start(FilePath::new("/usr/bin/env"), &arguments, free_port().expect("a port"));
        self.agent = Some(agent.expect("it starts"));
    }

    /// Ends the agent.
    pub fn stop(&mut self) {
        self.agent = None;
    }

    /// The running agent.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("the agent runs")
    }

    /// Way from one pod to another over IPv4.
    pub fn path(&self, from: &Pod, to: &Pod, network: &str, port: u16) -> Path {
        Path::new(from, to, network, Family::V4, port).expect("both are on it")
    }

    /// Waits until each of these TCP probes over a network has its outcome, all in one measurement.
    #[track_caller]
    pub fn expect(&self, network: &str, cells: &[(&Pod, &Pod, u16, Outcome)]) {
        let probes: Vec<_> = cells
            .iter()
            .map(|(from, to, port, _)| self.path(from, to, network, *port).probe(Protocol::Tcp))
            .collect();
        let title = format!("traffic on {network}");
        self.wait(&title, || {
            let answers = probe_all(&probes, TIMEOUT).map_err(|error| format!("{error:#}"))?;
            let wrong: Vec<String> = cells
                .iter()
                .zip(&probes)
                .zip(&answers)
                .filter(|(((.., expected), _), answer)| answer.outcome != *expected)
                .map(|(((.., port, expected), probe), answer)| {
                    format!("{} port {port}: {} and not {expected}", probe.label, answer.outcome)
                })
                .collect();
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(wrong.join("; "))
            }
        });
    }

    /// The state of a pod of the test's namespace as the agent shows it, and the reason for it.
    pub fn state(&self, pod: &str) -> Result<(String, String), String> {
        let path = format!("/namespaces/{}/pods/{pod}?output=json", self.name);
        let answer = self.agent().get(&path).map_err(|error| format!("{error:#}"))?;
        let value: Value = serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Ok((text("state"), text("reason")))
    }

    /// Waits for that state.
    #[track_caller]
    pub fn wait_state(&self, pod: &str, expected: &str) {
        self.wait(&format!("{pod} is {expected}"), || {
            let (state, reason) = self.state(pod)?;
            if state == expected {
                Ok(())
            } else {
                Err(format!("{state}: {reason}"))
            }
        });
    }

    /// The Events of a reason in the test's namespace.
    pub fn events(&self, reason: &str) -> Result<Vec<Value>, String> {
        let like = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"namespace": self.name}});
        let mut events = self.api.list_like(&like).map_err(|error| format!("{error:#}"))?;
        events.retain(|event| event["reason"] == reason);
        Ok(events)
    }

    /// The sum of the series of a metric whose labels contain all of these texts.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64, String> {
        let answer = self.agent().get("/metrics").map_err(|error| format!("{error:#}"))?;
        let values: Vec<f64> = answer
            .body
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect();
        if values.is_empty() {
            return Err(format!("no series {name} with {labels:?}"));
        }
        Ok(values.iter().sum())
    }

    /// Waits for a log line that contains all of these.
    #[track_caller]
    pub fn wait_line(&self, parts: &[&str]) {
        self.wait(&format!("a log line with {parts:?}"), || {
            let log = self.agent().log();
            let found = log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
            found.then_some(()).ok_or_else(String::new)
        });
    }

    /// Like [`eventually`], with the agent's log where it does not happen.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
        let deadline = std::time::Instant::now() + PATIENCE;
        eventually(what, || {
            look().map_err(|why| {
                // The log is put together once, at the end.
                let late = std::time::Instant::now() >= deadline;
                let log = self.agent.as_ref().filter(|_| late).map(Agent::log).unwrap_or_default();
                format!("{why}\n{log}")
            })
        })
    }

    fn clear(&self) -> Result<()> {
        for namespace in self.namespaces.borrow().iter() {
            for (version, kind) in [
                ("v1", "Pod"),
                ("networking.k8s.io/v1", "NetworkPolicy"),
                ("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"),
            ] {
                let object = json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace}});
                self.api.delete_all_like(&object)?;
            }
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.agent = None;
        // A cluster of the test's own goes as a whole.
        if self.turn.is_some()
            && let Err(error) = self.clear()
        {
            eprintln!("e2e: {}: {error:#}", self.name);
        }
    }
}

/// Just enough of a pod's object to find it in the API.
fn object_of(pod: &Pod) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": pod.namespace(), "name": pod.name()}})
}

/// Multus writes a gateway that is none as Go prints a nil address, and in the primary entry only.
fn as_multus_writes(status: &str) -> String {
    let Ok(Value::Array(mut entries)) = serde_json::from_str(status) else {
        return status.to_owned();
    };
    if let Some(primary) = entries.first_mut() {
        primary["gateway"] = json!(["<nil>"]);
    }
    serde_json::to_string_pretty(&entries).unwrap_or_else(|_| status.to_owned())
}

/// Where the agent's program is: `RINGFENCE_E2E_AGENT`, else what `cargo build -p ringfence` has left beside the tests.
fn agent_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RINGFENCE_E2E_AGENT") {
        return Ok(path.into());
    }
    let test = std::env::current_exe().context("find the test's program")?;
    let folder = test.ancestors().nth(2).context("a test's program lies in a folder")?;
    let program = folder.join("ringfence");
    ensure!(
        program.exists(),
        "{} is missing: run 'cargo build -p ringfence'",
        program.display()
    );
    Ok(program)
}
