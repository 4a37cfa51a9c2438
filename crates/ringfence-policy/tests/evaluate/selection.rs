//! A: selection and isolation. B: policyTypes.

use ringfence_model::{Object, ObjectKey, Peer, PolicyKind, Rule};
use serde_json::{Value, json};

use crate::world::{key, world};

fn mnp_key(name: &str) -> ObjectKey {
    ObjectKey::Policy(key(PolicyKind::MultiNetworkPolicy, name))
}

#[test]
fn s001_without_a_policy_everything_passes() {
    world().check(&[
        ("x/a", "x/b", "TCP/80", "aa"),
        ("x/a", "y/b", "icmp", "aa"),
        ("198.51.100.7", "x/a", "UDP/53", "aa"),
        ("x/a", "198.51.100.7", "gre", "aa"),
    ]);
}

#[test]
fn s002_s003_a_target_selects_pods_of_its_own_namespace() {
    world()
        .mnp("x/guard", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}))
        .check(&[
            ("y/a", "x/a", "TCP/80", "ad"),
            ("y/a", "x/b", "TCP/80", "ad"),
            ("y/a", "x/c", "TCP/80", "ad"),
            ("x/a", "y/a", "TCP/80", "aa"),
            ("x/a", "z/a", "TCP/80", "aa"),
        ]);
    world().web_ingress(&json!([])).check(&[
        ("y/a", "x/a", "TCP/80", "ad"),
        ("y/a", "x/b", "TCP/80", "aa"),
        ("y/a", "x/c", "TCP/80", "ad"),
        ("x/a", "y/a", "TCP/80", "aa"),
    ]);
}

#[test]
fn s004_an_isolated_pod_accepts_only_what_is_allowed() {
    world()
        .web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]))
        .check(&[
            ("x/b", "x/a", "TCP/80", "aa"),
            ("x/c", "x/a", "TCP/80", "ad"),
            ("y/b", "x/a", "TCP/80", "ad"),
            ("198.51.100.7", "x/a", "TCP/80", "ad"),
        ]);
}

#[test]
fn s005_s006_s010_policies_add_up_whatever_their_names() {
    for (deny, allow) in [("x/1", "x/2"), ("x/2", "x/1")] {
        let one_way = world()
            .mnp(deny, &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
            .mnp(
                allow,
                &json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}], "egress": [{}]}),
            );
        one_way.check(&[
            ("y/a", "x/a", "TCP/80", "aa"),
            ("x/a", "y/a", "TCP/80", "aa"),
            ("y/a", "x/b", "TCP/80", "ad"),
            ("x/b", "y/a", "TCP/80", "da"),
        ]);
    }
    // Two policies with different allowances: the union.
    world()
        .web_ingress(&json!([{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]))
        .mnp(
            "x/more",
            &json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 81}]}]}),
        )
        .check(&[
            ("x/b", "x/a", "TCP/80", "aa"),
            ("x/b", "x/a", "TCP/81", "aa"),
            ("y/b", "x/a", "TCP/80", "ad"),
            ("y/b", "x/a", "TCP/81", "aa"),
            ("x/b", "x/a", "TCP/82", "ad"),
        ]);
}

#[test]
fn s007_the_directions_are_independent() {
    world()
        .web_ingress(&json!([]))
        .check(&[("x/a", "x/b", "TCP/80", "aa"), ("x/b", "x/a", "TCP/80", "ad")]);
    world()
        .web_egress(&json!([]))
        .check(&[("x/a", "x/b", "TCP/80", "da"), ("x/b", "x/a", "TCP/80", "aa")]);
}

