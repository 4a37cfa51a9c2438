//! From the text of pods and policies with their annotations to the verdict: what groups A, G, J and K say of pods, and
//! which networks a policy acts on.

use ringfence_model::Reason;

use super::*;

/// A pod of namespace x with `spec` and `status` in YAML's flow style. `networks` is its network-status.
fn manifest(name: &str, labels: &str, networks: &str, spec: &str, status: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  uid: {namespace}/{name}\n  \
         labels: {{{labels}}}\n  annotations:\n    k8s.v1.cni.cncf.io/network-status: '{networks}'\nspec: {{nodeName: n, \
         {spec}}}\nstatus: {{{status}}}\n"
    )
}

fn guard(policy_for: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata:\n  name: guard\n  namespace: x\n  \
         annotations: {{k8s.v1.cni.cncf.io/policy-for: '{policy_for}'}}\nspec: {spec}\n"
    )
}

fn on(network: &str, interface: &str, addresses: &str) -> String {
    format!(r#"{{"name":"{network}","interface":"{interface}","ips":[{addresses}]}}"#)
}

/// One interface on x/net-a.
fn simple(name: &str, labels: &str, address: &str, spec: &str, status: &str) -> String {
    let networks = format!("[{}]", on("x/net-a", "net1", &format!("\"{address}\"")));
    manifest(name, labels, &networks, spec, status)
}

fn world_of(texts: &[&str]) -> World {
    index_with(options(), objects_of(&texts.concat()))
}

#[track_caller]
fn passes(world: &World, from: (&str, &str), to: (&str, &str), words: &str, expected: bool) {
    for word in words.split(' ') {
        let found = reaches(world, (from.0, "net1", from.1), (to.0, "net1", to.1), what(word));
        assert_eq!(found, expected, "{from:?} {to:?} {word}");
    }
}

const RUNNING: &str = "phase: Running";
const DB: (&str, &str) = ("x/db", "10.20.1.11");
const WEB: (&str, &str) = ("x/web", "10.20.1.10");

fn db(spec: &str, status: &str) -> String {
    simple(DB.0, "app: db", DB.1, spec, status)
}

fn web(spec: &str) -> String {
    simple(WEB.0, "app: web", WEB.1, spec, RUNNING)
}

fn from_db() -> String {
    guard(
        "net-a",
        "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}",
    )
}

#[test]
fn s021_s049_pods_on_the_nodes_network() {
    let world = world_of(&[&web(""), &db("hostNetwork: true", RUNNING), &from_db()]);
    passes(&world, DB, WEB, "tcp/80", false);
    passes(&world, WEB, DB, "tcp/80", true);
    let world = world_of(&[&web(""), &db("", RUNNING), &from_db()]);
    passes(&world, DB, WEB, "tcp/80", true);
    passes(&world, WEB, DB, "tcp/80", false);
}

#[test]
fn s132_s133_ended_and_terminating_pods() {
    for phase in ["Succeeded", "Failed"] {
        let world = world_of(&[&web(""), &db("", &format!("phase: {phase}")), &from_db()]);
        passes(&world, DB, WEB, "tcp/80", false);
        passes(&world, WEB, DB, "tcp/80", true);
    }
    let terminating = db("", RUNNING).replace(
        "  uid: x/db\n",
        "  uid: x/db\n  deletionTimestamp: '2024-01-01T00:00:00Z'\n  deletionGracePeriodSeconds: 30\n",
    );
    assert!(terminating.contains("deletionTimestamp"));
    for (phase, peer) in [("Running", true), ("Pending", true), ("Failed", false)] {
        let terminating = terminating.replace("phase: Running", &format!("phase: {phase}"));
        let world = world_of(&[&web(""), &terminating, &from_db()]);
        passes(&world, DB, WEB, "tcp/80", peer);
        passes(&world, WEB, DB, "tcp/80", !peer);
    }
}

#[test]
fn s092_s094_s095_named_ports_of_containers_and_sidecars() {
    let spec = "containers: [{ports: [{name: http, containerPort: 80}, {name: http, containerPort: 81, protocol: UDP}]}, \
                {ports: [{name: http, containerPort: 8080}]}], initContainers: [{ports: [{name: http, containerPort: \
                1}]}, {restartPolicy: Always, ports: [{name: http, containerPort: 2}]}]";
    let policy = guard(
        "net-a",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}",
    );
    let world = world_of(&[&web(spec), &db("", RUNNING), &policy]);
    passes(&world, DB, WEB, "tcp/80 tcp/8080 tcp/2", true);
    passes(&world, DB, WEB, "tcp/1 tcp/81 udp/81 udp/80", false);
    let policy = guard(
        "net-a",
        "{policyTypes: [Egress], egress: [{ports: [{port: http, protocol: UDP}]}]}",
    );
    let world = world_of(&[&web(spec), &db("", RUNNING), &policy]);
    passes(&world, DB, WEB, "udp/81", true);
    passes(&world, DB, WEB, "tcp/81 udp/80 tcp/80", false);
}

