//! Speed through a real API server: how long after a request to it the kernel of each pod holds what follows, how much of
//! that is the API server's own time, and what the agent costs it. `hack/bench` runs this; needs root and built tools.
//!
//! 100 pods of this node are network namespaces `rf-api-bench-…`, 5,000 pods of other nodes are objects only. A commit is the
//! kernel's own notification in the pod's namespace, and the API server's latency is when a watch of this program, like the
//! agent's but with nothing behind it, has the same event.
//!
//! ```text
//! cargo build --release -p ringfence && cargo run --release -p ringfence-e2e --features cluster --example api
//! ```

mod agent;
mod cluster;
mod commits;
mod load;
mod objects;
mod times;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::agent::Measured;
use crate::cluster::Cluster;
use crate::commits::Commits;
use crate::objects::{guard, local, peers_of, pod};
use crate::times::{Times, millis};

/// Pods of this node.
const LOCAL: usize = 100;
/// Pods of other nodes.
const REMOTE: usize = 5_000;
/// Requests that are measured one by one.
const ROUNDS: usize = 200;
/// Between two of them: long enough for every thread to sleep.
const PAUSE: Duration = Duration::from_millis(5);

fn main() -> Result<()> {
    let program = std::env::args_os()
        .nth(1)
        .map_or_else(beside, |path| Ok(PathBuf::from(path)))?;
    let cluster = Cluster::start()?;
    cluster.write_remote(REMOTE)?;
    let names = cluster.write_local(LOCAL)?;
    // Before the agent: its first ruleset is to be seen as well.
    let commits = Commits::listen(&cluster.namespaces)?;
    for name in &names {
        cluster.apply(&guard(name, &[("app", name)]))?;
    }

    let quiet = load::churn(&cluster)?;
    let before = load::Bytes::of_pods(&cluster)?;
    let agent = start(&cluster, &commits, &program)?;
    let listed = load::Bytes::of_pods(&cluster)? - before;
    policies(&cluster, &commits, &names)?;
    peers(&cluster, &commits, &agent)?;
    let with_agent = load::churn(&cluster)? - quiet;
    println!(
        "memory with {REMOTE} pods of other nodes and {LOCAL} of this one: {} KiB resident (aim below {})",
        agent.resident()?,
        40 * 1024
    );
    agent.stop()?;
    let full = load::FullWatch::start(&cluster)?;
    let with_full = load::churn(&cluster)? - quiet;
    load::report("agent", &listed, &with_agent, None);
    load::report(
        "watch of full objects",
        &full.listed,
        &with_full,
        Some((&listed, &with_agent)),
    );
    Ok(())
}

/// The agent's program where cargo has put it.
fn beside() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own
        .ancestors()
        .nth(2)
        .context("an example lies in a folder of a folder")?;
    Ok(folder.join("ringfence"))
}

/// 100 policies are there already: from the start of the process until all pods are enforced.
fn start(cluster: &Cluster, commits: &Commits, program: &Path) -> Result<Measured> {
    let all: Vec<usize> = (0..LOCAL).collect();
    let begun = Instant::now();
    let agent = Measured::start(cluster, program)?;
    let last = commits.wait(&all, begun)?;
    println!(
        "start with {LOCAL} policies, {LOCAL} pods, {REMOTE} pods of other nodes: all enforced after {} ms (aim 2000)",
        millis(last - begun)
    );
    agent.wait_ready()?;
    Ok(agent)
}

/// A second policy for one pod comes and goes.
fn policies(cluster: &Cluster, commits: &Commits, names: &[String]) -> Result<()> {
    let seen = cluster.watch_policies()?;
    let (mut committed, mut api) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let which = round % names.len();
        let policy = peers_of(
            &format!("more-{round}"),
            &[("app", &names[which])],
            // Not group 0, which the first policy lets in already: nothing would change.
            ("group", &format!("group-{}", 1 + round % 9)),
        );
        std::thread::sleep(PAUSE);
        let begun = Instant::now();
        cluster.create(&policy)?;
        committed.push(commits.wait(&[which], begun)? - begun);
        api.push(seen.wait(&policy, begun)? - begun);
        let begun = Instant::now();
        cluster.delete(&policy)?;
        commits.wait(&[which], begun)?;
        seen.wait(&policy, begun)?;
    }
    println!(
        "policy created -> committed (1 pod, 500 peers)        {}  aim 5 / 20",
        Times::of(committed)
    );
    println!(
        "  of it until a watch has the event                   {}",
        Times::of(api)
    );
    Ok(())
}

/// A pod of another node gets its addresses, once where one local pod selects it and once where all do.
fn peers(cluster: &Cluster, commits: &Commits, agent: &Measured) -> Result<()> {
    let seen = cluster.watch_pods()?;
    let all: Vec<usize> = (0..LOCAL).collect();
    let everywhere = peers_of("everywhere", &[("tier", "local")], ("role", "everywhere"));
    cluster.apply(&everywhere)?;
    let single = peers_of("single", &[("app", &local(0))], ("role", "single"));
    cluster.apply(&single)?;
    // Their peers are still to come, so nothing is written that could be waited for.
    std::thread::sleep(Duration::from_secs(1));
    for (role, pods, aim) in [("single", &all[..1], "  aim 5"), ("everywhere", &all[..], "  aim 5")] {
        let (mut committed, mut api, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let cpu = agent.cpu()?;
        for round in 0..ROUNDS {
            let (pod, status) = pod(
                &format!("{role}-{round}"),
                "node-1",
                &[("role", role)],
                REMOTE + 1_000 + round,
            );
            let mut stored = cluster.create(&pod)?;
            stored["metadata"]["annotations"] = status["metadata"]["annotations"].clone();
            std::thread::sleep(PAUSE);
            let begun = Instant::now();
            // As Multus does: what it has read goes back with the annotation.
            cluster.replace_status(&stored)?;
            committed.push(commits.wait(pods, begun)? - begun);
            api.push(seen.wait(&pod, begun)? - begun);
            let begun = Instant::now();
            cluster.delete(&pod)?;
            gone.push(commits.wait(pods, begun)? - begun);
        }
        let cpu = agent.cpu()?.saturating_sub(cpu) / u32::try_from(ROUNDS)?;
        let count = pods.len();
        println!(
            "peer's addresses written -> committed in {count:>3} pods      {}{aim}",
            Times::of(committed)
        );
        println!(
            "  of it until a watch has the event                   {}",
            Times::of(api)
        );
        println!(
            "peer deleted -> committed in {count:>3} pods                  {}",
            Times::of(gone)
        );
        println!(
            "  the agent's CPU time for one peer that comes and goes: {} ms (aim 5 where one pod selects it)",
            millis(cpu)
        );
    }
    cluster.delete(&everywhere)?;
    cluster.delete(&single)?;
    Ok(())
}
