//! C: emptiness. D: pod and namespace peers. E: selectors.

use ringfence_model::{Object, ObjectKey, Selector};
use serde_json::{Value, json};

use crate::world::{Row, address, attachment, empty_pod, uid, world};

/// Who may open TCP 80 to x/a where its ingress has just these peers: the senders from x/b, x/c, y/a, y/b, z/a and
/// the outside that may.
#[track_caller]
fn check_from(peers: &Value, allowed: &[&str]) {
    let senders = ["x/b", "x/c", "y/a", "y/b", "z/a", "198.51.100.7"];
    assert!(allowed.iter().all(|it| senders.contains(it)), "{allowed:?}");
    let word = |sender: &str, yes, no| if allowed.contains(&sender) { yes } else { no };
    let inward: Vec<Row<'_>> = senders
        .iter()
        .map(|sender| (*sender, "x/a", "TCP/80", word(sender, "aa", "ad")))
        .collect();
    world().web_ingress(&json!([{"from": peers}])).check(&inward);
    // The same peers as destinations of x/a.
    let outward: Vec<Row<'_>> = senders
        .iter()
        .map(|sender| ("x/a", *sender, "TCP/80", word(sender, "aa", "da")))
        .collect();
    world().web_egress(&json!([{"to": peers}])).check(&outward);
}

const ALL: &[&str] = &["x/b", "x/c", "y/a", "y/b", "z/a", "198.51.100.7"];

#[test]
fn s029_s030_missing_and_empty_peers_match_everybody() {
    check_from(&json!(null), ALL);
    check_from(&json!([]), ALL);
}

#[test]
fn s031_s032_s033_peers_and_ports_of_a_rule() {
    world()
        .web_ingress(&json!([
            {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}, {"ipBlock": {"cidr": "198.51.100.0/24"}}],
             "ports": [{"port": 80}, {"protocol": "UDP", "port": 53}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]},
        ]))
        .check(&[
            ("x/b", "x/a", "TCP/80", "aa"),
            ("x/b", "x/a", "UDP/53", "aa"),
            ("x/b", "x/a", "TCP/53", "ad"),
            ("x/b", "x/a", "icmp", "ad"),
            ("198.51.100.7", "x/a", "TCP/80", "aa"),
            ("203.0.113.7", "x/a", "TCP/80", "ad"),
            ("y/a", "x/a", "TCP/9999", "aa"),
            ("y/a", "x/a", "icmp", "aa"),
            ("y/a", "x/a", "gre", "aa"),
            ("z/a", "x/a", "TCP/80", "ad"),
        ]);
    for ports in [json!(null), json!([])] {
        world()
            .web_ingress(&json!([{"from": [{"podSelector": {}}], "ports": ports}]))
            .check(&[("x/b", "x/a", "icmp", "aa"), ("y/a", "x/a", "icmp", "ad")]);
    }
}

#[test]
fn s034_s035_lists_that_resolve_to_nothing_match_nothing() {
    check_from(&json!([{"podSelector": {"matchLabels": {"app": "nobody"}}}]), &[]);
    check_from(
        &json!([{"namespaceSelector": {"matchLabels": {"team": "nobody"}}}]),
        &[],
    );
    world()
        .web_ingress(&json!([{"ports": [{"port": "nobody"}]}]))
        .check(&[("x/b", "x/a", "TCP/80", "ad"), ("x/b", "x/a", "icmp", "ad")]);
}

#[test]
fn s036_s037_invalid_peers_match_nothing() {
    check_from(&json!([{}]), &[]);
    check_from(&json!([{"podSelector": null}]), &[]);
    check_from(&json!([{}, {"podSelector": {"matchLabels": {"app": "db"}}}]), &["x/b"]);
    let block = json!({"cidr": "0.0.0.0/0"});
    check_from(&json!([{"ipBlock": block, "podSelector": {}}]), &[]);
    check_from(&json!([{"ipBlock": block, "namespaceSelector": {}}]), &[]);
}

#[test]
fn s038_s043_s044_s045_empty_selectors() {
    let pods = &["x/b", "x/c", "y/a", "y/b", "z/a"];
    check_from(&json!([{"podSelector": {}}]), &["x/b", "x/c"]);
    check_from(&json!([{"namespaceSelector": {}}]), pods);
    check_from(&json!([{"namespaceSelector": {}, "podSelector": {}}]), pods);
}

