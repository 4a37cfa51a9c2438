//! A cluster that `e2e/cluster` brings up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

/// Names the folder of a cluster that is up, for the tests that share one.
const SHARED: &str = "RINGFENCE_E2E_RUN";

/// A cluster. One that a test has brought up for itself is taken down when it is dropped.
#[derive(Debug)]
pub struct Lane {
    folder: PathBuf,
    own: bool,
}

impl Lane {
    /// The one that `hack/e2e` has brought up.
    pub fn shared() -> Result<Self> {
        let folder = std::env::var_os(SHARED).with_context(|| {
            format!(
                "{SHARED} names no cluster; 'hack/e2e' runs these tests, or bring one up with 'e2e/cluster up --fast'"
            )
        })?;
        Ok(Self {
            folder: folder.into(),
            own: false,
        })
    }

    /// Brings an API server up for one test alone, which may break it.
    pub fn own() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let process = std::process::id();
        let id = format!("t{process}n{}", COUNT.fetch_add(1, Ordering::Relaxed));
        // Where this process is killed, 'e2e/cluster down --orphans' knows by the owner.
        let owner = process.to_string();
        let words = run(&["up", "--fast", "--id", &id, "--owner", &owner])?;
        let folder = words
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix("folder: "));
        let folder = folder.with_context(|| format!("no folder in the words of e2e/cluster:\n{words}"))?;
        Ok(Self {
            folder: folder.into(),
            own: true,
        })
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Everything of the cluster lies in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends a process at once, as a crash would: `apiserver`, `etcd`.
    pub fn kill(&self, process: &str) -> Result<()> {
        run(&["kill", process, "--id", self.id()?]).map(drop)
    }

    /// Starts it again, and waits for it to be ready.
    pub fn start(&self, process: &str) -> Result<()> {
        run(&["start", process, "--id", self.id()?]).map(drop)
    }

    /// Makes etcd forget every revision but the latest, so that whoever goes on from an older one is told 410.
    pub fn compact(&self) -> Result<()> {
        run(&["compact", "--id", self.id()?]).map(drop)
    }

    /// What the cluster is called in names of this machine.
    pub fn id(&self) -> Result<&str> {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        name.with_context(|| format!("{} is no run's folder", self.folder.display()))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.own
            && let Err(error) = self.id().and_then(|id| run(&["down", "--id", id]))
        {
            eprintln!("e2e: {error:#}");
        }
    }
}

/// Runs `e2e/cluster` and gives what it printed.
fn run(arguments: &[&str]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
    let output = Command::new(&script)
        .args(arguments)
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "e2e/cluster {} failed:\n{words}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(words)
}
