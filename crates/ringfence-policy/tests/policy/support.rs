//! Builders and the one place where tests touch the index and the tracer.
//!
//! Address plan: 10.20.n.m on `default/net-a` (interface net1), 10.30.n.m on `default/net-b` (net2), 10.244.n.m on the
//! cluster network (eth0); IPv6 fd00:20::, fd00:30::, fd00:244:: the same way. Pods are called `namespace/name` and have
//! that as their UID.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence_model::{
    Attachment, Coverage, InterfaceName, IpBlock, Labels, NamedPort, Namespace, NamespacedName, NetworkName, Object,
    ObjectKey, Peer, Peers, Pod, PodUid, Policy, PolicyKey, PolicyKind, PortMatch, PortName, PortRange, Ports,
    Protocol, Requirement, Rule, Scope, Selector,
};
use ringfence_policy::{Index, Locality, Options, TargetFacts};
use ringfence_ruleset::{
    Conntrack, Content, CtDirection, Decision, KernelFeatures, Packet, Path, Ruleset, Tracer, Transport,
};

pub const NET_A: &str = "default/net-a";
pub const NET_B: &str = "default/net-b";

pub fn options() -> Options {
    Options {
        locality: Locality::All,
        scope: Scope::Secondary,
        kernel: KernelFeatures::ALL,
        node_addresses: BTreeSet::new(),
    }
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn uid(text: &str) -> PodUid {
    PodUid::new(text).expect("a UID")
}

pub fn interface(text: &str) -> InterfaceName {
    InterfaceName::new(text).expect("an interface name")
}

/// `default`, `namespace/name`, or a plugin.
pub fn network(text: &str) -> NetworkName {
    match text.split_once('/') {
        _ if text == "default" => NetworkName::Default,
        Some((namespace, name)) => NetworkName::Namespaced(NamespacedName::new(namespace, name)),
        None => NetworkName::Plugin(text.into()),
    }
}

/// `app=web,tier=front`; empty for none.
pub fn labels(text: &str) -> Labels {
    pairs(text).collect()
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| item.split_once('=').expect("key=value"))
}

/// A selector of equalities; empty for everything.
pub fn select(text: &str) -> Selector {
    Selector::new(
        pairs(text)
            .map(|(key, value)| Requirement::In {
                key: key.into(),
                values: vec![value.into()],
            })
            .collect(),
    )
}

fn qualified(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    NamespacedName::new(namespace, name)
}

pub fn namespace(name: &str, text: &str) -> Namespace {
    let own = [("kubernetes.io/metadata.name", name)];
    Namespace {
        name: name.into(),
        labels: pairs(text).chain(own).collect(),
        terminating: false,
        isolate_ingress: false,
    }
}

