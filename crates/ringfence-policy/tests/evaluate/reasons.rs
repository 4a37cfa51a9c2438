//! 232: the reasons that come with a verdict.

use ringfence_model::{Direction, Object, PolicyKind};
use ringfence_policy::evaluate::{
    Because, Connection, DirectionVerdict, Endpoint, L4, Shortfall, evaluate, evaluate_at,
};
use serde_json::json;

use crate::world::{World, address, attachment, empty_pod, network, uid, world};

/// Checks decision, reason and the three lists of one direction, as text.
#[track_caller]
fn check(found: &DirectionVerdict, because: Because, isolating: &[&str], allowed_by: &[&str], misses: &[(&str, &str)]) {
    assert_eq!(found.because, because);
    let names: Vec<String> = found.isolating.iter().map(ToString::to_string).collect();
    assert_eq!(names, isolating);
    let clauses: Vec<String> = found.allowed_by.iter().map(ToString::to_string).collect();
    assert_eq!(clauses, allowed_by);
    let near: Vec<(String, String)> = found
        .near_misses
        .iter()
        .map(|miss| (miss.clause.to_string(), miss.why.to_string()))
        .collect();
    let near: Vec<(&str, &str)> = near
        .iter()
        .map(|(clause, why)| (clause.as_str(), why.as_str()))
        .collect();
    assert_eq!(near, misses);
}

fn ingress(world: &World, from: &str, what: &str) -> DirectionVerdict {
    world.ask("default/net-a", from, "x/a", what).ingress
}

fn egress(world: &World, to: &str, what: &str) -> DirectionVerdict {
    world.ask("default/net-a", "x/a", to, what).egress
}

const GUARD: &[&str] = &["MultiNetworkPolicy x/guard"];
const LEASH: &[&str] = &["MultiNetworkPolicy x/leash"];

#[test]
fn s232_allowances_name_policy_peer_and_port() {
    let world = world()
        .policy(
            PolicyKind::NetworkPolicy,
            "x/also",
            None,
            &json!({"podSelector": {}, "ingress": [{}]}),
        )
        .web_ingress(&json!([
            {"from": [{"podSelector": {"matchLabels": {"app": "none"}}}]},
            {"from": [{"ipBlock": {"cidr": "10.20.0.0/16"}}, {"podSelector": {}}],
             "ports": [{"port": 443}, {"port": 80}, {}]},
        ]));
    check(
        &ingress(&world, "x/b", "TCP/80"),
        Because::Allowed,
        &["NetworkPolicy x/also", "MultiNetworkPolicy x/guard"],
        &[
            "NetworkPolicy x/also ingress[0]",
            "MultiNetworkPolicy x/guard ingress[1].from[0] ingress[1].ports[1]",
            "MultiNetworkPolicy x/guard ingress[1].from[0] ingress[1].ports[2]",
            "MultiNetworkPolicy x/guard ingress[1].from[1] ingress[1].ports[1]",
            "MultiNetworkPolicy x/guard ingress[1].from[1] ingress[1].ports[2]",
        ],
        &[],
    );
}

#[test]
fn s232_directions_that_nothing_isolates() {
    let world = world().web_ingress(&json!([]));
    check(&egress(&world, "x/b", "TCP/80"), Because::NotIsolated, &[], &[], &[]);
    check(
        &world.ask("default/net-a", "198.51.100.7", "x/a", "TCP/80").egress,
        Because::NoPod,
        &[],
        &[],
        &[],
    );
    check(&ingress(&world, "x/a", "TCP/80"), Because::SamePod, &[], &[], &[]);
    let host = world.pod("x/a", |pod| pod.host_network = true);
    check(&ingress(&host, "y/a", "TCP/80"), Because::HostNetwork, &[], &[], &[]);
}

