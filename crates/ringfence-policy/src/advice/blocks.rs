//! Blocks of addresses, their excepts, and peers that add nothing (RF211 to RF215).
//!
//! An except takes addresses away from its own ipBlock and denies nothing (statement 63), so whatever else allows them
//! still does (statements 64 to 67). Only policies that protect the same pods on the same networks can do that, and they
//! are found by their bundles: a bundle's grants are united once, and most excepts meet none of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;
use ringfence_model::{
    AddressRange, Direction, Family, IpBlock, Peer, Peers, PortMatch, PortSet, Ports, RangeSet, Rule, Selector,
};

use super::world::{BundleId, SetId, World, peer_path, peers, rules};
use super::{Code, Out, hints};

pub(super) fn look(world: &mut World<'_>, position: usize, out: &mut Out) {
    one_family(world, position, out);
    let target = &world.policies[position];
    for (direction, number, rule) in rules(target.policy) {
        if let Peers::OneOf(list) = &rule.peers {
            for (peer, before) in redundant(list) {
                let message = format!("it adds nothing to {}", peer_path(direction, number, before));
                let hint = "nothing, or take it away";
                let path = peer_path(direction, number, peer);
                out.say(Code::PeerRedundant, &target.source, path, message, hint);
            }
        }
    }
    for (direction, rule, number, peer) in peers(target.policy) {
        let Peer::IpBlock(block) = peer else { continue };
        for (except, within) in nested(&block.except) {
            let message = format!("{} lies within {}", block.except[except], block.except[within]);
            let hint = "nothing, or take it away";
            let path = except_path(direction, rule, number, except);
            out.say(Code::ExceptRedundant, &target.source, path, message, hint);
        }
    }
}

fn except_path(direction: Direction, rule: usize, peer: usize, except: usize) -> String {
    format!("{}.ipBlock.except[{except}]", peer_path(direction, rule, peer))
}

/// `0.0.0.0/0` means no IPv6 address, and pods that have both are half closed by it (statement 71).
fn one_family(world: &World<'_>, position: usize, out: &mut Out) {
    let target = &world.policies[position];
    let Some(pod) = world.bundle_of(position).dual_stack else {
        return;
    };
    for direction in Direction::BOTH {
        let open = rules(target.policy).any(|(of, _, rule)| of == direction && rule.peers == Peers::All);
        let mut whole = None;
        let mut families = BTreeSet::new();
        for (of, rule, number, peer) in peers(target.policy) {
            if let (true, Peer::IpBlock(block)) = (of == direction, peer) {
                families.insert(Family::of(block.cidr.addr()));
                if block.cidr.prefix_len() == 0 {
                    whole.get_or_insert((rule, number, block.cidr));
                }
            }
        }
        if let Some((rule, number, cidr)) = whole.filter(|_| !open && families.len() == 1) {
            let (has, other) = match Family::of(cidr.addr()) {
                Family::V4 => ("IPv4", "::/0"),
                Family::V6 => ("IPv6", "0.0.0.0/0"),
            };
            let message = format!(
                "{cidr} means {has} only, and the policy protects addresses of both IP versions (pod {})",
                world.pod_name(pod)
            );
            let hint = format!("add a peer with cidr {other}");
            let path = peer_path(direction, rule, number);
            out.say(Code::OneFamily, &target.source, path, message, hint);
        }
    }
}

/// Peers that are in another one of the list, with that one.
fn redundant(list: &[Peer]) -> Vec<(usize, usize)> {
    let mut selectors: HashMap<(Option<&Selector>, &Selector), usize> = HashMap::new();
    let mut blocks: HashMap<IpNet, usize> = HashMap::new();
    for (number, peer) in list.iter().enumerate() {
        if let Peer::IpBlock(IpBlock { cidr, except }) = peer
            && except.is_empty()
        {
            blocks.entry(*cidr).or_insert(number);
        }
    }
    let mut found = Vec::new();
    for (number, peer) in list.iter().enumerate() {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let first = *selectors.entry((namespaces.as_ref(), pods)).or_insert(number);
                found.extend((first != number).then_some((number, first)));
            }
            // One with excepts is looked at by its excepts.
            Peer::IpBlock(block) if block.except.is_empty() => {
                found.extend(wider(&blocks, block.cidr, number).map(|wider| (number, wider)));
            }
            Peer::IpBlock(_) | Peer::Nothing => {}
        }
    }
    found
}

