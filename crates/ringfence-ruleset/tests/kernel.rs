//! The real nft and the real kernel: what they say about our texts, our order of operations and our faults.
//!
//! Needs root, `unshare`, `ip` and `nft`; without them these tests fail. Each text is loaded in a network namespace of
//! its own, which is gone when the test is.

mod common;

use common::dice::{pairs, rulesets};
use common::nft::{load_and_list, run};
use common::{
    TCP, V4, V6, accept, address, base, deny, example, goto, jump, name, ports, regular, ruleset, set, table,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use ringfence_model::Protocol;
use ringfence_ruleset::{
    Chain, Element, Fault, Hook, Key, Match, Rule, Ruleset, SetKind, Side, Table, check, replacement, text, transaction,
};

/// The text passes `nft -c -f`, loads, and comes back as it was.
fn comes_back(ruleset: &Ruleset) {
    assert_eq!(check(ruleset), Ok(()));
    let text = ruleset.to_string();
    assert_eq!(text::normalise(&load_and_list(&[&text])), text);
}

fn nothing() -> Table {
    table(&[], vec![], [])
}

#[test]
fn the_example_comes_back() {
    comes_back(&example());
}

#[test]
fn an_empty_ruleset_comes_back() {
    comes_back(&ruleset(nothing(), nothing()));
}

#[test]
fn every_condition_and_every_kind_of_set_comes_back() {
    let (netdev, inet): (Vec<Match>, Vec<Match>) = common::vocabulary().into_iter().partition(common::is_netdev);
    let rules = |conditions: Vec<Match>| conditions.into_iter().map(|condition| accept(&[condition])).collect();
    comes_back(&ruleset(
        table(&[], common::vocabulary_sets(), [("net1-in", regular(rules(inet)))]),
        table(&[], vec![], [("net1-backstop", backstop(rules(netdev)))]),
    ));
}

fn backstop(rules: Vec<Rule>) -> Chain {
    base(Hook::Egress(common::interface("net1")), 0, rules)
}

/// Conditions as they are put together in one rule: interface and direction, set and ports, protocol and state.
#[test]
fn conditions_that_stand_together_come_back() {
    let own = |text: &str| Match::Address(Side::Source, text.parse().unwrap());
    let in_set = |key, set| Match::InSet(key, name(set));
    let of = |family, set| in_set(Key::Address(family, Side::Source), set);
    let port_set = || in_set(Key::Port(Side::Destination), "ports");
    let networks = |family, length, set| Match::InNetworks(Key::Address(family, Side::Source), length, name(set));
    let range = || Match::Ports(Side::Destination, ports(TCP, 1000, 2000));
    let whole = |protocol| Match::Ports(Side::Destination, ports(protocol, 0, u16::MAX));
    let rules = vec![
        accept(&[common::on("net1"), common::ORIGINAL]),
        accept(&[common::out("if-0@b"), common::REPLY]),
        accept(&[common::out("net1"), own("10.20.1.10")]),
        accept(&[common::out("net1"), own("::")]),
        accept(&[common::out("net1"), Match::SourceNotLocal]),
        accept(&[of(V4, "addresses-ip"), range()]),
        accept(&[of(V6, "ranges-ip6"), range()]),
        accept(&[of(V4, "ranges-ip"), port_set()]),
        accept(&[of(V6, "addresses-ip6"), port_set()]),
        accept(&[Match::Nfproto(V4), range()]),
        accept(&[Match::Nfproto(V6), port_set()]),
        accept(&[Match::Icmp(V4), Match::CtRelated]),
        accept(&[
            Match::Icmp(V6),
            Match::CtRelated,
            in_set(Key::CtOriginalSource(V6), "ranges-ip6"),
        ]),
        accept(&[of(V4, "addresses-ip"), Match::Icmp(V4), Match::CtRelated]),
        accept(&[networks(V4, 24, "addresses-ip"), range()]),
        accept(&[networks(V6, 64, "addresses-ip6"), port_set()]),
    ];
    let with_protocols = Protocol::ALL.into_iter().flat_map(|protocol| {
        [
            accept(&[of(V4, "addresses-ip"), whole(protocol)]),
            accept(&[of(V6, "ranges-ip6"), whole(protocol)]),
            accept(&[Match::Nfproto(V6), whole(protocol)]),
        ]
    });
    comes_back(&ruleset(
        table(
            &[],
            common::vocabulary_sets(),
            [("net1-in", regular(rules.into_iter().chain(with_protocols).collect()))],
        ),
        nothing(),
    ));
    let udp = |side, port| Match::Ports(side, ports(Protocol::Udp, port, port));
    let dhcp = [
        accept(&[Match::Routed]),
        accept(&[udp(Side::Source, 68), udp(Side::Destination, 67)]),
        accept(&[Match::EtherType(0x0800)]),
    ];
    comes_back(&ruleset(
        nothing(),
        table(&[], vec![], [("net1-backstop", backstop(dhcp.to_vec()))]),
    ));
}

#[test]
fn names_from_odd_interfaces_come_back() {
    let mut inet = nothing();
    for interface in [
        "eth0.100", "a@b", "0net", "-x", "ip", "tcp", "th", "fd00", "x#y", "a..b_c",
    ] {
        let interface = common::interface(interface);
        let identifier = interface.as_identifier();
        let (chain, counter) = (format!("{identifier}-in"), format!("{identifier}-in-denied"));
        for kind in [
            "ip",
            "any-net-ip6",
            "tcp.udp-53-ip",
            "tcp-80-and-12-more-1f3a9c01-ports",
        ] {
            let name = name(&format!("{identifier}-in-{kind}"));
            inet.sets.insert(name, set(SetKind::Addresses(V4), &[]));
        }
        let in_set = Match::InSet(Key::Address(V4, Side::Source), name(&format!("{chain}-tcp.udp-53-ip")));
        inet.counters.insert(name(&counter));
        inet.chains
            .insert(name(&chain), regular(vec![accept(&[in_set]), deny(&[], &counter)]));
        let arrive = inet
            .chains
            .entry(name("arrive"))
            .or_insert_with(|| base(Hook::Prerouting, -160, vec![]));
        arrive.rules.push(goto(&[Match::ArrivesOn(interface)], &chain));
    }
    comes_back(&ruleset(inet, nothing()));
}

#[test]
fn priorities_come_back() {
    for (hook, priorities) in [
        (
            Hook::Prerouting,
            &[-311, -310, -160, -149, -100, -89, 0, 60, 61, 100, 5000][..],
        ),
        (Hook::Output, &[-160, -100, 100]),
        (Hook::Postrouting, &[110, 111, 90, -100, 300]),
    ] {
        for &priority in priorities {
            let chains = [("c", base(hook.clone(), priority, vec![]))];
            comes_back(&ruleset(table(&[], vec![], chains), nothing()));
        }
    }
    for priority in [-300, -10, 0, 10, 11, 50] {
        let egress = base(Hook::Egress(common::interface("net2")), priority, vec![]);
        comes_back(&ruleset(nothing(), table(&[], vec![], [("c", egress)])));
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 40,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_ruleset_comes_back(ruleset in rulesets()) {
        comes_back(&ruleset);
    }

    /// The kernel takes every batch, message by message in our order, and then holds what is wanted. nft sends the
    /// commands of one text as one batch.
    #[test]
    fn any_ruleset_leads_to_any_other((before, after) in pairs()) {
        let shown = |ruleset: &Option<Ruleset>| ruleset.as_ref().map(ToString::to_string).unwrap_or_default();
        let edit = text::script(&transaction(before.as_ref(), after.as_ref()));
        let listed = load_and_list(&[&shown(&before), &edit]);
        prop_assert_eq!(text::normalise(&listed), shown(&after), "{}", edit);

        let replace = text::script(&replacement(after.as_ref()));
        let listed = load_and_list(&[&shown(&before), &replace]);
        prop_assert_eq!(text::normalise(&listed), shown(&after), "{}", replace);
    }
}

/// What `check` calls a fault, nft or the kernel refuses too.
fn is_refused(inet: Table, netdev: Table, is_expected: fn(&Fault) -> bool) {
    let ruleset = ruleset(inet, netdev);
    let fault = check(&ruleset).expect_err("the ruleset has a fault");
    assert!(is_expected(&fault), "another fault: {fault:?}");
    // Not by the exit status alone: a missing program would then look like a refusal.
    let refusal = run(&[&ruleset.to_string()]).expect_err("the kernel must refuse what `check` calls a fault");
    assert!(refusal.contains("Error: "), "{fault}: {refusal}");
}

fn one_rule(rule: Rule) -> Table {
    table(&[], vec![], [("c", regular(vec![rule]))])
}

#[test]
fn faults_are_refused_by_the_kernel() {
    let look_up = |key| accept(&[Match::InSet(key, name("s"))]);
    let by_address = || look_up(Key::Address(V4, Side::Source));
    let with_set =
        |kind, elements: &[Element], rule| table(&[], vec![("s", set(kind, elements))], [("c", regular(vec![rule]))]);
    is_refused(one_rule(by_address()), nothing(), |fault| {
        matches!(fault, Fault::MissingSet { .. })
    });
    is_refused(one_rule(goto(&[], "x")), nothing(), |fault| {
        matches!(fault, Fault::MissingChain { .. })
    });
    is_refused(one_rule(deny(&[], "x")), nothing(), |fault| {
        matches!(fault, Fault::MissingCounter { .. })
    });
    for kind in [
        SetKind::Addresses(V6),
        SetKind::Ranges(V6),
        SetKind::Services(V4),
        SetKind::Ports,
    ] {
        is_refused(with_set(kind, &[], by_address()), nothing(), |fault| {
            matches!(fault, Fault::KindMismatch { .. })
        });
    }
    is_refused(
        with_set(SetKind::Addresses(V4), &[address("::1")], accept(&[])),
        nothing(),
        |fault| matches!(fault, Fault::ForeignElement { .. }),
    );
    let overlapping = ["10.0.0.0/8", "10.1.0.0/16"].map(|text| Element::Range(common::range(text)));
    is_refused(
        with_set(SetKind::Ranges(V4), &overlapping, accept(&[])),
        nothing(),
        |fault| matches!(fault, Fault::Overlap { .. }),
    );
    is_refused(
        table(
            &[],
            vec![],
            [
                ("arrive", base(Hook::Prerouting, -160, vec![])),
                ("c", regular(vec![jump(&[], "arrive")])),
            ],
        ),
        nothing(),
        |fault| matches!(fault, Fault::BaseChainAsTarget { .. }),
    );
    is_refused(
        table(
            &[],
            vec![],
            [
                ("arrive", base(Hook::Prerouting, -160, vec![jump(&[], "a")])),
                ("a", regular(vec![goto(&[], "b")])),
                ("b", regular(vec![jump(&[], "a")])),
            ],
        ),
        nothing(),
        |fault| matches!(fault, Fault::Loop { .. }),
    );
    is_refused(
        one_rule(accept(&[
            Match::Address(Side::Source, "10.0.0.1".parse().unwrap()),
            Match::Address(Side::Destination, "::1".parse().unwrap()),
        ])),
        nothing(),
        |fault| matches!(fault, Fault::Contradiction { .. }),
    );
    is_refused(
        nothing(),
        table(&[], vec![], [("c", backstop(vec![accept(&[common::ORIGINAL])]))]),
        |fault| matches!(fault, Fault::WrongTable { .. }),
    );
    is_refused(
        nothing(),
        table(&[], vec![], [("c", base(Hook::Prerouting, 0, vec![]))]),
        |fault| matches!(fault, Fault::WrongHook { .. }),
    );
}

/// A base chain and 15 more, one leading to the next, is what the kernel follows; one more is too deep.
#[test]
fn the_kernel_follows_as_many_chains_as_check_says() {
    let line_of = |chains: usize| {
        let mut inet = nothing();
        for position in 0..chains {
            let rules = if position + 1 == chains {
                vec![]
            } else {
                let next = format!("c{}", position + 1);
                vec![if position % 2 == 0 {
                    jump(&[], &next)
                } else {
                    goto(&[], &next)
                }]
            };
            let chain = if position == 0 {
                base(Hook::Prerouting, -160, rules)
            } else {
                regular(rules)
            };
            inet.chains.insert(name(&format!("c{position}")), chain);
        }
        inet
    };
    comes_back(&ruleset(line_of(16), nothing()));
    is_refused(line_of(17), nothing(), |fault| matches!(fault, Fault::TooDeep { .. }));
}
