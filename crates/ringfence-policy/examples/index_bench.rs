//! What events cost and what an index holds, by the size of the cluster. For people, not for CI: no number here is
//! asserted.
//!
//! `cargo run --release -p ringfence-policy --example index_bench`

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ringfence_model::{
    Attachment, Coverage, InterfaceName, Labels, Namespace, NamespacedName, NetworkName, Object, ObjectKey, Peer,
    Peers, Pod, PodUid, Policy, PolicyKey, PolicyKind, PortMatch, PortRange, Ports, Protocol, Requirement, Rule, Scope,
    Selector,
};
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::{KernelFeatures, transaction};

/// Peers that the one local pod's policy selects.
const SELECTED: usize = 10_000;
const EVENTS: usize = 2_000;

fn main() {
    // First, while the allocator has nothing to give again.
    memory();
    println!("cost of one peer event, one local pod that selects up to {SELECTED} peers (median / p99 of {EVENTS})");
    let rows: Vec<[Duration; 4]> = [1_000, 10_000, 100_000].into_iter().map(peer_events).collect();
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        for (name, column) in ["label change", "new pod", "unselected", "with diff"]
            .into_iter()
            .zip(0..)
        {
            let ratio = last[column].as_secs_f64() / first[column].as_secs_f64();
            println!("  100,000 against 1,000 pods, {name}: {ratio:.2}");
        }
    }
    policy_event();
    replicas();
}

fn name(text: &str) -> NamespacedName {
    NamespacedName::new("default", text)
}

fn options() -> Options {
    Options {
        locality: Locality::Node("here".into()),
        scope: Scope::Secondary,
        kernel: KernelFeatures::ALL,
        node_addresses: BTreeSet::new(),
    }
}

fn namespace_of(number: usize) -> String {
    format!("namespace-{}", number / 100)
}

/// As a decoder delivers it: every text an allocation of its own.
fn pod(number: usize, app: &str, node: &str) -> Pod {
    let [_, b, c, d] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    let labels: Labels = [
        ("app.kubernetes.io/name", format!("service-{}", number % 500)),
        ("app.kubernetes.io/instance", format!("service-{}-main", number % 500)),
        ("app.kubernetes.io/managed-by", "Helm".to_owned()),
        ("pod-template-hash", format!("{:08x}", number % 500)),
        ("app", app.to_owned()),
    ]
    .into_iter()
    .collect();
    let attachment = |interface: &str, networks: &[NetworkName], first: u8| Attachment {
        interface: InterfaceName::new(interface).ok(),
        networks: networks.iter().cloned().collect(),
        primary: networks.contains(&NetworkName::Default),
        addresses: [IpAddr::V4(Ipv4Addr::new(first, b, c, d))].into(),
    };
    let uid = format!("00000000-0000-4000-8000-{number:012}");
    Pod {
        mirror_of: None,
        uid: PodUid::new(&uid).expect("a UID"),
        name: NamespacedName::new(namespace_of(number), format!("service-{}-{number:08x}", number % 500)),
        node: Some(node.into()),
        labels,
        attachments: vec![
            attachment("eth0", &[NetworkName::Default, NetworkName::Plugin("cbr0".into())], 10),
            attachment("net1", &[NetworkName::Namespaced(name("net-a"))], 11),
        ],
        ports: BTreeSet::new(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::new(),
    }
}

fn namespace(text: &str) -> Namespace {
    Namespace {
        name: text.into(),
        labels: [("kubernetes.io/metadata.name", text)].into_iter().collect(),
        terminating: false,
        isolate_ingress: false,
    }
}

fn equal(key: &str, value: &str) -> Selector {
    Selector::new(vec![Requirement::In {
        key: key.into(),
        values: vec![value.into()],
    }])
}

fn policy(key: NamespacedName, target: Selector, app: &str, port: u16) -> Policy {
    Policy {
        key: PolicyKey {
            kind: PolicyKind::MultiNetworkPolicy,
            name: key,
        },
        coverage: Coverage::Networks([NetworkName::Namespaced(name("net-a"))].into()),
        target: Some(target),
        ingress: Some(vec![Rule {
            peers: Peers::OneOf(vec![Peer::Pods {
                namespaces: Some(Selector::everything()),
                pods: equal("app", app),
            }]),
            ports: Ports::OneOf(vec![PortMatch::Range(PortRange::single(Protocol::Tcp, port))]),
        }]),
        egress: None,
    }
}

/// An index with so many pods, of which at most [`SELECTED`] have the label that the policy of the one local pod asks
/// for; and the local pod's UID.
fn cluster(pods: usize) -> (Index, PodUid) {
    let mut index = Index::new(options());
    for number in 0..=pods / 100 {
        index.apply(Object::Namespace(namespace(&namespace_of(number * 100))));
    }
    for number in 0..pods {
        index.apply(Object::Pod(pod(
            number,
            if number < SELECTED { "client" } else { "other" },
            "elsewhere",
        )));
    }
    let local = pod(pods, "server", "here");
    let uid = local.uid.clone();
    let key = NamespacedName::new(local.name.namespace.clone(), "guard");
    index.apply(Object::Policy(policy(key, equal("app", "server"), "client", 80)));
    index.apply(Object::Pod(local));
    index.commit();
    (index, uid)
}

/// Median and p99.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn peer_events(pods: usize) -> [Duration; 4] {
    let (mut index, local) = cluster(pods);
    let elements = |index: &Index| -> usize {
        index.ruleset(&local).map_or(0, |ruleset| {
            ruleset.inet.sets.values().map(|set| set.elements.len()).sum()
        })
    };
    let before = elements(&index);
    // Objects are made before the clock runs: decoding is another crate's cost.
    let mut measure = |objects: Vec<Object>, diff: bool| {
        let mut times = Vec::with_capacity(objects.len());
        for object in objects {
            let held = index.ruleset(&local).cloned();
            let start = Instant::now();
            index.apply(object);
            let dirty = index.commit();
            let operations = if diff {
                transaction(held.as_ref(), index.ruleset(&local)).len()
            } else {
                0
            };
            times.push(start.elapsed());
            std::hint::black_box((dirty, operations));
        }
        spread(times)
    };
    let turning = |offset: usize| -> Vec<Object> {
        // Out of the set and in again, all over the cluster.
        (0..EVENTS)
            .map(|event| {
                let number = (event / 2 * 7919 + offset) % pods.min(SELECTED);
                Object::Pod(pod(
                    number,
                    if event % 2 == 0 { "other" } else { "client" },
                    "elsewhere",
                ))
            })
            .collect()
    };
    let turned = measure(turning(1), false);
    let with_diff = measure(turning(2), true);
    let new = measure(
        (0..EVENTS)
            .map(|e| Object::Pod(pod(pods + 1 + e, "client", "elsewhere")))
            .collect(),
        false,
    );
    let unselected = measure(
        (0..EVENTS)
            .map(|e| Object::Pod(pod(pods + 1 + EVENTS + e, "other", "elsewhere")))
            .collect(),
        false,
    );
    println!(
        "  {pods:>7} pods, {before:>6} elements: label in/out {:?} / {:?}, new pod {:?} / {:?}, unselected new pod {:?} / \
         {:?}, label in/out and diff {:?} / {:?}",
        turned.0, turned.1, new.0, new.1, unselected.0, unselected.1, with_diff.0, with_diff.1
    );
    [turned.0, new.0, unselected.0, with_diff.0]
}

