//! `ringfence explain`: whether one end may open a connection to another, and why. The agent serves the same.

pub mod json;
pub mod text;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::bail;
use ringfence_model::{Diagnostic, NamespacedName, PolicyKey, PolicyKind, Source};
use ringfence_policy::evaluate::{Decision, Party, Universe};
use ringfence_policy::explain::{Answer, Question, Refusal, explain};

use crate::args::{ExplainArgs, ExplainOutput};
use crate::manifests::{Manifests, plain, written};
use crate::near::instead;

/// Prints the answer on standard output, and what is wrong with other manifests on standard error.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let Manifests { universe, findings } =
        Manifests::load(&args.files, args.network_policy_scope.into(), &args.node_address)?;
    let question = Question {
        from: args.from.clone(),
        to: args.to.clone(),
        network: args.network.clone(),
        what: args.port,
        family: args.ip_family.map(Into::into),
    };
    let slice = universe.slice(&[args.from.clone(), args.to.clone()]);
    let result = explain(&slice, &question);
    let concern = Concern {
        parties: [&args.from, &args.to],
        slice: &slice,
    };
    let exists = |policy: &PolicyKey| universe.policies.contains_key(policy);
    let (about, other): (Vec<&Diagnostic>, Vec<&Diagnostic>) = findings
        .iter()
        .partition(|finding| result.is_ok() && concern.has(&finding.source, exists));
    for finding in other {
        eprintln!("{}", plain(&finding.to_string()));
    }
    let answer = match result {
        Ok(answer) => answer,
        Err(Refusal::UnknownPod(name)) => {
            let mut names: Vec<String> = universe.pods.values().map(|pod| pod.name.to_string()).collect();
            names.sort();
            bail!("there is no pod {name} in these manifests{}", instead(&name, &names));
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let text = match args.output {
        ExplainOutput::Text => text::write(&answer, &about),
        ExplainOutput::Json => format!("{:#}\n", json::value(&answer, &about)),
    };
    written(io::stdout().write_all(text.as_bytes()))?;
    Ok(match answer.decision() {
        Decision::Allow => ExitCode::SUCCESS,
        Decision::Deny => ExitCode::FAILURE,
    })
}

/// Which manifests a question is about.
pub struct Concern<'a> {
    /// The ends.
    pub parties: [&'a Party; 2],
    /// What decides it.
    pub slice: &'a Universe,
}

impl Concern<'_> {
    /// Whether something wrong with this manifest may be why the answer is what it is: it is one of the pods or
    /// namespaces, or a policy that selects one of them, or one of theirs that was rejected so far that nobody knows
    /// whom it selects. `exists` tells whether a policy is in force.
    pub fn has(&self, source: &Source, exists: impl Fn(&PolicyKey) -> bool) -> bool {
        let mut pods = self.pods();
        match &*source.kind {
            "Pod" => pods.any(|name| *name.to_string() == *source.name),
            "Namespace" => pods.any(|name| name.namespace == source.name),
            kind => {
                let kinds = [PolicyKind::NetworkPolicy, PolicyKind::MultiNetworkPolicy];
                let Some(kind) = kinds.into_iter().find(|it| it.as_str() == kind) else {
                    return false;
                };
                let Some((namespace, name)) = source.name.split_once('/') else {
                    return false;
                };
                let key = PolicyKey {
                    kind,
                    name: NamespacedName::new(namespace, name),
                };
                let theirs = pods.any(|pod| *pod.namespace == *namespace);
                theirs && (self.slice.policies.contains_key(&key) || !exists(&key))
            }
        }
    }

    /// The pods that are meant, by name or by address.
    fn pods(&self) -> impl Iterator<Item = &NamespacedName> {
        let is_meant = |pod: &ringfence_model::Pod| {
            self.parties.iter().any(|party| match party {
                Party::Pod(name) => pod.name == *name,
                Party::Address(address) => pod.attachments.iter().any(|it| it.addresses.contains(address)),
            })
        };
        let pods = self.slice.pods.values();
        pods.filter(move |pod| is_meant(pod)).map(|pod| &pod.name)
    }
}

/// Whether several judgements were made, so that each has to say on which network it is.
fn is_plural(answer: &Answer) -> bool {
    answer.judgements.len() > 1
}
