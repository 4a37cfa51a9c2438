//! Manifests all the way: decode, index, compile, check, text, transaction, wire form, tracer, oracle.
//!
//! [`check`] is shared with [`crate::world`], which makes its manifests up instead of reading them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ringfence_model::{Direction, Family, InterfaceName, Object, ObjectKey, Peer, Peers, Pod, PodUid, Protocol, Scope};
use ringfence_policy::evaluate::{Decision as Word, L4, Universe, evaluate_at};
use ringfence_policy::{Index, Locality, Options, PodView, TargetFacts};
use ringfence_ruleset::text::{normalise, script};
use ringfence_ruleset::{
    Conntrack, Content, CtDirection, Decision, KernelFeatures, Packet, Path, Ruleset, Tracer, Transport, replacement,
    transaction,
};

use crate::{sound, text};

/// Most objects that are looked at, most pods whose verdicts are compared, and most peers that are asked about: enough
/// for everything to meet everything, and little enough for hundreds of worlds a second.
const MOST: usize = 24;
const MOST_PODS: usize = 6;
const MOST_PEERS: usize = 8;

/// Reads a file of manifests; the first line may be a comment that names scope and kernel: `# all`, `# secondary old`.
pub fn run(data: &[u8]) {
    let text = text(data);
    let first = text.lines().next().unwrap_or_default();
    let decoded = ringfence_kube::decode(&text, "fuzz.yaml");
    decoded.iter().for_each(sound::check);
    let objects: Vec<Object> = decoded.into_iter().filter_map(|one| one.object).take(MOST).collect();
    let scope = [
        ("annotated", Scope::Annotated),
        ("secondary", Scope::Secondary),
        ("none", Scope::None),
    ]
    .into_iter()
    .find(|(word, _)| first.contains(word))
    .map_or(Scope::All, |(_, scope)| scope);
    let old = first.contains("old");
    let options = Options {
        locality: Locality::All,
        scope,
        kernel: KernelFeatures {
            owner_persist: !old,
            egress_backstop: !old,
            fib: !old,
        },
        node_addresses: BTreeSet::new(),
    };
    check(&objects, &options);
}

/// Whatever objects there are: nothing depends on order or history, every ruleset is one that the kernel takes, and its
/// verdicts are the oracle's.
pub fn check(objects: &[Object], options: &Options) {
    // Of several objects with one key the last counts, and then order means nothing.
    let latest: BTreeMap<ObjectKey, &Object> = objects.iter().map(|object| (object.key(), object)).collect();
    let objects: Vec<&Object> = latest.into_values().collect();
    let facts = facts(&objects);
    let fresh = build(options, &facts, objects.iter().copied(), false);
    let wanted = state(&fresh);
    let backwards = build(options, &facts, objects.iter().rev().copied(), true);
    same(&state(&backwards), &wanted, "another order, one commit for each object");
    let mut moved = fresh;
    for part in [1, 0] {
        let some = || {
            objects
                .iter()
                .enumerate()
                .filter(move |(position, _)| position % 2 == part)
        };
        some().for_each(|(_, object)| moved.remove(&object.key()));
        moved.commit();
        some().for_each(|(_, object)| moved.apply((*object).clone()));
        moved.commit();
    }
    same(&state(&moved), &wanted, "half of the objects gone and come again");
    assert_eq!(moved.commit(), [], "nothing is left to do");
    assert_eq!(moved.networks(), backwards.networks());
    assert_eq!(moved.conflicts(), backwards.conflicts());
    rulesets(&wanted);
    oracle(&moved, options, &objects);
}

/// Every second pod's namespace is known, with an interface that no attachment explains.
fn facts(objects: &[&Object]) -> BTreeMap<PodUid, TargetFacts> {
    let pods = objects.iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    });
    let known = |pod: &Pod| TargetFacts {
        interfaces: pod
            .attachments
            .iter()
            .filter_map(|it| it.interface.clone())
            .chain(InterfaceName::new("stray0"))
            .collect(),
        gateways: BTreeSet::new(),
    };
    pods.step_by(2).map(|pod| (pod.uid.clone(), known(pod))).collect()
}

