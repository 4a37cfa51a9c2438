//! The packet tracer: what a ruleset does to one packet, rule by rule, as the kernel would.
//!
//! It is the test's second opinion about the compiler, and the operator's answer to "which rule was it". So whatever
//! it does not know is an error and never a pass.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;

use ringfence_model::{AddressRange, Family};

use crate::check::{check, key_family, key_fits};
use crate::packet::icmp_number;
use crate::{
    BaseChain, Conntrack, Content, Element, Fault, Hook, Key, Match, Name, Packet, Path, Place, Rule, Ruleset, Set,
    Side, Table, TableFamily, Transport, Verdict, network_mask,
};

/// What becomes of the packet, as far as Ringfence's tables decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// It passes every hook on its way.
    Accept,
    /// It is dropped.
    Drop,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        })
    }
}

/// The decision and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What becomes of it.
    pub decision: Decision,
    /// Everything that was looked at, in order.
    pub steps: Vec<Step>,
    /// The named counters that counted the packet, in order.
    pub counted: Vec<(TableFamily, Name)>,
}

/// One step of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A rule was evaluated.
    Rule {
        /// Which rule.
        place: Place,
        /// The position of the first condition that did not hold; `None`: all held, and the verdict was carried out.
        unmet: Option<usize>,
    },
    /// No rule decided, so the policy of the base chain did, which is always accept.
    Policy {
        /// Which table.
        family: TableFamily,
        /// The base chain.
        chain: Name,
    },
}

impl Trace {
    /// One line for each step with the rule's text, `+` before rules that matched and `-` before others, then the
    /// decision. The ruleset must be the one that was traced; of a rule that it does not have only the place is shown.
    pub fn listing(&self, ruleset: &Ruleset) -> String {
        let mut out = String::new();
        for step in &self.steps {
            // Writing into a String cannot fail.
            let _ = match step {
                Step::Rule { place, unmet } => {
                    let sign = if unmet.is_none() { '+' } else { '-' };
                    match rule_at(ruleset, place) {
                        Some(rule) => writeln!(out, "{sign} {} {}: {rule}", place.family, place.chain),
                        None => writeln!(out, "{sign} {place}"),
                    }
                }
                Step::Policy { family, chain } => writeln!(out, "+ {family} {chain}: policy accept"),
            };
        }
        let _ = writeln!(out, "= {}", self.decision);
        out
    }
}

fn rule_at<'r>(ruleset: &'r Ruleset, place: &Place) -> Option<&'r Rule> {
    ruleset
        .table(place.family)?
        .chains
        .get(&place.chain)?
        .rules
        .get(place.rule)
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The ruleset has a fault.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The packet's addresses, or those of its connection, are of two families.
    #[error("{0} and {1} are not of one address family")]
    MixedFamilies(IpAddr, IpAddr),
}

/// What `ruleset` does to `packet`. For many packets make a [`Tracer`] once.
pub fn trace(ruleset: &Ruleset, packet: &Packet) -> Result<Trace, TraceError> {
    Tracer::new(ruleset)?.trace(packet)
}

/// A ruleset that has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Tracer<'r> {
    ruleset: &'r Ruleset,
}

impl<'r> Tracer<'r> {
    /// Checks the ruleset, which takes a time that grows with its size.
    pub fn new(ruleset: &'r Ruleset) -> Result<Self, Fault> {
        check(ruleset)?;
        Ok(Self { ruleset })
    }

    /// What becomes of a packet.
    pub fn trace(&self, packet: &Packet) -> Result<Trace, TraceError> {
        check_families(packet)?;
        let mut trace = Trace {
            decision: Decision::Accept,
            steps: Vec::new(),
            counted: Vec::new(),
        };
        for hook in hooks(packet) {
            let family = match hook {
                Hook::Egress(_) => TableFamily::Netdev,
                _ => TableFamily::Inet,
            };
            let Some(table) = self.ruleset.table(family) else {
                continue;
            };
            let mut chains: Vec<(&BaseChain, &Name)> = table
                .chains
                .iter()
                .filter_map(|(name, chain)| Some((chain.base.as_ref()?, name)))
                .filter(|(base, _)| base.hook == hook)
                .collect();
            // A drop in any of them wins whatever their order; the order tells only which counter counts.
            chains.sort_by_key(|(base, name)| (base.priority, *name));
            for (_, chain) in chains {
                let judge = Judge { family, table, packet };
                trace.decision = judge.base_chain(chain, &mut trace)?;
                if trace.decision == Decision::Drop {
                    return Ok(trace);
                }
            }
        }
        Ok(trace)
    }
}

