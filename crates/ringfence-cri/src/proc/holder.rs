//! Open namespaces, and the paths under which the rest of the agent finds them: `/proc/self/fd/<number>`.
//!
//! A number that is closed is free for the next file, and somebody who has not yet heard that the pod is gone would find
//! another pod's namespace there. So a number is not closed at once: `/dev/null` takes its place (dup3), which lets the
//! namespace go and leaves a path at which no namespace is, and the number is freed when everybody has long heard of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::dup3;
use ringfence_model::PodUid;

use super::choose::Identity;

/// Time for which a number is not given to another pod. The loop hears of a pod's end within milliseconds.
const REST: Duration = Duration::from_secs(60);

/// Looks that must have followed too: the whole process may have been stopped for that time.
const LOOKS: u32 = 30;

#[derive(Debug)]
struct Held {
    file: OwnedFd,
    netns: Identity,
}

#[derive(Debug)]
struct Resting {
    /// Keeps the number.
    _file: OwnedFd,
    since: Instant,
    looks: u32,
}

/// The namespaces of the pods that were told.
#[derive(Debug, Default)]
pub(super) struct Holder {
    held: BTreeMap<PodUid, Held>,
    resting: Vec<Resting>,
}

/// Opens a namespace. What is there is judged by what it is on: only a namespace has the device of namespaces.
pub(super) fn open(path: &Path) -> io::Result<(OwnedFd, Identity)> {
    let file = File::open(path)?;
    let netns = Identity::of(&file.metadata()?);
    Ok((file.into(), netns))
}

impl Holder {
    /// What is held for a pod.
    pub(super) fn identity(&self, pod: &PodUid) -> Option<Identity> {
        self.held.get(pod).map(|held| held.netns)
    }

    /// Where it is to be found.
    pub(super) fn path(&self, pod: &PodUid) -> Option<PathBuf> {
        let held = self.held.get(pod)?;
        Some(format!("/proc/self/fd/{}", held.file.as_raw_fd()).into())
    }

    /// Holds a namespace for a pod, in place of what was held before. Under another number, so that nobody takes it for
    /// the one before.
    pub(super) fn hold(&mut self, pod: &PodUid, file: OwnedFd, netns: Identity) -> io::Result<()> {
        if let Some(before) = self.held.insert(pod.clone(), Held { file, netns }) {
            self.rest(before)?;
        }
        Ok(())
    }

    /// After a look: lets go of all pods but these.
    pub(super) fn keep(&mut self, is_known: impl Fn(&PodUid) -> bool, now: Instant) {
        let gone: Vec<PodUid> = self.held.keys().filter(|pod| !is_known(pod)).cloned().collect();
        for pod in gone {
            if let Some(held) = self.held.remove(&pod) {
                // Without /dev/null or memory the number is given up at once: worse, but nothing else can be done.
                drop(self.rest(held));
            }
        }
        self.resting.retain_mut(|resting| {
            resting.looks = resting.looks.saturating_add(1);
            resting.looks <= LOOKS || now.duration_since(resting.since) < REST
        });
    }

    fn rest(&mut self, held: Held) -> io::Result<()> {
        let nothing = File::open("/dev/null")?;
        let mut file = held.file;
        dup3(&nothing, &mut file, OFlag::O_CLOEXEC)?;
        self.resting.push(Resting {
            _file: file,
            since: Instant::now(),
            looks: 0,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> PodUid {
        PodUid::new(text).expect("valid")
    }

    fn own() -> (OwnedFd, Identity) {
        open(Path::new("/proc/self/ns/net")).expect("opened")
    }

    #[test]
    fn a_path_never_leads_to_another_pods_namespace() {
        let mut holder = Holder::default();
        let (file, netns) = own();
        holder.hold(&pod("a"), file, netns).expect("held");
        let path = holder.path(&pod("a")).expect("a path");
        assert_eq!(Identity::at(&path).expect("it is there"), netns);

        holder.keep(|_| false, Instant::now());
        assert_eq!(holder.path(&pod("a")), None);
        // Whoever has not heard of it finds no namespace, and the next pod has another path.
        assert_ne!(Identity::at(&path).expect("something else"), netns);
        let (file, netns) = own();
        holder.hold(&pod("b"), file, netns).expect("held");
        assert_ne!(holder.path(&pod("b")), Some(path.clone()));

        // The same pod in another sandbox.
        let (file, netns) = own();
        let before = holder.path(&pod("b")).expect("a path");
        holder.hold(&pod("b"), file, netns).expect("held");
        assert_ne!(holder.path(&pod("b")), Some(before));
        assert_eq!(holder.resting.len(), 2);
    }

    #[test]
    fn numbers_come_back_after_a_time_and_some_looks() {
        let mut holder = Holder::default();
        let (file, netns) = own();
        holder.hold(&pod("a"), file, netns).expect("held");
        let now = Instant::now();
        holder.keep(|_| false, now);
        // It was stopped for an hour: that counts as little as many looks in a moment.
        holder.keep(|_| false, now + REST * 60);
        assert_eq!(holder.resting.len(), 1);
        for _ in 0..LOOKS * 2 {
            holder.keep(|_| false, now);
        }
        assert_eq!(holder.resting.len(), 1);
        holder.keep(|_| false, now + REST * 60);
        assert_eq!(holder.resting.len(), 0);
    }
}
