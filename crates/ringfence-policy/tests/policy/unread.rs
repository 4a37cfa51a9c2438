//! Statement 139 where policies could not be read: rules without them open nothing unless their openings say so.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index as Choice, select};
use ringfence_model::{Direction, InterfaceName, Object, Scope};
use ringfence_policy::{Index, Locality, Openings, Options};
use ringfence_ruleset::{Conntrack, Content, CtDirection, Decision, KernelFeatures, Packet, Path, Ruleset, Tracer};

use crate::oracle::{OTHERS, packet, questions};
use crate::property::{ADDRESSES, namespace, pod, policy};
use crate::support::{addr, block, everybody, from, interface, options, policy as guard, tcp, uid};

/// A universe in which some objects can be read and some cannot.
#[derive(Debug)]
struct Case {
    scope: Scope,
    known: Vec<Object>,
    unread: Vec<Object>,
}

fn case() -> impl Strategy<Value = Case> {
    (
        select(vec![Scope::Secondary, Scope::All, Scope::Annotated]),
        vec(pod(), 2..6),
        vec(policy(), 1..6),
        vec(namespace(), 0..3),
        vec(any::<Choice>(), 1..4),
    )
        .prop_map(|(scope, pods, policies, namespaces, chosen)| {
            // One object of each name: a second one would replace the first, and be in force instead of missing.
            let policies = policies.into_iter().map(|it| (it.key.clone(), it));
            let namespaces = namespaces.into_iter().map(|it| (it.name.clone(), it));
            let policies = policies.collect::<BTreeMap<_, _>>().into_values().map(Object::Policy);
            let namespaces = namespaces
                .collect::<BTreeMap<_, _>>()
                .into_values()
                .map(Object::Namespace);
            let mut known: Vec<Object> = policies.chain(namespaces).collect();
            let mut unread = Vec::new();
            for choice in chosen {
                if !known.is_empty() {
                    unread.push(known.swap_remove(choice.index(known.len())));
                }
            }
            known.extend(pods.into_iter().map(Object::Pod));
            Case { scope, known, unread }
        })
}

fn index<'a>(scope: Scope, objects: impl IntoIterator<Item = &'a Object>) -> Index {
    let mut index = Index::new(Options {
        locality: Locality::Node("node-1".into()),
        scope,
        kernel: KernelFeatures::ALL,
        node_addresses: [addr("10.20.1.3")].into(),
    });
    for object in objects {
        index.apply(object.clone());
    }
    index.commit();
    index
}

/// The answer to the packet that opens a connection.
fn answer(opening: &Packet) -> Option<Packet> {
    let Content::Ip {
        source,
        destination,
        hop_limit,
        transport,
    } = opening.content
    else {
        return None;
    };
    let path = match opening.path.clone() {
        Path::Arrives(interface) => Path::Leaves(interface),
        Path::Leaves(interface) => Path::Arrives(interface),
        _ => return None,
    };
    Some(Packet {
        path,
        content: Content::Ip {
            source: destination,
            destination: source,
            hop_limit,
            transport,
        },
        conntrack: match opening.conntrack {
            Conntrack::Untracked | Conntrack::Invalid | Conntrack::PickedUp => return None,
            Conntrack::Tracked { related, .. } => Conntrack::Tracked {
                direction: CtDirection::Reply,
                related,
                original_source: source,
                reply_source: destination,
            },
        },
        source_local: true,
    })
}

/// Packets of all kinds on all interfaces, those that nothing explains among them.
fn packets(interfaces: &[InterfaceName]) -> Vec<Packet> {
    let mut out = Vec::new();
    for name in interfaces {
        for direction in Direction::BOTH {
            for other in ADDRESSES.iter().chain(&OTHERS).copied().map(addr) {
                let own = addr(if other.is_ipv4() { "10.20.1.200" } else { "fd00:20::200" });
                for l4 in questions() {
                    let opening = packet(name, direction, own, other, l4);
                    out.extend(answer(&opening));
                    out.push(opening);
                }
            }
        }
    }
    out
}

