//! One step of a kernel transaction.

use std::fmt;
use std::sync::Arc;

use crate::render::{base_chain, comment_text};
use crate::{BaseChain, Element, Name, Rule, SetKind};

/// Name of both tables.
pub(crate) const TABLE: &str = "ringfence";

/// Which of the two tables. `inet` comes first wherever both are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// `table inet ringfence`: everything that is judged by address, port and connection.
    Inet,
    /// `table netdev ringfence`: the backstops against packets that skip the IP stack.
    Netdev,
}

impl TableFamily {
    /// Both, `inet` first.
    pub const BOTH: [Self; 2] = [Self::Inet, Self::Netdev];

    /// As nft writes it: `inet`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        }
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One operation on the kernel's tables. A list of them is one batch: all of it happens, or nothing.
///
/// None asks for `NLM_F_EXCL` or `NLM_F_NONREC`: adding a table that exists does nothing, deleting a table deletes
/// its contents, and deleting a set deletes its elements. Everything else that a strict kernel could refuse (adding
/// what exists, deleting what is referenced or absent) does not occur in what [`crate::transaction`] returns.
///
/// Its `Display` is one nft command, so that the list joined by newlines is a script that `nft -f` runs as one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Makes the table where it does not exist. A table that exists keeps its comment.
    AddTable {
        /// Which table.
        family: TableFamily,
        /// Its comment, as in [`crate::Ruleset::comment`]; empty for none.
        comment: Arc<str>,
    },
    /// Removes the table with everything in it.
    DelTable {
        /// Which table.
        family: TableFamily,
    },
    /// Makes a named counter at zero.
    AddCounter {
        /// Which table.
        family: TableFamily,
        /// The counter.
        name: Name,
    },
    /// Removes a counter that no rule names any more.
    DelCounter {
        /// Which table.
        family: TableFamily,
        /// The counter.
        name: Name,
    },
    /// Makes an empty set.
    AddSet {
        /// Which table.
        family: TableFamily,
        /// The set.
        name: Name,
        /// Type of its elements.
        kind: SetKind,
    },
    /// Removes a set that no rule names any more, with its elements.
    DelSet {
        /// Which table.
        family: TableFamily,
        /// The set.
        name: Name,
    },
    /// Puts elements into a set that do not overlap with what is there.
    AddElements {
        /// Which table.
        family: TableFamily,
        /// The set.
        set: Name,
        /// Type of its elements.
        kind: SetKind,
        /// At least one element, ascending.
        elements: Vec<Element>,
    },
    /// Takes elements out of a set that holds them.
    DelElements {
        /// Which table.
        family: TableFamily,
        /// The set.
        set: Name,
        /// Type of its elements.
        kind: SetKind,
        /// At least one element, ascending.
        elements: Vec<Element>,
    },
    /// Makes an empty chain.
    AddChain {
        /// Which table.
        family: TableFamily,
        /// The chain.
        name: Name,
        /// Its hook; `None` for a regular chain.
        base: Option<BaseChain>,
    },
    /// Removes the rules of a chain, and with them their references.
    FlushChain {
        /// Which table.
        family: TableFamily,
        /// The chain.
        name: Name,
    },
    /// Removes an empty chain that no rule names any more.
    DelChain {
        /// Which table.
        family: TableFamily,
        /// The chain.
        name: Name,
    },
    /// Appends a rule.
    AddRule {
        /// Which table.
        family: TableFamily,
        /// The chain.
        chain: Name,
        /// The rule.
        rule: Rule,
    },
}

impl Op {
    /// Which table it works on.
    pub fn family(&self) -> TableFamily {
        match self {
            Self::AddTable { family, .. }
            | Self::DelTable { family }
            | Self::AddCounter { family, .. }
            | Self::DelCounter { family, .. }
            | Self::AddSet { family, .. }
            | Self::DelSet { family, .. }
            | Self::AddElements { family, .. }
            | Self::DelElements { family, .. }
            | Self::AddChain { family, .. }
            | Self::FlushChain { family, .. }
            | Self::DelChain { family, .. }
            | Self::AddRule { family, .. } => *family,
        }
    }

    /// Whether it only adds or removes elements of a set (statement 230).
    pub fn is_elements(&self) -> bool {
        matches!(self, Self::AddElements { .. } | Self::DelElements { .. })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable { family, comment } if comment.is_empty() => write!(f, "add table {family} {TABLE}"),
            Self::AddTable { family, comment } => {
                write!(
                    f,
                    "add table {family} {TABLE} {{ comment \"{}\"; }}",
                    comment_text(comment)
                )
            }
            Self::DelTable { family } => write!(f, "delete table {family} {TABLE}"),
            Self::AddCounter { family, name } => write!(f, "add counter {family} {TABLE} {name}"),
            Self::DelCounter { family, name } => write!(f, "delete counter {family} {TABLE} {name}"),
            Self::AddSet { family, name, kind } => {
                write!(f, "add set {family} {TABLE} {name} {{ type {kind};")?;
                if kind.is_interval() {
                    f.write_str(" flags interval;")?;
                }
                f.write_str(" }")
            }
            Self::DelSet { family, name } => write!(f, "delete set {family} {TABLE} {name}"),
            Self::AddElements {
                family, set, elements, ..
            } => {
                write!(f, "add element {family} {TABLE} {set} ")?;
                braced(f, elements)
            }
            Self::DelElements {
                family, set, elements, ..
            } => {
                write!(f, "delete element {family} {TABLE} {set} ")?;
                braced(f, elements)
            }
            Self::AddChain { family, name, base } => {
                write!(f, "add chain {family} {TABLE} {name}")?;
                match base {
                    Some(base) => write!(f, " {{ {} }}", base_chain(*family, base)),
                    None => Ok(()),
                }
            }
            Self::FlushChain { family, name } => write!(f, "flush chain {family} {TABLE} {name}"),
            Self::DelChain { family, name } => write!(f, "delete chain {family} {TABLE} {name}"),
            Self::AddRule { family, chain, rule } => write!(f, "add rule {family} {TABLE} {chain} {rule}"),
        }
    }
}

fn braced(f: &mut fmt::Formatter<'_>, elements: &[Element]) -> fmt::Result {
    f.write_str("{ ")?;
    for (position, element) in elements.iter().enumerate() {
        write!(f, "{}{element}", if position == 0 { "" } else { ", " })?;
    }
    f.write_str(" }")
}
