//! The testkit itself, on every kind of wiring: an open network lets all reach all, and one `nft` rule that is put in by
//! hand closes exactly the cell that it names. Needs root, iproute2 and nft, and fails without them.

use std::net::{IpAddr, SocketAddr};

use ringfence_model::Family;
use ringfence_testkit::{
    Echo, Matrix, Network, Outcome, Path, Pod, PodSpec, Probe, Protocol, TIMEOUT, Topology, Wiring, probe_all,
};

const PORT: u16 = 8080;

/// A chain with these rules at a hook of the IP stack, as somebody types it.
fn by_hand(hook: &str, rules: &str) -> String {
    format!("table inet byhand {{\n chain c {{\n type filter hook {hook} priority 0;\n {rules}\n }}\n}}\n")
}

/// Three pods on one network, the third on the last node.
fn three_pods(name: &str, wiring: Wiring, nodes: u16) -> (Topology, Vec<Pod>) {
    let mut topology = Topology::with_nodes(name, nodes).expect("a topology (are you root?)");
    topology.network(Network::new("net", wiring)).expect("a network");
    let specs = vec![
        PodSpec::genie("x/a").attach("eth0", "net"),
        PodSpec::genie("x/b").attach("eth0", "net"),
        PodSpec::genie("x/c").attach("eth0", "net").on_node(nodes),
    ];
    let pods = topology.pods(specs).expect("pods");
    (topology, pods)
}

fn measure(pods: &[Pod], family: Family, protocol: Protocol) -> Matrix {
    let pods: Vec<&Pod> = pods.iter().collect();
    let title = format!("{family:?} {protocol:?}");
    Matrix::of_pods(title, &pods, "net", family, protocol, PORT, TIMEOUT).expect("a matrix")
}

const OPEN: &str = "
       a    b    c
    a  yes  yes  yes
    b  yes  yes  yes
    c  yes  yes  yes
";

