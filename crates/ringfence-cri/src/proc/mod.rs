//! The fallback where no runtime can be asked: the pods' processes, as /proc shows them.
//!
//! A process is a pod's when its control group is (`cgroup`); the pod's network namespace is that of its oldest process,
//! the sandbox's, and stays so as long as any process of the pod is in it (`choose`). What is handed out is a path of this
//! process's own to the open namespace and not `/proc/<pid>/ns/net`: processes end, and the kernel gives their numbers to
//! others, to one of the node even, whose network must never get a pod's rules (`holder`).
//!
//! Needs the node's processes in /proc (`hostPID`) and CAP_SYS_PTRACE.

mod cgroup;
mod choose;
mod holder;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringfence_model::PodUid;
use tokio::runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::info;

use self::choose::{Identity, Process, choose};
use self::holder::Holder;
use crate::difference::{Known, Sandbox, Told};
use crate::health::{Health, note_failure};
use crate::session::Pace;
use crate::{BATCHES, Change, Error, Handle};

/// Shortest time between two looks: each reads two small files per process of the node.
const GAP: Duration = Duration::from_millis(20);

/// Looks at the node's processes from a thread of its own, until the receiver is dropped.
pub fn scan(poll: Duration) -> Result<(Receiver<Vec<Change>>, Handle), Error> {
    scan_at(PathBuf::from("/proc"), poll)
}

fn scan_at(root: PathBuf, poll: Duration) -> Result<(Receiver<Vec<Change>>, Handle), Error> {
    let (changes, receiver) = channel(BATCHES);
    let (reporter, health) = watch::channel(Health::new(None));
    let poke = Arc::new(Notify::new());
    let scanner = Scanner {
        root,
        changes,
        poke: Arc::clone(&poke),
        health: reporter,
        told: Told::default(),
        holder: Holder::default(),
        synced: false,
    };
    let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new()
        .name("watch-proc".into())
        .spawn(move || runtime.block_on(scanner.run(poll)))?;
    Ok((receiver, Handle::new(poke, health)))
}

struct Scanner {
    root: PathBuf,
    changes: Sender<Vec<Change>>,
    poke: Arc<Notify>,
    health: watch::Sender<Health>,
    told: Told,
    holder: Holder,
    synced: bool,
}

impl Scanner {
    async fn run(mut self, poll: Duration) {
        let mut pace = Pace::new(poll);
        loop {
            match self.look() {
                Ok(changes) => {
                    if !changes.is_empty() && self.changes.send(changes).await.is_err() {
                        return;
                    }
                }
                Err(error) => note_failure(
                    &self.health,
                    &error,
                    "The node's processes cannot be looked at: what is known of the pods' network namespaces stands",
                ),
            }
            tokio::select! {
                () = self.changes.closed() => return,
                () = self.poke.notified() => pace.hurry(Instant::now()),
                // Nobody tells of new processes.
                () = sleep(pace.wait()) => pace.slow_down(Instant::now(), true),
            }
            sleep(GAP).await;
        }
    }

    /// One look at every process, and what follows.
    fn look(&mut self) -> Result<Vec<Change>, Error> {
        let node = self.node()?;
        let processes = self.processes()?;
        let mut now = BTreeMap::new();
        for (pod, process) in choose(processes, node, |pod| self.holder.identity(pod)) {
            let place = self.hold(&pod, &process);
            now.insert(
                pod,
                (Sandbox::unlisted(format!("net:[{}]", process.netns.inode)), place),
            );
        }
        let mut changes = self.told.update(now);
        self.holder.keep(|pod| self.told.knows(pod), Instant::now());
        if !self.synced {
            self.synced = true;
            changes.push(Change::Synced);
        }
        let placed = self.told.placed();
        let mut back = false;
        self.health.send_modify(|health| {
            health.runtime = Some("/proc".to_owned());
            back = health.listed(placed);
        });
        if back {
            info!(placed, "The node's processes have been looked at");
        }
        Ok(changes)
    }

    /// Opens the namespace, unless it is the one that is held for the pod.
    fn hold(&mut self, pod: &PodUid, process: &Process) -> Known {
        if self.holder.identity(pod) != Some(process.netns) {
            let folder = self.root.join(process.pid.to_string());
            let opened = holder::open(&folder.join("ns/net"));
            // The number may have been given to another process since it was looked at; what was opened then is not
            // the pod's. The next look knows better.
            let same = process_at(&folder).is_some_and(|again| again.started == process.started && again.pod == *pod);
            match opened {
                Ok((file, netns)) if same && netns == process.netns => {
                    if let Err(error) = self.holder.hold(pod, file, netns) {
                        return Known::Place(Err(format!("its network namespace cannot be held: {error}")));
                    }
                }
                _ => return Known::NotAsked,
            }
        }
        match self.holder.path(pod) {
            Some(path) => Known::Place(Ok(path)),
            None => Known::NotAsked,
        }
    }

    /// The node's own namespace, which no pod's rules may reach.
    fn node(&self) -> Result<Identity, Error> {
        let path = self.root.join("1/ns/net");
        Identity::at(&path).or_else(|error| {
            // Some systems shield their first process even from CAP_SYS_PTRACE. The kernel's own are on the node's network.
            let stat = fs::read_to_string(self.root.join("2/stat")).unwrap_or_default();
            let other = Identity::at(&self.root.join("2/ns/net"));
            other
                .ok()
                .filter(|_| cgroup::is_of_the_kernel(&stat))
                .ok_or_else(|| Error::Processes {
                    path,
                    reason: error.to_string(),
                })
        })
    }

    /// The pods' processes. Those that end meanwhile are left out.
    fn processes(&self) -> Result<Vec<Process>, Error> {
        let entries = fs::read_dir(&self.root).map_err(|error| Error::Processes {
            path: self.root.clone(),
            reason: error.to_string(),
        })?;
        Ok(entries
            .flatten()
            .filter_map(|entry| process_at(&entry.path()))
            .collect())
    }
}

/// A pod's process out of its folder in /proc.
fn process_at(folder: &Path) -> Option<Process> {
    let pid = folder.file_name()?.to_str()?.parse().ok()?;
    let pod = cgroup::pod(&fs::read_to_string(folder.join("cgroup")).ok()?)?;
    Some(Process {
        pid,
        started: cgroup::started(&fs::read_to_string(folder.join("stat")).ok()?)?,
        netns: Identity::at(&folder.join("ns/net")).ok()?,
        pod,
    })
}