#[test]
fn s136_s137_every_address_counts_and_new_ones_are_followed() {
    let with = |addresses: &str| {
        let networks = format!("[{}]", on("net-a", "net1", addresses));
        manifest(DB.0, "app: db", &networks, "", RUNNING)
    };
    let both = manifest(
        WEB.0,
        "app: web",
        &format!("[{}]", on("net-a", "net1", r#""10.20.1.10","fd00::10""#)),
        "",
        "",
    );
    let mut world = world_of(&[&both, &with(r#""10.20.1.11","10.20.1.12","fd00::11""#), &from_db()]);
    passes(&world, DB, WEB, "tcp/80", true);
    passes(&world, (DB.0, "10.20.1.12"), WEB, "tcp/80", true);
    passes(&world, (DB.0, "fd00::11"), (WEB.0, "fd00::10"), "tcp/80", true);
    for object in objects_of(&with(r#""10.20.1.13""#)) {
        world.apply(object);
    }
    world.commit();
    passes(&world, (DB.0, "10.20.1.13"), WEB, "tcp/80", true);
    passes(&world, DB, WEB, "tcp/80", false);
    passes(&world, (DB.0, "fd00::11"), (WEB.0, "fd00::10"), "tcp/80", false);
}

#[test]
fn s146_s147_s149_s150_networks_of_a_policy() {
    let pods = [web(""), db("", RUNNING)];
    for (list, isolated, rejected) in [
        ("net-a", true, 0),
        ("x/net-a", true, 0),
        (" x/net-a ", true, 0),
        ("y/b,x/net-a", true, 0),
        (",, net-a , ,x/net-a,net-a", true, 0),
        ("a/b/c, x/net-a", true, 1),
        ("/net-a, x/, net-a", true, 2),
        ("y/net-a", false, 0),
        ("net-b", false, 0),
        ("default", false, 0),
        ("a/b/net-a", false, 1),
    ] {
        let policy = guard(list, "{ingress: []}");
        let decoded = ringfence_kube::decode(&policy, "test");
        let found = decoded[0]
            .diagnostics
            .iter()
            .filter(|it| it.reason == Reason::InvalidNetworkName);
        assert_eq!(found.count(), rejected, "{list:?}");
        let world = world_of(&[&pods[0], &pods[1], &policy]);
        passes(&world, DB, WEB, "tcp/80 ping", !isolated);
    }
}

#[test]
fn s148_s151_without_a_list() {
    let without = |kind: &str, api: &str| {
        let policy = guard("", "{ingress: []}").replace("k8s.cni.cncf.io/v1beta1", api);
        let policy = policy.replace("MultiNetworkPolicy", kind);
        let (before, after) = policy.split_once("  annotations").expect("annotations");
        format!("{before}{}", &after[after.find("spec").expect("spec")..])
    };
    let multi = without("MultiNetworkPolicy", "k8s.cni.cncf.io/v1beta1");
    for policy in [
        multi.as_str(),
        &guard("", "{ingress: []}"),
        &guard(" , ", "{ingress: []}"),
    ] {
        let world = world_of(&[&web(""), &db("", RUNNING), policy]);
        passes(&world, DB, WEB, "tcp/80", true);
        let decoded = ringfence_kube::decode(policy, "test");
        let reasons: Vec<_> = decoded[0].diagnostics.iter().map(|it| it.reason).collect();
        assert_eq!(reasons, [Reason::NoNetworks], "{policy}");
    }
    // A NetworkPolicy acts on the secondary attachments then.
    let plain = without("NetworkPolicy", "networking.k8s.io/v1");
    let world = world_of(&[&web(""), &db("", RUNNING), &plain]);
    passes(&world, DB, WEB, "tcp/80", false);
    assert_eq!(ringfence_kube::decode(&plain, "test")[0].diagnostics, []);
}

#[test]
fn s154_s158_s159_s160_s161_networks_of_pods() {
    // A bare name is one of the pod's own namespace; the same name elsewhere is another network. eth0 is the primary
    // attachment, and comes last.
    let status = |network: &str, address: &str, cluster: &str| {
        let primary = format!(r#"{{"name":"cbr0","interface":"eth0","ips":["{cluster}"],"default":true}}"#);
        format!("[{},{primary}]", on(network, "net1", &format!("\"{address}\"")))
    };
    let pods = [
        manifest(
            "x/web",
            "app: web",
            &status("net-a", "10.20.1.10", "10.244.0.10"),
            "",
            "podIP: 10.244.0.10",
        ),
        manifest(
            "x/db",
            "app: db",
            &status("x/net-a", "10.20.1.11", "10.244.0.11"),
            "",
            "podIP: 10.244.0.11",
        ),
        manifest(
            "y/db",
            "app: db",
            &status("net-a", "10.20.1.12", "10.244.0.12"),
            "",
            "podIP: 10.244.0.12",
        ),
    ];
    let everybody = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}]}]}";
    let world = world_of(&[&pods[0], &pods[1], &pods[2], &guard("net-a", everybody)]);
    passes(&world, DB, WEB, "tcp/80", true);
    passes(&world, ("y/db", "10.20.1.12"), WEB, "tcp/80", false);
    // Not the address on the cluster network.
    passes(&world, (DB.0, "10.244.0.11"), WEB, "tcp/80", false);
    let primary = |world: &World, address: &str| {
        let (from, to) = (("x/db", "eth0", address), ("x/web", "eth0", "10.244.0.10"));
        reaches(world, from, to, what("tcp/80"))
    };
    assert!(primary(&world, "10.244.0.99"), "eth0 is not covered");
    for list in ["default", "cbr0"] {
        let world = world_of(&[&pods[0], &pods[1], &pods[2], &guard(list, everybody)]);
        assert!(
            primary(&world, "10.244.0.11") && primary(&world, "10.244.0.12"),
            "{list}"
        );
        assert!(
            !primary(&world, "10.244.0.99") && !primary(&world, "10.20.1.11"),
            "{list}"
        );
        passes(&world, ("y/db", "10.20.1.12"), WEB, "tcp/80", true);
    }
}

#[test]
fn s050_s164_attachments_without_addresses() {
    let silent = |name: &str, labels: &str| {
        manifest(
            name,
            labels,
            r#"[{"name":"x/net-a","interface":"net1"}]"#,
            "",
            "podIP: 10.244.0.11",
        )
    };
    let world = world_of(&[&web(""), &silent(DB.0, "app: db"), &from_db()]);
    passes(&world, DB, WEB, "tcp/80", false);
    passes(&world, (DB.0, "10.244.0.11"), WEB, "tcp/80", false);
    passes(&world, (DB.0, "0.0.0.0"), WEB, "tcp/80", false);
    // Such an attachment is protected itself, and blocks match what it sends.
    let block = guard("net-a", "{ingress: [{from: [{ipBlock: {cidr: 10.20.1.11/32}}]}]}");
    let world = world_of(&[&silent(WEB.0, "app: web"), &silent(DB.0, "app: db"), &block]);
    passes(&world, DB, WEB, "tcp/80", true);
    passes(&world, (DB.0, "10.20.1.12"), WEB, "tcp/80", false);
}
