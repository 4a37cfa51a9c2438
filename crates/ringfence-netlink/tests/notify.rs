//! What the kernel tells about others' changes, and that ours are not told.

mod common;

use common::vocabulary::everything;
use common::{make_net1, nft, nft_load, run, scratch};
use ringfence_netlink::{Enforcer, News, Notifications};
use ringfence_ruleset::KernelFeatures;

const QUIET: News = News {
    tables: false,
    links: false,
    filters: false,
};
const TABLES: News = News { tables: true, ..QUIET };

/// Everything that is in the namespace, with an enforcer whose tables anybody may change.
fn watched() -> (Notifications, Enforcer) {
    make_net1();
    let features = KernelFeatures {
        owner_persist: false,
        ..KernelFeatures::ALL
    };
    let mut notifications = Notifications::open().unwrap();
    let mut enforcer = Enforcer::open(features).unwrap();
    notifications.ignore(enforcer.port()).unwrap();
    enforcer.enforce(Some(&everything("net1"))).unwrap();
    (notifications, enforcer)
}

/// Of tables and filters. The interface that the namespace was made with may still be coming up: its IPv6 address is told
/// of when the kernel has looked for duplicates.
#[track_caller]
fn check(what: &str, notifications: &Notifications, expected: News) {
    let mut buffer = Vec::new();
    let mut look = || News {
        links: false,
        ..notifications.look(&mut buffer)
    };
    assert_eq!(look(), expected, "{what}");
    assert_eq!(look(), QUIET, "{what}: it is told once");
}

#[test]
fn s141_changes_of_others_are_told_and_ours_are_not() {
    scratch(|| {
        let (notifications, mut enforcer) = watched();
        check("our first ruleset", &notifications, QUIET);
        nft_load("table inet other {\n chain ringfence {\n }\n}\n");
        nft(&["add", "rule", "inet", "other", "ringfence", "accept"]);
        check("another table", &notifications, QUIET);
        for change in [
            "add rule inet ringfence net1-in accept",
            "add element inet ringfence addresses-ip { 192.0.2.77 }",
            "flush chain inet ringfence net1-in",
            "delete table netdev ringfence",
            "flush ruleset",
        ] {
            nft_load(change);
            check(change, &notifications, TABLES);
            assert!(enforcer.verify().unwrap().is_some(), "{change}");
            enforcer.enforce(Some(&everything("net1"))).unwrap();
            check("our repair", &notifications, QUIET);
        }
        // Ours among others' in one batch.
        nft_load("table inet other {\n chain ringfence {\n }\n}\nadd chain inet ringfence mine\n");
        check("a batch of both", &notifications, TABLES);
    });
}

#[test]
fn interfaces_and_addresses_are_told() {
    scratch(|| {
        let (notifications, _enforcer) = watched();
        // The interface that the namespace was made with may still be coming up.
        notifications.look(&mut Vec::new());
        for change in [
            "address add 192.0.2.5/24 dev net1",
            "address add 2001:db8::5/64 dev net1 nodad",
            "address del 192.0.2.5/24 dev net1",
            "link set dev net1 down",
            "link set dev net1 name net7",
            "link add net9 type veth peer name net10",
            "link del net9",
        ] {
            let words: Vec<&str> = change.split(' ').collect();
            run("ip", &words);
            // The kernel tells of IPv6 addresses when it has looked for duplicates, a moment later.
            let begun = std::time::Instant::now();
            while !notifications.look(&mut Vec::new()).links {
                assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{change}");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    });
}

#[test]
fn filters_of_traffic_control_are_told() {
    scratch(|| {
        let (notifications, _enforcer) = watched();
        notifications.look(&mut Vec::new());
        run("tc", &["qdisc", "add", "dev", "lo", "clsact"]);
        assert!(!notifications.look(&mut Vec::new()).filters);
        let filter =
            "filter add dev lo egress protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev net1";
        let words: Vec<&str> = filter.split(' ').collect();
        run("tc", &words);
        assert!(notifications.look(&mut Vec::new()).filters);
    });
}

#[test]
fn what_was_lost_counts_as_news() {
    scratch(|| {
        let (notifications, _enforcer) = watched();
        let elements: Vec<String> = (0..20_000_u32)
            .map(|number| std::net::Ipv4Addr::from(0x0a00_0000 + number))
            .map(|address| format!("add element inet other s {{ {address} }}\n"))
            .collect();
        let text = format!(
            "table inet other {{\n set s {{\n  type ipv4_addr\n }}\n}}\n{}",
            elements.concat()
        );
        nft_load(&text);
        let mut buffer = Vec::new();
        assert!(notifications.look(&mut buffer).tables, "the buffer has overrun");
        while notifications.look(&mut buffer).tables {}
        check("afterwards", &notifications, QUIET);
        nft_load("add rule inet ringfence net1-in accept");
        check("a change after the loss", &notifications, TABLES);
    });
}
