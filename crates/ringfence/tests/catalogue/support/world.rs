//! Objects in the index and in the oracle at once. Each question is answered twice, by tracing the packets through the
//! compiled rulesets of both pods and by the oracle, for every pair of addresses; the answers must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ringfence_kube::decode;
use ringfence_model::{
    Direction, Family, InterfaceName, NamespacedName, NetworkName, Object, ObjectKey, Pod, PodUid, PolicyKey,
    PolicyKind, Protocol, Scope,
};
use ringfence_policy::evaluate::{Connection, Decision, Endpoint, L4, Universe, Verdict, evaluate};
use ringfence_policy::{Index, Locality, Options, TargetFacts};
use ringfence_ruleset::{
    Conntrack, Content, CtDirection, Decision as Traced, KernelFeatures, Packet, Path, Ruleset, Tracer, Transport,
};

/// Everything at one moment.
pub struct World {
    pub index: Index,
    pub universe: Universe,
    objects: BTreeMap<ObjectKey, Object>,
    /// Statement 138: removed policies may be in force, which a fresh index cannot know.
    remembers: bool,
    /// What the decoder had to say about everything applied so far.
    pub said: Vec<String>,
}

impl World {
    /// With these manifests.
    pub fn of<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut world = Self {
            index: Index::new(options()),
            universe: Universe::default(),
            objects: BTreeMap::new(),
            remembers: false,
            said: Vec::new(),
        };
        for text in texts {
            world.take(text.as_ref());
        }
        world.commit();
        world
    }

    /// Applies manifests in one batch.
    #[track_caller]
    pub fn apply(&mut self, text: &str) {
        self.change(&[], text);
    }

    /// Removes `Pod shop/web`, `MultiNetworkPolicy shop/guard`, `Namespace shop` in one batch.
    #[track_caller]
    pub fn remove(&mut self, what: &str) {
        self.change(&[what], "");
    }

    /// Removes these and applies those, in this order and in one batch.
    #[track_caller]
    pub fn change(&mut self, remove: &[&str], text: &str) {
        for what in remove {
            let key = self.key(what);
            self.index.remove(&key);
            self.universe.remove(&key);
            self.objects.remove(&key);
        }
        self.take(text);
        self.commit();
    }

    /// From now on removed policies may stay in force, so a fresh index is no measure any more.
    pub fn remember(&mut self) {
        self.remembers = true;
    }

    fn take(&mut self, text: &str) {
        for decoded in decode(text, "test.yaml") {
            self.said.extend(decoded.diagnostics.iter().map(ToString::to_string));
            let Some(object) = decoded.object else { continue };
            if let Object::Pod(pod) = &object {
                self.index.set_facts(&pod.uid, Some(facts(pod)));
            }
            self.index.apply(object.clone());
            self.universe.apply(object.clone());
            self.objects.insert(object.key(), object);
        }
    }

    fn key(&self, what: &str) -> ObjectKey {
        let (kind, name) = what.split_once(' ').expect("kind and name");
        let qualified = || {
            let (namespace, name) = name.split_once('/').expect("namespace/name");
            NamespacedName::new(namespace, name)
        };
        match kind {
            "Namespace" => ObjectKey::Namespace(name.into()),
            "Pod" => ObjectKey::Pod(self.pod(name).uid.clone()),
            "MultiNetworkPolicy" => ObjectKey::Policy(PolicyKey {
                kind: PolicyKind::MultiNetworkPolicy,
                name: qualified(),
            }),
            "NetworkAttachmentDefinition" => ObjectKey::Network(qualified()),
            other => panic!("{other}?"),
        }
    }

    /// A pod by `namespace/name`, or by `namespace/name#uid` where two have the name.
    #[track_caller]
    pub fn pod(&self, name: &str) -> &Pod {
        let (name, uid) = name
            .split_once('#')
            .map_or((name, None), |(name, uid)| (name, Some(uid)));
        let found: Vec<&Pod> = self
            .universe
            .pods
            .values()
            .filter(|pod| pod.name.to_string() == name && uid.is_none_or(|uid| pod.uid.as_str() == uid))
            .collect();
        assert_eq!(found.len(), 1, "pods called {name}");
        found[0]
    }

    /// The ruleset of a pod; `None` where nothing isolates it.
    #[track_caller]
    pub fn ruleset(&self, name: &str) -> Option<&Ruleset> {
        self.index.ruleset(&self.pod(name).uid)
    }

    /// Brings the index up to date; what it makes step by step must be what a fresh one makes of the same objects.
    #[track_caller]
    fn commit(&mut self) {
        self.index.commit();
        if self.remembers {
            return;
        }
        let mut fresh = Index::new(options());
        // In another order as well.
        for object in self.objects.values().rev() {
            if let Object::Pod(pod) = object {
                fresh.set_facts(&pod.uid, Some(facts(pod)));
            }
            fresh.apply(object.clone());
        }
        fresh.commit();
        for key in self.objects.keys() {
            let ObjectKey::Pod(uid) = key else { continue };
            assert_eq!(
                self.index.ruleset(uid).map(ToString::to_string),
                fresh.ruleset(uid).map(ToString::to_string),
                "{uid}: step by step and fresh"
            );
        }
    }

    /// Whether a new connection passes, over every pair of addresses that both ends have on the network; all pairs must
    /// be judged alike. An end is a pod (`shop/web`), one address of a pod (`shop/web@10.20.0.9`), or a bare address
    /// that may be nobody's. `what` is `80/tcp`, `53/udp`, `5000/sctp`, `ping` or `gre`.
    #[track_caller]
    pub fn judge(&self, from: &str, to: &str, network: &str, what: &str) -> bool {
        let mut verdicts = BTreeMap::new();
        for source in self.ends(from, network) {
            for destination in self.ends(to, network) {
                if Family::of(source.address()) == Family::of(destination.address()) {
                    let verdict = self.judge_pair(&source, &destination, network, what);
                    verdicts.insert((source.address(), destination.address()), verdict);
                }
            }
        }
        let distinct: BTreeSet<bool> = verdicts.values().copied().collect();
        assert_eq!(distinct.len(), 1, "{from} to {to} {what} on {network}: {verdicts:?}");
        distinct.contains(&true)
    }

    /// Asserts the verdicts of several questions `(from, to, what, passes)` on one network.
    #[track_caller]
    pub fn check(&self, network: &str, questions: &[(&str, &str, &str, bool)]) {
        for (from, to, what, expected) in questions {
            let passes = self.judge(from, to, network, what);
            assert_eq!(
                passes,
                *expected,
                "{from} to {to} {what} on {network}\n{}",
                self.rules(to)
            );
        }
    }

    /// What the oracle says about one connection, with its reasons.
    #[track_caller]
    pub fn verdict(&self, from: &str, to: &str, network: &str, what: &str) -> Verdict {
        let source = self.ends(from, network).swap_remove(0);
        let destination = self.ends(to, network).swap_remove(0);
        evaluate(&self.universe, &connection(&source, &destination, network, what))
    }

    fn rules(&self, end: &str) -> String {
        let name = end.split('@').next().unwrap_or_default();
        if !name.contains('/') {
            return String::new();
        }
        self.ruleset(name)
            .map_or_else(|| "no rules".to_owned(), ToString::to_string)
    }

    #[track_caller]
    fn ends(&self, text: &str, network: &str) -> Vec<Endpoint> {
        if let Ok(address) = text.parse() {
            return vec![Endpoint::Address(address)];
        }
        let (name, only) = text
            .split_once('@')
            .map_or((text, None), |(name, only)| (name, Some(only)));
        let only: Option<IpAddr> = only.map(|text| text.parse().expect("an address"));
        let pod = self.pod(name);
        let mut ends = Vec::new();
        for (position, attachment) in pod.attachments.iter().enumerate() {
            if !attachment.networks.contains(&network_name(network)) {
                continue;
            }
            // An address that is asked for by name need not be one that the annotation lists.
            let addresses: Vec<IpAddr> = match only {
                Some(only) => vec![only],
                None => attachment.addresses.iter().copied().collect(),
            };
            ends.extend(addresses.into_iter().map(|address| Endpoint::Pod {
                uid: pod.uid.clone(),
                attachment: position,
                address,
            }));
        }
        assert!(!ends.is_empty(), "{text} has no address on {network}");
        ends
    }

    #[track_caller]
    fn judge_pair(&self, source: &Endpoint, destination: &Endpoint, network: &str, what: &str) -> bool {
        let question = connection(source, destination, network, what);
        let verdict = evaluate(&self.universe, &question);
        let same = matches!((source, destination),
            (Endpoint::Pod { uid, .. }, Endpoint::Pod { uid: other, .. }) if uid == other);
        if !same {
            // Each end by itself: two wrong halves must not make a right whole.
            for (end, direction, half) in [
                (source, Direction::Egress, &verdict.egress),
                (destination, Direction::Ingress, &verdict.ingress),
            ] {
                let Endpoint::Pod { uid, attachment, .. } = end else {
                    continue;
                };
                let traced = self.trace(
                    uid,
                    *attachment,
                    direction,
                    source.address(),
                    destination.address(),
                    what,
                );
                assert_eq!(
                    traced,
                    half.decision == Decision::Allow,
                    "{direction} of {uid}, {question:?}: tracer and oracle ({half:?})\n{}",
                    self.index.ruleset(uid).map(ToString::to_string).unwrap_or_default()
                );
            }
        }
        verdict.decision() == Decision::Allow
    }

    /// Traces the first packet and its answer at one pod; both must be judged alike (statements 100, 105).
    #[track_caller]
    fn trace(
        &self,
        uid: &PodUid,
        attachment: usize,
        direction: Direction,
        from: IpAddr,
        to: IpAddr,
        what: &str,
    ) -> bool {
        let Some(ruleset) = self.index.ruleset(uid) else {
            return true;
        };
        let interface = self.universe.pods[uid].attachments[attachment]
            .interface
            .clone()
            .expect("an interface");
        let tracer = Tracer::new(ruleset).unwrap_or_else(|fault| panic!("{fault}\n{ruleset}"));
        let decide = |reply: bool| {
            let leaves = (direction == Direction::Egress) != reply;
            let packet = Packet {
                path: if leaves {
                    Path::Leaves(interface.clone())
                } else {
                    Path::Arrives(interface.clone())
                },
                content: Content::Ip {
                    source: if reply { to } else { from },
                    destination: if reply { from } else { to },
                    hop_limit: 64,
                    transport: transport(what, from, reply),
                },
                conntrack: Conntrack::Tracked {
                    direction: if reply {
                        CtDirection::Reply
                    } else {
                        CtDirection::Original
                    },
                    related: false,
                    original_source: from,
                    reply_source: to,
                },
                source_local: true,
            };
            let trace = tracer
                .trace(&packet)
                .unwrap_or_else(|error| panic!("{error}\n{ruleset}"));
            trace.decision == Traced::Accept
        };
        let (first, answer) = (decide(false), decide(true));
        assert_eq!(
            first, answer,
            "{from} to {to} {what}: the answer is judged otherwise\n{ruleset}"
        );
        first
    }
}

