//! One peer that comes and goes, from the index into the kernel, by the number of peers that there are.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_model::{Object, ObjectKey, PodUid};
use ringfence_netlink::{Enforcer, Outcome};
use ringfence_policy::Index;
use ringfence_ruleset::KernelFeatures;

use crate::cluster::{self, Isolation, Shape};
use crate::measure::cpu_time;

const SIZES: [u32; 3] = [100, 10_000, 100_000];
/// Peers that come and go, for each size.
const EVENTS: u32 = 5_000;
/// Before any of them are counted.
const WARM_UP: u32 = 500;

/// A pod with so many peers, and what its changes took.
struct Target {
    peers: u32,
    index: Index,
    pod: PodUid,
    enforcer: Enforcer,
    /// Coming and going, each: the whole, and the Enforcer's part.
    times: [Vec<(Duration, Duration)>; 2],
}

/// Prints the table.
pub fn measure(features: KernelFeatures) -> Result<()> {
    let mut targets = Vec::new();
    for peers in SIZES {
        targets.push(Target::new(features, peers)?);
    }
    // In turn, so that whatever else the machine does meets all sizes alike.
    for event in 0..WARM_UP + EVENTS {
        for target in &mut targets {
            target.come_and_go(event)?;
        }
    }
    println!();
    println!("One peer, Index and Enforcer (two sets of each family: four elements), {EVENTS} times in turn, CPU time");
    println!("{:<24} {:>10} {:>10} {:>14}", "", "p50", "p99", "Enforcer p50");
    let mut medians = Vec::new();
    for (way, name) in ["comes", "goes"].into_iter().enumerate() {
        for target in &targets {
            let whole = sorted(target.times[way].iter().map(|(whole, _)| *whole));
            let enforcer = sorted(target.times[way].iter().map(|(_, enforcer)| *enforcer));
            println!(
                "{:<24} {:>10.1?} {:>10.1?} {:>14.1?}",
                format!("{name}, {} peers", target.peers),
                percentile(&whole, 50),
                percentile(&whole, 99),
                percentile(&enforcer, 50)
            );
            medians.push(percentile(&whole, 50).as_secs_f64());
        }
    }
    for (name, of_way) in ["comes", "goes"].into_iter().zip(medians.chunks(SIZES.len())) {
        if let [first, .., last] = of_way {
            println!("{name}: 100,000 peers against 100: {:.2}", last / first);
        }
    }
    Ok(())
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    times.get(times.len() * percent / 100).copied().unwrap_or_default()
}

impl Target {
    fn new(features: KernelFeatures, peers: u32) -> Result<Self> {
        let shape = Shape::Exact { peers, policies: 1 };
        let (index, pod) = cluster::index(features, shape, Isolation::Ingress, 1)?;
        let ruleset = index.ruleset(&pod).context("a ruleset")?;
        // The namespace lives as long as the socket in it.
        let enforcer = ringfence_netns::scratch(|| -> Result<Enforcer> {
            let mut enforcer = Enforcer::open(features)?;
            enforcer.enforce(Some(ruleset))?;
            Ok(enforcer)
        })??;
        Ok(Self {
            peers,
            index,
            pod,
            enforcer,
            times: [Vec::new(), Vec::new()],
        })
    }

    fn come_and_go(&mut self, event: u32) -> Result<()> {
        // A new one every time, as in a cluster where pods are replaced.
        let peer = cluster::peer(1_000_000 + event, 1, 0)?;
        let key = ObjectKey::Pod(peer.uid.clone());
        let come = self.time(|index| index.apply(Object::Pod(peer)))?;
        let go = self.time(|index| index.remove(&key))?;
        if event >= WARM_UP {
            for (times, time) in self.times.iter_mut().zip([come, go]) {
                times.push(time);
            }
        }
        Ok(())
    }

    fn time(&mut self, change: impl FnOnce(&mut Index)) -> Result<(Duration, Duration)> {
        let begun = cpu_time()?;
        change(&mut self.index);
        let dirty = self.index.commit();
        let indexed = cpu_time()?;
        let outcome = self.enforcer.enforce(self.index.ruleset(&self.pod))?;
        let end = cpu_time()?;
        let times = (end.saturating_sub(begun), end.saturating_sub(indexed));
        ensure!(dirty == [self.pod.clone()], "only the pod: {dirty:?}");
        ensure!(
            matches!(outcome, Outcome::Elements { .. }),
            "only elements: {outcome:?}"
        );
        Ok(times)
    }
}
