//! Changes: elements only where only members change, everything else read back; other people's changes noticed.

mod common;

use std::collections::BTreeSet;

use common::vocabulary::{accept, address, everything, name, set_name};
use common::{assert_listed, make_net1, nft, nft_load, reopen, scratch};
use imbl::OrdSet;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use ringfence_model::{AddressRange, Family, PortRange, Protocol, RangeSet};
use ringfence_netlink::{Drift, DriftReason, Enforcer, Error, Outcome};
use ringfence_ruleset::{Chain, Element, KernelFeatures, Match, Ruleset, Set, SetKind, Side, Table, TableFamily};

const SHARED: KernelFeatures = KernelFeatures {
    owner_persist: false,
    ..KernelFeatures::ALL
};

fn elements<'a>(ruleset: &'a mut Ruleset, set: &str) -> &'a mut OrdSet<Element> {
    &mut ruleset.inet.sets.get_mut(&name(set)).unwrap().elements
}

#[test]
fn s230_members_that_come_and_go_are_elements_only() {
    scratch(|| {
        make_net1();
        let mut wanted = everything("net1");
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&wanted)).unwrap();
        let mut step = |wanted: &Ruleset, added, removed| {
            let outcome = enforcer.enforce(Some(wanted)).unwrap();
            let repaired = None;
            assert_eq!(
                outcome,
                Outcome::Elements {
                    added,
                    removed,
                    repaired
                }
            );
            assert_eq!(enforcer.current(), Some(wanted));
            assert_listed(Some(wanted));
            assert_eq!(enforcer.enforce(Some(wanted)).unwrap(), Outcome::Unchanged);
        };
        let new = Element::Address(address("10.20.1.99"));
        elements(&mut wanted, "addresses-ip").insert(new);
        step(&wanted, 1, 0);
        elements(&mut wanted, "addresses-ip").remove(&new);
        step(&wanted, 0, 1);
        for set in ["services-ip", "services-ip6", "addresses-ip6", "ports"] {
            let before = elements(&mut wanted, set).clone();
            *elements(&mut wanted, set) = OrdSet::new();
            step(&wanted, 0, before.len());
            *elements(&mut wanted, set) = before.clone();
            step(&wanted, before.len(), 0);
        }
        // Both in one transaction.
        let address = address("10.20.1.77");
        elements(&mut wanted, "addresses-ip").insert(Element::Address(address));
        elements(&mut wanted, "services-ip").insert(Element::Service(address, Protocol::Udp, 53));
        elements(&mut wanted, "services-ip6").clear();
        step(&wanted, 2, 1);
    });
}

#[test]
fn s142_structural_changes_keep_sets_and_counters() {
    scratch(|| {
        make_net1();
        let first = everything("net1");
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&first)).unwrap();
        let mut second = first.clone();
        second.inet.sets.remove(&name("ranges-ip6"));
        let unwanted = |rule: &ringfence_ruleset::Rule| rule.to_string().contains("@ranges-ip6");
        let judge = second.inet.chains.get_mut(&name("net1-in")).unwrap();
        judge.rules.retain(|rule| !unwanted(rule));
        second.inet.counters.insert(name("net2-in-denied"));
        second.inet.chains.insert(name("net2-in"), Chain::default());
        elements(&mut second, "addresses-ip").insert(Element::Address(address("10.20.1.99")));
        for wanted in [&second, &first, &second] {
            let outcome = enforcer.enforce(Some(wanted)).unwrap();
            assert!(
                matches!(outcome, Outcome::Ruleset { repaired: None, .. }),
                "{outcome:?}"
            );
            assert_listed(Some(wanted));
            assert_eq!(enforcer.current(), Some(wanted));
        }
        // Another kind under the same name: the table is made anew, in one transaction too.
        let mut third = second.clone();
        let kind = SetKind::Ports;
        let elements = OrdSet::new();
        third.inet.sets.insert(name("unused"), Set { kind, elements });
        enforcer.enforce(Some(&third)).unwrap();
        third.inet.sets.get_mut(&name("unused")).unwrap().kind = SetKind::Ranges(Family::V6);
        enforcer.enforce(Some(&third)).unwrap();
        assert_listed(Some(&third));
        // Another comment: both tables.
        third.comment = "ringfence another".into();
        enforcer.enforce(Some(&third)).unwrap();
        assert_listed(Some(&third));
    });
}

