//! How the connection is, for `/readyz` and metrics.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::Error;

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The runtime's socket.
    pub socket: PathBuf,
    /// Name and version, as the runtime says them itself: `containerd v2.4.2`. Kept while it is away.
    pub runtime: Option<String>,
    /// Whether it asks.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// Connections so far that came as far as a list of sandboxes.
    pub sessions: u64,
    /// Connections so far that failed or were lost.
    pub errors: u64,
}

/// Whether the runtime asks before pods start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has not been tried yet.
    New,
    /// It does.
    Connected,
    /// It does not, and why.
    Away(String),
}

impl Health {
    /// Before the first attempt.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            runtime: None,
            state: State::New,
            since: SystemTime::now(),
            sessions: 0,
            errors: 0,
        }
    }

    /// It has said what there is: from here on it asks.
    pub(crate) fn connected(&mut self) {
        self.sessions += 1;
        self.state = State::Connected;
        self.since = SystemTime::now();
    }

    /// It does not. Whether the reason is new is the answer.
    pub(crate) fn failed(&mut self, error: &Error) -> bool {
        self.errors += 1;
        if !matches!(self.state, State::Away(_)) {
            self.since = SystemTime::now();
        }
        let new = State::Away(error.to_string());
        let news = self.state != new;
        self.state = new;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_the_reason_are_news() {
        let mut health = Health::new("/x".into());
        assert!(health.failed(&Error::Closed));
        let since = health.since;
        assert!(!health.failed(&Error::Closed));
        assert!(health.failed(&Error::TooMany("questions")));
        assert_eq!(health.since, since, "it has been away all the time");
        health.connected();
        assert!(health.failed(&Error::Closed));
        assert_eq!((health.sessions, health.errors), (1, 4));
    }
}
