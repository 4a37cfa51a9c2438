//! The agent as it is delivered, and what it takes of the machine.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_testkit::{Agent, free_port};

use crate::cluster::Cluster;
use crate::objects::NODE;

/// A running agent.
pub struct Measured {
    agent: Agent,
}

impl Measured {
    /// As the image starts it.
    pub fn start(cluster: &Cluster, program: &Path) -> Result<Self> {
        let arguments = [
            format!("KUBECONFIG={}", cluster.lane.kubeconfig().display()),
            "RINGFENCE_CRI_SOCKET=off".to_owned(),
            "MALLOC_ARENA_MAX=2".to_owned(),
            program.display().to_string(),
            "agent".to_owned(),
            "--source=kube".to_owned(),
            format!("--node={NODE}"),
            format!("--netns-path={}", cluster.netns_path()),
        ];
        let agent = Agent::start(Path::new("/usr/bin/env"), &arguments, free_port()?)?;
        Ok(Self { agent })
    }

    /// Fails with its log.
    pub fn wait_ready(&self) -> Result<()> {
        for _ in 0..1_000 {
            if self.agent.get("/readyz").is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        anyhow::bail!("the agent does not get ready:\n{}", self.agent.log())
    }

    /// Of all its threads that live.
    pub fn cpu(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.agent.pid()))? {
            // A thread may end in between.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let nanos = text.split(' ').next().context("an empty schedstat")?;
            total += Duration::from_nanos(nanos.parse()?);
        }
        Ok(total)
    }

    /// KiB.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?)
    }

    /// In order.
    pub fn stop(self) -> Result<()> {
        self.agent.stop().map(drop)
    }
}