fn build<'o>(
    options: &Options,
    facts: &BTreeMap<PodUid, TargetFacts>,
    objects: impl Iterator<Item = &'o Object>,
    stepwise: bool,
) -> Index {
    let mut index = Index::new(options.clone());
    for object in objects {
        index.apply(object.clone());
        if stepwise {
            index.commit();
        }
    }
    for (pod, facts) in facts {
        index.set_facts(pod, Some(facts.clone()));
    }
    index.commit();
    index
}

type State = BTreeMap<PodUid, (Option<Ruleset>, Option<PodView>)>;

fn state(index: &Index) -> State {
    let of = |pod: &PodUid| (index.ruleset(pod).cloned(), index.view(pod).cloned());
    index.local_pods().map(|pod| (pod.clone(), of(pod))).collect()
}

fn same(found: &State, wanted: &State, how: &str) {
    assert!(found.keys().eq(wanted.keys()), "{how}: other local pods");
    for (pod, (ruleset, view)) in wanted {
        let (other, other_view) = &found[pod];
        if other != ruleset {
            let shown = |it: &Option<Ruleset>| it.as_ref().map_or_else(String::new, ToString::to_string);
            panic!("{how}: {pod} has {}\ninstead of {}", shown(other), shown(ruleset));
        }
        assert_eq!(other_view, view, "{how}: {pod}");
    }
}

/// Text, wire form and differences of every ruleset.
fn rulesets(state: &State) {
    let mut before: Option<&Ruleset> = None;
    for (pod, (ruleset, view)) in state {
        let isolated = view.as_ref().is_some_and(PodView::is_isolated);
        assert_eq!(
            ruleset.is_some(),
            isolated,
            "{pod}: rules exactly where something isolates"
        );
        let Some(ruleset) = ruleset else { continue };
        assert_eq!(ringfence_ruleset::check(ruleset), Ok(()), "{pod}: {ruleset}");
        let text = ruleset.to_string();
        assert!(
            !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')),
            "{text:?}"
        );
        assert_eq!(normalise(&text), text, "{pod}: what a ruleset prints is normal");
        assert_eq!(
            ringfence_netlink::fuzzing::round_trip(ruleset),
            Ok(()),
            "{pod}: {ruleset}"
        );
        assert_eq!(
            transaction(Some(ruleset), Some(ruleset)),
            [],
            "{pod}: nothing changes nothing"
        );
        for (from, to) in [(None, Some(ruleset)), (before, Some(ruleset)), (Some(ruleset), before)] {
            let ops = transaction(from, to);
            assert_eq!(ops.is_empty(), from == to, "{pod}: {}", script(&ops));
            assert_eq!(script(&ops).lines().count(), ops.len(), "one line for each operation");
        }
        assert!(!replacement(Some(ruleset)).is_empty());
        before = Some(ruleset);
    }
}

fn oracle(index: &Index, options: &Options, objects: &[&Object]) {
    let mut universe = Universe::default();
    universe.scope = options.scope;
    if let Locality::Node(node) = &options.locality {
        universe.node_addresses = [(node.clone(), options.node_addresses.clone())].into();
    }
    for object in objects {
        universe.apply((*object).clone());
    }
    let peers = peers(objects);
    for uid in index.local_pods().take(MOST_PODS) {
        let (Some(pod), ruleset) = (universe.pods.get(uid), index.ruleset(uid)) else {
            continue;
        };
        let tracer = ruleset.map(|ruleset| Tracer::new(ruleset).expect("a ruleset without faults"));
        for (position, attachment) in pod.attachments.iter().enumerate() {
            let Some(interface) = &attachment.interface else {
                continue;
            };
            // From the wire under the pod's own address the compiler is stricter by choice (statement 120).
            for other in peers.iter().filter(|other| !attachment.addresses.contains(other)) {
                for direction in Direction::BOTH {
                    for l4 in questions(*other) {
                        let verdict = evaluate_at(&universe, uid, position, direction, *other, l4);
                        let packet = packet(interface, direction, *other, l4);
                        let accepted = tracer.is_none_or(|tracer| {
                            let trace = tracer.trace(&packet).expect("a packet of one family");
                            trace.decision == Decision::Accept
                        });
                        assert_eq!(
                            accepted,
                            verdict.decision == Word::Allow,
                            "{uid} {interface} {direction} {other} {l4:?}: {verdict:?}\n{}",
                            ruleset.map(ToString::to_string).unwrap_or_default()
                        );
                    }
                }
            }
        }
    }
}

