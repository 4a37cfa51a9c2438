//! Group J and what changes during life: labels, addresses, owners, ends, the order of events.

use super::*;

#[test]
fn s011_s012_s014_b37_labels_and_policies_come_and_go() {
    let mut index = index_of([guard().target("app=web").ingress([from([pods("app=db")])])]);
    check_index(&index, &["x/b > x/a tcp/80: yes", "x/c > x/a tcp/80: no"]);
    let mut turned = member("x/b");
    turned.0.labels = support::labels("app=other");
    index.apply(turned.into());
    index.commit();
    check_index(&index, &["x/b > x/a tcp/80: no"]);
    let mut unselected = member("x/a");
    unselected.0.labels = support::labels("app=other");
    index.apply(unselected.into());
    index.commit();
    check_index(&index, &["x/b > x/a tcp/80: yes", "x/b > x/c tcp/80: no"]);
    index.remove(&ObjectKey::Policy(guard().0.key));
    index.commit();
    check_index(&index, &["x/b > x/c tcp/80: yes"]);
    assert!(index.ruleset(&uid("x/c")).is_none(), "s014: no table is left");
}

#[test]
fn s013_b36_a_namespace_that_is_labelled_late() {
    let allowed = guard().ingress([from([pods_in("team=blue", "")])]);
    let mut index = index_of([allowed]);
    check_index(&index, &["y/a > x/a tcp/80: yes", "x/b > x/a tcp/80: no"]);
    index.apply(Object::Namespace(namespace("y", "team=red")));
    index.apply(Object::Namespace(namespace("x", "team=blue")));
    index.commit();
    check_index(
        &index,
        &["y/a > x/a tcp/80: no", "x/b > x/a tcp/80: yes", "z/a > x/a tcp/80: yes"],
    );
}

#[test]
fn s043_s046_a_namespace_known_by_its_pods_only_has_its_name_and_no_other_label() {
    let orphan = || pod("w/a", "app=web").a(&["10.20.4.10"]);
    let not_red = Peer::Pods {
        namespaces: Some(ringfence_model::Selector::new(vec![
            ringfence_model::Requirement::NotIn {
                key: "team".into(),
                values: vec!["red".into()],
            },
        ])),
        pods: support::select(""),
    };
    let ends = (("w/a", "net1", "10.20.4.10"), ("x/a", "net1", "10.20.1.10"));
    for (peer, without, with) in [
        (pods_in("", ""), true, true),
        (pods_in("kubernetes.io/metadata.name=w", ""), true, true),
        (pods_in("kubernetes.io/metadata.name=v", ""), false, false),
        (not_red, false, true),
    ] {
        let mut index = index_of([guard().ingress([from([peer])])]);
        index.apply(orphan().into());
        index.commit();
        assert_eq!(reaches(&index, ends.0, ends.1, what("tcp/80")), without);
        index.apply(Object::Namespace(namespace("w", "")));
        index.commit();
        assert_eq!(reaches(&index, ends.0, ends.1, what("tcp/80")), with);
        index.remove(&ObjectKey::Namespace("w".into()));
        index.commit();
        assert_eq!(reaches(&index, ends.0, ends.1, what("tcp/80")), without);
    }
}

#[test]
fn s021_s049_s132_host_network_and_ended_pods_are_neither_targets_nor_peers() {
    for gone in [member("x/b").host_network(), member("x/b").terminal()] {
        let policies = [
            guard().ingress([from([pods("app=db")])]),
            policy("x/db").target("app=db").ingress([]),
        ];
        let mut index = index_of(policies);
        check_index(&index, &["x/b > x/a tcp/80: yes", "x/a > x/b tcp/80: no"]);
        index.apply(gone.into());
        index.commit();
        check_index(&index, &["x/b > x/a tcp/80: no"]);
        assert!(index.ruleset(&uid("x/b")).is_none());
        index.apply(member("x/b").into());
        index.commit();
        check_index(&index, &["x/b > x/a tcp/80: yes", "x/a > x/b tcp/80: no"]);
    }
}

