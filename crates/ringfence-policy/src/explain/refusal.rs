//! Questions that have no answer.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ringfence_model::{NamespacedName, NetworkName};

/// Why there is nothing to judge. The texts are sentences without a capital and without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such pod.
    UnknownPod(NamespacedName),
    /// The pod shares its node's network, so it has no interface of its own (statement 21).
    HostNetwork {
        /// Which pod.
        pod: NamespacedName,
        /// Its node's addresses, as far as they are known.
        addresses: BTreeSet<IpAddr>,
    },
    /// Two addresses that no pod has.
    NoPod {
        /// The network that was asked about.
        network: Option<String>,
    },
    /// The ends do not meet.
    Apart {
        /// Who opens the connection, and the networks it is on.
        from: (String, BTreeSet<NetworkName>),
        /// To whom, and the networks it is on.
        to: (String, BTreeSet<NetworkName>),
        /// The network that was asked about.
        wanted: Option<String>,
    },
    /// They meet, but have no addresses that can be judged; a sentence per pair of interfaces.
    NoAddress(Vec<String>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPod(name) => write!(f, "there is no pod {name}"),
            Self::HostNetwork { pod, addresses } => {
                write!(
                    f,
                    "pod {pod} shares its node's network: policies never select it, and it has no address of its own; \
                     ask about an address of its node"
                )?;
                if !addresses.is_empty() {
                    write!(f, " ({})", list(addresses))?;
                }
                Ok(())
            }
            Self::NoPod { network: None } => {
                f.write_str("neither address belongs to a pod, so nothing here judges the connection")
            }
            Self::NoPod { network: Some(network) } => write!(
                f,
                "neither address belongs to a pod on network {network}, so nothing here judges the connection"
            ),
            Self::Apart { from, to, wanted } => {
                match wanted {
                    Some(network) => write!(f, "the ends do not meet on network {network}: ")?,
                    None => f.write_str("the ends share no network: ")?,
                }
                let place = |(name, networks): &(String, BTreeSet<NetworkName>)| {
                    if networks.is_empty() {
                        format!("{name} is on no network")
                    } else {
                        format!("{name} is on {}", list(networks))
                    }
                };
                write!(f, "{}; {}", place(from), place(to))
            }
            Self::NoAddress(pairs) => f.write_str(&pairs.join("; ")),
        }
    }
}

impl std::error::Error for Refusal {}

fn list<T: fmt::Display>(items: &BTreeSet<T>) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
