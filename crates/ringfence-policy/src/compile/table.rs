//! The chains and sets of one isolated direction of one interface.

use std::net::IpAddr;

use imbl::OrdSet;
use ringfence_model::{AddressRange, Direction, Family, PortRange, PortSet, Protocol, RangeSet};
use ringfence_ruleset::{Chain, Element, Key, Match, Name, Rule, Set, SetKind, Side, Table as Rules, Verdict};

use super::PeerSet;
use super::names::{Names, ports_text};
use super::networks::{bits, by_length};
use crate::plan::{Layout, Table};

/// More single ports than this are one look-up in a set (a bitmap in the kernel) instead of that many comparisons.
const COMPARED_PORTS: usize = 4;

/// More port conditions than this get a chain of their own, so that the peer is looked up once and not once for each.
const REPEATED_LOOKUPS: usize = 2;

/// UDP ports of client and server, DHCPv4 and DHCPv6 (statement 123).
pub(super) const DHCP: [(u16, u16); 2] = [(68, 67), (546, 547)];

/// Which ends of a packet the peer's address and the service's port are: they change places for replies.
#[derive(Clone, Copy)]
struct Ends {
    peer: Side,
    port: Side,
    /// Whether the packet goes against the direction in which the connection was opened.
    reply: bool,
}

fn ends(direction: Direction, reply: bool) -> Ends {
    let (source, destination) = if reply {
        (Side::Destination, Side::Source)
    } else {
        (Side::Source, Side::Destination)
    };
    Ends {
        peer: match direction {
            Direction::Ingress => source,
            Direction::Egress => destination,
        },
        port: destination,
        reply,
    }
}

