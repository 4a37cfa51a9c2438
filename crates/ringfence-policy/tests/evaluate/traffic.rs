//! H and I as far as they decide about a new connection.

use std::collections::BTreeSet;

use ringfence_model::{Direction, NamespacedName, Network, Object, Scope};
use ringfence_policy::evaluate::{Because, Decision, L4, evaluate_at};
use serde_json::json;

use crate::world::{World, address, uid, world};

fn closed() -> World {
    world().mnp_for(
        "x/closed",
        "default, default/net-a, default/net-b",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    )
}

#[test]
fn s103_allowing_one_way_does_not_allow_the_other() {
    world()
        .web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]))
        .web_egress(&json!([]))
        .check(&[("x/b", "x/a", "TCP/80", "aa"), ("x/a", "x/b", "TCP/80", "da")]);
}

#[test]
fn s104_s113_s114_protocols_without_ports() {
    closed().check(&[
        ("x/a", "y/a", "icmp", "da"),
        ("y/a", "x/a", "icmp", "ad"),
        ("y/a", "x/a", "gre", "ad"),
        ("y/a", "x/a", "icmp6/128", "ad"),
        ("x/a", "y/a", "icmp6/128", "da"),
    ]);
    // An echo is judged in its own direction.
    world()
        .web_ingress(&json!([{}]))
        .web_egress(&json!([]))
        .check(&[("y/a", "x/a", "icmp", "aa"), ("x/a", "y/a", "icmp", "da")]);
    for (ports, word) in [
        (json!([]), "aa"),
        (json!([{}]), "ad"),
        (
            json!([{"port": 1, "endPort": 65535}, {"protocol": "UDP"}, {"protocol": "SCTP"}]),
            "ad",
        ),
    ] {
        world().web_ingress(&json!([{"ports": ports}])).check(&[
            ("y/a", "x/a", "icmp", word),
            ("y/a", "x/a", "gre", word),
            ("y/a", "x/a", "icmp6/128", word),
        ]);
    }
}

#[test]
fn s117_the_node_reaches_its_pods_on_the_cluster_network_only() {
    let mut world = closed();
    world
        .0
        .node_addresses
        .insert("n1".into(), BTreeSet::from([address("10.244.0.1")]));
    world
        .0
        .node_addresses
        .insert("n2".into(), BTreeSet::from([address("10.244.7.1")]));
    world.check_on(
        "default",
        &[
            ("192.0.2.1", "x/a", "TCP/8080", "aa"),
            ("10.244.0.1", "x/a", "TCP/8080", "aa"),
            ("192.0.2.1", "x/a", "icmp", "aa"),
            // Another node, and the other way round.
            ("10.244.7.1", "x/a", "TCP/8080", "ad"),
            ("192.0.2.2", "x/a", "TCP/8080", "ad"),
            ("x/a", "192.0.2.1", "TCP/10250", "da"),
        ],
    );
    world.check(&[
        ("192.0.2.1", "x/a", "TCP/8080", "ad"),
        ("10.244.0.1", "x/a", "TCP/8080", "ad"),
    ]);
    let verdict = world.ask("default", "192.0.2.1", "x/a", "TCP/8080").ingress;
    assert_eq!(verdict.because, Because::NodeTraffic);
    assert_eq!(verdict.isolating.len(), 1, "it is isolated all the same");
    // Without isolation there is nothing to be exempt from.
    let open = crate::world::world().scope(Scope::All);
    assert_eq!(
        open.ask("default", "192.0.2.1", "x/a", "TCP/1").ingress.because,
        Because::NotIsolated
    );
}

