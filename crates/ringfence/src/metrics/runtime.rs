//! Metrics of the container runtime that says where the pods' network namespaces are. They have no series where none is
//! asked: a gauge that stands at zero would look like a runtime that is away.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use ringfence_cri::{Health, State};

use super::{add, gauges};

/// One series each.
pub(super) struct RuntimeMetrics {
    up: IntGaugeVec,
    placed: IntGaugeVec,
    lists: IntCounterVec,
    errors: IntCounterVec,
}

impl RuntimeMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            add(registry, IntCounterVec::new(Opts::new(name, help), &[])?)
        };
        Ok(Self {
            up: add(
                registry,
                gauges(
                    "ringfence_runtime_up",
                    "Whether the container runtime answers (1) or not (0). What is known of sandboxes stands while it does not.",
                    &[],
                )?,
            )?,
            placed: add(
                registry,
                gauges(
                    "ringfence_runtime_pods",
                    "Pods whose network namespace the container runtime has told.",
                    &[],
                )?,
            )?,
            lists: counter(
                "ringfence_runtime_lists_total",
                "Complete lists of sandboxes that the container runtime has given.",
            )?,
            errors: counter(
                "ringfence_runtime_errors_total",
                "Failed calls and connections to the container runtime.",
            )?,
        })
    }

    /// Under the lock of the scrape. Counters have no `set`: what has come since the last scrape is added.
    pub(super) fn refresh(&self, health: &Health) {
        const NO_LABELS: [&str; 0] = [];
        let up = i64::from(health.state == State::Connected);
        self.up.with_label_values(&NO_LABELS).set(up);
        let placed = i64::try_from(health.placed).unwrap_or(i64::MAX);
        self.placed.with_label_values(&NO_LABELS).set(placed);
        for (counter, total) in [(&self.lists, health.lists), (&self.errors, health.errors)] {
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
    fn there_are_series_only_of_a_runtime_that_is_asked() {
        let registry = Registry::new();
        let metrics = RuntimeMetrics::new(&registry).expect("metrics");
        let text = || {
            TextEncoder::new()
                .encode_to_string(&registry.gather())
                .expect("it encodes")
        };
        assert_eq!(text(), "");
        let mut health = Health::new(None);
        health.state = State::Connected;
        (health.placed, health.lists, health.errors) = (3, 5, 1);
        metrics.refresh(&health);
        health.state = State::Away("restarting".into());
        (health.lists, health.errors) = (6, 2);
        metrics.refresh(&health);
        metrics.refresh(&health);
        let text = text();
        for line in [
            "ringfence_runtime_up 0",
            "ringfence_runtime_pods 3",
            "ringfence_runtime_lists_total 6",
            "ringfence_runtime_errors_total 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
