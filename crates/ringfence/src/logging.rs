//! Log lines: to standard error, as text or JSON.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::args::{LogFormat, LogLevel};

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter(level)))
        .with_writer(io::stderr)
        // Colours only get in the way of everything that collects a container's output.
        .with_ansi(false)
        .with_target(false);
    // An error means that something else in this process logs already, as in tests: that one stays.
    drop(match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    });
}

/// What libraries say of failures is said by the agent in its own words, once and with what follows from it: kube writes
/// a line at every attempt to reach an API server that is away, and the file watcher speaks of its own housekeeping.
/// Whoever asks for more than usual gets all of kube's.
fn filter(level: LevelFilter) -> String {
    let mut filter = format!("{level},notify=error");
    if level <= LevelFilter::INFO {
        filter += ",kube_runtime=error,kube_client::client=error,kube_client::client::builder=off";
        // Certificates that cannot be read again are said nowhere else.
        filter += ",kube_client::client::tls=";
        filter += &level.to_string();
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_understood_at_every_level() {
        for level in [LevelFilter::ERROR, LevelFilter::INFO, LevelFilter::DEBUG] {
            let text = filter(level);
            assert!(EnvFilter::try_new(&text).is_ok(), "{text}");
            assert_eq!(text.contains("builder=off"), level != LevelFilter::DEBUG, "{text}");
        }
    }
}
