//! The output is a function of the current objects: whatever came before, in whatever order, how often and in how many
//! commits, an index has the rulesets of a fresh one that was given what is there now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ringfence_model::{
    Attachment, Coverage, IpBlock, NamedPort, Namespace, NamespacedName, Network, NetworkName, Object, ObjectKey, Peer,
    Peers, Pod, PodUid, Policy, PolicyKey, PolicyKind, PortMatch, PortName, PortRange, Ports, Protocol, Requirement,
    Rule, Scope, Selector,
};
use ringfence_policy::{Index, Locality, Options, PodView, TargetFacts};
use ringfence_ruleset::{KernelFeatures, Ruleset, check};

use crate::support::{addr, interface, network, uid};

const NAMESPACES: [&str; 2] = ["x", "y"];
const PODS: [&str; 6] = ["u0", "u1", "u2", "u3", "u4", "u5"];
const NETWORKS: [&str; 5] = ["default", "canal", "default/net-a", "default/net-b", "default/absent"];
/// Few, so that pods contest them and single-address blocks hit them.
pub const ADDRESSES: [&str; 6] = [
    "10.20.1.1",
    "10.20.1.2",
    "10.20.1.3",
    "fd00:20::1",
    "fd00:20::2",
    "fd00:20::3",
];

#[derive(Debug, Clone)]
enum Event {
    Apply(Box<Object>),
    Remove(ObjectKey),
    Facts(PodUid, Option<TargetFacts>),
    Commit,
}

fn requirement(keys: &'static [(&'static str, [&'static str; 2])]) -> impl Strategy<Value = Requirement> {
    (select(keys), any::<[bool; 2]>(), 0..4).prop_map(|((key, values), chosen, operator)| {
        let mut some: Vec<_> = values
            .iter()
            .zip(chosen)
            .filter(|(_, take)| *take)
            .map(|(v, _)| (*v).into())
            .collect();
        if some.is_empty() {
            some = vec![values[0].into()];
        }
        some.sort();
        let key = key.into();
        match operator {
            0 => Requirement::In { key, values: some },
            1 => Requirement::NotIn { key, values: some },
            2 => Requirement::Exists(key),
            _ => Requirement::DoesNotExist(key),
        }
    })
}

fn pod_selector() -> impl Strategy<Value = Selector> {
    vec(
        requirement(&[("app", ["web", "db"]), ("tier", ["front", "back"])]),
        0..3,
    )
    .prop_map(Selector::new)
}

fn namespace_selector() -> impl Strategy<Value = Selector> {
    let keys = requirement(&[("team", ["red", "blue"]), ("kubernetes.io/metadata.name", ["x", "y"])]);
    vec(keys, 0..3).prop_map(Selector::new)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    // Mostly one, so that what a policy names is often what a pod has.
    select(
        &[
            Protocol::Tcp,
            Protocol::Tcp,
            Protocol::Tcp,
            Protocol::Udp,
            Protocol::Sctp,
        ][..],
    )
}

fn port_name() -> impl Strategy<Value = PortName> {
    select(&["http", "http", "dns"][..]).prop_map(|name| PortName::new(name).expect("a port name"))
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    prop_oneof![
        4 => (protocol(), 80u16..84).prop_map(|(protocol, port)| PortMatch::Range(PortRange::single(protocol, port))),
        2 => (protocol(), 80u16..90, 0u16..20).prop_map(|(protocol, first, more)| PortMatch::Range(PortRange {
            protocol,
            first,
            last: first + more,
        })),
        1 => protocol().prop_map(|protocol| PortMatch::Range(PortRange::whole(protocol))),
        3 => (port_name(), protocol()).prop_map(|(name, protocol)| PortMatch::Named { name, protocol }),
        1 => Just(PortMatch::Nothing),
    ]
}

pub fn address() -> impl Strategy<Value = IpAddr> {
    select(&ADDRESSES[..]).prop_map(addr)
}

fn peer() -> impl Strategy<Value = Peer> {
    let cidrs = [
        "10.0.0.0/8",
        "10.20.1.0/30",
        "10.20.1.2/32",
        "0.0.0.0/0",
        "::/0",
        "fd00:20::2/128",
        "fd00:20::/64",
    ];
    let excepts = ["10.20.1.0/31", "10.20.1.2/32", "fd00:20::2/127"];
    prop_oneof![
        4 => (option::of(namespace_selector()), pod_selector())
            .prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods }),
        2 => (select(cidrs.to_vec()), subsequence(excepts.to_vec(), 0..2)).prop_map(|(cidr, except)| {
            Peer::IpBlock(IpBlock {
                cidr: cidr.parse().expect("a CIDR"),
                except: except.iter().map(|text| text.parse().expect("a CIDR")).collect(),
            })
        }),
        1 => Just(Peer::Nothing),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        option::weighted(0.85, vec(peer(), 1..4)),
        option::weighted(0.8, vec(port_match(), 1..6)),
    )
        .prop_map(|(peers, ports)| Rule {
            peers: peers.map_or(Peers::All, Peers::OneOf),
            ports: ports.map_or(Ports::All, Ports::OneOf),
        })
}

