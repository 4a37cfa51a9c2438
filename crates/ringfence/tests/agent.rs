//! The agent's program with the real directory source, real network namespaces and the real kernel.

mod common;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{COMMITTED, PROGRAM, World, add_link, closing, pod, pod_with, rules};
use ringfence_testkit::manifest::{Policy, block, pods, port};

#[test]
fn s014_s131_a_saved_policy_is_enforced_and_a_removed_one_is_lifted() {
    let mut world = World::new("save");
    let web = world.netns("web", &["eth0", "net1"]);
    world.save("pods.yaml", &[pod("web", "10.20.1.10"), pod("client", "10.20.1.11")]);
    world.start();
    world.wait_state("web", "open");
    assert_eq!(rules(&web), "", "a pod that nothing isolates has no table");

    let policy = Policy::multi("shop/guard", &["shop/net-a"])
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "client")])], &[port("TCP", 80)]);
    world.save("guard.yaml", &[policy.manifest()]);
    world.wait_rules(&web, "10.20.1.11 . tcp . 80");
    world.wait_state("web", "enforced");
    assert!(world.metric("ringfence_enforcement_seconds_count{cause=\"policy\"}") >= Some(1.0));
    for (port, expected) in [(80, "ALLOW"), (81, "DENY")] {
        let path = format!("/explain?from=client&to=shop/web&port={port}&network=net-a");
        let (status, text) = world.get(&path);
        assert_eq!(status, 200, "{text}");
        assert!(
            text.starts_with(&format!("{expected} TCP {port} on network shop/net-a\n")),
            "{text}"
        );
    }

    // Half-written: what was read before stays in force.
    let text = policy.manifest().yaml();
    let half = format!("{}: [\n", &text[..text.len() / 2]);
    fs::write(world.folder.file("guard.yaml"), half).expect("written");
    world.wait_line(&["Bad input", "guard.yaml"]);
    assert!(rules(&web).contains("10.20.1.11 . tcp . 80"), "{}", rules(&web));
    assert_eq!(world.state("web").0, "enforced");
    fs::write(world.folder.file("guard.yaml"), &text).expect("written");
    world.wait_line(&["Bad input resolved", "guard.yaml"]);

    // A peer more is an element more, in force at once.
    world.save(
        "more.yaml",
        &[pod_with("client2", "uid-c2", "10.20.1.12", "2026-01-01T00:00:00Z")],
    );
    world.save(
        "policy2.yaml",
        &[Policy::multi("shop/guard2", &["shop/net-a"])
            .select(&[("app", "web")])
            .ingress(&[pods(&[("app", "client2")])], &[port("TCP", 81)])
            .manifest()],
    );
    world.wait_rules(&web, "10.20.1.12 . tcp . 81");

    world.delete("guard.yaml");
    world.delete("policy2.yaml");
    world.wait_no_rules(&web);
    world.wait_state("web", "open");
}

#[test]
fn a_missing_namespace_is_pending_and_enforced_when_it_appears_vanishes_and_returns() {
    let mut world = World::new("netns");
    world.save("all.yaml", &[pod("web", "10.20.1.10"), closing("guard", "web")]);
    world.start();
    let (state, reason) = world.state("web");
    assert_eq!(state, "pending");
    assert!(reason.contains(&world.netns_path("web")), "{reason}");
    let (status, body) = world.get("/readyz");
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("[pending] pod shop/web: no network namespace at"),
        "{body}"
    );
    assert_eq!(world.metric("ringfence_pods{state=\"pending\"}"), Some(1.0));
    let files = open_files(&world);

    for _ in 0..2 {
        let web = world.netns("web", &["net1"]);
        world.wait_state("web", "enforced");
        assert!(rules(&web).contains("chain net1-in"), "{}", rules(&web));
        drop(web);
        world.wait_state("web", "pending");
        world.eventually("nothing is held of the namespace", || {
            let now = open_files(&world);
            if now.len() == files.len() {
                Ok(())
            } else {
                Err(format!("{files:?} {now:?}"))
            }
        });
    }
    assert_eq!(
        world.metric("ringfence_transactions_total{result=\"refused\"}"),
        Some(0.0)
    );
}

fn open_files(world: &World) -> Vec<String> {
    let folder = format!("/proc/{}/fd", world.agent().pid());
    fs::read_dir(folder)
        .expect("listed")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        // Connections of HTTP clients come and go.
        .filter(|target| target.starts_with("net:"))
        .collect()
}