#[test]
fn s008_s009_both_ends_must_allow() {
    let to_all = json!([{}]);
    world()
        .web_egress(&to_all)
        .mnp("y/guard", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}))
        .check(&[("x/a", "y/a", "TCP/80", "ad")]);
    world()
        .web_egress(&json!([]))
        .mnp("y/guard", &json!({"podSelector": {}, "ingress": [{}]}))
        .check(&[("x/a", "y/a", "TCP/80", "da")]);
    world()
        .web_egress(&json!([]))
        .mnp("y/guard", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}))
        .check(&[("x/a", "y/a", "TCP/80", "dd")]);
    // Also in one namespace, on one node.
    world()
        .web_egress(&to_all)
        .web_ingress(&json!([]))
        .check(&[("x/a", "x/c", "TCP/80", "ad")]);
}

#[test]
fn s011_s012_labels_of_a_pod_decide_about_isolation_and_membership() {
    let before = world().web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]));
    before.check(&[("y/a", "x/a", "TCP/80", "ad"), ("x/b", "x/a", "TCP/80", "aa")]);
    before
        .clone()
        .pod("x/a", |pod| pod.labels = [("app", "other")].into_iter().collect())
        .check(&[("y/a", "x/a", "TCP/80", "aa")]);
    before
        .clone()
        .pod("x/b", |pod| pod.labels = [("app", "other")].into_iter().collect())
        .check(&[("x/b", "x/a", "TCP/80", "ad")]);
    before
        .pod("x/b", |pod| pod.labels = [("app", "web")].into_iter().collect())
        .check(&[("y/a", "x/b", "TCP/80", "ad")]);
}

#[test]
fn s013_labels_of_a_namespace_decide_about_membership() {
    let before = world().web_ingress(&json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]));
    before.check(&[
        ("y/a", "x/b", "TCP/80", "aa"),
        ("y/a", "x/a", "TCP/80", "aa"),
        ("z/a", "x/a", "TCP/80", "ad"),
    ]);
    before
        .namespace("y", |it| it.labels = [("team", "red")].into_iter().collect())
        .namespace("z", |it| it.labels = [("team", "blue")].into_iter().collect())
        .check(&[
            ("y/a", "x/a", "TCP/80", "ad"),
            ("y/b", "x/a", "TCP/80", "ad"),
            ("z/a", "x/a", "TCP/80", "aa"),
        ]);
}

#[test]
fn s014_without_the_last_policy_everything_passes_again() {
    let before = world()
        .web_ingress(&json!([]))
        .mnp("x/second", &json!({"podSelector": {}}));
    before.check(&[("y/a", "x/a", "TCP/80", "ad")]);
    let one_left = before.remove(&mnp_key("x/guard"));
    one_left.check(&[("y/a", "x/a", "TCP/80", "ad")]);
    one_left
        .remove(&mnp_key("x/second"))
        .check(&[("y/a", "x/a", "TCP/80", "aa")]);
}

/// What one spec for the pods of namespace x means: the word for x/a -> y/a and that for y/a -> x/a.
#[track_caller]
fn check_spec(spec: &Value, out: &str, back: &str) {
    world()
        .mnp("x/guard", spec)
        .check(&[("x/a", "y/a", "TCP/80", out), ("y/a", "x/a", "TCP/80", back)]);
}

#[test]
fn s015_s016_s017_s018_no_rule_and_the_empty_rule() {
    check_spec(&json!({"podSelector": {}, "policyTypes": ["Ingress"]}), "aa", "ad");
    check_spec(&json!({"podSelector": {}, "policyTypes": ["Egress"]}), "da", "aa");
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}),
        "aa",
        "aa",
    );
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
        "aa",
        "aa",
    );
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}]}),
        "da",
        "aa",
    );
}

#[test]
fn s019_s020_rules_of_a_direction_that_is_not_listed_are_ignored() {
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{"to": []}]}),
        "aa",
        "ad",
    );
    let never = json!([{"from": [{"podSelector": {"matchLabels": {"app": "none"}}}]}]);
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": never}),
        "aa",
        "ad",
    );
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": never}),
        "da",
        "aa",
    );
}

