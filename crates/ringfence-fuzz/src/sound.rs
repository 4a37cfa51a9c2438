//! What holds for everything that the decoder returns, whatever it was given.

use std::collections::BTreeSet;

use ringfence_kube::Decoded;
use ringfence_model::{
    Coverage, Diagnostic, Direction, InterfaceName, NetworkName, Object, Peer, Peers, Pod, Policy, PortMatch, Ports,
};

use crate::{cidr, write};

/// Longest message in characters: a value is cut after 64, each of which may be written as `\u{10ffff}`.
const LONGEST: usize = 1_000;

/// Nothing invalid vanishes (invariant 4), diagnostics are one line of text each, objects keep what their types promise.
pub fn check(decoded: &Decoded) {
    for diagnostic in &decoded.diagnostics {
        check_diagnostic(diagnostic);
        assert_eq!(diagnostic.source, decoded.source, "a diagnostic about something else");
    }
    match &decoded.object {
        None => assert!(
            !decoded.diagnostics.is_empty(),
            "{}: rejected in silence",
            decoded.source
        ),
        Some(Object::Pod(pod)) => check_pod(pod),
        Some(Object::Policy(policy)) => check_policy(policy, &decoded.diagnostics),
        Some(Object::Namespace(namespace)) => {
            let own = namespace.labels.get("kubernetes.io/metadata.name");
            assert_eq!(own, Some(&*namespace.name), "statement 46");
        }
        Some(Object::Network(network)) => assert!(!network.name.name.is_empty()),
    }
}

fn check_diagnostic(diagnostic: &Diagnostic) {
    assert!(!diagnostic.message.trim().is_empty(), "{diagnostic:?} says nothing");
    assert!(
        diagnostic.message.chars().count() < LONGEST,
        "{diagnostic:?} is too long"
    );
    let shown = diagnostic.to_string();
    assert!(
        !shown.contains(char::is_control),
        "{shown:?} would write a line of its own into a log"
    );
}

fn check_pod(pod: &Pod) {
    if pod.host_network {
        assert!(pod.attachments.is_empty(), "statements 21, 49");
        return;
    }
    let primary: Vec<_> = pod.attachments.iter().filter(|it| it.primary).collect();
    assert_eq!(primary.len(), 1, "one attachment is the primary one: {pod:?}");
    assert!(primary[0].networks.contains(&NetworkName::Default));
    let mut interfaces: BTreeSet<&InterfaceName> = BTreeSet::new();
    for attachment in &pod.attachments {
        assert!(!attachment.networks.is_empty(), "{attachment:?} is on no network");
        if let Some(name) = &attachment.interface {
            assert!(interfaces.insert(name), "{name} twice in {pod:?}");
            assert_eq!(InterfaceName::new(name.as_str()).as_ref(), Ok(name));
        }
        for address in &attachment.addresses {
            let nobodys = address.is_loopback() || address.is_unspecified() || address.is_multicast();
            assert!(!nobodys && *address == address.to_canonical(), "{address} of {pod:?}");
        }
    }
    let named = pod.attachments.iter().map(|it| (it.interface.is_none(), &it.interface));
    assert!(
        named.is_sorted(),
        "in the order of their names, those without last: {pod:?}"
    );
    assert!(pod.ports.iter().all(|port| port.number > 0));
}

/// Every clause that matches nothing has a diagnostic at its place or at one that holds it.
fn check_policy(policy: &Policy, diagnostics: &[Diagnostic]) {
    let reported = |place: &str| {
        let told = diagnostics
            .iter()
            .any(|it| it.path.starts_with(place) || place.starts_with(&it.path));
        assert!(
            told,
            "{}: {place} matches nothing, and nobody says so: {diagnostics:?}",
            policy.key
        );
    };
    if policy.target.is_none() {
        reported("spec.podSelector");
    }
    if matches!(&policy.coverage, Coverage::Networks(networks) if networks.is_empty()) {
        reported("metadata.annotations[k8s.v1.cni.cncf.io/policy-for]");
    }
    assert!(
        policy.ingress.is_some() || policy.egress.is_some(),
        "a policy isolates something"
    );
    for direction in Direction::BOTH {
        for (number, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
            let place = format!("spec.{direction}[{number}]");
            if let Peers::OneOf(peers) = &rule.peers {
                assert!(
                    !peers.is_empty(),
                    "{place}: an empty list would be mistaken for everyone"
                );
                for peer in peers {
                    match peer {
                        // A misspelt field of the rule closes all of its peers, so the rule's place is enough.
                        Peer::Nothing => reported(&place),
                        Peer::IpBlock(block) => cidr::check_block(block),
                        Peer::Pods { .. } => {}
                    }
                }
            }
            if let Ports::OneOf(ports) = &rule.ports {
                assert!(
                    !ports.is_empty(),
                    "{place}: an empty list would be mistaken for everything"
                );
                for port in ports {
                    match port {
                        PortMatch::Nothing => reported(&place),
                        PortMatch::Range(range) => {
                            assert!(range.first <= range.last && (range.first > 0 || range.is_whole()));
                        }
                        PortMatch::Named { .. } => {}
                    }
                }
            }
        }
    }
    check_round_trip(policy);
}

/// A policy that is written as a manifest and read again is the same policy.
fn check_round_trip(policy: &Policy) {
    let manifest = write::policy(policy);
    let read = ringfence_kube::decode_value(manifest.clone(), "written");
    let [
        Decoded {
            object: Some(Object::Policy(again)),
            ..
        },
    ] = &read[..]
    else {
        panic!("{manifest} is no policy any more: {read:?}");
    };
    assert_eq!(again, policy, "{manifest}");
}
