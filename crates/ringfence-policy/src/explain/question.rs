//! What people can ask, and how they write it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ringfence_model::{Family, InterfaceName, NamespacedName, NetworkName, Protocol};

use crate::evaluate::{L4, Party};

/// Who opens what to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who opens it.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// `None`: on every network on which they meet.
    pub network: Option<NetworkArg>,
    /// The protocol, and the destination port where it has ports.
    pub what: What,
    /// `None`: IPv4, or IPv6 where the ends do not both have IPv4.
    pub family: Option<Family>,
}

/// `namespace/pod` or an address.
impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod(NamespacedName::new(namespace, name)))
            }
            _ => Err(format!(
                "{:?} is neither NAMESPACE/POD nor an IP address",
                shortened(text)
            )),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What a connection carries, before its address family is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// To this port.
    Port {
        /// Which protocol.
        protocol: Protocol,
        /// The destination port, never 0.
        port: u16,
    },
    /// An echo request of either family.
    Echo,
    /// An ICMPv6 message by its type.
    Icmpv6 {
        /// Its type: 135 is a neighbour solicitation.
        message: u8,
    },
    /// A protocol without ports by its number.
    Other(u8),
}

impl What {
    /// The forms for people.
    pub const FORMS: &'static str =
        "80, 80/tcp, 80/udp, 80/sctp, icmp (an echo request), icmpv6/TYPE, or ip/NUMBER (another protocol, 47 for GRE)";

    /// What the oracle is asked in an address family; `None` where the family has no such thing.
    pub fn l4(self, family: Family) -> Option<L4> {
        match (self, family) {
            (Self::Port { protocol, port }, _) => Some(L4::port(protocol, port)),
            (Self::Echo, Family::V4) => Some(L4::Other(1)),
            (Self::Echo, Family::V6) => Some(L4::Icmpv6 { message: 128 }),
            (Self::Icmpv6 { message }, Family::V6) => Some(L4::Icmpv6 { message }),
            (Self::Icmpv6 { .. }, Family::V4) => None,
            (Self::Other(number), _) => Some(L4::Other(number)),
        }
    }

    /// `TCP`, `ICMP`, `ICMPv6`, `IP`: the field `protocol` of the JSON forms.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Port { protocol, .. } => protocol.as_str(),
            Self::Echo => "ICMP",
            Self::Icmpv6 { .. } => "ICMPv6",
            Self::Other(_) => "IP",
        }
    }

    /// The destination port, where there are ports.
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Port { port, .. } => Some(port),
            Self::Echo | Self::Icmpv6 { .. } | Self::Other(_) => None,
        }
    }

    /// The type of an ICMPv6 message, the number of another protocol.
    pub fn number(self) -> Option<u8> {
        match self {
            Self::Icmpv6 { message: number } | Self::Other(number) => Some(number),
            Self::Port { .. } | Self::Echo => None,
        }
    }
}

/// `TCP 80`, `ICMP echo`, `ICMPv6 type 135`, `IP protocol 47`.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { protocol, port } => write!(f, "{protocol} {port}"),
            Self::Echo => f.write_str("ICMP echo"),
            Self::Icmpv6 { message } => write!(f, "ICMPv6 type {message}"),
            Self::Other(number) => write!(f, "IP protocol {number}"),
        }
    }
}

/// See [`What::FORMS`]; case does not matter.
impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{:?} is no port: it is {}", shortened(text), Self::FORMS);
        let lower = text.trim().to_ascii_lowercase();
        let (first, second) = match lower.split_once('/') {
            Some((first, second)) => (first, Some(second)),
            None => (lower.as_str(), None),
        };
        match (first, second) {
            ("icmp", None | Some("echo")) => return Ok(Self::Echo),
            ("icmpv6", Some(message)) => {
                let message = message.parse().map_err(|_| wrong())?;
                return Ok(Self::Icmpv6 { message });
            }
            ("ip", Some(number)) => {
                return match number.parse().map_err(|_| wrong())? {
                    6 | 17 | 132 => Err(format!("{text:?} has ports: write 80/tcp, 80/udp or 80/sctp")),
                    58 => Err(format!("{text:?}: write icmp for an echo request, or icmpv6/TYPE")),
                    number => Ok(Self::Other(number)),
                };
            }
            _ => {}
        }
        let protocol = match second {
            None | Some("tcp") => Protocol::Tcp,
            Some("udp") => Protocol::Udp,
            Some("sctp") => Protocol::Sctp,
            Some(_) => return Err(wrong()),
        };
        if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        match first.parse() {
            Ok(0) | Err(_) => Err(format!("{:?}: a port is a number from 1 to 65535", shortened(text))),
            Ok(port) => Ok(Self::Port { protocol, port }),
        }
    }
}

/// A network as people write it in `policy-for`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkArg {
    /// `default`, `namespace/name`, `interface:eth1`.
    Name(NetworkName),
    /// `name`: a definition in some namespace, or a plugin of CNI-Genie.
    Bare(Arc<str>),
}

