//! Whether the kernel would take a ruleset, and whether the tracer can judge it.
//!
//! The compiler makes rulesets without faults; this is the net under it, for tests, for the tracer (which must never
//! pass a packet because of something it does not understand), and for rulesets that were read back from a kernel.

use std::collections::HashMap;
use std::fmt;

use ringfence_model::{Family, Protocol};

use crate::packet::icmp_number;
use crate::render::comment_text;
use crate::{BaseChain, Element, Hook, Key, Match, Name, Ruleset, SetKind, Table, TableFamily, Verdict};

/// The kernel follows 15 jumps or gotos from a base chain (`NFT_JUMP_STACK_SIZE`, EMLINK beyond).
const MAX_DEPTH: usize = 16;

/// Conntrack gives a packet its connection at this priority of prerouting and output (`NF_IP_PRI_CONNTRACK`).
const CONNTRACK_PRIORITY: i32 = -200;

/// A rule's place in a ruleset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which table.
    pub family: TableFamily,
    /// Which chain.
    pub chain: Name,
    /// Its position in the chain, from 0.
    pub rule: usize,
}

/// `inet net1-in, rule 3`, counted from 1 as people do.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, rule {}", self.family, self.chain, self.rule + 1)
    }
}

/// Why a ruleset cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A rule looks something up in a set that is not there (kernel: ENOENT).
    #[error("{place}: there is no set {set}")]
    MissingSet {
        /// The rule.
        place: Place,
        /// The name that it gives.
        set: Name,
    },
    /// A rule looks up a key that a set of this kind does not hold (kernel: EINVAL, or never a match).
    #[error("{place}: `{key}` cannot be looked up in set {set} of type {kind}")]
    KindMismatch {
        /// The rule.
        place: Place,
        /// What it looks up.
        key: Key,
        /// Where.
        set: Name,
        /// What the set holds.
        kind: SetKind,
    },
    /// A rule goes to a chain that is not there (kernel: ENOENT).
    #[error("{place}: there is no chain {chain}")]
    MissingChain {
        /// The rule.
        place: Place,
        /// The name that it gives.
        chain: Name,
    },
    /// A rule goes to a base chain (kernel: EOPNOTSUPP).
    #[error("{place}: {chain} is a base chain, nothing can jump to it")]
    BaseChainAsTarget {
        /// The rule.
        place: Place,
        /// The base chain.
        chain: Name,
    },
    /// A rule counts in a counter that is not there (kernel: ENOENT).
    #[error("{place}: there is no counter {counter}")]
    MissingCounter {
        /// The rule.
        place: Place,
        /// The name that it gives.
        counter: Name,
    },
    /// A chain leads back to itself (kernel: ELOOP).
    #[error("{family} {chain} leads back to itself")]
    Loop {
        /// Which table.
        family: TableFamily,
        /// One of the chains of the circle.
        chain: Name,
    },
    /// More than 16 chains, one leading to the next (kernel: EMLINK).
    #[error("{family} {chain} is reached only through 16 other chains, which is too deep for the kernel")]
    TooDeep {
        /// Which table.
        family: TableFamily,
        /// The chain that is too deep.
        chain: Name,
    },
    /// A condition that has no meaning, or none that Ringfence relies on, in this hook.
    #[error("{place}: `{condition}` says nothing in hook {hook}")]
    NotHere {
        /// The rule.
        place: Place,
        /// The condition.
        condition: Match,
        /// The hook of the base chain that leads to it.
        hook: Hook,
    },
    /// A condition of the other table: `ct` in `netdev` (kernel: EPROTO), EtherTypes in `inet`.
    #[error("{place}: `{condition}` does not belong into this table")]
    WrongTable {
        /// The rule.
        place: Place,
        /// The condition.
        condition: Match,
    },
    /// A condition with a number outside of what it is defined for: a port range backwards, an ICMPv6 type that is
    /// no neighbour or listener discovery.
    #[error("{place}: `{condition}` is not defined")]
    Undefined {
        /// The rule.
        place: Place,
        /// The condition.
        condition: Match,
    },
    /// Two conditions of a rule that no packet fulfils together: IPv4 and IPv6, TCP and ICMP. The kernel would take
    /// it, nft refuses it ("conflicting protocols"), and nobody can have meant it.
    #[error("{place}: `{first}` and `{second}` exclude each other")]
    Contradiction {
        /// The rule.
        place: Place,
        /// One condition.
        first: Match,
        /// The other one.
        second: Match,
    },
    /// A comment that nft could not list and load again: more than 120 bytes, not printable ASCII, or with a quote.
    #[error("{0:?} cannot be the comment of a table")]
    Comment(String),
    /// A base chain on a hook that its table does not have.
    #[error("{family} {chain}: there is no hook {hook} in this table")]
    WrongHook {
        /// Which table.
        family: TableFamily,
        /// The base chain.
        chain: Name,
        /// The hook.
        hook: Hook,
    },
    /// An element of another type than its set.
    #[error("{family} set {set}: {element} is not of type {kind}")]
    ForeignElement {
        /// Which table.
        family: TableFamily,
        /// The set.
        set: Name,
        /// What it should hold.
        kind: SetKind,
        /// The element.
        element: Element,
    },
    /// Two ranges of a set overlap (kernel: EEXIST).
    #[error("{family} set {set}: {first} and {second} overlap")]
    Overlap {
        /// Which table.
        family: TableFamily,
        /// The set.
        set: Name,
        /// One range.
        first: Element,
        /// The next one.
        second: Element,
    },
}

