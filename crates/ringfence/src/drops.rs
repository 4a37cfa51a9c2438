//! Dropped packets per local pod, network and direction, out of the counters in the kernel.
//!
//! They are asked of the appliers at scrape time, all at once and with one short deadline: a pod that hangs keeps the
//! values it had. The kernel's counters start at zero again when a table is built anew, so only differences are
//! added: what users see never goes down (as a Prometheus counter must not).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence_model::{Direction, PodUid};
use ringfence_netlink::Counters;
use ringfence_ruleset::Name;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, timeout_at};

use crate::metrics::Metrics;
use crate::snapshot::{PodStatus, Snapshot};

/// All appliers together have this long. An idle one answers within microseconds.
const DEADLINE: Duration = Duration::from_millis(100);

/// The label of the counter of interfaces that no attachment explains.
const UNEXPLAINED: &str = "unexplained";

/// What the series were made of.
#[derive(Debug, Default)]
pub struct Drops {
    known: Mutex<BTreeMap<PodUid, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The kernel's last values by series.
    last: BTreeMap<Series, u64>,
}

/// The labels of one series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    namespace: Arc<str>,
    pod: Arc<str>,
    network: String,
    direction: &'static str,
}

impl Series {
    fn labels(&self) -> [&str; 4] {
        [&self.namespace, &self.pod, &self.network, self.direction]
    }
}

impl Drops {
    /// Asks all appliers and brings the metric up to date.
    pub async fn collect(&self, snapshot: &Snapshot, metrics: &Metrics) {
        let (answer, mut answers) = unbounded_channel();
        for status in snapshot.pods.values() {
            if let Some(applier) = &status.applier {
                applier.counters(answer.clone());
            }
        }
        drop(answer);
        let deadline = Instant::now() + DEADLINE;
        let mut received: BTreeMap<PodUid, Counters> = BTreeMap::new();
        // The channel ends when every applier has answered or ended.
        while let Ok(Some((pod, counters))) = timeout_at(deadline, answers.recv()).await {
            received.insert(pod, counters);
        }
        self.update(snapshot, &received, metrics);
    }

    fn update(&self, snapshot: &Snapshot, received: &BTreeMap<PodUid, Counters>, metrics: &Metrics) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let local: BTreeSet<&PodUid> = snapshot.pods.values().map(|status| &status.pod.uid).collect();
        known.retain(|pod, known| {
            let keep = local.contains(pod);
            if !keep {
                for series in known.last.keys() {
                    // An error says that the series was never there.
                    drop(metrics.dropped.remove_label_values(&series.labels()));
                }
            }
            keep
        });
        for status in snapshot.pods.values() {
            let Some(counters) = received.get(&status.pod.uid) else {
                continue;
            };
            let known = known.entry(status.pod.uid.clone()).or_default();
            for (series, now) in series(status, counters) {
                let before = known.last.insert(series.clone(), now).unwrap_or(0);
                // Less than before: the table was built anew, and everything in it is new.
                let more = if now < before { now } else { now - before };
                metrics.dropped.with_label_values(&series.labels()).inc_by(more);
            }
        }
    }
}

/// The kernel's values by series. Both tables may count for one direction of one interface.
fn series(status: &PodStatus, counters: &Counters) -> BTreeMap<Series, u64> {
    let mut names: BTreeMap<Name, (String, &'static str)> = BTreeMap::new();
    for attachment in &status.pod.attachments {
        let Some(interface) = &attachment.interface else {
            continue;
        };
        let network = attachment
            .network()
            .map_or_else(|| format!("interface:{interface}"), ToString::to_string);
        for direction in Direction::BOTH {
            let short = match direction {
                Direction::Ingress => "in",
                Direction::Egress => "out",
            };
            let name = Name::new(&format!("{}-{short}-denied", interface.as_identifier()));
            names.insert(name, (network.clone(), direction.as_str()));
        }
    }
    names.insert(Name::new("unexplained-denied"), (UNEXPLAINED.to_owned(), "both"));
    let mut out: BTreeMap<Series, u64> = BTreeMap::new();
    for ((_, name), count) in counters {
        let Some((network, direction)) = names.get(name) else {
            continue;
        };
        let series = Series {
            namespace: Arc::clone(&status.pod.name.namespace),
            pod: Arc::clone(&status.pod.name.name),
            network: network.clone(),
            direction,
        };
        let sum = out.entry(series).or_default();
        *sum = sum.saturating_add(count.packets);
    }
    out
}

#[cfg(test)]
mod tests {
    use ringfence_netlink::Count;
    use ringfence_ruleset::TableFamily;

    use super::*;
    use crate::testing::sample;

    fn counters(values: &[(TableFamily, &str, u64)]) -> Counters {
        values
            .iter()
            .map(|&(family, name, packets)| {
                let count = Count {
                    packets,
                    bytes: packets * 64,
                };
                ((family, Name::new(name)), count)
            })
            .collect()
    }

    #[track_caller]
    fn check(metrics: &Metrics, snapshot: &Snapshot, expected: &[&str]) {
        let text = metrics.render(snapshot, &[]).expect("it encodes");
        let lines: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("ringfence_dropped_packets_total"))
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn counters_only_grow_and_vanish_with_the_pod() {
        let metrics = Metrics::new().expect("it registers");
        let drops = Drops::default();
        let mut snapshot = sample();
        let uid = snapshot.pods_named("web")[0].pod.uid.clone();
        let update = |snapshot: &Snapshot, values: &[(TableFamily, &str, u64)]| {
            let received = BTreeMap::from([(uid.clone(), counters(values))]);
            drops.update(snapshot, &received, &metrics);
        };
        let ingress = "{direction=\"ingress\",namespace=\"shop\",network=\"shop/net-a\",pod=\"web\"}";
        let egress = "{direction=\"egress\",namespace=\"shop\",network=\"shop/net-a\",pod=\"web\"}";
        update(&snapshot, &[(TableFamily::Inet, "net1-in-denied", 5)]);
        check(&metrics, &snapshot, &[&format!("{ingress} 5")]);
        // Both tables count for egress; the unknown name belongs to no attachment.
        let second = [
            (TableFamily::Inet, "net1-in-denied", 7),
            (TableFamily::Inet, "net1-out-denied", 1),
            (TableFamily::Netdev, "net1-out-denied", 2),
            (TableFamily::Inet, "net9-in-denied", 9),
        ];
        update(&snapshot, &second);
        check(&metrics, &snapshot, &[&format!("{egress} 3"), &format!("{ingress} 7")]);
        // Built anew: three more packets.
        update(&snapshot, &[(TableFamily::Inet, "net1-in-denied", 3)]);
        check(&metrics, &snapshot, &[&format!("{egress} 3"), &format!("{ingress} 10")]);
        // No answer: the values stay.
        drops.update(&snapshot, &BTreeMap::new(), &metrics);
        check(&metrics, &snapshot, &[&format!("{egress} 3"), &format!("{ingress} 10")]);
        snapshot.pods.clear();
        drops.update(&snapshot, &BTreeMap::new(), &metrics);
        check(&metrics, &snapshot, &[]);
    }
}
