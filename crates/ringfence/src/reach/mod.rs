//! `ringfence reach`: who may open connections to whom.

mod json;
mod table;

use std::collections::BTreeSet;
use std::env;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;

use anyhow::bail;
use ringfence_model::{Family, NetworkName};
use ringfence_policy::evaluate::{AttachmentRef, L4, Universe};
use ringfence_policy::explain::{NetworkArg, What};
use ringfence_policy::reach::{Matrix, Reach};

use crate::args::{ColorArg, ReachArgs, ReachOutput};
use crate::manifests::{Manifests, plain, written};
use crate::near::near;

/// Prints the matrices on standard output, and what is wrong with the manifests on standard error.
pub fn run(args: &ReachArgs) -> anyhow::Result<ExitCode> {
    let questions = args.port.iter().map(|what| Ok((*what, l4(*what)?)));
    let questions = questions.collect::<anyhow::Result<Vec<(What, L4)>>>()?;
    let Manifests { universe, findings } =
        Manifests::load(&args.files, args.network_policy_scope.into(), &args.node_address)?;
    for finding in &findings {
        eprintln!("{}", plain(&finding.to_string()));
    }
    let networks = networks(&universe, args.network.as_ref())?;
    let senders = Filter(&args.from_namespace);
    let receivers = Filter(&args.to_namespace);
    for filter in [&senders, &receivers] {
        filter.check(&universe)?;
    }
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let result = match args.output {
        ReachOutput::Json => json::write(
            &mut out,
            matrices(&universe, &networks, &questions, &senders, &receivers),
        ),
        ReachOutput::Table => {
            let colour = match args.color {
                ColorArg::Always => true,
                ColorArg::Never => false,
                ColorArg::Auto => {
                    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                }
            };
            let all = matrices(&universe, &networks, &questions, &senders, &receivers);
            table::write(&mut out, all, colour)
        }
    };
    written(result.and_then(|()| out.flush()))?;
    Ok(ExitCode::SUCCESS)
}

/// One matrix and the part of it that is wanted.
struct Part<'a> {
    network: &'a NetworkName,
    what: What,
    matrix: Matrix<'a>,
    /// Numbers of attachments.
    senders: Vec<usize>,
    receivers: Vec<usize>,
}

impl Part<'_> {
    /// Each attachment's pod, with the interface where the pod has several there.
    fn places(&self) -> Vec<(String, Option<String>)> {
        let attachments = self.matrix.attachments();
        let is_twin = |position: usize| {
            let pod = |other: Option<usize>| Some(&attachments.get(other?)?.pod.uid);
            let own = pod(Some(position));
            own == pod(position.checked_sub(1)) || own == pod(position.checked_add(1))
        };
        let place = |(position, at): (usize, &AttachmentRef<'_>)| {
            let interface = at.attachment.interface.as_ref();
            let interface = interface.map_or_else(|| format!("[{}]", at.index), ToString::to_string);
            (at.pod.name.to_string(), is_twin(position).then_some(interface))
        };
        attachments.iter().enumerate().map(place).collect()
    }
}

/// Made one at a time: a matrix of many pods is large.
fn matrices<'a>(
    universe: &'a Universe,
    networks: &'a [NetworkName],
    questions: &'a [(What, L4)],
    senders: &'a Filter<'a>,
    receivers: &'a Filter<'a>,
) -> impl Iterator<Item = Part<'a>> {
    networks.iter().flat_map(move |network| {
        let mut reach = Reach::new(universe, network);
        questions.iter().map(move |(what, l4)| {
            let matrix = reach.matrix(*l4);
            Part {
                network,
                what: *what,
                senders: senders.positions(matrix.attachments()),
                receivers: receivers.positions(matrix.attachments()),
                matrix,
            }
        })
    })
}

/// What is asked of pairs of both families. Policies do not tell the echo requests of both apart.
fn l4(what: What) -> anyhow::Result<L4> {
    match (what, what.l4(Family::V4)) {
        (What::Icmpv6 { .. }, _) | (_, None) => {
            bail!("{what}: a matrix is of a port, of icmp or of ip/NUMBER; `ringfence explain` knows ICMPv6 messages")
        }
        (_, Some(l4)) => Ok(l4),
    }
}

fn networks(universe: &Universe, wanted: Option<&NetworkArg>) -> anyhow::Result<Vec<NetworkName>> {
    let known = universe.network_names();
    let Some(wanted) = wanted else {
        return Ok(known.into_iter().collect());
    };
    let found: Vec<NetworkName> = match wanted {
        NetworkArg::Name(name) => known.iter().filter(|it| *it == name).cloned().collect(),
        NetworkArg::Bare(bare) => {
            let is_meant = |network: &&NetworkName| match network {
                NetworkName::Namespaced(name) => name.name == *bare,
                NetworkName::Plugin(name) => name == bare,
                NetworkName::Default | NetworkName::Interface(_) => false,
            };
            known.iter().filter(is_meant).cloned().collect()
        }
    };
    if !found.is_empty() {
        return Ok(found);
    }
    let names: Vec<String> = known.iter().map(ToString::to_string).collect();
    let near = near(&wanted.to_string(), names.iter().map(String::as_str));
    if names.is_empty() {
        bail!("no pod is on network {wanted}: no pod of these manifests is on any network");
    } else if near.is_empty() {
        bail!("no pod is on network {wanted}; there are {}", names.join(", "));
    }
    bail!("no pod is on network {wanted}; near names: {}", near.join(", "))
}

/// Namespaces; none for all.
struct Filter<'a>(&'a [String]);

impl Filter<'_> {
    fn positions(&self, attachments: &[AttachmentRef<'_>]) -> Vec<usize> {
        let is_wanted =
            |at: &AttachmentRef<'_>| self.0.is_empty() || self.0.iter().any(|it| **it == *at.pod.name.namespace);
        let numbered = attachments.iter().enumerate();
        numbered
            .filter(|(_, at)| is_wanted(at))
            .map(|(position, _)| position)
            .collect()
    }

    fn check(&self, universe: &Universe) -> anyhow::Result<()> {
        let known: BTreeSet<&str> = universe.pods.values().map(|pod| &*pod.name.namespace).collect();
        for name in self.0 {
            if !known.contains(name.as_str()) {
                let near = near(name, known.iter().copied());
                let names = if near.is_empty() {
                    known.iter().copied().take(5).collect()
                } else {
                    near
                };
                bail!("no pod is in namespace {name}; there are pods in {}", names.join(", "));
            }
        }
        Ok(())
    }
}

/// A line without blanks at its end.
fn line(out: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(out, "{}", text.trim_end())
}
