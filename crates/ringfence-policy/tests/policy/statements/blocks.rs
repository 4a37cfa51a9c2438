//! Group F: blocks of addresses.

use super::*;

fn blocks(peers: impl IntoIterator<Item = Peer>) -> PolicyBuilder {
    guard().ingress([from(peers)])
}

/// All of 10/8 but namespace y.
fn but_y() -> Peer {
    block("10.0.0.0/8", &["10.20.2.0/24"])
}

#[test]
fn s062_s063_s074_prefixes_and_holes() {
    check(
        [blocks([but_y()])],
        &[
            "10.9.9.9 > x/a tcp/80: yes",
            // Pods' addresses are addresses.
            "x/b > x/a tcp/80: yes",
            "11.0.0.1 > x/a tcp/80: no",
            "y/a > x/a tcp/80: no",
            "10.20.1.255 > x/a tcp/80: yes",
            "10.20.2.0 > x/a tcp/80: no",
            "10.20.2.255 > x/a tcp/80: no",
            "10.20.3.0 > x/a tcp/80: yes",
            "x/b%6 > x/a%6 tcp/80: no",
        ],
    );
    check(
        [guard().egress([from([block("fd00:20::2:0/112", &["fd00:20::2:10/128"])])])],
        &[
            "x/a%6 > y/b%6 tcp/80: yes",
            "x/a%6 > y/a%6 tcp/80: no",
            "x/a%6 > z/a%6 tcp/80: no",
            "x/a > y/b tcp/80: no",
        ],
    );
}

#[test]
fn s064_s065_s066_s067_b1_what_one_excepts_another_gives() {
    let given = [
        "y/a > x/a tcp/80: yes",
        "10.9.9.9 > x/a tcp/80: yes",
        "y/b > x/a tcp/80: no",
    ];
    check([blocks([but_y(), block("10.20.2.10/32", &[])])], &given);
    check(
        [blocks([but_y()]).ingress([from([block("10.20.2.10/32", &[])])])],
        &given,
    );
    let other = policy("x/other").ingress([from([block("10.20.2.0/24", &["10.20.2.11/32"])])]);
    check([blocks([but_y()]), other], &given);
    check(
        [blocks([
            but_y(),
            pods_in("kubernetes.io/metadata.name=y", "tier=front"),
        ])],
        &["y/c > x/a tcp/80: yes", "y/a > x/a tcp/80: no"],
    );
}

