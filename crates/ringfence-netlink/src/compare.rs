//! Whether the kernel holds what was wanted.

use std::collections::BTreeMap;
use std::fmt;

use ringfence_ruleset::{Chain, Name, Rule, Ruleset, Set, Table, TableFamily};

use crate::encode::{TABLE, comment};
use crate::rule::lower;

/// How our tables were found to differ from what we had put there: a closed list, because it becomes a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftReason {
    /// A table is gone.
    Missing,
    /// Tables of ours exist where we had none, or hold something else than we put there.
    Changed,
    /// They hold something that Ringfence never writes.
    Unknown,
}

impl DriftReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Missing, Self::Changed, Self::Unknown];

    /// As a metric label: `missing`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Unknown => "unknown",
        }
    }
}

/// A change to our tables that was not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Its kind.
    pub reason: DriftReason,
    /// The first difference, in words.
    pub detail: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Gives what was read the wanted wording where the kernel cannot tell the two apart: rules with the same bytecode,
/// comments that were cut. What then differs is different to the kernel.
pub(crate) fn settle(read: &mut Ruleset, wanted: &Ruleset) {
    if *read.comment == comment(&wanted.comment) {
        read.comment = wanted.comment.clone();
    }
    for family in TableFamily::BOTH {
        let (table, wanted) = match family {
            TableFamily::Inet => (&mut read.inet, &wanted.inet),
            TableFamily::Netdev => (&mut read.netdev, &wanted.netdev),
        };
        for (name, chain) in table.chains.iter_mut() {
            if let Some(wanted) = wanted.chains.get(name)
                && same_bytecode(family, &chain.rules, &wanted.rules)
            {
                chain.rules.clone_from(&wanted.rules);
            }
        }
        // Then there is one copy of the rules in memory, and the next comparison is one of pointers.
        if table.chains == wanted.chains {
            table.chains = wanted.chains.clone();
        }
    }
}

fn same_bytecode(family: TableFamily, read: &[Rule], wanted: &[Rule]) -> bool {
    read.len() == wanted.len()
        && read
            .iter()
            .zip(wanted)
            .all(|(read, wanted)| read == wanted || lower(family, read) == lower(family, wanted))
}

/// The first difference between what was read, after [`settle`], and what was wanted.
pub(crate) fn difference(read: Option<&Ruleset>, wanted: Option<&Ruleset>) -> Option<Drift> {
    let drift = |reason, detail| Some(Drift { reason, detail });
    for family in TableFamily::BOTH {
        let place = format!("table {family} {TABLE}");
        let tables = (
            read.and_then(|ruleset| ruleset.table(family)),
            wanted.and_then(|ruleset| ruleset.table(family)),
        );
        match tables {
            (None, None) => {}
            (None, Some(_)) => return drift(DriftReason::Missing, format!("{place} is missing")),
            (Some(_), None) => return drift(DriftReason::Changed, format!("{place} exists")),
            (Some(read), Some(wanted)) => {
                if let Some(what) = table_difference(read, wanted) {
                    return drift(DriftReason::Changed, format!("{what} in {place}"));
                }
            }
        }
    }
    match (read, wanted) {
        (Some(read), Some(wanted)) if read.comment != wanted.comment => {
            drift(DriftReason::Changed, format!("the comment is {:?}", read.comment))
        }
        _ => None,
    }
}

fn table_difference(read: &Table, wanted: &Table) -> Option<String> {
    if let Some(name) = read.counters.symmetric_difference(&wanted.counters).next() {
        return Some(presence("counter", name, read.counters.contains(name)));
    }
    by_name("set", &read.sets, &wanted.sets, set_difference)
        .or_else(|| by_name("chain", &read.chains, &wanted.chains, chain_difference))
}

fn by_name<T>(
    what: &str,
    read: &BTreeMap<Name, T>,
    wanted: &BTreeMap<Name, T>,
    compare: impl Fn(&T, &T) -> Option<String>,
) -> Option<String> {
    for (name, item) in read {
        match wanted.get(name) {
            None => return Some(presence(what, name, true)),
            Some(wanted) => {
                if let Some(difference) = compare(item, wanted) {
                    return Some(format!("{what} {name} {difference}"));
                }
            }
        }
    }
    let missing = wanted.keys().find(|name| !read.contains_key(name))?;
    Some(presence(what, missing, false))
}

fn presence(what: &str, name: &Name, exists: bool) -> String {
    format!("{what} {name} {}", if exists { "exists" } else { "is missing" })
}

fn set_difference(read: &Set, wanted: &Set) -> Option<String> {
    if read.kind != wanted.kind {
        return Some(format!("is of type {}", read.kind));
    }
    // Both ascend, so that walking along both finds the first difference.
    let mut wanted = wanted.elements.iter();
    for element in &read.elements {
        match wanted.next() {
            Some(other) if other == element => {}
            Some(other) if other < element => return Some(format!("lacks {other}")),
            _ => return Some(format!("has {element}")),
        }
    }
    wanted.next().map(|missing| format!("lacks {missing}"))
}

fn chain_difference(read: &Chain, wanted: &Chain) -> Option<String> {
    if read.base != wanted.base {
        return Some("is on another hook".to_owned());
    }
    let first = read
        .rules
        .iter()
        .zip(&wanted.rules)
        .find(|(read, wanted)| read != wanted);
    match (first, read.rules.len(), wanted.rules.len()) {
        (Some((read, _)), _, _) => Some(format!("has rule `{read}`")),
        (None, read, wanted) if read != wanted => Some(format!("has {read} rules and not {wanted}")),
        _ => None,
    }
}
