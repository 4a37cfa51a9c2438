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
        // The file watcher's library speaks of its own housekeeping, which is no news to anybody.
        .with_env_filter(EnvFilter::new(format!("{level},notify=error")))
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
