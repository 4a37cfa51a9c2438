//! Manifests as a universe for the commands that ask questions.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ringfence_model::{Diagnostic, Scope};
use ringfence_policy::evaluate::Universe;

/// What manifests hold.
pub struct Manifests {
    /// The objects.
    pub universe: Universe,
    /// What is wrong with them.
    pub findings: Vec<Diagnostic>,
}

impl Manifests {
    /// Reads files and folders. Without nodes of their own, the addresses are every node's.
    pub fn load(files: &[PathBuf], scope: Scope, node_addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let mut findings = Vec::new();
        let mut universe = Universe::default();
        for decoded in ringfence_kube::load(files)? {
            findings.extend(decoded.diagnostics);
            if let Some(object) = decoded.object {
                universe.apply(object);
            }
        }
        universe.scope = scope;
        let addresses: BTreeSet<IpAddr> = node_addresses.iter().copied().collect();
        let nodes = universe.pods.values().filter_map(|pod| pod.node.clone());
        let nodes: BTreeMap<_, _> = nodes.map(|node| (node, addresses.clone())).collect();
        universe.node_addresses = nodes;
        Ok(Self { universe, findings })
    }
}

/// Text out of manifests on one line of a terminal.
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// What came of writing to standard output: a reader that has seen enough, such as `head`, is no failure.
pub fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
