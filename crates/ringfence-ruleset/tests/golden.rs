//! The text of rulesets, rules and operations, compared with literals. `tests/kernel.rs` shows that nft and the kernel
//! agree with it.

#![allow(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes them when it updates a literal"
)]

mod common;

use std::fmt::Display;

use common::{UDP, V4, V6, accept, base, deny, example, name, range, regular, rule, ruleset, set, table};
use expect_test::{Expect, expect, expect_file};
use ringfence_model::Protocol;
use ringfence_ruleset::{Element, Fault, Hook, Match, Name, Op, SetKind, TableFamily, Verdict, replacement, text};

fn check(value: &impl Display, expected: &Expect) {
    expected.assert_eq(&value.to_string());
}

#[test]
fn a_whole_ruleset() {
    expect_file!["golden/example.nft"].assert_eq(&example().to_string());
}

#[test]
fn an_empty_ruleset_is_an_empty_table_and_no_netdev_table() {
    let mut empty = ruleset(table(&[], vec![], []), table(&["net1-out-denied"], vec![], []));
    check(
        &empty,
        &expect![[r#"
        table inet ringfence {
        	comment "ringfence 0b1c2d3e-0000-4000-8000-000000000001"
        }
    "#]],
    );
    assert_eq!(ringfence_ruleset::check(&empty), Ok(()));
    empty.comment = "".into();
    check(
        &empty,
        &expect![[r#"
        table inet ringfence {
        }
    "#]],
    );
    // A fault, but not one that gets out of its quotes.
    empty.comment = "a \"quoted\" comment\nover\u{fc} two lines".into();
    check(
        &empty,
        &expect![[r#"
        table inet ringfence {
        	comment "a _quoted_ comment_over_ two lines"
        }
    "#]],
    );
    assert!(matches!(ringfence_ruleset::check(&empty), Err(Fault::Comment(_))));
    empty.comment = "c".repeat(121).into();
    assert!(matches!(ringfence_ruleset::check(&empty), Err(Fault::Comment(_))));
}

#[test]
fn sets_are_sorted_and_wrapped_as_nft_wraps_them() {
    let numbers = |prefix: &str| -> Vec<Element> {
        [3, 1, 20, 2, 10]
            .map(|number| common::address(&format!("{prefix}{number}")))
            .to_vec()
    };
    let services: Vec<Element> = [
        (11, UDP, 53),
        (2, UDP, 53),
        (11, common::TCP, 8080),
        (11, common::TCP, 80),
    ]
    .map(|(last, protocol, port)| common::service(&format!("10.20.1.{last}"), protocol, port))
    .to_vec();
    let ranges = |texts: &[&str]| -> Vec<Element> { texts.iter().map(|text| Element::Range(range(text))).collect() };
    let list = vec![
        ("hosts-ip", set(SetKind::Addresses(V4), &numbers("10.20.1."))),
        ("hosts-ip6", set(SetKind::Addresses(V6), &numbers("fd00:20::"))),
        ("grants-ip", set(SetKind::Services(V4), &services)),
        (
            "blocks-ip",
            set(
                SetKind::Ranges(V4),
                &ranges(&["192.0.2.0/24", "10.0.0.0/8", "11.0.0.1/32", "12.0.0.1-12.0.0.6"]),
            ),
        ),
        (
            "blocks-ip6",
            set(
                SetKind::Ranges(V6),
                &ranges(&["fd00::/8", "::/96", "2001:db8::1-2001:db8::5"]),
            ),
        ),
        (
            "ports",
            set(
                SetKind::Ports,
                &[
                    Element::Port(Protocol::Sctp, 9),
                    Element::Port(UDP, 53),
                    Element::Port(common::TCP, 80),
                ],
            ),
        ),
        ("no-ports", set(SetKind::Ports, &[])),
    ];
    check(
        &ruleset(table(&[], list, []), table(&[], vec![], [])),
        &expect![[r#"
        table inet ringfence {
        	comment "ringfence 0b1c2d3e-0000-4000-8000-000000000001"
        	set blocks-ip {
        		type ipv4_addr
        		flags interval
        		elements = { 10.0.0.0/8, 11.0.0.1,
        			     12.0.0.1-12.0.0.6, 192.0.2.0/24 }
        	}

        	set blocks-ip6 {
        		type ipv6_addr
        		flags interval
        		elements = { ::/96,
        			     2001:db8::1-2001:db8::5,
        			     fd00::/8 }
        	}

        	set grants-ip {
        		type ipv4_addr . inet_proto . inet_service
        		elements = { 10.20.1.2 . udp . 53,
        			     10.20.1.11 . tcp . 80,
        			     10.20.1.11 . tcp . 8080,
        			     10.20.1.11 . udp . 53 }
        	}

        	set hosts-ip {
        		type ipv4_addr
        		elements = { 10.20.1.1, 10.20.1.2,
        			     10.20.1.3, 10.20.1.10,
        			     10.20.1.20 }
        	}

        	set hosts-ip6 {
        		type ipv6_addr
        		elements = { fd00:20::1,
        			     fd00:20::2,
        			     fd00:20::3,
        			     fd00:20::10,
        			     fd00:20::20 }
        	}

        	set no-ports {
        		type inet_proto . inet_service
        	}

        	set ports {
        		type inet_proto . inet_service
        		elements = { tcp . 80,
        			     udp . 53,
        			     sctp . 9 }
        	}
        }
    "#]],
    );
}

#[test]
fn every_condition() {
    let all: Vec<String> = common::vocabulary().iter().map(ToString::to_string).collect();
    check(
        &all.join("\n"),
        &expect![[r#"
            iifname "net1"
            oifname "a@b"
            ct direction original
            ct direction reply
            ct state related
            meta l4proto icmp
            meta nfproto ipv4
            ip saddr 10.20.1.10
            ip saddr @addresses-ip
            ip saddr . meta l4proto . th sport @services-ip
            ip saddr . meta l4proto . th dport @services-ip
            ip daddr 10.20.1.10
            ip daddr @addresses-ip
            ip daddr . meta l4proto . th sport @services-ip
            ip daddr . meta l4proto . th dport @services-ip
            ct original ip saddr @addresses-ip
            ct reply ip saddr @ranges-ip
            ip saddr & 128.0.0.0 == @addresses-ip
            ip saddr & 255.240.0.0 == @addresses-ip
            ip saddr & 255.255.255.0 == @addresses-ip
            ip saddr & 255.255.255.254 == @addresses-ip
            ct original ip saddr & 255.255.255.0 == @addresses-ip
            ct reply ip saddr & 255.128.0.0 == @addresses-ip
            meta l4proto ipv6-icmp
            meta nfproto ipv6
            ip6 saddr fd00:20::10
            ip6 saddr @addresses-ip6
            ip6 saddr . meta l4proto . th sport @services-ip6
            ip6 saddr . meta l4proto . th dport @services-ip6
            ip6 daddr fd00:20::10
            ip6 daddr @addresses-ip6
            ip6 daddr . meta l4proto . th sport @services-ip6
            ip6 daddr . meta l4proto . th dport @services-ip6
            ct original ip6 saddr @addresses-ip6
            ct reply ip6 saddr @ranges-ip6
            ip6 saddr & 8000:: == @addresses-ip6
            ip6 saddr & fff0:: == @addresses-ip6
            ip6 saddr & ffff:ff00:: == @addresses-ip6
            ip6 saddr & ffff:fffe:: == @addresses-ip6
            ct original ip6 saddr & ffff:ff00:: == @addresses-ip6
            ct reply ip6 saddr & ff80:: == @addresses-ip6
            meta l4proto . th sport @ports
            tcp sport 80
            udp sport 80
            sctp sport 80
            udp sport 1000-2000
            udp sport 1-65535
            meta l4proto . th dport @ports
            tcp dport 80
            udp dport 80
            sctp dport 80
            udp dport 1000-2000
            udp dport 1-65535
            meta l4proto tcp
            meta l4proto udp
            meta l4proto sctp
            icmpv6 type nd-router-solicit icmpv6 code no-route ip6 hoplimit 255
            icmpv6 type nd-router-advert icmpv6 code no-route ip6 hoplimit 255
            icmpv6 type nd-neighbor-solicit icmpv6 code no-route ip6 hoplimit 255
            icmpv6 type nd-neighbor-advert icmpv6 code no-route ip6 hoplimit 255
            icmpv6 type nd-redirect icmpv6 code no-route ip6 hoplimit 255
            icmpv6 type mld-listener-query
            icmpv6 type mld-listener-report
            icmpv6 type mld-listener-done
            icmpv6 type mld2-listener-report
            fib saddr type != local
            meta rtclassid != 3735928559
            meta protocol ip
            meta protocol arp
            meta protocol 8021q
            meta protocol ip6
            meta protocol 8021ad
            meta protocol 0x88cc
            meta protocol 0x0001"#]],
    );
}

#[test]
fn rules() {
    let all = [
        accept(&[]),
        deny(&[Match::Nfproto(V4)], "net1-in-denied"),
        rule(&[common::ORIGINAL], None, Verdict::Goto(name("net1-in"))),
        rule(&[], Some(name("c")), Verdict::Jump(name("net1-in"))),
    ];
    let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
    check(
        &shown.join("\n"),
        &expect![[r#"
        accept
        meta nfproto ipv4 counter name "net1-in-denied" drop
        ct direction original goto net1-in
        counter name "c" jump net1-in"#]],
    );
}

#[test]
fn operations() {
    let family = TableFamily::Inet;
    let chain = || name("net1-in");
    let elements = vec![common::address("10.20.1.11"), common::address("10.20.1.12")];
    let mut ops = replacement(Some(&ruleset(
        table(
            &["net1-in-denied"],
            vec![("net1-in-any-net-ip", set(SetKind::Ranges(V4), &[]))],
            [
                ("arrive", base(Hook::Prerouting, -160, vec![])),
                ("net1-in", regular(vec![deny(&[], "net1-in-denied")])),
            ],
        ),
        table(
            &[],
            vec![],
            [(
                "net1-backstop",
                base(Hook::Egress(common::interface("net1")), 0, vec![]),
            )],
        ),
    )));
    let set = || name("net1-in-any-ip");
    let kind = SetKind::Addresses(V4);
    ops.extend([
        Op::AddElements {
            family,
            set: set(),
            kind,
            elements: elements.clone(),
        },
        Op::DelElements {
            family,
            set: set(),
            kind,
            elements,
        },
        Op::FlushChain { family, name: chain() },
        Op::DelChain { family, name: chain() },
        Op::DelSet { family, name: set() },
        Op::DelCounter {
            family,
            name: name("net1-in-denied"),
        },
    ]);
    check(
        &text::script(&ops),
        &expect![[r#"
        add table inet ringfence { comment "ringfence 0b1c2d3e-0000-4000-8000-000000000001"; }
        delete table inet ringfence
        add table inet ringfence { comment "ringfence 0b1c2d3e-0000-4000-8000-000000000001"; }
        add counter inet ringfence net1-in-denied
        add set inet ringfence net1-in-any-net-ip { type ipv4_addr; flags interval; }
        add chain inet ringfence arrive { type filter hook prerouting priority mangle - 10; policy accept; }
        add chain inet ringfence net1-in
        add rule inet ringfence net1-in counter name "net1-in-denied" drop
        add table netdev ringfence { comment "ringfence 0b1c2d3e-0000-4000-8000-000000000001"; }
        delete table netdev ringfence
        add table netdev ringfence { comment "ringfence 0b1c2d3e-0000-4000-8000-000000000001"; }
        add chain netdev ringfence net1-backstop { type filter hook egress device "net1" priority filter; policy accept; }
        add element inet ringfence net1-in-any-ip { 10.20.1.11, 10.20.1.12 }
        delete element inet ringfence net1-in-any-ip { 10.20.1.11, 10.20.1.12 }
        flush chain inet ringfence net1-in
        delete chain inet ringfence net1-in
        delete set inet ringfence net1-in-any-ip
        delete counter inet ringfence net1-in-denied
    "#]],
    );
}

/// Priorities as nft 1.0.6 prints them: by a name that belongs to the hook, up to 10 away from it.
#[test]
fn priorities() {
    let egress = || Hook::Egress(common::interface("net1"));
    let shown = |hook: Hook, priority| {
        let family = if matches!(hook, Hook::Egress(_)) {
            TableFamily::Netdev
        } else {
            TableFamily::Inet
        };
        let text = Op::AddChain {
            family,
            name: name("c"),
            base: base(hook, priority, vec![]).base,
        }
        .to_string();
        let (_, rest) = text.split_once(" priority ").unwrap();
        rest.split(';').next().unwrap().to_owned()
    };
    for (hook, priority, expected) in [
        (Hook::Prerouting, -311, "-311"),
        (Hook::Prerouting, -310, "raw - 10"),
        (Hook::Prerouting, -300, "raw"),
        (Hook::Prerouting, -160, "mangle - 10"),
        (Hook::Prerouting, -149, "mangle + 1"),
        (Hook::Prerouting, -100, "dstnat"),
        (Hook::Prerouting, -89, "-89"),
        (Hook::Prerouting, 0, "filter"),
        (Hook::Prerouting, 60, "security + 10"),
        (Hook::Prerouting, 100, "100"),
        (Hook::Output, -160, "mangle - 10"),
        (Hook::Output, -100, "-100"),
        (Hook::Postrouting, 110, "srcnat + 10"),
        (Hook::Postrouting, -100, "-100"),
        (egress(), 0, "filter"),
        (egress(), -10, "filter - 10"),
        (egress(), 50, "50"),
        (egress(), -300, "-300"),
    ] {
        assert_eq!(shown(hook.clone(), priority), expected, "{hook} {priority}");
    }
}

/// A listing as nft may give it: other order, values of counters, handles, owner, numbers instead of names.
#[test]
fn a_listing_is_brought_into_the_order_of_a_ruleset() {
    let listing = r#"
table netdev ringfence { # handle 9
	flags owner
	chain net1-backstop { # handle 1
		type filter hook egress device "net1" priority filter; policy accept;
		meta rtclassid != 0xdeadbeef accept # handle 2
	}
}
table inet ringfence { # progname ringfence
	comment "ringfence 0b1c#2d3e"
	flags owner
	chain net1-in {
		icmpv6 type nd-neighbor-solicit icmpv6 code 0 ip6 hoplimit 255 accept
		meta l4proto 6 ip6 saddr ::1.2.3.4 accept
		meta l4proto icmpv6 ct state related accept
		counter name "net1-in-denied" drop # handle 12
	}

	chain arrive {
		type filter hook prerouting priority mangle - 10; policy accept;
		iifname "a#b" goto net1-in
	}
	set net1-in-ip {
		type ipv4_addr . inet_proto . inet_service
		elements = { 10.20.1.12 . 17 . 53, 10.20.1.2 . sctp . 53,
			     10.20.1.11 . tcp . 80 }
	}

	set net1-in-any-net-ip6 {
		type ipv6_addr
		flags interval
		elements = { fd00::/8, ::1.2.3.4,
			     2001:db8::1-2001:db8::5, ::0.1.0.0/112 }
	}

	set net1-in-any-ip {
		type ipv4_addr
		elements = { 10.0.0.20, 10.0.0.3, 10.0.0.1,
			     foreign . element }
	}
	counter net1-in-denied {
		packets 3 bytes 180
	}
}
"#;
    check(
        &text::normalise(listing),
        &expect![[r#"
        table inet ringfence {
        	comment "ringfence 0b1c#2d3e"
        	counter net1-in-denied {
        	}

        	set net1-in-any-ip {
        		type ipv4_addr
        		elements = { 10.0.0.1, 10.0.0.3,
        			     10.0.0.20, foreign . element }
        	}

        	set net1-in-any-net-ip6 {
        		type ipv6_addr
        		flags interval
        		elements = { ::1:0/112,
        			     ::102:304,
        			     2001:db8::1-2001:db8::5,
        			     fd00::/8 }
        	}

        	set net1-in-ip {
        		type ipv4_addr . inet_proto . inet_service
        		elements = { 10.20.1.2 . sctp . 53,
        			     10.20.1.11 . tcp . 80,
        			     10.20.1.12 . udp . 53 }
        	}

        	chain arrive {
        		type filter hook prerouting priority mangle - 10; policy accept;
        		iifname "a#b" goto net1-in
        	}

        	chain net1-in {
        		icmpv6 type nd-neighbor-solicit icmpv6 code no-route ip6 hoplimit 255 accept
        		meta l4proto tcp ip6 saddr ::102:304 accept
        		meta l4proto ipv6-icmp ct state related accept
        		counter name "net1-in-denied" drop
        	}
        }
        table netdev ringfence {
        	chain net1-backstop {
        		type filter hook egress device "net1" priority filter; policy accept;
        		meta rtclassid != 3735928559 accept
        	}
        }
    "#]],
    );
}

#[test]
fn tables_have_a_text_of_their_own() {
    let mut ruleset = example();
    let both = TableFamily::BOTH.map(|family| ruleset.table_text(family));
    assert_eq!(both.concat(), ruleset.to_string());
    assert!(both[1].starts_with("table netdev ringfence {\n"), "{}", both[1]);
    ruleset.netdev.chains.clear();
    assert_eq!(ruleset.table_text(TableFamily::Netdev), "");
}

#[test]
fn what_a_ruleset_prints_is_in_order_already() {
    let text = example().to_string();
    assert_eq!(text::normalise(&text), text);
}

#[test]
fn no_name_breaks_out_of_the_text() {
    for (text, expected) in [
        ("net1-in", "net1-in"),
        ("a b\"c", "a_b_c"),
        ("0", "x0"),
        ("", "x"),
        ("in {\n}", "in____"),
        ("\u{fc}", "x__"),
    ] {
        assert_eq!(Name::new(text).as_str(), expected, "{text:?}");
    }
    let long = "n".repeat(500);
    assert!(Name::new(&long).as_str().len() <= 128);
}