#[test]
fn s232_near_misses_of_ports() {
    let world = world().web_ingress(&json!([
        {"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.20.1.0/24"}}],
         "ports": [{"port": 443}, {"port": 8000, "endPort": 8100}, {"protocol": "UDP"}, {"port": "http"}, {"port": "db"}, {"port": 0}]},
        // Neither peer nor port: too far off to be worth a word.
        {"from": [{"podSelector": {"matchLabels": {"app": "none"}}}], "ports": [{"port": 1}]},
        {"ports": [{"port": 22}]},
    ]));
    check(
        &ingress(&world, "x/b", "TCP/80"),
        Because::NothingAllows,
        GUARD,
        &[],
        &[
            (
                "MultiNetworkPolicy x/guard ingress[0].ports[0]",
                "it allows TCP 443, not TCP 80",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].ports[1]",
                "it allows TCP 8000-8100, not TCP 80",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].ports[2]",
                "it allows all UDP ports, not TCP 80",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].ports[3]",
                "port http of pod x/a is TCP 8080, not TCP 80",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].ports[4]",
                "pod x/a declares no TCP port named db",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].ports[5]",
                "the clause is invalid and matches nothing",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[2].ports[0]",
                "it allows TCP 22, not TCP 80",
            ),
        ],
    );
    let named = crate::world::world().web_egress(&json!([
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": "http"}]},
        {"ports": [{"port": "http"}]},
    ]));
    let nowhere = "port name http can only be looked up on a pod that a selector or a missing `to` matches";
    check(
        &egress(&named, "y/b", "TCP/80"),
        Because::NothingAllows,
        LEASH,
        &[],
        &[
            ("MultiNetworkPolicy x/leash egress[0].ports[0]", nowhere),
            (
                "MultiNetworkPolicy x/leash egress[1].ports[0]",
                "port http of pod y/b is TCP 81, not TCP 80",
            ),
        ],
    );
}

#[test]
fn s232_near_misses_of_peers() {
    let world = world().web_ingress(&json!([
        {"from": [
            {"podSelector": {"matchLabels": {"app": "db"}}},
            {"namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "db"}}},
            {"ipBlock": {"cidr": "10.20.0.0/16", "except": ["10.20.2.0/24"]}},
            {"ipBlock": {"cidr": "198.51.100.0/24"}},
            {},
        ], "ports": [{"port": 80}]},
    ]));
    check(
        &ingress(&world, "y/a", "TCP/80"),
        Because::NothingAllows,
        GUARD,
        &[],
        &[
            (
                "MultiNetworkPolicy x/guard ingress[0].from[0]",
                "the namespace of pod y/a does not match",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].from[1]",
                "the labels of pod y/a do not match",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].from[2]",
                "the address is excepted by 10.20.2.0/24",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].from[3]",
                "the address is not in 198.51.100.0/24",
            ),
            (
                "MultiNetworkPolicy x/guard ingress[0].from[4]",
                "the clause is invalid and matches nothing",
            ),
        ],
    );
    // Wrong peer and wrong port.
    check(
        &ingress(&world, "y/a", "TCP/81"),
        Because::NothingAllows,
        GUARD,
        &[],
        &[],
    );
}

/// The one near miss of a rule that allows `app=db` of the own namespace.
#[track_caller]
fn check_db_miss(world: &World, from: &str, why: &str) {
    let expected = ("MultiNetworkPolicy x/guard ingress[0].from[0]", why);
    check(
        &ingress(world, from, "TCP/80"),
        Because::NothingAllows,
        GUARD,
        &[],
        &[expected],
    );
}

#[test]
fn s232_near_misses_of_networks_and_lives() {
    let world = || world().web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]));
    check_db_miss(
        &world(),
        "10.30.1.11",
        "pod x/b would match, but the address is its address on network default/net-b",
    );
    check_db_miss(
        &world(),
        "198.51.100.7",
        "no pod has the address 198.51.100.7 on this network",
    );
    check_db_miss(
        &world().pod("x/b", |pod| pod.terminal = true),
        "10.20.1.11",
        "pod x/b would match, but it has ended",
    );
    check_db_miss(
        &world().pod("x/b", |pod| pod.host_network = true),
        "10.20.1.11",
        "pod x/b would match, but it uses the node's network, and selectors never match such pods",
    );
    let mut rival = empty_pod("z/rival");
    rival.started = 1;
    rival
        .attachments
        .push(attachment("net1", "default/net-a", &["10.20.1.11"]));
    check_db_miss(
        &world().add(Object::Pod(rival)),
        "10.20.1.11",
        "pod x/b would match, but the address now belongs to pod z/rival",
    );
    // An ended pod that had the address before says less than the pod that has it now.
    let mut reused = empty_pod("x/now");
    reused
        .attachments
        .push(attachment("net1", "default/net-a", &["10.20.1.11"]));
    check_db_miss(
        &world().pod("x/b", |pod| pod.terminal = true).add(Object::Pod(reused)),
        "10.20.1.11",
        "the labels of pod x/now do not match",
    );
    // An egress rule with a name that the pod declares, on another network.
    let named = crate::world::world().web_egress(&json!([{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}]));
    let found = egress(&named, "10.30.1.11", "TCP/80");
    assert!(
        matches!(&found.near_misses[..], [miss] if matches!(miss.why, Shortfall::OtherNetwork { .. })),
        "{found:#?}"
    );
}

