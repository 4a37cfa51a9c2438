//! Group K: which interface a policy acts on, and which addresses count there.

use ringfence_ruleset::{Conntrack, Content, CtDirection, Decision, Packet, Path, Transport, trace};

use super::*;
use crate::support::{facts, interface};

#[test]
fn s148_s150_s151_s152_s154_s155_networks_are_apart() {
    let on_b = guard().covering(&[NET_B]).ingress([from([pods("app=db")])]);
    check(
        [on_b],
        &[
            "x/b%b > x/a%b tcp/80: yes",
            "x/c%b > x/a%b tcp/80: no",
            "x/c > x/a tcp/80: yes",
            "y/a > x/a tcp/80: yes",
        ],
    );
    // s155: an address on net-b gives no right on net-a, also where a policy names both.
    let both = guard().covering(&[NET_A, NET_B]).ingress([from([pods("app=db")])]);
    let index = index_of([both]);
    check_index(&index, &["x/b > x/a tcp/80: yes", "x/b%b > x/a%b tcp/80: yes"]);
    assert!(!reaches(
        &index,
        ("x/nobody", "net1", "10.30.1.11"),
        ("x/a", "net1", "10.20.1.10"),
        what("tcp/80")
    ));
    assert!(!reaches(
        &index,
        ("x/nobody", "net2", "10.20.1.11"),
        ("x/a", "net2", "10.30.1.10"),
        what("tcp/80")
    ));
    // s148, s152: nothing named, or nothing attached: nothing isolated.
    check([guard().covering(&[]).ingress([])], &["y/a > x/a tcp/80: yes"]);
    check(
        [guard().covering(&["default/absent"]).ingress([])],
        &["y/a > x/a tcp/80: yes"],
    );
    let mut unscoped = guard().ingress([]);
    unscoped.0.coverage = Coverage::Scope;
    check([unscoped], &["y/a > x/a tcp/80: yes"]);
}

#[test]
fn s153_isolation_is_per_network_and_direction() {
    let guard = guard().covering(&[NET_A]).ingress([]);
    let other = policy("x/other").target("app=web").covering(&[NET_B]).egress([]);
    check(
        [guard, other],
        &[
            "x/b > x/a tcp/80: no",
            "x/a > x/b tcp/80: yes",
            "x/b%b > x/a%b tcp/80: yes",
            "x/a%b > x/b%b tcp/80: no",
        ],
    );
}

#[test]
fn s156_a_peer_on_another_network_adds_nothing() {
    // y/b is on net-a only.
    let on_b = guard().covering(&[NET_B]).ingress([from([pods_in("", "app=db")])]);
    check(
        [on_b],
        &[
            "x/b%b > x/a%b tcp/80: yes",
            "10.20.2.11 > x/a%b tcp/80: no",
            "10.30.2.11 > x/a%b tcp/80: no",
        ],
    );
    let mut index = index_of([guard().ingress([from([pods("app=apart")])])]);
    index.apply(pod("x/apart", "app=apart").b(&["10.30.1.90"]).into());
    index.commit();
    check_index(&index, &["10.30.1.90 > x/a tcp/80: no", "0.0.0.0 > x/a tcp/80: no"]);
}

#[test]
fn s160_one_short_name_in_two_namespaces_is_two_networks() {
    let objects = [
        pod("x/a", "app=web").on("net1", &["default/net"], &["10.20.1.10"]),
        pod("x/b", "app=db").on("net1", &["other/net"], &["10.20.1.11"]),
    ];
    let guard = |network: &str, rules: Vec<Rule>| policy("x/guard").covering(&[network]).ingress(rules);
    let ends = (("x/b", "net1", "10.20.1.11"), ("x/a", "net1", "10.20.1.10"));
    for (network, rules, expected) in [
        ("default/net", vec![], false),
        ("other/net", vec![], true),
        // Selected, allowed, and not on this network.
        ("default/net", vec![from([pods("app=db")])], false),
    ] {
        let policy = guard(network, rules);
        let objects = objects.clone().map(Object::from).into_iter().chain([policy.into()]);
        let index = index_with(options(), objects);
        assert_eq!(reaches(&index, ends.0, ends.1, what("tcp/80")), expected, "{network}");
    }
}

