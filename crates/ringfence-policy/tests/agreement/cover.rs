//! What the cases of a run came across. A generator that never makes a case is as good as no test, so a run fails where
//! something of the lists below was never met.

use std::collections::BTreeMap;
use std::fmt;

use ringfence_model::Family;
use ringfence_policy::evaluate::{Because, DirectionVerdict, Shortfall};
use ringfence_ruleset::{Match, Ruleset, SetKind, Step, TableFamily, Trace, Verdict};

/// Fewer universes than this cannot be expected to come across everything.
const ENOUGH: u32 = 500;

/// Counts by what was met.
#[derive(Debug, Default)]
pub struct Cover {
    counts: BTreeMap<String, u64>,
}

impl Cover {
    /// Counts something.
    pub fn met(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Counts several of something.
    pub fn count(&mut self, what: &str, number: usize) {
        *self.counts.entry(what.to_owned()).or_default() += u64::try_from(number).unwrap_or(u64::MAX);
    }

    /// Counts what a verdict consists of.
    pub fn verdict(&mut self, verdict: &DirectionVerdict) {
        self.met(format!("because {}", because(verdict.because)));
        for miss in &verdict.near_misses {
            self.met(format!("shortfall {}", shortfall(&miss.why)));
        }
    }

    /// Counts the chains, sets and conditions that a packet met.
    pub fn trace(&mut self, ruleset: &Ruleset, trace: &Trace) {
        for step in &trace.steps {
            let Step::Rule { place, unmet } = step else { continue };
            let Some(table) = ruleset.table(place.family) else {
                continue;
            };
            let chain = chain(place.family, place.chain.as_str());
            let rule = &table.chains[&place.chain].rules[place.rule];
            let holding = unmet.unwrap_or(rule.matches.len());
            for condition in &rule.matches[..holding] {
                self.met(format!("condition {} holds", condition_name(condition)));
                if let Match::InSet(_, name) = condition {
                    self.met(format!("set {}", set(table.sets[name].kind, name.as_str())));
                }
            }
            if let Some(condition) = rule.matches.get(holding) {
                self.met(format!("condition {} fails", condition_name(condition)));
            } else if matches!(rule.verdict, Verdict::Accept | Verdict::Drop) {
                let verdict = if rule.verdict == Verdict::Drop {
                    "drops"
                } else {
                    "accepts"
                };
                self.met(format!("chain {chain} {verdict}"));
            }
        }
    }

    /// Fails where something was never met.
    pub fn require_everything(&self, cases: u32) {
        if cases < ENOUGH {
            println!("fewer than {ENOUGH} cases: what was not met is not held against the generator");
            return;
        }
        let missing: Vec<String> = wanted()
            .into_iter()
            .filter(|what| !self.counts.contains_key(what))
            .collect();
        assert!(missing.is_empty(), "never met in {cases} cases: {missing:#?}\n{self}");
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:>10} {what}")?;
        }
        Ok(())
    }
}

/// A word for each reason; exhaustive, so that a new one is not forgotten here.
fn because(it: Because) -> &'static str {
    match it {
        Because::NoPod => "NoPod",
        Because::UnknownPod => "UnknownPod",
        Because::HostNetwork => "HostNetwork",
        Because::Ended => "Ended",
        Because::Loopback => "Loopback",
        Because::SamePod => "SamePod",
        Because::NotIsolated => "NotIsolated",
        Because::NodeTraffic => "NodeTraffic",
        Because::NeighbourDiscovery => "NeighbourDiscovery",
        Because::RouterMessage => "RouterMessage",
        Because::Dhcp => "Dhcp",
        Because::Allowed => "Allowed",
        Because::NothingAllows => "NothingAllows",
    }
}

/// The same for shortfalls.
fn shortfall(it: &Shortfall) -> &'static str {
    match it {
        Shortfall::Invalid => "Invalid",
        Shortfall::OutsideBlock(_) => "OutsideBlock",
        Shortfall::Excepted(_) => "Excepted",
        Shortfall::NoPod(_) => "NoPod",
        Shortfall::PodLabels(_) => "PodLabels",
        Shortfall::Namespace(_) => "Namespace",
        Shortfall::OtherNetwork { .. } => "OtherNetwork",
        Shortfall::HostNetwork(_) => "HostNetwork",
        Shortfall::Ended(_) => "Ended",
        Shortfall::Superseded { .. } => "Superseded",
        Shortfall::OtherPort { .. } => "OtherPort",
        Shortfall::NamedPortElsewhere { .. } => "NamedPortElsewhere",
        Shortfall::NamedPortUndeclared { .. } => "NamedPortUndeclared",
        Shortfall::NamedPortWithoutPod(_) => "NamedPortWithoutPod",
    }
}

