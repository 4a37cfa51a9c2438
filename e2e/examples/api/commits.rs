//! When the kernel has committed something in a pod's network namespace: it tells everybody who listens there
//! (`NFNLGRP_NFTABLES`, linux/netfilter/nfnetlink.h), whoever sent the transaction.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use ringfence_testkit::NamedNetns;

/// `1 << (NFNLGRP_NFTABLES - 1)`.
const GROUP: u32 = 1 << 6;

/// How long a commit may take at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// The last commit of each namespace.
pub struct Commits {
    shared: Arc<Shared>,
}

struct Shared {
    last: Mutex<Vec<Option<Instant>>>,
    news: Condvar,
}

impl Commits {
    /// Listens in every one of these namespaces.
    pub fn listen(namespaces: &[NamedNetns]) -> Result<Self> {
        let sockets: Vec<OwnedFd> = namespaces.iter().map(open).collect::<Result<_>>()?;
        let shared = Arc::new(Shared {
            last: Mutex::new(vec![None; sockets.len()]),
            news: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        thread::Builder::new()
            .name("commits".into())
            .spawn(move || follow(&own, &sockets))?;
        Ok(Self { shared })
    }

    /// Waits until each of these has had a commit after a moment, and gives the moment of the last of them.
    pub fn wait(&self, which: &[usize], after: Instant) -> Result<Instant> {
        let is_missing = |last: &mut Vec<Option<Instant>>| which.iter().any(|it| last[*it] <= Some(after));
        let (last, timeout) = self
            .shared
            .news
            .wait_timeout_while(self.shared.lock(), PATIENCE, is_missing)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            let missing = which.iter().filter(|it| last[**it] <= Some(after)).count();
            bail!("{missing} of {} commits have not come within {PATIENCE:?}", which.len());
        }
        which
            .iter()
            .filter_map(|it| last[*it])
            .max()
            .context("nothing to wait for")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(netns: &NamedNetns) -> Result<OwnedFd> {
    netns.netns().run(|| {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkNetFilter,
        )?;
        // First rulesets are large; what does not fit is lost, but that there was something is known then, too.
        setsockopt(&fd, sockopt::RcvBufForce, &(1 << 20))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        anyhow::Ok(fd)
    })?
}

fn follow(shared: &Shared, sockets: &[OwnedFd]) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let mut ready: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN))
            .collect();
        if poll(&mut ready, PollTimeout::NONE).is_err() {
            continue;
        }
        let now = Instant::now();
        let mut last = shared.lock();
        for (which, it) in ready.iter().enumerate() {
            if it.any() == Some(true) {
                last[which] = Some(now);
                // An overrun (ENOBUFS) is an error once and leaves what is queued: read on until there is nothing.
                while !matches!(
                    recv(sockets[which].as_raw_fd(), &mut buffer, MsgFlags::empty()),
                    Err(nix::Error::EAGAIN)
                ) {}
            }
        }
        drop(last);
        shared.news.notify_all();
    }
}
