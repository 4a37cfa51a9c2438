//! Named network namespaces: made with `ip`, removed on drop, swept after a killed run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use ringfence_netns::Netns;

use crate::command;

/// Where iproute2 mounts namespaces.
const FOLDER: &str = "/run/netns";

/// A network namespace with a name in /run/netns. The name goes when this is dropped; the namespace itself when nobody
/// holds it any more.
#[derive(Debug)]
pub struct NamedNetns {
    name: String,
    netns: Arc<Netns>,
}

impl NamedNetns {
    /// Makes several at once, which costs one run of `ip`.
    pub fn create(names: &[String]) -> Result<Vec<Self>> {
        let lines: Vec<String> = names.iter().map(|name| format!("netns add {name}")).collect();
        command::ip(&lines).with_context(|| "make network namespaces (are you root?)")?;
        names
            .iter()
            .map(|name| {
                let path = Path::new(FOLDER).join(name);
                let netns = Netns::open(&path).with_context(|| format!("open {}", path.display()))?;
                Ok(Self {
                    name: name.clone(),
                    netns: Arc::new(netns),
                })
            })
            .collect()
    }

    /// Its name in /run/netns.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// The open namespace.
    pub fn netns(&self) -> &Arc<Netns> {
        &self.netns
    }

    /// Runs lines of `ip` commands inside.
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        self.netns
            .run(|| command::ip(lines))?
            .with_context(|| format!("in network namespace {}", self.name))
    }

    /// Loads nft text inside.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.netns
            .run(|| command::nft(script))?
            .with_context(|| format!("in network namespace {}", self.name))
    }

    /// Writes files below /proc/sys/net inside; absent files of modules that are not loaded are passed over where the
    /// flag says so.
    pub(crate) fn sysctls(&self, settings: &[Sysctl]) -> Result<()> {
        self.netns.run(|| settings.iter().try_for_each(Sysctl::write))?
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("testkit: {error:#}");
        }
    }
}

/// One kernel setting of a network namespace.
pub(crate) struct Sysctl {
    /// Below /proc/sys/net, with slashes (interface names may contain dots).
    pub(crate) path: String,
    pub(crate) value: &'static str,
    /// Whether it may be absent: br_netfilter's settings exist only while that module is loaded, and without it there
    /// is nothing to switch off.
    pub(crate) optional: bool,
}

impl Sysctl {
    pub(crate) fn new(path: impl Into<String>, value: &'static str) -> Self {
        Self {
            path: path.into(),
            value,
            optional: false,
        }
    }

    fn write(&self) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(&self.path);
        match std::fs::write(&path, self.value) {
            Err(error) if self.optional && error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("write {} to {}", self.value, path.display())),
        }
    }
}

/// Removes a name. Absence is fine: somebody else may sweep at the same time.
fn remove(name: &str) -> Result<()> {
    let path = Path::new(FOLDER).join(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: a file with nothing mounted on it, left by a run that was killed in between.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(errno) => return Err(errno).with_context(|| format!("unmount {}", path.display())),
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the namespaces of topologies whose process has ended without dropping them, and gives their names.
pub fn sweep() -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(FOLDER) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read {FOLDER}"))?,
    };
    let mut removed = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("read {FOLDER}"))?.file_name();
        let Some(name) = name.to_str() else { continue };
        if owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(name)?;
            removed.push(name.to_owned());
        }
    }
    removed.sort();
    Ok(removed)
}

/// The process in `rf-<test>-p<pid>n<count>-<rest>`; `None` for names that are not ours.
fn owner(name: &str) -> Option<u32> {
    let parts: Vec<&str> = name.strip_prefix("rf-")?.split('-').collect();
    // The last part is the rest, which our own names always have.
    parts[..parts.len() - 1].iter().find_map(|part| {
        let (pid, count) = part.strip_prefix('p')?.split_once('n')?;
        count.parse::<u32>().ok()?;
        pid.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_topologies_have_an_owner() {
        for (name, expected) in [
            ("rf-open-p123n0-x.a", Some(123)),
            ("rf-two-words-p7n12-node1", Some(7)),
            ("rf-netns-something", None),
            ("rf-open-p123n0", None),
            ("rf-open-p123nx-a", None),
            ("cni-52c02e07", None),
            ("rf-", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    #[test]
    fn sweep_takes_what_dead_processes_left_and_nothing_else() {
        // Process numbers end at 4194304 (PID_MAX_LIMIT), so nobody has this one.
        let dead = "rf-netns-sweep-p4194999n0-node1".to_owned();
        let alive = format!("rf-netns-sweep-p{}n9999-node1", std::process::id());
        let made = NamedNetns::create(&[dead.clone(), alive.clone()]).expect("make namespaces");
        let path = made[1].path();
        assert!(made[0].path().exists() && path.exists());
        sweep().expect("sweep");
        assert!(!made[0].path().exists(), "the leftover is still there");
        assert!(path.exists(), "a living process's namespace was taken");
        drop(made);
        assert!(!path.exists(), "drop has left {}", path.display());
    }
}