#[test]
fn a_namespace_that_is_replaced_under_its_path_is_a_new_target() {
    let mut world = World::new("replace");
    let first = world.netns("web", &["net1"]);
    let second = world.netns("other", &["net1"]);
    world.save("all.yaml", &[pod("web", "10.20.1.10"), closing("guard", "web")]);
    world.start();
    world.wait_rules(&first, "chain net1-in");
    let mount = |arguments: &[&str]| {
        assert!(
            Command::new("mount")
                .args(arguments)
                .status()
                .expect("mount runs")
                .success()
        );
    };
    // Mounted on top: the path never is without a namespace.
    let path = world.netns_path("web");
    let _unmount = Unmount(path.clone());
    mount(&["--bind", &world.netns_path("other"), &path]);
    world.wait_rules(&second, "chain net1-in");
    world.wait_line(&["Network namespace was replaced"]);
    world.wait_state("web", "enforced");
    // Never open: the first one keeps its rules.
    assert!(rules(&first).contains("chain net1-in"));
}

/// Takes the upper mount away before the lower one goes with its namespace.
struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        if !Command::new("umount")
            .args(["--lazy", &self.0])
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("{} stays mounted", self.0);
        }
    }
}

#[test]
fn s228_a_refused_pod_does_not_touch_another_and_recovers() {
    let mut world = World::new("refused");
    let (web, shop) = (world.netns("web", &["net1"]), world.netns("db", &["net1"]));
    // Somebody else owns a table of our name there.
    let mut foreign = web
        .netns()
        .run(|| {
            Command::new("nft")
                .arg("-i")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
        })
        .expect("entered")
        .expect("nft runs");
    let mut input = foreign.stdin.take().expect("a pipe");
    writeln!(input, "add table inet ringfence {{ flags owner; }}").expect("written");
    world.eventually("the foreign table", || {
        let rules = rules(&web);
        if rules.contains("table inet ringfence") {
            Ok(())
        } else {
            Err(rules)
        }
    });
    world.save(
        "all.yaml",
        &[
            pod("web", "10.20.1.10"),
            pod("db", "10.20.1.11"),
            closing("one", "web"),
            closing("two", "db"),
        ],
    );
    world.start();
    world.wait_state("db", "enforced");
    world.wait_state("web", "failed");
    let (_, reason) = world.state("web");
    assert!(reason.contains("owned by another process"), "{reason}");
    assert_eq!(world.metric("ringfence_pods{state=\"failed\"}"), Some(1.0));

    // The other pod's changes go on meanwhile.
    world.save(
        "three.yaml",
        &[Policy::multi("shop/three", &["shop/net-a"])
            .select(&[("app", "db")])
            .ingress(&[block("192.0.2.0/24", &[])], &[port("TCP", 5432)])
            .manifest()],
    );
    world.wait_rules(&shop, "192.0.2.0/24");
    assert_eq!(world.state("web").0, "failed");

    drop(input);
    foreign.wait().expect("nft ends");
    world.wait_state("web", "enforced");
    assert!(rules(&web).contains("chain net1-in"));
    assert_eq!(
        world.lines(&["Pod has failed", "shop/web"]),
        1,
        "one line for one reason"
    );
}

#[test]
fn s139_s229_stopping_leaves_the_rules_and_a_new_agent_adopts_them_without_a_write() {
    let mut world = World::new("restart");
    let (web, db) = (world.netns("web", &["net1"]), world.netns("db", &["net1"]));
    let policy = Policy::multi("shop/guard", &["shop/net-a"])
        .select(&[("app", "web")])
        .ingress(
            &[block("192.0.2.0/24", &[]), pods(&[("app", "db")])],
            &[port("TCP", 80)],
        );
    world.save("guard.yaml", &[policy.manifest()]);
    world.save("pods.yaml", &[pod("web", "10.20.1.10"), pod("db", "10.20.1.11")]);
    world.save("other.yaml", &[closing("other", "db")]);
    world.start();
    world.wait_state("web", "enforced");
    world.wait_state("db", "enforced");
    assert_eq!(world.metric(COMMITTED), Some(2.0));
    let (before, other) = (rules(&web), rules(&db));
    world.stop();
    assert_eq!((rules(&web), rules(&db)), (before.clone(), other.clone()));

    world.start();
    world.wait_state("web", "enforced");
    assert_eq!(world.metric(COMMITTED), Some(0.0));
    assert_eq!(rules(&web), before);
    world.kill();
    assert_eq!((rules(&web), rules(&db)), (before.clone(), other));

    // What went while the agent was down is lifted; what stays is not touched.
    world.delete("other.yaml");
    world.start();
    world.wait_no_rules(&db);
    world.wait_state("db", "open");
    assert_eq!(rules(&web), before);
    assert_eq!(world.metric(COMMITTED), Some(1.0));
}

