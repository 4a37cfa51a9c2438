//! Networks that go, and annotations that somebody spoils.

use ringfence_e2e::World;
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::Pod;
use ringfence_testkit::manifest::pods;
use serde_json::{Value, json};

const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

fn guarded(name: &str) -> (World, String, [Pod; 3]) {
    let mut world = World::shared(name);
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let friend = world.remote_pod(world.spec("friend", &net));
    let stranger = world.remote_pod(world.spec("stranger", &net));
    let guard = world
        .policy("guard", &net, "web")
        .ingress(&[pods(&[("app", "friend")])], &[])
        .manifest();
    world.apply(&guard);
    world.start();
    world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
    (world, net, [web, friend, stranger])
}

#[test]
fn s162_a_network_that_is_deleted_while_pods_are_on_it_lifts_nothing() {
    let (world, net, [web, friend, stranger]) = guarded("nad");
    let definition = world.definition(&net);
    world.delete(&definition);
    world.wait("the agent has seen it", || {
        let answer = world.agent().get("/networks").map_err(|error| format!("{error:#}"))?;
        let row = answer.body.lines().find(|line| line.starts_with(&format!("{net} ")));
        match row {
            Some(row) if row.contains("named by pods only") => Ok(()),
            _ => Err(answer.body),
        }
    });
    world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
    world.wait_state("web", "enforced");
    world.apply(&definition);
    world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
}

/// What a webhook, a controller or a person may make of an annotation.
#[test]
fn annotations_that_somebody_spoils_open_nothing() {
    let (mut world, net, [web, friend, stranger]) = guarded("mangled");
    world.pod(world.spec("witness", &net));
    world.apply(&world.policy("witness", &net, "seen").isolate_ingress().manifest());
    let world = world;
    let good = |pod: &Pod| annotation(&world, pod);
    let (of_friend, of_web) = (good(&friend), good(&web));
    let check = |spoilt: Value| {
        println!("{spoilt}");
        // A peer that cannot be known has no rights.
        write(&world, &friend, &spoilt);
        world.expect(&net, &[(&friend, &web, 80, Dropped), (&stranger, &web, 80, Dropped)]);
        write(&world, &friend, &of_friend);
        world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
        // A target that cannot be known stays closed where it has asked for the network.
        write(&world, &web, &spoilt);
        seen(&world);
        world.expect(&net, &[(&stranger, &web, 80, Dropped)]);
        write(&world, &web, &of_web);
        world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
    };
    check("[{\"name\": \"cluster\", \"interface\": \"eth0\"".into());
    check("null".into());
    check(json!({"name": "net1"}).to_string().into());
    check(Value::Null);
}

/// Waits until the agent has seen everything that was written so far about pods of its node: they come over one watch, in
/// the order in which they were written.
fn seen(world: &World) {
    let witness = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": world.name, "name": "witness"}});
    for (app, state) in [("seen", "enforced"), ("witness", "open")] {
        let label = json!({"metadata": {"labels": {"app": app}}});
        world.api.merge(&witness, &label).expect("merged");
        world.wait_state("witness", state);
    }
}

fn annotation(world: &World, pod: &Pod) -> Value {
    let object =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": pod.namespace(), "name": pod.name()}});
    world.api.get(&object).expect("a pod")["metadata"]["annotations"][STATUS].clone()
}

fn write(world: &World, pod: &Pod, value: &Value) {
    world.change(pod, &json!({"metadata": {"annotations": {STATUS: value}}}));
}
