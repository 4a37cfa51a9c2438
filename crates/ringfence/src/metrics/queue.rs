//! Rulesets that were handed to appliers and are not dealt with yet: normally none, or for microseconds. A network
//! namespace that hangs shows here.

use std::time::Instant;

use prometheus::{Gauge, IntGauge, Registry};

use super::add;
use crate::snapshot::Snapshot;

pub(super) struct QueueMetrics {
    length: IntGauge,
    oldest: Gauge,
}

impl QueueMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            length: add(
                registry,
                IntGauge::new(
                    "ringfence_queue_length",
                    "Local pods whose applier has been given work that it has not finished.",
                )?,
            )?,
            oldest: add(
                registry,
                Gauge::new(
                    "ringfence_queue_oldest_seconds",
                    "How long the applier that has been busy longest has had unfinished work; 0 where none has.",
                )?,
            )?,
        })
    }

    pub(super) fn refresh(&self, snapshot: &Snapshot) {
        let now = Instant::now();
        let waiting: Vec<f64> = snapshot
            .pods
            .values()
            .filter_map(|status| status.applier.as_ref()?.busy_since())
            .map(|since| now.saturating_duration_since(since).as_secs_f64())
            .collect();
        self.length.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        self.oldest.set(waiting.into_iter().fold(0.0, f64::max));
    }
}