/// Excepts that lie within another one of their block, with that one.
fn nested(except: &[IpNet]) -> Vec<(usize, usize)> {
    let mut known: HashMap<IpNet, usize> = HashMap::new();
    for (number, net) in except.iter().enumerate() {
        known.entry(*net).or_insert(number);
    }
    let numbered = except.iter().enumerate();
    numbered
        .filter_map(|(number, net)| wider(&known, *net, number).map(|wider| (number, wider)))
        .collect()
}

/// The same prefix at another place, or one that holds it. At most 128 look-ups, however many prefixes there are.
fn wider(known: &HashMap<IpNet, usize>, net: IpNet, own: usize) -> Option<usize> {
    let mut current = Some(net);
    while let Some(prefix) = current {
        if let Some(&number) = known.get(&prefix).filter(|&&number| number != own) {
            return Some(number);
        }
        current = prefix.supernet();
    }
    None
}

/// A rule's peer that allows addresses.
struct Grant {
    policy: usize,
    rule: usize,
    /// `None`: everyone.
    peer: Option<usize>,
    ranges: RangeSet,
}

/// What the policies of a bundle allow in one direction.
#[derive(Default)]
struct Group {
    grants: Vec<Grant>,
    /// All of them together, to see at once that nothing is met.
    union: RangeSet,
    /// Peers by selectors, with their policy and rule.
    pods: Vec<(usize, usize, SetId)>,
}

/// Looks at every except of every policy.
pub(super) fn look_at_excepts(world: &mut World<'_>, out: &mut Out) {
    let mut groups: HashMap<(BundleId, Direction), Rc<Group>> = HashMap::new();
    let mut neighbours: HashMap<BundleId, Rc<[BundleId]>> = HashMap::new();
    let mut addresses = None;
    for position in 0..world.policies.len() {
        let policy = world.policies[position].policy;
        for (direction, rule, number, peer) in peers(policy) {
            let Peer::IpBlock(block) = peer else { continue };
            if block.except.is_empty() {
                continue;
            }
            let bundle = world.policies[position].bundle;
            let near = neighbours
                .entry(bundle)
                .or_insert_with(|| sharing_pods(world, bundle).into());
            let near = Rc::clone(near);
            let mut groups_near = Vec::with_capacity(near.len().max(1));
            if near.is_empty() {
                groups_near.push(Rc::new(group(world, &[position], direction)));
            }
            for &other in near.iter() {
                let known = groups.get(&(other, direction)).map(Rc::clone);
                let group = known.unwrap_or_else(|| {
                    let policies = world.bundle_at(other).policies.clone();
                    Rc::new(group(world, &policies, direction))
                });
                groups.insert((other, direction), Rc::clone(&group));
                groups_near.push(group);
            }
            let addresses = addresses.get_or_insert_with(|| world.addresses());
            let place = Place {
                position,
                direction,
                rule,
                peer: number,
            };
            for (except, net) in block.except.iter().enumerate() {
                place.look(world, &groups_near, addresses, except, *net, out);
            }
        }
    }
}

