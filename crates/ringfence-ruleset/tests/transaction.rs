//! `transaction` and `replacement` against a kernel model that enforces names and references strictly.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::dice::{Dice, element, make_disjoint, numbers, pairs, perhaps, rulesets};
use common::kernel::Kernel;
use common::{V4, address, base, example, name, regular, ruleset, service, set, table};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use ringfence_ruleset::{Element, Hook, Op, Ruleset, SetKind, check, replacement, text, transaction};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn lines(ops: &[Op]) -> Vec<String> {
    text::script(ops).lines().map(str::to_owned).collect()
}

fn check_ops(before: Option<&Ruleset>, after: Option<&Ruleset>, expected: &[&str]) {
    let ops = transaction(before, after);
    assert_eq!(lines(&ops), expected);
    assert_eq!(
        Kernel::holding(before).apply(&ops),
        Ok(Kernel::holding(after)),
        "the batch must lead to what is wanted"
    );
}

proptest! {
    #![proptest_config(config(1500))]

    /// Whatever the two rulesets: the batch is accepted message by message and leads to exactly what is wanted.
    #[test]
    fn any_ruleset_leads_to_any_other((before, after) in pairs()) {
        let ops = transaction(before.as_ref(), after.as_ref());
        let result = Kernel::holding(before.as_ref()).apply(&ops);
        prop_assert_eq!(result, Ok(Kernel::holding(after.as_ref())), "{}", text::script(&ops));
    }

    /// The rulesets of these tests are ones that the kernel takes; otherwise the tests above would say little.
    #[test]
    fn random_rulesets_have_no_fault(ruleset in rulesets()) {
        prop_assert_eq!(check(&ruleset), Ok(()));
    }

    /// No write at all when nothing changed (invariant 5).
    #[test]
    fn nothing_changed_means_no_operation(ruleset in perhaps()) {
        prop_assert_eq!(transaction(ruleset.as_ref(), ruleset.as_ref()), vec![]);
    }

    /// A replacement does not depend on what is there.
    #[test]
    fn a_replacement_works_from_anything((before, after) in pairs()) {
        let ops = replacement(after.as_ref());
        let result = Kernel::holding(before.as_ref()).apply(&ops);
        prop_assert_eq!(result, Ok(Kernel::holding(after.as_ref())), "{}", text::script(&ops));
    }

    /// Only elements differ: only elements are written, and each exactly once, whether or not memory is shared.
    #[test]
    fn s230_elements_only(ruleset in rulesets(), changes in numbers(80), shared in any::<bool>()) {
        let mut dice = Dice::new(changes);
        let mut wanted = ruleset.clone();
        let mut expected: BTreeSet<String> = BTreeSet::new();
        for (name, set) in &mut wanted.inet.sets {
            for _ in 0..dice.roll(6) {
                let element = element(&mut dice, set.kind);
                if set.elements.remove(&element).is_none() {
                    set.elements.insert(element);
                }
            }
            make_disjoint(set);
            if !shared {
                set.elements = set.elements.iter().copied().collect::<Vec<_>>().into();
            }
            let before: BTreeSet<Element> = ruleset.inet.sets[name].elements.iter().copied().collect();
            let after: BTreeSet<Element> = set.elements.iter().copied().collect();
            expected.extend(before.difference(&after).map(|element| format!("- {name} {element}")));
            expected.extend(after.difference(&before).map(|element| format!("+ {name} {element}")));
        }
        let ops = transaction(Some(&ruleset), Some(&wanted));
        let mut written: Vec<String> = Vec::new();
        for op in &ops {
            prop_assert!(op.is_elements(), "{}", op);
            match op {
                Op::AddElements { set, elements, .. } => {
                    written.extend(elements.iter().map(|element| format!("+ {set} {element}")));
                }
                Op::DelElements { set, elements, .. } => {
                    written.extend(elements.iter().map(|element| format!("- {set} {element}")));
                }
                _ => {}
            }
        }
        written.sort();
        prop_assert_eq!(written, expected.into_iter().collect::<Vec<_>>());
    }

    /// The comparison of trees that share most of their memory must not lose a change beside a node that was split
    /// or merged: thousands of elements, so that the trees have several levels.
    #[test]
    fn s230_large_sets_that_share_memory(
        size in 0u32..5000,
        changes in proptest::collection::vec((0u32..10_000, 1u32..40), 0..12),
    ) {
        let of = |number: u32| Element::Address(std::net::IpAddr::V4(number.into()));
        let mut before = ruleset(
            table(&[], vec![("net1-in-any-ip", set(SetKind::Addresses(V4), &[]))], []),
            table(&[], vec![], []),
        );
        let elements = |ruleset: &mut Ruleset, change: &dyn Fn(&mut imbl::OrdSet<Element>)| {
            change(&mut ruleset.inet.sets.get_mut(&name("net1-in-any-ip")).unwrap().elements);
        };
        elements(&mut before, &|set| set.extend((0..size).map(|number| of(number * 2))));
        let mut after = before.clone();
        let mut expected: BTreeSet<Element> = BTreeSet::new();
        for (from, count) in changes {
            // Runs, so that whole nodes come and go.
            for element in (from..from + count).map(of) {
                elements(&mut after, &|set| {
                    if set.remove(&element).is_none() {
                        set.insert(element);
                    }
                });
                if !expected.remove(&element) {
                    expected.insert(element);
                }
            }
        }
        let ops = transaction(Some(&before), Some(&after));
        let mut written: Vec<Element> = Vec::new();
        for op in &ops {
            if let Op::AddElements { elements, .. } | Op::DelElements { elements, .. } = op {
                written.extend(elements);
            }
        }
        written.sort();
        prop_assert_eq!(written, expected.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(Kernel::holding(Some(&before)).apply(&ops), Ok(Kernel::holding(Some(&after))));
    }

    /// Chains, sets and counters that are the same on both sides are not named in the batch, unless their table had
    /// to be replaced.
    #[test]
    fn what_is_the_same_is_not_touched((before, after) in pairs()) {
        let (Some(before), Some(after)) = (before, after) else { return Ok(()) };
        let ops = transaction(Some(&before), Some(&after));
        for op in &ops {
            let family = op.family();
            if ops.iter().any(|op| matches!(op, Op::DelTable { family: of } if *of == family)) {
                continue;
            }
            let (Some(before), Some(after)) = (before.table(family), after.table(family)) else { continue };
            let same = match op {
                Op::AddTable { .. } => true,
                Op::DelTable { .. } => false,
                Op::AddCounter { name, .. } | Op::DelCounter { name, .. } => {
                    before.counters.contains(name) == after.counters.contains(name)
                }
                Op::AddSet { name, .. } | Op::DelSet { name, .. } => {
                    before.sets.contains_key(name) == after.sets.contains_key(name)
                }
                Op::AddElements { set, .. } | Op::DelElements { set, .. } => {
                    before.sets.get(set) == after.sets.get(set)
                }
                Op::AddChain { name, .. } | Op::DelChain { name, .. } => {
                    before.chains.contains_key(name) == after.chains.contains_key(name)
                }
                Op::FlushChain { name, .. } => before.chains.get(name) == after.chains.get(name),
                Op::AddRule { chain, .. } => before.chains.get(chain) == after.chains.get(chain),
            };
            prop_assert!(!same, "{}", op);
        }
    }
}

/// Guards the properties above against a generator that has become too tame to find anything.
#[test]
fn random_pairs_use_every_operation() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..400 {
        let (before, after) = pairs().new_tree(&mut runner).unwrap().current();
        let ops = transaction(before.as_ref(), after.as_ref());
        let kinds: BTreeSet<String> = ops
            .iter()
            .map(|op| op.to_string().split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect();
        for kind in kinds {
            *seen.entry(kind).or_default() += 1;
        }
    }
    let kinds: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(
        kinds,
        [
            "add chain",
            "add counter",
            "add element",
            "add rule",
            "add set",
            "add table",
            "delete chain",
            "delete counter",
            "delete element",
            "delete set",
            "delete table",
            "flush chain",
        ]
    );
    assert!(seen.values().all(|&count| count >= 40), "each in many pairs: {seen:?}");
}

#[test]
fn s230_one_peer_more_is_its_elements_and_nothing_else() {
    let before = example();
    let mut after = before.clone();
    let mut add = |set: &str, element: Element| {
        after.inet.sets.get_mut(&name(set)).unwrap().elements.insert(element);
    };
    add("net1-in-ip", service("10.20.1.77", common::TCP, 80));
    add("net1-in-peers-ip", address("10.20.1.77"));
    check_ops(
        Some(&before),
        Some(&after),
        &[
            "add element inet ringfence net1-in-ip { 10.20.1.77 . tcp . 80 }",
            "add element inet ringfence net1-in-peers-ip { 10.20.1.77 }",
        ],
    );
    check_ops(
        Some(&after),
        Some(&before),
        &[
            "delete element inet ringfence net1-in-ip { 10.20.1.77 . tcp . 80 }",
            "delete element inet ringfence net1-in-peers-ip { 10.20.1.77 }",
        ],
    );
}

#[test]
fn ranges_are_deleted_before_those_that_would_overlap_are_added() {
    let of = |text: &[&str]| {
        let elements: Vec<Element> = text.iter().map(|text| Element::Range(common::range(text))).collect();
        let sets = vec![("net1-in-any-net-ip", set(SetKind::Ranges(V4), &elements))];
        ruleset(table(&[], sets, []), table(&[], vec![], []))
    };
    check_ops(
        Some(&of(&["10.0.0.0/8", "192.0.2.0/24"])),
        Some(&of(&["10.0.0.0/9", "192.0.2.0/24", "198.51.100.1/32"])),
        &[
            "delete element inet ringfence net1-in-any-net-ip { 10.0.0.0/8 }",
            "add element inet ringfence net1-in-any-net-ip { 10.0.0.0/9, 198.51.100.1 }",
        ],
    );
}

#[test]
fn one_rule_more_refills_its_chain_and_keeps_counters_and_sets() {
    let before = example();
    let mut after = before.clone();
    let rules = &mut after.inet.chains.get_mut(&name("net1-out")).unwrap().rules;
    rules.remove(0);
    check_ops(
        Some(&before),
        Some(&after),
        &[
            "flush chain inet ringfence net1-out",
            "add rule inet ringfence net1-out meta l4proto icmp ct state related goto net1-out-related",
            "add rule inet ringfence net1-out counter name \"net1-out-denied\" drop",
        ],
    );
}

#[test]
fn references_come_after_what_they_name_and_go_before_it() {
    let before = ruleset(
        table(
            &["old"],
            vec![("old", set(SetKind::Addresses(V4), &[address("10.0.0.1")]))],
            [
                ("arrive", base(Hook::Prerouting, -160, vec![common::jump(&[], "old")])),
                ("old", regular(vec![common::deny(&[in_set("old")], "old")])),
            ],
        ),
        table(&[], vec![], []),
    );
    let after = ruleset(
        table(
            &["new"],
            vec![("new", set(SetKind::Addresses(V4), &[address("10.0.0.1")]))],
            [
                ("arrive", base(Hook::Prerouting, -160, vec![common::jump(&[], "new")])),
                ("new", regular(vec![common::deny(&[in_set("new")], "new")])),
            ],
        ),
        table(&[], vec![], []),
    );
    check_ops(
        Some(&before),
        Some(&after),
        &[
            "add counter inet ringfence new",
            "add set inet ringfence new { type ipv4_addr; }",
            "add element inet ringfence new { 10.0.0.1 }",
            "add chain inet ringfence new",
            "flush chain inet ringfence arrive",
            "flush chain inet ringfence old",
            "add rule inet ringfence arrive jump new",
            "add rule inet ringfence new ip saddr @new counter name \"new\" drop",
            "delete chain inet ringfence old",
            "delete set inet ringfence old",
            "delete counter inet ringfence old",
        ],
    );
}

fn in_set(set: &str) -> ringfence_ruleset::Match {
    use ringfence_ruleset::{Key, Match};
    Match::InSet(Key::Address(V4, common::SRC), name(set))
}

#[test]
fn another_kind_or_hook_or_comment_under_an_old_name_replaces_the_table() {
    let with = |kind, hook, comment: &str| {
        let sets = vec![("net1-in-any-ip", set(kind, &[]))];
        let mut ruleset = ruleset(
            table(&[], sets, [("arrive", base(hook, -160, vec![]))]),
            table(&[], vec![], []),
        );
        ruleset.comment = comment.into();
        ruleset
    };
    let before = with(SetKind::Addresses(V4), Hook::Prerouting, "ringfence a");
    for (after, comment, set, hook) in [
        (
            with(SetKind::Ranges(V4), Hook::Prerouting, "ringfence a"),
            "ringfence a",
            "type ipv4_addr; flags interval;",
            "hook prerouting",
        ),
        (
            with(SetKind::Addresses(V4), Hook::Output, "ringfence a"),
            "ringfence a",
            "type ipv4_addr;",
            "hook output",
        ),
        (
            with(SetKind::Addresses(V4), Hook::Prerouting, "ringfence b"),
            "ringfence b",
            "type ipv4_addr;",
            "hook prerouting",
        ),
    ] {
        check_ops(
            Some(&before),
            Some(&after),
            &[
                "delete table inet ringfence",
                &format!("add table inet ringfence {{ comment \"{comment}\"; }}"),
                &format!("add set inet ringfence net1-in-any-ip {{ {set} }}"),
                &format!(
                    "add chain inet ringfence arrive {{ type filter {hook} priority mangle - 10; policy accept; }}"
                ),
            ],
        );
    }
}

#[test]
fn tables_come_and_go_as_a_whole() {
    let full = example();
    let mut without_backstop = full.clone();
    without_backstop.netdev.chains.clear();
    check_ops(
        Some(&full),
        None,
        &["delete table inet ringfence", "delete table netdev ringfence"],
    );
    check_ops(Some(&without_backstop), None, &["delete table inet ringfence"]);
    check_ops(Some(&full), Some(&without_backstop), &["delete table netdev ringfence"]);
    check_ops(None, None, &[]);
    let ops = transaction(Some(&without_backstop), Some(&full));
    assert!(
        lines(&ops).iter().all(|line| line.contains(" netdev ringfence")),
        "the inet table stays as it is: {ops:?}"
    );
    assert_eq!(
        lines(&replacement(None)),
        [
            "add table inet ringfence",
            "delete table inet ringfence",
            "add table netdev ringfence",
            "delete table netdev ringfence",
        ]
    );
}
