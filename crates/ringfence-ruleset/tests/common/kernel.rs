//! A kernel of a few lines that knows only names and references, but is stricter about them than the real one.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence_ruleset::{Chain, Element, Match, Name, Op, Rule, Ruleset, Set, Table, TableFamily, Verdict};

/// The tables that exist, with their comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel(BTreeMap<TableFamily, (Arc<str>, Table)>);

impl Kernel {
    /// What it looks like after a ruleset was put into an empty kernel.
    pub fn holding(ruleset: Option<&Ruleset>) -> Self {
        Self(ruleset.map_or_else(BTreeMap::new, |ruleset| {
            ruleset
                .tables()
                .map(|(family, table)| (family, (ruleset.comment.clone(), table.clone())))
                .collect()
        }))
    }

    /// Carries out a batch: all of it, or an error with the position and the reason.
    pub fn apply(&self, ops: &[Op]) -> Result<Self, String> {
        let mut next = self.clone();
        for (position, op) in ops.iter().enumerate() {
            next.step(op)
                .map_err(|why| format!("operation {position}, `{op}`: {why}"))?;
        }
        Ok(next)
    }

    fn step(&mut self, op: &Op) -> Result<(), &'static str> {
        match op {
            Op::AddTable { family, comment } => {
                self.0
                    .entry(*family)
                    .or_insert_with(|| (comment.clone(), Table::default()));
                return Ok(());
            }
            Op::DelTable { family } => return self.0.remove(family).map(drop).ok_or("ENOENT"),
            _ => {}
        }
        let (_, table) = self.0.get_mut(&op.family()).ok_or("ENOENT: table")?;
        match op {
            Op::AddTable { .. } | Op::DelTable { .. } => {}
            Op::AddCounter { name, .. } => {
                if !table.counters.insert(name.clone()) {
                    return Err("EEXIST");
                }
            }
            Op::DelCounter { name, .. } => {
                if rules(table).any(|rule| rule.counter.as_ref() == Some(name)) {
                    return Err("EBUSY");
                }
                if !table.counters.remove(name) {
                    return Err("ENOENT");
                }
            }
            Op::AddSet { name, kind, .. } => {
                let empty = Set {
                    kind: *kind,
                    elements: imbl::OrdSet::new(),
                };
                if table.sets.insert(name.clone(), empty).is_some() {
                    return Err("EEXIST");
                }
            }
            Op::DelSet { name, .. } => {
                if rules(table).any(|rule| sets_of(rule).any(|set| set == name)) {
                    return Err("EBUSY");
                }
                table.sets.remove(name).ok_or("ENOENT")?;
            }
            Op::AddElements {
                set, kind, elements, ..
            } => add_elements(set_of(table, set, *kind)?, elements)?,
            Op::DelElements {
                set, kind, elements, ..
            } => {
                let set = set_of(table, set, *kind)?;
                if elements.is_empty() {
                    return Err("an empty list of elements");
                }
                if elements.iter().any(|element| set.elements.remove(element).is_none()) {
                    return Err("ENOENT");
                }
            }
            Op::AddChain { name, base, .. } => {
                let empty = Chain {
                    base: base.clone(),
                    rules: Vec::new(),
                };
                if table.chains.insert(name.clone(), empty).is_some() {
                    return Err("EEXIST");
                }
            }
            Op::FlushChain { name, .. } => {
                let chain = table.chains.get_mut(name).ok_or("ENOENT")?;
                if chain.rules.is_empty() {
                    return Err("flushing an empty chain is not minimal");
                }
                chain.rules.clear();
            }
            Op::DelChain { name, .. } => {
                if rules(table).any(|rule| target(rule) == Some(name)) {
                    return Err("EBUSY");
                }
                let chain = table.chains.remove(name).ok_or("ENOENT")?;
                if !chain.rules.is_empty() {
                    return Err("EBUSY: it has rules");
                }
            }
            Op::AddRule { chain, rule, .. } => add_rule(table, chain, rule)?,
        }
        Ok(())
    }
}

fn rules(table: &Table) -> impl Iterator<Item = &Rule> {
    table.chains.values().flat_map(|chain| &chain.rules)
}

fn sets_of(rule: &Rule) -> impl Iterator<Item = &Name> {
    rule.matches.iter().filter_map(|condition| match condition {
        Match::InSet(_, set) => Some(set),
        _ => None,
    })
}

fn target(rule: &Rule) -> Option<&Name> {
    match &rule.verdict {
        Verdict::Goto(chain) | Verdict::Jump(chain) => Some(chain),
        _ => None,
    }
}

fn set_of<'t>(
    table: &'t mut Table,
    name: &Name,
    kind: ringfence_ruleset::SetKind,
) -> Result<&'t mut Set, &'static str> {
    let set = table.sets.get_mut(name).ok_or("ENOENT")?;
    if set.kind == kind {
        Ok(set)
    } else {
        Err("EINVAL: another kind")
    }
}

fn add_elements(set: &mut Set, elements: &[Element]) -> Result<(), &'static str> {
    if elements.is_empty() {
        return Err("an empty list of elements");
    }
    for element in elements {
        if !set.kind.fits(element) {
            return Err("EINVAL: an element of another kind");
        }
        if set.elements.contains(element) {
            return Err("EEXIST");
        }
        if let Element::Range(new) = element {
            let overlaps = |old: &Element| match old {
                Element::Range(old) => new.first() <= old.last() && old.first() <= new.last(),
                _ => false,
            };
            if set.elements.iter().any(overlaps) {
                return Err("EEXIST: overlap");
            }
        }
        set.elements.insert(*element);
    }
    Ok(())
}

fn add_rule(table: &mut Table, chain: &Name, rule: &Rule) -> Result<(), &'static str> {
    if !table.chains.contains_key(chain) {
        return Err("ENOENT: chain");
    }
    if rule.counter.as_ref().is_some_and(|name| !table.counters.contains(name)) {
        return Err("ENOENT: counter");
    }
    if sets_of(rule).any(|set| !table.sets.contains_key(set)) {
        return Err("ENOENT: set");
    }
    if let Some(to) = target(rule) {
        match table.chains.get(to) {
            None => return Err("ENOENT: target"),
            Some(to) if to.base.is_some() => return Err("EOPNOTSUPP: base chain"),
            Some(_) => {}
        }
        if leads_to(table, to, chain) {
            return Err("ELOOP");
        }
    }
    let chain = table.chains.get_mut(chain).ok_or("ENOENT: chain")?;
    chain.rules.push(rule.clone());
    Ok(())
}

fn leads_to(table: &Table, from: &Name, to: &Name) -> bool {
    from == to
        || table.chains.get(from).is_some_and(|chain| {
            chain
                .rules
                .iter()
                .filter_map(target)
                .any(|next| leads_to(table, next, to))
        })
}