#[test]
fn a_wording_that_the_kernel_cannot_tell_apart_is_no_difference() {
    scratch(|| {
        let mut wanted = only_sets(Vec::new());
        // 128 characters, of which the kernel gets 120.
        wanted.comment = "x".repeat(128).into();
        let rules = [
            vec![
                Match::Nfproto(Family::V4),
                Match::Address(Side::Source, address("10.20.1.1")),
            ],
            vec![Match::Ports(Side::Source, PortRange::whole(Protocol::Udp))],
        ];
        let rules = rules.into_iter().map(accept).collect();
        wanted.inet.chains.insert(name("x"), Chain { base: None, rules });
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&wanted)).unwrap();
        assert_eq!(enforcer.current(), Some(&wanted));
        drop(enforcer);
        let mut adopted = reopen();
        assert_eq!(adopted.enforce(Some(&wanted)).unwrap(), Outcome::Unchanged);
        assert_eq!(adopted.verify().unwrap(), None);
    });
}

/// A table inet with these sets and nothing else.
fn only_sets(sets: Vec<(SetKind, OrdSet<Element>)>) -> Ruleset {
    let sets = sets
        .into_iter()
        .map(|(kind, elements)| (set_name(kind), Set { kind, elements }));
    Ruleset {
        comment: "ringfence x".into(),
        inet: Table {
            sets: sets.collect(),
            ..Table::default()
        },
        netdev: Table::default(),
    }
}

#[test]
fn a_hundred_thousand_elements_of_two_sets_in_one_transaction() {
    let count = 100_000;
    let services: OrdSet<Element> = (0..count)
        .map(|n| {
            let address = std::net::Ipv6Addr::from_bits((0xfd_u128 << 120) | n);
            Element::Service(address.into(), Protocol::Tcp, 80)
        })
        .collect();
    let addresses: OrdSet<Element> = (0..count)
        .map(|n| Element::Address(std::net::Ipv6Addr::from_bits((0xfd_u128 << 120) | n).into()))
        .collect();
    let kinds = [SetKind::Services(Family::V6), SetKind::Addresses(Family::V6)];
    let empty = only_sets(kinds.map(|kind| (kind, OrdSet::new())).to_vec());
    let full = only_sets(vec![(kinds[0], services.clone()), (kinds[1], addresses.clone())]);
    let total = services.len() + addresses.len();
    scratch(|| {
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        // As a part of the first ruleset, which is read back.
        enforcer.enforce(Some(&full)).unwrap();
        assert_eq!(enforcer.current(), Some(&full));
        // And as a change of elements, which is only acknowledged; so read it back here.
        let emptied = Outcome::Elements {
            added: 0,
            removed: total,
            repaired: None,
        };
        assert_eq!(enforcer.enforce(Some(&empty)).unwrap(), emptied);
        let filled = Outcome::Elements {
            added: total,
            removed: 0,
            repaired: None,
        };
        assert_eq!(enforcer.enforce(Some(&full)).unwrap(), filled);
        drop(enforcer);
        let adopted = reopen();
        assert!(adopted.current() == Some(&full), "what was read differs");
    });
}

fn range_sets(family: Family) -> impl Strategy<Value = RangeSet> {
    // Few bits at both ends of the family and in the middle, so that ranges meet, overlap and touch the edges.
    let bits = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let point = (0..3_u8, 0..24_u128).prop_map(move |(place, offset)| match place {
        0 => offset,
        1 => (1_u128 << (bits - 1)) - 12 + offset,
        _ => (u128::MAX >> (128 - bits)) - offset,
    });
    let bound = move |bits: u128| match family {
        Family::V4 => std::net::Ipv4Addr::from_bits(u32::try_from(bits).unwrap()).into(),
        Family::V6 => std::net::Ipv6Addr::from_bits(bits).into(),
    };
    prop::collection::vec((point.clone(), point), 0..8).prop_map(move |pairs| {
        RangeSet::union_of(
            pairs
                .into_iter()
                .map(|(a, b)| AddressRange::new(bound(a.min(b)), bound(a.max(b))).unwrap()),
        )
    })
}

/// Random sequences of range sets, each step one transaction of elements, read back after each.
#[test]
fn s069_ranges_are_replaced_in_every_order() {
    for family in Family::BOTH {
        let config = Config {
            cases: 60,
            failure_persistence: None,
            ..Config::default()
        };
        // The same sequences on every run.
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let sequences = prop::collection::vec(range_sets(family), 1..8);
        let outcome = runner.run(&sequences, |sequence| {
            scratch(|| follow(family, &sequence));
            Ok(())
        });
        outcome.unwrap();
    }
}