#[test]
fn s021_pods_on_the_nodes_network_are_no_targets() {
    world()
        .mnp(
            "x/guard",
            &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        )
        .pod("x/a", |pod| pod.host_network = true)
        .check(&[
            ("y/a", "x/a", "TCP/80", "aa"),
            ("x/a", "y/a", "TCP/80", "aa"),
            ("y/a", "x/b", "TCP/80", "ad"),
        ]);
}

#[test]
fn s022_s166_an_invalid_rule_allows_nothing_and_the_rest_applies() {
    world()
        .web_ingress(&json!([
            {"from": [{}]},
            {"from": [{"ipBlock": {"cidr": "not-a-cidr"}}]},
            {"ports": [{"port": 70000}]},
            {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}, {"ipBlock": {"cidr": "10.0.0.0/99"}}]},
        ]))
        .check(&[("x/b", "x/a", "TCP/80", "aa"), ("y/a", "x/a", "TCP/80", "ad")]);
    // Not even where lists lost everything on the way here.
    let mut broken = world().web_ingress(&json!([{}]));
    for policy in broken.0.policies.values_mut() {
        for rule in policy.ingress.iter_mut().flatten() {
            *rule = Rule {
                peers: ringfence_model::Peers::OneOf(vec![]),
                ports: ringfence_model::Ports::All,
            };
        }
    }
    broken.check(&[("x/b", "x/a", "TCP/80", "ad")]);
    for policy in broken.0.policies.values_mut() {
        for rule in policy.ingress.iter_mut().flatten() {
            *rule = Rule {
                peers: ringfence_model::Peers::OneOf(vec![Peer::Nothing]),
                ports: ringfence_model::Ports::OneOf(vec![]),
            };
        }
    }
    broken.check(&[("x/b", "x/a", "TCP/80", "ad")]);
}

#[test]
fn s023_s024_s025_missing_policy_types() {
    check_spec(&json!({"podSelector": {}}), "aa", "ad");
    check_spec(&json!({"podSelector": {}, "policyTypes": []}), "aa", "ad");
    check_spec(&json!({"podSelector": {}, "egress": []}), "aa", "ad");
    check_spec(&json!({"podSelector": {}, "egress": null}), "aa", "ad");
    check_spec(&json!({"podSelector": {}, "egress": [{}]}), "aa", "ad");
    check_spec(
        &json!({"podSelector": {}, "egress": [{"ports": [{"port": 443}]}]}),
        "da",
        "ad",
    );
    check_spec(
        &json!({"podSelector": {}, "ingress": [{}], "egress": [{"ports": [{"port": 443}]}]}),
        "da",
        "aa",
    );
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": []}),
        "da",
        "aa",
    );
}

#[test]
fn s026_s027_s028_unknown_and_repeated_policy_types() {
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["ingress", "Egress"], "egress": [{}]}),
        "aa",
        "aa",
    );
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Both"], "ingress": [{}]}),
        "aa",
        "aa",
    );
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Both"], "ingress": [{}], "egress": [{}]}),
        "da",
        "ad",
    );
    check_spec(
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Ingress"]}),
        "aa",
        "ad",
    );
}

#[test]
fn s225_null_rules_are_no_rules() {
    check_spec(&json!({"podSelector": {}, "ingress": null}), "aa", "ad");
    check_spec(&json!({"podSelector": {}, "ingress": []}), "aa", "ad");
}

#[test]
fn s143_the_order_of_arrival_does_not_matter() {
    let forward = world()
        .web_ingress(&json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]))
        .0;
    let mut objects: Vec<Object> = Vec::new();
    objects.extend(forward.policies.values().cloned().map(Object::Policy));
    objects.extend(forward.pods.values().rev().cloned().map(Object::Pod));
    objects.extend(forward.namespaces.values().rev().cloned().map(Object::Namespace));
    assert_eq!(
        objects.into_iter().collect::<ringfence_policy::evaluate::Universe>(),
        forward
    );
}
