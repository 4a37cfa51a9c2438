//! K: policies and networks, and section 2 of the design: scopes.

use std::collections::BTreeMap;

use ringfence_model::{Coverage, NamespacedName, Network, Object, ObjectKey, PolicyKind, Scope};
use ringfence_policy::evaluate::{L4, connections, reach};
use serde_json::{Value, json};

use crate::world::{World, attachment, empty_pod, network, uid, world};

fn deny() -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress"]})
}

/// On which networks x/a refuses y/a.
fn closed_networks(world: &World) -> Vec<&'static str> {
    ["default", "default/net-a", "default/net-b"]
        .into_iter()
        .filter(|name| {
            let verdict = world.ask(name, "y/a", "x/a", "TCP/80");
            verdict.ingress.decision.as_str() == "deny"
        })
        .collect()
}

#[track_caller]
fn check_closed(world: &World, expected: &[&str]) {
    assert_eq!(closed_networks(world), expected);
}

#[test]
fn s146_s147_s148_s149_policy_for() {
    for (policy_for, expected) in [
        ("default/net-a", &["default/net-a"][..]),
        (" default/net-a ,, default/net-b,", &["default/net-a", "default/net-b"]),
        ("default/net-a,default/net-a", &["default/net-a"]),
        ("", &[]),
        (" , ", &[]),
        ("a/b/c, /net-a, default/, default/net-b", &["default/net-b"]),
        // A bare name is in the policy's namespace.
        ("net-a", &[]),
        ("default", &["default"]),
        ("elsewhere/net-a", &[]),
    ] {
        check_closed(&world().mnp_for("x/guard", policy_for, &deny()), expected);
    }
    check_closed(
        &world().policy(PolicyKind::MultiNetworkPolicy, "x/guard", None, &deny()),
        &[],
    );
    // Nor does a scope give networks to a MultiNetworkPolicy that has none.
    check_closed(
        &world()
            .scope(Scope::All)
            .policy(PolicyKind::MultiNetworkPolicy, "x/guard", None, &deny()),
        &[],
    );
    let mut coverage = world().scope(Scope::All).mnp("x/guard", &deny());
    for policy in coverage.0.policies.values_mut() {
        policy.coverage = Coverage::Scope;
    }
    check_closed(&coverage, &[]);
    // A bare name where the policy lives beside its network.
    world()
        .pod("x/a", |pod| pod.attachments[1].networks = [network("x/net-a")].into())
        .pod("y/a", |pod| pod.attachments[1].networks = [network("x/net-a")].into())
        .mnp_for("x/guard", "net-a", &deny())
        .check_on("x/net-a", &[("y/a", "x/a", "TCP/80", "ad")]);
}

#[test]
fn s150_s151_s153_only_interfaces_on_listed_networks_are_isolated() {
    check_closed(&world().mnp("x/guard", &deny()), &["default/net-a"]);
    check_closed(
        &world().mnp_for("x/guard", "default/net-b", &deny()),
        &["default/net-b"],
    );
    check_closed(&world().mnp_for("x/guard", "default", &deny()), &["default"]);
    // The other direction stays open on each.
    world().mnp("x/guard", &deny()).check(&[("x/a", "y/a", "TCP/80", "aa")]);
}

#[test]
fn s151_scopes_of_network_policies() {
    let secondary = &["default/net-a", "default/net-b"][..];
    let all = &["default", "default/net-a", "default/net-b"][..];
    for (scope, policy_for, expected) in [
        (Scope::Secondary, None, secondary),
        (Scope::All, None, all),
        (Scope::Annotated, None, &[]),
        (Scope::None, None, &[]),
        (Scope::Secondary, Some("default/net-a"), &["default/net-a"]),
        (Scope::Secondary, Some("default"), &["default"]),
        (Scope::All, Some("default/net-b"), &["default/net-b"]),
        (Scope::Annotated, Some("default/net-b"), &["default/net-b"]),
        (Scope::None, Some("default/net-b"), &[]),
    ] {
        let world = world()
            .scope(scope)
            .policy(PolicyKind::NetworkPolicy, "x/guard", policy_for, &deny());
        assert_eq!(closed_networks(&world), expected, "{scope:?} {policy_for:?}");
    }
    // A MultiNetworkPolicy does not care.
    for scope in [Scope::Secondary, Scope::All, Scope::Annotated, Scope::None] {
        check_closed(&world().scope(scope).mnp("x/guard", &deny()), &["default/net-a"]);
    }
    // The beta annotation of a namespace acts where the scope says, on ingress.
    for (scope, expected) in [
        (Scope::Secondary, secondary),
        (Scope::All, all),
        (Scope::Annotated, &[]),
        (Scope::None, &[]),
    ] {
        let world = world().scope(scope).namespace("x", |it| it.isolate_ingress = true);
        assert_eq!(closed_networks(&world), expected, "{scope:?}");
        world.check(&[("x/a", "y/a", "TCP/80", "aa")]);
    }
    // And it is one policy among others: an allowance adds to it.
    world()
        .namespace("x", |it| it.isolate_ingress = true)
        .web_ingress(&json!([{}]))
        .check(&[("y/a", "x/a", "TCP/80", "aa"), ("y/a", "x/b", "TCP/80", "ad")]);
}

