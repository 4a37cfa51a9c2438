//! Metrics of the watches of the Kubernetes API, copied at scrape time from what the source publishes.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use ringfence_kube::api::{Health, State, Trouble};

use super::{add, gauges};

/// One series per watch, and per state or reason.
pub(super) struct WatchMetrics {
    states: IntGaugeVec,
    objects: IntGaugeVec,
    events: IntCounterVec,
    lists: IntCounterVec,
    errors: IntCounterVec,
}

impl WatchMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            states: add(
                registry,
                gauges(
                    "ringfence_watches",
                    "Watches of the Kubernetes API: 1 for the state that each is in.",
                    &["watch", "state"],
                )?,
            )?,
            objects: add(
                registry,
                gauges("ringfence_watch_objects", "Objects that a watch knows.", &["watch"])?,
            )?,
            events: counter(
                "ringfence_watch_events_total",
                "Objects that a watch has delivered, those of lists included.",
                &["watch"],
            )?,
            lists: counter(
                "ringfence_watch_lists_total",
                "Lists that were completed: more than one means that the watch had to begin anew.",
                &["watch"],
            )?,
            errors: counter(
                "ringfence_watch_errors_total",
                "Errors of a watch, by reason. Nothing that is in force changes because of one.",
                &["watch", "reason"],
            )?,
        })
    }

    /// Under the lock of the scrape. Counters have no `set`: what has come since the last scrape is added.
    pub(super) fn refresh(&self, watches: &[Health]) {
        let catch_up = |counter: prometheus::IntCounter, total: u64| {
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        for health in watches {
            let watch = health.stream.as_str();
            let states = [State::Listing.label(), State::Watching.label()];
            for state in states.into_iter().chain(Trouble::LABELS) {
                let is_it = i64::from(health.state.label() == state);
                self.states.with_label_values(&[watch, state]).set(is_it);
            }
            let objects = i64::try_from(health.objects).unwrap_or(i64::MAX);
            self.objects.with_label_values(&[watch]).set(objects);
            catch_up(self.events.with_label_values(&[watch]), health.events);
            catch_up(self.lists.with_label_values(&[watch]), health.lists);
            for (reason, total) in Trouble::LABELS.into_iter().zip(health.errors) {
                catch_up(self.errors.with_label_values(&[watch, reason]), total);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use prometheus::TextEncoder;
    use ringfence_kube::api::Stream;

    use super::*;

    #[test]
    fn watches_are_counted_once_however_often_they_are_scraped() {
        let registry = Registry::new();
        let metrics = WatchMetrics::new(&registry).expect("metrics");
        let mut health = Health {
            stream: Stream::NetworkPolicies,
            state: State::Watching,
            since: SystemTime::UNIX_EPOCH,
            synced: true,
            objects: 3,
            events: 5,
            lists: 1,
            errors: [0, 2, 0, 0, 1],
        };
        metrics.refresh(std::slice::from_ref(&health));
        health.events = 7;
        health.state = State::Troubled(Trouble::Failed("away".to_owned()));
        metrics.refresh(std::slice::from_ref(&health));
        metrics.refresh(std::slice::from_ref(&health));
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .expect("it encodes");
        for line in [
            r#"ringfence_watch_events_total{watch="networkpolicies"} 7"#,
            r#"ringfence_watch_errors_total{reason="forbidden",watch="networkpolicies"} 2"#,
            r#"ringfence_watches{state="watching",watch="networkpolicies"} 0"#,
            r#"ringfence_watches{state="failed",watch="networkpolicies"} 1"#,
            r#"ringfence_watch_objects{watch="networkpolicies"} 3"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