fn policy_event() {
    let (mut index, local) = cluster(100_000);
    let view = index.view(&local).map(|view| view.name.namespace.clone());
    let key = NamespacedName::new(view.unwrap_or_else(|| "x".into()), "second");
    let policy = policy(key, equal("app", "server"), "other", 81);
    let start = Instant::now();
    index.apply(Object::Policy(policy.clone()));
    index.commit();
    println!(
        "policy that adds 90,000 peers to the 10,000, 100,000 pods in the cluster: {:?}",
        start.elapsed()
    );
    let start = Instant::now();
    index.remove(&ObjectKey::Policy(policy.key));
    index.commit();
    println!("and its removal: {:?}", start.elapsed());

    let (mut index, local) = cluster(10_000);
    let view = index.view(&local).map(|view| view.name.namespace.clone());
    let key = NamespacedName::new(view.unwrap_or_else(|| "x".into()), "guard");
    let guard = PolicyKey {
        kind: PolicyKind::MultiNetworkPolicy,
        name: key.clone(),
    };
    index.remove(&ObjectKey::Policy(guard));
    index.commit();
    let start = Instant::now();
    index.apply(Object::Policy(first_policy(key)));
    index.commit();
    println!("first policy of a pod, 10,000 peers: {:?}", start.elapsed());
}

fn first_policy(key: NamespacedName) -> Policy {
    policy(key, equal("app", "server"), "client", 80)
}

/// 250 local pods under one policy: the peers are worked out once.
fn replicas() {
    let mut index = Index::new(options());
    for number in 0..10_000 {
        index.apply(Object::Pod(pod(number, "client", "elsewhere")));
    }
    index.apply(Object::Namespace(namespace("replicas")));
    for number in 0..250 {
        let mut local = pod(20_000 + number, "server", "here");
        local.name.namespace = "replicas".into();
        index.apply(Object::Pod(local));
    }
    for number in 0..=100 {
        index.apply(Object::Namespace(namespace(&namespace_of(number * 100))));
    }
    index.apply(Object::Policy(policy(
        NamespacedName::new("replicas", "guard"),
        Selector::everything(),
        "client",
        80,
    )));
    let start = Instant::now();
    let dirty = index.commit().len();
    println!(
        "250 local replicas, 10,000 peers each: {:?} ({dirty} pods)",
        start.elapsed()
    );
    let start = Instant::now();
    index.apply(Object::Pod(pod(5, "other", "elsewhere")));
    let dirty = index.commit().len();
    println!("one peer event there: {:?} ({dirty} pods)", start.elapsed());
}

/// Resident memory in KiB, as the kernel counts it.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn memory() {
    for (pods, policies, locals) in [(10_000, 1_000, 10), (100_000, 10_000, 250)] {
        let before = resident();
        let mut index = Index::new(options());
        for number in 0..=pods / 100 {
            index.apply(Object::Namespace(namespace(&namespace_of(number * 100))));
        }
        for number in 0..pods {
            let node = if number % (pods / locals) == 0 {
                "here"
            } else {
                "elsewhere"
            };
            index.apply(Object::Pod(pod(number, ["web", "db", "cache"][number % 3], node)));
        }
        for number in 0..policies {
            let key = NamespacedName::new(namespace_of(number * 100 % pods), format!("policy-{number}"));
            index.apply(Object::Policy(policy(
                key,
                equal("app", "web"),
                ["db", "cache"][number % 2],
                80,
            )));
        }
        index.commit();
        let isolated = index.local_pods().filter(|pod| index.ruleset(pod).is_some()).count();
        println!(
            "memory with {pods} pods, {policies} policies, {locals} local pods of which {isolated} are isolated: {} MiB",
            (resident() - before) / 1024
        );
    }
}
