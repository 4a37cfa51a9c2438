//! A file that nobody can read any more when the agent starts: what its policies isolated stays isolated (statement
//! 139), and it is nobody else's business (statement 228).

mod common;

use common::{COMMITTED, HELD, World, closing, pod, rules};
use ringfence_testkit::NamedNetns;
use ringfence_testkit::manifest::{Policy, block, port};

/// Neither YAML nor JSON.
const BROKEN: &str = "kind: [\n";

/// Pods `web`, whose ingress on `net1` is closed by `guard.yaml`, and `db`, under an agent that has been killed.
fn killed(name: &str) -> (World, NamedNetns, NamedNetns) {
    let mut world = World::new(name);
    let (web, db) = (world.netns("web", &["net1"]), world.netns("db", &["net1"]));
    world.save("pods.yaml", &[pod("web", "10.20.1.10"), pod("db", "10.20.1.11")]);
    world.save("guard.yaml", &[closing("guard", "web")]);
    world.start();
    world.wait_state("web", "enforced");
    world.kill();
    assert!(rules(&web).contains("chain net1-in") && rules(&db).is_empty());
    (world, web, db)
}

fn spoil(world: &World, file: &str) {
    world.folder.save(file, BROKEN).expect("saved");
}

#[test]
fn s139_s228_a_file_that_broke_while_no_agent_ran_holds_its_pod_and_no_other() {
    let (mut world, web, db) = killed("broke");
    let before = rules(&web);
    spoil(&world, "guard.yaml");
    world.save("db.yaml", &[closing("other", "db")]);
    world.start();
    world.wait_state("web", "held");
    world.wait_state("db", "enforced");
    assert_eq!(rules(&web), before);
    assert!(rules(&db).contains("chain net1-in"));
    assert_eq!((world.metric(HELD), world.metric(COMMITTED)), (Some(1.0), Some(1.0)));

    // Everybody who asks hears why, and what to do.
    let (_, reason) = world.state("web");
    for part in [
        "ingress on net1 would be open",
        "/guard.yaml could not be read",
        "mend or delete it",
    ] {
        assert!(reason.contains(part), "{part:?}: {reason}");
    }
    assert_eq!(world.lines(&["WARN", "Pod is held", "shop/web", "guard.yaml"]), 1);
    let (status, ready) = world.get("/readyz");
    assert!(
        status == 200 && ready.contains("[held] pod shop/web"),
        "{status} {ready}"
    );
    let (_, shown) = world.get("/namespaces/shop/pods/web/rules");
    assert!(
        shown.contains("still are") && shown.contains("chain net1-in"),
        "{shown}"
    );

    // Mended as it was: nothing has to be written.
    world.save("guard.yaml", &[closing("guard", "web")]);
    world.wait_state("web", "enforced");
    world.settle("again");
    assert_eq!(rules(&web), before);
    assert_eq!((world.metric(HELD), world.metric(COMMITTED)), (Some(0.0), Some(1.0)));
    // From here on its removal is meant.
    world.delete("guard.yaml");
    world.wait_no_rules(&web);
    world.wait_state("web", "open");
}

#[test]
fn s139_a_file_that_is_mended_without_the_policy_or_deleted_lets_go() {
    for delete in [false, true] {
        let (mut world, web, _db) = killed("mended");
        spoil(&world, "guard.yaml");
        world.start();
        world.wait_state("web", "held");
        // Another fault is no mending, and what else happens changes nothing.
        world.folder.save("guard.yaml", "- no object\n").expect("saved");
        world.settle("other-fault");
        assert_eq!(world.state("web").0, "held");
        assert!(rules(&web).contains("chain net1-in"));
        if delete {
            world.delete("guard.yaml");
        } else {
            world.save("guard.yaml", &[closing("guard", "somebody-else")]);
        }
        world.wait_no_rules(&web);
        world.wait_state("web", "open");
        assert_eq!(world.metric(HELD), Some(0.0));
    }
}

#[test]
fn s139_a_file_that_vanished_while_no_agent_ran_is_a_removal() {
    let (mut world, web, _db) = killed("vanished");
    world.delete("guard.yaml");
    world.start();
    world.wait_no_rules(&web);
    world.wait_state("web", "open");
    assert_eq!(world.lines(&["Pod is held"]), 0);
}

#[test]
fn s139_a_document_among_good_ones_counts_like_a_file() {
    let (mut world, web, db) = killed("document");
    let good = ringfence_testkit::manifest::documents(&[closing("other", "db")]);
    world
        .folder
        .save("guard.yaml", &format!("{good}---\n{BROKEN}"))
        .expect("saved");
    world.start();
    world.wait_state("web", "held");
    world.wait_state("db", "enforced");
    assert!(rules(&web).contains("chain net1-in") && rules(&db).contains("chain net1-in"));
    world.folder.save("guard.yaml", &good).expect("saved");
    world.wait_no_rules(&web);
    world.wait_state("db", "enforced");
}

#[test]
fn s139_rules_that_isolate_as_much_and_rules_of_this_run_are_not_held() {
    let (mut world, web, db) = killed("as-much");
    spoil(&world, "guard.yaml");
    world.start();
    world.wait_state("web", "held");

    // Another direction is not enough.
    let egress = Policy::multi("shop/egress", &["shop/net-a"])
        .select(&[("app", "web")])
        .isolate_egress();
    world.save("egress.yaml", &[egress.manifest()]);
    world.settle("egress");
    assert_eq!(world.state("web").0, "held");
    assert!(!rules(&web).contains("chain net1-out"));

    // The same direction is, whatever it allows.
    let ingress = Policy::multi("shop/ingress", &["shop/net-a"])
        .select(&[("app", "web")])
        .ingress(&[block("192.0.2.0/24", &[])], &[port("TCP", 80)]);
    world.save("ingress.yaml", &[ingress.manifest()]);
    world.wait_rules(&web, "chain net1-out");
    world.wait_rules(&web, "192.0.2.0/24");
    world.wait_state("web", "enforced");

    // What this run has added goes with its policy; what was isolated before does not.
    world.delete("egress.yaml");
    world.eventually("egress is open again", || {
        let rules = rules(&web);
        if rules.contains("chain net1-out") {
            Err(rules)
        } else {
            Ok(())
        }
    });
    world.delete("ingress.yaml");
    world.wait_state("web", "held");
    assert!(rules(&web).contains("192.0.2.0/24"));

    // A pod without rules of an earlier run comes and goes as always.
    world.save("db.yaml", &[closing("other", "db")]);
    world.wait_state("db", "enforced");
    world.delete("db.yaml");
    world.wait_no_rules(&db);
    assert_eq!(world.state("web").0, "held");
}

#[test]
fn s139_a_second_agent_that_starts_beside_the_broken_file_holds_too() {
    let (mut world, web, _db) = killed("second");
    let before = rules(&web);
    spoil(&world, "guard.yaml");
    for _ in 0..2 {
        world.start();
        world.wait_state("web", "held");
        assert_eq!(world.metric(COMMITTED), Some(0.0));
        world.stop();
        assert_eq!(rules(&web), before);
    }
    world.save("guard.yaml", &[closing("guard", "web")]);
    world.start();
    world.wait_state("web", "enforced");
    assert_eq!(world.metric(COMMITTED), Some(0.0));
    assert_eq!(rules(&web), before);
}
