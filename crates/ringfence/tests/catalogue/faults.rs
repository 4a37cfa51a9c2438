//! Faults of the reference implementation and of its rivals on secondary networks that are not in the catalogue: read in
//! their sources (`f…`, by their numbers in README.md) or measured (`measured_…`). What the catalogue has already is shown in
//! the file of its number.

use ringfence_testkit::NamedNetns;

use crate::support::manifest::{BLUE, GREEN, admits, blue, lets_out, multi, namespace, pod};
use crate::support::node::{Node, spec};
use crate::support::world::World;

#[test]
fn f04_a_peers_address_on_one_network_gives_no_right_on_another() {
    let friend = pod("shop/friend")
        .labels("role=friend")
        .on("net1", BLUE, &["10.20.0.11", "fd00:20::11"])
        .on("net2", GREEN, &["10.30.0.11", "fd00:30::11"]);
    let web = pod("shop/web")
        .labels("app=web")
        .on("net1", BLUE, &["10.20.0.10", "fd00:20::10"])
        .on("net2", GREEN, &["10.30.0.10", "fd00:30::10"]);
    let both = format!("{BLUE},{GREEN}");
    for policy in [
        admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
        lets_out("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
    ] {
        let ingress = policy.contains("Ingress");
        let world = World::of([
            web.yaml(),
            friend.yaml(),
            policy.replace("'shop/blue'", &format!("'{both}'")),
        ]);
        for (network, own, there, elsewhere) in [
            (BLUE, "10.20.0.10", "10.20.0.11", "10.30.0.11"),
            (GREEN, "10.30.0.10", "10.30.0.11", "10.20.0.11"),
            (BLUE, "fd00:20::10", "fd00:20::11", "fd00:30::11"),
            (GREEN, "fd00:30::10", "fd00:30::11", "fd00:20::11"),
        ] {
            for (address, expected) in [(there, true), (elsewhere, false)] {
                let web = format!("shop/web@{own}");
                let (from, to) = if ingress {
                    (address, web.as_str())
                } else {
                    (web.as_str(), address)
                };
                world.check(network, &[(from, to, "80/tcp", expected)]);
            }
        }
    }
}

#[test]
fn f06_changes_of_the_network_status_are_followed() {
    let peers = "[{podSelector: {matchLabels: {role: friend}}}]";
    let friend = || pod("shop/friend").labels("role=friend");
    let mut world = World::of([
        blue("shop/web", 10, "app=web").yaml(),
        friend().yaml(),
        admits("shop/guard", peers),
    ]);
    let ask = |world: &World, address: &str, expected: bool| {
        let web = if address.contains(':') {
            "shop/web@fd00:20::10"
        } else {
            "shop/web@10.20.0.10"
        };
        world.check(BLUE, &[(address, web, "80/tcp", expected)]);
    };
    // The interface is plugged in, gets an address late, another one, and is unplugged.
    ask(&world, "10.20.0.50", false);
    world.apply(&friend().on("net1", BLUE, &[]).yaml());
    ask(&world, "10.20.0.50", false);
    world.apply(&friend().on("net1", BLUE, &["10.20.0.50"]).yaml());
    ask(&world, "10.20.0.50", true);
    world.apply(&friend().on("net1", BLUE, &["10.20.0.51", "fd00:20::51"]).yaml());
    ask(&world, "10.20.0.50", false);
    ask(&world, "10.20.0.51", true);
    ask(&world, "fd00:20::51", true);
    world.apply(&friend().yaml());
    ask(&world, "10.20.0.51", false);
    // A target that gets its interface later is isolated on it at once.
    world.apply(&pod("shop/late").labels("app=web").yaml());
    world.apply(&blue("shop/late", 12, "app=web").yaml());
    world.check(BLUE, &[("10.20.0.77", "shop/late@10.20.0.12", "80/tcp", false)]);
}

#[test]
fn f12_no_text_of_an_annotation_reaches_the_kernel() {
    for name in [
        "net1\" accept #",
        "net1;flush ruleset",
        "net1\n",
        "a b",
        "../net1",
        "0123456789abcdef",
    ] {
        let world = World::of([
            pod("shop/web").labels("app=web").on(name, BLUE, &["10.20.0.10"]).yaml(),
            blue("shop/friend", 11, "role=friend")
                .on("net9", "shop/g\"reen", &["10.30.0.1; accept"])
                .yaml(),
            admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
        ]);
        assert!(!world.said.is_empty(), "{name:?} is reported");
        let text = world.ruleset("shop/web").map(ToString::to_string).unwrap_or_default();
        assert!(
            !text.contains(name) && !text.contains("flush") && !text.contains('#'),
            "{name:?}\n{text}"
        );
        assert!(
            text.contains("unexplained-denied"),
            "{name:?}: an interface that nothing explains is closed\n{text}"
        );
    }
}

#[test]
fn f14_a_pod_without_a_namespace_is_reported_and_tried_again() {
    let mut node = Node::new("f14", vec![spec("shop/other", "")]);
    let manifest = blue("shop/web", 10, "app=web")
        .yaml()
        .replace("nodeName: n1", "nodeName: node1");
    node.folder.save("web.yaml", &manifest).expect("saved");
    node.folder
        .save("guard.yaml", &admits("shop/guard", "[{podSelector: {}}]"))
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "pending");
    assert!(node.get("/readyz").contains("shop/web"), "{}", node.get("/readyz"));
    assert_eq!(node.metric("ringfence_pods{state=\"pending\"}"), Some(1.0));
    let path = node
        .topology
        .netns_path_template()
        .replace("{namespace}", "shop")
        .replace("{name}", "web");
    let name = path.rsplit('/').next().expect("a name").to_owned();
    let _netns = NamedNetns::create(&[name]).expect("a namespace");
    node.wait_state("shop/web", "enforced");
    assert_eq!(node.metric("ringfence_pods{state=\"pending\"}"), Some(0.0));
}

