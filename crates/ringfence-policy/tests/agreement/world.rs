//! A universe twice: as the oracle sees it, and compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::net::IpAddr;

use proptest::test_runner::TestCaseError;
use ringfence_model::{Direction, Family, InterfaceName, NetworkName, PodUid, PortMatch, Ports};
use ringfence_policy::evaluate::{AttachmentRef, Because, Connection, Endpoint, L4, Universe, evaluate_at};
use ringfence_policy::{Index, Locality, Options, TargetFacts};
use ringfence_ruleset::{Decision, KernelFeatures, Packet, Ruleset, Tracer};

use crate::cover::Cover;
use crate::generate::{ADDRESSES, Case, OUTSIDE};
use crate::{ends, packets, strays};

/// The node whose pods get rulesets.
const NODE: &str = "node-1";

/// Of the connections that meet no rules, one in this many is tried.
const SPARSE: u64 = 16;

/// How many questions are asked about each pair of ends that meets rules.
const QUESTIONS: u64 = 2;

/// Both views of a universe.
pub struct World {
    /// The oracle's.
    pub universe: Universe,
    /// The compiler's.
    pub index: Index,
    /// Every port that the universe names.
    pub ports: Vec<u16>,
    /// Whether the pods' interfaces are known to exist.
    pub facts: bool,
    sample: u64,
    named: Vec<L4>,
    anything: [Vec<L4>; 2],
}

impl World {
    fn new(case: &Case) -> Self {
        let mut index = Index::new(Options {
            locality: Locality::Node(NODE.into()),
            scope: case.scope,
            kernel: KernelFeatures::ALL,
            node_addresses: case.node_addresses.clone(),
        });
        let mut universe = Universe::default();
        universe.scope = case.scope;
        let gateways = case.gateways.iter().filter(|_| case.facts);
        let node_addresses = case.node_addresses.iter().chain(gateways).copied().collect();
        universe.node_addresses = [(NODE.into(), node_addresses)].into();
        for object in &case.objects {
            index.apply(object.clone());
            universe.apply(object.clone());
        }
        if case.facts {
            for pod in universe.pods.values() {
                let interfaces = pod.attachments.iter().filter_map(|it| it.interface.clone());
                let facts = TargetFacts {
                    interfaces: interfaces.collect(),
                    gateways: case.gateways.clone(),
                };
                index.set_facts(&pod.uid, Some(facts));
            }
        }
        index.commit();
        let ports = ports(&universe);
        Self {
            named: packets::named(&ports),
            anything: Family::BOTH.map(|family| packets::questions(family, &ports)),
            ports,
            universe,
            index,
            facts: case.facts,
            sample: case.sample,
        }
    }

