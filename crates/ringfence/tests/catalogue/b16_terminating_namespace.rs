//! B16: k/k#126587 (CVE-2024-7598).
//!
//! A namespace that is being deleted loses its policies before its pods, and the pods stand open until they are gone. A
//! policy that is deleted while its namespace is terminating stays in force until the last pod of it is gone (statement
//! 138). Shown: in the pure state against the oracle, and on the kernel with forbidden traffic all the way; deleting a
//! policy of a living namespace still lifts it.

use crate::support::manifest::{BLUE, admits, blue, namespace, terminating};
use crate::support::node::{Node, assert_shut, spec};
use crate::support::world::World;

#[test]
fn s138_policies_outlive_their_deletion_in_a_terminating_namespace() {
    let mut world = World::of([
        namespace("shop", ""),
        blue("shop/web", 10, "app=web").yaml(),
        blue("shop/other", 12, "app=other").yaml(),
        blue("far/client", 11, "").yaml(),
        admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
    ]);
    world.remember();
    let shut = |world: &World, what: &str| assert!(!world.judge("far/client", "shop/web", BLUE, "80/tcp"), "{what}");
    shut(&world, "at first");
    world.apply(&terminating("shop"));
    world.remove("MultiNetworkPolicy shop/guard");
    shut(&world, "the policy is deleted");
    world.remove("Pod shop/other");
    shut(&world, "another pod has gone");
    // A pod's last updates come while it ends.
    world.apply(&blue("shop/web", 10, "app=web,ending=yes").yaml());
    shut(&world, "the pod is updated");
    world.remove("Pod shop/web");
    // A namespace of the same name starts anew.
    world.apply(&namespace("shop", ""));
    world.apply(&blue("shop/web", 10, "app=web").uid("second").yaml());
    world.check(BLUE, &[("far/client", "shop/web", "80/tcp", true)]);
}

#[test]
fn s014_s138_a_policy_of_a_living_namespace_is_lifted() {
    let mut world = World::of([
        namespace("shop", ""),
        blue("shop/web", 10, "app=web").yaml(),
        blue("far/client", 11, "").yaml(),
        admits("shop/guard", "[{podSelector: {}}]"),
    ]);
    world.check(BLUE, &[("far/client", "shop/web", "80/tcp", false)]);
    world.remove("MultiNetworkPolicy shop/guard");
    world.check(BLUE, &[("far/client", "shop/web", "80/tcp", true)]);
}

#[test]
fn s138_the_kernel_stays_shut_while_the_namespace_goes() {
    let mut node = Node::new("ending", vec![spec("shop/web", "app=web"), spec("far/client", "")]);
    // The namespace's object in a file of its own, so that it can change alone.
    node.folder
        .save(
            "pods.yaml",
            &node.pod("shop/web").manifest().expect("a manifest").yaml(),
        )
        .expect("saved");
    node.folder
        .save("namespace.yaml", &namespace("shop", ""))
        .expect("saved");
    node.folder
        .save("guard.yaml", &admits("shop/guard", "[]").replace("{from: []}", ""))
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let stream = node.stream("far/client", "shop/web");
    assert_shut(&stream, "at first");
    node.save("namespace.yaml", &terminating("shop"));
    node.delete("guard.yaml");
    assert_shut(&stream, "the policy is deleted");
    assert_eq!(node.state("shop/web"), "enforced");
    node.delete("pods.yaml");
    assert_shut(&stream, "the pod's object is deleted, its processes still run");
    node.delete("namespace.yaml");
    assert_shut(&stream, "the namespace is deleted");
}
