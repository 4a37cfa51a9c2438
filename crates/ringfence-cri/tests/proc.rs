//! The look at the node's processes, with real processes in made namespaces and made control groups. Needs root.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_cri::{Change, Handle, State, scan};
use ringfence_model::PodUid;
use tokio::sync::mpsc::Receiver;

/// How long something may take that is to happen at all. No test measures it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of control groups and named namespaces, with the processes in them. Dropped, nothing of it is left.
struct Node {
    groups: PathBuf,
    namespaces: Vec<String>,
    processes: Vec<Child>,
    changes: Option<(Receiver<Vec<Change>>, Handle)>,
    /// Of our pods: there may be others on this machine.
    waiting: VecDeque<Change>,
    pods: Vec<PodUid>,
}

impl Node {
    fn new() -> Self {
        let groups = hierarchy().join(format!("ringfence-test-{}", std::process::id()));
        fs::create_dir(&groups).expect("root may make control groups");
        Self {
            groups,
            namespaces: Vec::new(),
            processes: Vec::new(),
            changes: None,
            waiting: VecDeque::new(),
            pods: Vec::new(),
        }
    }

    fn namespace(&mut self, name: &str) -> PathBuf {
        let name = format!("rf-proc-{name}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let path = Path::new("/run/netns").join(&name);
        self.namespaces.push(name);
        path
    }

    fn pod(&mut self, uid: &str) -> PodUid {
        fs::create_dir_all(self.group(uid)).expect("a control group");
        let uid = PodUid::new(uid).expect("valid");
        self.pods.push(uid.clone());
        uid
    }

    fn group(&self, uid: &str) -> PathBuf {
        self.groups.join("kubepods").join(format!("pod{uid}"))
    }

    /// Starts a process in a namespace and puts it into the pod's group; gives its place among the processes.
    fn process(&mut self, pod: &PodUid, netns: &Path) -> usize {
        let child = Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(["sleep", "3600"])
            .stdin(Stdio::null())
            .spawn()
            .expect("nsenter runs");
        let own = format!("/proc/{}/ns/net", child.id());
        eventually("the process is in its namespace", || {
            identity(Path::new(&own)) == identity(netns)
        });
        let procs = self.group(pod.as_str()).join("cgroup.procs");
        fs::write(procs, child.id().to_string()).expect("moved");
        self.processes.push(child);
        self.processes.len() - 1
    }

    fn end(&mut self, process: usize) {
        self.processes[process].kill().expect("killed");
        self.processes[process].wait().expect("it ends");
    }

    fn start(&mut self) {
        self.changes = Some(scan(Duration::from_millis(50)).expect("it starts"));
        let health = self.health();
        eventually("a first look", || health.borrow().state == State::Connected);
    }

    fn health(&self) -> tokio::sync::watch::Receiver<ringfence_cri::Health> {
        self.changes.as_ref().expect("it runs").1.health()
    }

    /// After two more looks, of which the second began after this was called.
    fn look(&mut self) {
        let health = self.health();
        let before = health.borrow().lists;
        self.changes.as_ref().expect("it runs").1.poke();
        eventually("two more looks", || health.borrow().lists >= before + 2);
        self.receive();
    }

    fn receive(&mut self) {
        let Some((changes, _)) = &mut self.changes else { return };
        while let Ok(batch) = changes.try_recv() {
            let ours = batch.into_iter().filter(|change| match change {
                Change::Found { pod, .. } | Change::Unusable { pod, .. } | Change::Gone { pod } => {
                    self.pods.contains(pod)
                }
                Change::Synced => true,
            });
            self.waiting.extend(ours);
        }
    }

    #[track_caller]
    fn next(&mut self) -> Change {
        eventually("a change", || {
            self.receive();
            !self.waiting.is_empty()
        });
        self.waiting.pop_front().expect("a change")
    }

    /// The next change, which says where a pod's namespace is.
    #[track_caller]
    fn next_found(&mut self, expected: &PodUid) -> PathBuf {
        match self.next() {
            Change::Found { pod, path, .. } if pod == *expected => path,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check_quiet(&mut self) {
        self.look();
        assert_eq!(self.waiting, []);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in &mut self.processes {
            // Some have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
        for pod in &self.pods {
            let _ = fs::remove_dir(self.group(pod.as_str()));
        }
        let _ = fs::remove_dir(self.groups.join("kubepods"));
        let _ = fs::remove_dir(&self.groups);
    }
}

/// Where groups can be made: the first hierarchy of version 1 that needs no settings, else that of version 2.
fn hierarchy() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let fields: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
    let first = |kind: &str, option: &str| {
        let found = fields
            .iter()
            .find(|mount| mount[2] == kind && mount[3].split(',').any(|it| it == option));
        found.map(|mount| PathBuf::from(mount[1]))
    };
    first("cgroup", "freezer")
        .or_else(|| first("cgroup", "pids"))
        .or_else(|| first("cgroup2", "rw"))
        .expect("control groups are mounted")
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("it runs");
    assert!(status.success(), "{program} {arguments:?}");
}

#[track_caller]
fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "not seen: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn pods_are_found_by_their_processes_and_followed_from_one_to_the_next() {
    let mut node = Node::new();
    let (first, second) = (node.namespace("a"), node.namespace("b"));
    let web = node.pod("0f3c8a52-11d7-4e0b-9c1d-3c5f0a7be9d1");
    let host = node.pod("0f3c8a52-11d7-4e0b-9c1d-3c5f0a7be9d2");
    let sandbox = node.process(&web, &first);
    let container = node.process(&web, &first);
    // On the node's network, with a process that has made a namespace of its own.
    node.process(&host, Path::new("/proc/self/ns/net"));
    node.process(&host, &second);
    node.start();
    let path = node.next_found(&web);
    assert_eq!(identity(&path), identity(&first));
    assert_eq!(node.next(), Change::Synced);
    node.check_quiet();

    // The sandbox's process ends, and a younger one has made a namespace of its own: nothing changes.
    node.end(sandbox);
    let other = node.process(&web, &second);
    node.check_quiet();
    assert_eq!(identity(&path), identity(&first), "the path is still good");

    // Nobody is left in the first one.
    node.end(container);
    let next = node.next_found(&web);
    assert_ne!(next, path);
    assert_eq!(identity(&next), identity(&second));
    // Whoever still uses the path finds no namespace there, least of all another pod's.
    assert_eq!(identity(&path), identity(Path::new("/dev/null")));

    node.end(other);
    assert_eq!(node.next(), Change::Gone { pod: web.clone() });
    assert_eq!(identity(&next), identity(Path::new("/dev/null")));
    assert_eq!(node.health().borrow().name(), "/proc");

    // Its next sandbox.
    node.process(&web, &first);
    let path = node.next_found(&web);
    assert_eq!(identity(&path), identity(&first));
}
