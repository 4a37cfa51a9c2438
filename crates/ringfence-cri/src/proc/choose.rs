//! Which network namespace is a pod's, out of the processes that it has. Pure, but for the look at one file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ringfence_model::PodUid;

/// Which namespace: its place in the kernel's file system of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A process of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// In ticks since the machine was started.
    pub(super) started: u64,
    pub(super) netns: Identity,
    pub(super) pod: PodUid,
}

/// For each pod a process that is in its network namespace. Pods on the node's network have none.
///
/// The oldest process is the sandbox's, which the runtime starts before anything of the pod's. Later ones may have made
/// namespaces of their own (`unshare -Urn` needs no privilege), and must not be able to draw the pod's rules away to one
/// of those: so what was `told` stands as long as it is anybody's of the pod.
pub(super) fn choose(
    mut processes: Vec<Process>,
    node: Identity,
    told: impl Fn(&PodUid) -> Option<Identity>,
) -> BTreeMap<PodUid, Process> {
    processes.sort_by_key(|process| (process.started, process.pid));
    let mut oldest: BTreeMap<PodUid, Process> = BTreeMap::new();
    let mut stay: BTreeMap<PodUid, Process> = BTreeMap::new();
    for process in processes {
        if told(&process.pod) == Some(process.netns) {
            stay.entry(process.pod.clone()).or_insert_with(|| process.clone());
        }
        oldest.entry(process.pod.clone()).or_insert(process);
    }
    oldest.extend(stay);
    oldest.retain(|_, process| process.netns != node);
    oldest
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: u64 = 1;

    fn netns(inode: u64) -> Identity {
        Identity { device: 4, inode }
    }

    /// Processes of one pod as (start, namespace), and what was told: the namespace that is chosen.
    #[track_caller]
    fn check(processes: &[(u64, u64)], told: Option<u64>, expected: Option<u64>) {
        let pod = PodUid::new("u1").expect("valid");
        let list = |(number, (started, inode)): (usize, &(u64, u64))| Process {
            pid: u32::try_from(number).expect("small") + 100,
            started: *started,
            netns: netns(*inode),
            pod: pod.clone(),
        };
        let mut processes: Vec<Process> = processes.iter().enumerate().map(list).collect();
        for _ in 0..2 {
            let found = choose(processes.clone(), netns(NODE), |_| told.map(netns));
            assert_eq!(found.get(&pod).map(|process| process.netns.inode), expected);
            processes.reverse();
        }
    }

    #[test]
    fn the_oldest_process_tells_the_namespace() {
        check(&[], None, None);
        check(&[(10, 7), (20, 7)], None, Some(7));
        check(&[(10, 7), (20, 8), (30, 8)], None, Some(7));
        check(&[(30, 8), (20, 7)], None, Some(7));
    }

    #[test]
    fn the_nodes_network_is_no_pods() {
        check(&[(10, NODE)], None, None);
        // A pod on the node's network with a process that has made a namespace of its own.
        check(&[(10, NODE), (20, 8)], None, None);
        check(&[(10, 7), (20, NODE)], None, Some(7));
    }

    #[test]
    fn what_was_told_stands_while_a_process_is_in_it() {
        // The sandbox's process has ended, another one takes over.
        check(&[(20, 7)], Some(7), Some(7));
        check(&[(15, 8), (20, 7)], Some(7), Some(7));
        // Nobody is in it any more: another sandbox.
        check(&[(30, 9)], Some(7), Some(9));
        check(&[(10, NODE)], Some(7), None);
        check(&[], Some(7), None);
    }

    #[test]
    fn pods_are_told_apart() {
        let process = |pod: &str, pid: u32, inode: u64| Process {
            pid,
            started: 1,
            netns: netns(inode),
            pod: PodUid::new(pod).expect("valid"),
        };
        let list = vec![process("a", 1, 7), process("b", 2, 8), process("a", 3, 7)];
        let found = choose(list, netns(NODE), |_| None);
        let found: Vec<(&str, u32)> = found.iter().map(|(pod, process)| (pod.as_str(), process.pid)).collect();
        assert_eq!(found, [("a", 1), ("b", 2)]);
    }
}
