//! What is handed out for one question decides it as everything does: of a universe, and of an index, which keeps less
//! of pods on other nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index as Position, select};
use ringfence_model::{Object, ObjectKey, Pod, Protocol, Scope};
use ringfence_policy::evaluate::{Because, Connection, Endpoint, L4, Lookup, Party, Universe, evaluate};
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::KernelFeatures;

use crate::property::{ADDRESSES, address, namespace, object, pod, policy};
use crate::support::{addr, index_with, namespace as space, options, pod as build, pod_key, policy as guard};

/// One end: a pod's attachment with an address of its own or not, or an address.
type Pick = (bool, Position, Position, Position);

fn pick() -> impl Strategy<Value = Pick> {
    any::<Pick>()
}

fn end(pick: &Pick, pods: &[Pod]) -> (Endpoint, Party) {
    let address = addr(ADDRESSES[pick.3.index(ADDRESSES.len())]);
    let pod = &pods[pick.1.index(pods.len())];
    if pick.0 && !pod.attachments.is_empty() {
        let endpoint = Endpoint::Pod {
            uid: pod.uid.clone(),
            attachment: pick.2.index(pod.attachments.len()),
            address,
        };
        return (endpoint, Party::Pod(pod.name.clone()));
    }
    (Endpoint::Address(address), Party::Address(address))
}

fn questions(universe: &Universe, from: &Pick, to: &Pick) -> Vec<(Connection, Vec<Party>)> {
    let pods: Vec<Pod> = universe.pods.values().cloned().collect();
    if pods.is_empty() {
        return Vec::new();
    }
    let (source, from) = end(from, &pods);
    let (destination, to) = end(to, &pods);
    let parties = vec![
        Party::Address(source.address()),
        Party::Address(destination.address()),
        from,
        to,
    ];
    let l4s = [
        L4::tcp(80),
        L4::tcp(83),
        L4::port(Protocol::Udp, 68),
        L4::Other(1),
        L4::Icmpv6 { message: 134 },
    ];
    let ask = |network: &ringfence_model::NetworkName| {
        l4s.map(|l4| {
            let connection = Connection {
                network: network.clone(),
                source: source.clone(),
                destination: destination.clone(),
                l4,
            };
            (connection, parties.clone())
        })
    };
    universe.network_names().iter().flat_map(ask).collect()
}

/// What an index knows: neither pods of other nodes that have ended nor pods on their node's network.
fn known_to(index_options: &Options, objects: &[Object]) -> Vec<Object> {
    let known = |object: &&Object| match object {
        Object::Pod(pod) => pod.takes_part() || index_options.locality.holds(pod),
        _ => true,
    };
    // Of several with one key the last counts, and it alone may be left out.
    let mut last: Vec<Object> = Vec::new();
    for object in objects {
        last.retain(|before| before.key() != object.key());
        last.push(object.clone());
    }
    last.iter().filter(known).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_slice_decides_as_the_whole(
        scope in select(vec![Scope::Secondary, Scope::All, Scope::Annotated, Scope::None]),
        node_addresses in btree_set(address(), 0..2),
        everywhere in any::<bool>(),
        pods in vec(pod(), 2..8),
        policies in vec(policy(), 1..8),
        namespaces in vec(namespace(), 0..3),
        more in vec(object(), 0..6),
        ends in (pick(), pick()),
    ) {
        let pods = pods.into_iter().map(Object::Pod);
        let policies = policies.into_iter().map(Object::Policy);
        let namespaces = namespaces.into_iter().map(Object::Namespace);
        let objects: Vec<Object> = pods.chain(policies).chain(namespaces).chain(more).collect();
        let options = Options {
            locality: if everywhere { Locality::All } else { Locality::Node("node-1".into()) },
            scope,
            kernel: KernelFeatures::ALL,
            node_addresses: node_addresses.clone(),
        };
        let mut index = Index::new(options.clone());
        for object in &objects {
            index.apply(object.clone());
        }
        let node_addresses: BTreeSet<IpAddr> = node_addresses;
        let whole = |objects: &[Object]| {
            let mut universe: Universe = objects.iter().cloned().collect();
            universe.scope = scope;
            let nodes = if everywhere { &["node-1", "node-2"][..] } else { &["node-1"][..] };
            universe.node_addresses = nodes.iter().map(|node| ((*node).into(), node_addresses.clone())).collect();
            universe
        };

        let universe = whole(&objects);
        for (connection, parties) in questions(&universe, &ends.0, &ends.1) {
            let wanted = evaluate(&universe, &connection);
            prop_assert_eq!(evaluate(&universe.slice(&parties), &connection), wanted, "{:?}", connection);
            prop_assert_eq!(Lookup::new(&universe).slice(&parties), universe.slice(&parties));
        }
        let universe = whole(&known_to(&options, &objects));
        for (connection, parties) in questions(&universe, &ends.0, &ends.1) {
            // Every pod is given back as it came, wherever it runs.
            prop_assert_eq!(index.slice(&parties), universe.slice(&parties));
            let wanted = evaluate(&universe, &connection);
            prop_assert_eq!(evaluate(&index.slice(&parties), &connection), wanted.clone(), "{:?}", connection);
            // And once more after a commit, which decides nothing about objects.
            index.commit();
            prop_assert_eq!(evaluate(&index.slice(&parties), &connection), wanted, "{:?}", connection);
        }
    }
}

