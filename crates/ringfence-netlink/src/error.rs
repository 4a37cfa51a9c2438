//! What can go wrong with the kernel, in words for the operator.

use std::fmt;
use std::io;

use ringfence_ruleset::{Op, TableFamily};

use crate::encode::TABLE;

/// Why the kernel does not have the wanted ruleset.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on the netlink socket failed.
    #[error("netlink socket: cannot {action}: {source}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel refused the transaction. Nothing of it happened; the previous rules stand.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The table belongs to a living netlink socket of somebody else, so the kernel lets nobody else change it.
    #[error(
        "table {family} {TABLE} is owned by another process that is running (netlink port {port}); stop it, or wait \
         until it has ended: another ringfence agent on this node?"
    )]
    Owned {
        /// Which table.
        family: TableFamily,
        /// The owner's port; usually its process id.
        port: u32,
    },
    /// The kernel did not answer a request within 5 seconds, or the answer was lost. If it was a transaction, whether
    /// it happened is unknown; the next one reads the tables first.
    #[error("the kernel gave no answer to {0}; the tables are read again before the next change")]
    NoAnswer(&'static str),
    /// Somebody changes nftables in this namespace faster than it can be read.
    #[error("nftables in this namespace keeps changing while it is read ({attempts} attempts)")]
    Busy {
        /// Number of attempts.
        attempts: usize,
    },
    /// An answer that does not follow the format.
    #[error("the kernel's answer to {0} cannot be parsed")]
    Malformed(&'static str),
    /// Something that the wire format or the kernel has no room for.
    #[error("cannot be sent to the kernel: {0}")]
    NotEncodable(String),
    /// The kernel lacks something that only [`crate::connections`] needs. Rulesets work without it.
    #[error(
        "this kernel lacks {0}: connections that are open when a pod is first isolated are judged by their next packet"
    )]
    Lacks(&'static str),
    /// The caller had been replaced before anything was sent.
    #[error("another one has taken over")]
    Superseded,
    /// The transaction was acknowledged, and the tables are read back as something else, repeatedly.
    #[error("the kernel acknowledged the ruleset but does not hold it: {0}")]
    Differs(String),
}

/// An operation that the kernel refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The object and what was to be done with it: `chain net1-backstop of table netdev ringfence`.
    pub operation: String,
    /// The system's error number, positive.
    pub errno: i32,
    /// The kernel's own words, if it gave any.
    pub detail: Option<String>,
}

impl Refusal {
    /// What the operator can do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self.errno {
            libc::EPERM => Some(
                "needs CAP_NET_ADMIN in the namespace, and a table that another process owns can only be changed by it",
            ),
            libc::EOPNOTSUPP => Some(
                "this kernel lacks the feature, or the table exists with other flags; start again so that the kernel's \
                 features are probed anew",
            ),
            libc::ENOENT if self.operation.contains("netdev") => {
                Some("does the interface exist in the namespace, and does the kernel have nf_tables for netdev?")
            }
            libc::ENODEV => Some("the interface does not exist in the namespace"),
            libc::ENOENT => Some("something that it names does not exist, or the kernel lacks a module for it"),
            libc::ENFILE => Some("the set is full"),
            libc::EMFILE => Some("a limit on the number of objects is reached"),
            libc::ENOMEM | libc::ENOBUFS => Some("the kernel is short of memory"),
            libc::EEXIST => Some("it exists already, or overlaps with what exists"),
            libc::EBUSY => Some("it is still in use"),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refused {}: {}", self.operation, errno_text(self.errno))?;
        if let Some(detail) = &self.detail {
            write!(f, ", \"{detail}\"")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// `No such device (ENODEV)`
fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    // The standard library appends the number; the name says the same and can be searched for.
    let text = text.split(" (os error").next().unwrap_or_default();
    match errno_name(errno) {
        Some(name) => format!("{text} ({name})"),
        None => format!("{text} (error {errno})"),
    }
}

fn errno_name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EINTR => "EINTR",
        libc::E2BIG => "E2BIG",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::EMLINK => "EMLINK",
        libc::ERANGE => "ERANGE",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ELOOP => "ELOOP",
        libc::EPROTO => "EPROTO",
        libc::EOVERFLOW => "EOVERFLOW",
        libc::ERESTART => "ERESTART",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::ENOBUFS => "ENOBUFS",
        libc::ETIMEDOUT => "ETIMEDOUT",
        _ => return None,
    })
}

/// An operation as part of a sentence.
pub(crate) fn describe(op: &Op) -> String {
    let table = format!("table {} {TABLE}", op.family());
    match op {
        Op::AddTable { .. } => table,
        Op::DelTable { .. } => format!("the removal of {table}"),
        Op::AddCounter { name, .. } => format!("counter {name} of {table}"),
        Op::DelCounter { name, .. } => format!("the removal of counter {name} of {table}"),
        Op::AddSet { name, .. } => format!("set {name} of {table}"),
        Op::DelSet { name, .. } => format!("the removal of set {name} of {table}"),
        Op::AddElements { set, elements, .. } => format!("{} in set {set} of {table}", some(elements)),
        Op::DelElements { set, elements, .. } => format!("the removal of {} from set {set} of {table}", some(elements)),
        Op::AddChain { name, .. } => format!("chain {name} of {table}"),
        Op::FlushChain { name, .. } => format!("the flush of chain {name} of {table}"),
        Op::DelChain { name, .. } => format!("the removal of chain {name} of {table}"),
        Op::AddRule { chain, rule, .. } => format!("rule `{rule}` in chain {chain} of {table}"),
    }
}

fn some(elements: &[ringfence_ruleset::Element]) -> String {
    match elements {
        [only] => format!("element {only}"),
        [first, .., last] => format!("{} elements ({first} to {last})", elements.len()),
        [] => "no elements".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ringfence_ruleset::Name;

    use super::*;

    #[test]
    fn a_refusal_names_object_reason_and_what_to_do() {
        let op = Op::AddChain {
            family: TableFamily::Netdev,
            name: Name::new("net1-backstop"),
            base: None,
        };
        let refusal = Refusal {
            operation: describe(&op),
            errno: libc::ENODEV,
            detail: Some("no luck".to_owned()),
        };
        assert_eq!(
            Error::Refused(Box::new(refusal)).to_string(),
            "the kernel refused chain net1-backstop of table netdev ringfence: No such device (ENODEV), \"no luck\" \
             (the interface does not exist in the namespace)"
        );
    }
}
