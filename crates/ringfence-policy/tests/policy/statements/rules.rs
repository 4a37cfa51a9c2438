//! Groups A to G: selection, emptiness, peers, blocks, ports.

use super::*;

#[test]
fn s001_to_s004_s007_s150_selection_and_isolation() {
    check([], &["x/b > x/a tcp/80 udp/53 ping gre: yes"]);
    check(
        [guard().ingress([])],
        &[
            "x/b > x/a tcp/80 udp/53 ping gre: no",
            "x/b > x/c tcp/80: no",
            "x/a > x/b tcp/80: yes",
            "y/b > y/a tcp/80: yes",
            "x/b%b > x/a%b tcp/80: yes",
        ],
    );
    check(
        [policy("x/all").ingress([])],
        &["x/a > x/b tcp/80: no", "x/a > y/b tcp/80: yes"],
    );
}

#[test]
fn s005_s006_s010_policies_add_up() {
    let deny = policy("x/deny").ingress([]).egress([]);
    let open = policy("x/open").ingress([anything()]).egress([anything()]);
    check(
        [deny.clone(), open],
        &["y/a > x/a tcp/80 ping gre: yes", "x/a > y/a tcp/80 ping gre: yes"],
    );
    let web = policy("x/web").ingress([rule([pods_in("team=blue", "")], [tcp(80)])]);
    let db = policy("x/db").ingress([rule([pods_in("", "app=db")], [tcp(81)])]);
    check(
        [deny, web, db],
        &[
            "y/a > x/a tcp/80: yes",
            "y/a > x/a tcp/81: no",
            "y/b > x/a tcp/80 tcp/81: yes",
            "x/b > x/a tcp/80: no",
        ],
    );
}

#[test]
fn s008_s009_b17_both_ends_must_allow() {
    let sender = policy("x/out").egress([anything()]);
    let receiver = policy("y/in").ingress([]);
    check([sender, receiver], &["x/a > y/a tcp/80: no", "x/a > z/a tcp/80: yes"]);
    check(
        [policy("x/out").egress([])],
        &["x/a > y/a tcp/80: no", "y/a > x/a tcp/80: yes"],
    );
}

#[test]
fn s015_to_s020_empty_rules() {
    check(
        [guard().ingress([])],
        &["y/a > x/a tcp/80: no", "x/a > y/a tcp/80: yes"],
    );
    check([guard().egress([])], &["y/a > x/a tcp/80: yes", "x/a > y/a tcp/80: no"]);
    check(
        [guard().ingress([anything()])],
        &["192.0.2.1 > x/a tcp/80 ping gre: yes"],
    );
    check(
        [guard().egress([anything()])],
        &["x/a > 192.0.2.1 tcp/80 ping gre: yes"],
    );
}

#[test]
fn s022_s034_s035_s036_s060_s166_b5_b6_nothing_is_never_all() {
    let nothing = |peers, ports| Rule { peers, ports };
    let web_only = rule([pods("app=web")], [tcp(80)]);
    for broken in [
        nothing(Peers::OneOf(vec![Peer::Nothing]), Ports::All),
        nothing(Peers::OneOf(vec![]), Ports::All),
        nothing(Peers::All, Ports::OneOf(vec![PortMatch::Nothing])),
        nothing(Peers::All, Ports::OneOf(vec![])),
        nothing(Peers::All, Ports::OneOf(vec![named("nobody-has-it", Protocol::Tcp)])),
        from([pods("app=nobody")]),
        from([pods_in("team=nobody", "")]),
        from([block("10.20.0.0/16", &["10.20.0.0/16"])]),
        rule([block("0.0.0.0/0", &[])], [named("nobody-has-it", Protocol::Tcp)]),
    ] {
        for direction in [guard().ingress([broken.clone()]), guard().egress([broken.clone()])] {
            let index = index_of([direction]);
            let denied = !reaches(
                &index,
                ("y/a", "net1", "10.20.2.10"),
                ("x/a", "net1", "10.20.1.10"),
                what("tcp/80"),
            ) || !reaches(
                &index,
                ("x/a", "net1", "10.20.1.10"),
                ("y/a", "net1", "10.20.2.10"),
                what("tcp/80"),
            );
            assert!(denied, "{broken:?}");
        }
        // The rest of the policy applies.
        check(
            [guard().ingress([broken, web_only.clone()])],
            &["x/c > x/a tcp/80: yes", "y/a > x/a tcp/80: no"],
        );
    }
    let mut nobody = guard().ingress([]);
    nobody.0.target = None;
    check([nobody], &["y/a > x/a tcp/80: yes"]);
}

