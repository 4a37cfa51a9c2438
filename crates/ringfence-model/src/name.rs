//! Names: namespaced objects, networks, interfaces, ports, pod identities.
//!
//! The constructors are the only way in, so no unparsed text of an annotation reaches the kernel
//! (invariant 9 of ARCHITECTURE.md).

use std::fmt::{self, Write as _};
use std::sync::Arc;

/// A text that cannot be the name of such a thing, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}: {why}")]
pub struct InvalidName {
    /// The offending text, cut after 64 characters.
    pub text: String,
    /// What it should have named, for example `interface name`.
    pub what: &'static str,
    /// Which condition it violates.
    pub why: &'static str,
}

impl InvalidName {
    fn new(text: &str, what: &'static str, why: &'static str) -> Self {
        Self {
            text: text.chars().take(64).collect(),
            what,
            why,
        }
    }
}

/// `namespace/name` of a namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The namespace, never empty.
    pub namespace: Arc<str>,
    /// The name, never empty.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// Joins two names that the caller has taken from an object.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Identity of one pod object. A pod that is deleted and created again under its old name has another one
/// (statement 135).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// Accepts 1 to 128 characters out of letters, digits, `-`, `.`, `/`, `:` and `_`. Kubernetes writes UUIDs;
    /// the directory source makes `namespace/name` of a pod without one.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let why = if text.is_empty() {
            "it is empty"
        } else if text.len() > 128 {
            "it is longer than 128 characters"
        } else if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-./:_".contains(&b)) {
            "it has a character outside of letters, digits, '-', '.', '/', ':' and '_'"
        } else {
            return Ok(Self(text.into()));
        };
        Err(InvalidName::new(text, "pod UID", why))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Linux interface name that is safe in nft text and in netlink messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Arc<str>);

impl InterfaceName {
    /// Accepts what the kernel accepts (1 to 15 bytes, no `/`, `:` or blank, not `.` or `..`; `dev_valid_name`),
    /// and of that only printable ASCII without `"`, `\` and `*`, which mean something in nft text.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let why = if text.is_empty() {
            "it is empty"
        } else if text.len() > 15 {
            "it is longer than 15 bytes"
        } else if text == "." || text == ".." {
            "the kernel reserves it"
        } else if text.bytes().any(|b| b == b'/' || b == b':') {
            "it contains '/' or ':'"
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            "it contains a blank, a control character or a character outside of ASCII"
        } else if text.bytes().any(|b| b"\"\\*".contains(&b)) {
            "it contains a quote, a backslash or an asterisk"
        } else {
            return Ok(Self(text.into()));
        };
        Err(InvalidName::new(text, "interface name", why))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the start of an nft identifier (chains, sets, counters): itself where it is one already,
    /// otherwise with every other byte as `/xx` in hexadecimal, and `if` in front where it does not begin with a
    /// letter. No interface name contains `/`, so two names never meet.
    pub fn as_identifier(&self) -> String {
        let mut out = String::with_capacity(self.0.len() + 4);
        for (position, byte) in self.0.bytes().enumerate() {
            let letter = byte.is_ascii_alphabetic();
            let plain = letter || byte.is_ascii_digit() || b"-_.".contains(&byte);
            if position == 0 && !letter {
                out.push_str("if");
            }
            if plain && (position > 0 || letter) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "/{byte:02x}");
            }
        }
        out
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an interface is attached to. Two attachments meet where they share a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkName {
    /// The cluster network, which all pods share whatever plugin made it.
    Default,
    /// A NetworkAttachmentDefinition or a CNI-Genie LogicalNetwork.
    Namespaced(NamespacedName),
    /// A bare CNI-Genie plugin (`weave`), or the CNI configuration that made the cluster network (`cbr0`).
    Plugin(Arc<str>),
    /// An interface whose network nobody has named. Pods that are built the same way still meet there.
    Interface(InterfaceName),
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Namespaced(name) => name.fmt(f),
            Self::Plugin(name) => f.write_str(name),
            Self::Interface(name) => write!(f, "interface:{name}"),
        }
    }
}

/// Name of a container port (statement 98): 1 to 15 characters of `a-z`, `0-9` and `-`, with at least one letter,
/// no `-` at either end and no two in a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName(Arc<str>);

impl PortName {
    /// Accepts what Kubernetes accepts (IANA service names, RFC 6335 section 5.1).
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let why = if text.is_empty() {
            "it is empty"
        } else if text.len() > 15 {
            "it is longer than 15 characters"
        } else if !text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            "it has a character outside of a-z, 0-9 and '-'"
        } else if !text.bytes().any(|b| b.is_ascii_lowercase()) {
            "it has no letter (a port number is written without quotes)"
        } else if text.starts_with('-') || text.ends_with('-') || text.contains("--") {
            "it begins or ends with '-' or has two of them in a row"
        } else {
            return Ok(Self(text.into()));
        };
        Err(InvalidName::new(text, "port name", why))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_that_could_break_out_of_nft_text_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "a\"b",
            "eth*",
            "sixteen-bytes-xx",
            "n\u{fc}",
            "a\nb",
            "a\\b",
        ] {
            assert!(InterfaceName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["eth0", "net1", "eth0.100", "ib0", "a@b", "0net", "fifteen-bytes-x"] {
            assert!(InterfaceName::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn identifiers_begin_with_a_letter_and_never_meet() {
        for (name, identifier) in [
            ("net1", "net1"),
            ("eth0.100", "eth0.100"),
            ("a@b", "a/40b"),
            ("0net", "if/30net"),
            ("-x", "if/2dx"),
        ] {
            assert_eq!(InterfaceName::new(name).unwrap().as_identifier(), identifier);
        }
    }

    #[test]
    fn s098_s220_port_names() {
        for bad in ["", "80", "Http", "a--b", "-a", "a-", "sixteen-letters-x", "a_b"] {
            assert!(PortName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["http", "p8080", "8080-tcp", "a"] {
            assert!(PortName::new(good).is_ok(), "{good:?}");
        }
    }
}
