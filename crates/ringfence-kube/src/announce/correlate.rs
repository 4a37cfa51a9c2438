//! Which announcements become Events, and which are counted in one that is there. Pure: times come from the caller.
//!
//! As client-go's correlator does it: the same words about the same object within some minutes are one Event whose count
//! grows, and an object that never comes to rest has only so many in a time. Beside it a limit for the whole node: an
//! attacker in a pod can make its own object noisy, and a hundred such pods must not load the API server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The same again within this time is counted in the Event that is there.
const WINDOW: Duration = Duration::from_secs(600);

/// For one object: so many at once, then one in a time.
const OBJECT: Limit = Limit {
    burst: 25,
    every: Duration::from_secs(10),
};

/// For all of the node together.
const NODE: Limit = Limit {
    burst: 100,
    every: Duration::from_secs(1),
};

/// Entries that are kept at most; the oldest say nothing any more long before.
const MEMORY: usize = 4096;

/// What makes two announcements the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The object's UID; of a policy its generation too, because a new text deserves a new answer.
    pub(super) object: Box<str>,
    pub(super) reason: &'static str,
    pub(super) note: Box<str>,
    /// Other agents say it too.
    pub(super) shared: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// A new Event with this at the end of its name.
    Create { mark: u64 },
    /// It has happened so often by now.
    Count { mark: u64, count: i32 },
    /// It has been said, and nobody needs to hear it again.
    Said,
    /// Too many.
    Limited,
}

#[derive(Debug)]
struct Known {
    mark: u64,
    count: i32,
    last: Instant,
}

/// Remembers what was said.
#[derive(Debug)]
pub(super) struct Correlator {
    known: HashMap<Key, Known>,
    objects: HashMap<Box<str>, Bucket>,
    node: Bucket,
}

impl Correlator {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            known: HashMap::new(),
            objects: HashMap::new(),
            node: Bucket::new(NODE, now),
        }
    }

    /// `nonce` makes the names of Events differ that say the same after a while.
    pub(super) fn take(&mut self, key: &Key, nonce: u64, now: Instant) -> Decision {
        self.forget_old(now);
        if let Some(known) = self.known.get_mut(key) {
            known.last = now;
            known.count = known.count.saturating_add(1);
            if key.shared {
                // How often an agent has read a policy says nothing about the policy.
                return Decision::Said;
            }
            let (mark, count) = (known.mark, known.count);
            // What is held back here is in the count of the next one.
            return if self.allows(key, now) {
                Decision::Count { mark, count }
            } else {
                Decision::Limited
            };
        }
        if self.known.len() >= MEMORY || !self.allows(key, now) {
            return Decision::Limited;
        }
        let mark = mark(key, nonce);
        let known = Known {
            mark,
            count: 1,
            last: now,
        };
        self.known.insert(key.clone(), known);
        Decision::Create { mark }
    }

    /// The Event is not there (any more): the next one begins anew.
    pub(super) fn forget(&mut self, key: &Key) {
        self.known.remove(key);
    }

    fn allows(&mut self, key: &Key, now: Instant) -> bool {
        let object = self
            .objects
            .entry(key.object.clone())
            .or_insert_with(|| Bucket::new(OBJECT, now));
        // The object first: what it may not say does not use up what others may.
        object.take(now) && self.node.take(now)
    }

    fn forget_old(&mut self, now: Instant) {
        self.known.retain(|_, known| now.duration_since(known.last) < WINDOW);
        self.objects.retain(|_, bucket| !bucket.is_full(now));
    }
}

