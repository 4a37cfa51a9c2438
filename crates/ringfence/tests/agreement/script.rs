//! What a universe of the stage is like, and both views of it.

use std::collections::BTreeSet;

use anyhow::Result;
use proptest::collection::vec;
use proptest::prelude::*;
use ringfence_model::{Direction, Family, InterfaceName, Labels, NamedPort, Namespace, Object, PodUid, Policy, Scope};
use ringfence_policy::evaluate::{Because, L4, Universe, evaluate_at};
use ringfence_policy::{Index, Locality, Options, TargetFacts};
use ringfence_ruleset::{Decision, Packet, Ruleset, Tracer};

use crate::generate::{named_ports, namespace, pod_labels, policy, scope};
use crate::stage::{PALETTE, Stage};

/// How many pods of the stage take part.
pub const PODS: usize = 6;

/// What is random about one pod: its interfaces and addresses are real.
#[derive(Debug, Clone)]
pub struct Traits {
    labels: Labels,
    ports: BTreeSet<NamedPort>,
    host_network: bool,
    terminal: bool,
}

/// One universe of the stage.
#[derive(Debug, Clone)]
pub struct Script {
    scope: Scope,
    policies: Vec<Policy>,
    pods: Vec<Traits>,
    namespaces: Vec<Namespace>,
    /// Which connections and frames are tried.
    pub sample: u64,
}

/// Any script.
pub fn script() -> impl Strategy<Value = Script> {
    let traits = (
        pod_labels(),
        named_ports(PALETTE),
        prop::bool::weighted(0.04),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(labels, ports, host_network, terminal)| Traits {
            labels,
            ports,
            host_network,
            terminal,
        });
    (
        scope(),
        vec(policy(PALETTE), 1..8),
        vec(traits, PODS),
        vec(namespace(PALETTE), 0..4),
        any::<u64>(),
    )
        .prop_map(|(scope, policies, pods, namespaces, sample)| Script {
            scope,
            policies,
            pods,
            namespaces,
            sample,
        })
}

/// A script as the oracle sees it, and compiled.
pub struct World {
    /// The oracle's view.
    pub universe: Universe,
    /// The compiler's view.
    pub index: Index,
}

impl World {
    /// From the objects alone; nothing is put in force.
    pub fn new(stage: &Stage, script: &Script) -> Result<Self> {
        let gateways: BTreeSet<_> = Family::BOTH.into_iter().map(Stage::gateway).collect::<Result<_>>()?;
        let mut index = Index::new(Options {
            locality: Locality::Node("node-1".into()),
            scope: script.scope,
            kernel: stage.features,
            node_addresses: gateways.clone(),
        });
        let mut universe = Universe::default();
        universe.scope = script.scope;
        universe.node_addresses = [("node-1".into(), gateways.clone())].into();
        let mut objects: Vec<Object> = Vec::new();
        for (number, traits) in script.pods.iter().enumerate() {
            let mut pod = stage.model(number)?;
            pod.labels = traits.labels.clone();
            pod.ports.clone_from(&traits.ports);
            pod.host_network = traits.host_network;
            pod.terminal = traits.terminal;
            let interfaces = pod.attachments.iter().filter_map(|it| it.interface.clone());
            let facts = TargetFacts {
                interfaces: interfaces.collect(),
                gateways: gateways.clone(),
            };
            index.set_facts(&pod.uid, Some(facts));
            objects.push(Object::Pod(pod));
        }
        objects.extend(script.policies.iter().cloned().map(Object::Policy));
        objects.extend(script.namespaces.iter().cloned().map(Object::Namespace));
        for object in objects {
            index.apply(object.clone());
            universe.apply(object);
        }
        index.commit();
        Ok(Self { universe, index })
    }

    /// The rules of a pod, `None` where nothing isolates it.
    pub fn ruleset(&self, pod: usize) -> Option<&Ruleset> {
        self.index.ruleset(&uid(pod))
    }

    /// Whether a pod's rules let a packet pass.
    pub fn passes(&self, pod: usize, packet: &Packet) -> Result<bool> {
        let Some(ruleset) = self.ruleset(pod) else {
            return Ok(true);
        };
        Ok(Tracer::new(ruleset)?.trace(packet)?.decision == Decision::Accept)
    }

    /// Whether an attachment is isolated in a direction, by the oracle.
    pub fn isolated(&self, pod: usize, attachment: usize, direction: Direction) -> Result<bool> {
        let nobody = "203.0.113.77".parse()?;
        let verdict = evaluate_at(&self.universe, &uid(pod), attachment, direction, nobody, L4::tcp(9));
        Ok(!matches!(
            verdict.because,
            Because::NotIsolated | Because::HostNetwork | Because::Ended
        ))
    }

    /// The rules of some pods as text.
    pub fn rules(&self, pods: &[usize]) -> String {
        let text = |pod: &usize| match self.ruleset(*pod) {
            Some(ruleset) => format!("--- rules of p{pod}\n{ruleset}"),
            None => format!("--- p{pod} has no rules\n"),
        };
        pods.iter().map(text).collect()
    }
}

/// The UID of a pod of the stage.
pub fn uid(pod: usize) -> PodUid {
    PodUid::new(&format!("p{pod}")).expect("a UID")
}

/// Every interface of a pod that packets pass, and `lo`.
pub fn interface(name: &str) -> InterfaceName {
    InterfaceName::new(name).expect("an interface name")
}