/// Addresses of pods, edges of blocks, and strangers.
fn peers(objects: &[&Object]) -> BTreeSet<IpAddr> {
    let strangers = ["192.0.2.1", "2001:db8::1"]
        .into_iter()
        .map(|text| text.parse().expect("an address"));
    let mut found: BTreeSet<IpAddr> = strangers.collect();
    for object in objects {
        let more: Vec<IpAddr> = match object {
            Object::Pod(pod) => pod.attachments.iter().flat_map(|it| &it.addresses).copied().collect(),
            Object::Policy(policy) => {
                let rules = Direction::BOTH
                    .into_iter()
                    .filter_map(|direction| policy.rules(direction))
                    .flatten();
                let peers = rules.flat_map(|rule| match &rule.peers {
                    Peers::OneOf(peers) => &peers[..],
                    Peers::All => &[],
                });
                let edges = peers.flat_map(|peer| match peer {
                    Peer::IpBlock(block) => block.ranges().ranges().to_vec(),
                    _ => Vec::new(),
                });
                edges.take(4).flat_map(|range| [range.first(), range.last()]).collect()
            }
            _ => Vec::new(),
        };
        for address in more {
            // What the oracle and a packet tracer could not agree on: nobody sends from these.
            let ordinary = !(address.is_loopback() || address.is_multicast() || address.is_unspecified());
            if ordinary && found.len() < MOST_PEERS {
                found.insert(address);
            }
        }
    }
    found
}

fn questions(other: IpAddr) -> Vec<L4> {
    let mut all = vec![L4::tcp(80), L4::tcp(65_535), L4::udp(53), L4::Other(47)];
    if other.is_ipv6() {
        all.extend([128, 135].map(|message| L4::Icmpv6 { message }));
    }
    all
}

/// The packet that opens the connection, where it passes the interface.
fn packet(interface: &InterfaceName, direction: Direction, other: IpAddr, l4: L4) -> Packet {
    let own = if other.is_ipv4() {
        "198.51.100.7"
    } else {
        "2001:db8:7::7"
    };
    let own: IpAddr = own.parse().expect("an address");
    let (path, source, destination) = match direction {
        Direction::Ingress => (Path::Arrives(interface.clone()), other, own),
        Direction::Egress => (Path::Leaves(interface.clone()), own, other),
    };
    let transport = match l4 {
        L4::Port { protocol, port } => Transport::Ports {
            protocol,
            source: if protocol == Protocol::Udp { 5353 } else { 40_000 },
            destination: port,
        },
        L4::Icmpv6 { message } => Transport::Icmp {
            protocol: Family::V6,
            kind: message,
            code: 0,
        },
        L4::Other(number) => Transport::Other(number),
    };
    let discovery = matches!(
        l4,
        L4::Icmpv6 {
            message: 130..=137 | 143
        }
    );
    Packet {
        path,
        content: Content::Ip {
            source,
            destination,
            hop_limit: 255,
            transport,
        },
        conntrack: if discovery {
            Conntrack::Untracked
        } else {
            Conntrack::Tracked {
                direction: CtDirection::Original,
                related: false,
                original_source: source,
                reply_source: destination,
            }
        },
        source_local: true,
    }
}
