//! Prometheus metrics. The agent loop counts what happens; what can be read off a snapshot is set at scrape time, so
//! that no gauge has to be kept in step.

mod queue;
mod runtime;
mod starts;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use ringfence_kube::api::Health;
use ringfence_model::{Diagnostic, PolicyKind, Severity};

use self::queue::QueueMetrics;
use self::runtime::RuntimeMetrics;
pub use self::starts::StartMetrics;
use self::watches::WatchMetrics;
use crate::event::{Applied, Cause, Stamp, Success};
use crate::snapshot::{PolicyState, Snapshot, State};

/// 1 ms to 10 s (statement 234), with finer steps below it, because one element is written in microseconds.
const ENFORCEMENT_BUCKETS: [f64; 16] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// 10 µs to 1 s.
const TRANSACTION_BUCKETS: [f64; 11] = [
    0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.01, 0.1, 0.5, 1.0,
];

/// Kinds of manifests as labels; `other` for what Ringfence does not read.
const KINDS: [&str; 6] = [
    "NetworkPolicy",
    "MultiNetworkPolicy",
    "Namespace",
    "Pod",
    "NetworkAttachmentDefinition",
    "File",
];

const POLICY_KINDS: [PolicyKind; 3] = [
    PolicyKind::NetworkPolicy,
    PolicyKind::MultiNetworkPolicy,
    PolicyKind::NamespaceIsolation,
];