/// Looks at everything: references, types, elements, jumps, and where each condition is used. The time grows with the
/// size of the ruleset, elements included. The first fault found is returned, always the same one.
pub fn check(ruleset: &Ruleset) -> Result<(), Fault> {
    if comment_text(&ruleset.comment) != *ruleset.comment {
        return Err(Fault::Comment(ruleset.comment.to_string()));
    }
    for (family, table) in ruleset.tables() {
        for (name, set) in &table.sets {
            check_elements(family, name, set.kind, set.elements.iter().copied())?;
        }
        let mut walk = Walk {
            family,
            table,
            hook: None,
            path: Vec::new(),
            depths: HashMap::new(),
        };
        // First on their own, so that faults of chains that nothing leads to are found too.
        for name in table.chains.keys() {
            walk.chain(name)?;
        }
        for (name, chain) in table.chains.iter() {
            let Some(base) = &chain.base else { continue };
            if (family == TableFamily::Netdev) != matches!(base.hook, Hook::Egress(_)) {
                return Err(Fault::WrongHook {
                    family,
                    chain: name.clone(),
                    hook: base.hook.clone(),
                });
            }
            walk.hook = Some(base);
            walk.depths.clear();
            walk.chain(name)?;
        }
    }
    Ok(())
}

fn check_elements(
    family: TableFamily,
    set: &Name,
    kind: SetKind,
    elements: impl Iterator<Item = Element>,
) -> Result<(), Fault> {
    let mut previous: Option<Element> = None;
    for element in elements {
        if !kind.fits(&element) {
            return Err(Fault::ForeignElement {
                family,
                set: set.clone(),
                kind,
                element,
            });
        }
        // Sorted by their first address, so ranges that overlap include two neighbours that do.
        if let (Some(Element::Range(before)), Element::Range(range)) = (previous, element)
            && range.first() <= before.last()
        {
            return Err(Fault::Overlap {
                family,
                set: set.clone(),
                first: Element::Range(before),
                second: element,
            });
        }
        previous = Some(element);
    }
    Ok(())
}