#[test]
fn s152_s156_pods_that_are_not_attached() {
    let detached = world()
        .mnp(
            "x/guard",
            &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]}),
        )
        .pod("x/b", |pod| {
            pod.attachments.remove(1);
        });
    // 152: x/b is selected, but is on no listed network.
    detached.check_on("default/net-b", &[("y/a", "x/b", "TCP/80", "aa")]);
    // 156: and is nobody on net-a, whatever addresses it has elsewhere.
    detached.check(&[
        ("10.20.1.11", "x/a", "TCP/80", "ad"),
        ("10.30.1.11", "x/a", "TCP/80", "ad"),
        ("10.244.1.11", "x/a", "TCP/80", "ad"),
    ]);
}

#[test]
fn s154_s155_peers_never_cross_networks() {
    let rules = json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
    });
    let world = world().mnp_for("x/guard", "default/net-a,default/net-b", &rules);
    let own = |n: &str| format!("10.{n}.1.11");
    for (on, right, wrong) in [
        ("default/net-a", own("20"), [own("30"), own("244")]),
        ("default/net-b", own("30"), [own("20"), own("244")]),
    ] {
        world.check_on(on, &[(&right, "x/a", "TCP/80", "aa"), ("x/a", &right, "TCP/80", "aa")]);
        for wrong in &wrong {
            world.check_on(on, &[(wrong, "x/a", "TCP/80", "ad"), ("x/a", wrong, "TCP/80", "da")]);
        }
    }
}

#[test]
fn s157_two_interfaces_on_one_network() {
    let twice = world()
        .web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]))
        .pod("x/a", |pod| {
            pod.attachments
                .push(attachment("net3", "default/net-a", &["10.20.1.210"]));
        })
        .pod("x/b", |pod| {
            pod.attachments
                .push(attachment("net3", "default/net-a", &["10.20.1.211"]));
        });
    twice.check(&[
        ("10.20.1.11", "x/a", "TCP/80", "aa"),
        ("10.20.1.211", "x/a", "TCP/80", "aa"),
        ("10.20.1.211", "10.20.1.210", "TCP/80", "aa"),
        ("y/a", "10.20.1.10", "TCP/80", "ad"),
        ("y/a", "10.20.1.210", "TCP/80", "ad"),
        // 169: between the two interfaces of one pod nothing is filtered.
        ("10.20.1.10", "10.20.1.210", "TCP/80", "aa"),
    ]);
}

#[test]
fn s160_networks_of_one_short_name_are_different() {
    world()
        .mnp_for("x/guard", "y/net-a", &deny())
        .check(&[("y/a", "x/a", "TCP/80", "aa")]);
    world()
        .web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]))
        .pod("x/b", |pod| {
            pod.attachments[1].networks = [network("other/net-a")].into();
        })
        .check(&[("10.20.1.11", "x/a", "TCP/80", "ad")]);
}

/// x/a has eth0 on `canal` and `default`, y/a eth0 on `weave` and `default` and eth1 on `canal`.
fn genie() -> World {
    let built = |plugins: &[&str], sites: &[&str]| {
        let mut attachments = Vec::new();
        for (position, (plugin, address)) in plugins.iter().zip(sites).enumerate() {
            attachments.push(attachment(&format!("eth{position}"), plugin, &[address]));
        }
        attachments[0].primary = true;
        attachments[0].networks.insert(network("default"));
        attachments
    };
    world()
        .pod("x/a", |pod| {
            pod.attachments = built(&["canal", "weave"], &["10.1.0.1", "10.2.0.1"]);
        })
        .pod("y/a", |pod| {
            pod.attachments = built(&["weave", "canal"], &["10.2.0.2", "10.1.0.2"]);
        })
}

#[test]
fn s161_the_primary_attachment_answers_to_default_and_to_its_maker() {
    let closed = |policy_for: &str| {
        let world = genie().mnp_for("x/guard", policy_for, &deny());
        let on = |name: &str| world.ask(name, "y/a", "x/a", "TCP/80").ingress.decision.as_str() == "deny";
        [on("default"), on("canal"), on("weave")]
    };
    // One interface is one interface: closed for `canal` it is closed for what arrives there from `default` as well.
    assert_eq!(closed("default"), [true, true, false]);
    assert_eq!(closed("canal"), [true, true, false]);
    assert_eq!(closed("weave"), [false, false, true]);
    // 161: the default scope leaves the primary attachment alone, though it is on a named network too.
    let scoped = genie().policy(PolicyKind::NetworkPolicy, "x/guard", None, &deny());
    scoped.check_on("default", &[("y/a", "x/a", "TCP/80", "aa")]);
    scoped.check_on("canal", &[("y/a", "x/a", "TCP/80", "aa")]);
    scoped.check_on("weave", &[("y/a", "x/a", "TCP/80", "ad")]);
}

