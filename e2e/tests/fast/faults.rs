//! An API server that goes away, comes back, and has forgotten.

use std::time::{Duration, Instant};

use ringfence_e2e::World;
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::{Manifest, pods};
use ringfence_testkit::{Flow, Load, Pod, Stream, run_program};
use serde_json::json;

/// How often the streams send.
const EVERY: Duration = Duration::from_millis(2);

/// A world with a guarded pod, one that it admits and one that it does not.
fn guarded(name: &str) -> (World, String, Pod, Pod, Pod) {
    let mut world = World::own(name);
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let friend = world.remote_pod(world.spec("friend", &net).label("access", "true"));
    let stranger = world.remote_pod(world.spec("stranger", &net));
    world.apply(&guard(&world, &net));
    world.start();
    world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
    (world, net, web, friend, stranger)
}

fn guard(world: &World, net: &str) -> Manifest {
    world
        .policy("guard", net, "web")
        .ingress(&[pods(&[("access", "true")])], &[])
        .manifest()
}

#[test]
fn a_restart_of_the_api_server_in_the_middle_of_churn_opens_and_closes_nothing() {
    let (mut world, net, web, friend, stranger) = guarded("restart");
    let denied = Stream::start(&world.path(&stranger, &web, &net, 7000), EVERY).expect("a stream");
    let admitted = Flow::open(&world.path(&friend, &web, &net, 7001), Load::Upload).expect("a flow");

    for round in 0..2 {
        // Churn up to the moment of the crash, and from the moment it answers again.
        for number in 0..10 {
            churn(&world, &net, round, number);
        }
        world.lane.kill("apiserver").expect("killed");
        let away = Instant::now();
        let watching = || world.metric("ringfence_watches", &["state=\"watching\""]);
        world.wait("the agent has noticed", || match watching()? {
            count if count < 1.0 => Ok(()),
            count => Err(format!("{count} watches work")),
        });
        assert!(admitted.arrived_since(away) > 0, "{:?}", admitted.ended());
        world.lane.start("apiserver").expect("started");
        for number in 10..20 {
            churn(&world, &net, round, number);
        }
    }
    // A change after the restart arrives, and so do those that were made meanwhile.
    let late = world.remote_pod(world.spec("late", &net).label("access", "true"));
    world.expect(
        &net,
        &[
            (&friend, &web, 80, Reached),
            (&late, &web, 80, Reached),
            (&stranger, &web, 80, Dropped),
        ],
    );
    // Every watch has lost its server twice and tried several times; people read of two outages, and in our words.
    let log = world.agent().log();
    let said = log.matches("The API server does not answer").count();
    let errors = world
        .metric("ringfence_watch_errors_total", &["reason=\"failed\""])
        .expect("it is counted");
    assert!(
        said >= 2 && f64::from(u32::try_from(said).expect("few")) * 3.0 <= errors,
        "{said} of {errors}\n{log}"
    );
    assert!(log.contains("The API server answers again"), "{log}");
    assert!(!log.contains("failed with error"), "kube's own words:\n{log}");
    let (sent, arrived) = denied.counts();
    assert!(sent > 0);
    assert_eq!(arrived, 0, "of {sent} datagrams");
    assert_eq!(admitted.ended(), None);
    admitted.wait_for_more(Duration::from_secs(10)).expect("it goes on");
}

/// A policy that concerns others comes or goes, and a label changes.
fn churn(world: &World, net: &str, round: usize, number: usize) {
    let other = world
        .policy(&format!("other-{round}-{number}"), net, "nobody")
        .isolate_ingress();
    world.apply(&other.manifest());
    if number % 2 == 1 {
        world.delete(&other.manifest());
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": world.name, "name": "stranger"}});
    let label = json!({"metadata": {"labels": {"turn": format!("{round}-{number}")}}});
    world.api.merge(&pod, &label).expect("merged");
}

#[test]
fn an_agent_that_comes_back_to_a_compacted_history_makes_the_difference() {
    let (mut world, net, web, friend, stranger) = guarded("compact");
    let denied = Stream::start(&world.path(&stranger, &web, &net, 7000), EVERY).expect("a stream");
    let agent = world.agent().pid().to_string();
    run_program("kill", &["-STOP", &agent], "").expect("stopped");

    // What the agent misses: a peer goes, another one comes, the policy admits one more.
    let addresses = friend.on(&net).expect("it is on it").addresses.clone();
    world.end(friend);
    let late = world.remote_pod(world.spec("late", &net).label("access", "true"));
    let extra = world.remote_pod(world.spec("extra", &net));
    let more = world
        .policy("more", &net, "web")
        .ingress(&[pods(&[("app", "extra")])], &[])
        .manifest();
    world.apply(&more);
    // A new server knows nothing of the old watches, and etcd has forgotten what they would have to be told.
    world.lane.kill("apiserver").expect("killed");
    world.lane.compact().expect("compacted");
    world.lane.start("apiserver").expect("started");
    run_program("kill", &["-CONT", &agent], "").expect("continued");

    world.expect(
        &net,
        &[
            (&late, &web, 80, Reached),
            (&extra, &web, 80, Reached),
            (&stranger, &web, 80, Dropped),
        ],
    );
    assert_eq!(denied.counts().1, 0);
    world.wait("the watch was told 410", || {
        match world.metric("ringfence_watch_errors_total", &["reason=\"expired\""]) {
            Ok(count) if count >= 1.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // Whoever gets the address of the peer that went has none of its rights.
    let heir = world.remote_pod(world.spec_at("heir", &net, &addresses));
    world.expect(&net, &[(&heir, &web, 80, Dropped)]);
}
