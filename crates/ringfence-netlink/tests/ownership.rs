//! Tables that belong to the socket of the agent, and outlive it.

mod common;

use common::vocabulary::{everything, name};
use common::{assert_listed, make_net1, nft, nft_fails, nft_load, reopen, run, scratch};
use ringfence_netlink::{Count, Enforcer, Error, Outcome};
use ringfence_ruleset::{KernelFeatures, TableFamily};

#[test]
fn s141_nobody_else_can_flush_delete_or_add() {
    scratch(|| {
        make_net1();
        let ruleset = everything("net1");
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&ruleset)).unwrap();
        for command in [
            &["delete", "table", "inet", "ringfence"][..],
            &["delete", "table", "netdev", "ringfence"],
            &["flush", "table", "inet", "ringfence"],
            &["flush", "chain", "inet", "ringfence", "net1-in"],
            &["add", "rule", "inet", "ringfence", "net1-in", "accept"],
            &["add", "element", "inet", "ringfence", "addresses-ip", "{ 192.0.2.1 }"],
        ] {
            let complaint = nft_fails(command);
            assert!(
                complaint.contains("Operation not permitted"),
                "{command:?}: {complaint}"
            );
        }
        // This one succeeds and passes over tables that others own.
        nft(&["flush", "ruleset"]);
        assert_listed(Some(&ruleset));
        assert_eq!(enforcer.verify().unwrap(), None);
    });
}

#[test]
fn s139_a_living_owner_is_named_and_a_dead_one_succeeded() {
    scratch(|| {
        make_net1();
        let ruleset = everything("net1");
        let mut first = Enforcer::open(KernelFeatures::ALL).unwrap();
        first.enforce(Some(&ruleset)).unwrap();
        let error = Enforcer::open(KernelFeatures::ALL).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Owned {
                    family: TableFamily::Inet,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(
            error
                .to_string()
                .starts_with("table inet ringfence is owned by another process that is running"),
            "{error}"
        );
        // Also without the feature: such a table can never be changed by us.
        let features = KernelFeatures {
            owner_persist: false,
            ..KernelFeatures::ALL
        };
        assert!(matches!(Enforcer::open(features), Err(Error::Owned { .. })));
        drop(first);
        assert_listed(Some(&ruleset));
        let mut second = reopen();
        assert_eq!(second.current(), Some(&ruleset));
        assert_eq!(second.enforce(Some(&ruleset)).unwrap(), Outcome::Unchanged);
        let complaint = nft_fails(&["flush", "table", "inet", "ringfence"]);
        assert!(complaint.contains("Operation not permitted"), "{complaint}");
    });
}

#[test]
fn s141_an_owner_that_came_in_between_is_named() {
    scratch(|| {
        make_net1();
        let ruleset = everything("net1");
        let mut late = Enforcer::open(KernelFeatures::ALL).unwrap();
        let mut early = Enforcer::open(KernelFeatures::ALL).unwrap();
        early.enforce(Some(&ruleset)).unwrap();
        let error = late.enforce(Some(&ruleset)).unwrap_err();
        assert!(matches!(error, Error::Owned { .. }), "{error:?}");
        assert_listed(Some(&ruleset));
        assert_eq!(early.verify().unwrap(), None);
    });
}

#[test]
fn s139_tables_and_counters_outlive_the_agent() {
    scratch(|| {
        make_net1();
        // net1-out-denied of the backstop counts what is no IP stack's: an ARP request suffices, because this
        // ruleset's last rule counts everything.
        run("ip", &["address", "add", "10.20.1.10/24", "dev", "net1"]);
        let ruleset = everything("net1");
        let key = (TableFamily::Netdev, name("net1-out-denied"));
        let mut first = Enforcer::open(KernelFeatures::ALL).unwrap();
        first.enforce(Some(&ruleset)).unwrap();
        let _ = std::net::UdpSocket::bind("10.20.1.10:0")
            .unwrap()
            .send_to(b"x", "10.20.1.99:9");
        let before = first.counters().unwrap();
        assert!(before[&key].packets > 0, "{before:?}");
        assert_eq!(before[&(TableFamily::Inet, name("net1-in-denied"))], Count::default());
        assert_eq!(before.len(), 3);
        drop(first);
        let mut second = reopen();
        let mut changed = ruleset.clone();
        changed
            .netdev
            .chains
            .get_mut(&name("net1-backstop"))
            .unwrap()
            .rules
            .remove(0);
        second.enforce(Some(&changed)).unwrap();
        let after = second.counters().unwrap();
        assert!(after[&key].packets >= before[&key].packets, "{before:?} {after:?}");
    });
}

#[test]
fn a_table_that_cannot_be_owned_is_replaced_in_one_transaction() {
    scratch(|| {
        make_net1();
        let ruleset = everything("net1");
        nft_load(&ruleset.to_string());
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        assert_eq!(
            enforcer.unknown(),
            Some("table inet ringfence exists without the flags owner and persist")
        );
        assert!(matches!(
            enforcer.enforce(Some(&ruleset)).unwrap(),
            Outcome::Ruleset { repaired: None, .. }
        ));
        assert_listed(Some(&ruleset));
        nft_fails(&["flush", "table", "inet", "ringfence"]);
    });
}