/// A pod that takes part and has no attachment yet.
pub fn pod(name: &str, text: &str) -> PodBuilder {
    PodBuilder(Pod {
        mirror_of: None,
        uid: uid(name),
        name: qualified(name),
        node: Some("node-1".into()),
        labels: labels(text),
        attachments: Vec::new(),
        ports: BTreeSet::new(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::new(),
    })
}

#[derive(Clone)]
pub struct PodBuilder(pub Pod);

impl PodBuilder {
    /// Another attachment.
    pub fn on(mut self, name: &str, networks: &[&str], addresses: &[&str]) -> Self {
        self.0.attachments.push(Attachment {
            interface: (!name.is_empty()).then(|| interface(name)),
            networks: networks.iter().copied().map(network).collect(),
            primary: networks.contains(&"default"),
            addresses: addresses.iter().copied().map(addr).collect(),
        });
        self
    }

    /// net1 on net-a.
    pub fn a(self, addresses: &[&str]) -> Self {
        self.on("net1", &[NET_A], addresses)
    }

    /// net2 on net-b.
    pub fn b(self, addresses: &[&str]) -> Self {
        self.on("net2", &[NET_B], addresses)
    }

    pub fn port(mut self, name: &str, protocol: Protocol, number: u16) -> Self {
        self.0.ports.insert(NamedPort {
            name: PortName::new(name).expect("a port name"),
            protocol,
            number,
        });
        self
    }

    pub fn uid(mut self, text: &str) -> Self {
        self.0.uid = uid(text);
        self
    }

    pub fn started(mut self, seconds: i64) -> Self {
        self.0.started = seconds;
        self
    }

    pub fn terminal(mut self) -> Self {
        self.0.terminal = true;
        self
    }

    /// On a node of its own.
    pub fn remote(mut self) -> Self {
        self.0.node = Some("elsewhere".into());
        self
    }

    pub fn host_network(mut self) -> Self {
        self.0.host_network = true;
        self
    }
}

/// A MultiNetworkPolicy for net-a that selects everything of its namespace and isolates nothing yet.
pub fn policy(name: &str) -> PolicyBuilder {
    PolicyBuilder(Policy {
        key: PolicyKey {
            kind: PolicyKind::MultiNetworkPolicy,
            name: qualified(name),
        },
        coverage: Coverage::Networks([network(NET_A)].into()),
        target: Some(Selector::everything()),
        ingress: None,
        egress: None,
    })
}

#[derive(Clone)]
pub struct PolicyBuilder(pub Policy);

impl PolicyBuilder {
    pub fn covering(mut self, networks: &[&str]) -> Self {
        self.0.coverage = Coverage::Networks(networks.iter().copied().map(network).collect());
        self
    }

    /// A NetworkPolicy without `policy-for`.
    pub fn in_scope(mut self) -> Self {
        self.0.key.kind = PolicyKind::NetworkPolicy;
        self.0.coverage = Coverage::Scope;
        self
    }

    pub fn target(mut self, selector: &str) -> Self {
        self.0.target = Some(select(selector));
        self
    }

    pub fn ingress(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.0.ingress.get_or_insert_default().extend(rules);
        self
    }

    pub fn egress(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.0.egress.get_or_insert_default().extend(rules);
        self
    }
}

pub fn rule(peers: impl IntoIterator<Item = Peer>, ports: impl IntoIterator<Item = PortMatch>) -> Rule {
    Rule {
        peers: Peers::OneOf(peers.into_iter().collect()),
        ports: Ports::OneOf(ports.into_iter().collect()),
    }
}

/// These peers, every port.
pub fn from(peers: impl IntoIterator<Item = Peer>) -> Rule {
    Rule {
        peers: Peers::OneOf(peers.into_iter().collect()),
        ports: Ports::All,
    }
}

/// Everybody, these ports.
pub fn everybody(ports: impl IntoIterator<Item = PortMatch>) -> Rule {
    Rule {
        peers: Peers::All,
        ports: Ports::OneOf(ports.into_iter().collect()),
    }
}

/// The rule `{}`.
pub fn anything() -> Rule {
    Rule {
        peers: Peers::All,
        ports: Ports::All,
    }
}

pub fn pods(selector: &str) -> Peer {
    Peer::Pods {
        namespaces: None,
        pods: select(selector),
    }
}

pub fn pods_in(namespaces: &str, selector: &str) -> Peer {
    Peer::Pods {
        namespaces: Some(select(namespaces)),
        pods: select(selector),
    }
}

pub fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::IpBlock(IpBlock {
        cidr: cidr.parse().expect("a CIDR"),
        except: except.iter().map(|text| text.parse().expect("a CIDR")).collect(),
    })
}

pub fn tcp(port: u16) -> PortMatch {
    PortMatch::Range(PortRange::single(Protocol::Tcp, port))
}

pub fn udp(port: u16) -> PortMatch {
    PortMatch::Range(PortRange::single(Protocol::Udp, port))
}

pub fn tcp_range(first: u16, last: u16) -> PortMatch {
    PortMatch::Range(PortRange {
        protocol: Protocol::Tcp,
        first,
        last,
    })
}

pub fn whole(protocol: Protocol) -> PortMatch {
    PortMatch::Range(PortRange::whole(protocol))
}

pub fn named(name: &str, protocol: Protocol) -> PortMatch {
    PortMatch::Named {
        name: PortName::new(name).expect("a port name"),
        protocol,
    }
}

impl From<PodBuilder> for Object {
    fn from(builder: PodBuilder) -> Self {
        Self::Pod(builder.0)
    }
}

