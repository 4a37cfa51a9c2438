//! The chart, as a person installs, upgrades and removes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::lane::Lane;

/// Names the program.
const PROGRAM: &str = "RINGFENCE_E2E_HELM";
const RELEASE: &str = "ringfence";
/// Where `hack/e2e` installs the chart.
const NAMESPACE: &str = "ringfence-system";

/// The release that `hack/e2e` has installed.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    chart: PathBuf,
}

impl Helm {
    /// In this cluster.
    pub fn new(lane: &Lane) -> Result<Self> {
        let program = std::env::var_os(PROGRAM).with_context(|| format!("{PROGRAM} names no helm; use hack/e2e"))?;
        Ok(Self {
            program: program.into(),
            kubeconfig: lane.kubeconfig(),
            home: lane.folder().join("helm"),
            chart: Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ringfence"),
        })
    }

    /// Installs it, or changes these values and no others, and waits until every node's agent is ready.
    pub fn upgrade(&self, values: &[&str]) -> Result<()> {
        let chart = self.chart.display().to_string();
        let mut words = vec![
            "upgrade",
            RELEASE,
            &chart,
            "--install",
            "--reuse-values",
            "--create-namespace",
        ];
        words.extend(["--wait", "--timeout", "2m"]);
        for value in values {
            words.extend(["--set", value]);
        }
        self.run(&words)
    }

    /// Removes it, and waits until its objects are gone.
    pub fn uninstall(&self) -> Result<()> {
        self.run(&["uninstall", RELEASE, "--wait", "--timeout", "2m"])
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        let output = Command::new(&self.program)
            .args(words)
            .args(["--namespace", NAMESPACE, "--kubeconfig"])
            .arg(&self.kubeconfig)
            .env("HELM_CACHE_HOME", &self.home)
            .env("HELM_CONFIG_HOME", &self.home)
            .env("HELM_DATA_HOME", &self.home)
            .output()
            .with_context(|| format!("run {}", self.program.display()))?;
        ensure!(
            output.status.success(),
            "helm {} failed:\n{}{}",
            words.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}