#[test]
fn s069_s070_b2_nested_and_repeated_blocks_in_every_order() {
    let cidrs = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.0.0/16",
        "10.1.2.3/32",
        "11.0.0.0/8",
    ];
    for first in 0..cidrs.len() {
        let order = cidrs.iter().cycle().skip(first).take(cidrs.len());
        let peers: Vec<Peer> = order.map(|cidr| block(cidr, &[])).collect();
        for kept in 1..=peers.len() {
            let kept = &peers[..kept];
            let index = index_of([blocks(kept.iter().cloned())]);
            for address in ["10.9.9.9", "10.1.9.9", "10.1.2.9", "10.1.2.3", "11.0.0.1", "12.0.0.1"] {
                let wanted = kept
                    .iter()
                    .any(|peer| matches!(peer, Peer::IpBlock(block) if block.cidr.contains(&addr(address))));
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
fn s071_b26_everything_of_one_family() {
    check(
        [blocks([block("0.0.0.0/0", &[])])],
        &[
            "192.0.2.1 > x/a tcp/80 ping gre: yes",
            "y/a > x/a tcp/80: yes",
            "255.255.255.254 > x/a tcp/80: yes",
            "2001:db8::1 > x/a%6 tcp/80: no",
            "y/a%6 > x/a%6 tcp/80: no",
        ],
    );
    check(
        [blocks([block("::/0", &[])])],
        &[
            "fe80::1 > x/a%6 tcp/80: yes",
            "fd00:20::2:10 > x/a%6 tcp/80: yes",
            "64:ff9b::c000:201 > x/a%6 tcp/80: yes",
            "2001:db8::1 > x/a%6 tcp/80: yes",
            "192.0.2.1 > x/a tcp/80: no",
        ],
    );
}

#[test]
fn s075_s127_the_addresses_on_the_wire_count() {
    // A process of the pod sees another peer and another port, because something inside of the pod redirects: the
    // packets on the interface are the ones that are judged, in both directions.
    let ruleset = index_of([guard().ingress([rule([block("192.0.2.0/24", &[])], [tcp(80)])])]);
    let ruleset = ruleset.ruleset(&uid("x/a")).expect("a ruleset");
    for (source, port, expected) in [
        ("192.0.2.1", 80, true),
        ("192.0.2.1", 15_006, false),
        ("10.9.9.9", 80, false),
    ] {
        for reply in [false, true] {
            let packet = support::redirected("net1", reply, addr(source), addr("10.20.1.10"), port);
            let found = ringfence_ruleset::trace(ruleset, &packet).expect("a trace").decision;
            assert_eq!(
                found == ringfence_ruleset::Decision::Accept,
                expected,
                "{source} {port} {reply}"
            );
        }
    }
}

#[test]
fn s076_single_addresses_share_the_sets_of_pods_and_everything_may_have_holes() {
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
    check(
        [blocks([
            block("0.0.0.0/0", &["10.20.2.10/32", "192.0.2.0/24"]),
            block("::/0", &["::/1"]),
        ])],
        &[
            "y/b > x/a tcp/80: yes",
            "y/a > x/a tcp/80: no",
            "192.0.2.1 > x/a tcp/80: no",
            "fd00:20::2:10 > x/a%6 tcp/80: yes",
            "2001:db8::1 > x/a%6 tcp/80: no",
        ],
    );
}

#[test]
fn s077_pods_that_come_and_go_do_not_touch_blocks() {
    let mut index = index_of([blocks([but_y(), block("10.20.2.50/32", &[])])]);
    let before = index.ruleset(&uid("x/a")).cloned();
    let visitor = || pod("y/new", "app=web").a(&["10.20.2.50"]);
    let changes: [&dyn Fn(&mut World); 3] = [
        &|index| index.apply(visitor().into()),
        &|index| index.apply(visitor().terminal().into()),
        &|index| index.remove(&pod_key("y/new")),
    ];
    for change in changes {
        change(&mut index);
        let dirty = index.commit();
        assert!(!dirty.contains(&uid("x/a")), "{dirty:?}");
        assert_eq!(index.ruleset(&uid("x/a")), before.as_ref());
        check_index(&index, &["10.20.2.50 > x/a tcp/80: yes", "10.20.2.51 > x/a tcp/80: no"]);
    }
}

/// So many that they are looked up by their prefix lengths: at every edge the same as each block says by itself. The
/// except leaves two networks of each block, of which every second one is left as it is.
#[test]
fn s062_s063_s070_many_blocks_are_judged_as_few_are() {
    let except = |number: u32, text: String| {
        if number.is_multiple_of(2) {
            vec![text]
        } else {
            Vec::new()
        }
    };
    let v4 = (0..300_u32).map(|number| {
        let [_, _, high, low] = (2 * number).to_be_bytes();
        let hole = except(number, format!("10.{high}.{low}.0/26"));
        block(
            &format!("10.{high}.{low}.0/24"),
            &hole.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    });
    let v6 = (0..100).map(|number| block(&format!("fd00:20:{:x}::/48", 2 * number + 16), &[]));
    let peers: Vec<Peer> = v4.chain(v6).collect();
    let allowed = |address: &str| {
        let address = addr(address);
        let inside = |peer: &Peer| matches!(peer, Peer::IpBlock(block) if block.ranges().contains(address));
        peers.iter().any(inside)
    };
    let index = index_of([guard()
        .ingress([rule(peers.clone(), [tcp(80)])])
        .egress([from(peers.clone())])]);
    let text = index.ruleset(&uid("x/a")).map(ToString::to_string).unwrap_or_default();
    for set in [
        "net1-in-tcp-80-n24-ip ",
        "net1-in-tcp-80-n25-ip ",
        "net1-in-tcp-80-n48-ip6 ",
        "net1-out-any-n26-ip ",
    ] {
        assert!(text.contains(&format!("set {set}")), "{set}\n{text}");
    }
    let hosts = [0, 1, 63, 64, 127, 128, 254, 255];
    let v4 = [0, 1, 2, 3, 4, 255, 256, 257, 597, 598, 599, 600]
        .into_iter()
        .flat_map(|network: u32| {
            let [_, _, high, low] = network.to_be_bytes();
            hosts.map(|host| (format!("10.{high}.{low}.{host}"), "10.20.1.10"))
        });
    let v6 = [
        "fd00:20:10::",
        "fd00:20:10:ffff::ffff",
        "fd00:20:11::",
        "fd00:20:f:ffff::1",
        "fd00:20:d6::1",
        "fd00:20:d8::",
    ];
    for (other, own) in v4.chain(v6.map(|other| (other.to_owned(), "fd00:20::1:10"))) {
        let expected = allowed(&other);
        let of = |opens, what| {
            let direction = if opens { Direction::Egress } else { Direction::Ingress };
            index.judge("x/a", "net1", direction, &other, own, what)
        };
        assert_eq!(of(false, What::Port(Protocol::Tcp, 80)), expected, "from {other}");
        assert!(!of(false, What::Port(Protocol::Tcp, 81)), "from {other}, another port");
        assert_eq!(of(true, What::Ping), expected, "to {other}");
    }
}