#[test]
fn f15_a_policy_that_touches_nothing_is_not_called_active() {
    let mut node = Node::new("f15", vec![spec("shop/web", "app=web")]);
    node.folder
        .save("a.yaml", &admits("shop/works", "[{podSelector: {}}]"))
        .expect("saved");
    node.folder
        .save("b.yaml", &multi("shop/idle", GREEN, "{podSelector: {}}"))
        .expect("saved");
    node.folder
        .save("c.yaml", &multi("shop/nowhere", "", "{podSelector: {}}"))
        .expect("saved");
    node.folder
        .save("d.yaml", &admits("shop/wrong", "[{ipBlock: {cidr: x}}]"))
        .expect("saved");
    node.start();
    node.settle();
    let policies = node.json("/policies");
    let state = |name: &str| {
        let found = policies.as_array().into_iter().flatten().find(|it| it["name"] == name);
        found
            .map(|it| it["state"].as_str().unwrap_or_default().to_owned())
            .unwrap_or_default()
    };
    let states = ["works", "idle", "nowhere", "wrong"].map(state);
    assert_eq!(states, ["active", "selects_nothing", "ignored", "partly_rejected"]);
}

#[test]
fn measured_an_unknown_protocol_in_an_update_closes_its_entry_only() {
    let ports = |ports: &str| {
        multi(
            "shop/guard",
            BLUE,
            &format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: {ports}}}]}}"),
        )
    };
    let mut world = World::of([blue("shop/web", 10, "app=web").yaml(), ports("[{port: 80}]")]);
    for (update, open) in [
        ("[{protocol: ICMP, port: 80}]", false),
        ("[{protocol: tcp, port: 80}]", false),
        ("[{protocol: QUIC}, {port: 80}]", true),
    ] {
        world.apply(&ports(update));
        let web = "shop/web@10.20.0.10";
        world.check(
            BLUE,
            &[
                ("10.20.0.77", web, "80/tcp", open),
                ("10.20.0.77", web, "81/tcp", false),
                ("10.20.0.77", web, "80/udp", false),
                ("10.20.0.77", web, "ping", false),
            ],
        );
    }
}