#[test]
fn s050_s051_s052_s137_s164_b41_addresses_come_and_go() {
    let mut index = index_of([guard().ingress([from([pods_in("team=blue", "")])])]);
    let new = |addresses: &[&str]| pod("y/new", "").a(addresses);
    let ends = |address| (("y/new", "net1", address), ("x/a", "net1", "10.20.1.10"));
    index.apply(new(&[]).into());
    index.commit();
    check_index(&index, &["192.0.2.1 > x/a tcp/80: no", "0.0.0.0 > x/a tcp/80: no"]);
    for (addresses, allowed, denied) in [
        (["10.20.2.50"], "10.20.2.50", "10.20.2.51"),
        (["10.20.2.51"], "10.20.2.51", "10.20.2.50"),
    ] {
        index.apply(new(&addresses).into());
        index.commit();
        assert!(reaches(&index, ends(allowed).0, ends(allowed).1, what("tcp/80")));
        assert!(!reaches(&index, ends(denied).0, ends(denied).1, what("tcp/80")));
    }
    index.remove(&pod_key("y/new"));
    index.apply(pod("x/heir", "app=heir").a(&["10.20.2.51"]).into());
    index.commit();
    assert!(
        !reaches(&index, ends("10.20.2.51").0, ends("10.20.2.51").1, what("tcp/80")),
        "s052: the heir's rights only"
    );
}

#[test]
fn s130_s131_isolation_comes_first_and_permissions_follow() {
    let late = || pod("x/late", "app=late").a(&["10.20.1.80"]);
    // The policy, then the pod that it selects, then the peer, then a rule more: isolated from the pod's first moment.
    let mut index = index_of([policy("x/late").target("app=late").ingress([from([pods("app=peer")])])]);
    let ends = |from: &'static str| ((from, "net1", "10.20.1.81"), ("x/late", "net1", "10.20.1.80"));
    let passes = |index: &World| reaches(index, ends("x/peer").0, ends("x/peer").1, what("tcp/80"));
    index.apply(late().into());
    assert_eq!(index.commit(), [uid("x/late")]);
    assert!(!passes(&index));
    index.apply(pod("x/peer", "app=peer").a(&["10.20.1.81"]).into());
    index.commit();
    assert!(passes(&index));
    // A policy that comes while both run.
    index.remove(&ObjectKey::Policy(policy("x/late").0.key));
    index.apply(
        policy("x/more")
            .target("app=late")
            .ingress([rule([pods("app=peer")], [tcp(443)])])
            .into(),
    );
    index.commit();
    assert!(!passes(&index));
    assert!(reaches(&index, ends("x/peer").0, ends("x/peer").1, what("tcp/443")));
}

#[test]
fn s134_b3_b4_an_address_has_one_owner() {
    let old = || pod("y/old", "app=db").a(&["10.20.2.50"]).started(1);
    let new = || pod("y/new", "app=web").a(&["10.20.2.50"]).started(2);
    let ends = (("y/new", "net1", "10.20.2.50"), ("x/a", "net1", "10.20.1.10"));
    for (allowed_label, expected) in [("app=web", true), ("app=db", false)] {
        let base = || index_of([guard().ingress([from([pods_in("team=blue", allowed_label)])])]);
        // In every order of the two and of the delayed end of the old one.
        for order in [
            ["new", "old", ""],
            ["old", "new", ""],
            ["old", "new", "end"],
            ["new", "old", "end"],
        ] {
            let mut index = base();
            for step in order {
                match step {
                    "new" => index.apply(new().into()),
                    "old" => index.apply(old().into()),
                    "end" => index.remove(&pod_key("y/old")),
                    _ => {}
                }
                index.commit();
            }
            assert_eq!(
                reaches(&index, ends.0, ends.1, what("tcp/80")),
                expected,
                "{allowed_label} {order:?}"
            );
        }
        let mut index = base();
        index.apply(old().into());
        index.apply(new().into());
        index.commit();
        let conflicts = index.conflicts();
        assert_eq!(conflicts.len(), 1);
        assert_eq!(
            (&conflicts[0].owner, &conflicts[0].others),
            (&uid("y/new"), &vec![uid("y/old")])
        );
        index.apply(new().terminal().into());
        index.commit();
        assert_eq!(
            reaches(&index, ends.0, ends.1, what("tcp/80")),
            !expected,
            "B4: the ended pod has no claim"
        );
        assert!(index.conflicts().is_empty());
    }
}

#[test]
fn s135_a_pod_of_the_same_name_is_another_pod() {
    let mut index = index_of([guard().ingress([from([pods("app=db")])])]);
    index.apply(member("x/b").uid("second").started(5).into());
    index.remove(&pod_key("x/b"));
    index.commit();
    check_index(&index, &["x/b > x/a tcp/80: yes"]);
}

