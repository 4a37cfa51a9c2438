//! A small fixed world, and a check that reads like a table.
//!
//! | pod | labels            | eth0 on `default` | net1 on `default/net-a`      | net2 on `default/net-b` | named ports         |
//! |-----|-------------------|-------------------|------------------------------|-------------------------|---------------------|
//! | x/a | app=web           | 10.244.1.10       | 10.20.1.10, fd00:20:1::10    | 10.30.1.10              | http TCP 8080       |
//! | x/b | app=db            | 10.244.1.11       | 10.20.1.11, fd00:20:1::11    | 10.30.1.11              | http TCP 80         |
//! | x/c | app=web tier=     | 10.244.1.12       | 10.20.1.12, fd00:20:1::12    | 10.30.1.12              |                     |
//! | y/a | app=web           | 10.244.2.10       | 10.20.2.10, fd00:20:2::10    | 10.30.2.10              | http UDP 80         |
//! | y/b | app=db            | 10.244.2.11       | 10.20.2.11, fd00:20:2::11    | 10.30.2.11              | http TCP 81         |
//! | z/a |                   | 10.244.3.10       | 10.20.3.10, fd00:20:3::10    | 10.30.3.10              |                     |
//!
//! Namespace x has the label team=red, y team=blue, z none; all pods are on node n1, whose address is 192.0.2.1.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence_model::{
    Attachment, InterfaceName, NamedPort, Namespace, NamespacedName, NetworkName, Object, ObjectKey, Pod, PodUid,
    PolicyKey, PolicyKind, PortName, Protocol, Scope,
};
use ringfence_policy::evaluate::{Connection, Decision, Endpoint, L4, Universe, Verdict, evaluate};
use serde_json::Value;

use crate::support::manifest;

/// `(from, to, what, expected)`: ends are `namespace/pod` or an address; `what` is `TCP/80`, `icmp`, `gre` or
/// `icmp6/128`; the first letter of `expected` is the sender's egress, the second the receiver's ingress.
pub type Row<'a> = (&'a str, &'a str, &'a str, &'a str);

#[derive(Clone)]
pub struct World(pub Universe);

pub fn world() -> World {
    let mut universe = Universe::default();
    for (name, team) in [("x", Some("red")), ("y", Some("blue")), ("z", None)] {
        universe.apply(Object::Namespace(namespace(name, team)));
    }
    for (name, site, host, labels, ports) in [
        (
            "x/a",
            1,
            10,
            &[("app", "web")][..],
            &[("http", Protocol::Tcp, 8080)][..],
        ),
        ("x/b", 1, 11, &[("app", "db")], &[("http", Protocol::Tcp, 80)]),
        ("x/c", 1, 12, &[("app", "web"), ("tier", "")], &[]),
        ("y/a", 2, 10, &[("app", "web")], &[("http", Protocol::Udp, 80)]),
        ("y/b", 2, 11, &[("app", "db")], &[("http", Protocol::Tcp, 81)]),
        ("z/a", 3, 10, &[], &[]),
    ] {
        let mut pod = empty_pod(name);
        pod.labels = labels.iter().copied().collect();
        for &(name, protocol, number) in ports {
            pod.ports.insert(port(name, protocol, number));
        }
        let v4 = |net: &str| format!("10.{net}.{site}.{host}");
        pod.attachments = vec![
            attachment("eth0", "default", &[&v4("244")]),
            attachment(
                "net1",
                "default/net-a",
                &[&v4("20"), &format!("fd00:20:{site}::{host}")],
            ),
            attachment("net2", "default/net-b", &[&v4("30")]),
        ];
        pod.attachments[0].primary = true;
        universe.apply(Object::Pod(pod));
    }
    World(universe)
}

pub fn namespace(name: &str, team: Option<&str>) -> Namespace {
    let mut labels = vec![("kubernetes.io/metadata.name", name)];
    labels.extend(team.map(|team| ("team", team)));
    Namespace {
        name: name.into(),
        labels: labels.into_iter().collect(),
        terminating: false,
        isolate_ingress: false,
    }
}