    /// A number that depends on the case's sample and on `what` alone, not on what else the universe holds.
    pub fn dice(&self, what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.sample, what).hash(&mut hasher);
        hasher.finish()
    }

    /// One of `choices`, still the same when others of them are gone, so that shrinking does not change the question.
    pub fn choose<'a, T: Hash>(&self, what: impl Hash, choices: &'a [T]) -> &'a T {
        let seed = self.dice(what);
        let first = choices.iter().min_by_key(|choice| self.dice((seed, choice)));
        first.expect("something to choose from")
    }

    /// The attachment that enforces at an end of a connection.
    pub fn locate(&self, connection: &Connection, end: &Endpoint) -> Option<AttachmentRef<'_>> {
        match end {
            Endpoint::Pod { uid, attachment, .. } => self.universe.attachment(uid, *attachment),
            Endpoint::Address(address) => self.universe.holder(&connection.network, *address),
        }
    }

    /// Whether an attachment is isolated in a direction, by the oracle.
    pub fn isolated(&self, at: AttachmentRef<'_>, direction: Direction) -> bool {
        let nobody = address("203.0.113.77");
        let verdict = evaluate_at(&self.universe, &at.pod.uid, at.index, direction, nobody, L4::tcp(9));
        !matches!(
            verdict.because,
            Because::NotIsolated | Because::HostNetwork | Because::Ended
        )
    }

    /// Whether a pod is isolated on any of its attachments, by the oracle.
    pub fn isolated_anywhere(&self, uid: &PodUid) -> bool {
        let count = self.universe.pods.get(uid).map_or(0, |pod| pod.attachments.len());
        (0..count)
            .filter_map(|index| self.universe.attachment(uid, index))
            .any(|at| {
                Direction::BOTH
                    .into_iter()
                    .any(|direction| self.isolated(at, direction))
            })
    }

    /// The ends of connections: every address of every pod, a pod that does not exist, and bare addresses.
    fn endpoints(&self) -> Vec<Endpoint> {
        let mut out = Vec::new();
        for pod in self.universe.pods.values() {
            for (attachment, it) in pod.attachments.iter().enumerate() {
                out.extend(it.addresses.iter().map(|address| Endpoint::Pod {
                    uid: pod.uid.clone(),
                    attachment,
                    address: *address,
                }));
            }
        }
        let bare = ADDRESSES.iter().chain(&OUTSIDE).chain(&["127.0.0.1", "::1"]);
        out.extend(bare.map(|text| Endpoint::Address(address(text))));
        out.extend(["10.20.1.9", "fd00:20::9"].map(|text| Endpoint::Pod {
            uid: PodUid::new("nobody").expect("a UID"),
            attachment: 0,
            address: address(text),
        }));
        out
    }

    /// A sample of the connections between them.
    fn connections(&self, judged: &BTreeSet<&PodUid>) -> Vec<Connection> {
        let endpoints = self.endpoints();
        let mut out = Vec::new();
        for source in &endpoints {
            for destination in &endpoints {
                let family = Family::of(source.address());
                if family != Family::of(destination.address()) {
                    continue;
                }
                let network = self.network(source, destination);
                let mut connection = Connection {
                    network,
                    source: source.clone(),
                    destination: destination.clone(),
                    l4: L4::tcp(80),
                };
                let ends = [source, destination].into_iter();
                let judged = ends
                    .filter_map(|end| self.locate(&connection, end))
                    .any(|at| judged.contains(&at.pod.uid));
                let loopback = source.address().is_loopback() || destination.address().is_loopback();
                let questions = if judged && !loopback {
                    QUESTIONS
                } else {
                    u64::from(self.dice((source, destination)).is_multiple_of(SPARSE))
                };
                for number in 0..questions {
                    connection.l4 = self.question((source, destination, number), family);
                    out.push(connection.clone());
                }
            }
        }
        out
    }

    /// Something to ask about, half of the time what policies and pods name.
    fn question(&self, what: impl Hash, family: Family) -> L4 {
        let dice = self.dice(&what);
        let list = match (dice % 2, family) {
            (0, _) => &self.named,
            (_, Family::V4) => &self.anything[0],
            (_, Family::V6) => &self.anything[1],
        };
        *self.choose((dice, "question"), list)
    }

    /// Where both ends meet; where they do not, where one of them is: its packets may be routed.
    fn network(&self, source: &Endpoint, destination: &Endpoint) -> NetworkName {
        let networks = |end: &Endpoint| match end {
            Endpoint::Pod { uid, attachment, .. } => self
                .universe
                .attachment(uid, *attachment)
                .map_or_else(BTreeSet::new, |at| at.attachment.networks.clone()),
            Endpoint::Address(_) => BTreeSet::new(),
        };
        let (ours, theirs) = (networks(source), networks(destination));
        let shared = ours.intersection(&theirs).next();
        let found = shared.or(ours.first()).or(theirs.first());
        found.cloned().unwrap_or(NetworkName::Default)
    }
}

/// Every port that policies and pods name.
fn ports(universe: &Universe) -> Vec<u16> {
    let mut out: BTreeSet<u16> = [53, 67, 68, 80, 546, 547].into();
    for policy in universe.policies.values() {
        for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
            let Ports::OneOf(entries) = &rule.ports else { continue };
            for entry in entries {
                if let PortMatch::Range(range) = entry {
                    out.extend([range.first, range.last]);
                }
            }
        }
    }
    for pod in universe.pods.values() {
        out.extend(pod.ports.iter().map(|port| port.number));
    }
    out.into_iter().collect()
}

