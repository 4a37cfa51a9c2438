//! J: life of pods, addresses and namespaces.

use ringfence_model::{Object, ObjectKey, Pod, PolicyKind};
use ringfence_policy::evaluate::{Because, Universe};
use serde_json::json;

use crate::world::{World, address, attachment, empty_pod, key, network, uid, world};

fn from_db() -> World {
    world().web_ingress(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]))
}

#[test]
fn s132_ended_pods_are_neither_targets_nor_peers() {
    from_db()
        .pod("x/b", |pod| pod.terminal = true)
        .check(&[("x/b", "x/a", "TCP/80", "ad"), ("10.20.1.11", "x/a", "TCP/80", "ad")]);
    let ended = from_db().pod("x/a", |pod| pod.terminal = true);
    ended.check(&[("y/a", "x/a", "TCP/80", "aa")]);
    let verdict = ended.ask("default/net-a", "y/a", "x/a", "TCP/80").ingress;
    assert_eq!(verdict.because, Because::Ended);
    assert!(verdict.isolating.is_empty());
    assert!(
        ended
            .0
            .attachments_on(&network("default/net-a"))
            .iter()
            .all(|at| !at.pod.terminal),
        "an ended pod is nobody to ask about"
    );
}

/// Another pod that claims the address of x/b on `default/net-a`.
fn rival(name: &str, uid_text: &str, started: i64) -> Pod {
    let mut pod = empty_pod(name);
    pod.uid = uid(uid_text);
    pod.started = started;
    pod.attachments
        .push(attachment("net1", "default/net-a", &["10.20.1.11"]));
    pod
}

#[test]
fn s134_the_newest_pod_holds_an_address() {
    let holder = |universe: &Universe| {
        universe
            .holder(&network("default/net-a"), address("10.20.1.11"))
            .map(|at| at.pod.uid.clone())
    };
    assert_eq!(holder(&world().0), Some(uid("x/b")));
    for (started, terminal, host_network, winner, word) in [
        (1, false, false, "rival", "ad"),
        (-1, false, false, "x/b", "aa"),
        (1, true, false, "x/b", "aa"),
        (1, false, true, "x/b", "aa"),
    ] {
        let mut pod = rival("x/rival", "rival", started);
        pod.terminal = terminal;
        pod.host_network = host_network;
        let world = from_db().add(Object::Pod(pod));
        assert_eq!(holder(&world.0), Some(uid(winner)));
        world.check(&[("10.20.1.11", "x/a", "TCP/80", word), ("x/b", "x/a", "TCP/80", word)]);
        // A delete event of the loser takes nothing from the winner.
        let loser = if winner == "rival" { "x/b" } else { "rival" };
        world
            .remove(&ObjectKey::Pod(uid(loser)))
            .check(&[("10.20.1.11", "x/a", "TCP/80", word)]);
    }
    // Started in one second: some order, and always the same.
    let world = from_db().add(Object::Pod(rival("x/rival", "z-last", 0)));
    assert_eq!(holder(&world.0), Some(uid("z-last")));
    let world = from_db().add(Object::Pod(rival("x/rival", "a-first", 0)));
    assert_eq!(holder(&world.0), Some(uid("x/b")));
    // On another network the address is another one.
    let world = from_db().add(Object::Pod({
        let mut pod = rival("x/rival", "rival", 1);
        pod.attachments[0].networks = [network("default/net-b")].into();
        pod
    }));
    world.check(&[("10.20.1.11", "x/a", "TCP/80", "aa")]);
}

#[test]
fn s135_a_pod_with_the_same_name_is_a_new_pod() {
    // The old pod of the StatefulSet is still terminating, with its own address and its own labels.
    let mut new = empty_pod("x/b");
    new.uid = uid("second-life");
    new.attachments
        .push(attachment("net1", "default/net-a", &["10.20.1.99"]));
    from_db().add(Object::Pod(new)).check(&[
        ("10.20.1.11", "x/a", "TCP/80", "aa"),
        ("10.20.1.99", "x/a", "TCP/80", "ad"),
    ]);
}

#[test]
fn s137_an_address_may_change_during_life() {
    from_db()
        .pod("x/b", |pod| {
            pod.attachments[1].addresses = [address("10.20.1.111")].into();
        })
        .check(&[
            ("10.20.1.111", "x/a", "TCP/80", "aa"),
            ("10.20.1.11", "x/a", "TCP/80", "ad"),
        ]);
}

#[test]
fn s138_isolation_outlives_policies_of_a_terminating_namespace() {
    let policy = ObjectKey::Policy(key(PolicyKind::MultiNetworkPolicy, "x/guard"));
    let ending = from_db().namespace("x", |it| it.terminating = true).remove(&policy);
    ending.check(&[("y/a", "x/a", "TCP/80", "ad"), ("x/b", "x/a", "TCP/80", "aa")]);
    // Until its pods are gone.
    let mut gone = ending.clone();
    for pod in ["x/a", "x/b", "x/c"] {
        gone = gone.remove(&ObjectKey::Pod(uid(pod)));
    }
    assert!(gone.0.policies.is_empty());
    // Or until a namespace of that name lives again.
    let mut namespace = ending.0.namespaces["x"].clone();
    namespace.terminating = false;
    ending
        .add(Object::Namespace(namespace))
        .check(&[("y/a", "x/a", "TCP/80", "aa")]);
    // In a living namespace a deleted policy is gone.
    from_db().remove(&policy).check(&[("y/a", "x/a", "TCP/80", "aa")]);
}

#[test]
fn s133_a_terminating_pod_stays_target_and_peer() {
    // The model has no such state: a terminating pod is an ordinary pod until it is terminal or removed.
    from_db().check(&[("x/b", "x/a", "TCP/80", "aa"), ("y/a", "x/a", "TCP/80", "ad")]);
    from_db()
        .remove(&ObjectKey::Pod(uid("x/b")))
        .check(&[("10.20.1.11", "x/a", "TCP/80", "ad")]);
}