fn networks() -> impl Strategy<Value = BTreeSet<NetworkName>> {
    subsequence(&NETWORKS[..], 0..4).prop_map(|names| names.into_iter().map(network).collect())
}

pub fn policy() -> impl Strategy<Value = Policy> {
    let rules = || option::weighted(0.6, vec(rule(), 0..3));
    (
        (any::<bool>(), select(&NAMESPACES[..]), select(&["p", "q"][..])),
        option::weighted(0.7, networks()),
        option::weighted(0.95, pod_selector()),
        rules(),
        rules(),
    )
        .prop_map(|((multi, namespace, name), networks, target, ingress, egress)| Policy {
            key: PolicyKey {
                kind: if multi {
                    PolicyKind::MultiNetworkPolicy
                } else {
                    PolicyKind::NetworkPolicy
                },
                name: NamespacedName::new(namespace, name),
            },
            coverage: networks.map_or(Coverage::Scope, Coverage::Networks),
            target,
            ingress,
            egress,
        })
}

fn attachment() -> impl Strategy<Value = Attachment> {
    let kinds: [(&str, &[&str]); 6] = [
        ("eth0", &["default", "canal"]),
        ("net1", &["default/net-a"]),
        ("net2", &["default/net-b"]),
        ("net3", &["default/net-a"]),
        ("", &["default/net-b"]),
        ("net2", &["default/net-a", "default/net-b"]),
    ];
    (select(kinds.to_vec()), btree_set(address(), 0..3)).prop_map(|((name, networks), addresses)| Attachment {
        interface: (!name.is_empty()).then(|| interface(name)),
        networks: networks.iter().copied().map(network).collect(),
        primary: networks.contains(&"default"),
        addresses,
    })
}

fn labels(
    keys: [&'static str; 2],
    values: [&'static str; 2],
) -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let value = move || option::of(select(values.to_vec()));
    (value(), value()).prop_map(move |(a, b)| {
        keys.into_iter()
            .zip([a, b])
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    })
}

pub fn pod() -> impl Strategy<Value = Pod> {
    let ports = btree_set(
        (port_name(), protocol(), 80u16..84).prop_map(|(name, protocol, number)| NamedPort { name, protocol, number }),
        0..4,
    );
    (
        (0..PODS.len(), select(&NAMESPACES[..])),
        (
            labels(["app", "tier"], ["web", "front"]),
            labels(["app", "tier"], ["db", "back"]),
        ),
        vec(attachment(), 0..4),
        ports,
        (prop::bool::weighted(0.1), prop::bool::weighted(0.15), 0i64..3),
        option::weighted(0.8, select(&["node-1", "node-1", "node-2"][..])),
        btree_set(address(), 0..2),
    )
        .prop_map(
            |((position, namespace), (some, more), attachments, ports, life, node, host_addresses)| Pod {
                mirror_of: None,
                uid: uid(PODS[position]),
                name: NamespacedName::new(namespace, format!("pod-{position}")),
                node: node.map(Into::into),
                labels: some.into_iter().chain(more).collect(),
                attachments,
                ports,
                host_network: life.0,
                terminal: life.1,
                started: life.2,
                host_addresses,
            },
        )
}

pub fn namespace() -> impl Strategy<Value = Namespace> {
    (
        select(&NAMESPACES[..]),
        option::of(select(&["red", "blue"][..])),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(name, team, terminating, isolate_ingress)| Namespace {
            name: name.into(),
            labels: team
                .into_iter()
                .map(|team| ("team", team))
                .chain([("kubernetes.io/metadata.name", name)])
                .collect(),
            terminating,
            isolate_ingress,
        })
}

fn definition() -> impl Strategy<Value = Network> {
    (select(&["net-a", "absent"][..]), any::<bool>()).prop_map(|(name, dhcp)| Network {
        name: NamespacedName::new("default", name),
        plugins: vec!["macvlan".into()],
        ipam: dhcp.then(|| "dhcp".into()).into_iter().collect(),
    })
}

fn target_facts() -> impl Strategy<Value = TargetFacts> {
    (
        subsequence(&["eth0", "net1", "net2", "net3"][..], 0..5),
        btree_set(address(), 0..2),
    )
        .prop_map(|(names, gateways)| TargetFacts {
            interfaces: names.into_iter().map(interface).collect(),
            gateways,
        })
}

pub fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        5 => pod().prop_map(Object::Pod),
        4 => policy().prop_map(Object::Policy),
        2 => namespace().prop_map(Object::Namespace),
        1 => definition().prop_map(Object::Network),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => object().prop_map(|object| Event::Apply(Box::new(object))),
        4 => object().prop_map(|object| Event::Remove(object.key())),
        2 => (select(&PODS[..]), option::of(target_facts())).prop_map(|(pod, facts)| Event::Facts(uid(pod), facts)),
        4 => Just(Event::Commit),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let scopes = [Scope::Secondary, Scope::All, Scope::Annotated, Scope::None];
    (
        any::<[bool; 2]>(),
        select(scopes.to_vec()),
        any::<bool>(),
        btree_set(address(), 0..2),
    )
        .prop_map(|([fib, egress_backstop], scope, everywhere, node_addresses)| Options {
            locality: if everywhere {
                Locality::All
            } else {
                Locality::Node("node-1".into())
            },
            scope,
            kernel: KernelFeatures {
                owner_persist: true,
                egress_backstop,
                fib,
            },
            node_addresses,
        })
}

