//! From one ruleset to another in one kernel transaction.
//!
//! The order inside the batch follows from what the kernel checks message by message, although nothing takes effect
//! before the commit: a name must exist before it is used (ENOENT), what is in use cannot be deleted (EBUSY), and an
//! interval must not overlap with one that the batch has not yet deleted (EEXIST). Hence, per table:
//!
//! 1. table, counters, sets with their elements, empty chains: everything new that rules may name;
//! 2. elements of the sets that stay: deletions before additions, for the intervals' sake;
//! 3. flush every chain that changes or goes, all of them before the first new rule: so no reference and no cycle is
//!    ever made of old and new rules together;
//! 4. the new rules;
//! 5. delete chains, then sets and counters, which nothing names any more.

use imbl::ordset::DiffItem;

use crate::{Element, Name, Op, Ruleset, Set, Table, TableFamily};

/// The operations that make `wanted` out of `current`, in an order that the kernel accepts as one batch; empty when
/// nothing differs. `None` stands for "no table at all".
///
/// * Where only elements differ there are only [`Op::AddElements`] and [`Op::DelElements`] (statement 230). Sets that
///   share their memory (`wanted` was made by editing a clone of `current`) are compared in a time that depends on
///   the number of changes and the logarithm of the size, not on the size.
/// * Sets of the same name and kind, and counters, stay, with what they hold; of the chains only those whose rules
///   differ are flushed and filled again.
/// * A set of another kind, or a chain on another hook, under a name that exists: the whole table is made anew in the
///   same batch, counters included. Another comment: both tables.
///
/// Both rulesets must be free of faults ([`crate::check`]), and the kernel must hold exactly `current`.
pub fn transaction(current: Option<&Ruleset>, wanted: Option<&Ruleset>) -> Vec<Op> {
    let mut ops = Vec::new();
    for family in TableFamily::BOTH {
        let before = current.and_then(|ruleset| Some((ruleset, ruleset.table(family)?)));
        let after = wanted.and_then(|ruleset| Some((ruleset, ruleset.table(family)?)));
        match (before, after) {
            (None, None) => {}
            (Some(_), None) => ops.push(Op::DelTable { family }),
            (None, Some((ruleset, table))) => build(&mut ops, family, ruleset, table),
            (Some((old, before)), Some((new, after))) => {
                if old.comment == new.comment && can_be_edited(before, after) {
                    edit(&mut ops, family, before, after);
                } else {
                    ops.push(Op::DelTable { family });
                    build(&mut ops, family, new, after);
                }
            }
        }
    }
    ops
}

/// The operations that make `wanted` whatever the kernel holds in tables of our names, as one batch: used where the
/// contents are unknown or foreign. Counters start at zero.
///
/// Deleting a table that does not exist fails (ENOENT); adding one that exists does not: so each table is added,
/// deleted and, if wanted, built.
pub fn replacement(wanted: Option<&Ruleset>) -> Vec<Op> {
    let mut ops = Vec::new();
    for family in TableFamily::BOTH {
        let comment = wanted.map_or_else(|| "".into(), |ruleset| ruleset.comment.clone());
        ops.push(Op::AddTable { family, comment });
        ops.push(Op::DelTable { family });
        if let Some(ruleset) = wanted
            && let Some(table) = ruleset.table(family)
        {
            build(&mut ops, family, ruleset, table);
        }
    }
    ops
}

/// Whether the kernel can lead the one table into the other without deleting and making anew something of one name.
fn can_be_edited(before: &Table, after: &Table) -> bool {
    let sets = after
        .sets
        .iter()
        .all(|(name, set)| before.sets.get(name).is_none_or(|old| old.kind == set.kind));
    let chains = after
        .chains
        .iter()
        .all(|(name, chain)| before.chains.get(name).is_none_or(|old| old.base == chain.base));
    sets && chains
}

/// A table from nothing.
fn build(ops: &mut Vec<Op>, family: TableFamily, ruleset: &Ruleset, table: &Table) {
    ops.push(Op::AddTable {
        family,
        comment: ruleset.comment.clone(),
    });
    edit(ops, family, &Table::default(), table);
}

/// A table that exists, step by step as the module describes.
fn edit(ops: &mut Vec<Op>, family: TableFamily, before: &Table, after: &Table) {
    for name in after.counters.difference(&before.counters) {
        let name = name.clone();
        ops.push(Op::AddCounter { family, name });
    }
    for (name, set) in &after.sets {
        match before.sets.get(name) {
            None => add_set(ops, family, name, set),
            Some(old) => change_elements(ops, family, name, old, set),
        }
    }
    edit_chains(ops, family, before, after);
    for name in before.sets.keys().filter(|name| !after.sets.contains_key(name)) {
        let name = name.clone();
        ops.push(Op::DelSet { family, name });
    }
    for name in before.counters.difference(&after.counters) {
        let name = name.clone();
        ops.push(Op::DelCounter { family, name });
    }
}

/// New chains, then everything that goes, then the rules, then the chains that nothing names any more.
fn edit_chains(ops: &mut Vec<Op>, family: TableFamily, before: &Table, after: &Table) {
    // As ever when a peer comes or goes; the two share their memory then.
    if before.chains == after.chains {
        return;
    }
    for (name, chain) in after.chains.iter() {
        if !before.chains.contains_key(name) {
            ops.push(Op::AddChain {
                family,
                name: name.clone(),
                base: chain.base.clone(),
            });
        }
    }

    // What a chain that stays held before; `None` for a chain that is new, which there is nothing to flush in.
    let rules_before = |name: &Name| before.chains.get(name).map(|chain| chain.rules.as_slice());
    for (name, old) in before.chains.iter() {
        let same = after.chains.get(name).is_some_and(|new| new.rules == old.rules);
        if !same && !old.rules.is_empty() {
            let name = name.clone();
            ops.push(Op::FlushChain { family, name });
        }
    }
    for (name, chain) in after.chains.iter() {
        if rules_before(name) == Some(chain.rules.as_slice()) {
            continue;
        }
        for rule in &chain.rules {
            ops.push(Op::AddRule {
                family,
                chain: name.clone(),
                rule: rule.clone(),
            });
        }
    }

    for name in before.chains.keys().filter(|name| !after.chains.contains_key(name)) {
        let name = name.clone();
        ops.push(Op::DelChain { family, name });
    }
}

fn add_set(ops: &mut Vec<Op>, family: TableFamily, name: &Name, set: &Set) {
    ops.push(Op::AddSet {
        family,
        name: name.clone(),
        kind: set.kind,
    });
    if !set.elements.is_empty() {
        ops.push(Op::AddElements {
            family,
            set: name.clone(),
            kind: set.kind,
            elements: set.elements.iter().copied().collect(),
        });
    }
}

fn change_elements(ops: &mut Vec<Op>, family: TableFamily, name: &Name, old: &Set, new: &Set) {
    let mut removed: Vec<Element> = Vec::new();
    let mut added: Vec<Element> = Vec::new();
    // Skips the subtrees that both sets share; the items come in ascending order.
    for item in old.elements.diff(&new.elements) {
        match item {
            DiffItem::Remove(element) => removed.push(*element),
            DiffItem::Add(element) => added.push(*element),
        }
    }
    if !removed.is_empty() {
        ops.push(Op::DelElements {
            family,
            set: name.clone(),
            kind: new.kind,
            elements: removed,
        });
    }
    if !added.is_empty() {
        ops.push(Op::AddElements {
            family,
            set: name.clone(),
            kind: new.kind,
            elements: added,
        });
    }
}