#[test]
fn s029_to_s033_peers_and_ports_multiply_within_a_rule_and_add_up_between_rules() {
    check(
        [guard().ingress([
            rule([pods("app=db"), pods_in("team=blue", "")], [tcp(80), udp(53)]),
            everybody([tcp(443)]),
        ])],
        &[
            "x/b > x/a tcp/80 udp/53: yes",
            "x/b > x/a tcp/53 udp/80 sctp/80 ping: no",
            "y/a > x/a tcp/80: yes",
            "x/c > x/a tcp/80: no",
            "192.0.2.1 > x/a tcp/443: yes",
            "2001:db8::1 > x/a%6 tcp/443: yes",
            "192.0.2.1 > x/a udp/443: no",
        ],
    );
    check(
        [guard().ingress([from([pods("app=db")])])],
        &["x/b > x/a tcp/1 udp/1 sctp/1 ping gre: yes"],
    );
}

#[test]
fn s039_to_s048_b38_b39_pod_and_namespace_peers() {
    check(
        [guard().ingress([from([pods("app=db")])])],
        &["x/b > x/a tcp/80: yes", "y/b > x/a tcp/80: no"],
    );
    check(
        [guard().ingress([from([pods_in("team=blue", "")])])],
        &["y/a > x/a tcp/80: yes", "x/b > x/a tcp/80: no"],
    );
    check(
        [guard().ingress([from([pods_in("team=blue", "app=db")])])],
        &["y/b > x/a tcp/80: yes", "y/a > x/a tcp/80: no", "x/b > x/a tcp/80: no"],
    );
    check(
        [guard().ingress([from([pods("app=db"), pods_in("team=blue", "")])])],
        &["x/b > x/a tcp/80: yes", "y/a > x/a tcp/80: yes", "x/c > x/a tcp/80: no"],
    );
    check(
        [guard().ingress([from([pods_in("", "")])])],
        &[
            "x/b > x/a tcp/80: yes",
            "y/a > x/a tcp/80: yes",
            "192.0.2.1 > x/a tcp/80: no",
        ],
    );
    check(
        [guard().ingress([from([pods("")])])],
        &["x/b > x/a tcp/80: yes", "y/a > x/a tcp/80: no"],
    );
    check(
        [guard().ingress([from([pods_in("kubernetes.io/metadata.name=z", "")])])],
        &["z/a > x/a tcp/80: yes", "y/a > x/a tcp/80: no"],
    );
    // s048: what reaches a pod by its own address from outside is not the loopback.
    check([guard().ingress([from([pods("app=web")])])], &["x/a > x/a tcp/80: yes"]);
}

#[test]
fn s062_to_s071_s074_b1_b26_blocks() {
    let block_8 = || block("10.0.0.0/8", &["10.20.2.0/24"]);
    let lines = [
        "10.9.9.9 > x/a tcp/80: yes",
        "x/b > x/a tcp/80: yes",
        "11.0.0.1 > x/a tcp/80: no",
    ];
    check([guard().ingress([from([block_8()])])], &lines);
    check(
        [guard().ingress([from([block_8()])])],
        &["y/a > x/a tcp/80: no", "x/b%6 > x/a%6 tcp/80: no"],
    );
    // What one peer, rule or policy excepts, another one gives (statements 64 to 67).
    let given = ["y/a > x/a tcp/80: yes", "10.9.9.9 > x/a tcp/80: yes"];
    check(
        [guard().ingress([from([block_8(), block("10.20.2.8/29", &[])])])],
        &given,
    );
    check(
        [guard().ingress([from([block_8()]), from([block("10.20.2.10/32", &[])])])],
        &given,
    );
    let other = policy("x/other").ingress([from([block("10.20.0.0/16", &["10.20.1.0/24"])])]);
    check([guard().ingress([from([block_8()])]), other], &given);
    check(
        [guard().ingress([from([block_8(), pods_in("team=blue", "app=web")])])],
        &given,
    );
    let everywhere = guard().ingress([from([block("0.0.0.0/0", &[])])]);
    check(
        [everywhere],
        &[
            "192.0.2.1 > x/a tcp/80 ping gre: yes",
            "y/a > x/a tcp/80: yes",
            "2001:db8::1 > x/a%6 tcp/80: no",
        ],
    );
    let everywhere = guard().ingress([from([block("::/0", &[])])]);
    check(
        [everywhere],
        &["fe80::1 > x/a%6 tcp/80: yes", "192.0.2.1 > x/a tcp/80: no"],
    );
}

#[test]
fn s069_s070_b2_nested_blocks_in_every_order() {
    let blocks = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "11.0.0.0/8"];
    for first in 0..blocks.len() {
        let order = blocks.iter().cycle().skip(first).take(blocks.len());
        let peers: Vec<Peer> = order.map(|cidr| block(cidr, &[])).collect();
        for kept in 1..=peers.len() {
            let kept = &peers[..kept];
            let index = index_of([guard().ingress([from(kept.iter().cloned())])]);
            for address in ["10.9.9.9", "10.1.9.9", "10.1.2.9", "10.1.2.3", "11.0.0.1", "12.0.0.1"] {
                let wanted = kept
                    .iter()
                    .any(|peer| matches!(peer, Peer::IpBlock(block) if block.ranges().contains(addr(address))));
                let found = reaches(
                    &index,
                    (address, "net1", address),
                    ("x/a", "net1", "10.20.1.10"),
                    what("tcp/80"),
                );
                assert_eq!(found, wanted, "{address} in {kept:?}");
            }
        }
    }
}