fn options() -> Options {
    Options {
        locality: Locality::All,
        scope: Scope::Secondary,
        kernel: KernelFeatures::ALL,
        node_addresses: BTreeSet::new(),
    }
}

/// The interfaces that the annotation speaks of are there.
fn facts(pod: &Pod) -> TargetFacts {
    TargetFacts {
        interfaces: pod.attachments.iter().filter_map(|it| it.interface.clone()).collect(),
        gateways: BTreeSet::new(),
    }
}

fn network_name(text: &str) -> NetworkName {
    match text.split_once('/') {
        Some((namespace, name)) => NetworkName::Namespaced(NamespacedName::new(namespace, name)),
        None => NetworkName::Default,
    }
}

fn connection(source: &Endpoint, destination: &Endpoint, network: &str, what: &str) -> Connection {
    let l4 = match (what, source.address()) {
        ("ping", IpAddr::V4(_)) => L4::Other(1),
        ("ping", IpAddr::V6(_)) => L4::Icmpv6 { message: 128 },
        ("gre", _) => L4::Other(47),
        _ => {
            let (port, protocol) = port(what);
            L4::Port { protocol, port }
        }
    };
    Connection {
        network: network_name(network),
        source: source.clone(),
        destination: destination.clone(),
        l4,
    }
}

fn port(what: &str) -> (u16, Protocol) {
    let (number, protocol) = what.split_once('/').expect("port/protocol");
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => panic!("{other}?"),
    };
    (number.parse().expect("a port"), protocol)
}

fn transport(what: &str, source: IpAddr, reply: bool) -> Transport {
    match what {
        "ping" => Transport::Icmp {
            protocol: Family::of(source),
            kind: match (source.is_ipv4(), reply) {
                (true, false) => 8,
                (true, true) => 0,
                (false, false) => 128,
                (false, true) => 129,
            },
            code: 0,
        },
        "gre" => Transport::Other(47),
        _ => {
            let (number, protocol) = port(what);
            let client = 40_000;
            Transport::Ports {
                protocol,
                source: if reply { number } else { client },
                destination: if reply { client } else { number },
            }
        }
    }
}

/// An interface name, for tests that trace packets of their own.
pub fn interface(text: &str) -> InterfaceName {
    InterfaceName::new(text).expect("an interface name")
}
