//! Random rulesets without faults, out of a small world, so that two of them have much in common.

use std::net::IpAddr;

use proptest::prelude::*;
use ringfence_model::{AddressRange, Family, PortRange, Protocol};
use ringfence_ruleset::{
    Chain, CtDirection, Element, Hook, Key, Match, Name, Rule, Ruleset, Set, SetKind, Side, Table, Verdict,
};

use super::{base, interface, name, ruleset};

/// Numbers that decide what a ruleset looks like. When they are used up only zeroes come, and zero means "none" or
/// "the simplest" everywhere, so that proptest finds small counterexamples by cutting the list.
pub struct Dice(std::vec::IntoIter<u8>);

impl Dice {
    pub fn new(numbers: Vec<u8>) -> Self {
        Self(numbers.into_iter())
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u8) -> u8 {
        self.0.next().unwrap_or(0) % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let sides = u8::try_from(from.len()).expect("few choices");
        from[usize::from(self.roll(sides))].clone()
    }

    fn yes(&mut self) -> bool {
        self.roll(2) == 1
    }
}

pub fn rulesets() -> impl Strategy<Value = Ruleset> {
    numbers(600).prop_map(|numbers| random(&mut Dice::new(numbers)))
}

/// `None`, or any ruleset.
pub fn perhaps() -> impl Strategy<Value = Option<Ruleset>> {
    prop_oneof![1 => Just(None), 9 => rulesets().prop_map(Some)]
}

/// Two that have nothing, something or almost everything in common.
pub fn pairs() -> impl Strategy<Value = (Option<Ruleset>, Option<Ruleset>)> {
    let edited = (rulesets(), numbers(60)).prop_map(|(before, numbers)| {
        let mut after = before.clone();
        edit(&mut after, &mut Dice::new(numbers));
        (Some(before), Some(after))
    });
    prop_oneof![(perhaps(), perhaps()), edited]
}

pub fn numbers(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..most)
}

const COUNTERS: [&str; 3] = ["net1-in-denied", "net1-out-denied", "unexplained-denied"];
const SETS: [&str; 6] = [
    "net1-in-ip",
    "net1-in-any-ip",
    "net1-in-any-net-ip",
    "a/40b-in-tcp.udp-53-ip6",
    "net2-out-net-ip6",
    "net2-in-udp-ports",
];
const CHAINS: [&str; 5] = ["net1-in", "net1-in-reply", "net1-out", "if/30net-in", "eth0.100-out"];
const KINDS: [SetKind; 7] = [
    SetKind::Services(Family::V4),
    SetKind::Services(Family::V6),
    SetKind::Addresses(Family::V4),
    SetKind::Addresses(Family::V6),
    SetKind::Ranges(Family::V4),
    SetKind::Ranges(Family::V6),
    SetKind::Ports,
];

fn random(dice: &mut Dice) -> Ruleset {
    let inet = inet(dice);
    let netdev = netdev(dice);
    let mut ruleset = ruleset(inet, netdev);
    if dice.roll(16) == 15 {
        ruleset.comment = "ringfence another".into();
    }
    ruleset
}

fn inet(dice: &mut Dice) -> Table {
    let mut table = Table::default();
    for counter in COUNTERS {
        if dice.yes() {
            table.counters.insert(name(counter));
        }
    }
    for (position, set) in SETS.iter().enumerate() {
        if dice.yes() {
            // Usually the kind that goes with the name, so that most pairs can be edited in place.
            let kind = if dice.roll(24) == 23 {
                dice.pick(&KINDS)
            } else {
                KINDS[position]
            };
            let elements = (0..dice.roll(8)).map(|_| element(dice, kind)).collect();
            let mut set_made = Set { kind, elements };
            make_disjoint(&mut set_made);
            table.sets.insert(name(set), set_made);
        }
    }
    // A chain may lead only to chains after it in the list, so there are no circles.
    let there: Vec<&str> = CHAINS.iter().copied().filter(|_| dice.yes()).collect();
    for (position, chain) in there.iter().enumerate() {
        let rules = rules(dice, &table, &there[position + 1..], None);
        table.chains.insert(name(chain), Chain { base: None, rules });
    }
    for (chain, hook, priority) in [
        ("arrive", Hook::Prerouting, -160),
        ("leave", Hook::Postrouting, 110),
        ("source", Hook::Output, -160),
    ] {
        if dice.yes() {
            let priority = if dice.roll(24) == 23 { priority + 5 } else { priority };
            let rules = rules(dice, &table, &there, Some(&hook));
            table.chains.insert(name(chain), base(hook, priority, rules));
        }
    }
    table
}

fn netdev(dice: &mut Dice) -> Table {
    let mut table = Table::default();
    if dice.yes() {
        table.counters.insert(name(COUNTERS[1]));
    }
    for device in ["net1", "net2"] {
        if dice.yes() {
            let rules = (0..dice.roll(4))
                .map(|_| {
                    let matches = match dice.roll(3) {
                        0 => vec![],
                        1 => vec![Match::Routed],
                        _ => vec![Match::EtherType(
                            dice.pick(&[0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806, 0x88cc]),
                        )],
                    };
                    finish(dice, &table, matches, &[])
                })
                .collect();
            let hook = Hook::Egress(interface(device));
            table
                .chains
                .insert(name(&format!("{device}-backstop")), base(hook, 0, rules));
        }
    }
    table
}

fn rules(dice: &mut Dice, table: &Table, targets: &[&str], hook: Option<&Hook>) -> Vec<Rule> {
    (0..dice.roll(5))
        .map(|_| {
            let device = interface(dice.pick(&["lo", "net1", "a@b"]));
            let mut matches = match hook {
                Some(Hook::Prerouting) => vec![Match::ArrivesOn(device)],
                Some(_) => vec![Match::LeavesOn(device)],
                None => vec![],
            };
            if let Some(condition) = condition(dice, table) {
                matches.push(condition);
            }
            finish(dice, table, matches, targets)
        })
        .collect()
}