#[test]
fn measured_excepts_of_equal_cidrs_belong_each_to_its_own_block() {
    let peers = "[{ipBlock: {cidr: 10.20.0.0/16, except: [10.20.1.0/24]}}, {ipBlock: {cidr: 10.20.0.0/16, except: [10.20.2.0/24]}}]";
    for (policy, ingress) in [
        (admits("shop/guard", peers), true),
        (lets_out("shop/guard", peers), false),
    ] {
        let world = World::of([blue("shop/web", 10, "app=web").yaml(), policy]);
        for (address, expected) in [
            ("10.20.1.1", true),
            ("10.20.2.1", true),
            ("10.20.3.1", true),
            ("10.21.0.1", false),
        ] {
            let web = "shop/web@10.20.0.10";
            let (from, to) = if ingress { (address, web) } else { (web, address) };
            world.check(BLUE, &[(from, to, "80/tcp", expected)]);
        }
    }
}

#[test]
fn measured_a_policy_for_one_network_leaves_the_other_alone() {
    let world = World::of([
        blue("shop/web", 10, "app=web")
            .on("net2", GREEN, &["10.30.0.10"])
            .yaml(),
        multi("shop/guard", BLUE, "{podSelector: {}, policyTypes: [Ingress, Egress]}"),
    ]);
    world.check(BLUE, &[("10.20.0.77", "shop/web@10.20.0.10", "80/tcp", false)]);
    world.check(
        GREEN,
        &[
            ("10.30.0.77", "shop/web@10.30.0.10", "80/tcp", true),
            ("shop/web@10.30.0.10", "10.30.0.77", "80/tcp", true),
        ],
    );
}

#[test]
fn measured_expressions_in_targets_and_peers() {
    for (target, peer) in [
        (
            "{key: app, operator: In, values: [web, db]}",
            "{key: role, operator: In, values: [friend]}",
        ),
        (
            "{key: app, operator: Exists}",
            "{key: role, operator: NotIn, values: [stranger]}",
        ),
        (
            "{key: role, operator: DoesNotExist}",
            "{key: role, operator: Exists}, {key: role, operator: NotIn, values: [stranger]}",
        ),
    ] {
        let spec = format!(
            "{{podSelector: {{matchExpressions: [{target}]}}, ingress: [{{from: [{{podSelector: {{matchExpressions: [{peer}]}}}}]}}]}}"
        );
        let world = World::of([
            namespace("shop", ""),
            blue("shop/web", 10, "app=web").yaml(),
            blue("shop/friend", 11, "role=friend").yaml(),
            blue("shop/stranger", 12, "role=stranger").yaml(),
            multi("shop/guard", BLUE, &spec),
        ]);
        world.check(
            BLUE,
            &[
                ("shop/friend", "shop/web", "80/tcp", true),
                ("shop/stranger", "shop/web", "80/tcp", false),
                ("shop/web", "shop/friend", "80/tcp", true),
            ],
        );
    }
}

#[test]
fn measured_absent_policy_types_isolate() {
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", true, false),
        ("{podSelector: {}, policyTypes: []}", true, false),
        (
            "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}",
            true,
            true,
        ),
        ("{podSelector: {}, egress: []}", true, false),
    ] {
        let world = World::of([blue("shop/web", 10, "app=web").yaml(), multi("shop/guard", BLUE, spec)]);
        world.check(
            BLUE,
            &[
                ("10.20.0.77", "shop/web@10.20.0.10", "80/tcp", !ingress),
                ("shop/web@10.20.0.10", "10.20.0.77", "80/tcp", !egress),
            ],
        );
    }
}
