//! Metrics of pods that start: how long they were held, how often they were refused, and how long those were open that
//! nobody asked about.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use ringfence_nri::{Health, State};

use super::{add, gauges};

/// 0.5 ms to 2 s, which is when runtimes lose their patience.
const HELD: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];

/// 10 ms to a minute.
const OPEN: [f64; 12] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// What is counted as it happens, and what is copied at scrape time from the connection's health.
pub struct StartMetrics {
    held: Histogram,
    refused: IntCounter,
    open: Histogram,
    up: IntGaugeVec,
    sessions: IntCounterVec,
    errors: IntCounterVec,
}

impl StartMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> prometheus::Result<Histogram> {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            add(registry, Histogram::with_opts(options)?)
        };
        // Without a series where NRI is off: a gauge that stands at zero would look like a runtime that is away.
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            add(registry, IntCounterVec::new(Opts::new(name, help), &[])?)
        };
        Ok(Self {
            held: histogram(
                "ringfence_pod_start_seconds",
                "Time for which the start of a pod was held: from the runtime's question to the answer.",
                &HELD,
            )?,
            refused: add(
                registry,
                IntCounter::new(
                    "ringfence_pod_start_refused_total",
                    "Starts of pods that were refused because their isolated interfaces could not be closed.",
                )?,
            )?,
            open: histogram(
                "ringfence_unprotected_start_seconds",
                "Time for which an isolated pod was open whose start nobody asked about: from its sandbox to its first rules.",
                &OPEN,
            )?,
            up: add(
                registry,
                gauges(
                    "ringfence_nri_up",
                    "Whether the container runtime asks before pods start (1) or not (0).",
                    &[],
                )?,
            )?,
            sessions: counter(
                "ringfence_nri_sessions_total",
                "NRI connections that came as far as a list of sandboxes.",
            )?,
            errors: counter(
                "ringfence_nri_errors_total",
                "NRI connections that failed or were lost. Pods may have started unseen after each.",
            )?,
        })
    }

    /// A question was answered.
    pub fn answered(&self, took: Duration, may_start: bool) {
        self.held.observe(took.as_secs_f64());
        if !may_start {
            self.refused.inc();
        }
    }

    /// A pod was open for that long.
    pub fn unprotected(&self, open: Duration) {
        self.open.observe(open.as_secs_f64());
    }

    /// Before a scrape. Counters have no `set`: what has come since the last one is added.
    pub fn refresh(&self, health: &Health) {
        const NO_LABELS: [&str; 0] = [];
        let up = i64::from(health.state == State::Connected);
        self.up.with_label_values(&NO_LABELS).set(up);
        for (counter, total) in [(&self.sessions, health.sessions), (&self.errors, health.errors)] {
            let counter = counter.with_label_values(&NO_LABELS);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn starts_are_counted_from_zero_and_the_connection_only_where_there_is_one() {
        let registry = Registry::new();
        let metrics = StartMetrics::new(&registry).expect("metrics");
        let check = |lines: &[&str], absent: &[&str]| {
            let text = TextEncoder::new()
                .encode_to_string(&registry.gather())
                .expect("it encodes");
            for line in lines {
                assert!(text.lines().any(|found| found == *line), "{line} in\n{text}");
            }
            for part in absent {
                assert!(!text.contains(part), "{part} in\n{text}");
            }
        };
        check(
            &[
                "ringfence_pod_start_seconds_count 0",
                "ringfence_pod_start_refused_total 0",
                "ringfence_unprotected_start_seconds_count 0",
            ],
            &["ringfence_nri"],
        );
        metrics.answered(Duration::from_micros(1500), true);
        metrics.answered(Duration::from_secs(1), false);
        metrics.unprotected(Duration::from_millis(70));
        let mut health = Health::new("/x".into());
        health.state = State::Connected;
        health.sessions = 2;
        metrics.refresh(&health);
        (health.state, health.errors) = (State::Away("restarting".into()), 3);
        metrics.refresh(&health);
        metrics.refresh(&health);
        check(
            &[
                "ringfence_pod_start_seconds_bucket{le=\"0.002\"} 1",
                "ringfence_pod_start_seconds_count 2",
                "ringfence_pod_start_refused_total 1",
                "ringfence_unprotected_start_seconds_bucket{le=\"0.1\"} 1",
                "ringfence_nri_up 0",
                "ringfence_nri_sessions_total 2",
                "ringfence_nri_errors_total 3",
            ],
            &[],
        );
    }
}
