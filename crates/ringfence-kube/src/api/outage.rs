//! What people are told of an API server that does not answer: once that it is so, once that it is over.
//!
//! All watches lose their server at the same moment, and each is refused again and again for ever other reasons in words
//! (refused, reset, starting): none of that is news.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::stream::{Stream, Trouble};

/// Which watches do not work for a reason that passes by itself.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    down: BTreeSet<Stream>,
}

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Begins,
    Spreads,
    Ends { lasted: Duration },
    Nothing,
}

impl Outage {
    /// A watch does not work. `synced`: all of them have delivered everything once.
    pub(super) fn down(&mut self, stream: Stream, trouble: &Trouble, synced: bool, now: Instant) {
        let error = trouble.to_string();
        let (watch, error) = (stream.as_str(), error.as_str());
        match self.enter(stream, now) {
            // Who knows a part only would close what is allowed and open what is not (statement 140).
            News::Begins if !synced => warn!(
                watch,
                error,
                "The API server does not answer: until it has delivered everything once, no pod's rules are touched"
            ),
            News::Begins => warn!(
                watch,
                error, "The API server does not answer: what the watches delivered stays in force"
            ),
            News::Spreads => debug!(watch, error, "Another watch does not work"),
            News::Ends { .. } | News::Nothing => {}
        }
    }

    /// A watch works, or does not work for a reason that is said by itself.
    pub(super) fn up(&mut self, stream: Stream, now: Instant) {
        if let News::Ends { lasted } = self.leave(stream, now) {
            info!(
                lasted_seconds = lasted.as_secs_f64(),
                "The API server answers again: every watch works"
            );
        }
    }

    fn enter(&mut self, stream: Stream, now: Instant) -> News {
        let fresh = self.down.insert(stream);
        match self.since {
            None => {
                self.since = Some(now);
                News::Begins
            }
            Some(_) if fresh => News::Spreads,
            Some(_) => News::Nothing,
        }
    }

    fn leave(&mut self, stream: Stream, now: Instant) -> News {
        if !self.down.remove(&stream) || !self.down.is_empty() {
            return News::Nothing;
        }
        self.since.take().map_or(News::Nothing, |since| News::Ends {
            lasted: now.duration_since(since),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_begins_once_and_ends_once() {
        let mut outage = Outage::default();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(outage.leave(Stream::LocalPods, begin), News::Nothing);
        assert_eq!(outage.enter(Stream::LocalPods, begin), News::Begins);
        assert_eq!(outage.enter(Stream::LocalPods, after(1)), News::Nothing);
        assert_eq!(outage.enter(Stream::RemotePods, after(1)), News::Spreads);
        assert_eq!(outage.leave(Stream::LocalPods, after(7)), News::Nothing);
        assert_eq!(outage.leave(Stream::LocalPods, after(7)), News::Nothing);
        let lasted = Duration::from_secs(8);
        assert_eq!(outage.leave(Stream::RemotePods, after(8)), News::Ends { lasted });
        assert_eq!(outage.leave(Stream::RemotePods, after(9)), News::Nothing);
        assert_eq!(outage.enter(Stream::RemotePods, after(10)), News::Begins);
    }
}
