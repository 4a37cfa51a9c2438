//! A namespace that is being deleted, and an agent that starts when its policies are gone already: what they isolated
//! stays isolated until its pods are gone (statement 138).

mod common;

use common::{COMMITTED, HELD, World, closing, pod, rules};
use ringfence_testkit::NamedNetns;
use ringfence_testkit::manifest::{Manifest, Policy, block, port};
use serde_json::json;

fn namespace(ending: bool) -> Manifest {
    let mut namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop"},
        "status": {"phase": "Active"},
    });
    if ending {
        namespace["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z".into();
        namespace["status"]["phase"] = "Terminating".into();
    }
    Manifest(namespace)
}

/// Closes the egress of `net1` of pod `web`.
fn egress() -> Manifest {
    Policy::multi("shop/egress", &["shop/net-a"])
        .select(&[("app", "web")])
        .isolate_egress()
        .manifest()
}

/// Pods `web`, which these policies isolate, each in a file of its own, and `db`, which nothing does, under an agent
/// that has been killed.
fn killed(name: &str, policies: &[(&str, Manifest)]) -> (World, NamedNetns, NamedNetns) {
    let mut world = World::new(name);
    let (web, db) = (world.netns("web", &["net1"]), world.netns("db", &["net1"]));
    world.save("namespace.yaml", &[namespace(false)]);
    world.save("web.yaml", &[pod("web", "10.20.1.10")]);
    world.save("db.yaml", &[pod("db", "10.20.1.11")]);
    for (file, policy) in policies {
        world.save(file, std::slice::from_ref(policy));
    }
    world.start();
    world.wait_state("web", "enforced");
    world.kill();
    assert!(rules(&web).contains("chain net1-") && rules(&db).is_empty());
    (world, web, db)
}

#[test]
fn s138_s139_policies_that_went_while_no_agent_ran_stay_in_force_in_a_namespace_that_is_being_deleted() {
    let (mut world, web, db) = killed("ending", &[("guard.yaml", closing("guard", "web"))]);
    let before = rules(&web);
    world.save("namespace.yaml", &[namespace(true)]);
    world.delete("guard.yaml");
    // However often it starts.
    for _ in 0..2 {
        world.start();
        world.wait_state("web", "held");
        world.wait_state("db", "open");
        world.settle("mark");
        assert_eq!((rules(&web), rules(&db)), (before.clone(), String::new()));
        assert_eq!((world.metric(HELD), world.metric(COMMITTED)), (Some(1.0), Some(0.0)));
        world.kill();
        world.delete("zz-mark.yaml");
    }
    world.start();
    world.wait_state("web", "held");
    let (_, reason) = world.state("web");
    for part in [
        "ingress on net1 would be open",
        "namespace shop is being deleted",
        "ends with the pod",
    ] {
        assert!(reason.contains(part), "{part:?}: {reason}");
    }
    // What is made in such a namespace is judged by what is known.
    world.save("db-guard.yaml", &[closing("db-guard", "db")]);
    world.wait_state("db", "enforced");
    assert_eq!(world.state("web").0, "held");

    // Until the pod is gone; then its rules go with its namespace.
    world.delete("web.yaml");
    world.wait_metric(HELD, Some(0.0));
    assert_eq!(rules(&web), before);
}

#[test]
fn s138_what_is_held_outlasts_the_namespaces_object_and_ends_with_another_of_its_name() {
    let (mut world, web, _db) = killed("outlasts", &[("guard.yaml", closing("guard", "web"))]);
    let before = rules(&web);
    world.save("namespace.yaml", &[namespace(true)]);
    world.delete("guard.yaml");
    world.start();
    world.wait_state("web", "held");
    world.delete("namespace.yaml");
    world.settle("gone");
    assert_eq!(world.state("web").0, "held");
    assert_eq!(rules(&web), before);
    world.save("namespace.yaml", &[namespace(false)]);
    world.wait_no_rules(&web);
    world.wait_state("web", "open");
    // From here on it is known what there was, so this is the index's business alone.
    world.save("namespace.yaml", &[namespace(true)]);
    world.settle("ending");
    assert_eq!(world.state("web").0, "open");
}

#[test]
fn s138_a_direction_that_nothing_known_isolates_is_enough_to_hold() {
    let policies = [("guard.yaml", closing("guard", "web")), ("egress.yaml", egress())];
    let (mut world, web, _db) = killed("direction", &policies);
    let before = rules(&web);
    world.save("namespace.yaml", &[namespace(true)]);
    world.delete("guard.yaml");
    world.start();
    world.wait_state("web", "held");
    assert!(world.state("web").1.contains("ingress on net1 would be open"));
    // The other one goes while the agent knows it.
    world.delete("egress.yaml");
    world.settle("both");
    assert_eq!(world.state("web").0, "held");
    assert_eq!((rules(&web), world.metric(COMMITTED)), (before, Some(0.0)));
}

#[test]
fn s138_what_isolates_as_much_replaces_what_has_gone_and_outlives_its_own_deletion() {
    let (mut world, web, _db) = killed("as-much", &[("guard.yaml", closing("guard", "web"))]);
    world.save("namespace.yaml", &[namespace(true)]);
    let other = Policy::multi("shop/other", &["shop/net-a"])
        .select(&[("app", "web")])
        .ingress(&[block("192.0.2.0/24", &[])], &[port("TCP", 80)]);
    world.save("guard.yaml", &[other.manifest()]);
    world.start();
    world.wait_state("web", "enforced");
    let known = rules(&web);
    assert!(known.contains("192.0.2.0/24"), "{known}");
    world.delete("guard.yaml");
    world.settle("deleted");
    assert_eq!(world.state("web").0, "enforced");
    assert_eq!(rules(&web), known);
    // The next agent does not know it.
    world.kill();
    world.start();
    world.wait_state("web", "held");
    assert_eq!(rules(&web), known);
}

#[test]
fn s138_s139_in_a_living_namespace_a_policy_that_went_while_no_agent_ran_is_a_removal() {
    let (mut world, web, _db) = killed("living", &[("guard.yaml", closing("guard", "web"))]);
    world.delete("guard.yaml");
    world.start();
    world.wait_no_rules(&web);
    world.wait_state("web", "open");
}
