use serde_json::json;

use super::*;

fn pod(name: &str, uid: &str, version: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "x", "uid": uid, "resourceVersion": version}})
}

fn policy(name: &str, version: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "x", "resourceVersion": version}, "spec": spec})
}

/// `+pod x/a`, `-pod x/a`, `!kind x/a: 2` for two diagnostics.
fn shown(merge: &mut Merge) -> Vec<String> {
    merge
        .updates()
        .into_iter()
        .map(|update| match update {
            Update::Apply(decoded) => format!("+{}", decoded.source),
            Update::Gone { source, .. } => format!("-{source}"),
            Update::Report { source, diagnostics } => format!("!{source}: {}", diagnostics.len()),
            Update::Synced { .. } | Update::Unread(_) => unreachable!("the merger knows nothing of it"),
        })
        .collect()
}

#[track_caller]
fn check(merge: &mut Merge, expected: &[&str]) {
    assert_eq!(shown(merge), expected);
}

fn list(merge: &mut Merge, stream: Stream, kind: Kind, objects: &[Value]) {
    merge.begin(stream);
    for object in objects {
        merge.apply(stream, kind, object);
    }
    merge.end(stream, kind);
}

#[test]
fn a_new_list_is_the_difference_to_what_was_known() {
    let mut merge = Merge::new(Scope::Secondary, Identities::default());
    let remote = |merge: &mut Merge, objects: &[Value]| list(merge, Stream::RemotePods, Kind::Pod, objects);
    remote(&mut merge, &[pod("a", "1", "1"), pod("b", "2", "1")]);
    check(&mut merge, &["+Pod x/a", "+Pod x/b"]);
    remote(&mut merge, &[pod("a", "1", "1"), pod("b", "2", "1")]);
    check(&mut merge, &[]);
    remote(&mut merge, &[pod("b", "2", "7"), pod("c", "3", "1")]);
    check(&mut merge, &["+Pod x/b", "+Pod x/c", "-Pod x/a"]);
    assert_eq!(merge.count(Stream::RemotePods), 2);
}

#[test]
fn a_list_that_breaks_off_removes_nothing() {
    let mut merge = Merge::new(Scope::Secondary, Identities::default());
    list(
        &mut merge,
        Stream::LocalPods,
        Kind::Pod,
        &[pod("a", "1", "1"), pod("b", "2", "1")],
    );
    merge.updates();
    merge.begin(Stream::LocalPods);
    merge.apply(Stream::LocalPods, Kind::Pod, &pod("b", "2", "1"));
    // The connection is lost here; the next list begins anew and is complete.
    list(
        &mut merge,
        Stream::LocalPods,
        Kind::Pod,
        &[pod("a", "1", "1"), pod("b", "2", "1")],
    );
    check(&mut merge, &[]);
}

#[test]
fn s135_a_pod_that_was_replaced_while_nobody_looked_is_another_pod() {
    let mut merge = Merge::new(Scope::Secondary, Identities::default());
    list(&mut merge, Stream::RemotePods, Kind::Pod, &[pod("a", "1", "1")]);
    merge.updates();
    list(&mut merge, Stream::RemotePods, Kind::Pod, &[pod("a", "2", "5")]);
    let updates = merge.updates();
    assert!(matches!(&updates[0], Update::Gone { key: ObjectKey::Pod(uid), .. } if uid.as_str() == "1"));
    assert!(matches!(&updates[1], Update::Apply(decoded) if decoded.object.is_some()));
}