/// Whether a key is what a set of this kind holds.
pub(crate) fn key_fits(key: Key, kind: SetKind) -> bool {
    match key {
        Key::Service(family, _, _) => kind == SetKind::Services(family),
        Key::Address(family, _) | Key::CtOriginalSource(family) | Key::CtReplySource(family) => {
            kind == SetKind::Addresses(family) || kind == SetKind::Ranges(family)
        }
        Key::Port(_) => kind == SetKind::Ports,
    }
}

/// A walk through the chains that one chain leads to.
struct Walk<'r> {
    family: TableFamily,
    table: &'r Table,
    /// The base chain that the walk began in; `None` while a chain is looked at on its own.
    hook: Option<&'r BaseChain>,
    /// The chains that lead to the current one.
    path: Vec<Name>,
    /// The greatest depth at which a chain has been looked at: less deep there is nothing new to find.
    depths: HashMap<Name, usize>,
}

impl Walk<'_> {
    fn chain(&mut self, name: &Name) -> Result<(), Fault> {
        let depth = self.path.len();
        if self.path.contains(name) {
            return Err(Fault::Loop {
                family: self.family,
                chain: name.clone(),
            });
        }
        if depth == MAX_DEPTH {
            return Err(Fault::TooDeep {
                family: self.family,
                chain: name.clone(),
            });
        }
        if self.depths.get(name).is_some_and(|&seen| seen >= depth) {
            return Ok(());
        }
        self.depths.insert(name.clone(), depth);
        let Some(chain) = self.table.chains.get(name) else {
            return Ok(());
        };
        self.path.push(name.clone());
        for (position, rule) in chain.rules.iter().enumerate() {
            let place = || Place {
                family: self.family,
                chain: name.clone(),
                rule: position,
            };
            for condition in &rule.matches {
                self.condition(condition, place)?;
            }
            if let Some((first, second)) = contradiction(&rule.matches) {
                return Err(Fault::Contradiction {
                    place: place(),
                    first: first.clone(),
                    second: second.clone(),
                });
            }
            if let Some(counter) = &rule.counter
                && !self.table.counters.contains(counter)
            {
                return Err(Fault::MissingCounter {
                    place: place(),
                    counter: counter.clone(),
                });
            }
            if let Verdict::Goto(target) | Verdict::Jump(target) = &rule.verdict {
                self.target(target, place)?;
                self.chain(target)?;
            }
        }
        self.path.pop();
        Ok(())
    }

    fn target(&self, target: &Name, place: impl Fn() -> Place) -> Result<(), Fault> {
        match self.table.chains.get(target) {
            None => Err(Fault::MissingChain {
                place: place(),
                chain: target.clone(),
            }),
            Some(chain) if chain.base.is_some() => Err(Fault::BaseChainAsTarget {
                place: place(),
                chain: target.clone(),
            }),
            Some(_) => Ok(()),
        }
    }

    fn condition(&self, condition: &Match, place: impl Fn() -> Place) -> Result<(), Fault> {
        let belongs = match condition {
            Match::Routed | Match::EtherType(_) => self.family == TableFamily::Netdev,
            // Read from the packet itself. Before the IP stack nobody has put fragments together, and there the kernel
            // (6.18) takes what stands at this place in a later fragment for ports, too.
            Match::Ports(..) => true,
            _ => self.family == TableFamily::Inet,
        };
        if !belongs {
            return Err(Fault::WrongTable {
                place: place(),
                condition: condition.clone(),
            });
        }
        if !is_defined(condition) {
            return Err(Fault::Undefined {
                place: place(),
                condition: condition.clone(),
            });
        }
        if let Some(base) = self.hook
            && !is_known_at(condition, base)
        {
            return Err(Fault::NotHere {
                place: place(),
                condition: condition.clone(),
                hook: base.hook.clone(),
            });
        }
        let (key, name, fits): (_, _, fn(Key, SetKind) -> bool) = match condition {
            Match::InSet(key, name) => (key, name, key_fits),
            // First addresses of networks, and no ranges.
            Match::InNetworks(key, _, name) => (key, name, |key, kind| key_fits(key, kind) && !kind.is_interval()),
            _ => return Ok(()),
        };
        match self.table.sets.get(name) {
            None => Err(Fault::MissingSet {
                place: place(),
                set: name.clone(),
            }),
            Some(set) if !fits(*key, set.kind) => Err(Fault::KindMismatch {
                place: place(),
                key: *key,
                set: name.clone(),
                kind: set.kind,
            }),
            Some(_) => Ok(()),
        }
    }
}