#[test]
fn s136_every_address_counts() {
    let more = pod("x/more", "app=db").a(&["10.20.1.60", "10.20.1.61", "fd00:20::60"]);
    let mut index = index_of([guard().ingress([from([pods("app=db")])])]);
    index.apply(more.into());
    index.commit();
    for address in ["10.20.1.60", "10.20.1.61"] {
        assert!(reaches(
            &index,
            ("x/more", "net1", address),
            ("x/a", "net1", "10.20.1.10"),
            what("tcp/80")
        ));
    }
    assert!(reaches(
        &index,
        ("x/more", "net1", "fd00:20::60"),
        ("x/a", "net1", "fd00:20::1:10"),
        what("tcp/80")
    ));
}

#[test]
fn s138_b16_isolation_outlives_policies_of_a_namespace_that_is_being_deleted() {
    let key = ObjectKey::Policy(guard().0.key);
    let with = |terminating| {
        let mut namespace = namespace("x", "team=red");
        namespace.terminating = terminating;
        Object::Namespace(namespace)
    };
    let mut index = index_of([guard().ingress([])]);
    index.apply(with(true));
    index.remove(&key);
    index.commit();
    check_index(&index, &["y/a > x/a tcp/80: no"]);
    assert!(
        index
            .policies()
            .iter()
            .all(|policy| policy.retained && policy.local_pods == 2)
    );
    // A namespace of that name that is not being deleted is a new one.
    let mut again = index_of([guard().ingress([])]);
    again.apply(with(true));
    again.remove(&key);
    again.apply(with(false));
    again.commit();
    check_index(&again, &["y/a > x/a tcp/80: yes"]);
    // The end of the namespace may be known before the end of its pods.
    index.remove(&ObjectKey::Namespace("x".into()));
    index.commit();
    check_index(&index, &["y/a > x/a tcp/80: no"]);
    for pod in ["x/a", "x/b", "x/c"] {
        index.remove(&pod_key(pod));
    }
    index.commit();
    assert!(index.policies().is_empty());
}

#[test]
fn s143_b36_order_of_arrival_makes_no_difference() {
    let policy: Object = guard().ingress([from([pods_in("team=blue", "app=db")])]).into();
    let objects: Vec<Object> = world().into_iter().chain([policy]).collect();
    let wanted = index_with(options(), objects.clone());
    for start in 0..objects.len() {
        let turned = objects.iter().cycle().skip(start).take(objects.len()).cloned();
        let index = index_with(options(), turned);
        assert_eq!(index.ruleset(&uid("x/a")), wanted.ruleset(&uid("x/a")));
    }
}

#[test]
fn b19_deleted_and_created_again_in_one_batch() {
    let mut index = index_of([
        guard().ingress([from([pods("app=db")])]),
        policy("x/same").ingress([from([pods("app=db")])]),
    ]);
    let before = index.ruleset(&uid("x/a")).cloned();
    index.remove(&ObjectKey::Policy(guard().0.key));
    index.apply(guard().ingress([from([pods("app=db")])]).into());
    index.remove(&pod_key("x/a"));
    index.apply(member("x/a").into());
    assert!(index.commit().is_empty(), "nothing has changed");
    assert_eq!(index.ruleset(&uid("x/a")), before.as_ref());
    // Of two users of one selector one goes: the other keeps its peers.
    index.remove(&ObjectKey::Policy(guard().0.key));
    index.commit();
    check_index(&index, &["x/b > x/a tcp/80: yes", "x/c > x/a tcp/80: no"]);
}

#[test]
fn only_pods_of_this_node_have_rulesets() {
    let options = Options {
        locality: Locality::Node("node-2".into()),
        ..options()
    };
    let mut here = member("x/a");
    here.0.node = Some("node-2".into());
    let objects = world()
        .into_iter()
        .chain([here.clone().into(), guard().ingress([from([pods("")])]).into()]);
    let mut index = index_with(options, objects);
    assert_eq!(index.local_pods().collect::<Vec<_>>(), [&uid("x/a")]);
    assert!(index.ruleset(&uid("x/c")).is_none());
    check_index(&index, &["x/b > x/a tcp/80: yes", "y/a > x/a tcp/80: no"]);
    here.0.node = Some("node-3".into());
    index.apply(here.into());
    assert_eq!(index.commit(), [uid("x/a")]);
    assert!(index.view(&uid("x/a")).is_none() && index.ruleset(&uid("x/a")).is_none());
}