pub fn empty_pod(name: &str) -> Pod {
    Pod {
        mirror_of: None,
        uid: uid(name),
        name: name_of(name),
        node: Some("n1".into()),
        labels: [("app", "web"); 0].into_iter().collect(),
        attachments: Vec::new(),
        ports: BTreeSet::new(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::from([address("192.0.2.1")]),
    }
}

pub fn port(name: &str, protocol: Protocol, number: u16) -> NamedPort {
    NamedPort {
        name: PortName::new(name).expect("a port name"),
        protocol,
        number,
    }
}

pub fn attachment(interface: &str, network_name: &str, addresses: &[&str]) -> Attachment {
    Attachment {
        interface: Some(InterfaceName::new(interface).expect("an interface name")),
        networks: BTreeSet::from([network(network_name)]),
        primary: false,
        addresses: addresses.iter().map(|it| address(it)).collect(),
    }
}

pub fn uid(text: &str) -> PodUid {
    PodUid::new(text).expect("a uid")
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn name_of(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    NamespacedName::new(namespace, name)
}

pub fn network(text: &str) -> NetworkName {
    match text.split_once('/') {
        None if text == "default" => NetworkName::Default,
        None => NetworkName::Plugin(text.into()),
        Some((namespace, name)) => NetworkName::Namespaced(NamespacedName::new(namespace, name)),
    }
}

pub fn key(kind: PolicyKind, name: &str) -> PolicyKey {
    PolicyKey {
        kind,
        name: name_of(name),
    }
}

fn l4(text: &str) -> L4 {
    let (what, number) = text.split_once('/').unwrap_or((text, ""));
    let number = || number.parse().expect("a number");
    match what {
        "TCP" => L4::tcp(number()),
        "UDP" => L4::udp(number()),
        "SCTP" => L4::sctp(number()),
        "icmp" => L4::Other(1),
        "gre" => L4::Other(47),
        "icmp6" => L4::Icmpv6 {
            message: u8::try_from(number()).expect("a type"),
        },
        other => panic!("{other:?} is no protocol"),
    }
}

impl World {
    /// A MultiNetworkPolicy for `default/net-a`.
    pub fn mnp(self, name: &str, spec: &Value) -> Self {
        self.mnp_for(name, "default/net-a", spec)
    }

    /// A MultiNetworkPolicy with this `policy-for`.
    pub fn mnp_for(self, name: &str, policy_for: &str, spec: &Value) -> Self {
        self.policy(PolicyKind::MultiNetworkPolicy, name, Some(policy_for), spec)
    }

    /// Any policy.
    pub fn policy(mut self, kind: PolicyKind, name: &str, policy_for: Option<&str>, spec: &Value) -> Self {
        let name = name_of(name);
        let policy = manifest::policy(kind, &name.namespace, &name.name, policy_for, spec);
        self.0.apply(Object::Policy(policy));
        self
    }

    /// Ingress of the pods `app=web` of namespace x is isolated on `default/net-a`, with these ingress rules.
    pub fn web_ingress(self, rules: &Value) -> Self {
        let spec = serde_json::json!({
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": rules,
        });
        self.mnp("x/guard", &spec)
    }

    /// Egress of the pods `app=web` of namespace x is isolated on `default/net-a`, with these egress rules.
    pub fn web_egress(self, rules: &Value) -> Self {
        let spec = serde_json::json!({
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": rules,
        });
        self.mnp("x/leash", &spec)
    }

    pub fn scope(mut self, scope: Scope) -> Self {
        self.0.scope = scope;
        self
    }

    pub fn pod(mut self, name: &str, change: impl FnOnce(&mut Pod)) -> Self {
        change(self.0.pods.get_mut(&uid(name)).expect("a pod of the world"));
        self
    }

    pub fn namespace(mut self, name: &str, change: impl FnOnce(&mut Namespace)) -> Self {
        change(self.0.namespaces.get_mut(name).expect("a namespace of the world"));
        self
    }

    pub fn add(mut self, object: Object) -> Self {
        self.0.apply(object);
        self
    }

    pub fn remove(mut self, key: &ObjectKey) -> Self {
        self.0.remove(key);
        self
    }

    /// An end by its name or address. With `family` 6 its IPv6 address.
    fn endpoint(&self, network: &NetworkName, text: &str, v6: bool) -> Endpoint {
        if let Ok(address) = text.parse() {
            return Endpoint::Address(address);
        }
        let pod = &self.0.pods[&uid(text)];
        for (index, at) in pod.attachments.iter().enumerate() {
            if at.networks.contains(network)
                && let Some(address) = at.addresses.iter().find(|it| it.is_ipv6() == v6)
            {
                return Endpoint::Pod {
                    uid: pod.uid.clone(),
                    attachment: index,
                    address: *address,
                };
            }
        }
        panic!("{text} has no address of that family on {network}")
    }

    /// Judges one connection; IPv6 where one of the ends is an IPv6 address or the question is about ICMPv6.
    pub fn ask(&self, network_name: &str, from: &str, to: &str, what: &str) -> Verdict {
        let network = network(network_name);
        let v6 = from.contains(':') || to.contains(':') || what.starts_with("icmp6");
        let connection = Connection {
            source: self.endpoint(&network, from, v6),
            destination: self.endpoint(&network, to, v6),
            l4: l4(what),
            network,
        };
        evaluate(&self.0, &connection)
    }

    /// Checks a table on one network.
    #[track_caller]
    pub fn check_on(&self, network: &str, rows: &[Row<'_>]) -> &Self {
        for (from, to, what, expected) in rows {
            let verdict = self.ask(network, from, to, what);
            let found: String = [&verdict.egress, &verdict.ingress]
                .map(|half| match half.decision {
                    Decision::Allow => 'a',
                    Decision::Deny => 'd',
                })
                .iter()
                .collect();
            assert_eq!(found, *expected, "{from} -> {to} {what} on {network}: {verdict:#?}");
        }
        self
    }

    /// Checks a table on `default/net-a`.
    #[track_caller]
    pub fn check(&self, rows: &[Row<'_>]) -> &Self {
        self.check_on("default/net-a", rows)
    }
}