#[test]
fn s039_s040_s041_s042_selectors_alone_and_together() {
    let db = json!({"matchLabels": {"app": "db"}});
    let blue = json!({"matchLabels": {"team": "blue"}});
    check_from(&json!([{"podSelector": db}]), &["x/b"]);
    check_from(&json!([{"namespaceSelector": blue}]), &["y/a", "y/b"]);
    check_from(&json!([{"podSelector": db, "namespaceSelector": blue}]), &["y/b"]);
    check_from(
        &json!([{"podSelector": db}, {"namespaceSelector": blue}]),
        &["x/b", "y/a", "y/b"],
    );
    check_from(&json!([{"podSelector": db, "namespaceSelector": {}}]), &["x/b", "y/b"]);
}

#[test]
fn s046_every_namespace_has_its_name_as_a_label() {
    let by_name = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "y"}}}]);
    check_from(&by_name, &["y/a", "y/b"]);
    let not_by_name = json!([{"namespaceSelector": {"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["y"]}]}}]);
    check_from(&not_by_name, &["x/b", "x/c", "z/a"]);
    // Also one whose object has not been seen; nothing else is assumed of that one.
    let unseen = |peers: &Value| {
        let mut world = world().web_ingress(&json!([{"from": peers}]));
        world.0.namespaces.remove("y");
        world
    };
    unseen(&by_name).check(&[("y/a", "x/a", "TCP/80", "aa"), ("z/a", "x/a", "TCP/80", "ad")]);
    unseen(&json!([{"namespaceSelector": {}}])).check(&[("y/a", "x/a", "TCP/80", "aa")]);
    unseen(&json!([{"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}]))
        .check(&[("y/a", "x/a", "TCP/80", "ad"), ("z/a", "x/a", "TCP/80", "aa")]);
}

#[test]
fn s047_a_service_address_is_no_pod() {
    world()
        .web_egress(&json!([{"to": [{"namespaceSelector": {}}]}]))
        .check(&[("x/a", "10.96.0.10", "TCP/80", "da"), ("x/a", "x/b", "TCP/80", "aa")]);
}

#[test]
fn s048_a_pod_is_its_own_peer_where_its_labels_match() {
    // A second pod with the same labels shows that the peer means this kind of pod; the pod itself passes anyway.
    world()
        .web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]))
        .check(&[
            ("x/a", "x/a", "TCP/80", "aa"),
            ("x/c", "x/a", "TCP/80", "aa"),
            ("x/b", "x/a", "TCP/80", "ad"),
        ]);
}

#[test]
fn s049_pods_on_the_nodes_network_are_no_selectors_peers() {
    let host = |peers: &Value| {
        world()
            .web_ingress(&json!([{"from": peers}]))
            .pod("x/b", |pod| pod.host_network = true)
    };
    host(&json!([{"podSelector": {}}])).check(&[("x/b", "x/a", "TCP/80", "ad"), ("x/c", "x/a", "TCP/80", "aa")]);
    host(&json!([{"namespaceSelector": {}}])).check(&[("x/b", "x/a", "TCP/80", "ad")]);
    host(&json!([{"ipBlock": {"cidr": "10.20.1.11/32"}}])).check(&[("x/b", "x/a", "TCP/80", "aa")]);
    host(&json!([])).check(&[("x/b", "x/a", "TCP/80", "aa")]);
}

#[test]
fn s050_s164_a_pod_without_an_address_contributes_nothing() {
    let silent = world()
        .web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]))
        .web_egress(&json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]))
        .pod("x/b", |pod| pod.attachments[1].addresses.clear());
    silent.check(&[
        ("10.20.1.11", "x/a", "TCP/80", "ad"),
        ("y/b", "x/a", "TCP/80", "ad"),
        ("x/a", "10.20.1.11", "TCP/80", "da"),
        ("x/a", "198.51.100.7", "TCP/80", "da"),
    ]);
    // 164: an ipBlock still works there.
    world()
        .web_ingress(&json!([{"from": [{"ipBlock": {"cidr": "10.20.1.11/32"}}]}]))
        .pod("x/b", |pod| pod.attachments[1].addresses.clear())
        .check(&[("10.20.1.11", "x/a", "TCP/80", "aa")]);
}

