//! Waiting for something that is to happen.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks again and again until there is a value. Panics when patience is over, with the last reason and with what
/// `context` then says (a log, for example).
#[track_caller]
pub fn eventually<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
    context: impl FnOnce() -> String,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{what}: not within {patience:?}: {why}\n{}", context()),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