/// The hooks on the packet's way, in order.
fn hooks(packet: &Packet) -> Vec<Hook> {
    let ip = matches!(packet.content, Content::Ip { .. });
    match &packet.path {
        // Only IP meets the hooks of `inet`.
        Path::Arrives(_) if ip => vec![Hook::Prerouting],
        Path::Arrives(_) => vec![],
        Path::Leaves(to) if ip => vec![Hook::Output, Hook::Postrouting, Hook::Egress(to.clone())],
        Path::Forwarded { to, .. } if ip => vec![Hook::Prerouting, Hook::Postrouting, Hook::Egress(to.clone())],
        Path::Leaves(to) | Path::Forwarded { to, .. } | Path::Raw(to) => vec![Hook::Egress(to.clone())],
    }
}

fn check_families(packet: &Packet) -> Result<(), TraceError> {
    let Content::Ip {
        source, destination, ..
    } = packet.content
    else {
        return Ok(());
    };
    let mut others = vec![destination];
    if let Conntrack::Tracked {
        original_source,
        reply_source,
        ..
    } = packet.conntrack
    {
        others.extend([original_source, reply_source]);
    }
    match others
        .into_iter()
        .find(|other| Family::of(*other) != Family::of(source))
    {
        Some(other) => Err(TraceError::MixedFamilies(source, other)),
        None => Ok(()),
    }
}

/// One packet in one table.
struct Judge<'a> {
    family: TableFamily,
    table: &'a Table,
    packet: &'a Packet,
}