#[test]
fn s118_s119_s169_a_pod_reaches_itself() {
    let world = closed();
    world.check(&[
        ("x/a", "x/a", "TCP/80", "aa"),
        ("x/a", "127.0.0.1", "TCP/80", "aa"),
        ("127.1.2.3", "x/a", "TCP/80", "aa"),
        ("x/a", "::1", "TCP/80", "aa"),
        ("x/a", "10.20.1.10", "icmp", "aa"),
        ("10.20.1.10", "x/a", "TCP/80", "aa"),
        // Its addresses on its other interfaces, and not those of its neighbour there.
        ("x/a", "10.30.1.10", "TCP/80", "aa"),
        ("x/a", "10.244.1.10", "TCP/80", "aa"),
        ("x/a", "10.30.1.11", "TCP/80", "da"),
        ("x/a", "128.0.0.1", "TCP/80", "da"),
    ]);
    assert_eq!(
        world.ask("default/net-a", "x/a", "::1", "TCP/80").egress.because,
        Because::Loopback
    );
    assert_eq!(
        world.ask("default/net-a", "x/a", "x/a", "TCP/80").egress.because,
        Because::SamePod
    );
}

#[test]
fn s120_a_forged_own_address_on_the_wire_is_not_exempt() {
    let universe = closed().0;
    let forged = evaluate_at(
        &universe,
        &uid("x/a"),
        1,
        Direction::Ingress,
        address("10.20.1.10"),
        L4::tcp(80),
    );
    assert_eq!(forged.decision, Decision::Deny);
    // From an interface's neighbours no address of another interface is the pod's own either.
    closed().check(&[("10.30.1.10", "x/a", "TCP/80", "ad")]);
}

#[test]
fn s121_s122_neighbour_discovery() {
    let world = closed();
    for (message, out, back) in [
        (135, "aa", "aa"),
        (136, "aa", "aa"),
        (130, "aa", "aa"),
        (131, "aa", "aa"),
        (132, "aa", "aa"),
        (143, "aa", "aa"),
        (133, "aa", "ad"),
        (134, "da", "aa"),
        (137, "da", "ad"),
        (128, "da", "ad"),
        (129, "da", "ad"),
    ] {
        let what = format!("icmp6/{message}");
        world.check(&[("x/a", "y/a", &what, out), ("y/a", "x/a", &what, back)]);
    }
    // No rule allows an isolated pod to play the router, and a pod that is not isolated may.
    let generous = crate::world::world().web_egress(&json!([{}]));
    generous.check(&[
        ("x/a", "y/a", "icmp6/134", "da"),
        ("x/a", "y/a", "icmp6/137", "da"),
        ("x/a", "y/a", "icmp6/128", "aa"),
        ("y/a", "x/a", "icmp6/137", "aa"),
    ]);
}

#[test]
fn s123_dhcp_passes_where_addresses_come_by_dhcp() {
    let nad = |ipam: &str| {
        Object::Network(Network {
            name: NamespacedName::new("default", "net-a"),
            plugins: vec!["macvlan".into()],
            ipam: BTreeSet::from([ipam.into()]),
        })
    };
    let outside = "198.51.100.7";
    closed().add(nad("dhcp")).check(&[
        ("x/a", outside, "UDP/67", "aa"),
        (outside, "x/a", "UDP/68", "aa"),
        ("x/a", outside, "UDP/547", "aa"),
        (outside, "x/a", "UDP/546", "aa"),
        (outside, "x/a", "UDP/67", "ad"),
        ("x/a", outside, "UDP/68", "da"),
        ("x/a", outside, "TCP/67", "da"),
    ]);
    closed()
        .add(nad("dhcp"))
        .check_on("default/net-b", &[("x/a", outside, "UDP/67", "da")]);
    closed()
        .add(nad("host-local"))
        .check(&[("x/a", outside, "UDP/67", "da")]);
}

#[test]
fn s124_multicast_and_broadcast_are_only_blocks() {
    for (peers, word) in [
        (json!([]), "aa"),
        (json!([{"ipBlock": {"cidr": "224.0.0.0/3"}}]), "aa"),
        (json!([{"namespaceSelector": {}}]), "da"),
    ] {
        world().web_egress(&json!([{"to": peers}])).check(&[
            ("x/a", "224.0.0.251", "UDP/5353", word),
            ("x/a", "255.255.255.255", "UDP/67", word),
        ]);
    }
}