/// The same for conditions of rules.
fn condition_name(it: &Match) -> &'static str {
    match it {
        Match::ArrivesOn(_) => "ArrivesOn",
        Match::LeavesOn(_) => "LeavesOn",
        Match::CtDirection(_) => "CtDirection",
        Match::CtRelated => "CtRelated",
        Match::Icmp(_) => "Icmp",
        Match::Nfproto(_) => "Nfproto",
        Match::Ports(..) => "Ports",
        Match::Address(..) => "Address",
        Match::InSet(..) => "InSet",
        Match::InNetworks(..) => "InNetworks",
        Match::Neighbour(_) => "Neighbour",
        Match::ListenerDiscovery(_) => "ListenerDiscovery",
        Match::SourceNotLocal => "SourceNotLocal",
        Match::Routed => "Routed",
        Match::EtherType(_) => "EtherType",
    }
}

/// What a set is for: the compiler names sets `<interface>-<in|out>[-<part>]-<ip|ip6>`.
fn set(kind: SetKind, name: &str) -> String {
    let (role, family) = match kind {
        SetKind::Services(family) => ("exact", family),
        SetKind::Addresses(family) if name.contains("-peers-") => ("peers", family),
        SetKind::Addresses(family) if name.contains("-any-") => ("any", family),
        SetKind::Addresses(family) => ("class", family),
        SetKind::Ranges(family) => ("blocks", family),
        SetKind::Ports => return "ports".to_owned(),
    };
    let family = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    format!("{role} {family}")
}

/// What a chain is for: base chains by their names, others by what follows the interface.
fn chain(family: TableFamily, name: &str) -> String {
    if family == TableFamily::Netdev {
        return "backstop".to_owned();
    }
    let position = ["-in", "-out"].into_iter().filter_map(|word| {
        let at = name.find(word)?;
        let ends = name[at + word.len()..].is_empty() || name[at + word.len()..].starts_with('-');
        ends.then_some(at + 1)
    });
    let Some(at) = position.min() else {
        return name.to_owned();
    };
    let (direction, part) = name[at..].split_once('-').unwrap_or((&name[at..], ""));
    let part = match part {
        "" => "",
        "reply" | "related" | "untracked" => part,
        ports if ports.ends_with("-reply") => "ports-reply",
        _ => "ports",
    };
    let dash = if part.is_empty() { "" } else { "-" };
    format!("{direction}{dash}{part}")
}

/// Everything that a run must come across.
fn wanted() -> Vec<String> {
    let reasons = [
        "NoPod UnknownPod HostNetwork Ended Loopback SamePod NotIsolated NodeTraffic NeighbourDiscovery RouterMessage",
        "Dhcp Allowed NothingAllows",
    ];
    let shortfalls = [
        "Invalid OutsideBlock Excepted NoPod PodLabels Namespace OtherNetwork HostNetwork Ended Superseded OtherPort",
        "NamedPortElsewhere NamedPortUndeclared NamedPortWithoutPod",
    ];
    let conditions = [
        "ArrivesOn LeavesOn CtDirection CtRelated Icmp Nfproto Ports Address InSet InNetworks Neighbour ListenerDiscovery",
        "SourceNotLocal Routed EtherType",
    ];
    let both = "in out in-reply out-reply in-untracked out-untracked in-related out-related";
    let mut out = Vec::new();
    for name in words(&reasons) {
        out.push(format!("because {name}"));
    }
    for name in words(&shortfalls) {
        out.push(format!("shortfall {name}"));
    }
    for name in words(&conditions) {
        out.push(format!("condition {name} holds"));
        out.push(format!("condition {name} fails"));
    }
    for role in ["exact", "peers", "any", "class", "blocks"] {
        out.extend(["IPv4", "IPv6"].map(|family| format!("set {role} {family}")));
    }
    out.push("set ports".to_owned());
    for chain in both.split(' ').chain(["arrive", "leave", "source", "backstop"]) {
        out.push(format!("chain {chain} accepts"));
        out.push(format!("chain {chain} drops"));
    }
    for chain in ["in-ports", "out-ports", "in-ports-reply", "out-ports-reply"] {
        out.push(format!("chain {chain} accepts"));
    }
    for stray in super::strays::KINDS {
        out.push(format!("stray {stray} passes"));
        out.push(format!("stray {stray} drops"));
    }
    for end in super::ends::KINDS {
        out.push(format!("end {end}"));
    }
    out
}

fn words(lines: &[&'static str]) -> impl Iterator<Item = &'static str> {
    lines.iter().flat_map(|line| line.split(' '))
}