/// Open first; then b drops what a sends to port 8080, and only that.
fn check(name: &str, wiring: Wiring, nodes: u16) {
    let (_topology, pods) = three_pods(name, wiring, nodes);
    let _servers = Echo::start_all(&pods, &[PORT]).expect("servers");
    for family in Family::BOTH {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            measure(&pods, family, protocol)
                .expect(OPEN)
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    }
    let (v4, v6) = (
        pods[0].address("net", Family::V4).expect("IPv4"),
        pods[0].address("net", Family::V6).expect("IPv6"),
    );
    pods[1]
        .nft(&by_hand(
            "input",
            &format!(
                "ip saddr {v4} meta l4proto {{ tcp, udp }} th dport {PORT} drop\n
                 ip6 saddr {v6} meta l4proto {{ tcp, udp }} th dport {PORT} drop"
            ),
        ))
        .expect("nft");
    for family in Family::BOTH {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let expected = OPEN.replacen("a  yes  yes", "a  yes  no ", 1);
            measure(&pods, family, protocol)
                .expect(&expected)
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
        measure(&pods, family, Protocol::Icmp)
            .expect(OPEN)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

#[test]
fn bridge() {
    check("netns-bridge", Wiring::Bridge, 1);
}

#[test]
fn routed_veth_as_calico_makes_it() {
    check("netns-routed", Wiring::Routed, 1);
}

#[test]
fn routed_veth_across_two_nodes() {
    check("netns-routed2", Wiring::Routed, 2);
}

#[test]
fn macvlan() {
    check("netns-macvlan", Wiring::Macvlan, 1);
}

#[test]
fn macvlan_across_two_nodes() {
    check("netns-macvlan2", Wiring::Macvlan, 2);
}

#[test]
fn vxlan_across_two_nodes() {
    check("netns-vxlan2", Wiring::Vxlan, 2);
}

#[test]
fn a_routed_pod_has_calicos_addresses_and_gateways() {
    let (_topology, pods) = three_pods("netns-gateways", Wiring::Routed, 1);
    let facts = pods[0]
        .netns
        .run(ringfence_netns::facts)
        .expect("enter")
        .expect("facts");
    let gateways: Vec<String> = facts.gateways.iter().map(ToString::to_string).collect();
    assert_eq!(gateways, ["169.254.1.1", "fe80::ecee:eeff:feee:eeee"]);
    let addresses = pods[0]
        .exec("ip", &["-4", "-o", "addr", "show", "dev", "eth0"])
        .expect("ip addr");
    assert!(addresses.contains("10.20.1.10/32"), "{addresses}");
}

#[test]
fn the_four_outcomes_are_told_apart() {
    let (_topology, pods) = three_pods("netns-outcomes", Wiring::Bridge, 1);
    let _servers = Echo::start_all(&pods, &[PORT]).expect("servers");
    let check = |name: &str, probe: Probe, expected: Outcome| {
        assert_eq!(probe.ask().expect("ask"), expected, "{name}: {probe:?}");
    };
    for family in Family::BOTH {
        let path = Path::new(&pods[0], &pods[1], "net", family, PORT).expect("a path");
        check("served", path.tcp(), Outcome::Reached);
        check("served", path.udp(), Outcome::Reached);
        check("nobody listens", path.port(81).tcp(), Outcome::Refused);
        check("nobody listens", path.port(81).udp(), Outcome::Refused);
        let nowhere: SocketAddr = match family {
            Family::V4 => "198.51.100.1:80".parse().expect("address"),
            Family::V6 => "[2001:db8:ffff::1]:80".parse().expect("address"),
        };
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            check(
                "no route",
                Probe::from_pod(&pods[0], protocol, nowhere),
                Outcome::Unreachable,
            );
        }
    }
    // Rules of the sender's own pod: the kernel tells the socket so (EPERM), which is a drop all the same.
    pods[0].nft(&by_hand("output", "th dport 8080 drop")).expect("nft");
    let path = Path::new(&pods[0], &pods[1], "net", Family::V4, PORT).expect("a path");
    check("own rule", path.tcp(), Outcome::Dropped);
    check("own rule", path.udp(), Outcome::Dropped);
}

#[test]
fn a_probe_that_cannot_be_asked_is_an_error_and_no_outcome() {
    let (_topology, pods) = three_pods("netns-mistakes", Wiring::Bridge, 1);
    let path = Path::new(&pods[0], &pods[1], "net", Family::V4, PORT).expect("a path");
    let mut probe = path.tcp();
    probe.interface = Some("eth7".into());
    let error = format!("{:#}", probe.ask().expect_err("no such interface"));
    assert!(
        error.contains("interface eth7") && error.contains("x/a → x/b"),
        "{error}"
    );
    let mut probe = path.tcp();
    probe.source = Some("10.99.0.1".parse().expect("address"));
    let error = format!("{:#}", probe.ask().expect_err("not its address"));
    assert!(error.contains("source address 10.99.0.1"), "{error}");
    assert!(Path::new(&pods[0], &pods[1], "other", Family::V4, PORT).is_err());
}

#[test]
fn answers_tell_who_answered_and_whom_they_saw() {
    let mut topology = Topology::new("netns-answers").expect("a topology (are you root?)");
    for name in ["one", "two"] {
        topology.network(Network::new(name, Wiring::Bridge)).expect("a network");
    }
    // Both pods use one address range on both networks: only the interface decides who is asked.
    let address = |text: &str| text.parse::<IpAddr>().expect("address");
    let specs = vec![
        PodSpec::genie("x/client")
            .attach_with("eth0", "one", &[address("10.99.0.1")])
            .attach_with("data.100", "two", &[address("10.99.0.1")]),
        PodSpec::genie("x/server").attach_with("eth0", "one", &[address("10.99.0.2")]),
        PodSpec::genie("x/twin").attach_with("eth0", "two", &[address("10.99.0.2")]),
    ];
    let pods = topology.pods(specs).expect("pods");
    let _servers = Echo::start_all(&pods, &[PORT]).expect("servers");
    let probes: Vec<Probe> = [("one", &pods[1]), ("two", &pods[2])]
        .into_iter()
        .flat_map(|(network, to)| {
            let path = Path::new(&pods[0], to, network, Family::V4, PORT).expect("a path");
            [path.tcp(), path.udp()]
        })
        .collect();
    let answers = probe_all(&probes, TIMEOUT).expect("answers");
    let by: Vec<Option<&str>> = answers.iter().map(|answer| answer.by.as_deref()).collect();
    assert_eq!(
        by,
        [Some("x/server"), Some("x/server"), Some("x/twin"), Some("x/twin")],
        "{answers:#?}"
    );
    for answer in &answers {
        assert_eq!(
            answer.seen_as.map(|it| it.ip()),
            Some(address("10.99.0.1")),
            "{answer:?}"
        );
    }
}

/// They wait together: one after the other they would take 40 s.
#[test]
fn a_hundred_probes_at_once_none_mixed_up() {
    let mut topology = Topology::new("netns-ten").expect("a topology (are you root?)");
    topology
        .network(Network::new("net", Wiring::Bridge))
        .expect("a network");
    let specs = (0..10)
        .map(|number| PodSpec::genie(&format!("x/p{number}")).attach("eth0", "net"))
        .collect();
    let pods = topology.pods(specs).expect("pods");
    for pod in &pods {
        pod.nft(&by_hand("input", "iifname \"eth0\" meta l4proto tcp drop"))
            .expect("nft");
    }
    let matrix = measure(&pods, Family::V4, Protocol::Tcp);
    for (row, cells) in matrix.cells.iter().enumerate() {
        for (column, cell) in cells.iter().enumerate() {
            // To itself a pod goes over lo, where nobody listens.
            let expected = if row == column {
                Outcome::Refused
            } else {
                Outcome::Dropped
            };
            assert_eq!(*cell, Some(expected), "{row} → {column}");
        }
    }
}

#[test]
fn dropping_a_topology_leaves_no_name_behind_also_after_a_panic() {
    let paths = std::sync::Mutex::new(Vec::new());
    let caught = std::panic::catch_unwind(|| {
        let (topology, pods) = three_pods("netns-drop", Wiring::Macvlan, 2);
        let template = topology.netns_path_template();
        let mut paths = paths.lock().expect("not poisoned");
        for pod in &pods {
            let path = template
                .replace("{namespace}", pod.namespace())
                .replace("{name}", pod.name());
            assert!(std::path::Path::new(&path).exists(), "{path}");
            paths.push(path);
        }
        paths.push(topology.node(2).expect("node 2").path().display().to_string());
        drop(paths);
        panic!("on purpose");
    });
    assert!(caught.is_err());
    let paths = paths.into_inner().expect("not poisoned");
    assert_eq!(paths.len(), 4);
    for path in paths {
        assert!(!std::path::Path::new(&path).exists(), "{path} is left");
    }
}

#[test]
fn impossible_topologies_say_what_is_wrong() {
    let mut topology = Topology::new("netns-impossible").expect("a topology (are you root?)");
    topology
        .network(Network::new("net", Wiring::Bridge))
        .expect("a network");
    let mut check = |spec: PodSpec, text: &str| {
        let error = format!("{:#}", topology.pod(spec).expect_err("impossible"));
        assert!(error.contains(text), "{error} lacks {text:?}");
    };
    check(PodSpec::genie("x/a").attach("eth0", "other"), "no network other");
    check(PodSpec::genie("x/b").attach("eth0", "net").on_node(2), "no node 2");
    check(PodSpec::genie("x/c"), "has no interface");
    check(
        PodSpec::genie("x/d").attach("a-name-that-is-too-long", "net"),
        "ip -batch",
    );
    assert!(topology.network(Network::new("net", Wiring::Bridge)).is_err());
}
