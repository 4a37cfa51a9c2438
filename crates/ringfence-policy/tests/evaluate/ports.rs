//! G: ports and protocols.

use ringfence_model::Protocol;
use serde_json::{Value, json};

use crate::world::{Row, port, world};

/// What x/a accepts from x/b, and may send to it, where a rule has just these ports.
#[track_caller]
fn check_ports(ports: &Value, allowed: &[&str], denied: &[&str]) {
    let ingress = world().web_ingress(&json!([{"ports": ports}]));
    let egress = world().web_egress(&json!([{"ports": ports}]));
    for (what, inward, outward) in [(allowed, "aa", "aa"), (denied, "ad", "da")] {
        let rows: Vec<Row<'_>> = what.iter().map(|it| ("x/b", "x/a", *it, inward)).collect();
        ingress.check(&rows);
        let rows: Vec<Row<'_>> = what.iter().map(|it| ("x/a", "x/b", *it, outward)).collect();
        egress.check(&rows);
    }
}

#[test]
fn s078_s079_s218_protocols() {
    check_ports(&json!([{"port": 80}]), &["TCP/80"], &["UDP/80", "SCTP/80", "TCP/81"]);
    check_ports(&json!([{"protocol": null, "port": 80}]), &["TCP/80"], &["UDP/80"]);
    check_ports(
        &json!([{"protocol": "UDP", "port": 80}]),
        &["UDP/80"],
        &["TCP/80", "SCTP/80"],
    );
    check_ports(
        &json!([{"protocol": "SCTP", "port": 80}]),
        &["SCTP/80"],
        &["TCP/80", "UDP/80"],
    );
    for unknown in ["tcp", "ICMP", "", "6"] {
        check_ports(
            &json!([{"protocol": unknown, "port": 80}]),
            &[],
            &["TCP/80", "UDP/80", "SCTP/80", "icmp"],
        );
    }
}

#[test]
fn s080_s081_s082_whole_protocols() {
    check_ports(&json!([{}]), &["TCP/1", "TCP/65535"], &["UDP/1", "SCTP/1", "icmp"]);
    check_ports(
        &json!([{"protocol": "UDP"}]),
        &["UDP/53"],
        &["TCP/53", "SCTP/53", "icmp"],
    );
    check_ports(
        &json!([{"protocol": "TCP"}, {"protocol": "TCP", "port": 80}]),
        &["TCP/80", "TCP/81"],
        &["UDP/80"],
    );
    check_ports(&json!([{"protocol": "SCTP", "port": 80}]), &["SCTP/80"], &["TCP/80"]);
}

#[test]
fn s085_s088_ranges() {
    check_ports(
        &json!([{"port": 80, "endPort": 82}]),
        &["TCP/80", "TCP/81", "TCP/82"],
        &["TCP/79", "TCP/83", "UDP/81"],
    );
    check_ports(
        &json!([{"port": 80, "endPort": 80}]),
        &["TCP/80"],
        &["TCP/79", "TCP/81"],
    );
    check_ports(
        &json!([{"port": 80, "endPort": 90}, {"port": 85, "endPort": 95}, {"port": 88}]),
        &["TCP/80", "TCP/88", "TCP/95"],
        &["TCP/96"],
    );
    check_ports(
        &json!([{"port": 1, "endPort": 65535}]),
        &["TCP/1", "TCP/65535", "TCP/0"],
        &["UDP/1", "icmp"],
    );
    check_ports(
        &json!([{"port": 2, "endPort": 65535}]),
        &["TCP/2", "TCP/65535"],
        &["TCP/1", "TCP/0"],
    );
}

#[test]
fn s086_s087_s219_s220_invalid_entries_match_nothing() {
    for invalid in [
        json!({"endPort": 90}),
        json!({"port": "http", "endPort": 9000}),
        json!({"port": 80, "endPort": 79}),
        json!({"port": 80, "endPort": 70000}),
        json!({"port": 0}),
        json!({"port": -1}),
        json!({"port": 65616}),
        json!({"port": 80.5}),
        json!({"port": "80"}),
        json!({"port": "HTTP"}),
        json!({"port": ""}),
    ] {
        check_ports(
            &json!([invalid]),
            &[],
            &["TCP/80", "TCP/0", "TCP/8080", "UDP/80", "icmp"],
        );
        check_ports(&json!([invalid, {"port": 443}]), &["TCP/443"], &["TCP/80"]);
    }
}

#[test]
fn s083_s084_s099_the_destination_port_counts_declared_or_not() {
    // There is no source port to ask about; the destination's declared ports play no part for numbers.
    check_ports(&json!([{"port": 4711}]), &["TCP/4711"], &["TCP/80", "TCP/8080"]);
}