/// The bundles that protect a pod of this one on one of its networks, itself among them. None where nobody is protected:
/// such a policy is compared with itself alone.
fn sharing_pods(world: &World<'_>, bundle: BundleId) -> Vec<BundleId> {
    let own = world.bundle_at(bundle);
    let others = own.pods.iter().flat_map(|&pod| world.bundles_of[pod].iter().copied());
    let mut found: Vec<BundleId> = others
        .filter(|&other| !world.bundle_at(other).networks.is_disjoint(&own.networks))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn group(world: &mut World<'_>, policies: &[usize], direction: Direction) -> Group {
    let mut group = Group::default();
    for &position in policies {
        let policy = world.policies[position].policy;
        for (of, number, rule) in rules(policy) {
            if of != direction {
                continue;
            }
            let grant = |peer, ranges| Grant {
                policy: position,
                rule: number,
                peer,
                ranges,
            };
            let Peers::OneOf(peers) = &rule.peers else {
                let everyone = ["0.0.0.0/0", "::/0"].map(|text| text.parse::<IpNet>().map(AddressRange::of_prefix));
                group
                    .grants
                    .push(grant(None, RangeSet::union_of(everyone.into_iter().flatten())));
                continue;
            };
            for (peer, it) in peers.iter().enumerate() {
                match it {
                    Peer::IpBlock(block) => group.grants.push(grant(Some(peer), block.ranges())),
                    Peer::Pods { namespaces, pods } => {
                        let set = world.peer(&policy.key.name.namespace, namespaces.as_ref(), pods);
                        group.pods.push((position, number, set));
                    }
                    Peer::Nothing => {}
                }
            }
        }
    }
    let ranges = group
        .grants
        .iter()
        .flat_map(|grant| grant.ranges.ranges().iter().copied());
    group.union = RangeSet::union_of(ranges);
    group
}

/// The ipBlock of which an except is looked at.
struct Place {
    position: usize,
    direction: Direction,
    rule: usize,
    peer: usize,
}

impl Place {
    fn look(
        &self,
        world: &World<'_>,
        groups: &[Rc<Group>],
        addresses: &BTreeMap<IpAddr, Vec<usize>>,
        except: usize,
        net: IpNet,
        out: &mut Out,
    ) {
        let hole = AddressRange::of_prefix(net);
        let own = rule_of(world, self.position, self.direction, self.rule);
        let mut left = RangeSet::union_of([hole]);
        let mut by = BTreeSet::new();
        for group in groups.iter().filter(|group| touches(&group.union, hole)) {
            for grant in group.grants.iter().filter(|grant| touches(&grant.ranges, hole)) {
                if left.is_empty() {
                    break;
                }
                let same_policy = grant.policy == self.position;
                if same_policy && grant.rule == self.rule && grant.peer == Some(self.peer) {
                    continue;
                }
                let rule = rule_of(world, grant.policy, self.direction, grant.rule);
                // Beside a rule that allows everything this one is useless, which is said of that rule.
                if same_policy && grant.peer.is_none() && rule.ports == Ports::All || !meet(&own.ports, &rule.ports) {
                    continue;
                }
                by.insert(self.clause(world, grant.policy, grant.rule, grant.peer));
                if covers(&rule.ports, &own.ports) {
                    left = left.minus(&grant.ranges);
                }
            }
        }
        let source = &world.policies[self.position].source;
        let path = except_path(self.direction, self.rule, self.peer, except);
        let hint = "an except denies nothing; take the addresses out of the other peer too, or take the except away";
        if left.is_empty() {
            let message = format!("{net} is allowed again by {}", hints::some(by));
            out.say(Code::ExceptGranted, source, path, message, hint);
        } else if !by.is_empty() {
            let message = format!(
                "a part of {net}, or some ports of it, is allowed again by {}",
                hints::some(by)
            );
            out.say(Code::ExceptPartlyGranted, source, path, message, hint);
        } else if let Some(by) = self.by_selectors(world, groups, addresses, hole) {
            let message = format!(
                "every pod with an address in {net} is allowed again by {}",
                hints::some(by)
            );
            let alone = hole.first() == hole.last();
            let code = if alone {
                Code::ExceptGranted
            } else {
                Code::ExceptPartlyGranted
            };
            out.say(code, source, path, message, hint);
        }
    }

    /// The selectors that allow every known pod in the hole, if there is such a pod (statement 67).
    fn by_selectors(
        &self,
        world: &World<'_>,
        groups: &[Rc<Group>],
        addresses: &BTreeMap<IpAddr, Vec<usize>>,
        hole: AddressRange,
    ) -> Option<BTreeSet<String>> {
        // Of a hole with more pods not all are meant to be allowed, and looking costs.
        const PODS: usize = 64;
        let networks = &world.bundle_of(self.position).networks;
        let on = |&pod: &usize| {
            let mut attachments = world.pods[pod].0.attachments.iter();
            attachments.any(|it| {
                !it.networks.is_disjoint(networks) && it.addresses.iter().any(|address| hole.contains(*address))
            })
        };
        let within = addresses
            .range(hole.first()..=hole.last())
            .flat_map(|(_, pods)| pods.iter().copied());
        let pods: BTreeSet<usize> = within.filter(on).take(PODS + 1).collect();
        if pods.is_empty() || pods.len() > PODS {
            return None;
        }
        let own = rule_of(world, self.position, self.direction, self.rule);
        let mut by = BTreeSet::new();
        for pod in pods {
            let grants = groups.iter().flat_map(|group| &group.pods);
            let (policy, rule, _) = grants
                .filter(|(policy, rule, _)| meet(&own.ports, &rule_of(world, *policy, self.direction, *rule).ports))
                .find(|(_, _, set)| world.set(*set).binary_search(&pod).is_ok())?;
            by.insert(self.clause(world, *policy, *rule, None));
        }
        Some(by)
    }

    /// The rule or peer that allows, as people find it: its path, with the policy where it is another one.
    fn clause(&self, world: &World<'_>, policy: usize, rule: usize, peer: Option<usize>) -> String {
        let path = match peer {
            Some(peer) => peer_path(self.direction, rule, peer),
            None => format!("spec.{}[{rule}]", self.direction),
        };
        if policy == self.position {
            path
        } else {
            format!("{} {path}", world.policies[policy].source)
        }
    }
}

fn rule_of<'a>(world: &World<'a>, policy: usize, direction: Direction, rule: usize) -> &'a Rule {
    // Grants are made of rules that exist.
    &world.policies[policy].policy.rules(direction).unwrap_or_default()[rule]
}