#[test]
fn s154_a_primary_attachment_meets_peers_on_both_of_its_networks() {
    let world = genie().mnp_for(
        "x/guard",
        "canal",
        &json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]}),
    );
    world.check_on("canal", &[("y/a", "x/a", "TCP/80", "aa")]);
    world.check_on(
        "default",
        &[("y/a", "x/a", "TCP/80", "aa"), ("z/a", "x/a", "TCP/80", "ad")],
    );
}

#[test]
fn s162_a_missing_network_object_changes_nothing() {
    let nad = NamespacedName::new("default", "net-a");
    let before = world().mnp("x/guard", &deny());
    check_closed(&before, &["default/net-a"]);
    let there = before.add(Object::Network(Network {
        name: nad.clone(),
        plugins: vec!["bridge".into()],
        ipam: ["host-local".into()].into(),
    }));
    check_closed(&there, &["default/net-a"]);
    check_closed(&there.remove(&ObjectKey::Network(nad)), &["default/net-a"]);
}

#[test]
fn s168_a_new_interface_is_protected_once_it_is_listed() {
    let mut pod = empty_pod("x/new");
    pod.attachments.push(attachment("eth0", "default", &["10.244.1.99"]));
    let before = world().mnp("x/guard", &deny()).add(Object::Pod(pod));
    before
        .pod("x/new", |pod| {
            pod.attachments
                .push(attachment("net1", "default/net-a", &["10.20.1.99"]));
        })
        .check(&[("y/a", "x/new", "TCP/80", "ad")]);
}

#[test]
fn s170_forwarded_traffic_is_judged_as_the_pods_own() {
    // x/a forwards for an address behind it: its interface's egress is judged by the destination.
    let universe = world()
        .web_egress(&json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]))
        .0;
    let mut connection = connections(
        &network("default/net-a"),
        universe.attachment(&uid("x/a"), 1).expect("an attachment"),
        universe.attachment(&uid("y/a"), 1).expect("an attachment"),
        L4::tcp(80),
    )
    .remove(0);
    if let ringfence_policy::evaluate::Endpoint::Pod { address, .. } = &mut connection.source {
        *address = "203.0.113.9".parse().expect("an address");
    }
    let verdict = ringfence_policy::evaluate::evaluate(&universe, &connection);
    assert_eq!(verdict.egress.decision.as_str(), "deny");
}

#[test]
fn reach_has_a_cell_for_every_ordered_pair_on_a_network() {
    let world = world()
        .mnp("x/guard", &deny())
        .pod("z/a", |pod| pod.attachments[1].addresses.clear())
        .pod("y/b", |pod| {
            pod.attachments[1].addresses.retain(std::net::IpAddr::is_ipv6);
        })
        .pod("y/a", |pod| {
            pod.attachments[1].addresses.retain(std::net::IpAddr::is_ipv4);
        });
    let cells: BTreeMap<(String, String), (String, String)> = reach(&world.0, &network("default/net-a"), L4::tcp(80))
        .iter()
        .map(|cell| {
            let ends = (cell.from.pod.name.to_string(), cell.to.pod.name.to_string());
            let addresses = (&cell.connection.source, &cell.connection.destination);
            let addresses = format!("{} {}", addresses.0.address(), addresses.1.address());
            (ends, (cell.verdict.decision().to_string(), addresses))
        })
        .collect();
    let cell = |from: &str, to: &str| {
        cells
            .get(&(from.to_owned(), to.to_owned()))
            .map(|(a, b)| (a.as_str(), b.as_str()))
    };
    // Three pods with both families, one with IPv4 and one with IPv6, which do not meet each other.
    assert_eq!(cells.len(), 25 - 2);
    assert_eq!(cell("x/a", "x/a"), Some(("allow", "10.20.1.10 10.20.1.10")));
    assert_eq!(cell("x/a", "y/a"), Some(("allow", "10.20.1.10 10.20.2.10")));
    assert_eq!(cell("y/a", "x/a"), Some(("deny", "10.20.2.10 10.20.1.10")));
    assert_eq!(cell("y/b", "x/a"), Some(("deny", "fd00:20:2::11 fd00:20:1::10")));
    assert_eq!(cell("y/a", "y/b"), None);
    assert_eq!(cell("x/a", "z/a"), None);
    assert_eq!(
        world
            .0
            .network_names()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["default", "default/net-a", "default/net-b"]
    );
}

#[test]
fn connections_need_a_network_and_a_family_in_common() {
    let world = world();
    let at = |pod: &str, index| world.0.attachment(&uid(pod), index).expect("an attachment");
    let between = |name: &str, from, to| connections(&network(name), from, to, L4::tcp(80)).len();
    assert_eq!(between("default/net-a", at("x/a", 1), at("y/a", 1)), 2);
    assert_eq!(between("default/net-b", at("x/a", 2), at("y/a", 2)), 1);
    assert_eq!(between("default/net-a", at("x/a", 1), at("y/a", 2)), 0);
    assert_eq!(between("default/net-b", at("x/a", 1), at("y/a", 1)), 0);
    assert_eq!(at("x/a", 1).meet(&at("y/a", 1)), [network("default/net-a")].into());
    assert!(at("x/a", 1).meet(&at("y/a", 2)).is_empty());
}
