//! What `kubectl get events` tells of policies and pods.

use std::io::Write as _;
use std::process::{Command, Stdio};

use ringfence_e2e::{Right, World};
use ringfence_testkit::Outcome::Dropped;
use ringfence_testkit::manifest::{Manifest, block, pods};
use serde_json::{Value, json};

/// A policy with one clause that is wrong and one that is right.
fn half_wrong(world: &World, net: &str) -> Manifest {
    world
        .policy("guard", net, "web")
        .ingress(&[block("10.0.0.0/40", &[]), pods(&[("app", "friend")])], &[])
        .manifest()
}

/// Waits for the one Event of this reason.
#[track_caller]
fn the_event(world: &World, reason: &str) -> Value {
    world.wait(&format!("an Event {reason}"), || {
        let events = world.events(reason)?;
        match &events[..] {
            [event] => Ok(event.clone()),
            other => Err(format!("{} of them", other.len())),
        }
    })
}

#[test]
fn a_rejected_clause_is_told_on_its_policy_once() {
    let mut world = World::shared("events");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let stranger = world.pod(world.spec("stranger", &net));
    let policy = half_wrong(&world, &net);
    world.apply(&policy);
    world.start();
    let event = the_event(&world, "ClauseRejected");
    let stored = world.api.get(&policy.0).expect("it is there");
    // By the UID, as kubectl describe asks for them.
    assert_eq!(event["regarding"]["uid"], stored["metadata"]["uid"], "{event}");
    assert_eq!(event["regarding"]["kind"], "MultiNetworkPolicy");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reportingController"], "ringfence");
    assert_eq!(event["reportingInstance"], world.name);
    let note = event["note"].as_str().unwrap_or_default();
    assert!(note.contains("10.0.0.0/40") && note.contains("ipBlock"), "{note}");
    world.expect(&net, &[(&stranger, &web, 80, Dropped)]);

    // Another agent, or the same one after a restart, meets the Event that is there.
    world.launch();
    world.wait("the next agent has told it too", || {
        match world.metric("ringfence_events_total", &["result=\"sent\""])? {
            count if count >= 1.0 => Ok(()),
            count => Err(format!("{count} sent")),
        }
    });
    let again = the_event(&world, "ClauseRejected");
    assert_eq!(again["metadata"]["uid"], event["metadata"]["uid"]);
    assert_eq!(again["series"], Value::Null, "agents do not count each other");

    // Another text of the policy is another Event.
    let mut worse = policy.clone();
    worse.0["spec"]["ingress"][0]["from"][0]["ipBlock"]["cidr"] = "10.0.0.0/41".into();
    world.apply(&worse);
    world.wait("an Event of the new text", || {
        match world.events("ClauseRejected")?.len() {
            2 => Ok(()),
            count => Err(format!("{count} of them")),
        }
    });
}

#[test]
fn a_pod_hears_of_its_annotation_its_failure_and_its_recovery() {
    let mut world = World::shared("podevents");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    world.apply(&world.policy("guard", &net, "web").isolate_ingress().manifest());
    // Somebody else owns a table of our name there.
    let netns = format!("--net=/run/netns/{}", web.netns_name);
    let mut foreign = Command::new("nsenter")
        .args([&netns, "nft", "-i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("nft runs");
    let mut input = foreign.stdin.take().expect("a pipe");
    writeln!(input, "add table inet ringfence {{ flags owner; }}").expect("written");
    world.wait("the foreign table", || match web.exec("nft", &["list", "tables"]) {
        Ok(tables) if tables.contains("inet ringfence") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    world.start();
    world.wait_state("web", "failed");
    let failed = the_event(&world, "PodEnforcementFailed");
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": world.name, "name": "web"}});
    let stored = world.api.get(&object).expect("it is there");
    assert_eq!(failed["regarding"]["uid"], stored["metadata"]["uid"], "{failed}");
    assert_eq!(
        (&failed["type"], &failed["regarding"]["kind"]),
        (&json!("Warning"), &json!("Pod"))
    );
    let note = failed["note"].as_str().unwrap_or_default();
    assert!(note.contains("owned by another process"), "{note}");

    drop(input);
    foreign.wait().expect("nft ends");
    world.wait_state("web", "enforced");
    assert_eq!(the_event(&world, "PodEnforcementRecovered")["type"], "Normal");

    let mangled = json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": "[{"}}});
    world.change(&web, &mangled);
    let note = the_event(&world, "InvalidAnnotation")["note"].to_string();
    assert!(note.contains("network-status"), "{note}");
}

#[test]
fn without_the_right_to_write_events_everything_else_goes_on() {
    let mut world = World::shared("noevents");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let stranger = world.pod(world.spec("stranger", &net));
    let without: Vec<Right> = Right::ALL.into_iter().filter(|right| *right != Right::Events).collect();
    world.grant(&without);
    world.apply(&half_wrong(&world, &net));
    world.launch();
    world.wait_line(&["WARN", "Events cannot be written", "forbidden"]);
    world.expect(&net, &[(&stranger, &web, 80, Dropped)]);
    world.wait("failures are counted", || {
        match world.metric("ringfence_events_total", &["result=\"failed\""])? {
            count if count >= 1.0 => Ok(()),
            count => Err(format!("{count} failed")),
        }
    });
    assert_eq!(world.events("ClauseRejected"), Ok(Vec::new()));

    // Granted while it runs: what is wrong next is told.
    world.grant(&Right::ALL);
    let mut turn = 41;
    world.wait("Events arrive", || {
        turn += 1;
        let mut worse = half_wrong(&world, &net);
        worse.0["spec"]["ingress"][0]["from"][0]["ipBlock"]["cidr"] = format!("10.0.0.0/{turn}").into();
        world.apply(&worse);
        match world.events("ClauseRejected")?.len() {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    });
    world.wait_line(&["Events are written again"]);
}
