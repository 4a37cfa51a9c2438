//! Pods that start, with real kubelets: what their first process can do on a second network. The chart has the agent asked
//! over NRI, which containerd 2 has on.

use std::net::IpAddr;

use ringfence_e2e::{PORT, RealPod, Site, eventually};
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::{Policy, pods};
use serde_json::{Value, json};

/// A pod whose only process connects to an address at once, and gives up after two seconds.
fn connecting(site: &Site, name: &str, app: &str, to: IpAddr) -> Value {
    json!({
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
    })
}

/// How such a pod has ended, and with which words.
fn ended(site: &Site, object: &Value) -> (String, String) {
    eventually(&format!("pod {} has ended", object["metadata"]["name"]), || {
        let pod = site.api.get(object).map_err(|error| format!("{error:#}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
        let phase = text(&pod["status"]["phase"]);
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        match &*phase {
            "Succeeded" | "Failed" => Ok((phase, text(&ended["message"]))),
            _ => Err(pod["status"].to_string()),
        }
    })
}

/// Runs such a pod.
fn first_act(site: &Site, name: &str, app: &str, to: IpAddr) -> (String, String) {
    let object = connecting(site, name, app, to);
    site.api.create(&object).expect("created");
    ended(site, &object)
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

const AGENTS: [&str; 6] = [
    "-n",
    "ringfence-system",
    "-l",
    "app.kubernetes.io/name=ringfence",
    "--field-selector",
    "spec.nodeName=node1",
];

/// Replaces node1's agent, and waits until the runtime asks the new one.
fn replace_agent(site: &Site) {
    let get = |path: &str| {
        let output = format!("jsonpath={path}");
        let words = [&["get", "pods"][..], &AGENTS, &["-o", &output]].concat();
        site.kubectl(&words).map_err(|error| format!("{error:#}"))
    };
    let before = get("{.items[*].metadata.uid}").expect("the agent's pod");
    let words = [&["delete", "pods", "--now"][..], &AGENTS].concat();
    site.kubectl(&words).expect("deleted");
    eventually("another agent is asked", || {
        let uid = get("{.items[*].metadata.uid}")?;
        if uid.is_empty() || uid.contains(&*before) {
            return Err(format!("{before} {uid}"));
        }
        let log = site.kubectl(&[
            "logs",
            "-n",
            "ringfence-system",
            get("{.items[0].metadata.name}")?.as_str(),
        ]);
        match log.map_err(|error| format!("{error:#}"))? {
            log if log.contains("NRI is connected") => Ok(()),
            log => Err(log),
        }
    });
}

#[test]
fn a_start_that_is_refused_tells_why_and_succeeds_by_itself_when_the_pod_can_be_closed() {
    let site = Site::alone("refused");
    let net = site.macvlan("mv");
    let denied: RealPod = site.pod("node2", "denied", &["mv"]);
    site.apply(
        &Policy::multi(&format!("{}/guard", site.name), &[&net])
            .select(&[("app", "web")])
            .isolate_egress()
            .manifest(),
    );
    // An agent that cannot know whether a policy isolates a pod.
    let cut = site.cut_pods_off("node1").expect("cut off");
    replace_agent(&site);
    let refused = [("web", "web"), ("free", "free")].map(|(name, app)| {
        let object = connecting(&site, name, app, denied.on("net1"));
        site.api.create(&object).expect("created");
        (name, object)
    });
    for (name, object) in &refused {
        // What people see of it. That the kubelet tries again is shown by what follows.
        let described = eventually(&format!("{name} is refused"), || {
            let words = ["describe", "pod", "-n", &site.name, name];
            let text = site.kubectl(&words).map_err(|error| format!("{error:#}"))?;
            if text.contains("FailedCreatePodSandBox") {
                Ok(text)
            } else {
                Err(text)
            }
        });
        let words = "ringfence: nobody knows yet whether policies isolate this pod, because the agent has not read everything \
            from its source (kube) since it started";
        assert!(described.contains(words), "{described}");
        let pod = site.api.get(object).expect("the pod");
        assert_eq!(pod["status"]["phase"], "Pending", "{pod}");
        let container = &pod["status"]["containerStatuses"][0];
        assert!(
            container["state"]["running"].is_null() && container["state"]["terminated"].is_null(),
            "{pod}"
        );
    }
    // Whoever may start unprotected in such a moment says so.
    let mut exempt = connecting(&site, "exempt", "free", denied.on("net1"));
    exempt["metadata"]["annotations"]["ringfence/unprotected-start"] = "true".into();
    site.api.create(&exempt).expect("created");
    assert_eq!(ended(&site, &exempt).0, "Succeeded");

    // Nobody touches the pods any more.
    drop(cut);
    let [(_, web), (_, free)] = &refused;
    assert_eq!(
        ended(&site, web),
        ("Failed".into(), "TIMEOUT".into()),
        "closed before its first process"
    );
    assert_eq!(ended(&site, free).0, "Succeeded");
    let ready = ["wait", "--for=condition=Ready", "--timeout=60s", "pods"];
    site.kubectl(&[&ready[..], &AGENTS].concat())
        .expect("the agent is ready");
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
