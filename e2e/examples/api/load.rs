//! What watching 5,000 pods asks of the API server, by its own metrics.

use std::ops::Sub;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::REMOTE;
use crate::cluster::{Cluster, Seen};

/// Pods of other nodes that change while it is measured.
const CHANGES: usize = 500;

/// What watchers and lists of pods were sent.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    lists: f64,
    watches: f64,
    events: f64,
}

impl Bytes {
    /// Since the API server has started.
    pub fn of_pods(cluster: &Cluster) -> Result<Self> {
        let text = cluster.metrics()?;
        let sum = |name: &str, also: &str| -> Result<f64> {
            text.lines()
                .filter(|line| line.starts_with(name) && line.contains("resource=\"pods\"") && line.contains(also))
                .map(|line| {
                    let value = line.rsplit(' ').next().context("a metric without value")?;
                    value.parse::<f64>().with_context(|| format!("a value in {line}"))
                })
                .sum()
        };
        Ok(Self {
            lists: sum("apiserver_response_sizes_sum{", "verb=\"LIST\"")?,
            watches: sum("apiserver_watch_events_sizes_sum{", "")?,
            events: sum("apiserver_watch_events_sizes_count{", "")?,
        })
    }
}

impl Sub for Bytes {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            lists: self.lists - before.lists,
            watches: self.watches - before.watches,
            events: self.events - before.events,
        }
    }
}

/// Changes the status of many pods of other nodes, as kubelets do all day, and tells what that has cost.
pub fn churn(cluster: &Cluster) -> Result<Bytes> {
    let before = Bytes::of_pods(cluster)?;
    for number in 0..CHANGES {
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "bench", "name": format!("remote-{number}")}});
        let message = format!("change {:?}", std::time::Instant::now());
        cluster.merge_status(&object, &json!({"status": {"message": message}}))?;
    }
    std::thread::sleep(Duration::from_millis(500));
    Ok(Bytes::of_pods(cluster)? - before)
}

/// A watch of whole objects, as most controllers have it.
pub struct FullWatch {
    /// What its beginning has cost.
    pub listed: Bytes,
    _seen: Seen,
}

impl FullWatch {
    /// Lists and watches.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let before = Bytes::of_pods(cluster)?;
        let seen = cluster.watch_full_pods()?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self {
            listed: Bytes::of_pods(cluster)? - before,
            _seen: seen,
        })
    }
}

/// One line; with the ratio to another's where one is given.
pub fn report(what: &str, listed: &Bytes, changes: &Bytes, other: Option<(&Bytes, &Bytes)>) {
    let first = listed.lists + listed.watches;
    print!(
        "API load, {what}: {:.2} MB for {REMOTE} pods at the start; {CHANGES} changes of pods: {:.0} events, {:.2} MB",
        first / 1e6,
        changes.events,
        changes.watches / 1e6
    );
    match other {
        Some((start, later)) => println!(
            " ({:.1} and {:.1} times the agent's)",
            first / (start.lists + start.watches),
            changes.watches / later.watches
        ),
        None => println!(),
    }
}