#[test]
fn s143_a_pod_that_is_bound_to_this_node_is_never_gone_in_between() {
    for local_first in [true, false] {
        let mut merge = Merge::new(Scope::Secondary, Identities::default());
        merge.apply(Stream::RemotePods, Kind::Pod, &pod("a", "1", "1"));
        merge.updates();
        let expected: &[&str] = if local_first {
            merge.apply(Stream::LocalPods, Kind::Pod, &pod("a", "1", "2"));
            merge.delete(Stream::RemotePods, Kind::Pod, &pod("a", "1", "2"));
            &["+Pod x/a"]
        } else {
            merge.delete(Stream::RemotePods, Kind::Pod, &pod("a", "1", "2"));
            merge.apply(Stream::LocalPods, Kind::Pod, &pod("a", "1", "2"));
            // Known nowhere for a moment: it had no sandbox yet, so it had no address either.
            &["-Pod x/a", "+Pod x/a"]
        };
        check(&mut merge, expected);
        // A late word of the other watch changes nothing.
        merge.apply(Stream::RemotePods, Kind::Pod, &pod("a", "1", "1"));
        check(&mut merge, &[]);
        merge.delete(Stream::RemotePods, Kind::Pod, &pod("a", "1", "1"));
        check(&mut merge, &[]);
        merge.delete(Stream::LocalPods, Kind::Pod, &pod("a", "1", "3"));
        check(&mut merge, &["-Pod x/a"]);
    }
}

#[test]
fn what_cannot_be_decoded_is_reported_alone() {
    let mut merge = Merge::new(Scope::Secondary, Identities::default());
    let bad = json!({"metadata": {"name": "a b", "namespace": "x"}});
    list(
        &mut merge,
        Stream::NetworkPolicies,
        Kind::NetworkPolicy,
        &[bad, policy("good", "1", &json!({"podSelector": {}}))],
    );
    check(&mut merge, &["!File the Kubernetes API: 1", "+NetworkPolicy x/good"]);
}

#[test]
fn remote_pods_bring_no_diagnostics() {
    let mut merge = Merge::new(Scope::Secondary, Identities::default());
    let mut mangled = pod("a", "1", "1");
    mangled["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/network-status": "{"});
    let found = |merge: &mut Merge| match &merge.updates()[..] {
        [Update::Apply(decoded)] => decoded.diagnostics.len(),
        other => panic!("{other:?}"),
    };
    merge.apply(Stream::RemotePods, Kind::Pod, &mangled);
    assert_eq!(found(&mut merge), 0);
    mangled["metadata"]["uid"] = json!("2");
    mangled["metadata"]["name"] = json!("b");
    merge.apply(Stream::LocalPods, Kind::Pod, &mangled);
    assert!(found(&mut merge) > 0);
}

#[test]
fn s090_full_pods_are_asked_for_while_a_policy_needs_them() {
    let plain = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 80}]}]});
    let named = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "web"}]}]});
    let check = |scope: Scope, spec: &Value, annotations: &Value, expected: bool| {
        let mut merge = Merge::new(scope, Identities::default());
        let mut object = policy("p", "1", spec);
        object["metadata"]["annotations"] = annotations.clone();
        merge.apply(Stream::NetworkPolicies, Kind::NetworkPolicy, &object);
        assert_eq!(merge.needs_full_pods(), expected, "{scope:?} {object}");
        merge.delete(Stream::NetworkPolicies, Kind::NetworkPolicy, &object);
        assert!(!merge.needs_full_pods());
    };
    let none = json!({});
    check(Scope::Secondary, &plain, &none, false);
    check(Scope::Secondary, &named, &none, true);
    check(Scope::All, &plain, &none, true);
    check(
        Scope::Secondary,
        &plain,
        &json!({"k8s.v1.cni.cncf.io/policy-for": "default"}),
        true,
    );
    check(
        Scope::All,
        &plain,
        &json!({"k8s.v1.cni.cncf.io/policy-for": "net-a"}),
        false,
    );
}

#[test]
fn in_another_form_the_same_version_is_read_again() {
    let mut merge = Merge::new(Scope::Secondary, Identities::default());
    list(&mut merge, Stream::RemotePods, Kind::Pod, &[pod("a", "1", "1")]);
    merge.updates();
    merge.forget_versions(Stream::RemotePods);
    list(&mut merge, Stream::RemotePods, Kind::Pod, &[pod("a", "1", "1")]);
    check(&mut merge, &["+Pod x/a"]);
}