impl Judge<'_> {
    fn base_chain(&self, base: &Name, trace: &mut Trace) -> Result<Decision, TraceError> {
        // Where jumps come back to. A goto leaves nothing here: after the last rule of its target the kernel goes
        // back to the last jump, and where there was none, to the policy. `check` has ruled out circles.
        let mut returns: Vec<(&Name, usize)> = Vec::new();
        let (mut chain, mut position) = (base, 0);
        loop {
            let place = Place {
                family: self.family,
                chain: chain.clone(),
                rule: position,
            };
            let Some(rules) = self.table.chains.get(chain).map(|chain| &chain.rules) else {
                let chain = chain.clone();
                return Err(Fault::MissingChain { place, chain }.into());
            };
            let Some(rule) = rules.get(position) else {
                let Some(back) = returns.pop() else {
                    trace.steps.push(Step::Policy {
                        family: self.family,
                        chain: base.clone(),
                    });
                    return Ok(Decision::Accept);
                };
                (chain, position) = back;
                continue;
            };
            let unmet = self.first_unmet(rule, &place)?;
            trace.steps.push(Step::Rule { place, unmet });
            position += 1;
            if unmet.is_some() {
                continue;
            }
            if let Some(counter) = &rule.counter {
                trace.counted.push((self.family, counter.clone()));
            }
            match &rule.verdict {
                Verdict::Accept => return Ok(Decision::Accept),
                Verdict::Drop => return Ok(Decision::Drop),
                Verdict::Goto(target) => (chain, position) = (target, 0),
                Verdict::Jump(target) => {
                    returns.push((chain, position));
                    (chain, position) = (target, 0);
                }
            }
        }
    }

    fn first_unmet(&self, rule: &Rule, place: &Place) -> Result<Option<usize>, TraceError> {
        for (position, condition) in rule.matches.iter().enumerate() {
            if !self.holds(condition, place)? {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    /// Whether a condition holds. One that loads a field that the packet does not have does not match.
    fn holds(&self, condition: &Match, place: &Place) -> Result<bool, TraceError> {
        let path = &self.packet.path;
        let ip = Ip::of(self.packet);
        Ok(match condition {
            Match::ArrivesOn(name) => path.arrival() == Some(name),
            Match::LeavesOn(name) => path.departure() == Some(name),
            Match::CtDirection(wanted) => {
                matches!(self.packet.conntrack, Conntrack::Tracked { direction, .. } if direction == *wanted)
            }
            Match::CtRelated => matches!(self.packet.conntrack, Conntrack::Tracked { related: true, .. }),
            Match::SourceNotLocal => !self.packet.source_local,
            // What the IP stack sends has a route; ARP, which the kernel sends too, has none.
            Match::Routed => ip.is_some() && !matches!(path, Path::Raw(_)),
            Match::EtherType(number) => *number == ether_type(self.packet.content),
            Match::Icmp(family) => ip.is_some_and(|ip| ip.transport.protocol() == icmp_number(*family)),
            Match::Nfproto(family) => ip.is_some_and(|ip| ip.family == *family),
            Match::Ports(_, range) if range.is_whole() => {
                ip.is_some_and(|ip| ip.transport.protocol() == range.protocol.number())
            }
            Match::Ports(side, range) => ip
                .and_then(|ip| ip.transport.port(*side))
                .is_some_and(|(protocol, port)| {
                    protocol == range.protocol && (range.first..=range.last).contains(&port)
                }),
            Match::Address(side, address) => ip.is_some_and(|ip| ip.address(*side) == *address),
            Match::Neighbour(kind) => ip.is_some_and(|ip| ip.icmp6() == Some((*kind, 0)) && ip.hop_limit == 255),
            Match::ListenerDiscovery(wanted) => {
                ip.is_some_and(|ip| ip.icmp6().is_some_and(|(kind, _)| kind == *wanted))
            }
            Match::InSet(key, name) => {
                let set = self.set(*key, name, place)?;
                ip.is_some_and(|ip| self.is_in(&ip, *key, set))
            }
            Match::InNetworks(key, length, name) => {
                let set = self.set(*key, name, place)?;
                let address = ip.and_then(|ip| self.address(&ip, *key));
                address.is_some_and(|address| set.elements.contains(&Element::Address(network(address, *length))))
            }
        })
    }

    fn set(&self, key: Key, name: &Name, place: &Place) -> Result<&Set, Fault> {
        match self.table.sets.get(name) {
            None => Err(Fault::MissingSet {
                place: place.clone(),
                set: name.clone(),
            }),
            Some(set) if !key_fits(key, set.kind) => Err(Fault::KindMismatch {
                place: place.clone(),
                key,
                set: name.clone(),
                kind: set.kind,
            }),
            Some(set) => Ok(set),
        }
    }

    fn is_in(&self, ip: &Ip, key: Key, set: &Set) -> bool {
        match key {
            Key::Port(side) => ip
                .transport
                .port(side)
                .is_some_and(|(protocol, port)| set.elements.contains(&Element::Port(protocol, port))),
            Key::Service(family, address, service) => {
                family == ip.family
                    && ip.transport.port(service).is_some_and(|(protocol, port)| {
                        set.elements
                            .contains(&Element::Service(ip.address(address), protocol, port))
                    })
            }
            Key::Address(..) | Key::CtOriginalSource(_) | Key::CtReplySource(_) => {
                self.address(ip, key).is_some_and(|address| set.holds(address))
            }
        }
    }

    /// The address that a key is about; nothing for a packet of the other family, without a connection, or for a key
    /// that is more than an address.
    fn address(&self, ip: &Ip, key: Key) -> Option<IpAddr> {
        if key_family(key)? != ip.family {
            return None;
        }
        let connection = |pick: fn(IpAddr, IpAddr) -> IpAddr| match self.packet.conntrack {
            Conntrack::Tracked {
                original_source,
                reply_source,
                ..
            } => Some(pick(original_source, reply_source)),
            Conntrack::Untracked | Conntrack::Invalid => None,
        };
        match key {
            Key::Port(_) | Key::Service(..) => None,
            Key::Address(_, side) => Some(ip.address(side)),
            Key::CtOriginalSource(_) => connection(|original, _| original),
            Key::CtReplySource(_) => connection(|_, reply| reply),
        }
    }
}

/// The first address of the network of this prefix length that an address is in.
fn network(address: IpAddr, length: u8) -> IpAddr {
    match (address, network_mask(Family::of(address), length)) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => (address & mask).into(),
        (IpAddr::V6(address), IpAddr::V6(mask)) => (address & mask).into(),
        // The mask is of the address's family.
        _ => address,
    }
}

impl Set {
    /// Whether a set of addresses or of disjoint ranges holds an address.
    fn holds(&self, address: IpAddr) -> bool {
        if !self.kind.is_interval() {
            return self.elements.contains(&Element::Address(address));
        }
        // The last range that does not begin after the address is the only one that can hold it.
        let Some(latest) = AddressRange::new(address, Family::of(address).last()) else {
            return false;
        };
        match self.elements.get_prev(&Element::Range(latest)) {
            Some(Element::Range(range)) => range.contains(address),
            _ => false,
        }
    }
}

/// The IP part of a packet.
struct Ip {
    family: Family,
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    transport: Transport,
}

impl Ip {
    fn of(packet: &Packet) -> Option<Self> {
        match packet.content {
            Content::Ip {
                source,
                destination,
                hop_limit,
                transport,
            } => Some(Self {
                family: Family::of(source),
                source,
                destination,
                hop_limit,
                transport,
            }),
            Content::Other(_) => None,
        }
    }

    fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Source => self.source,
            Side::Destination => self.destination,
        }
    }

    /// Type and code where it is ICMPv6 over IPv6.
    fn icmp6(&self) -> Option<(u8, u8)> {
        match (self.family, self.transport) {
            (
                Family::V6,
                Transport::Icmp {
                    protocol: Family::V6,
                    kind,
                    code,
                },
            ) => Some((kind, code)),
            _ => None,
        }
    }
}

fn ether_type(content: Content) -> u16 {
    match content {
        Content::Ip { source, .. } if source.is_ipv4() => 0x0800,
        Content::Ip { .. } => 0x86dd,
        Content::Other(number) => number,
    }
}
