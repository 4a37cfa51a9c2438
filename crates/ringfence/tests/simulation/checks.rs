//! What must hold, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ringfence::applier::closed;
use ringfence::snapshot::State;
use ringfence_model::{Direction, InterfaceName, PodUid, Protocol};
use ringfence_policy::Openings;
use ringfence_policy::evaluate::L4;
use ringfence_ruleset::{Decision, Hook, Packet, Ruleset, Tracer};

use crate::agent::Agent;
use crate::cluster::{ADDRESSES, interface};
use crate::node::{Commit, Node, Tables};
use crate::packets::{Kind, Talk, packet, way};

/// What the checks remember of one agent process.
#[derive(Default)]
pub struct Ledger {
    /// How far in its pod's history each namespace is.
    reached: BTreeMap<(u64, PodUid), usize>,
    /// The newest applier that has written in each namespace.
    newest: BTreeMap<u64, u64>,
    /// What appliers of this process have found in each namespace when they opened it.
    found: BTreeMap<u64, Vec<Option<Ruleset>>>,
    /// Where that was something that rulesets cannot say.
    unknown: BTreeSet<u64>,
}

impl Ledger {
    /// An applier has opened a namespace.
    pub fn note(&mut self, serial: u64, found: Tables) {
        if found.is_err() {
            self.unknown.insert(serial);
        }
        self.found.entry(serial).or_default().push(found.unwrap_or_default());
    }

    /// Whether what is held isolates what appliers of this process have found isolated in a namespace, and `wanted` would
    /// not. It may be of this process: something else isolated as much, and has gone with the namespace's object.
    pub fn may_hold(&self, serial: u64, held: Option<&Ruleset>, wanted: Option<&Ruleset>) -> bool {
        let mut found = self.found.get(&serial).into_iter().flatten().flatten();
        let isolates = |found: &Ruleset| {
            let before = Openings::of(found);
            before.cover(held) && !before.cover(wanted)
        };
        // Of what is not understood, it is assumed that it closes everything.
        self.unknown.contains(&serial) || found.any(isolates)
    }

    /// 142, 226, 227: a transaction leaves one state that was wanted, not older than the one before; the only other one is
    /// the closed one where there were no rules.
    pub fn check(&mut self, commit: &Commit, agent: &Agent, has_unread: bool, node: &Node) {
        let Commit {
            serial,
            pod,
            run,
            before,
            after,
            tampered,
            ..
        } = commit;
        let empty = Vec::new();
        let history = agent.reference.histories.get(pod).unwrap_or(&empty);
        if !agent.reference.synced {
            node.violation(
                "s140",
                format!("applier {run} of {pod} writes before the source has said everything"),
            );
        }
        let newest = self.newest.entry(*serial).or_insert(*run);
        if *newest > *run {
            let what =
                format!("applier {run} writes in namespace {serial} over what its successor {newest} has written");
            node.violation("s226", what);
        }
        *newest = (*newest).max(*run);
        let after = match after {
            Ok(after) => after.as_ref(),
            Err(what) => return node.violation("s142", format!("applier {run} of {pod} leaves {what}")),
        };
        let reached = self.reached.get(&(*serial, pod.clone())).copied().unwrap_or(0);
        let later = || history.iter().enumerate().skip(reached);
        let same = |wanted: Option<&Ruleset>| {
            wanted == after || (wanted.map(|it| without(it, &commit.lost)).as_ref() == after)
        };
        let matches = later()
            .find(|(_, wanted)| same(wanted.as_deref()))
            .map(|(position, _)| position);
        if let Some(position) = matches {
            self.reached.insert((*serial, pod.clone()), position);
        } else {
            let fallback = (*before == Ok(None) || *tampered)
                && later().any(|(_, wanted)| wanted.as_deref().map(closed).as_ref() == after);
            let found = |found: &Vec<Option<Ruleset>>| found.iter().flatten().any(|it| Some(it) == after);
            let kept = self.found.get(serial).is_some_and(found);
            if fallback {
                node.meet("pods closed for want of anything better");
            } else if !kept {
                let older = history[..reached.min(history.len())]
                    .iter()
                    .any(|wanted| wanted.as_deref() == after);
                let what = if older {
                    "older rules than there were"
                } else {
                    "rules that were never wanted"
                };
                let example = before.as_ref().map_or_else(
                    |_| String::new(),
                    |before| example(before.as_ref(), after, later().map(|(_, wanted)| wanted.as_deref())),
                );
                let shown = if node.verbose {
                    let text =
                        |ruleset: Option<&Ruleset>| ruleset.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                    let last = history.last().and_then(|it| it.as_deref());
                    format!("\n--- in force\n{}\n--- wanted\n{}", text(after), text(last))
                } else {
                    String::new()
                };
                node.violation(
                    "s226",
                    format!("applier {run} leaves {what} in namespace {serial} of {pod}{example}{shown}"),
                );
            }
        }
        // 138, 139: what earlier rules isolate stays so while not everything could be read, and while the namespace ends.
        let ends = agent.reference.ends(pod);
        if (has_unread || ends)
            && !tampered
            && let Ok(Some(before)) = before
            // Only what was found first is of an earlier agent.
            && self.found.get(serial).and_then(|found| found.first()).is_some_and(|first| first.as_ref() == Some(before))
            && !Openings::of(before).cover(after)
        {
            let (statement, why) = if ends {
                ("s138", "its namespace is being deleted")
            } else {
                ("s139", "not everything could be read")
            };
            node.violation(statement, format!("applier {run} opens {pod} while {why}"));
        }
    }
}

