//! How the runtime is, for `/readyz` and metrics.

use std::path::PathBuf;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::warn;

use crate::Error;

/// How the runtime is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its socket, as it was given or as it was found last.
    pub socket: Option<PathBuf>,
    /// Name and version, as it says them itself: `containerd 1.6.20`. Kept while it is away.
    pub runtime: Option<String>,
    /// Whether it answers.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// Whether it tells of new sandboxes by itself, so that they are known sooner than by looking.
    pub events: bool,
    /// Number of pods whose network namespace is known.
    pub placed: usize,
    /// Complete lists so far.
    pub lists: u64,
    /// Failed calls and connections so far.
    pub errors: u64,
}

/// Whether the runtime answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has not been asked yet.
    New,
    /// It does.
    Connected,
    /// It does not, and why. What was known stands.
    Away(String),
}

impl Health {
    /// Before the first attempt.
    pub fn new(socket: Option<PathBuf>) -> Self {
        Self {
            socket,
            runtime: None,
            state: State::New,
            since: SystemTime::now(),
            events: false,
            placed: 0,
            lists: 0,
            errors: 0,
        }
    }

    /// What people call it: `containerd`, or `the container runtime` before it has said its name.
    pub fn name(&self) -> &str {
        self.runtime
            .as_deref()
            .and_then(|text| text.split(' ').next())
            .unwrap_or("the container runtime")
    }

    /// It has answered with a complete list. Whether it was away before is the answer.
    pub(crate) fn listed(&mut self, placed: usize) -> bool {
        self.placed = placed;
        self.lists += 1;
        let news = self.state != State::Connected;
        if news {
            self.state = State::Connected;
            self.since = SystemTime::now();
        }
        news
    }

    /// It has not. Whether the reason is new is the answer.
    pub(crate) fn failed(&mut self, error: &Error) -> bool {
        self.errors += 1;
        self.events = false;
        let text = error.to_string();
        if !matches!(self.state, State::Away(_)) {
            self.since = SystemTime::now();
        }
        let new = State::Away(text);
        let news = self.state != new;
        self.state = new;
        news
    }
}

/// Notes that a look has failed; says it, and what that means, where the reason is new.
pub(crate) fn note_failure(health: &watch::Sender<Health>, error: &Error, meaning: &str) {
    let mut news = false;
    health.send_modify(|health| news = health.failed(error));
    if news {
        // As a string: see the agent's logging.
        let error = error.to_string();
        warn!(error = error.as_str(), "{meaning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_the_state_are_news() {
        let mut health = Health::new(None);
        assert_eq!(health.name(), "the container runtime");
        assert!(health.failed(&Error::NoRuntime));
        let since = health.since;
        assert!(!health.failed(&Error::NoRuntime));
        assert!(health.failed(&Error::Socket("x".into())));
        assert_eq!(health.since, since, "it has been away all the time");
        health.runtime = Some("containerd 1.6.20".into());
        assert!(health.listed(3));
        assert!(!health.listed(4));
        assert_eq!(health.name(), "containerd");
        assert_eq!((health.placed, health.lists, health.errors), (4, 2, 3));
    }
}