/// All of Ringfence's metrics and the registry that they are in.
pub struct Metrics {
    registry: Registry,
    enforcement: HistogramVec,
    transactions: IntCounterVec,
    transaction_time: Histogram,
    drift: IntCounterVec,
    annotation_errors: IntCounterVec,
    pods: IntGaugeVec,
    policies: IntGaugeVec,
    rejected: IntGaugeVec,
    synced: IntGaugeVec,
    events: IntCounterVec,
    queue: QueueMetrics,
    runtime: RuntimeMetrics,
    watches: WatchMetrics,
    starts: StartMetrics,
    /// Dropped packets of the local pods.
    pub(crate) dropped: IntCounterVec,
    /// Held during a scrape, because two at once would mix their gauges: the rejected clauses that were ever shown. A
    /// gauge that has shown a case goes back to zero when it is resolved, and does not vanish.
    scrape: Mutex<BTreeSet<[&'static str; 2]>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers everything. An error is a mistake in this file: two metrics of one name, or an invalid one.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            enforcement: add(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "ringfence_enforcement_seconds",
                        "Time from an event's receipt to the kernel's acknowledgement of the rules that follow from it.",
                    )
                    .buckets(ENFORCEMENT_BUCKETS.to_vec()),
                    &["cause"],
                )?,
            )?,
            transactions: add(
                &registry,
                counters(
                    "ringfence_transactions_total",
                    "Kernel transactions by result: committed or refused. Where nothing has to be written there is none.",
                    &["result"],
                )?,
            )?,
            transaction_time: add(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "ringfence_transaction_seconds",
                        "Time of one kernel transaction, from the comparison of rulesets to the acknowledgement.",
                    )
                    .buckets(TRANSACTION_BUCKETS.to_vec()),
                )?,
            )?,
            drift: add(
                &registry,
                counters(
                    "ringfence_drift_repairs_total",
                    "Foreign changes of Ringfence's rules that were found and mended, by what had changed.",
                    &["reason"],
                )?,
            )?,
            annotation_errors: add(
                &registry,
                counters(
                    "ringfence_annotation_errors_total",
                    "Findings in annotations since the start, by annotation and reason.",
                    &["source", "reason"],
                )?,
            )?,
            pods: add(
                &registry,
                gauges("ringfence_pods", "Pods of this node by state of their rules.", &["state"])?,
            )?,
            policies: add(
                &registry,
                gauges(
                    "ringfence_policies",
                    "Policies by kind and by what has become of them on this node.",
                    &["kind", "state"],
                )?,
            )?,
            rejected: add(
                &registry,
                gauges(
                    "ringfence_rejected_clauses",
                    "Rejected parts of manifests that stand, by kind of manifest and reason.",
                    &["kind", "reason"],
                )?,
            )?,
            synced: add(
                &registry,
                gauges(
                    "ringfence_source_synced",
                    "Whether a source has delivered everything once (1) or not yet (0).",
                    &["source"],
                )?,
            )?,
            events: add(
                &registry,
                counters(
                    "ringfence_events_total",
                    "Events for the cluster by result: sent, dropped (too many at once) or failed. Nothing depends on them.",
                    &["result"],
                )?,
            )?,
            queue: QueueMetrics::new(&registry)?,
            runtime: RuntimeMetrics::new(&registry)?,
            watches: WatchMetrics::new(&registry)?,
            starts: StartMetrics::new(&registry)?,
            dropped: add(
                &registry,
                counters(
                    "ringfence_dropped_packets_total",
                    "Packets of local pods that policy denied, by network and direction.",
                    &["namespace", "pod", "network", "direction"],
                )?,
            )?,
            scrape: Mutex::default(),
            registry,
        };
        metrics.initialise()?;
        Ok(metrics)
    }

    /// Shows every label of a closed list from the start, so that a rate over the first case is no gap.
    fn initialise(&self) -> prometheus::Result<()> {
        for cause in Cause::ALL {
            self.enforcement.with_label_values(&[cause.label()]);
        }
        for result in ["committed", "refused"] {
            self.transactions.with_label_values(&[result]);
        }
        let build = gauges(
            "ringfence_build_info",
            "Version of the running agent; the value is always 1.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        self.registry.register(Box::new(build))?;
        self.registry.register(Box::new(ProcessCollector::for_self()))
    }

    /// Those of pods that start.
    pub fn starts(&self) -> &StartMetrics {
        &self.starts
    }

    /// Counts what an applier has done.
    pub fn applied(&self, applied: &Applied) {
        match &applied.result {
            Ok(Success::Unchanged) => {}
            Ok(Success::Committed) => {
                self.transactions.with_label_values(&["committed"]).inc();
                self.transaction_time.observe(applied.took.as_secs_f64());
                if let Some(Stamp { cause, received }) = applied.stamp {
                    let waited = applied.committed.saturating_duration_since(received);
                    self.enforced(cause, waited);
                }
            }
            Err(_) => self.transactions.with_label_values(&["refused"]).inc(),
        }
        if let (Some(drift), Ok(_)) = (&applied.drift, &applied.result) {
            self.drift.with_label_values(&[drift.reason]).inc();
        }
    }

    /// One change is in force.
    fn enforced(&self, cause: Cause, waited: Duration) {
        self.enforcement
            .with_label_values(&[cause.label()])
            .observe(waited.as_secs_f64());
    }

    /// Counts findings that have appeared.
    pub fn appeared(&self, findings: &[Diagnostic]) {
        for finding in findings {
            if let Some(annotation) = annotation_label(&finding.path) {
                self.annotation_errors
                    .with_label_values(&[annotation, finding.reason.as_str()])
                    .inc();
            }
        }
    }

    /// The text of a scrape.
    pub fn render(&self, snapshot: &Snapshot, watches: &[Health]) -> prometheus::Result<String> {
        let mut shown = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(snapshot, &mut shown);
        self.watches.refresh(watches);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn refresh(&self, snapshot: &Snapshot, shown: &mut BTreeSet<[&'static str; 2]>) {
        set(&self.pods, {
            let mut counts: BTreeMap<[&str; 1], i64> = State::LABELS.iter().map(|label| ([*label], 0)).collect();
            for status in snapshot.pods.values() {
                *counts.entry([status.state.label()]).or_default() += 1;
            }
            counts
        });
        set(&self.policies, {
            let mut counts: BTreeMap<[&str; 2], i64> = BTreeMap::new();
            for kind in POLICY_KINDS {
                counts.extend(PolicyState::ALL.map(|state| ([kind.as_str(), state.label()], 0)));
            }
            let isolated = snapshot.isolated_by();
            for (key, summary) in &snapshot.policies {
                let state = snapshot.policy_state(key, summary, isolated.get(key).copied().unwrap_or_default());
                *counts.entry([key.kind.as_str(), state.label()]).or_default() += 1;
            }
            for key in snapshot.rejected_policies() {
                let labels = [key.kind.as_str(), PolicyState::Rejected.label()];
                *counts.entry(labels).or_default() += 1;
            }
            counts
        });
        set(&self.rejected, {
            let mut counts: BTreeMap<[&str; 2], i64> = shown.iter().map(|labels| (*labels, 0)).collect();
            let rejected = snapshot.findings.values().flat_map(|findings| findings.iter());
            for finding in rejected.filter(|finding| finding.severity == Severity::Error) {
                let labels = [kind_label(&finding.source.kind), finding.reason.as_str()];
                *counts.entry(labels).or_default() += 1;
                shown.insert(labels);
            }
            counts
        });
        // Counters have no `set`: what has come since the last scrape is added.
        for (outcome, total) in snapshot.announcer.counts() {
            let counter = self.events.with_label_values(&[outcome.label()]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.queue.refresh(snapshot);
        if let Some(health) = &snapshot.runtime {
            self.runtime.refresh(&health.borrow());
        }
        set(
            &self.synced,
            BTreeMap::from([([source_label(&snapshot.source)], i64::from(snapshot.synced))]),
        );
    }
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn set<const N: usize>(gauge: &IntGaugeVec, counts: BTreeMap<[&str; N], i64>) {
    for (labels, count) in counts {
        gauge.with_label_values(&labels).set(count);
    }
}

/// The kind of a source without its path or address: `dir`, `kube`.
fn source_label(source: &str) -> &str {
    source.split(':').next().unwrap_or(source)
}

fn kind_label(kind: &str) -> &'static str {
    KINDS.into_iter().find(|known| *known == kind).unwrap_or("other")
}

/// Which annotation a path speaks of, as a label out of a closed list; `None` where it speaks of none.
fn annotation_label(path: &str) -> Option<&'static str> {
    /// Ends of the annotations' keys.
    const KNOWN: [&str; 8] = [
        "multi-ip-preferences",
        "multi-ip-preference",
        "network-status",
        "networks-status",
        "policy-for",
        "network-policy",
        "networks",
        "cni",
    ];
    let key = path.strip_prefix("metadata.annotations[")?.split(']').next()?;
    let last = key.rsplit('/').next().unwrap_or(key);
    Some(KNOWN.into_iter().find(|known| *known == last).unwrap_or("other"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::event::{Drift, Refusal};
    use crate::findings::{Finder, Findings};
    use crate::testing::{finding, sample, source};
    use ringfence_model::{PodUid, Reason};

    fn value<'a>(text: &'a str, series: &str) -> Option<&'a str> {
        text.lines()
            .find_map(|line| line.strip_prefix(series).and_then(|rest| rest.strip_prefix(' ')))
    }

    #[track_caller]
    fn check(metrics: &Metrics, snapshot: &Snapshot, series: &str, expected: Option<&str>) {
        let text = metrics.render(snapshot, &[]).expect("it encodes");
        assert_eq!(value(&text, series), expected, "{series} in\n{text}");
    }

    fn applied(result: Result<Success, Refusal>, drift: Option<Drift>) -> Applied {
        let received = Instant::now();
        Applied {
            pod: PodUid::new("x").expect("valid"),
            run: 1,
            wanted: None,
            stamp: Some(Stamp {
                cause: Cause::Policy,
                received,
            }),
            committed: received + Duration::from_micros(700),
            took: Duration::from_micros(15),
            result,
            drift,
        }
    }

    #[test]
    fn closed_labels_are_there_from_the_start() {
        let metrics = Metrics::new().expect("it registers");
        let snapshot = Snapshot::empty("n1".into(), ringfence_model::Scope::Secondary, "dir:/x".into());
        for series in [
            "ringfence_pods{state=\"failed\"}",
            "ringfence_policies{kind=\"MultiNetworkPolicy\",state=\"partly_rejected\"}",
            "ringfence_transactions_total{result=\"refused\"}",
            "ringfence_enforcement_seconds_count{cause=\"drift\"}",
            "ringfence_source_synced{source=\"dir\"}",
        ] {
            check(&metrics, &snapshot, series, Some("0"));
        }
        check(
            &metrics,
            &snapshot,
            "ringfence_build_info{version=\"0.1.0\"}",
            Some("1"),
        );
    }

    #[test]
    fn only_transactions_count_as_transactions() {
        let metrics = Metrics::new().expect("it registers");
        let snapshot = sample();
        metrics.applied(&applied(Ok(Success::Unchanged), None));
        metrics.applied(&applied(Ok(Success::Committed), None));
        let refusal = Refusal {
            reason: "EPERM".into(),
            closed: false,
        };
        metrics.applied(&applied(Err(refusal), None));
        let drift = Drift {
            reason: "rules",
            detail: String::new(),
        };
        metrics.applied(&applied(Ok(Success::Committed), Some(drift)));
        for (series, expected) in [
            ("ringfence_transactions_total{result=\"committed\"}", "2"),
            ("ringfence_transactions_total{result=\"refused\"}", "1"),
            ("ringfence_transaction_seconds_count", "2"),
            ("ringfence_enforcement_seconds_count{cause=\"policy\"}", "2"),
            (
                "ringfence_enforcement_seconds_bucket{cause=\"policy\",le=\"0.0005\"}",
                "0",
            ),
            (
                "ringfence_enforcement_seconds_bucket{cause=\"policy\",le=\"0.001\"}",
                "2",
            ),
            ("ringfence_drift_repairs_total{reason=\"rules\"}", "1"),
        ] {
            check(&metrics, &snapshot, series, Some(expected));
        }
    }

    #[test]
    fn s234_time_from_event_to_commit_is_measured_by_cause_from_1_ms_to_10_s() {
        let metrics = Metrics::new().expect("it registers");
        for (cause, elapsed) in [
            (Cause::Policy, Duration::from_micros(700)),
            (Cause::Policy, Duration::from_secs(3)),
            (Cause::Pod, Duration::from_millis(40)),
            (Cause::Pod, Duration::from_secs(60)),
        ] {
            let mut applied = applied(Ok(Success::Committed), None);
            let received = Instant::now();
            applied.stamp = Some(Stamp { cause, received });
            applied.committed = received + elapsed;
            metrics.applied(&applied);
        }
        let snapshot = sample();
        for (cause, edge, expected) in [
            ("policy", "0.001", "1"),
            ("policy", "1", "1"),
            ("policy", "10", "2"),
            ("policy", "+Inf", "2"),
            ("pod", "0.001", "0"),
            ("pod", "0.1", "1"),
            ("pod", "10", "1"),
            ("pod", "+Inf", "2"),
            ("drift", "+Inf", "0"),
        ] {
            let series = format!("ringfence_enforcement_seconds_bucket{{cause=\"{cause}\",le=\"{edge}\"}}");
            check(&metrics, &snapshot, &series, Some(expected));
        }
    }

    #[test]
    fn gauges_follow_the_snapshot_down_to_zero() {
        let metrics = Metrics::new().expect("it registers");
        let mut snapshot = sample();
        let guard = source("MultiNetworkPolicy", "shop/guard");
        let mut findings = Findings::default();
        let bad = vec![finding(&guard, "spec", Reason::InvalidCidr)];
        findings.replace(Finder::Source, &guard, bad);
        snapshot.findings = findings.standing().clone();
        let rejected = "ringfence_rejected_clauses{kind=\"MultiNetworkPolicy\",reason=\"invalid_cidr\"}";
        let partly = "ringfence_policies{kind=\"MultiNetworkPolicy\",state=\"partly_rejected\"}";
        let active = "ringfence_policies{kind=\"MultiNetworkPolicy\",state=\"active\"}";
        check(&metrics, &snapshot, rejected, Some("1"));
        check(&metrics, &snapshot, partly, Some("1"));
        check(&metrics, &snapshot, active, Some("0"));
        snapshot.findings = findings_without();
        check(&metrics, &snapshot, rejected, Some("0"));
        check(&metrics, &snapshot, partly, Some("0"));
        check(&metrics, &snapshot, active, Some("1"));
        check(&metrics, &snapshot, "ringfence_pods{state=\"enforced\"}", Some("1"));
        check(
            &metrics,
            &snapshot,
            "ringfence_source_synced{source=\"dir\"}",
            Some("1"),
        );
    }

    fn findings_without() -> imbl::OrdMap<crate::findings::FindingKey, Arc<[Diagnostic]>> {
        imbl::OrdMap::new()
    }

    #[test]
    fn annotation_labels_come_from_a_closed_list() {
        for (path, expected) in [
            ("metadata.annotations[cni]", Some("cni")),
            (
                "metadata.annotations[k8s.v1.cni.cncf.io/network-status][1].ips",
                Some("network-status"),
            ),
            (
                "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]",
                Some("policy-for"),
            ),
            ("metadata.annotations[example.org/anything]", Some("other")),
            ("spec.ingress", None),
        ] {
            assert_eq!(annotation_label(path), expected, "{path}");
        }
    }
}
