//! `ringfence render`: a pod's ruleset from manifests, without a kernel or a cluster.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::bail;
use ringfence_kube::Decoded;
use ringfence_model::{NamespacedName, Object, Pod};
use ringfence_policy::{Index, Locality, Options, TargetFacts};
use ringfence_ruleset::KernelFeatures;

use crate::args::RenderArgs;
use crate::near::instead;

/// Prints the ruleset on standard output, and what is wrong with the manifests on standard error.
pub fn run(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let decoded = ringfence_kube::load(&args.files)?;
    for finding in decoded.iter().flat_map(|decoded| &decoded.diagnostics) {
        eprintln!("{}", finding.to_string().replace(char::is_control, "?"));
    }
    let text = render(decoded, args)?;
    // A reader that has seen enough, such as `head`, is no failure.
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn render(decoded: Vec<Decoded>, args: &RenderArgs) -> anyhow::Result<String> {
    let mut index = Index::new(Options {
        locality: args
            .node
            .as_deref()
            .map_or(Locality::All, |node| Locality::Node(node.into())),
        scope: args.network_policy_scope.into(),
        kernel: KernelFeatures::ALL,
        node_addresses: args.node_address.iter().copied().collect(),
    });
    let mut pods: BTreeMap<NamespacedName, Pod> = BTreeMap::new();
    for object in decoded.into_iter().filter_map(|decoded| decoded.object) {
        if let Object::Pod(pod) = &object {
            pods.insert(pod.name.clone(), pod.clone());
        }
        index.apply(object);
    }
    let Some(pod) = pods.get(&args.pod) else {
        bail!(unknown(&args.pod, &pods));
    };
    if let Some(node) = args.node.as_deref()
        && pod.node.as_deref() != Some(node)
    {
        match &pod.node {
            Some(other) => bail!("pod {} is on node {other}, not on {node}", args.pod),
            None => bail!("pod {} is on no node, so not on {node}", args.pod),
        }
    }
    // Without a kernel, the interfaces that annotations speak of are taken as there.
    let interfaces = pod
        .attachments
        .iter()
        .filter_map(|attachment| attachment.interface.clone())
        .collect();
    let facts = TargetFacts {
        interfaces,
        ..TargetFacts::default()
    };
    index.set_facts(&pod.uid, Some(facts));
    index.commit();
    Ok(match index.ruleset(&pod.uid) {
        Some(ruleset) => ruleset.to_string(),
        None => format!("# pod {}: {}; no table, everything passes\n", args.pod, open(pod)),
    })
}

fn open(pod: &Pod) -> &'static str {
    if pod.host_network {
        "it shares the node's network, which policies never act on"
    } else if pod.terminal {
        "it has ended"
    } else {
        "no policy isolates it"
    }
}

fn unknown(wanted: &NamespacedName, pods: &BTreeMap<NamespacedName, Pod>) -> String {
    let names: Vec<String> = pods.keys().map(ToString::to_string).collect();
    format!("there is no pod {wanted} in these manifests{}", instead(wanted, &names))
}