/// What is there now: the plainest possible account of the events.
#[derive(Default)]
struct Account {
    objects: BTreeMap<ObjectKey, Object>,
    facts: BTreeMap<PodUid, TargetFacts>,
    /// Removed while their namespace was being deleted (statement 138).
    retained: BTreeMap<PolicyKey, Policy>,
}

impl Account {
    fn terminating(&self, namespace: &str) -> bool {
        matches!(
            self.objects.get(&ObjectKey::Namespace(namespace.into())),
            Some(Object::Namespace(Namespace { terminating: true, .. }))
        )
    }

    fn alive(&self, namespace: &str) -> bool {
        matches!(
            self.objects.get(&ObjectKey::Namespace(namespace.into())),
            Some(Object::Namespace(Namespace { terminating: false, .. }))
        )
    }

    fn has_local_pod(&self, options: &Options, namespace: &str) -> bool {
        self.objects.values().any(|object| match object {
            Object::Pod(pod) => options.locality.holds(pod) && *pod.name.namespace == *namespace,
            _ => false,
        })
    }

    fn take(&mut self, options: &Options, event: &Event) {
        match event {
            Event::Apply(object) => {
                self.objects.insert(object.key(), (**object).clone());
                if let Object::Policy(policy) = &**object {
                    self.retained.remove(&policy.key);
                }
            }
            Event::Remove(key) => {
                if let (Some(Object::Policy(policy)), ObjectKey::Policy(key)) = (self.objects.remove(key), key)
                    && self.terminating(&key.name.namespace)
                {
                    self.retained.insert(key.clone(), policy);
                }
            }
            Event::Facts(pod, Some(facts)) => {
                self.facts.insert(pod.clone(), facts.clone());
            }
            Event::Facts(pod, None) => {
                self.facts.remove(pod);
            }
            Event::Commit => {}
        }
        let kept = std::mem::take(&mut self.retained).into_iter().filter(|(key, _)| {
            let namespace = &key.name.namespace;
            !self.alive(namespace) && self.has_local_pod(options, namespace)
        });
        self.retained = kept.collect();
    }

    fn fresh(&self, options: &Options, backwards: bool) -> Index {
        let mut index = Index::new(options.clone());
        let retained = self.retained.values().cloned().map(Object::Policy);
        let mut objects: Vec<Object> = self.objects.values().cloned().chain(retained).collect();
        if backwards {
            objects.reverse();
        }
        for object in objects {
            index.apply(object);
        }
        for (pod, facts) in &self.facts {
            index.set_facts(pod, Some(facts.clone()));
        }
        index.commit();
        index
    }
}

type State = BTreeMap<PodUid, (Option<Ruleset>, Option<PodView>)>;

fn state(index: &Index) -> State {
    let pods = PODS.iter().map(|pod| uid(pod));
    pods.map(|pod| {
        let state = (index.ruleset(&pod).cloned(), index.view(&pod).cloned());
        (pod, state)
    })
    .collect()
}

