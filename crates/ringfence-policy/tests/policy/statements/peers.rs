//! Groups D and E: pods and namespaces as peers, the operators of selectors.

use ringfence_model::{Requirement, Selector};

use super::*;

fn peers_of(peers: impl IntoIterator<Item = Peer>) -> [PolicyBuilder; 1] {
    [guard().ingress([from(peers)])]
}

#[test]
fn s039_s040_s041_s042_selectors_alone_and_together() {
    check(
        peers_of([pods("app=db")]),
        &["x/b > x/a tcp/80: yes", "y/b > x/a tcp/80: no", "x/c > x/a tcp/80: no"],
    );
    check(
        peers_of([pods_in("team=blue", "")]),
        &[
            "y/a > x/a tcp/80: yes",
            "y/b > x/a tcp/80: yes",
            "z/c > x/a tcp/80: yes",
            "x/b > x/a tcp/80: no",
        ],
    );
    check(
        peers_of([pods_in("team=blue", "app=db")]),
        &["y/b > x/a tcp/80: yes", "y/a > x/a tcp/80: no", "x/b > x/a tcp/80: no"],
    );
    check(
        peers_of([pods("app=db"), pods_in("team=blue", "")]),
        &["x/b > x/a tcp/80: yes", "y/a > x/a tcp/80: yes", "x/c > x/a tcp/80: no"],
    );
    check(
        [guard().egress([from([pods("app=db"), pods_in("team=blue", "app=web")])])],
        &[
            "x/a > x/b tcp/80: yes",
            "x/a > y/a tcp/80: yes",
            "x/a > y/b tcp/80: no",
            "x/a > x/c tcp/80: no",
        ],
    );
}

#[test]
fn s038_s043_s044_s045_b38_b39_empty_selectors() {
    // An empty namespaceSelector is every namespace; none at all is the own one.
    check(
        peers_of([pods_in("", "")]),
        &[
            "x/b > x/a tcp/80: yes",
            "y/a > x/a tcp/80: yes",
            "z/b > x/a tcp/80: yes",
            "192.0.2.1 > x/a tcp/80: no",
            "2001:db8::1 > x/a%6 tcp/80: no",
        ],
    );
    check(
        peers_of([pods("")]),
        &[
            "x/b > x/a tcp/80: yes",
            "y/a > x/a tcp/80: no",
            "192.0.2.1 > x/a tcp/80: no",
        ],
    );
    check(
        peers_of([pods_in("", "app=db")]),
        &["x/b > x/a tcp/80: yes", "y/b > x/a tcp/80: yes", "y/a > x/a tcp/80: no"],
    );
}

#[test]
fn s046_the_name_of_a_namespace_is_its_label() {
    let key = || "kubernetes.io/metadata.name".into();
    check(
        peers_of([pods_in("kubernetes.io/metadata.name=z", "")]),
        &["z/a > x/a tcp/80: yes", "y/a > x/a tcp/80: no"],
    );
    let names = |names: &[&str]| Requirement::NotIn {
        key: key(),
        values: names.iter().map(|name| (*name).into()).collect(),
    };
    check(
        peers_of([selected(Some(vec![names(&["x", "y"])]), vec![])]),
        &["z/a > x/a tcp/80: yes", "y/a > x/a tcp/80: no", "x/b > x/a tcp/80: no"],
    );
    check(
        peers_of([selected(Some(vec![Requirement::DoesNotExist(key())]), vec![])]),
        &["z/a > x/a tcp/80: no", "x/b > x/a tcp/80: no"],
    );
}

#[test]
fn s047_only_addresses_of_pods_are_peers() {
    // 10.96.0.10 as a Service that leads to x/b: nobody's address on this network.
    let lines = ["x/b > x/a tcp/80: yes", "10.96.0.10 > x/a tcp/80: no"];
    check(peers_of([pods_in("", "")]), &lines);
    check(
        [guard().egress([from([pods_in("", "")])])],
        &["x/a > x/b tcp/80: yes", "x/a > 10.96.0.10 tcp/80: no"],
    );
}

