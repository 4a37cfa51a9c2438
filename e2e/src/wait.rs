//! Waiting for what is to happen.

use std::time::{Duration, Instant};

/// How long something may take that is to happen at all. No test measures it: machines of CI are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until there is a value. Panics with the last reason.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{what}: not within {PATIENCE:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
