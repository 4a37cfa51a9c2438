//! A container runtime that goes away and comes back.

use ringfence_e2e::Site;
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::{Policy, pods};

#[test]
fn a_restart_of_the_runtime_opens_nothing_and_pods_that_start_after_it_are_enforced() {
    let site = Site::alone("runtime");
    let net = site.macvlan("mv");
    let web = site.pod("node1", "web", &["mv"]);
    let (friend, stranger) = (
        site.pod("node2", "friend", &["mv"]),
        site.pod("node2", "stranger", &["mv"]),
    );
    for app in ["web", "late"] {
        let guard = Policy::multi(&format!("{}/{app}", site.name), &[&net])
            .select(&[("app", app)])
            .ingress(&[pods(&[("app", "friend")])], &[])
            .manifest();
        site.apply(&guard);
    }
    let stands = || site.expect(&[(&friend, web.on("net1"), Reached), (&stranger, web.on("net1"), Dropped)]);
    stands();
    site.lane.kill("node1-containerd").expect("killed");
    stands();
    // What changes meanwhile takes effect: rules do not need the runtime.
    let more = Policy::multi(&format!("{}/more", site.name), &[&net])
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "stranger")])], &[])
        .manifest();
    site.apply(&more);
    site.expect(&[(&stranger, web.on("net1"), Reached)]);
    site.delete(&more);
    stands();
    site.lane.start("node1-containerd").expect("started");
    let late = site.pod("node1", "late", &["mv"]);
    site.expect(&[
        (&friend, late.on("net1"), Reached),
        (&stranger, late.on("net1"), Dropped),
    ]);
    stands();
}

#[test]
fn a_pod_that_is_made_again_under_its_name_is_another_pod() {
    let site = Site::new("again");
    let net = site.macvlan("mv");
    let guard = Policy::multi(&format!("{}/guard", site.name), &[&net])
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "friend")])], &[])
        .manifest();
    site.apply(&guard);
    let stranger = site.pod("node2", "stranger", &["mv"]);
    for _ in 0..3 {
        let web = site.pod("node1", "web", &["mv"]);
        let friend = site.pod("node2", "friend", &["mv"]);
        site.expect(&[(&friend, web.on("net1"), Reached), (&stranger, web.on("net1"), Dropped)]);
        site.remove(&friend);
        site.remove(&web);
    }
}
