//! Everything that a ruleset can say, in the kernel and back.

mod common;

use std::collections::BTreeMap;

use common::vocabulary::{accept, conditions, endings, everything, name, netdev_conditions, sets, udp};
use common::{assert_listed, bytecode, listing, make_net1, nft_load, reopen, scratch};
use ringfence_netlink::{Enforcer, Outcome, probe};
use ringfence_ruleset::{Chain, KernelFeatures, Rule, Ruleset, Side, Table};

/// Enforces it, compares nft's listing, and reads it with another socket after the first has closed.
#[track_caller]
fn check(ruleset: &Ruleset) {
    ringfence_ruleset::check(ruleset).expect("a ruleset without faults");
    let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
    match enforcer.enforce(Some(ruleset)).unwrap() {
        Outcome::Ruleset { repaired: None, .. } => {}
        other => panic!("{other:?}"),
    }
    assert_listed(Some(ruleset));
    assert_eq!(enforcer.current(), Some(ruleset));
    drop(enforcer);
    let mut adopted = reopen();
    assert_eq!(adopted.unknown(), None);
    assert_eq!(adopted.current(), Some(ruleset));
    assert_eq!(adopted.enforce(Some(ruleset)).unwrap(), Outcome::Unchanged);
}

/// One rule in a chain of table inet or netdev.
fn with_rule(rule: Rule, netdev: bool) -> Ruleset {
    let mut ruleset = everything("net1");
    let (table, chain) = if netdev {
        (&mut ruleset.netdev, "net1-backstop")
    } else {
        (&mut ruleset.inet, "net1-in")
    };
    table.chains.get_mut(&name(chain)).unwrap().rules = vec![rule];
    ruleset
}

#[test]
fn everything_at_once_is_listed_and_read_back_as_it_was_written() {
    scratch(|| {
        make_net1();
        check(&everything("net1"));
    });
}

#[test]
fn each_rule_is_listed_and_read_back_as_it_was_written() {
    let inet = conditions().into_iter().map(accept).chain(endings());
    let netdev = netdev_conditions().into_iter().map(accept);
    let all = inet.map(|rule| (rule, false)).chain(netdev.map(|rule| (rule, true)));
    scratch(|| {
        make_net1();
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        for (rule, netdev) in all {
            let ruleset = with_rule(rule, netdev);
            enforcer.enforce(Some(&ruleset)).unwrap();
            assert_listed(Some(&ruleset));
        }
    });
}

/// nft would read both ports at once; the kernel's answer is the same, and so is what it lists.
#[test]
fn s123_two_ports_in_the_netdev_table_are_listed_and_read_back() {
    scratch(|| {
        make_net1();
        let dhcp = vec![udp(Side::Source, 68), udp(Side::Destination, 67)];
        check(&with_rule(accept(dhcp), true));
    });
}

#[test]
fn the_bytecode_is_what_nft_generates_for_the_text() {
    let ruleset = everything("net1");
    let ours = scratch(|| {
        make_net1();
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&ruleset)).unwrap();
        bytecode()
    });
    let theirs = scratch(|| {
        make_net1();
        nft_load(&ruleset.to_string());
        bytecode()
    });
    assert!(ours.len() > 200, "nft has listed bytecode");
    // nft makes base chains and others in the order of the text, the transaction by name.
    assert_eq!(by_rule(&ours), by_rule(&theirs));
}

/// Rules by chain, each chain's in order.
fn by_rule(lines: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut chain = String::new();
    for line in lines {
        if line.starts_with('[') {
            chains.entry(chain.clone()).or_default().push(line.clone());
        } else {
            chain.clone_from(line);
            chains.entry(chain.clone()).or_default().push("rule".to_owned());
        }
    }
    chains
}

#[test]
fn a_text_that_nft_has_loaded_is_understood() {
    let ruleset = everything("net1");
    scratch(|| {
        make_net1();
        nft_load(&ruleset.to_string());
        let features = KernelFeatures {
            owner_persist: false,
            ..KernelFeatures::ALL
        };
        let mut enforcer = Enforcer::open(features).unwrap();
        assert_eq!(enforcer.unknown(), None);
        assert_eq!(enforcer.current(), Some(&ruleset));
        assert_eq!(enforcer.enforce(Some(&ruleset)).unwrap(), Outcome::Unchanged);
    });
}

#[test]
fn empty_tables_and_their_removal() {
    scratch(|| {
        let mut ruleset = Ruleset {
            comment: "ringfence x".into(),
            inet: Table::default(),
            netdev: Table::default(),
        };
        check(&ruleset);
        let mut enforcer = reopen();
        ruleset.inet.sets = sets();
        ruleset.inet.chains = BTreeMap::from([(name("net1-in"), Chain::default())]).into();
        assert!(matches!(
            enforcer.enforce(Some(&ruleset)).unwrap(),
            Outcome::Ruleset { .. }
        ));
        assert_listed(Some(&ruleset));
        assert!(matches!(enforcer.enforce(None).unwrap(), Outcome::Ruleset { .. }));
        assert_listed(None);
        assert_eq!(enforcer.current(), None);
        assert_eq!(enforcer.enforce(None).unwrap(), Outcome::Unchanged);
    });
}

#[test]
fn the_probe_leaves_nothing_behind() {
    scratch(|| {
        let features = probe().unwrap();
        assert_eq!(listing(), "");
        assert_eq!(
            features,
            KernelFeatures::ALL,
            "the kernels that Ringfence is tested on have all of it"
        );
    });
}