#[test]
fn ends_that_name_nothing_known_are_judged_like_addresses() {
    let universe = world()
        .web_ingress(&json!([{"from": [{"ipBlock": {"cidr": "10.20.1.11/32"}}]}]))
        .0;
    for (pod, index) in [("x/nobody", 0), ("x/b", 17)] {
        let end = Endpoint::Pod {
            uid: uid(pod),
            attachment: index,
            address: address("10.20.1.11"),
        };
        let known = Endpoint::Address(address("10.20.1.10"));
        let connection = |source: &Endpoint, destination: &Endpoint| Connection {
            network: network("default/net-a"),
            source: source.clone(),
            destination: destination.clone(),
            l4: L4::tcp(80),
        };
        let verdict = evaluate(&universe, &connection(&end, &known));
        check(&verdict.egress, Because::UnknownPod, &[], &[], &[]);
        assert_eq!(verdict.ingress.because, Because::Allowed);
        let verdict = evaluate(&universe, &connection(&known, &end));
        check(&verdict.ingress, Because::UnknownPod, &[], &[], &[]);
        let verdict = evaluate_at(
            &universe,
            &uid(pod),
            index,
            Direction::Ingress,
            address("10.1.1.1"),
            L4::Other(0),
        );
        check(&verdict, Because::UnknownPod, &[], &[], &[]);
    }
}

#[test]
fn s168_an_interface_without_a_name_is_closed_while_its_pod_is_isolated_anywhere() {
    let nameless = || world().pod("x/a", |pod| pod.attachments[1].interface = None);
    let anything = json!([{}]);
    let closed = |world: &World, by: &[&str]| {
        for what in ["TCP/80", "icmp", "icmp6/135", "icmp6/128"] {
            check(&ingress(world, "y/b", what), Because::Unnamed, by, &[], &[]);
            check(&egress(world, "y/b", what), Because::Unnamed, by, &[], &[]);
        }
        world.check(&[("y/b", "x/a", "TCP/80", "ad"), ("x/a", "y/b", "TCP/80", "da")]);
    };
    let guard = ["MultiNetworkPolicy x/guard"];
    // By a policy that would allow everything, in the direction that it does not isolate, and by one for another network.
    closed(&nameless().web_ingress(&anything), &guard);
    closed(&nameless().web_ingress(&json!([])), &guard);
    closed(&nameless().web_egress(&anything), &["MultiNetworkPolicy x/leash"]);
    let spec = json!({"podSelector": {}, "ingress": [{}]});
    let elsewhere = nameless().mnp_for("x/other", "default/net-b", &spec);
    closed(&elsewhere, &["MultiNetworkPolicy x/other"]);
    let both = nameless().web_ingress(&anything).web_egress(&anything);
    closed(&both, &["MultiNetworkPolicy x/guard", "MultiNetworkPolicy x/leash"]);

    // Its own traffic passes, and its other interfaces and other pods are judged by their policies.
    check(&ingress(&both, "x/a", "TCP/80"), Because::SamePod, &[], &[], &[]);
    check(&ingress(&both, "127.0.0.1", "TCP/80"), Because::Loopback, &[], &[], &[]);
    elsewhere.check_on("default/net-b", &[("y/b", "x/a", "TCP/80", "aa")]);
    elsewhere.check(&[("y/b", "x/c", "TCP/80", "aa")]);
    // Nothing isolates it: policies for other pods, or for pods that take no part.
    let no = || {
        nameless().mnp(
            "x/b",
            &json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": []}),
        )
    };
    check(&ingress(&no(), "y/b", "TCP/80"), Because::NotIsolated, &[], &[], &[]);
    let ended = both.pod("x/a", |pod| pod.terminal = true);
    check(&ingress(&ended, "y/b", "TCP/80"), Because::Ended, &[], &[], &[]);
    assert_eq!(
        Because::Unnamed.to_string(),
        "the interface has no known name, and such interfaces are closed while the pod is isolated"
    );
}