#[test]
fn a_pod_that_is_gone_keeps_its_rules_as_long_as_its_namespace() {
    let mut world = World::new("gone");
    let web = world.netns("web", &["net1"]);
    world.save("pod.yaml", &[pod("web", "10.20.1.10")]);
    world.save("guard.yaml", &[closing("guard", "web")]);
    world.start();
    world.wait_state("web", "enforced");
    let before = rules(&web);
    world.delete("pod.yaml");
    world.eventually("the pod is gone", || match world.get("/pods/web") {
        (404, body) if body.contains("There is no pod named web") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    world.eventually("its namespace is released", || {
        if open_files(&world).is_empty() {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    assert_eq!(rules(&web), before);
    // The same name with another UID takes over what is there.
    world.save(
        "pod.yaml",
        &[pod_with("web", "uid-second", "10.20.1.10", "2026-02-01T00:00:00Z")],
    );
    world.wait_state("web", "enforced");
    world.wait_rules(&web, "ringfence uid-second");
}

#[test]
fn interfaces_that_come_and_go_are_followed() {
    let mut world = World::new("links");
    let web = world.netns("web", &["eth0"]);
    world.save("pod.yaml", &[pod("web", "10.20.1.10")]);
    let policy = Policy::multi("shop/guard", &["shop/net-a"]).isolate_egress();
    world.save("guard.yaml", &[policy.manifest()]);
    world.start();
    world.wait_rules(&web, "chain net1-out");
    assert!(!rules(&web).contains("net1-backstop"), "there is no net1 yet");
    add_link(&web, "net1");
    world.wait_rules(&web, "chain net1-backstop");
    web.ip(&["link del net1".to_owned()]).expect("deleted");
    world.eventually("the backstop goes", || {
        let rules = rules(&web);
        if rules.contains("net1-backstop") {
            Err(rules)
        } else {
            Ok(())
        }
    });
    world.wait_state("web", "enforced");
}

#[test]
fn drops_are_counted_and_the_series_go_with_the_pod() {
    let mut world = World::new("drops");
    let web = world.netns("web", &["net1"]);
    world.save("pod.yaml", &[pod("web", "10.20.1.10")]);
    let policy = Policy::multi("shop/guard", &["shop/net-a"]).isolate_egress();
    world.save("guard.yaml", &[policy.manifest()]);
    world.start();
    world.wait_state("web", "enforced");
    web.ip(&[
        "address add 10.20.1.10/24 dev net1".to_owned(),
        "link set net1-far up".to_owned(),
    ])
    .expect("addressed");
    let series =
        "ringfence_dropped_packets_total{direction=\"egress\",namespace=\"shop\",network=\"shop/net-a\",pod=\"web\"}";
    let before = world.metric(series).unwrap_or_default();
    let socket = web
        .netns()
        .run(|| std::net::UdpSocket::bind("10.20.1.10:0"))
        .expect("entered")
        .expect("bound");
    // Refused with EPERM: dropped on its way out.
    assert!(socket.send_to(b"x", "10.20.1.77:9").is_err());
    world.eventually("the drop is counted", || {
        let now = world.metric(series).unwrap_or_default();
        if now > before {
            Ok(())
        } else {
            Err(format!("{before} {now}"))
        }
    });
    world.delete("pod.yaml");
    world.wait_metric(series, None);
}

#[test]
fn s134_two_pods_with_one_address_give_one_line_and_the_newer_one_has_it() {
    let mut world = World::new("address");
    let web = world.netns("web", &["net1"]);
    world.save("pods.yaml", &[pod("web", "10.20.1.10"), pod("old", "10.20.1.11")]);
    let policy = Policy::multi("shop/guard", &["shop/net-a"])
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "old")])], &[]);
    world.save("guard.yaml", &[policy.manifest()]);
    world.start();
    world.wait_rules(&web, "10.20.1.11");
    world.save(
        "new.yaml",
        &[pod_with("new", "uid-new", "10.20.1.11", "2026-03-01T00:00:00Z")],
    );
    let series = "ringfence_rejected_clauses{kind=\"Pod\",reason=\"duplicate_address\"}";
    // On the cluster network too.
    world.wait_metric(series, Some(2.0));
    world.eventually("the older one has lost its rights", || {
        let rules = rules(&web);
        if rules.contains("10.20.1.11") {
            Err(rules)
        } else {
            Ok(())
        }
    });
    // Something else happens; the conflict is not reported again.
    world.save("more.yaml", &[pod("more", "10.20.1.12")]);
    world.eventually("the new pod is known", || match world.get("/pods/more") {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(
        world.lines(&["Bad input", "Pod shop/old", "10.20.1.11 on network shop/net-a"]),
        1
    );
    world.delete("new.yaml");
    world.wait_rules(&web, "10.20.1.11");
    world.wait_line(&["Bad input resolved", "Pod shop/old"]);
    world.wait_metric(series, Some(0.0));
}

#[test]
fn s022_s166_bad_inputs_give_one_line_each_and_lose_nothing() {
    let mut world = World::new("bad");
    let web = world.netns("web", &["net1"]);
    world.save("good.yaml", &[pod("web", "10.20.1.10"), closing("guard", "web")]);
    let policy = |name: &str, spec: &str| {
        format!(
            "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata:\n  name: {name}\n  namespace: shop\n  \
             annotations: {{k8s.v1.cni.cncf.io/policy-for: shop/net-a}}\nspec:\n  podSelector: {{matchLabels: {{app: web}}}}\n  \
             ingress: [{spec}]\n"
        )
    };
    let bad = [
        ("syntax.yaml", "kind: [\n".to_owned(), "File", "syntax"),
        ("cidr.yaml", policy("cidr", "{from: [{ipBlock: {cidr: 10.0.0.0/40}}]}"), "MultiNetworkPolicy", "invalid_cidr"),
        ("port.yaml", policy("port", "{ports: [{port: 70000}]}"), "MultiNetworkPolicy", "invalid_port"),
        ("end.yaml", policy("end", "{ports: [{port: 80, endPort: 70}]}"), "MultiNetworkPolicy", "invalid_end_port"),
        ("protocol.yaml", policy("protocol", "{ports: [{protocol: ICMP}]}"), "MultiNetworkPolicy", "unknown_protocol"),
        ("peer.yaml", policy("peer", "{from: [{}]}"), "MultiNetworkPolicy", "invalid_peer"),
        (
            "selector.yaml",
            policy("selector", "{from: [{podSelector: {matchExpressions: [{key: a, operator: Near}]}}]}"),
            "MultiNetworkPolicy",
            "invalid_selector",
        ),
        (
            "annotation.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: odd\n  namespace: shop\n  uid: uid-odd\n  annotations:\n    \
             k8s.v1.cni.cncf.io/network-status: '{not json'\nspec: {nodeName: n2}\nstatus: {podIP: 10.0.0.3}\n"
                .to_owned(),
            "Pod",
            "invalid_annotation",
        ),
    ];
    for (file, text, ..) in &bad {
        world.folder.save(file, text).expect("saved");
    }
    world.start();
    world.wait_state("web", "enforced");
    assert!(rules(&web).contains("chain net1-in"));
    for (file, _, kind, reason) in &bad {
        let series = format!("ringfence_rejected_clauses{{kind=\"{kind}\",reason=\"{reason}\"}}");
        assert_eq!(world.metric(&series), Some(1.0), "{file}\n{}", world.agent().log());
        let line = format!("reason=\"{reason}\"");
        assert_eq!(world.lines(&["Bad input", &line]), 1, "{file}\n{}", world.agent().log());
    }
    let errors = "ringfence_annotation_errors_total{reason=\"invalid_annotation\",source=\"network-status\"}";
    assert_eq!(world.metric(errors), Some(1.0));
    let (_, policies) = world.get("/policies?output=json");
    let policies: serde_json::Value = serde_json::from_str(&policies).expect("JSON");
    let states: Vec<_> = policies
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| &it["state"])
        .collect();
    assert_eq!(
        states.iter().filter(|state| **state == "partly_rejected").count(),
        6,
        "{policies}"
    );

    // Nothing is repeated when the source speaks again; resolved is said once.
    world.save("more.yaml", &[pod("more", "10.20.1.12")]);
    world.delete("cidr.yaml");
    world.wait_line(&["Bad input resolved", "invalid_cidr"]);
    assert_eq!(
        world.lines(&["WARN", "Bad input"]),
        bad.len(),
        "{}",
        world.agent().log()
    );
}

#[test]
fn an_address_in_use_and_missing_capabilities_are_said_before_anything_is_done() {
    let mut world = World::new("start");
    let web = world.netns("web", &["net1"]);
    world.save("all.yaml", &[pod("web", "10.20.1.10")]);
    world.start();
    world.save("guard.yaml", &[closing("guard", "web")]);
    let taken = world.agent().listen.to_string();
    let arguments = world.arguments();
    world.wait_state("web", "enforced");

    let second = Command::new(PROGRAM)
        .args(&arguments)
        .args(["--listen", &taken])
        .output();
    let (code, _, said) = common::parts(&second.expect("it runs"));
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains(&format!("cannot listen on {taken}")) && said.contains("--listen"),
        "{said}"
    );

    let weak = Command::new("setpriv")
        .args(["--bounding-set", "-net_admin", PROGRAM])
        .args(&arguments)
        .args(["--listen", "off"])
        .output();
    let (code, _, said) = common::parts(&weak.expect("it runs"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("CAP_NET_ADMIN missing"), "{said}");
    assert!(rules(&web).contains("chain net1-in"));
}
