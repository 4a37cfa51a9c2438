//! What questions cost on 10,000 policies: one connection of 10,000 pods, and everybody to everybody of 1,000 pods. For
//! people, not for CI: no number here is asserted.
//!
//! `cargo run --release -p ringfence-policy --example explain_bench`

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ringfence_model::{
    Attachment, Coverage, InterfaceName, IpBlock, Namespace, NamespacedName, NetworkName, Object, Peer, Peers, Pod,
    PodUid, Policy, PolicyKey, PolicyKind, PortMatch, PortRange, Ports, Protocol, Requirement, Rule, Scope, Selector,
};
use ringfence_policy::evaluate::{Decision, L4, Lookup, Party, Universe};
use ringfence_policy::explain::{Question, What, explain};
use ringfence_policy::reach::Reach;
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::KernelFeatures;

const POLICIES: usize = 10_000;
const PODS: usize = 10_000;
const QUESTIONS: usize = 2_000;
const REACHING: usize = 1_000;

fn main() {
    explaining();
    for namespaces in [100, 1] {
        reaching(namespaces);
    }
}

fn network() -> NetworkName {
    NetworkName::Namespaced(NamespacedName::new("default", "net-a"))
}

fn attachment(interface: &str, networks: &[NetworkName], number: usize, first: u8) -> Attachment {
    let [_, b, c, d] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    Attachment {
        interface: InterfaceName::new(interface).ok(),
        networks: networks.iter().cloned().collect(),
        primary: networks.contains(&NetworkName::Default),
        addresses: [IpAddr::V4(Ipv4Addr::new(first, b, c, d))].into(),
    }
}

fn pod(number: usize, namespaces: usize) -> Pod {
    let app = format!("app-{}", number % 20);
    let hash = format!("{:08x}", number % 500);
    let labels = [
        ("app", app.as_str()),
        ("pod-template-hash", hash.as_str()),
        ("tier", "backend"),
    ];
    Pod {
        mirror_of: None,
        uid: PodUid::new(&format!("00000000-0000-4000-8000-{number:012}")).expect("a UID"),
        name: NamespacedName::new(format!("namespace-{}", number % namespaces), format!("pod-{number}")),
        node: Some(format!("node-{}", number % 100).into()),
        labels: labels.into_iter().collect(),
        attachments: vec![
            attachment(
                "eth0",
                &[NetworkName::Default, NetworkName::Plugin("cbr0".into())],
                number,
                10,
            ),
            attachment("net1", &[network()], number, 11),
        ],
        ports: BTreeSet::new(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::new(),
    }
}

fn equal(key: &str, value: String) -> Selector {
    Selector::new(vec![Requirement::In {
        key: key.into(),
        values: vec![value.into()],
    }])
}

/// Two rules: some pods of the team's namespaces on one port, and a block on another.
fn policy(number: usize, namespaces: usize) -> Policy {
    let namespace = format!("namespace-{}", number % namespaces);
    let [_, _, high, low] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    let cidr = format!("11.0.{high}.{low}/28").parse().expect("a CIDR");
    let port = |port| Ports::OneOf(vec![PortMatch::Range(PortRange::single(Protocol::Tcp, port))]);
    let rules = vec![
        Rule {
            peers: Peers::OneOf(vec![Peer::Pods {
                namespaces: Some(equal("team", format!("team-{}", number % 7))),
                pods: equal("app", format!("app-{}", number % 19)),
            }]),
            ports: port(if number.is_multiple_of(2) { 80 } else { 81 }),
        },
        Rule {
            peers: Peers::OneOf(vec![Peer::IpBlock(IpBlock {
                cidr,
                except: Vec::new(),
            })]),
            ports: Ports::All,
        },
    ];
    Policy {
        key: PolicyKey {
            kind: PolicyKind::MultiNetworkPolicy,
            name: NamespacedName::new(namespace, format!("policy-{number}")),
        },
        coverage: Coverage::Networks([network()].into()),
        target: Some(equal("app", format!("app-{}", number % 20))),
        egress: number.is_multiple_of(3).then(|| rules.clone()),
        ingress: Some(rules),
    }
}

fn objects(pods: usize, namespaces: usize) -> Vec<Object> {
    let namespace = |number: usize| {
        let (name, team) = (format!("namespace-{number}"), format!("team-{}", number % 7));
        let labels = [("kubernetes.io/metadata.name", name.as_str()), ("team", team.as_str())];
        Object::Namespace(Namespace {
            labels: labels.into_iter().collect(),
            name: name.into(),
            terminating: false,
            isolate_ingress: false,
        })
    };
    let pods = (0..pods).map(|number| Object::Pod(pod(number, namespaces)));
    let policies = (0..POLICIES).map(|number| Object::Policy(policy(number, namespaces)));
    (0..namespaces).map(namespace).chain(pods).chain(policies).collect()
}

/// Median, p99 and the longest.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    format!("p50 {:>10.1?}   p99 {:>10.1?}   max {:>10.1?}", at(50), at(99), at(100))
}

