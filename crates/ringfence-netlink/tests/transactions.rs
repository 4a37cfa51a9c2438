//! How many transactions there are: one test alone in its program, because the number belongs to the process.

mod common;

use common::vocabulary::{address, everything, name};
use common::{make_net1, nft, scratch};
use ringfence_netlink::{Enforcer, Outcome, probe, transactions_sent};
use ringfence_ruleset::{Element, KernelFeatures, Ruleset, TableFamily};

/// Runs a step and gives the number of transactions that it sent.
fn sent<T>(step: impl FnOnce() -> T) -> (T, u64) {
    let before = transactions_sent();
    let result = step();
    (result, transactions_sent() - before)
}

#[test]
fn s142_s229_every_change_is_one_transaction_and_no_change_is_none() {
    scratch(|| {
        make_net1();
        assert_eq!(sent(|| probe().unwrap()).1, 5);

        let (enforcer, count) = sent(|| Enforcer::open(KernelFeatures::ALL).unwrap());
        assert_eq!(count, 0, "there is nothing to take over");
        let mut enforcer = enforcer;
        let mut enforce = |wanted: Option<&Ruleset>, expected: u64| {
            let (outcome, count) = sent(|| enforcer.enforce(wanted).unwrap());
            assert_eq!(count, expected, "{outcome:?}");
            assert_eq!(outcome == Outcome::Unchanged, expected == 0, "{outcome:?}");
        };

        let first = everything("net1");
        let mut more_members = first.clone();
        let members = &mut more_members.inet.sets.get_mut(&name("addresses-ip")).unwrap().elements;
        members.insert(Element::Address(address("10.20.1.99")));
        let mut fewer_chains = more_members.clone();
        fewer_chains.inet.chains.remove(&name("leave"));
        for wanted in [
            Some(&first),
            Some(&more_members),
            Some(&fewer_chains),
            Some(&first),
            None,
        ] {
            enforce(wanted, 1);
            enforce(wanted, 0);
        }
        enforce(Some(&first), 1);

        // Somebody else's change makes a first attempt in vain, which the kernel drops unread.
        nft(&["add", "table", "inet", "other"]);
        enforce(Some(&more_members), 2);
        assert_eq!(sent(|| enforcer.verify().unwrap()), (None, 0));
        assert!(sent(|| enforcer.counters().unwrap()).1 == 0);

        drop(enforcer);
        let (mut adopted, count) = sent(|| Enforcer::open(KernelFeatures::ALL).unwrap());
        assert_eq!(count, 1, "both tables are taken over at once");
        let (outcome, count) = sent(|| adopted.enforce(Some(&more_members)).unwrap());
        assert_eq!((outcome, count), (Outcome::Unchanged, 0));

        // A refusal is one too.
        let mut broken = more_members.clone();
        let rule = broken.inet.chains[&name("net1-in")].rules[3].clone();
        assert!(rule.to_string().starts_with("ct direction"), "{rule}");
        let backstop = broken.table(TableFamily::Netdev).unwrap().clone();
        broken.netdev = backstop;
        broken
            .netdev
            .chains
            .get_mut(&name("net1-backstop"))
            .unwrap()
            .rules
            .push(rule);
        assert_eq!(sent(|| adopted.enforce(Some(&broken)).unwrap_err()).1, 1);
    });
}