#[test]
fn s157_two_interfaces_on_one_network() {
    let twin = pod("x/twin", "app=twin")
        .on("net1", &[NET_A], &["10.20.1.70"])
        .on("net2", &[NET_A], &["10.20.1.71"]);
    let guard = policy("x/guard").target("app=twin").ingress([from([pods("app=db")])]);
    let open = policy("x/web").target("app=web").ingress([from([pods("app=twin")])]);
    let mut index = index_of([guard, open]);
    index.apply(twin.into());
    index.commit();
    for (interface, address) in [("net1", "10.20.1.70"), ("net2", "10.20.1.71")] {
        let twin = ("x/twin", interface, address);
        assert!(reaches(&index, ("x/b", "net1", "10.20.1.11"), twin, what("tcp/80")));
        assert!(!reaches(&index, ("x/c", "net1", "10.20.1.12"), twin, what("tcp/80")));
        assert!(reaches(&index, twin, ("x/a", "net1", "10.20.1.10"), what("tcp/80")));
    }
}

#[test]
fn s151_s161_scopes_and_the_cluster_network() {
    let dual = |name: &str, cluster: &str, own: &[&str], second: &str| {
        let networks: Vec<&str> = ["default"].iter().chain(own).copied().collect();
        pod(name, "app=web")
            .on("eth0", &networks, &[cluster])
            .on("net1", &[NET_A], &[second])
    };
    let objects = |policy: PolicyBuilder| {
        [
            Object::Namespace(namespace("x", "")),
            dual("x/a", "10.244.1.10", &["canal"], "10.20.1.10").into(),
            dual("x/b", "10.244.1.11", &["weave"], "10.20.1.11").into(),
            policy.into(),
        ]
    };
    let (deny, scoped) = (policy("x/deny").ingress([]), policy("x/deny").in_scope().ingress([]));
    let mut annotated = scoped.clone();
    annotated.0.coverage = deny.covering(&["default"]).0.coverage;
    let deny = policy("x/deny").ingress([]);
    // Whether the connection x/b to x/a is cut on eth0, and on net1.
    for (scope, policy, eth0, net1) in [
        (Scope::Secondary, &scoped, false, true),
        (Scope::All, &scoped, true, true),
        (Scope::Annotated, &scoped, false, false),
        (Scope::None, &scoped, false, false),
        (Scope::Secondary, &annotated, true, false),
        (Scope::Annotated, &annotated, true, false),
        (Scope::None, &annotated, false, false),
        (Scope::None, &deny, false, true),
        (Scope::Secondary, &deny.clone().covering(&["canal"]), true, false),
        (Scope::Secondary, &deny.clone().covering(&["weave"]), false, false),
    ] {
        let index = index_with(Options { scope, ..options() }, objects(policy.clone()));
        let pods = [
            ("eth0", "10.244.1.11", "10.244.1.10"),
            ("net1", "10.20.1.11", "10.20.1.10"),
        ];
        let cut = pods.map(|(on, from, to)| !reaches(&index, ("x/b", on, from), ("x/a", on, to), what("tcp/80")));
        assert_eq!(cut, [eth0, net1], "{scope:?} {:?}", policy.0.coverage);
    }
    // Pods whose cluster network other plugins made still meet there.
    let open = policy("x/deny").covering(&["default"]).ingress([from([pods("")])]);
    let index = index_with(options(), objects(open));
    assert!(reaches(
        &index,
        ("x/b", "eth0", "10.244.1.11"),
        ("x/a", "eth0", "10.244.1.10"),
        what("tcp/80")
    ));
}

#[test]
fn the_annotation_of_a_namespace_isolates_ingress() {
    let mut isolated = namespace("x", "team=red");
    isolated.isolate_ingress = true;
    let mut index = index_of([]);
    index.apply(Object::Namespace(isolated));
    index.commit();
    check_index(
        &index,
        &["y/a > x/a tcp/80: no", "x/a > y/a tcp/80: yes", "y/a > z/a tcp/80: yes"],
    );
    let view = index.view(&uid("x/a")).expect("a view");
    assert_eq!(view.attachments[0].ingress[0].to_string(), "Namespace x/x");
    assert_eq!(index.policies()[0].local_pods, 3);
    index.apply(Object::Namespace(namespace("x", "team=red")));
    index.commit();
    check_index(&index, &["y/a > x/a tcp/80: yes"]);
}