#[test]
fn who_a_policy_is_is_known_while_it_is_there_also_where_it_is_rejected() {
    let identities = Identities::default();
    let mut merge = Merge::new(Scope::Secondary, identities.clone());
    let mut object = policy("guard", "1", &json!("nonsense"));
    object["metadata"]["uid"] = json!("u1");
    object["metadata"]["generation"] = json!(7);
    let key = policy_key(Kind::NetworkPolicy, &NamespacedName::new("x", "guard")).expect("a policy");
    merge.apply(Stream::NetworkPolicies, Kind::NetworkPolicy, &object);
    let expected = Identity {
        uid: "u1".into(),
        generation: 7,
    };
    assert_eq!(identities.get(&key), Some(expected));
    merge.delete(Stream::NetworkPolicies, Kind::NetworkPolicy, &object);
    assert_eq!(identities.get(&key), None);
}

#[test]
fn s138_policies_that_go_while_the_watch_of_namespaces_has_trouble_wait_for_a_list() {
    let (namespaces, policies) = (Stream::Namespaces, Stream::NetworkPolicies);
    let namespace = |version: &str| json!({"metadata": {"name": "x", "resourceVersion": version}});
    let mut marked = namespace("2");
    marked["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let all = json!({"podSelector": {}});
    let [a, b] = ["a", "b"].map(|name| policy(name, "1", &all));
    let begun = || {
        let mut merge = Merge::new(Scope::All, Identities::default());
        list(&mut merge, namespaces, Kind::Namespace, &[namespace("1")]);
        list(&mut merge, policies, Kind::NetworkPolicy, &[a.clone(), b.clone()]);
        merge.updates();
        merge
    };

    let mut merge = begun();
    merge.delete(policies, Kind::NetworkPolicy, &a);
    check(&mut merge, &["-NetworkPolicy x/a"]);
    merge.doubt(policies);
    merge.delete(policies, Kind::NetworkPolicy, &b);
    check(&mut merge, &["-NetworkPolicy x/b"]);

    // One that goes before the list of namespaces begins, and one meanwhile: that one waits for another list.
    let mut merge = begun();
    merge.doubt(namespaces);
    assert!(!merge.needs_namespaces(), "nothing waits");
    list(&mut merge, policies, Kind::NetworkPolicy, std::slice::from_ref(&b));
    check(&mut merge, &[]);
    assert!(merge.needs_namespaces() && merge.needs_full_pods());
    merge.begin(namespaces);
    assert!(!merge.needs_namespaces(), "it is on its way");
    merge.delete(policies, Kind::NetworkPolicy, &b);
    merge.apply(namespaces, Kind::Namespace, &namespace("1"));
    check(&mut merge, &[]);
    merge.end(namespaces, Kind::Namespace);
    check(&mut merge, &["-NetworkPolicy x/a"]);
    assert!(merge.needs_namespaces() && merge.needs_full_pods());
    list(&mut merge, namespaces, Kind::Namespace, &[marked]);
    check(&mut merge, &["+Namespace x", "-NetworkPolicy x/b"]);
    assert!(!merge.needs_namespaces() && !merge.needs_full_pods());

    // It is whole again; and one that is back is not gone.
    merge.apply(policies, Kind::NetworkPolicy, &a);
    merge.delete(policies, Kind::NetworkPolicy, &a);
    check(&mut merge, &["+NetworkPolicy x/a", "-NetworkPolicy x/a"]);
    let mut merge = begun();
    merge.doubt(namespaces);
    merge.delete(policies, Kind::NetworkPolicy, &a);
    merge.apply(policies, Kind::NetworkPolicy, &a);
    assert!(!merge.needs_namespaces(), "nothing waits");
    list(&mut merge, namespaces, Kind::Namespace, &[namespace("1")]);
    check(&mut merge, &["+NetworkPolicy x/a"]);
}
