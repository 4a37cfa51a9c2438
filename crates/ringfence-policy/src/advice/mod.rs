//! Advice: what is legal in a set of objects, and likely not what somebody meant.
//!
//! Decoding reports what is invalid, object by object. Here all objects are looked at together, because most surprises lie
//! between them: a policy that selects no pod, a peer that has no address on the network that is being protected. Nothing
//! here decides a verdict, and neither the compiler nor the oracle uses it.
//!
//! Objects that are absent from the manifests are unknown, not absent from the cluster. So without any pod nothing is said
//! about what selectors match, and without any namespace object nothing about the labels of namespaces.
//!
//! Cost: what a selector selects is worked out once per namespace and selector, and what a set of pods has in common once
//! per set, so that 10,000 policies over 10,000 pods stay far from their product.
//!
//! Reading order: `code` (the list), `world` (look-ups), then one file per family.

mod blocks;
mod code;
mod crd;
mod dns;
mod hints;
mod networks;
mod peers;
mod pods;
mod ports;
mod rules;
mod selection;
mod world;

use ringfence_model::{Note, Object, PolicyCrd, Scope, Source};

pub use code::{Code, Level};

use world::World;

/// Everything that is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The objects, each once.
    pub objects: &'a [(Object, Vec<Note>)],
    /// Definitions of MultiNetworkPolicy.
    pub definitions: &'a [PolicyCrd],
    /// Which attachments NetworkPolicies without policy-for act on.
    pub scope: Scope,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub code: Code,
    /// The manifest.
    pub source: Source,
    /// Where in it: `spec.ingress[0].from[1]`; empty for the whole.
    pub path: String,
    /// What is surprising, in one sentence without a full stop.
    pub message: String,
    /// What to do, in the same form.
    pub hint: String,
}

/// Two pods with one address on one network (statement 134). Not a [`Finding`], because decoding has a reason and a code
/// for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedAddress {
    /// The pod that has no rights by it.
    pub source: Source,
    /// Which address, where, and who has it.
    pub message: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Advice {
    /// In an order that depends on nothing but the objects.
    pub findings: Vec<Finding>,
    /// The same.
    pub shared_addresses: Vec<SharedAddress>,
}

/// Looks at everything.
pub fn advise(input: Input<'_>) -> Advice {
    let mut world = World::new(input);
    let mut out = Out::default();
    for position in 0..world.policies.len() {
        selection::look(&mut world, position, &mut out);
        networks::look(&mut world, position, &mut out);
        peers::look(&mut world, position, &mut out);
        blocks::look(&mut world, position, &mut out);
        ports::look(&mut world, position, &mut out);
        rules::look(&world, position, &mut out);
        crd::look(input.definitions, &world, position, &mut out);
    }
    blocks::look_at_excepts(&mut world, &mut out);
    dns::look(&mut world, &mut out);
    pods::look(&mut world, &mut out);
    crd::look_at_definitions(input.definitions, &mut out);
    Advice {
        findings: out.findings,
        shared_addresses: pods::shared_addresses(&world),
    }
}

/// Collects findings.
#[derive(Default)]
struct Out {
    findings: Vec<Finding>,
    /// It is said once, not of each selector.
    labels_unknown_said: bool,
}

impl Out {
    fn say(&mut self, code: Code, source: &Source, path: impl Into<String>, message: String, hint: impl Into<String>) {
        self.findings.push(Finding {
            code,
            source: source.clone(),
            path: path.into(),
            message,
            hint: hint.into(),
        });
    }
}