#[test]
fn s162_a_network_without_a_definition_is_enforced_all_the_same() {
    let mut index = index_of([guard().ingress([])]);
    check_index(&index, &["y/a > x/a tcp/80: no"]);
    let network = ringfence_model::Network {
        name: ringfence_model::NamespacedName::new("default", "net-a"),
        plugins: vec!["macvlan".into()],
        ipam: std::collections::BTreeSet::new(),
    };
    let key = Object::Network(network.clone()).key();
    index.apply(Object::Network(network));
    assert!(index.commit().is_empty());
    let views = index.networks();
    let view = views.iter().find(|view| view.name.to_string() == NET_A).expect("net-a");
    assert_eq!((view.pods, view.local_pods, view.defined), (9, 9, true));
    index.remove(&key);
    assert!(index.commit().is_empty());
    check_index(&index, &["y/a > x/a tcp/80: no"]);
}

#[test]
fn s123_the_dhcp_exchange_passes_where_addresses_come_by_dhcp() {
    let network = |kind: &str| {
        Object::Network(ringfence_model::Network {
            name: ringfence_model::NamespacedName::new("default", "net-a"),
            plugins: vec!["macvlan".into()],
            ipam: [kind.into()].into(),
        })
    };
    // One packet of the exchange: whether it leaves or arrives, from port, to port.
    let passes = |index: &Index, leaves: bool, source: u16, destination: u16| {
        let (own, other) = (addr("10.20.1.10"), addr("255.255.255.255"));
        let (from, to) = if leaves { (own, other) } else { (other, own) };
        let packet = Packet {
            path: if leaves {
                Path::Leaves(interface("net1"))
            } else {
                Path::Arrives(interface("net1"))
            },
            content: Content::Ip {
                source: from,
                destination: to,
                hop_limit: 64,
                transport: Transport::Ports {
                    protocol: Protocol::Udp,
                    source,
                    destination,
                },
            },
            conntrack: Conntrack::Tracked {
                direction: CtDirection::Original,
                related: false,
                original_source: from,
                reply_source: to,
            },
            source_local: true,
        };
        let ruleset = index.ruleset(&uid("x/a")).expect("a ruleset");
        trace(ruleset, &packet).expect("a trace").decision == Decision::Accept
    };
    let mut index = index_of([guard().ingress([]).egress([])]);
    assert!(!passes(&index, true, 68, 67), "no definition, no exception");
    index.apply(network("static"));
    index.commit();
    assert!(!passes(&index, true, 68, 67));
    index.apply(network("dhcp"));
    index.commit();
    for (leaves, source, destination, expected) in [
        (true, 68, 67, true),
        (false, 67, 68, true),
        (true, 546, 547, true),
        (false, 547, 546, true),
        (true, 40_000, 67, false),
        (false, 68, 67, false),
        (true, 67, 68, false),
    ] {
        assert_eq!(
            passes(&index, leaves, source, destination),
            expected,
            "{leaves} {source} {destination}"
        );
    }
    // A client's packet socket sends past the IP stack.
    index.set_facts(&uid("x/a"), facts(&["net1"], &[]));
    index.commit();
    let dhcp = ["udp sport 68 udp dport 67 accept", "udp sport 546 udp dport 547 accept"];
    let backstop = |index: &Index| {
        let text = index.ruleset(&uid("x/a")).expect("a ruleset").to_string();
        text.split("table netdev").nth(1).expect("a backstop").to_owned()
    };
    assert!(
        dhcp.iter().all(|rule| backstop(&index).contains(rule)),
        "{}",
        backstop(&index)
    );
    index.remove(&network("dhcp").key());
    index.commit();
    assert!(!passes(&index, true, 68, 67));
    assert!(
        !dhcp.iter().any(|rule| backstop(&index).contains(rule)),
        "{}",
        backstop(&index)
    );
}