fn follow(family: Family, sequence: &[RangeSet]) {
    let kind = SetKind::Ranges(family);
    let wanted = |ranges: &RangeSet| {
        let elements = ranges.ranges().iter().copied().map(Element::Range).collect();
        only_sets(vec![(kind, elements)])
    };
    let mut enforcer = Enforcer::open(SHARED).unwrap();
    enforcer.enforce(Some(&wanted(&RangeSet::default()))).unwrap();
    for ranges in sequence {
        let wanted = wanted(ranges);
        let outcome = enforcer.enforce(Some(&wanted)).unwrap();
        assert!(
            matches!(outcome, Outcome::Elements { .. } | Outcome::Unchanged),
            "{outcome:?}"
        );
        // Without owners a second socket may look.
        let read = Enforcer::open(SHARED).unwrap();
        assert_eq!(read.unknown(), None);
        assert_eq!(read.current(), Some(&wanted));
    }
}

/// Somebody changes the tables, then a change of members is due.
#[track_caller]
fn drifts(command: &[&str], reason: DriftReason, detail: &str) {
    scratch(|| {
        make_net1();
        let mut wanted = everything("net1");
        let mut enforcer = Enforcer::open(SHARED).unwrap();
        enforcer.enforce(Some(&wanted)).unwrap();
        let expected = Drift {
            reason,
            detail: detail.to_owned(),
        };

        // Noticed by the transaction itself.
        nft(command);
        elements(&mut wanted, "addresses-ip").insert(Element::Address(address("10.20.1.99")));
        let outcome = enforcer.enforce(Some(&wanted)).unwrap();
        assert_eq!(outcome.repaired(), Some(&expected));
        assert_listed(Some(&wanted));
        assert_eq!(enforcer.verify().unwrap(), None);

        // Noticed by looking, and mended by the next transaction although nothing else is due.
        nft(command);
        assert_eq!(enforcer.verify().unwrap(), Some(expected));
        assert!(!matches!(enforcer.enforce(Some(&wanted)).unwrap(), Outcome::Unchanged));
        assert_listed(Some(&wanted));
        assert_eq!(enforcer.verify().unwrap(), None);
    });
}

#[test]
fn s141_a_flush_is_noticed_and_repaired() {
    drifts(
        &["flush", "ruleset"],
        DriftReason::Missing,
        "table inet ringfence is missing",
    );
    drifts(
        &["delete", "table", "netdev", "ringfence"],
        DriftReason::Missing,
        "table netdev ringfence is missing",
    );
    drifts(
        &["flush", "chain", "inet", "ringfence", "net1-in-related"],
        DriftReason::Changed,
        "chain net1-in-related has 0 rules and not 1 in table inet ringfence",
    );
}

#[test]
fn s141_additions_are_noticed_and_repaired() {
    drifts(
        &["insert", "rule", "inet", "ringfence", "net1-in-related", "accept"],
        DriftReason::Changed,
        "chain net1-in-related has rule `accept` in table inet ringfence",
    );
    drifts(
        &["add", "element", "inet", "ringfence", "addresses-ip", "{ 192.0.2.1 }"],
        DriftReason::Changed,
        "set addresses-ip has 192.0.2.1 in table inet ringfence",
    );
    drifts(
        &[
            "delete",
            "element",
            "inet",
            "ringfence",
            "addresses-ip",
            "{ 10.20.1.11 }",
        ],
        DriftReason::Changed,
        "set addresses-ip lacks 10.20.1.11 in table inet ringfence",
    );
    drifts(
        &["add", "chain", "inet", "ringfence", "mine"],
        DriftReason::Changed,
        "chain mine exists in table inet ringfence",
    );
    drifts(
        &["add", "counter", "inet", "ringfence", "mine"],
        DriftReason::Changed,
        "counter mine exists in table inet ringfence",
    );
}

