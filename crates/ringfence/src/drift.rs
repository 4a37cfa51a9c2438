//! One thread that hears of every change that somebody else makes in a pod: to tables of Ringfence's name, to
//! interfaces, to addresses. It asks the pod's applier to compare, which mends what it finds; the resync would find it
//! seconds later.
//!
//! A pod that changes things all the time is asked about less and less often, so that it cannot eat the node's processor.
//! While it waits, its messages stay where the kernel queues them, in a buffer that may overrun.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use ringfence_netlink::{News, Notifications};
use tracing::warn;

use crate::applier::Mailbox;

/// Time between the first two comparisons that a pod's changes ask for. It doubles from one to the next…
const FIRST: Duration = Duration::from_millis(10);
/// … up to this where our tables were changed, because the pod may be open until the comparison…
const LONGEST_OPEN: Duration = Duration::from_millis(100);
/// … and up to this where only interfaces and addresses were. It begins anew when such a time passes without a change.
const LONGEST: Duration = Duration::from_secs(1);

/// Notifications that one wait brings at most; the others come with the next.
const AT_ONCE: usize = 64;
/// The token of the descriptor that ends the thread.
const END: u64 = 0;

/// Tells appliers to compare. Its thread ends when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct Drift {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Where that fails the thread waits on, for nothing, until the process ends.
        let _ = self.shared.end.write(1);
    }
}

#[derive(Debug)]
struct Shared {
    epoll: Epoll,
    end: EventFd,
    tokens: AtomicU64,
    pods: Mutex<BTreeMap<u64, Watched>>,
}

impl Shared {
    /// Entries are changed by whole assignments only, so what a panicking thread has left is whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Watched>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pod that is listened to.
#[derive(Debug)]
struct Watched {
    notifications: Notifications,
    mailbox: Arc<Mailbox>,
    pace: Pace,
    /// Until then it is not listened to.
    muted: Option<Instant>,
}

/// How long a pod is not listened to after a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace(Duration);

impl Pace {
    /// After one more comparison.
    fn next(&mut self, news: News) -> Duration {
        let longest = if news.tables { LONGEST_OPEN } else { LONGEST };
        let wait = self.0.min(longest);
        self.0 = (wait * 2).min(longest);
        wait
    }
}

/// Ends the listening when it is dropped.
#[derive(Debug)]
pub struct Registration {
    shared: Arc<Shared>,
    token: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The kernel forgets descriptors that are closed.
        self.shared.lock().remove(&self.token);
    }
}

impl Drift {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            end: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            tokens: AtomicU64::new(END + 1),
            pods: Mutex::default(),
        });
        shared
            .epoll
            .add(&shared.end, EpollEvent::new(EpollFlags::EPOLLIN, END))?;
        let for_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("watch-drift".into())
            .spawn(move || watch(&for_thread))?;
        Ok(Self {
            handle: Arc::new(Handle { shared }),
        })
    }

    /// From now on, what others change in this namespace makes the applier of this mailbox compare.
    pub fn register(&self, notifications: Notifications, mailbox: Arc<Mailbox>) -> io::Result<Registration> {
        let shared = Arc::clone(&self.handle.shared);
        let token = shared.tokens.fetch_add(1, Ordering::Relaxed);
        let mut pods = shared.lock();
        for descriptor in notifications.descriptors() {
            shared
                .epoll
                .add(descriptor.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        }
        let watched = Watched {
            notifications,
            mailbox,
            pace: Pace(FIRST),
            muted: None,
        };
        pods.insert(token, watched);
        drop(pods);
        Ok(Registration { shared, token })
    }
}

fn watch(shared: &Shared) {
    let mut events = [EpollEvent::empty(); AT_ONCE];
    let mut buffer = Vec::new();
    let mut due: Option<Instant> = None;
    loop {
        let wait = due.map_or(EpollTimeout::NONE, |due| {
            // Rounded up: too early would be a turn for nothing.
            let wait = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO)
        });
        let count = match shared.epoll.wait(&mut events, wait) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => {
                warn!(%error, "Changes by others cannot be listened to: they are found at the resync");
                return;
            }
        };
        let mut pods = shared.lock();
        let now = Instant::now();
        for event in events.iter().take(count) {
            if event.data() == END {
                return;
            }
            if let Some(watched) = pods.get_mut(&event.data()).filter(|watched| watched.muted.is_none()) {
                look(shared, event.data(), watched, now, &mut buffer);
            }
        }
        due = None;
        for (token, watched) in pods.iter_mut() {
            if watched.muted.is_some_and(|until| until <= now) {
                look(shared, *token, watched, now, &mut buffer);
            }
            due = [due, watched.muted].into_iter().flatten().min();
        }
    }
}

/// Asks for a comparison where there is news, and does not listen for a while then.
fn look(shared: &Shared, token: u64, watched: &mut Watched, now: Instant, buffer: &mut Vec<u8>) {
    let news = watched.notifications.look(buffer);
    let (muted, flags) = if news.is_some() {
        if news.filters {
            watched.mailbox.redirected();
        }
        watched.mailbox.verify();
        (Some(now + watched.pace.next(news)), EpollFlags::empty())
    } else {
        if watched.muted.is_some() {
            watched.pace = Pace(FIRST);
        }
        (None, EpollFlags::EPOLLIN)
    };
    if muted.is_some() != watched.muted.is_some() {
        for descriptor in watched.notifications.descriptors() {
            let mut event = EpollEvent::new(flags, token);
            // It is registered; a descriptor that cannot be changed only brings more turns than needed, or waits for the
            // resync.
            let _ = shared.epoll.modify(descriptor, &mut event);
        }
    }
    watched.muted = muted;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(news: News, longest: u128) {
        let mut pace = Pace(FIRST);
        let waits: Vec<u128> = (0..9).map(|_| pace.next(news).as_millis()).collect();
        let expected: Vec<u128> = [10, 20, 40, 80, 160, 320, 640, 1000, 1000]
            .map(|wait| longest.min(wait))
            .into();
        assert_eq!(waits, expected);
    }

    #[test]
    fn a_pod_that_changes_all_the_time_is_asked_about_ever_less_often() {
        let links = News {
            tables: false,
            links: true,
            filters: false,
        };
        check(links, 1000);
        check(News { tables: true, ..links }, 100);
        let mut pace = Pace(LONGEST);
        assert_eq!(
            pace.next(News { tables: true, ..links }),
            LONGEST_OPEN,
            "at once, when it becomes dangerous"
        );
    }
}