impl From<PolicyBuilder> for Object {
    fn from(builder: PolicyBuilder) -> Self {
        Self::Policy(builder.0)
    }
}

/// An index with these objects in it, committed.
pub fn index_with(options: Options, objects: impl IntoIterator<Item = Object>) -> Index {
    let mut index = Index::new(options);
    for object in objects {
        index.apply(object);
    }
    index.commit();
    index
}

pub fn pod_key(text: &str) -> ObjectKey {
    ObjectKey::Pod(uid(text))
}

/// Tells the index that these interfaces exist in the pod.
pub fn facts(interfaces: &[&str], gateways: &[&str]) -> TargetFacts {
    TargetFacts {
        interfaces: interfaces.iter().copied().map(interface).collect(),
        gateways: gateways.iter().copied().map(addr).collect(),
    }
}

/// What is sent: a protocol with its destination port, or something without ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Port(Protocol, u16),
    /// An echo request.
    Ping,
    /// An IP protocol without ports, GRE.
    Gre,
}

/// Judges the first packet of a connection at one end and makes sure that the answer is judged alike: an allowed
/// connection works both ways, a denied one neither (statements 100, 105). `opens`: the pod opens the connection.
#[track_caller]
pub fn judge(
    ruleset: Option<&Ruleset>,
    on: &str,
    opens: bool,
    source: IpAddr,
    destination: IpAddr,
    what: What,
) -> bool {
    let Some(ruleset) = ruleset else { return true };
    let tracer = Tracer::new(ruleset).unwrap_or_else(|fault| panic!("{fault}\n{ruleset}"));
    let decide = |reply: bool| {
        let path = if opens == reply {
            Path::Arrives(interface(on))
        } else {
            Path::Leaves(interface(on))
        };
        let packet = Packet {
            path,
            content: Content::Ip {
                source: if reply { destination } else { source },
                destination: if reply { source } else { destination },
                hop_limit: 64,
                transport: transport(what, source, reply),
            },
            conntrack: Conntrack::Tracked {
                direction: if reply {
                    CtDirection::Reply
                } else {
                    CtDirection::Original
                },
                related: false,
                original_source: source,
                reply_source: destination,
            },
            source_local: true,
        };
        let trace = tracer
            .trace(&packet)
            .unwrap_or_else(|error| panic!("{error}\n{ruleset}"));
        trace.decision == Decision::Accept
    };
    let (first, answer) = (decide(false), decide(true));
    assert_eq!(
        first, answer,
        "{source} to {destination} {what:?}: the answer is judged otherwise\n{ruleset}"
    );
    first
}

fn transport(what: What, source: IpAddr, reply: bool) -> Transport {
    match what {
        What::Port(protocol, port) => {
            let client = 40_000;
            Transport::Ports {
                protocol,
                source: if reply { port } else { client },
                destination: if reply { client } else { port },
            }
        }
        What::Ping => Transport::Icmp {
            protocol: ringfence_model::Family::of(source),
            kind: match (source.is_ipv4(), reply) {
                (true, false) => 8,
                (true, true) => 0,
                (false, false) => 128,
                (false, true) => 129,
            },
            code: 0,
        },
        What::Gre => Transport::Other(47),
    }
}

/// A packet of a connection that something inside of the pod redirects to another address and port (a proxy beside the
/// container): on the interface it is what it was on the wire, conntrack knows the other end of the redirection.
pub fn redirected(on: &str, reply: bool, source: IpAddr, own: IpAddr, port: u16) -> Packet {
    let path = if reply { Path::Leaves } else { Path::Arrives };
    Packet {
        path: path(interface(on)),
        content: Content::Ip {
            source: if reply { own } else { source },
            destination: if reply { source } else { own },
            hop_limit: 64,
            transport: transport(What::Port(Protocol::Tcp, port), source, reply),
        },
        conntrack: Conntrack::Tracked {
            direction: if reply {
                CtDirection::Reply
            } else {
                CtDirection::Original
            },
            related: false,
            original_source: source,
            reply_source: addr("127.0.0.1"),
        },
        source_local: true,
    }
}
