//! What only the inside can show: that nothing stays behind when the objects have gone.

use std::collections::BTreeSet;

use ringfence_model::{
    Attachment, Coverage, InterfaceName, NamedPort, Namespace, NamespacedName, NetworkName, Object, Peer, Peers, Pod,
    PodUid, Policy, PolicyKey, PolicyKind, PortName, Ports, Protocol, Requirement, Rule, Scope, Selector,
};
use ringfence_ruleset::KernelFeatures;

use super::Index;
use crate::{Locality, Options, TargetFacts};

fn pod(name: &str, app: &str) -> Pod {
    Pod {
        mirror_of: None,
        uid: PodUid::new(name).unwrap(),
        name: NamespacedName::new("x", name),
        node: None,
        labels: [("app", app)].into_iter().collect(),
        attachments: vec![Attachment {
            interface: InterfaceName::new("net1").ok(),
            networks: [NetworkName::Plugin("weave".into())].into(),
            primary: false,
            addresses: ["10.0.0.1".parse().unwrap()].into(),
        }],
        ports: [NamedPort {
            name: PortName::new("http").unwrap(),
            protocol: Protocol::Tcp,
            number: 80,
        }]
        .into(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::new(),
    }
}

fn objects() -> Vec<Object> {
    let selector = |value: &str| {
        Selector::new(vec![Requirement::In {
            key: "app".into(),
            values: vec![value.into(), format!("{value}-2").into()],
        }])
    };
    let peers = Peers::OneOf(vec![
        Peer::Pods {
            namespaces: None,
            pods: selector("web"),
        },
        Peer::Pods {
            namespaces: Some(Selector::everything()),
            pods: Selector::everything(),
        },
    ]);
    vec![
        Object::Namespace(Namespace {
            name: "x".into(),
            labels: [("kubernetes.io/metadata.name", "x")].into_iter().collect(),
            terminating: false,
            isolate_ingress: true,
        }),
        Object::Pod(pod("a", "web")),
        Object::Pod(pod("b", "db")),
        Object::Policy(Policy {
            key: PolicyKey {
                kind: PolicyKind::NetworkPolicy,
                name: NamespacedName::new("x", "guard"),
            },
            coverage: Coverage::Scope,
            target: Some(Selector::everything()),
            ingress: Some(vec![Rule {
                peers,
                ports: Ports::All,
            }]),
            egress: Some(Vec::new()),
        }),
    ]
}

#[test]
fn nothing_stays_behind() {
    let mut index = Index::new(Options {
        locality: Locality::All,
        scope: Scope::All,
        kernel: KernelFeatures::ALL,
        node_addresses: BTreeSet::new(),
    });
    let objects = objects();
    // Taken away in every order that a rotation gives, and with an update in between.
    for first in 0..objects.len() {
        for object in &objects {
            index.apply(object.clone());
        }
        index.apply(Object::Pod(pod("a", "other")));
        index.set_facts(&PodUid::new("a").unwrap(), Some(TargetFacts::default()));
        index.commit();
        assert!(!index.tables.is_empty() && !index.selectors.is_empty());
        for object in objects.iter().cycle().skip(first).take(objects.len()) {
            index.remove(&object.key());
            index.commit();
        }
        index.set_facts(&PodUid::new("a").unwrap(), None);
        index.commit();
        assert!(index.interner.is_empty(), "texts");
        assert!(index.selectors.is_empty(), "selectors");
        assert!(index.tables.is_empty(), "tables");
        assert!(index.networks.iter().next().is_none(), "networks");
        assert!(index.claims.is_empty(), "claims");
        assert!(index.objects.is_empty(), "objects");
        assert!(
            index.locals.is_empty() && index.locals_by_namespace.is_empty(),
            "local pods"
        );
        assert!(index.policies.is_empty() && index.facts.is_empty() && index.stale.is_empty());
    }
}
