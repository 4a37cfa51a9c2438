//! The chart's ClusterRole: with it everything works, and without any one of its verbs something does not.

use ringfence_e2e::World;
use ringfence_testkit::Pod;
use ringfence_testkit::manifest::block;
use serde_json::{Value, json};

const CLUSTER_ROLE: &str = include_str!("../../../charts/ringfence/templates/clusterrole.yaml");

/// One verb of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Right {
    group: String,
    resource: String,
    verb: String,
}

/// What the chart grants, verb by verb. Its conditions are lines of their own, and all of them are met by default.
fn granted() -> Vec<Right> {
    let (_, rules) = CLUSTER_ROLE.split_once("\nrules:\n").expect("rules");
    let (rules, _) = rules.split_once("\n---\n").expect("the end of the role");
    let lines: Vec<&str> = rules.lines().filter(|line| !line.contains("{{")).collect();
    let rules: Vec<Value> = serde_saphyr::from_str(&lines.join("\n")).expect("YAML");
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let items = rule[field].as_array().expect("a list");
        items
            .iter()
            .map(|item| item.as_str().expect("a text").to_owned())
            .collect()
    };
    let mut out = Vec::new();
    for rule in &rules {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                out.extend(texts(rule, "verbs").into_iter().map(|verb| Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb,
                }));
            }
        }
    }
    out
}

fn rules(rights: &[Right]) -> Vec<Value> {
    let rule = |it: &Right| json!({"apiGroups": [it.group], "resources": [it.resource], "verbs": [it.verb]});
    rights.iter().map(rule).collect()
}

/// How many watches need a verb of a resource.
fn watches(right: &Right) -> f64 {
    match &*right.resource {
        "events" => 0.0,
        "pods" => 2.0,
        _ => 1.0,
    }
}

/// Waits until so many watches work, and so many are forbidden.
#[track_caller]
fn wait_watches(world: &World, what: &str, forbidden: f64) {
    world.wait(&format!("{what}: {forbidden} watches are forbidden"), || {
        let count = |state: &str| world.metric("ringfence_watches", &[&format!("state=\"{state}\"")]);
        let found = (count("watching")?, count("forbidden")?);
        if found == (6.0 - forbidden, forbidden) {
            Ok(())
        } else {
            Err(format!("{found:?} watch and are forbidden"))
        }
    });
}

/// The same wrong annotation twice: the first is an Event, the second is counted in it.
fn mangle_twice(world: &World, web: &Pod) {
    let status = |value: Value| json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": value}}});
    let standing = || world.metric("ringfence_rejected_clauses", &["kind=\"Pod\""]);
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": world.name, "name": "web"}});
    let good =
        world.api.get(&object).expect("it is there")["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"]
            .clone();
    for _ in 0..2 {
        world.change(web, &status("[{".into()));
        world.wait("the agent has seen it", || match standing()? {
            count if count > 0.0 => Ok(()),
            count => Err(format!("{count} stand")),
        });
        world.change(web, &status(good.clone()));
        world.wait("the agent has seen it mended", || match standing()? {
            count if count > 0.0 => Err(format!("{count} stand")),
            _ => Ok(()),
        });
    }
}

fn events(world: &World, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    world
        .metric("ringfence_events_total", &[&label])
        .expect("it is counted")
}

#[test]
fn every_verb_of_the_charts_role_is_needed() {
    let granted = granted();
    assert!(granted.len() >= 12, "{granted:?}");
    let mut world = World::shared("verbs");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let wrong = world
        .policy("guard", &net, "web")
        .ingress(&[block("10.0.0.0/40", &[])], &[]);
    world.apply(&wrong.manifest());

    // With all of them, everything works: watches, enforcement, a new Event and one that is counted.
    world.grant_rules("all", &rules(&granted));
    world.launch();
    wait_watches(&world, "all verbs", 0.0);
    world.wait_state("web", "enforced");
    mangle_twice(&world, &web);
    world.wait("an Event that counts", || {
        let found = world.events("InvalidAnnotation")?;
        if found.iter().any(|event| event["series"]["count"] == 2) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    assert!(events(&world, "failed") + events(&world, "dropped") < 1.0);

    for (number, without) in granted.iter().enumerate() {
        let title = format!("without {} of {}", without.verb, without.resource);
        let others: Vec<Right> = granted.iter().filter(|right| *right != without).cloned().collect();
        world.stop();
        world.grant_rules(&format!("without-{number}"), &rules(&others));
        world.launch();
        wait_watches(&world, &title, watches(without));
        match (&*without.resource, &*without.verb) {
            ("events", verb) => {
                world.wait_state("web", "enforced");
                mangle_twice(&world, &web);
                // Creating fails for everything that is told, counting for the second of the same only.
                world.wait(&format!("{title}: it fails"), || match events(&world, "failed") {
                    count if count >= 1.0 => Ok(()),
                    count => Err(format!("{count} failed")),
                });
                assert_eq!(events(&world, "sent") > 0.0, verb == "patch", "{title}");
            }
            (resource, _) => world.wait_line(&["ERROR", "RBAC", resource]),
        }
    }
}