#[test]
fn s089_s091_s092_s093_named_ports_of_ingress_count_on_the_selected_pod() {
    let everybody = |rules: &Value| {
        world()
            .mnp("x/guard", &json!({"podSelector": {}, "ingress": rules}))
            .mnp("y/guard", &json!({"podSelector": {}, "ingress": rules}))
    };
    everybody(&json!([{"ports": [{"port": "http"}]}])).check(&[
        ("z/a", "x/a", "TCP/8080", "aa"),
        ("z/a", "x/a", "TCP/80", "ad"),
        ("z/a", "x/b", "TCP/80", "aa"),
        ("z/a", "x/b", "TCP/8080", "ad"),
        // Declares nothing: nothing, never everything.
        ("z/a", "x/c", "TCP/80", "ad"),
        ("z/a", "x/c", "TCP/8080", "ad"),
        ("z/a", "x/c", "icmp", "ad"),
        // Declares the name with another protocol.
        ("z/a", "y/a", "TCP/80", "ad"),
        ("z/a", "y/a", "UDP/80", "ad"),
        // The sender's own port of that name plays no part.
        ("x/b", "y/b", "TCP/80", "ad"),
        ("x/b", "y/b", "TCP/81", "aa"),
    ]);
    everybody(&json!([{"ports": [{"protocol": "UDP", "port": "http"}]}])).check(&[
        ("z/a", "y/a", "UDP/80", "aa"),
        ("z/a", "x/b", "UDP/80", "ad"),
        ("z/a", "x/b", "TCP/80", "ad"),
    ]);
}

#[test]
fn s090_s091_s092_s093_named_ports_of_egress_count_on_the_peer() {
    world()
        .web_egress(&json!([{"to": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}]))
        .check(&[
            ("x/a", "x/b", "TCP/80", "aa"),
            ("x/a", "x/b", "TCP/81", "da"),
            ("x/a", "y/b", "TCP/81", "aa"),
            ("x/a", "y/b", "TCP/80", "da"),
            // The selected pod's own port of that name plays no part.
            ("x/a", "x/b", "TCP/8080", "da"),
            ("x/a", "x/c", "TCP/8080", "da"),
            ("x/a", "y/a", "TCP/80", "da"),
            ("x/a", "y/a", "UDP/80", "da"),
            ("x/a", "z/a", "TCP/80", "da"),
        ]);
}

#[test]
fn s094_s095_every_number_of_a_name_with_the_protocol_counts() {
    world()
        .web_ingress(&json!([{"ports": [{"port": "http"}]}]))
        .pod("x/a", |pod| {
            pod.ports.insert(port("http", Protocol::Tcp, 9090));
            pod.ports.insert(port("http", Protocol::Udp, 9091));
        })
        .check(&[
            ("y/a", "x/a", "TCP/8080", "aa"),
            ("y/a", "x/a", "TCP/9090", "aa"),
            ("y/a", "x/a", "TCP/9091", "ad"),
            ("y/a", "x/a", "UDP/9091", "ad"),
        ]);
}

#[test]
fn s096_named_egress_ports_with_a_block_match_nothing() {
    let block = json!({"ipBlock": {"cidr": "0.0.0.0/0"}});
    let named = json!([{"port": "http"}]);
    world()
        .web_egress(&json!([{"to": [block], "ports": named}]))
        .check(&[("x/a", "x/b", "TCP/80", "da"), ("x/a", "198.51.100.7", "TCP/80", "da")]);
    // A selector beside the block still brings its pods.
    world()
        .web_egress(&json!([{"to": [block, {"podSelector": {}}], "ports": named}]))
        .check(&[("x/a", "x/b", "TCP/80", "aa"), ("x/a", "y/b", "TCP/81", "da")]);
    // A number beside the name still counts for the block.
    world()
        .web_egress(&json!([{"to": [block], "ports": [{"port": "http"}, {"port": 443}]}]))
        .check(&[("x/a", "198.51.100.7", "TCP/443", "aa"), ("x/a", "x/b", "TCP/80", "da")]);
    // For ingress the name counts on the selected pod, so a block is fine.
    world()
        .web_ingress(&json!([{"from": [block], "ports": named}]))
        .check(&[
            ("198.51.100.7", "x/a", "TCP/8080", "aa"),
            ("198.51.100.7", "x/a", "TCP/80", "ad"),
        ]);
}

#[test]
fn s097_named_egress_ports_without_to_match_every_pod_that_declares_them() {
    world().web_egress(&json!([{"ports": [{"port": "http"}]}])).check(&[
        ("x/a", "x/b", "TCP/80", "aa"),
        ("x/a", "x/b", "TCP/81", "da"),
        ("x/a", "y/b", "TCP/81", "aa"),
        ("x/a", "y/b", "TCP/80", "da"),
        ("x/a", "198.51.100.7", "TCP/80", "da"),
        // Another network's address of a pod that declares it.
        ("x/a", "10.30.1.11", "TCP/80", "da"),
    ]);
    // A pod on the node's network and an ended one are no known pods of the network.
    world()
        .web_egress(&json!([{"ports": [{"port": "http"}]}]))
        .pod("x/b", |pod| pod.host_network = true)
        .pod("y/b", |pod| pod.terminal = true)
        .check(&[("x/a", "x/b", "TCP/80", "da"), ("x/a", "y/b", "TCP/81", "da")]);
}

#[test]
fn s098_names_are_not_looked_up_anywhere_else() {
    check_ports(
        &json!([{"port": "https"}, {"port": "ssh"}]),
        &[],
        &["TCP/443", "TCP/22", "TCP/80"],
    );
}