fn question(number: usize) -> Question {
    let name = |number: usize| Party::Pod(pod(number % PODS, 100).name);
    Question {
        from: name(number * 7919),
        to: name(number * 104_729 + 1),
        network: None,
        what: What::Port {
            protocol: Protocol::Tcp,
            port: 80,
        },
        family: None,
    }
}

fn explaining() {
    println!("explain: {QUESTIONS} questions, {PODS} pods, {POLICIES} policies in 100 namespaces, two networks judged");
    let objects = objects(PODS, 100);
    let universe: Universe = objects.iter().cloned().collect();
    let mut index = Index::new(Options {
        locality: Locality::Node("node-0".into()),
        scope: Scope::Secondary,
        kernel: KernelFeatures::ALL,
        node_addresses: BTreeSet::new(),
    });
    for object in objects {
        index.apply(object);
    }
    index.commit();
    let lookup = Lookup::new(&universe);
    let [mut whole, mut looked_up, mut sliced, mut all] = [(); 4].map(|()| Vec::with_capacity(QUESTIONS));
    let mut denied = 0;
    for number in 0..QUESTIONS {
        let question = question(number);
        let parties = [question.from.clone(), question.to.clone()];
        let start = Instant::now();
        let answer = explain(&universe.slice(&parties), &question);
        whole.push(start.elapsed());
        denied += usize::from(answer.is_ok_and(|answer| answer.decision() == Decision::Deny));
        let start = Instant::now();
        std::hint::black_box(explain(&lookup.slice(&parties), &question).is_ok());
        looked_up.push(start.elapsed());
        let start = Instant::now();
        let slice = index.shared_slice(&parties);
        sliced.push(start.elapsed());
        std::hint::black_box(explain(&slice.into(), &question).is_ok());
        all.push(start.elapsed());
    }
    println!("  universe, narrowed and judged (command line)   {}", spread(whole));
    println!("  the same with a Lookup made before             {}", spread(looked_up));
    println!("  Index::slice (what the agent loop spends)      {}", spread(sliced));
    println!("  Index::slice and judging (GET /explain)        {}", spread(all));
    println!("  {denied} of {QUESTIONS} denied");
}

fn reaching(namespaces: usize) {
    println!("reach: {REACHING} pods, {POLICIES} policies in {namespaces} namespaces, 1 port");
    let universe: Universe = objects(REACHING, namespaces).into_iter().collect();
    let start = Instant::now();
    let mut reach = Reach::new(&universe, &network());
    let prepared = start.elapsed();
    let matrix = reach.matrix(L4::tcp(80));
    let judged = start.elapsed();
    let mut allowed = 0;
    for from in 0..REACHING {
        for to in 0..REACHING {
            allowed += usize::from(
                matrix
                    .cell(from, to)
                    .is_some_and(|cell| cell.decision() == Decision::Allow),
            );
        }
    }
    println!(
        "  {:.1?} in all: {prepared:.1?} to prepare, {:.1?} for the policies, {:.1?} to read {} cells ({allowed} allowed)",
        start.elapsed(),
        judged.saturating_sub(prepared),
        start.elapsed().saturating_sub(judged),
        REACHING * REACHING
    );
}