#[test]
fn a_slice_holds_little() {
    let objects = || {
        let crowd = (1..200).map(|number| {
            let name = format!("crowd-{number}/pod");
            build(&name, "app=web").a(&[&format!("10.20.7.{number}")]).into()
        });
        let policies = (1..200).map(|number| guard(&format!("crowd-{number}/guard")).ingress([]).into());
        let ours: [Object; 4] = [
            build("x/a", "app=web").a(&["10.20.1.1"]).into(),
            build("y/b", "").a(&["10.20.1.2"]).remote().into(),
            guard("x/guard").target("app=web").ingress([]).into(),
            guard("x/other").target("app=db").ingress([]).into(),
        ];
        let spaces = [Object::Namespace(space("x", "")), Object::Namespace(space("z", ""))];
        crowd.chain(policies).chain(ours).chain(spaces)
    };
    let parties = ["x/a", "y/b"].map(|name| name.parse::<Party>().expect("a pod"));
    let universe: Universe = objects().collect();
    for slice in [
        universe.slice(&parties),
        index_with(options(), objects()).slice(&parties),
    ] {
        let pods: Vec<&str> = slice.pods.keys().map(ringfence_model::PodUid::as_str).collect();
        assert_eq!(pods, ["x/a", "y/b"]);
        let policies: Vec<String> = slice.policies.keys().map(ToString::to_string).collect();
        assert_eq!(policies, ["MultiNetworkPolicy x/guard"]);
        assert_eq!(slice.namespaces.len(), 1);
    }
}

#[test]
fn s138_retained_policies_are_in_the_slice_as_in_force() {
    let closing = guard("x/guard").ingress([]);
    let mut space = space("x", "");
    space.terminating = true;
    let mut index = index_with(
        options(),
        [
            Object::Namespace(space),
            build("x/a", "").a(&["10.20.1.1"]).into(),
            closing.clone().into(),
        ],
    );
    index.remove(&ObjectKey::Policy(closing.0.key.clone()));
    let parties = ["x/a", "10.20.1.9"].map(|name| name.parse::<Party>().expect("a party"));
    let connection = Connection {
        network: crate::support::network(crate::support::NET_A),
        source: Endpoint::Address(addr("10.20.1.9")),
        destination: Endpoint::Address(addr("10.20.1.1")),
        l4: L4::tcp(80),
    };
    let verdict = evaluate(&index.slice(&parties), &connection);
    assert_eq!(verdict.ingress.because, Because::NothingAllows);
    assert_eq!(verdict.ingress.isolating, [closing.0.key]);
    index.remove(&pod_key("x/a"));
    assert!(index.slice(&parties).policies.is_empty());
}