fn passes(ruleset: Option<&Ruleset>, packets: &[Packet]) -> Vec<bool> {
    let Some(ruleset) = ruleset else {
        return vec![true; packets.len()];
    };
    let tracer = Tracer::new(ruleset).unwrap_or_else(|fault| panic!("{fault}\n{ruleset}"));
    // What makes no sense, as an IPv4 packet with ICMPv6 in it, is no packet.
    let one = |packet| tracer.trace(packet).is_ok_and(|it| it.decision == Decision::Accept);
    packets.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is missing: as long as the openings are no more, not one packet passes that did not pass before.
    #[test]
    fn s139_s226_rules_without_what_is_unread_never_open_more_than_their_openings_say(case in case()) {
        let before = index(case.scope, case.known.iter().chain(&case.unread));
        let now = index(case.scope, &case.known);
        for pod in case.known.iter().filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        }) {
            let Some(old) = before.ruleset(&pod.uid) else { continue };
            let new = now.ruleset(&pod.uid);
            if !Openings::of(old).cover(new) {
                // These rules are not handed over.
                continue;
            }
            let mut interfaces: Vec<InterfaceName> =
                pod.attachments.iter().filter_map(|it| it.interface.clone()).collect();
            interfaces.push(interface("eth77"));
            let packets = packets(&interfaces);
            let both = passes(Some(old), &packets).into_iter().zip(passes(new, &packets));
            for ((then, now), packet) in both.zip(&packets) {
                prop_assert!(then || !now, "{packet:?} was dropped\n{old}\nand now passes\n{new:?}");
            }
        }
    }
}

fn ruleset(policies: &[Object]) -> Option<Ruleset> {
    let mut index = Index::new(options());
    index.apply(
        crate::support::pod("x/a", "")
            .a(&["10.20.1.10"])
            .b(&["10.30.1.10"])
            .into(),
    );
    for policy in policies {
        index.apply(policy.clone());
    }
    index.commit();
    index.ruleset(&uid("x/a")).cloned()
}

#[test]
fn s139_openings_are_what_nothing_isolates() {
    let both = ["default/net-a", "default/net-b"];
    let ingress = |name: &str, networks: &[&str]| Object::from(guard(name).covering(networks).ingress([]));
    let egress = |name: &str| {
        Object::from(
            guard(name)
                .covering(&both[..1])
                .egress([from([block("10.0.0.0/8", &[])])]),
        )
    };
    let check = |policies: &[Object], expected: &[(&str, Direction)]| {
        let ruleset = ruleset(policies).expect("isolated");
        let openings = Openings::of(&ruleset);
        for name in ["net1", "net2"] {
            for direction in Direction::BOTH {
                assert_eq!(
                    openings.contains(&interface(name), direction),
                    expected.contains(&(name, direction)),
                    "{name} {direction}\n{ruleset}"
                );
            }
        }
        for closed in ["lo", "eth77"] {
            assert!(!openings.contains(&interface(closed), Direction::Ingress), "{closed}");
        }
        assert!(openings.cover(Some(&ruleset)) && !openings.cover(None));
        assert!(!Openings::none().cover(None));
    };
    let (net1, net2) = ("net1", "net2");
    check(
        &[ingress("x/one", &both[..1])],
        &[
            (net1, Direction::Egress),
            (net2, Direction::Ingress),
            (net2, Direction::Egress),
        ],
    );
    check(
        &[ingress("x/one", &both)],
        &[(net1, Direction::Egress), (net2, Direction::Egress)],
    );
    check(
        &[ingress("x/one", &both), egress("x/two")],
        &[(net2, Direction::Egress)],
    );

    // What is allowed on an isolated interface plays no part, only that it is isolated.
    let strict = ruleset(&[ingress("x/one", &both[..1])]).expect("isolated");
    let wide = guard("x/wide").covering(&both[..1]).ingress([everybody([tcp(80)])]);
    let wide = ruleset(&[wide.into()]).expect("isolated");
    assert!(Openings::of(&strict).cover(Some(&wide)) && Openings::of(&wide).cover(Some(&strict)));
    let more = ruleset(&[ingress("x/one", &both)]).expect("isolated");
    assert!(Openings::of(&strict).cover(Some(&more)) && !Openings::of(&more).cover(Some(&strict)));
}
