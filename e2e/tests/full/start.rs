//! Pods that start, with real kubelets: what their first process can do on a second network. The chart has the agent asked
//! over NRI, which containerd 2 has on.

use std::net::IpAddr;

use ringfence_e2e::{PORT, RealPod, Site, eventually};
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::{Policy, pods};
use serde_json::{Value, json};

/// Runs a pod whose only process connects to an address at once, and gives up after two seconds: how it has ended, and with
/// which words.
fn first_act(site: &Site, name: &str, app: &str, to: IpAddr) -> (String, String) {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": site.name, "labels": {"app": app},
            "annotations": {"k8s.v1.cni.cncf.io/networks": "mv"}},
        "spec": {
            "nodeName": "node1", "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "dnsPolicy": "Default",
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "localhost/agnhost:1", "imagePullPolicy": "Never",
                "args": ["connect", format!("{to}:{PORT}"), "--timeout=2s"],
                "terminationMessagePolicy": "FallbackToLogsOnError"}],
        },
    });
    site.api.create(&object).expect("created");
    eventually(&format!("pod {name} has ended"), || {
        let pod = site.api.get(&object).map_err(|error| format!("{error:#}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
        let phase = text(&pod["status"]["phase"]);
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        match &*phase {
            "Succeeded" | "Failed" => Ok((phase, text(&ended["message"]))),
            _ => Err(pod["status"].to_string()),
        }
    })
}

#[test]
fn s129_the_first_process_of_an_isolated_pod_reaches_only_what_it_may() {
    let site = Site::new("first");
    let net = site.macvlan("mv");
    let allowed: RealPod = site.pod("node2", "allowed", &["mv"]);
    let denied: RealPod = site.pod("node2", "denied", &["mv"]);
    site.apply(
        &Policy::multi(&format!("{}/guard", site.name), &[&net])
            .select(&[("app", "web")])
            .egress(&[pods(&[("app", "allowed")])], &[])
            .manifest(),
    );
    // That the agent has the policy: a pod like those that follow, as long as it takes.
    eventually("the policy counts", || {
        let name = format!("probe-{}", std::process::id());
        let ended = first_act(&site, &name, "web", denied.on("net1"));
        site.api
            .delete(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": site.name}}))
            .map_err(|error| format!("{error:#}"))?;
        if ended.0 == "Failed" {
            Ok(())
        } else {
            Err(format!("{ended:?}"))
        }
    });
    for number in 0..5 {
        let (phase, words) = first_act(&site, &format!("web-{number}"), "web", denied.on("net1"));
        assert_eq!((&*phase, &*words), ("Failed", "TIMEOUT"), "attempt {number}");
    }
    // The same process, where nothing isolates it, and where the policy lets it.
    assert_eq!(first_act(&site, "free", "free", denied.on("net1")).0, "Succeeded");
    assert_eq!(first_act(&site, "granted", "web", allowed.on("net1")).0, "Succeeded");
}

#[test]
fn s129_a_static_pod_is_enforced_like_any_other() {
    let site = Site::new("static");
    let net = site.macvlan("mv");
    let allowed = site.pod("node2", "allowed", &["mv"]);
    let denied = site.pod("node2", "denied", &["mv"]);
    let web = site.static_pod("node1", "web", &["mv"]);
    let at = web.pod.on("net1");
    site.expect(&[(&allowed, at, Reached), (&denied, at, Reached)]);
    // By the labels of its mirror, which the kubelet has from the file.
    let guard = Policy::multi(&format!("{}/guard", site.name), &[&net])
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "allowed")])], &[])
        .manifest();
    site.apply(&guard);
    site.expect(&[
        (&allowed, at, Reached),
        (&denied, at, Dropped),
        (&denied, web.pod.on("eth0"), Reached),
    ]);
    // Somebody deletes the mirror, and the kubelet makes another one.
    let object = site.object_of(&web.pod);
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
    let before = uid(&site.api.get(&object).expect("a mirror"));
    site.api.delete(&object).expect("deleted");
    eventually("another mirror", || match site.api.get(&object) {
        Ok(pod) if uid(&pod) != before => Ok(()),
        Ok(_) => Err("the same".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    });
    site.expect(&[(&allowed, at, Reached), (&denied, at, Dropped)]);
    site.delete(&guard);
    site.expect(&[(&denied, at, Reached)]);
}