/// 142: what an applier has written in one go, where nobody meddled, is one change. A second transaction there is the
/// repair of chains that had gone with their device, without a new generation: nobody can know of them before the first
/// (it is seen when that is read back, or by the comparison that was asked for along with the change). So the first is
/// all that is wanted but for these chains, and the second brings these and nothing else.
pub fn is_one_change(commits: &[&Commit]) -> bool {
    match commits {
        [] | [_] => true,
        [change, repair] => {
            let lacks = |whole: &Ruleset| {
                let rest = without(whole, &change.lost);
                rest != *whole && change.after == Ok(Some(rest))
            };
            repair.before == change.after && matches!(&repair.after, Ok(Some(whole)) if lacks(whole))
        }
        _ => false,
    }
}

/// Rules as they are when devices have gone, and their chains with them.
fn without(ruleset: &Ruleset, lost: &BTreeSet<InterfaceName>) -> Ruleset {
    let mut out = ruleset.clone();
    out.netdev
        .chains
        .retain(|_, chain| match chain.base.as_ref().map(|base| &base.hook) {
            Some(Hook::Egress(device)) => !lost.contains(device),
            _ => true,
        });
    out
}

/// A packet that nobody wanted to pass, or nobody wanted to be dropped.
fn example<'a>(
    before: Option<&'a Ruleset>,
    after: Option<&Ruleset>,
    wanted: impl Iterator<Item = Option<&'a Ruleset>>,
) -> String {
    let found = match verdicts(after) {
        Ok(found) => found,
        Err(fault) => return format!(": they cannot be traced: {fault}"),
    };
    let sides: Vec<Vec<bool>> = std::iter::once(before)
        .chain(wanted)
        .filter_map(|it| verdicts(it).ok())
        .collect();
    for (position, (passes, packet)) in found.iter().zip(samples()).enumerate() {
        if sides.iter().all(|side| side[position] != *passes) {
            let word = if *passes { "passes" } else { "is dropped" };
            return format!(": against all of them {packet:?} {word}");
        }
    }
    ": no sample packet shows it".to_owned()
}

/// Packets that the rules of a pod are tried with: to and from everybody, on every interface.
fn samples() -> impl Iterator<Item = Packet> {
    let strangers = ["192.0.2.1", "203.0.113.7"];
    let others: Vec<IpAddr> = ADDRESSES
        .iter()
        .chain(&strangers)
        .map(|text| text.parse().expect("an address"))
        .collect();
    let services = [
        L4::port(Protocol::Tcp, 80),
        L4::port(Protocol::Udp, 53),
        L4::port(Protocol::Tcp, 999),
        L4::Other(1),
    ];
    let ways = ["eth0", "net1", "net2"]
        .into_iter()
        .flat_map(|name| Direction::BOTH.map(|direction| (name, direction)));
    ways.flat_map(move |(name, direction)| {
        let others = others.clone();
        others.into_iter().flat_map(move |other| {
            services.into_iter().filter_map(move |l4| {
                if l4 == L4::Other(1) && other.is_ipv6() {
                    return None;
                }
                let own: IpAddr = if other.is_ipv4() { "10.20.1.77" } else { "fd00:20::77" }
                    .parse()
                    .expect("an address");
                let (source, destination) = match direction {
                    Direction::Ingress => (other, own),
                    Direction::Egress => (own, other),
                };
                let talk = Talk {
                    source,
                    destination,
                    l4,
                    client: 40_000,
                };
                Some(packet(
                    talk,
                    Kind::Original,
                    way(direction, false, interface(name)),
                    other,
                ))
            })
        })
    })
}

/// Which of them pass.
fn verdicts(ruleset: Option<&Ruleset>) -> Result<Vec<bool>, String> {
    let tracer = ruleset
        .map(Tracer::new)
        .transpose()
        .map_err(|fault| fault.to_string())?;
    let passes = |packet: Packet| match &tracer {
        None => Ok(true),
        Some(tracer) => match tracer.trace(&packet) {
            Ok(trace) => Ok(trace.decision == Decision::Accept),
            Err(error) => Err(error.to_string()),
        },
    };
    samples().map(passes).collect()
}

/// Whether a state says what is so.
pub fn fits(state: &State, wanted: bool) -> bool {
    match state {
        State::Enforced => wanted,
        State::Open => !wanted,
        State::Failed(_) | State::Held(_) | State::Pending(_) => false,
    }
}

/// The rules in a pod's namespace, for messages.
pub fn shown(ruleset: Option<&Ruleset>) -> String {
    ruleset.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}
