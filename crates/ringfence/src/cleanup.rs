//! `ringfence cleanup`: removes Ringfence's tables from this node's pods. The only way in which rules go with the agent.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use ringfence_netlink::Enforcer;
use ringfence_netns::{Netns, NetnsId};
use ringfence_ruleset::KernelFeatures;

use crate::args::CleanupArgs;
use crate::template::NetnsTemplate;

/// Where network namespaces are by custom.
const NETNS: &str = "/run/netns";

/// Prints one line for each network namespace that had tables; exit code 1 where one keeps them.
pub fn run(args: &CleanupArgs) -> anyhow::Result<ExitCode> {
    let features = ringfence_netns::scratch(ringfence_netlink::probe)
        .context("cannot make a network namespace to try the kernel's nftables in")?
        .context("the kernel's nftables cannot be used")?;
    let namespaces = namespaces(&args.netns_path);
    let (mut removed, mut kept) = (0_usize, 0_usize);
    for (path, netns) in namespaces.values() {
        match clean(netns, features) {
            Ok(true) => {
                removed += 1;
                println!("removed: {}", path.display());
            }
            Ok(false) => {}
            Err(error) => {
                kept += 1;
                eprintln!("kept: {}: {error:#}", path.display());
            }
        }
    }
    println!(
        "{removed} of {} network namespaces had Ringfence's tables and have them no more; {kept} still have them",
        namespaces.len()
    );
    Ok(if kept == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Every network namespace of this node that can be found, under its most readable path. They are held open, so that
/// no identity is given to another one meanwhile.
fn namespaces(template: &NetnsTemplate) -> BTreeMap<NetnsId, (PathBuf, Netns)> {
    let mut found = BTreeMap::new();
    let paths = template
        .candidates()
        .into_iter()
        .chain(children(Path::new(NETNS)))
        .chain(
            children(Path::new("/proc"))
                .into_iter()
                .filter(|path| {
                    path.file_name()
                        .is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
                })
                .map(|path| path.join("ns/net")),
        );
    for path in paths {
        // What is no network namespace, or a process that has ended, has no tables.
        if let Ok(netns) = Netns::open(&path) {
            found.entry(netns.id()).or_insert((path, netns));
        }
    }
    found
}

/// What is in a folder, sorted; nothing where it cannot be read.
fn children(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|entry| entry.path()).collect(),
    );
    paths.sort();
    paths
}

/// Whether there were tables. An error says why they are still there.
fn clean(netns: &Netns, features: KernelFeatures) -> anyhow::Result<bool> {
    netns.run(|| {
        let mut enforcer = Enforcer::open(features)?;
        if enforcer.current().is_none() && enforcer.unknown().is_none() {
            return Ok(false);
        }
        enforcer.enforce(None)?;
        Ok(true)
    })?
}