#[test]
fn s141_what_is_not_ours_is_replaced_and_never_ignored() {
    let table = ["inet", "ringfence"];
    let cases: [(&[&str], &str); 9] = [
        (
            &[
                "insert",
                "rule",
                "inet",
                "ringfence",
                "net1-in",
                "tcp",
                "dport",
                "!=",
                "80",
                "accept",
            ],
            "a rule with Payload { base: 2, offset: 2, length: 2, register: 1 } in chain net1-in in table inet ringfence",
        ),
        (
            &[
                "insert",
                "rule",
                "inet",
                "ringfence",
                "net1-in",
                "accept",
                "comment",
                "x",
            ],
            "a rule with attribute 7 in table inet ringfence",
        ),
        (
            &[
                "insert",
                "rule",
                "inet",
                "ringfence",
                "net1-in",
                "limit",
                "rate",
                "1/second",
                "accept",
            ],
            "expression \"limit\" in table inet ringfence",
        ),
        (
            &[
                "insert",
                "rule",
                "inet",
                "ringfence",
                "net1-in",
                "ip",
                "saddr",
                "!=",
                "@addresses-ip",
                "accept",
            ],
            "value of attribute 5 of expression \"lookup\" in table inet ringfence",
        ),
        (
            &["add", "chain", "inet", "ringfence", "arrive", "{ policy drop; }"],
            "a chain with policy drop in table inet ringfence",
        ),
        (
            &["add", "set", "inet", "ringfence", "full", "{ type ipv4_addr; size 1; }"],
            "a set with attribute 9 in table inet ringfence",
        ),
        (
            &[
                "add",
                "set",
                "inet",
                "ringfence",
                "full",
                "{ type ipv4_addr; flags timeout; }",
            ],
            "set full of type 0x7 with flags 16 in table inet ringfence",
        ),
        (
            &["add", "quota", "inet", "ringfence", "x", "over", "1", "mbytes"],
            "an object of type 2 in table inet ringfence",
        ),
        (
            &["add", "table", "inet", "ringfence", "{ flags dormant; }"],
            "flags 1 in table inet ringfence",
        ),
    ];
    for (command, detail) in cases {
        assert!(command.windows(2).any(|pair| pair == table));
        drifts(command, DriftReason::Unknown, detail);
    }
}

#[test]
fn changes_to_other_tables_are_no_drift() {
    scratch(|| {
        let mut wanted = only_sets(vec![(SetKind::Addresses(Family::V4), OrdSet::new())]);
        let mut enforcer = Enforcer::open(SHARED).unwrap();
        enforcer.enforce(Some(&wanted)).unwrap();
        for table in ["a", "b", "c"] {
            nft(&["add", "table", "inet", table]);
            elements(&mut wanted, "addresses-ip").insert(Element::Address(address("10.20.1.99")));
            let outcome = enforcer.enforce(Some(&wanted)).unwrap();
            let expected = Outcome::Elements {
                added: 1,
                removed: 0,
                repaired: None,
            };
            assert_eq!(outcome, expected);
            elements(&mut wanted, "addresses-ip").clear();
            enforcer.enforce(Some(&wanted)).unwrap();
        }
        nft(&["add", "table", "inet", "d"]);
        assert_eq!(enforcer.verify().unwrap(), None);
    });
}

#[test]
fn a_netdev_table_alone_is_unknown_and_replaced() {
    scratch(|| {
        nft_load("table netdev ringfence {\n}\n");
        let mut enforcer = Enforcer::open(SHARED).unwrap();
        assert_eq!(
            enforcer.unknown(),
            Some("table netdev ringfence without table inet ringfence")
        );
        enforcer.enforce(None).unwrap();
        assert_listed(None);
    });
}

#[test]
fn somebody_who_never_stops_changing_nftables_delays_nothing() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let kind = SetKind::Addresses(Family::V4);
    scratch(|| {
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        let mut wanted = only_sets(vec![(kind, OrdSet::new())]);
        enforcer.enforce(Some(&wanted)).unwrap();
        std::thread::scope(|scope| {
            // In the same namespace, which threads inherit; through another table of its own.
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    nft_load("add table inet noise\ndelete table inet noise\n");
                }
            });
            let mut refused = BTreeSet::new();
            for n in 0..200_u32 {
                let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 | n);
                elements(&mut wanted, "addresses-ip").insert(Element::Address(address.into()));
                match enforcer.enforce(Some(&wanted)) {
                    Ok(outcome) => assert_eq!(outcome.repaired(), None),
                    Err(error @ Error::Busy { .. }) => drop(refused.insert(error.to_string())),
                    Err(error) => panic!("{error}"),
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(refused, BTreeSet::new());
        });
        drop(enforcer);
        let adopted = reopen();
        assert_eq!(adopted.current(), Some(&wanted));
    });
}

#[test]
fn counters_of_both_tables_are_told_apart() {
    scratch(|| {
        make_net1();
        let mut wanted = everything("net1");
        wanted.inet.counters.insert(name("net1-out-denied"));
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&wanted)).unwrap();
        let keys: Vec<_> = enforcer.counters().unwrap().into_keys().collect();
        let expected = [
            (TableFamily::Inet, name("net1-in-denied")),
            (TableFamily::Inet, name("net1-out-denied")),
            (TableFamily::Inet, name("unexplained-denied")),
            (TableFamily::Netdev, name("net1-out-denied")),
        ];
        assert_eq!(keys, expected);
    });
}