/// An address from a text of the tests.
pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The rulesets of a world, each checked once.
pub struct Judges<'w> {
    /// What they were compiled from.
    pub world: &'w World,
    tracers: BTreeMap<PodUid, (Tracer<'w>, &'w Ruleset)>,
    /// Pods of this node, those without a ruleset included.
    pub local: BTreeSet<PodUid>,
}

impl<'w> Judges<'w> {
    fn new(world: &'w World) -> Result<Self, String> {
        let mut tracers = BTreeMap::new();
        let mut local = BTreeSet::new();
        for uid in world.index.local_pods() {
            local.insert(uid.clone());
            let ruleset = world.index.ruleset(uid);
            // 1 to 4: a pod has rules exactly where a policy isolates it.
            if ruleset.is_some() != world.isolated_anywhere(uid) {
                return Err(format!(
                    "pod {uid}: isolated and with rules must be the same, {ruleset:?}"
                ));
            }
            if let Some(ruleset) = ruleset {
                let tracer = Tracer::new(ruleset).map_err(|fault| format!("{fault}\n{ruleset}"))?;
                tracers.insert(uid.clone(), (tracer, ruleset));
            }
        }
        Ok(Self { world, tracers, local })
    }

    /// The ruleset of a pod, `None` where nothing isolates it.
    pub fn ruleset(&self, uid: &PodUid) -> Option<&'w Ruleset> {
        self.tracers.get(uid).map(|(_, ruleset)| *ruleset)
    }

    /// Whether a packet passes a pod's rules.
    pub fn passes(&self, uid: &PodUid, packet: &Packet, cover: &mut Cover) -> Result<bool, String> {
        let Some((tracer, ruleset)) = self.tracers.get(uid) else {
            return Ok(true);
        };
        let trace = tracer
            .trace(packet)
            .map_err(|error| format!("{error}: {packet:?}\n{ruleset}"))?;
        cover.trace(ruleset, &trace);
        Ok(trace.decision == Decision::Accept)
    }

    /// Fails with everything that somebody needs to see where a packet is not judged as wanted.
    pub fn expect(
        &self,
        uid: &PodUid,
        packet: &Packet,
        wanted: bool,
        why: &dyn std::fmt::Debug,
        cover: &mut Cover,
    ) -> Result<(), String> {
        let found = self.passes(uid, packet, cover)?;
        if found == wanted {
            return Ok(());
        }
        let word = |passes| if passes { "passes" } else { "is dropped" };
        let Some((tracer, ruleset)) = self.tracers.get(uid) else {
            return Err(format!("{uid} has no rules"));
        };
        let listing = tracer
            .trace(packet)
            .map_or_else(|error| error.to_string(), |trace| trace.listing(ruleset));
        Err(format!(
            "pod {uid}: the packet {}, but the oracle says that it {}\n{packet:?}\noracle: {why:?}\n{listing}\n{ruleset}",
            word(found),
            word(wanted),
        ))
    }
}

/// An interface by its name.
pub fn interface(name: &str) -> InterfaceName {
    InterfaceName::new(name).expect("an interface name")
}

/// Judges everything of one case both ways.
pub fn check(case: &Case, cover: &mut Cover) -> Result<(), TestCaseError> {
    let world = World::new(case);
    let judges = Judges::new(&world).map_err(TestCaseError::fail)?;
    let with_rules = judges.tracers.keys().collect();
    let connections = world.connections(&with_rules);
    cover.count("universes", 1);
    cover.count("connections", connections.len());
    for connection in connections {
        ends::check(&judges, &connection, cover)
            .map_err(|why| TestCaseError::fail(format!("{connection:?}\n{why}")))?;
    }
    strays::check(&judges, cover).map_err(TestCaseError::fail)
}
