//! Hand-made values for the unit tests of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ringfence_model::{
    Attachment, Consequence, Coverage, Diagnostic, Direction, InterfaceName, Labels, NamespacedName, NetworkName, Pod,
    PodUid, PolicyKey, PolicyKind, Reason, Scope, Severity, Source,
};
use ringfence_ruleset::{BaseChain, Chain, Hook, Match, Name, Rule, Ruleset, Table, Verdict};

use crate::snapshot::{Isolation, NetworkSummary, PodStatus, PolicySummary, Snapshot, State};

/// A pod on node `n1` with `eth0` on the cluster network and `net1` on `shop/net-a`.
pub(crate) fn pod(namespace: &str, name: &str) -> Pod {
    let attachment = |interface: &str, network: NetworkName, address: &str, primary| Attachment {
        interface: Some(InterfaceName::new(interface).expect("valid")),
        networks: BTreeSet::from([network]),
        primary,
        addresses: BTreeSet::from([address.parse().expect("valid")]),
    };
    let net_a = NetworkName::Namespaced(NamespacedName::new("shop", "net-a"));
    Pod {
        mirror_of: None,
        uid: PodUid::new(&format!("uid-{namespace}.{}", name.replace('/', "-"))).expect("valid"),
        name: NamespacedName::new(namespace, name),
        node: Some("n1".into()),
        labels: Labels::default(),
        attachments: vec![
            attachment("eth0", NetworkName::Default, "10.0.0.10", true),
            attachment("net1", net_a, "10.20.1.10", false),
        ],
        ports: BTreeSet::new(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::new(),
    }
}

/// A manifest.
pub(crate) fn source(kind: &str, name: &str) -> Source {
    Source {
        kind: kind.into(),
        name: name.into(),
    }
}

/// Something wrong with a manifest.
pub(crate) fn finding(source: &Source, path: &str, reason: Reason) -> Diagnostic {
    Diagnostic {
        source: source.clone(),
        path: path.to_owned(),
        severity: Severity::Error,
        reason,
        message: format!("{} is wrong", reason.as_str()),
        consequence: Consequence::MatchesNothing,
    }
}

/// A policy's key.
pub(crate) fn guard() -> PolicyKey {
    PolicyKey {
        kind: PolicyKind::MultiNetworkPolicy,
        name: NamespacedName::new("shop", "guard"),
    }
}

/// A ruleset that drops everything that arrives on `net1`.
pub(crate) fn ruleset(uid: &PodUid) -> Ruleset {
    let rule = |matches, verdict| Rule {
        matches,
        counter: None,
        verdict,
    };
    let arrive = Chain {
        base: Some(BaseChain {
            hook: Hook::Prerouting,
            priority: -160,
        }),
        rules: vec![rule(
            vec![Match::ArrivesOn(InterfaceName::new("net1").expect("valid"))],
            Verdict::Goto(Name::new("net1-in")),
        )],
    };
    let denied = Chain {
        base: None,
        rules: vec![Rule {
            matches: Vec::new(),
            counter: Some(Name::new("net1-in-denied")),
            verdict: Verdict::Drop,
        }],
    };
    Ruleset {
        comment: format!("ringfence {uid}").into(),
        inet: Table {
            counters: BTreeSet::from([Name::new("net1-in-denied")]).into(),
            chains: BTreeMap::from([(Name::new("arrive"), arrive), (Name::new("net1-in"), denied)]).into(),
            ..Table::default()
        },
        netdev: Table::default(),
    }
}

/// The row of a pod whose `net1` is isolated by `shop/guard` in ingress.
pub(crate) fn status(namespace: &str, name: &str, state: State) -> PodStatus {
    let pod = pod(namespace, name);
    let wanted = (state != State::Open).then(|| Arc::new(ruleset(&pod.uid)));
    PodStatus {
        isolation: if state == State::Open {
            Arc::default()
        } else {
            Arc::from([Isolation {
                interface: Some(InterfaceName::new("net1").expect("valid")),
                networks: pod.attachments[1].networks.clone(),
                direction: Direction::Ingress,
                policies: vec![guard()],
            }])
        },
        in_kernel: wanted.clone().filter(|_| state == State::Enforced),
        wanted,
        state,
        since: UNIX_EPOCH + Duration::from_secs(1_735_689_600),
        netns: Some(format!("/run/netns/{namespace}.{name}").into()),
        applier: None,
        pod: Arc::new(pod),
    }
}

/// A settled node `n1` with the one pod `shop/web`, enforced, and the policy `shop/guard`.
pub(crate) fn sample() -> Snapshot {
    let mut snapshot = Snapshot::empty("n1".into(), Scope::Secondary, "dir:/etc/manifests".into());
    snapshot.synced = true;
    snapshot.settled = true;
    add(&mut snapshot, status("shop", "web", State::Enforced));
    let net_a = NetworkName::Namespaced(NamespacedName::new("shop", "net-a"));
    snapshot.policies.insert(
        guard(),
        PolicySummary {
            coverage: Coverage::Networks(BTreeSet::from([net_a.clone()])),
            ingress: true,
            egress: false,
        },
    );
    let summary = NetworkSummary {
        declared: true,
        pods: 3,
        local_pods: 1,
        interfaces: 4,
    };
    snapshot.networks.insert(net_a, summary);
    snapshot
}

/// Adds a row.
pub(crate) fn add(snapshot: &mut Snapshot, status: PodStatus) {
    snapshot.pods.insert(status.pod.name.clone(), Arc::new(status));
}
