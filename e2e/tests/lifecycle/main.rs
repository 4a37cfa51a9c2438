//! Upgrade, another scope, uninstall, cleanup: what becomes of rules. One test, because each step goes on from the one before,
//! and it takes the agent away in the end; `hack/e2e full` runs it after everything else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringfence_e2e::{Helm, RealPod, Site, eventually};
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::{Policy, pods};

#[test]
fn an_upgrade_and_an_uninstall_leave_rules_and_a_cleanup_removes_them() {
    let site = Site::new("life");
    let helm = Helm::new(&site.lane).expect("helm");
    let net = site.macvlan("mv");
    let web = site.pod("node1", "web", &["mv"]);
    let (friend, stranger) = (
        site.pod("node2", "friend", &["mv"]),
        site.pod("node2", "stranger", &["mv"]),
    );
    let second = Policy::multi(&format!("{}/second", site.name), &[&net])
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "friend")])], &[]);
    site.apply(&second.manifest());
    let on_net1 = || site.expect(&[(&friend, web.on("net1"), Reached), (&stranger, web.on("net1"), Dropped)]);
    on_net1();

    // An upgrade: all agents are started anew.
    let probed = probe_while(&site, (&friend, &stranger, &web), || {
        helm.upgrade(&["logLevel=debug"]).expect("upgraded");
    });
    assert!(probed > 0, "nobody asked while the agents were replaced");
    on_net1();

    // A cluster network whose plugin enforces nothing (a bridge with host-local addresses, as flannel makes it of its
    // delegate): with the scope "all" policies act on eth0 as well, and the kubelet still reaches the pod for its probes.
    helm.upgrade(&["networkPolicyScope=all"]).expect("upgraded");
    let first = Policy::network(&format!("{}/first", site.name))
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "friend")])], &[]);
    site.apply(&first.manifest());
    let everywhere = || {
        site.expect(&[
            (&friend, web.on("eth0"), Reached),
            (&stranger, web.on("eth0"), Dropped),
            (&friend, web.on("net1"), Reached),
            (&stranger, web.on("net1"), Dropped),
            (&web, stranger.on("eth0"), Reached),
        ]);
    };
    everywhere();
    stays_ready(&site, &web);

    // Without anybody on the nodes.
    helm.uninstall().expect("uninstalled");
    everywhere();
    stays_ready(&site, &web);

    // As the notes of the chart say.
    helm.upgrade(&["cleanup.enabled=true"]).expect("cleaned up");
    site.expect(&[
        (&stranger, web.on("eth0"), Reached),
        (&stranger, web.on("net1"), Reached),
    ]);
    helm.uninstall().expect("uninstalled");
}

/// Asks on and on while something is done. The number of answers, all of which were right.
fn probe_while(site: &Site, (friend, stranger, web): (&RealPod, &RealPod, &RealPod), work: impl FnOnce()) -> usize {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                for (from, expected) in [(friend, Reached), (stranger, Dropped)] {
                    assert_eq!(
                        site.ask(from, web.on("net1")).expect("an answer"),
                        expected,
                        "{}",
                        from.name
                    );
                    answers += 1;
                }
            }
            answers
        });
        work();
        done.store(true, Ordering::Relaxed);
        asking.join().expect("every answer is right")
    })
}

/// Ready ever since, although the kubelet has probed it several times from the node (each second).
#[track_caller]
fn stays_ready(site: &Site, pod: &RealPod) {
    let condition = || -> Result<(String, String), String> {
        let object = site
            .api
            .get(&site.object_of(pod))
            .map_err(|error| format!("{error:#}"))?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions
            .iter()
            .find(|it| it["type"] == "Ready")
            .cloned()
            .unwrap_or_default();
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("lastTransitionTime")))
    };
    let before = condition().expect("a pod");
    assert_eq!(before.0, "True");
    let first = probes_answered(site, pod).expect("a count");
    eventually("the kubelet has probed it", || match probes_answered(site, pod)? {
        count if count >= first + 4 => Ok(()),
        count => Err(format!("{count} probes after {first}")),
    });
    assert_eq!(condition().expect("a pod"), before, "it was not ready in between");
}

/// Successful readiness probes so far, by the kubelet's own count.
fn probes_answered(site: &Site, pod: &RealPod) -> Result<u64, String> {
    let text = site.kubelet_metrics("node1").map_err(|error| format!("{error:#}"))?;
    let matching = |line: &&str| {
        line.starts_with("prober_probe_total{")
            && line.contains("probe_type=\"Readiness\"")
            && line.contains("result=\"successful\"")
            && line.contains(&format!("pod=\"{}\"", pod.name))
            && line.contains(&format!("namespace=\"{}\"", site.name))
    };
    let line = text.lines().find(matching).ok_or("no prober_probe_total of this pod")?;
    let value = line.rsplit(' ').next().unwrap_or_default();
    value.parse().map_err(|error| format!("{error}: {line}"))
}