fn check_events(options: &Options, events: &[Event]) -> Result<(), TestCaseError> {
    let mut index = Index::new(options.clone());
    let mut account = Account::default();
    let mut before = state(&index);
    for event in events.iter().chain([&Event::Commit]) {
        account.take(options, event);
        match event {
            Event::Apply(object) => index.apply((**object).clone()),
            Event::Remove(key) => index.remove(key),
            Event::Facts(pod, facts) => index.set_facts(pod, facts.clone()),
            Event::Commit => {
                let dirty = index.commit();
                let after = state(&index);
                let changed: Vec<PodUid> = after
                    .iter()
                    .filter(|(pod, state)| before[*pod] != **state)
                    .map(|(pod, _)| pod.clone())
                    .collect();
                prop_assert_eq!(&dirty, &changed, "the dirty set is exact");
                before = after;
                for backwards in [false, true] {
                    let fresh = account.fresh(options, backwards);
                    prop_assert_eq!(&before, &state(&fresh), "incremental is from scratch");
                    prop_assert_eq!(index.networks(), fresh.networks());
                    prop_assert_eq!(index.conflicts(), fresh.conflicts());
                    prop_assert!(index.local_pods().eq(fresh.local_pods()));
                    let policies = |index: &Index| {
                        let views = index.policies().into_iter();
                        views
                            .map(|view| (view.key, view.coverage, view.local_pods))
                            .collect::<Vec<_>>()
                    };
                    prop_assert_eq!(policies(&index), policies(&fresh));
                    for pod in fresh.local_pods() {
                        let text = |index: &Index| index.ruleset(pod).map(ToString::to_string);
                        prop_assert_eq!(text(&index), text(&fresh), "byte for byte");
                    }
                }
                for (ruleset, _) in before.values() {
                    if let Some(ruleset) = ruleset {
                        prop_assert_eq!(check(ruleset), Ok(()), "{}", ruleset);
                    }
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Statements 5, 12, 13, 51, 52, 134, 135, 137, 138, 143, 230, 231.
    #[test]
    fn s143_s231_incremental_is_from_scratch(options in options(), events in vec(event(), 1..40)) {
        check_events(&options, &events)?;
    }

    /// Few objects that come, go, come again and change one part at a time (catalogue B3, B19, B36, B37).
    #[test]
    fn s231_the_same_few_objects_over_and_over(
        options in options(),
        objects in (vec(pod(), 3..6), vec(policy(), 2..5), vec(namespace(), 1..4)),
        steps in vec((0usize..15, 0u8..8, 0usize..15, 0u8..8), 1..60),
    ) {
        check_events(&options, &small_steps(&objects, &steps))?;
    }
}

/// Each step applies an object, removes it, commits, or gives it one part of another object of its kind.
fn small_steps(
    (pods, policies, namespaces): &(Vec<Pod>, Vec<Policy>, Vec<Namespace>),
    steps: &[(usize, u8, usize, u8)],
) -> Vec<Event> {
    let (mut pods, mut policies) = (pods.clone(), policies.clone());
    let mut events = Vec::new();
    for &(position, what, donor, part) in steps {
        let kind = position % 5;
        let object = match kind {
            0 | 1 => {
                let donor = pods[donor % pods.len()].clone();
                let count = pods.len();
                let pod = &mut pods[position % count];
                match (what, part) {
                    (0..4, _) => {}
                    (_, 0) => pod.labels = donor.labels,
                    (_, 1 | 2) => pod.ports = donor.ports,
                    (_, 3) => pod.started = donor.started,
                    (_, 4) => pod.attachments = donor.attachments,
                    (_, 5) => pod.terminal = donor.terminal,
                    (_, 6) => pod.node = donor.node,
                    _ => pod.name.namespace = donor.name.namespace,
                }
                Object::Pod(pod.clone())
            }
            2 | 3 => {
                let donor = policies[donor % policies.len()].clone();
                let count = policies.len();
                let policy = &mut policies[position % count];
                match (what, part) {
                    (0..4, _) => {}
                    (_, 0 | 1) => policy.target = donor.target,
                    (_, 2 | 3) => policy.ingress = donor.ingress,
                    (_, 4 | 5) => policy.egress = donor.egress,
                    _ => policy.coverage = donor.coverage,
                }
                Object::Policy(policy.clone())
            }
            _ => Object::Namespace(namespaces[position % namespaces.len()].clone()),
        };
        events.push(match what {
            0 => Event::Remove(object.key()),
            1 => Event::Commit,
            _ => Event::Apply(Box::new(object)),
        });
    }
    events
}