impl NetworkArg {
    /// The networks that it can mean to policies of these namespaces; where none of those is known, the known ones of
    /// that name in any namespace.
    pub fn names<'a>(
        &self,
        namespaces: impl IntoIterator<Item = &'a Arc<str>>,
        known: &BTreeSet<NetworkName>,
    ) -> Vec<NetworkName> {
        let name = match self {
            Self::Name(name) => return vec![name.clone()],
            Self::Bare(name) => name,
        };
        let mut names: Vec<NetworkName> = Vec::new();
        for namespace in namespaces {
            let network = NetworkName::Namespaced(NamespacedName::new(namespace.clone(), name.clone()));
            if !names.contains(&network) {
                names.push(network);
            }
        }
        names.push(NetworkName::Plugin(name.clone()));
        if names.iter().any(|name| known.contains(name)) {
            return names;
        }
        let elsewhere = known
            .iter()
            .filter(|network| matches!(network, NetworkName::Namespaced(other) if other.name == *name));
        elsewhere.cloned().collect()
    }
}

impl fmt::Display for NetworkArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Bare(name) => f.write_str(name),
        }
    }
}

impl FromStr for NetworkArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{:?} is no network: it is default, NAMESPACE/NAME, NAME or interface:NAME",
                shortened(text)
            )
        };
        if text == "default" {
            return Ok(Self::Name(NetworkName::Default));
        }
        if let Some(name) = text.strip_prefix("interface:") {
            let name = InterfaceName::new(name).map_err(|error| error.to_string())?;
            return Ok(Self::Name(NetworkName::Interface(name)));
        }
        let valid = |part: &str| !part.is_empty() && !part.contains(|it: char| it == '/' || it.is_whitespace());
        match text.split_once('/') {
            Some((namespace, name)) if valid(namespace) && valid(name) => Ok(Self::Name(NetworkName::Namespaced(
                NamespacedName::new(namespace, name),
            ))),
            None if valid(text) => Ok(Self::Bare(text.into())),
            _ => Err(wrong()),
        }
    }
}

/// What people typed, cut so that it fits into a sentence.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<What>) {
        assert_eq!(text.parse::<What>().ok(), expected, "{text:?}");
    }

    #[test]
    fn ports() {
        let port = |protocol, port| Some(What::Port { protocol, port });
        check("80", port(Protocol::Tcp, 80));
        check("80/tcp", port(Protocol::Tcp, 80));
        check("53/UDP", port(Protocol::Udp, 53));
        check("65535/sctp", port(Protocol::Sctp, 65535));
        check("icmp", Some(What::Echo));
        check("ICMP/echo", Some(What::Echo));
        check("icmpv6/135", Some(What::Icmpv6 { message: 135 }));
        check("ip/47", Some(What::Other(47)));
        for bad in [
            "",
            "0",
            "65536",
            "+80",
            "-1",
            "80/",
            "80/tpc",
            "tcp",
            "http",
            "/tcp",
            "80/tcp/x",
            "icmp/8",
            "icmpv6",
            "icmpv6/256",
            "ip/6",
            "ip/58",
            "ip/256",
            "ip/",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn networks() {
        let known = |names: &[&str]| -> BTreeSet<NetworkName> {
            names
                .iter()
                .map(|name| match name.split_once('/') {
                    Some((namespace, name)) => NetworkName::Namespaced(NamespacedName::new(namespace, name)),
                    None => NetworkName::Plugin((*name).into()),
                })
                .collect()
        };
        let check = |text: &str, names: &[&str], expected: &[&str]| {
            let argument: NetworkArg = text.parse().expect("a network");
            let namespaces: [Arc<str>; 2] = ["shop".into(), "bank".into()];
            let found = argument.names(&namespaces, &known(names));
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("default", &[], &["default"]);
        check("interface:eth1", &[], &["interface:eth1"]);
        check("x/net-a", &[], &["x/net-a"]);
        check("weave", &["weave"], &["shop/weave", "bank/weave", "weave"]);
        check("net-a", &["bank/net-a"], &["shop/net-a", "bank/net-a", "net-a"]);
        check("net-a", &["infra/net-a"], &["infra/net-a"]);
        check("net-a", &["infra/net-b"], &[]);
        for bad in ["", "/x", "x/", "a/b/c", "a b", "interface:", "interface:a/b"] {
            assert!(bad.parse::<NetworkArg>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parties() {
        assert_eq!("::1".parse(), Ok(Party::Address("::1".parse().expect("an address"))));
        assert_eq!("a/b".parse(), Ok(Party::Pod(NamespacedName::new("a", "b"))));
        for bad in ["", "a", "a/", "/b", "a/b/c", "10.0.0.256"] {
            assert!(bad.parse::<Party>().is_err(), "{bad:?}");
        }
    }
}
