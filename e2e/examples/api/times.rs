//! Durations as people read them.

use std::fmt;
use std::time::Duration;

/// Of many measurements.
pub struct Times {
    p50: Duration,
    p99: Duration,
    count: usize,
}

impl Times {
    /// Sorts them.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        Self {
            p50: at(50),
            p99: at(99),
            count: times.len(),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (millis(self.p50), millis(self.p99));
        write!(f, "p50 {p50:>7} ms   p99 {p99:>7} ms   n {}", self.count)
    }
}

/// With two decimals.
pub fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}
