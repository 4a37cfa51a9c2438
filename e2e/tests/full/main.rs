//! The agent as the chart installs it, on two nodes with containerd, kubelets and Multus. `hack/e2e full` brings the cluster
//! up, installs the chart and runs these.

mod runtime;
mod start;

use ringfence_e2e::{RealPod, Site};
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::{Policy, pods};
use serde_json::{Value, json};

#[test]
fn a_policy_on_net1_blocks_it_and_eth0_lives() {
    let site = Site::new("net1");
    let net = site.macvlan("mv");
    let web = site.pod("node1", "web", &["mv"]);
    // On both nodes: the peer of the other node is known by its metadata only.
    let near = site.pod("node1", "near", &["mv"]);
    let far = site.pod("node2", "far", &["mv"]);
    site.expect(&[(&near, web.on("net1"), Reached), (&far, web.on("net1"), Reached)]);

    let guard = Policy::multi(&format!("{}/guard", site.name), &[&net])
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "far")])], &[])
        .manifest();
    site.apply(&guard);
    site.expect(&[
        (&near, web.on("net1"), Dropped),
        (&far, web.on("net1"), Reached),
        (&near, web.on("eth0"), Reached),
        (&far, web.on("eth0"), Reached),
        (&web, near.on("net1"), Reached),
    ]);
    site.delete(&guard);
    site.expect(&[(&near, web.on("net1"), Reached)]);
}

#[test]
fn three_networks_are_isolated_one_by_one() {
    let site = Site::new("three");
    let (bridge, wire) = (site.bridge("b"), site.macvlan("mv"));
    let web = site.pod("node1", "web", &["b", "mv"]);
    let client = site.pod("node1", "client", &["b", "mv"]);
    let on = |name: &str, network: &str| {
        Policy::multi(&format!("{}/{name}", site.name), &[network])
            .select(&[("app", "web")])
            .isolate_ingress()
            .manifest()
    };
    let check = |net1, net2| {
        site.expect(&[
            (&client, web.on("net1"), net1),
            (&client, web.on("net2"), net2),
            (&client, web.on("eth0"), Reached),
        ]);
    };
    check(Reached, Reached);
    site.apply(&on("first", &bridge));
    check(Dropped, Reached);
    site.apply(&on("second", &wire));
    check(Dropped, Dropped);
    site.delete(&on("first", &bridge));
    check(Reached, Dropped);
}

#[test]
fn pods_that_start_are_enforced_from_the_first_packet_that_a_peer_sees_answered() {
    let site = Site::new("start");
    let net = site.macvlan("mv");
    site.apply(
        &Policy::multi(&format!("{}/guard", site.name), &[&net])
            .select(&[("app", "web")])
            .isolate_ingress()
            .manifest(),
    );
    let client = site.pod("node2", "client", &["mv"]);
    let web = site.pod("node1", "web", &["mv"]);
    site.expect(&[(&client, web.on("net1"), Dropped), (&client, web.on("eth0"), Reached)]);
}

#[test]
fn the_dialect_of_cni_genie() {
    let site = Site::new("genie");
    site.macvlan("mv");
    let web = site.pod("node1", "web", &["mv@eth1"]);
    let client = site.pod("node2", "client", &["mv@eth1"]);
    for pod in [&web, &client] {
        let annotations = genie(pod);
        site.api
            .merge(&site.object_of(pod), &json!({"metadata": {"annotations": annotations}}))
            .expect("merged");
    }
    let guard = Policy::network(&format!("{}/guard", site.name))
        .policy_for(&["macvlan"])
        .select(&[("app", "web")])
        .isolate_ingress()
        .manifest();
    site.apply(&guard);
    site.expect(&[
        (&client, web.on("eth1"), Dropped),
        (&client, web.on("eth0"), Reached),
        (&web, client.on("eth1"), Reached),
    ]);
    site.delete(&guard);
    site.expect(&[(&client, web.on("eth1"), Reached)]);
}

/// The annotations of a pod that CNI-Genie has made of the plugins `bridge` and `macvlan`, and none of Multus'.
fn genie(pod: &RealPod) -> Value {
    let entry = |interface: &str| json!({"ip": pod.on(interface).to_string(), "interface": interface});
    let recorded = json!({"multi_entry": 2, "ips": {"ip1": entry("eth0"), "ip2": entry("eth1")}});
    json!({
        "k8s.v1.cni.cncf.io/networks": null,
        "k8s.v1.cni.cncf.io/network-status": null,
        "cni": "bridge,macvlan",
        "multi-ip-preferences": recorded.to_string(),
    })
}
