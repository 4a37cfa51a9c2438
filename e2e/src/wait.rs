//! Waiting for what is to happen.

use std::time::Duration;

/// How long something may take that is to happen at all. No test measures it: machines of CI are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until there is a value. Panics with the last reason.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    ringfence_testkit::eventually(PATIENCE, what, look, String::new)
}