#[test]
fn s051_s052_pods_come_and_go_and_an_address_has_its_holders_rights() {
    let blue = world().web_ingress(&json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]));
    let newcomer = |name: &str| {
        let mut pod = empty_pod(name);
        pod.attachments
            .push(attachment("net1", "default/net-a", &["10.20.9.9"]));
        Object::Pod(pod)
    };
    blue.check(&[("10.20.9.9", "x/a", "TCP/80", "ad")]);
    let created = blue.add(newcomer("y/new"));
    created.check(&[("10.20.9.9", "x/a", "TCP/80", "aa"), ("y/new", "x/a", "TCP/80", "aa")]);
    let deleted = created.remove(&ObjectKey::Pod(uid("y/new")));
    deleted.check(&[("10.20.9.9", "x/a", "TCP/80", "ad")]);
    deleted
        .add(newcomer("z/new"))
        .check(&[("10.20.9.9", "x/a", "TCP/80", "ad"), ("z/new", "x/a", "TCP/80", "ad")]);
}

/// Which pods of namespace x besides x/a an expression on their labels selects.
#[track_caller]
fn check_labels(selector: &Value, allowed: &[&str]) {
    check_from(&json!([{"podSelector": selector}]), allowed);
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}

#[test]
fn s053_s054_entries_and_expressions_are_anded() {
    check_labels(&json!({"matchLabels": {"app": "web", "tier": ""}}), &["x/c"]);
    check_labels(&json!({"matchLabels": {"app": "db", "tier": ""}}), &[]);
    let both = |operator: &str| json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": operator}]});
    check_labels(&both("Exists"), &["x/c"]);
    check_labels(&both("DoesNotExist"), &[]);
}

#[test]
fn s055_s056_s057_s058_operators() {
    check_labels(&expression("app", "In", &["db", "cache"]), &["x/b"]);
    check_labels(&expression("tier", "In", &[""]), &["x/c"]);
    check_labels(&expression("absent", "In", &["x"]), &[]);
    check_labels(&expression("app", "NotIn", &["db"]), &["x/c"]);
    check_labels(&expression("tier", "NotIn", &["front"]), &["x/b", "x/c"]);
    check_labels(&expression("tier", "NotIn", &[""]), &["x/b"]);
    check_labels(&expression("tier", "Exists", &[]), &["x/c"]);
    check_labels(&expression("tier", "DoesNotExist", &[]), &["x/b"]);
}

#[test]
fn s059_s060_s223_an_invalid_selector_selects_nothing() {
    for invalid in [
        expression("app", "In", &[]),
        expression("app", "NotIn", &[]),
        expression("app", "Exists", &["web"]),
        expression("absent", "DoesNotExist", &["web"]),
        expression("app", "in", &["web"]),
        expression("app", "Gt", &["1"]),
    ] {
        check_labels(&invalid, &[]);
        check_from(&json!([{"namespaceSelector": invalid}]), &[]);
        check_from(&json!([{"namespaceSelector": {}, "podSelector": invalid}]), &[]);
        // As a target it selects no pod, so nothing is isolated.
        world()
            .mnp("x/guard", &json!({"podSelector": invalid}))
            .check(&[("y/a", "x/a", "TCP/80", "aa")]);
    }
    // And a valid one does isolate.
    let mut valid = world().mnp("x/guard", &json!({"podSelector": expression("app", "Exists", &[])}));
    valid.check(&[("y/a", "x/a", "TCP/80", "ad")]);
    for policy in valid.0.policies.values_mut() {
        assert_ne!(policy.target, Some(Selector::everything()));
        policy.target = None;
    }
    valid.check(&[("y/a", "x/a", "TCP/80", "aa")]);
}

#[test]
fn s061_case_and_empty_values_count() {
    check_labels(&json!({"matchLabels": {"app": "DB"}}), &[]);
    check_labels(&json!({"matchLabels": {"App": "db"}}), &[]);
    check_labels(&json!({"matchLabels": {"tier": ""}}), &["x/c"]);
    check_labels(&json!({"matchLabels": {"app": ""}}), &[]);
}

#[test]
fn s136_every_address_of_a_pod_counts() {
    let policy = json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]);
    world()
        .web_ingress(&policy)
        .pod("x/b", |pod| {
            pod.attachments[1].addresses.insert(address("10.20.1.111"));
            pod.attachments[1].addresses.insert(address("fd00:20:1::111"));
        })
        .check(&[
            ("10.20.1.11", "x/a", "TCP/80", "aa"),
            ("10.20.1.111", "x/a", "TCP/80", "aa"),
            ("fd00:20:1::11", "x/a", "TCP/80", "aa"),
            ("fd00:20:1::111", "x/a", "TCP/80", "aa"),
            ("fd00:20:1::112", "x/a", "TCP/80", "ad"),
        ]);
}
