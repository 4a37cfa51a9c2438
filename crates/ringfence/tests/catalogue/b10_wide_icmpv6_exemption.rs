//! B10: KNP#191, aci#1735.
//!
//! To keep neighbour discovery alive, engines accepted all of ICMPv6, or everything of IPv6. Only the messages that
//! discovery needs pass, and only with hop limit 255 and code 0 (statements 121, 122). Shown packet by packet with the
//! tracer, and on the kernel: under deny-all neither echo nor TCP nor UDP passes over IPv6, in either direction, while the
//! neighbours still find each other.

use std::net::IpAddr;

use ringfence_model::Family;
use ringfence_ruleset::{Conntrack, Content, CtDirection, Decision, Packet, Path, Tracer, Transport};
use ringfence_testkit::Protocol::{Icmp, Tcp, Udp};

use crate::support::manifest::{BLUE, blue, multi};
use crate::support::node::{Node, spec};
use crate::support::world::{World, interface};

const DENY: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

#[test]
fn s121_s122_only_discovery_passes_and_only_from_the_link() {
    let world = World::of([blue("shop/web", 10, "").yaml(), multi("shop/guard", BLUE, DENY)]);
    let ruleset = world.ruleset("shop/web").expect("isolated");
    let tracer = Tracer::new(ruleset).expect("a sound ruleset");
    let (own, peer): (IpAddr, IpAddr) = (
        "fd00:20::10".parse().expect("an address"),
        "fe80::1".parse().expect("an address"),
    );
    let passes = |arrives: bool, protocol: Family, kind: u8, code: u8, hop_limit: u8, tracked: bool| {
        let (source, destination) = if arrives { (peer, own) } else { (own, peer) };
        let conntrack = if tracked {
            Conntrack::Tracked {
                direction: CtDirection::Original,
                related: false,
                original_source: source,
                reply_source: destination,
            }
        } else {
            Conntrack::Untracked
        };
        let packet = Packet {
            path: if arrives {
                Path::Arrives(interface("net1"))
            } else {
                Path::Leaves(interface("net1"))
            },
            content: Content::Ip {
                source,
                destination,
                hop_limit,
                transport: Transport::Icmp { protocol, kind, code },
            },
            conntrack,
            source_local: !arrives,
        };
        tracer.trace(&packet).expect("a trace").decision == Decision::Accept
    };
    for arrives in [true, false] {
        // Solicitation and advertisement.
        for kind in [135, 136] {
            assert!(passes(arrives, Family::V6, kind, 0, 255, false), "{kind}");
            assert!(
                !passes(arrives, Family::V6, kind, 0, 254, false),
                "{kind}: has come over a router"
            );
            assert!(!passes(arrives, Family::V6, kind, 1, 255, false), "{kind}: code 1");
            assert!(
                !passes(arrives, Family::V4, kind, 0, 255, true),
                "{kind} of ICMP for IPv4"
            );
        }
        for kind in (0..=255_u8).filter(|kind| !(130..=137).contains(kind) && *kind != 143) {
            assert!(
                !passes(arrives, Family::V6, kind, 0, 255, true),
                "{kind}, arrives: {arrives}"
            );
        }
    }
    // A router's words are heard, and never spoken by an isolated pod.
    assert!(passes(true, Family::V6, 134, 0, 255, false));
    assert!(!passes(false, Family::V6, 134, 0, 255, false));
    assert!(!passes(false, Family::V6, 137, 0, 255, false));
}

#[test]
fn s114_s121_deny_all_on_the_kernel() {
    let mut node = Node::new("icmpv6", vec![spec("shop/web", ""), spec("far/client", "")]);
    node.start();
    let all = |reached: bool| {
        [Icmp, Tcp, Udp].map(|protocol| {
            [
                ("far/client", "shop/web", protocol, 80, reached),
                ("shop/web", "far/client", protocol, 80, reached),
            ]
        })
    };
    node.check(all(true).as_flattened());
    node.save("guard.yaml", &multi("shop/guard", BLUE, DENY));
    for name in ["shop/web", "far/client"] {
        node.pod(name)
            .exec("ip", &["-6", "neighbour", "flush", "all"])
            .expect("flushed");
    }
    node.check(all(false).as_flattened());
    // The client asked for the server's MAC address and got it.
    let address = node
        .pod("shop/web")
        .address(BLUE, Family::V6)
        .expect("an address")
        .to_string();
    node.eventually("the neighbour is found", || {
        let found = node
            .pod("far/client")
            .exec("ip", &["-6", "neighbour", "show", &address])
            .expect("listed");
        if found.contains("lladdr") {
            return Ok(());
        }
        // One more packet that is dropped behind discovery.
        node.check(&[("far/client", "shop/web", Udp, 80, false)]);
        Err(found)
    });
}