/// Writes one direction of one interface into table inet.
pub(super) struct Writer<'a> {
    rules: &'a mut Rules,
    names: Names,
    direction: Direction,
    table: &'a Table,
    /// Whether the addresses of the network come by DHCP.
    dhcp: bool,
    layout: Layout,
    denied: Name,
    /// The sets that will hold peers.
    pub(super) peer_sets: Vec<(PeerSet, Family, Name)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(rules: &'a mut Rules, names: Names, direction: Direction, table: &'a Table, dhcp: bool) -> Self {
        let denied = names.part("denied");
        Self {
            rules,
            names,
            direction,
            table,
            dhcp,
            layout: table.peers.layout(),
            denied,
            peer_sets: Vec::new(),
        }
    }

    /// The judging chain, its mirror for replies, the chain for ICMP errors, the one for packets without a
    /// connection, and the sets. `trusted` may do everything (statement 117).
    pub(super) fn write(&mut self, trusted: &[IpAddr]) {
        self.rules.counters.insert(self.denied.clone());
        self.untracked(!trusted.is_empty());
        if self.table.is_open() {
            for name in [self.names.chain(), self.names.part("reply")] {
                self.chain(name, vec![accept(Vec::new())]);
            }
            return;
        }
        self.sets();
        let related = self.related();
        for reply in [false, true] {
            let ends = ends(self.direction, reply);
            let mut rules: Vec<Rule> = trusted
                .iter()
                .map(|address| accept(vec![Match::Address(ends.peer, *address)]))
                .collect();
            self.judge(&mut rules, ends);
            if let Some(related) = &related {
                rules.extend(Family::BOTH.map(|family| Rule {
                    matches: vec![Match::Icmp(family), Match::CtRelated],
                    counter: None,
                    verdict: Verdict::Goto(related.clone()),
                }));
            }
            rules.push(self.deny());
            let name = if reply {
                self.names.part("reply")
            } else {
                self.names.chain()
            };
            self.chain(name, rules);
        }
    }

    /// From the cheapest look-up that most traffic passes by to the dearest: one hash for all exact grants, one for
    /// addresses that may do everything, one for each class, then trees, then comparisons.
    fn judge(&mut self, rules: &mut Vec<Rule>, ends: Ends) {
        if self.layout.exact {
            for family in Family::BOTH {
                let key = Key::Service(family, ends.peer, ends.port);
                rules.push(accept(vec![Match::InSet(key, self.names.set("", family))]));
            }
        }
        if self.layout.any {
            for family in Family::BOTH {
                let key = Key::Address(family, ends.peer);
                rules.push(accept(vec![Match::InSet(key, self.names.set("any", family))]));
            }
        }
        for class in self.layout.classes.clone() {
            let text = ports_text(&class);
            for family in Family::BOTH {
                let key = Key::Address(family, ends.peer);
                let condition = Match::InSet(key, self.names.set(&text, family));
                self.ports_of(rules, &condition, &class, ends);
            }
        }
        for (ports, ranges) in blocks(self.table) {
            for family in Family::BOTH {
                for condition in self.block_conditions(ports, ranges, family, Key::Address(family, ends.peer)) {
                    self.ports_of(rules, &condition, ports, ends);
                }
            }
        }
        let everyone = self.port_matches(&self.table.everyone, ends.port);
        rules.extend(everyone.into_iter().map(|port| accept(vec![port])));
        if self.dhcp {
            rules.extend(self.dhcp_exchange(ends));
        }
    }

    /// From the client's port to the server's and back, DHCPv4 and DHCPv6 (statement 123). The two ways are two
    /// connections to conntrack, because the client asks a broadcast or multicast address.
    fn dhcp_exchange(&self, ends: Ends) -> [Rule; 2] {
        let client = if ends.port == Side::Destination {
            Side::Source
        } else {
            Side::Destination
        };
        DHCP.map(|(ours, theirs)| {
            let (from, to) = match self.direction {
                Direction::Egress => (ours, theirs),
                Direction::Ingress => (theirs, ours),
            };
            let port = |side, port| Match::Ports(side, PortRange::single(Protocol::Udp, port));
            accept(vec![port(client, from), port(ends.port, to)])
        })
    }

    /// `condition` and one of the ports.
    fn ports_of(&mut self, rules: &mut Vec<Rule>, condition: &Match, ports: &PortSet, ends: Ends) {
        if *ports == PortSet::Everything {
            rules.push(accept(vec![condition.clone()]));
            return;
        }
        let matches = self.port_matches(ports, ends.port);
        if matches.len() <= REPEATED_LOOKUPS {
            rules.extend(matches.into_iter().map(|port| accept(vec![condition.clone(), port])));
            return;
        }
        let text = ports_text(ports);
        let name = self
            .names
            .part(&if ends.reply { format!("{text}-reply") } else { text });
        self.chain(
            name.clone(),
            matches.into_iter().map(|port| accept(vec![port])).collect(),
        );
        rules.push(Rule {
            matches: vec![condition.clone()],
            counter: None,
            verdict: Verdict::Jump(name),
        });
    }

    /// One condition for each alternative; adds the set of single ports where there are many.
    fn port_matches(&mut self, ports: &PortSet, side: Side) -> Vec<Match> {
        let ranges = ports.ranges().unwrap_or_default();
        let is_single = |range: &&PortRange| range.first == range.last;
        if ranges.iter().filter(is_single).count() <= COMPARED_PORTS {
            return ranges.iter().map(|range| Match::Ports(side, *range)).collect();
        }
        let name = self.names.part(&format!("{}-ports", ports_text(ports)));
        let elements = ranges
            .iter()
            .filter(is_single)
            .map(|range| Element::Port(range.protocol, range.first))
            .collect();
        self.set(name.clone(), SetKind::Ports, elements);
        let others = ranges.iter().filter(|range| range.first != range.last);
        let others = others.map(|range| Match::Ports(side, *range));
        std::iter::once(Match::InSet(Key::Port(side), name))
            .chain(others)
            .collect()
    }

    /// The conditions of which one holds where an address is in a block. A whole family needs no set; a family without
    /// addresses gives none.
    fn block_conditions(&self, ports: &PortSet, ranges: &RangeSet, family: Family, key: Key) -> Vec<Match> {
        let ranges = of_family(ranges, family);
        match ranges.first() {
            None => Vec::new(),
            Some(first) if first.is_whole_family() => vec![Match::Nfproto(family)],
            Some(_) => match by_length(&ranges) {
                None => vec![Match::InSet(key, self.block_set(ports, family))],
                Some(networks) => networks
                    .iter()
                    .map(|networks| {
                        let set = self.network_set(ports, networks.length, family);
                        if networks.length == bits(family) {
                            Match::InSet(key, set)
                        } else {
                            Match::InNetworks(key, networks.length, set)
                        }
                    })
                    .collect(),
            },
        }
    }

    fn block_set(&self, ports: &PortSet, family: Family) -> Name {
        self.names.set(&format!("{}-net", ports_text(ports)), family)
    }

    fn network_set(&self, ports: &PortSet, length: u8, family: Family) -> Name {
        self.names.set(&format!("{}-n{length}", ports_text(ports)), family)
    }

    /// All sets of addresses, those of the peers still empty. Both families exist wherever a policy asks for peers.
    fn sets(&mut self) {
        let mut wanted = Vec::new();
        if self.layout.exact {
            wanted.extend([
                (PeerSet::Exact, String::new()),
                (PeerSet::ExactAddresses, "peers".into()),
            ]);
        }
        if self.layout.any {
            wanted.push((PeerSet::Any, "any".into()));
        }
        let classes = self.layout.classes.iter().enumerate();
        wanted.extend(classes.map(|(position, class)| (PeerSet::Class(position), ports_text(class))));
        for (set, part) in wanted {
            for family in Family::BOTH {
                let kind = match set {
                    PeerSet::Exact => SetKind::Services(family),
                    _ => SetKind::Addresses(family),
                };
                let name = self.names.set(&part, family);
                self.set(name.clone(), kind, OrdSet::new());
                self.peer_sets.push((set, family, name));
            }
        }
        for (ports, ranges) in &self.table.blocks {
            for family in Family::BOTH {
                self.block_sets(ports, &of_family(ranges, family), family);
            }
        }
    }

    fn block_sets(&mut self, ports: &PortSet, ranges: &[AddressRange], family: Family) {
        if ranges.first().is_none_or(|range| range.is_whole_family()) {
            return;
        }
        let Some(networks) = by_length(ranges) else {
            let elements = ranges.iter().copied().map(Element::Range).collect();
            return self.set(self.block_set(ports, family), SetKind::Ranges(family), elements);
        };
        for networks in networks {
            let elements = networks.first.into_iter().map(Element::Address).collect();
            let name = self.network_set(ports, networks.length, family);
            self.set(name, SetKind::Addresses(family), elements);
        }
    }

    /// The chain for ICMP errors, which have no ports: the peer of the connection must be allowed something
    /// (statement 102). `None` where nobody is allowed anything.
    fn related(&mut self) -> Option<Name> {
        let mut rules = Vec::new();
        let key = |family| match self.direction {
            Direction::Ingress => Key::CtOriginalSource(family),
            Direction::Egress => Key::CtReplySource(family),
        };
        if self.table.everyone.is_nothing() {
            let mut parts = Vec::new();
            if self.layout.exact {
                parts.push("peers".to_owned());
            }
            if self.layout.any {
                parts.push("any".to_owned());
            }
            parts.extend(self.layout.classes.iter().map(ports_text));
            for part in parts {
                for family in Family::BOTH {
                    rules.push(accept(vec![Match::InSet(key(family), self.names.set(&part, family))]));
                }
            }
            for (ports, ranges) in blocks(self.table) {
                for family in Family::BOTH {
                    let conditions = self.block_conditions(ports, ranges, family, key(family));
                    rules.extend(conditions.into_iter().map(|condition| accept(vec![condition])));
                }
            }
            if rules.is_empty() {
                return None;
            }
            rules.push(self.deny());
        } else {
            rules.push(accept(Vec::new()));
        }
        let name = self.names.part("related");
        self.chain(name.clone(), rules);
        Some(name)
    }

    /// Packets without a direction: only what IPv6 cannot live without (statements 121, 122, catalogue B9, B10).
    /// A router may advertise itself to the pod and the pod may ask for one, never the other way round. What arrives
    /// of the other two, a question for a router and a redirect, is traffic without ports like any other.
    fn untracked(&mut self, trusts: bool) {
        let router = match self.direction {
            Direction::Ingress => 134,
            Direction::Egress => 133,
        };
        let mut rules: Vec<Rule> = [router, 135, 136]
            .map(|kind| accept(vec![Match::Neighbour(kind)]))
            .into();
        rules.extend([130, 131, 132, 143].map(|kind| accept(vec![Match::ListenerDiscovery(kind)])));
        if self.direction == Direction::Ingress && (trusts || self.may_allow_everything()) {
            rules.extend([133, 137].map(|kind| Rule {
                matches: vec![Match::Neighbour(kind)],
                counter: None,
                verdict: Verdict::Goto(self.names.chain()),
            }));
        }
        rules.push(self.deny());
        self.chain(self.names.part("untracked"), rules);
    }

    /// Whether there can be somebody who is allowed what has no ports.
    fn may_allow_everything(&self) -> bool {
        self.table.is_open() || self.layout.any || self.table.blocks.contains_key(&PortSet::Everything)
    }

    fn deny(&self) -> Rule {
        Rule {
            matches: Vec::new(),
            counter: Some(self.denied.clone()),
            verdict: Verdict::Drop,
        }
    }

    fn chain(&mut self, name: Name, rules: Vec<Rule>) {
        self.rules.chains.insert(name, Chain { base: None, rules });
    }

    fn set(&mut self, name: Name, kind: SetKind, elements: OrdSet<Element>) {
        self.rules.sets.insert(name, Set { kind, elements });
    }
}

/// The blocks in the order of their rules: those that may do everything first, as among single addresses.
fn blocks(table: &Table) -> impl Iterator<Item = (&PortSet, &RangeSet)> {
    let everything = table.blocks.get_key_value(&PortSet::Everything);
    everything
        .into_iter()
        .chain(table.blocks.iter().filter(|(ports, _)| **ports != PortSet::Everything))
}

fn of_family(ranges: &RangeSet, family: Family) -> Vec<AddressRange> {
    let ranges = ranges.ranges().iter().copied();
    ranges.filter(|range| range.family() == family).collect()
}

/// A rule that accepts.
pub(super) fn accept(matches: Vec<Match>) -> Rule {
    Rule {
        matches,
        counter: None,
        verdict: Verdict::Accept,
    }
}