/// Whether a set has an address of a range. Ranges of a set are disjoint and ascending.
fn touches(set: &RangeSet, range: AddressRange) -> bool {
    let ranges = set.ranges();
    let after = ranges.partition_point(|it| it.last() < range.first());
    ranges.get(after).is_some_and(|it| it.first() <= range.last())
}

/// Whether two lists of ports have something in common.
fn meet(one: &Ports, other: &Ports) -> bool {
    match (one, other) {
        (Ports::All, Ports::All) => true,
        (Ports::All, Ports::OneOf(list)) | (Ports::OneOf(list), Ports::All) => {
            list.iter().any(|entry| *entry != PortMatch::Nothing)
        }
        (Ports::OneOf(ours), Ports::OneOf(theirs)) => ours.iter().any(|our| {
            theirs.iter().any(|their| match (our, their) {
                (PortMatch::Range(a), PortMatch::Range(b)) => {
                    a.protocol == b.protocol && a.first <= b.last && b.first <= a.last
                }
                (PortMatch::Nothing, _) | (_, PortMatch::Nothing) => false,
                (a, b) => a == b,
            })
        }),
    }
}

/// Whether the first list allows everything that the second does.
fn covers(wide: &Ports, narrow: &Ports) -> bool {
    match (wide, narrow) {
        (Ports::All, _) => true,
        (Ports::OneOf(_), Ports::All) => false,
        (Ports::OneOf(wide), Ports::OneOf(narrow)) => {
            let ranges = |list: &[PortMatch]| {
                PortSet::union_of(list.iter().filter_map(|entry| match entry {
                    PortMatch::Range(range) => Some(*range),
                    PortMatch::Named { .. } | PortMatch::Nothing => None,
                }))
            };
            let known = ranges(wide);
            let both = known.union(&ranges(narrow));
            both == known
                && narrow
                    .iter()
                    .filter(|entry| matches!(entry, PortMatch::Named { .. }))
                    .all(|entry| wide.contains(entry))
        }
    }
}