/// The first two conditions that exclude each other by address family or by protocol.
fn contradiction(matches: &[Match]) -> Option<(&Match, &Match)> {
    let exclude = |first: &Match, second: &Match| {
        let families = family_of(first).zip(family_of(second));
        let protocols = protocol_of(first).zip(protocol_of(second));
        families.is_some_and(|(one, other)| one != other) || protocols.is_some_and(|(one, other)| one != other)
    };
    matches.iter().enumerate().find_map(|(position, second)| {
        let first = matches[..position].iter().find(|first| exclude(first, second))?;
        Some((first, second))
    })
}

/// The address family that a condition implies. ICMP over IPv6 is odd, but can be sent.
fn family_of(condition: &Match) -> Option<Family> {
    match condition {
        Match::Nfproto(family) | Match::Redirect(family) => Some(*family),
        Match::Address(_, address) => Some(Family::of(*address)),
        Match::InSet(key, _) | Match::InNetworks(key, _, _) => key_family(*key),
        Match::Neighbour(_) | Match::ListenerDiscovery(_) => Some(Family::V6),
        _ => None,
    }
}

/// The IP protocol that a condition implies.
fn protocol_of(condition: &Match) -> Option<u8> {
    match condition {
        Match::Icmp(family) | Match::Redirect(family) => Some(icmp_number(*family)),
        Match::TcpNotSyn => Some(Protocol::Tcp.number()),
        Match::Ports(_, range) => Some(range.protocol.number()),
        Match::Neighbour(_) | Match::ListenerDiscovery(_) => Some(icmp_number(Family::V6)),
        _ => None,
    }
}

fn is_defined(condition: &Match) -> bool {
    match condition {
        Match::Ports(_, range) => range.first <= range.last,
        Match::Neighbour(kind) => (133..=137).contains(kind),
        Match::ListenerDiscovery(kind) => matches!(kind, 130..=132 | 143),
        Match::InNetworks(key, length, _) => match key {
            Key::Service(..) | Key::Port(_) => false,
            Key::Address(family, _) | Key::CtOriginalSource(family) | Key::CtReplySource(family) => {
                (1..bits(*family)).contains(length)
            }
        },
        _ => true,
    }
}

/// Whether the packet has this property at this hook. The kernel would compare an interface that the hook does not
/// know with an empty name, or with whatever that kernel version happens to pass along.
fn is_known_at(condition: &Match, base: &BaseChain) -> bool {
    let tracked = base.priority > CONNTRACK_PRIORITY;
    match (condition, &base.hook) {
        (Match::ArrivesOn(_), hook) => *hook == Hook::Prerouting,
        (Match::LeavesOn(_), hook) => matches!(hook, Hook::Output | Hook::Postrouting),
        (
            Match::CtDirection(_)
            | Match::CtRelated
            | Match::CtNew
            | Match::InSet(Key::CtOriginalSource(_) | Key::CtReplySource(_), _)
            | Match::InNetworks(Key::CtOriginalSource(_) | Key::CtReplySource(_), _, _),
            Hook::Prerouting | Hook::Output,
        ) => tracked,
        _ => true,
    }
}

/// Bits of an address.
fn bits(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The family that an address key is about.
pub(crate) fn key_family(key: Key) -> Option<Family> {
    match key {
        Key::Service(family, _, _)
        | Key::Address(family, _)
        | Key::CtOriginalSource(family)
        | Key::CtReplySource(family) => Some(family),
        Key::Port(_) => None,
    }
}