#[test]
fn s048_a_pod_may_be_its_own_peer() {
    // What reaches a pod by its own address from outside is not the loopback: the peers decide.
    check(peers_of([pods("app=web")]), &["x/a > x/a tcp/80: yes"]);
    check(peers_of([pods("app=db")]), &["x/a > x/a tcp/80: no"]);
}

fn selected(namespaces: Option<Vec<Requirement>>, pods: Vec<Requirement>) -> Peer {
    Peer::Pods {
        namespaces: namespaces.map(Selector::new),
        pods: Selector::new(pods),
    }
}

/// A peer with this selector: which of the pods x/1, labelled as given, may.
#[track_caller]
fn check_selector(requirements: &[Requirement], labels: &[(&str, bool)]) {
    let mut index = index_of([guard().ingress([from([selected(None, requirements.to_vec())])])]);
    for (text, expected) in labels {
        index.apply(pod("x/other", text).a(&["10.20.1.99"]).into());
        index.commit();
        let ends = (("x/other", "net1", "10.20.1.99"), ("x/a", "net1", "10.20.1.10"));
        let found = reaches(&index, ends.0, ends.1, what("tcp/80"));
        assert_eq!(found, *expected, "{requirements:?} {text:?}");
    }
    // The same selector as a target: who is isolated.
    let mut closing = policy("x/closing").ingress([]);
    closing.0.target = Some(Selector::new(requirements.to_vec()));
    let mut index = index_of([closing]);
    for (text, expected) in labels {
        index.apply(pod("x/other", text).a(&["10.20.1.99"]).into());
        index.commit();
        let ends = (("192.0.2.1", "net1", "192.0.2.1"), ("x/other", "net1", "10.20.1.99"));
        let found = reaches(&index, ends.0, ends.1, what("tcp/80"));
        assert_eq!(found, !*expected, "target {requirements:?} {text:?}");
    }
}

fn is(key: &str, values: &[&str]) -> Requirement {
    Requirement::In {
        key: key.into(),
        values: values.iter().map(|value| (*value).into()).collect(),
    }
}

fn is_not(key: &str, values: &[&str]) -> Requirement {
    Requirement::NotIn {
        key: key.into(),
        values: values.iter().map(|value| (*value).into()).collect(),
    }
}

#[test]
fn s053_s054_labels_and_expressions_must_all_match() {
    check_selector(
        &[is("app", &["web"]), is("tier", &["front"])],
        &[
            ("app=web,tier=front", true),
            ("app=web", false),
            ("tier=front", false),
            ("", false),
        ],
    );
    check_selector(
        &[
            is("app", &["web"]),
            Requirement::Exists("tier".into()),
            is_not("tier", &["back"]),
        ],
        &[
            ("app=web,tier=front", true),
            ("app=web,tier=back", false),
            ("app=web", false),
            ("tier=front", false),
        ],
    );
}

#[test]
fn s055_s056_s057_s058_operators() {
    check_selector(
        &[is("tier", &["back", "front"])],
        &[
            ("tier=front", true),
            ("tier=back", true),
            ("tier=mid", false),
            ("app=front", false),
        ],
    );
    check_selector(
        &[is_not("tier", &["back", "front"])],
        &[
            ("tier=front", false),
            ("tier=mid", true),
            ("app=front", true),
            ("", true),
        ],
    );
    check_selector(
        &[Requirement::Exists("tier".into())],
        &[("tier=front", true), ("tier=", true), ("app=web", false)],
    );
    check_selector(
        &[Requirement::DoesNotExist("tier".into())],
        &[("tier=front", false), ("tier=", false), ("app=web", true)],
    );
}

#[test]
fn s061_case_and_empty_values_count() {
    check_selector(
        &[is("app", &["Web"])],
        &[("app=Web", true), ("app=web", false), ("App=Web", false)],
    );
    check_selector(&[is("app", &[""])], &[("app=", true), ("app=x", false), ("", false)]);
}