/// Two agents make the same mark of the same policy, also when they were built by different compilers (FNV-1a).
fn mark(key: &Key, nonce: u64) -> u64 {
    let nonce = if key.shared { 0 } else { nonce };
    let parts = [
        key.object.as_bytes(),
        key.reason.as_bytes(),
        key.note.as_bytes(),
        &nonce.to_be_bytes(),
    ];
    let bytes = parts.into_iter().flat_map(|part| part.iter().chain(&[0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// So many at once, then one each time.
#[derive(Debug, Clone, Copy)]
struct Limit {
    burst: u32,
    every: Duration,
}

/// A token bucket, kept as the time at which it would be full.
#[derive(Debug)]
struct Bucket {
    limit: Limit,
    full_at: Instant,
}

impl Bucket {
    fn new(limit: Limit, now: Instant) -> Self {
        Self { limit, full_at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let after = self.full_at.max(now) + self.limit.every;
        let allowed = after.duration_since(now) <= self.limit.every * self.limit.burst;
        if allowed {
            self.full_at = after;
        }
        allowed
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(object: &str, note: &str) -> Key {
        Key {
            object: object.into(),
            reason: "RulesRepaired",
            note: note.into(),
            shared: false,
        }
    }

    fn shared(object: &str) -> Key {
        Key {
            shared: true,
            ..key(object, "bad")
        }
    }

    /// `create`, `count 2`, `said`, `limited`.
    fn shown(decision: &Decision) -> String {
        match decision {
            Decision::Create { .. } => "create".to_owned(),
            Decision::Count { count, .. } => format!("count {count}"),
            Decision::Said => "said".to_owned(),
            Decision::Limited => "limited".to_owned(),
        }
    }

    /// Announcements at so many seconds.
    #[track_caller]
    fn check(steps: &[(u64, &Key, &str)]) {
        let begin = Instant::now();
        let mut correlator = Correlator::new(begin);
        for (second, key, expected) in steps {
            let decision = correlator.take(key, *second, begin + Duration::from_secs(*second));
            assert_eq!(shown(&decision), *expected, "{second} s: {key:?}");
        }
    }

    #[test]
    fn the_same_within_ten_minutes_is_one_event_that_counts() {
        let (web, other_words, other_pod) = (key("web", "a"), key("web", "b"), key("db", "a"));
        check(&[
            (0, &web, "create"),
            (1, &web, "count 2"),
            (2, &other_words, "create"),
            (2, &other_pod, "create"),
            (600, &web, "count 3"),
            // Ten minutes after the last one, not after the first.
            (1199, &web, "count 4"),
            (1799, &web, "create"),
        ]);
    }

    #[test]
    fn what_every_agent_says_is_not_counted() {
        let (first, next) = (shared("policy.1"), shared("policy.2"));
        check(&[
            (0, &first, "create"),
            (1, &first, "said"),
            (2, &next, "create"),
            (700, &first, "create"),
        ]);
    }

    #[test]
    fn an_object_has_25_at_once_and_one_more_each_ten_seconds() {
        let begin = Instant::now();
        let mut correlator = Correlator::new(begin);
        let mut take = |note: u32, second: u64| {
            let decision = correlator.take(&key("web", &note.to_string()), 0, begin + Duration::from_secs(second));
            shown(&decision)
        };
        for note in 0..25 {
            assert_eq!(take(note, 0), "create");
        }
        assert_eq!(take(100, 9), "limited");
        assert_eq!(take(0, 9), "limited");
        assert_eq!(take(101, 10), "create");
        assert_eq!(take(102, 10), "limited");
        // What was held back is counted.
        assert_eq!(take(0, 20), "count 3");
    }

    #[test]
    fn the_node_has_100_at_once_and_one_more_each_second() {
        let begin = Instant::now();
        let mut correlator = Correlator::new(begin);
        let mut take = |object: u32, second: u64| {
            let key = key(&object.to_string(), "a");
            shown(&correlator.take(&key, 0, begin + Duration::from_secs(second)))
        };
        for object in 0..100 {
            assert_eq!(take(object, 0), "create");
        }
        assert_eq!(take(200, 0), "limited");
        assert_eq!(take(201, 1), "create");
        assert_eq!(take(202, 1), "limited");
        assert_eq!(take(203, 3600), "create");
    }

    #[test]
    fn what_was_not_taken_begins_anew() {
        let begin = Instant::now();
        let mut correlator = Correlator::new(begin);
        let web = key("web", "a");
        let first = correlator.take(&web, 1, begin);
        correlator.forget(&web);
        let second = correlator.take(&web, 2, begin);
        assert!(matches!(second, Decision::Create { .. }));
        assert_ne!(first, second, "another name");
    }

    #[test]
    fn agents_agree_on_the_name_of_a_policys_event() {
        assert_eq!(mark(&shared("policy.1"), 1), mark(&shared("policy.1"), 2));
        assert_ne!(mark(&shared("policy.1"), 1), mark(&shared("policy.2"), 1));
        assert_ne!(mark(&key("web", "a"), 1), mark(&key("web", "a"), 2));
        // The names outlive the build: an agent of another version meets them.
        assert_eq!(mark(&shared("policy.1"), 1), MARK);
    }

    /// Computed by another program.
    const MARK: u64 = 0x468f_a4ad_c3f7_3502;
}