#[test]
fn s076_single_addresses_share_the_sets_of_pods() {
    check(
        [guard().ingress([rule(
            [block("10.20.2.10/32", &[]), block("fd00:20::2:10/128", &[])],
            [tcp(80)],
        )])],
        &[
            "y/a > x/a tcp/80: yes",
            "y/a%6 > x/a%6 tcp/80: yes",
            "y/b > x/a tcp/80: no",
            "y/a > x/a tcp/81: no",
        ],
    );
}

#[test]
fn s080_to_s088_b21_b25_ports() {
    let one = |ports: Vec<PortMatch>| [guard().ingress([rule([pods_in("", "")], ports)])];
    check(
        one(vec![whole(Protocol::Tcp)]),
        &["y/a > x/a tcp/1 tcp/65535: yes", "y/a > x/a udp/1 sctp/1 ping gre: no"],
    );
    check(
        one(vec![whole(Protocol::Udp), udp(80)]),
        &["y/a > x/a udp/80 udp/81: yes", "y/a > x/a tcp/80: no"],
    );
    check(
        one(vec![tcp_range(80, 90)]),
        &["y/a > x/a tcp/80 tcp/85 tcp/90: yes", "y/a > x/a tcp/79 tcp/91: no"],
    );
    check(
        one(vec![tcp_range(80, 80)]),
        &["y/a > x/a tcp/80: yes", "y/a > x/a tcp/81: no"],
    );
    check(
        one(vec![tcp_range(1, 65535)]),
        &["y/a > x/a tcp/1 tcp/65535: yes", "y/a > x/a udp/1: no"],
    );
    let many: Vec<PortMatch> = (0..20)
        .map(|step| tcp(1000 + 2 * step))
        .chain([udp(53), tcp_range(80, 90)])
        .collect();
    check(
        one(many),
        &[
            "y/a > x/a tcp/1000 tcp/1038 udp/53 tcp/85: yes",
            "y/a > x/a tcp/1001 udp/1000 tcp/53 ping: no",
        ],
    );
}

#[test]
fn s083_s084_source_ports_do_not_matter() {
    // 40000 is the client's port in every packet that the tests send.
    check(
        [guard().ingress([rule([pods_in("", "")], [tcp(40_000)])])],
        &["y/a > x/a tcp/80: no"],
    );
    check(
        [guard().egress([rule([pods_in("", "")], [tcp(40_000)])])],
        &["x/a > y/a tcp/80: no"],
    );
}

#[test]
fn s089_to_s097_b8_named_ports() {
    let http = || named("http", Protocol::Tcp);
    let with = |name: &str, ports: &[(Protocol, u16)]| -> Object {
        ports
            .iter()
            .fold(member(name), |pod, (protocol, port)| pod.port("http", *protocol, *port))
            .into()
    };
    let declared = || {
        [
            with("x/a", &[(Protocol::Tcp, 8080)]),
            with("x/c", &[(Protocol::Tcp, 9090)]),
            with("y/a", &[(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Udp, 82)]),
            with("y/c", &[(Protocol::Udp, 80)]),
        ]
    };
    let index =
        |policy: PolicyBuilder| index_with(options(), world().into_iter().chain(declared()).chain([policy.into()]));
    check_index(
        &index(guard().ingress([rule([pods_in("", "")], [http()])])),
        &[
            "y/b > x/a tcp/8080: yes",
            "y/b > x/a tcp/9090 udp/8080 tcp/80: no",
            "y/b > x/c tcp/9090: yes",
            "y/b > x/c tcp/8080: no",
        ],
    );
    let to_pods = [
        "x/a > y/a tcp/80 tcp/81: yes",
        "x/a > y/a tcp/82 udp/82 tcp/8080: no",
        "x/a > y/c tcp/80 udp/80: no",
        "x/a > y/b tcp/80: no",
    ];
    check_index(&index(guard().egress([rule([pods_in("", "")], [http()])])), &to_pods);
    check_index(&index(guard().egress([everybody([http()])])), &to_pods);
    check_index(
        &index(guard().egress([everybody([http()])])),
        &["x/a > 192.0.2.1 tcp/80: no"],
    );
    check_index(
        &index(guard().egress([rule([block("0.0.0.0/0", &[])], [http()])])),
        &["x/a > y/a tcp/80: no"],
    );
    // Ingress by block: the destination is the protected pod, whose names are known.
    check_index(
        &index(guard().ingress([rule([block("10.0.0.0/8", &[])], [http()])])),
        &["y/a > x/a tcp/8080: yes"],
    );
    // A change of the destination's ports is followed.
    let mut changing = index(guard().egress([rule([pods_in("", "")], [http()])]));
    changing.apply(with("y/a", &[(Protocol::Tcp, 8443)]));
    changing.commit();
    check_index(&changing, &["x/a > y/a tcp/8443: yes", "x/a > y/a tcp/80: no"]);
}