fn finish(dice: &mut Dice, table: &Table, matches: Vec<Match>, targets: &[&str]) -> Rule {
    let counters: Vec<Name> = table.counters.iter().cloned().collect();
    let counter = (!counters.is_empty() && dice.yes()).then(|| dice.pick(&counters));
    let verdict = match dice.roll(4) {
        0 => Verdict::Accept,
        1 => Verdict::Drop,
        _ if targets.is_empty() => Verdict::Accept,
        2 => Verdict::Goto(name(dice.pick(targets))),
        _ => Verdict::Jump(name(dice.pick(targets))),
    };
    Rule {
        matches,
        counter,
        verdict,
    }
}

fn condition(dice: &mut Dice, table: &Table) -> Option<Match> {
    let family = dice.pick(&Family::BOTH);
    let side = dice.pick(&[Side::Source, Side::Destination]);
    Some(match dice.roll(10) {
        0 => return None,
        1 => Match::CtDirection(dice.pick(&[CtDirection::Original, CtDirection::Reply])),
        2 => Match::CtRelated,
        3 => Match::Icmp(family),
        4 => Match::Nfproto(family),
        5 => Match::Ports(side, port_range(dice)),
        6 => Match::Address(side, some_address(dice, family)),
        7 => Match::Neighbour(dice.pick(&[133, 134, 135, 136, 137])),
        8 => Match::ListenerDiscovery(dice.pick(&[130, 131, 132, 143])),
        _ => {
            let sets: Vec<&Name> = table.sets.keys().collect();
            if sets.is_empty() {
                return None;
            }
            let set = dice.pick(&sets);
            let kind = table.sets[set].kind;
            match kind {
                SetKind::Addresses(_) if dice.roll(3) == 0 => {
                    Match::InNetworks(key(dice, kind), dice.pick(&[1, 16, 24, 31]), set.clone())
                }
                _ => Match::InSet(key(dice, kind), set.clone()),
            }
        }
    })
}

fn key(dice: &mut Dice, kind: SetKind) -> Key {
    let side = dice.pick(&[Side::Source, Side::Destination]);
    let port = dice.pick(&[Side::Source, Side::Destination]);
    match kind {
        SetKind::Services(family) => Key::Service(family, side, port),
        SetKind::Ports => Key::Port(port),
        SetKind::Addresses(family) | SetKind::Ranges(family) => match dice.roll(3) {
            0 => Key::Address(family, side),
            1 => Key::CtOriginalSource(family),
            _ => Key::CtReplySource(family),
        },
    }
}

fn port_range(dice: &mut Dice) -> PortRange {
    let protocol = dice.pick(&Protocol::ALL);
    let (first, last) = dice.pick(&[(80, 80), (0, u16::MAX), (1000, 2000), (0, 79), (1, u16::MAX)]);
    PortRange { protocol, first, last }
}

fn some_address(dice: &mut Dice, family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 20, dice.roll(2), dice.roll(16)].into(),
        Family::V6 => [0xfd00, 0, 0, 0, 0, 0, u16::from(dice.roll(2)), u16::from(dice.roll(16))].into(),
    }
}

pub fn element(dice: &mut Dice, kind: SetKind) -> Element {
    let protocol = dice.pick(&Protocol::ALL);
    let port = dice.pick(&[80, 53, 0, 8080, u16::MAX]);
    match kind {
        SetKind::Services(family) => Element::Service(some_address(dice, family), protocol, port),
        SetKind::Addresses(family) => Element::Address(some_address(dice, family)),
        SetKind::Ports => Element::Port(protocol, port),
        SetKind::Ranges(family) => {
            let (one, other) = (some_address(dice, family), some_address(dice, family));
            let (first, last) = if one <= other { (one, other) } else { (other, one) };
            Element::Range(AddressRange::new(first, last).expect("one family, in order"))
        }
    }
}

/// Leaves out ranges that overlap or touch an earlier one, as the compiler's ranges never do.
pub fn make_disjoint(set: &mut Set) {
    let mut kept: Vec<AddressRange> = Vec::new();
    let after = |range: AddressRange| match range.last() {
        IpAddr::V4(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    };
    set.elements = set
        .elements
        .iter()
        .copied()
        .filter(|element| match element {
            Element::Range(range) => {
                let apart = kept
                    .last()
                    .is_none_or(|before| after(*before).is_some_and(|next| range.first() > next));
                if apart {
                    kept.push(*range);
                }
                apart
            }
            _ => true,
        })
        .collect();
}

/// Changes a few elements, and sometimes a rule or the presence of something.
fn edit(ruleset: &mut Ruleset, dice: &mut Dice) {
    let names: Vec<Name> = ruleset.inet.sets.keys().cloned().collect();
    for set in names {
        let set = ruleset.inet.sets.get_mut(&set).expect("its own name");
        for _ in 0..dice.roll(4) {
            let element = element(dice, set.kind);
            if set.elements.remove(&element).is_none() {
                set.elements.insert(element);
            }
        }
        make_disjoint(set);
    }
    if dice.roll(4) == 3
        && let Some(chain) = ruleset.inet.chains.values_mut().find(|chain| !chain.rules.is_empty())
    {
        chain.rules.pop();
    }
    if dice.roll(4) == 3 {
        ruleset.inet.counters.insert(name("net9-in-denied"));
    }
    if dice.roll(4) == 3 {
        ruleset.netdev.chains.clear();
    }
}
