//! The watch against a real containerd or CRI-O: a scratch one with an own socket, real sandboxes, real shims.
//!
//! ```text
//! apt-get install containerd runc
//! cargo test -p ringfence-cri --test containerd
//! RINGFENCE_CONTAINERD=/path/to/containerd cargo test …        # another one, with its shim and ctr beside it
//! RINGFENCE_CRIO=/path/to/crio cargo test …                    # CRI-O, with pinns and copyimg beside it (e2e/tools/build crio)
//! ```
//!
//! Needs root. The network plugin is a script that makes no interface: what is tested is where the namespace is.

mod runtime;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringfence_cri::{Change, Handle, Health, Options, State, watch};
use ringfence_model::PodUid;
use runtime::{ContainerRuntime, Network};
use tokio::sync::mpsc::Receiver;

/// How long something may take that is to happen at all. No test measures it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watch and the runtime that it is on.
struct Watched {
    runtime: ContainerRuntime,
    changes: Receiver<Vec<Change>>,
    handle: Handle,
}

impl Watched {
    fn new(poll: Duration) -> Self {
        let runtime = ContainerRuntime::prepare();
        let options = Options {
            socket: Some(runtime.socket()),
            poll,
        };
        let (changes, handle) = watch(options).expect("it starts");
        Self {
            runtime,
            changes,
            handle,
        }
    }

    #[track_caller]
    fn next(&mut self) -> Vec<Change> {
        let Self { runtime, changes, .. } = self;
        let next = async { tokio::time::timeout(PATIENCE, changes.recv()).await };
        let health = self.handle.health().borrow().clone();
        runtime
            .block_on(next)
            .unwrap_or_else(|_| panic!("nothing new: {health:?}"))
            .expect("the watch lives")
    }

    #[track_caller]
    fn wait_health(&mut self, good: impl Fn(&Health) -> bool) -> Health {
        let mut health = self.handle.health();
        let wait = async {
            tokio::time::timeout(PATIENCE, health.wait_for(good))
                .await
                .map(|found| found.expect("the watch lives").clone())
        };
        let found = self.runtime.block_on(wait);
        found.unwrap_or_else(|_| panic!("{:?}", self.handle.health().borrow()))
    }

    /// The next change, which says that the sandbox is there; its path.
    #[track_caller]
    fn next_found(&mut self, pod: &str, id: &str) -> PathBuf {
        let changes = self.next();
        let [
            Change::Found {
                pod: of, path, sandbox, ..
            },
        ] = &*changes
        else {
            panic!("{changes:?}");
        };
        assert_eq!((of, &**sandbox), (&uid(pod), id));
        path.clone()
    }
}

fn uid(text: &str) -> PodUid {
    PodUid::new(text).expect("valid")
}

fn is_namespace(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(path).is_some() && device(path) == device(Path::new("/proc/self/ns/net"))
}

fn is_away(health: &Health) -> bool {
    matches!(health.state, State::Away(_))
}

fn is_connected(health: &Health) -> bool {
    health.state == State::Connected
}

#[test]
fn sandboxes_are_told_from_the_first_one_through_a_restart_to_the_last() {
    let mut watched = Watched::new(Duration::from_secs(1));
    let away = watched.wait_health(is_away);
    assert!(
        matches!(&away.state, State::Away(why) if why.contains("No such file")),
        "{away:?}"
    );

    watched.runtime.start();
    assert_eq!(watched.next(), [Change::Synced]);
    let health = watched.wait_health(is_connected);
    println!("{health:?}");
    assert_eq!(health.name(), watched.runtime.name());
    assert_eq!(health.events, watched.runtime.broadcasts_events(), "{health:?}");

    // One on the node's network first: it is never told of.
    watched.runtime.run("node", 0, Network::Node);
    let first = watched.runtime.run("web", 0, Network::Pod);
    let path = watched.next_found("web", &first);
    assert!(is_namespace(&path), "{}", path.display());

    // The pod gets another sandbox while the first one is still called ready.
    let second = watched.runtime.run("web", 1, Network::Pod);
    let other = watched.next_found("web", &second);
    assert!(is_namespace(&other) && other != path);

    // It is away, and the sandboxes live on: nothing is said of them. The next word is about a change of its own.
    watched.runtime.kill();
    watched.wait_health(is_away);
    watched.runtime.start();
    watched.wait_health(is_connected);
    watched.runtime.remove(&first);
    let db = watched.runtime.run("db", 0, Network::Pod);
    watched.next_found("db", &db);

    // It goes while nobody can say so.
    watched.runtime.remove(&second);
    assert_eq!(watched.next(), [Change::Gone { pod: uid("web") }]);
    watched.runtime.remove(&db);
    assert_eq!(watched.next(), [Change::Gone { pod: uid("db") }]);
}

#[test]
fn a_watch_that_starts_late_tells_everything_at_once() {
    let mut runtime = ContainerRuntime::prepare();
    runtime.start();
    let ids: Vec<String> = ["a", "b"].map(|pod| runtime.run(pod, 0, Network::Pod)).into();
    let options = Options {
        socket: Some(runtime.socket()),
        ..Options::default()
    };
    let (changes, handle) = watch(options).expect("it starts");
    let mut watched = Watched {
        runtime,
        changes,
        handle,
    };
    let changes = watched.next();
    let told: Vec<&str> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Found { sandbox, .. } => Some(&**sandbox),
            _ => None,
        })
        .collect();
    assert_eq!(told, ids);
    assert_eq!(changes.last(), Some(&Change::Synced));
}

/// With a poll so slow that it cannot be what tells: the pokes, or the runtime's own events.
#[test]
fn a_poke_before_the_sandbox_is_ready_is_enough() {
    let mut watched = Watched::new(Duration::from_secs(3600));
    watched.runtime.start();
    // A runtime that has just started may be waited for; from then on only the poke counts.
    watched.wait_health(is_connected);
    assert_eq!(watched.next(), [Change::Synced]);
    let mut waits = Vec::new();
    for number in 0..5 {
        let pod = format!("web-{number}");
        watched.handle.poke();
        let begun = Instant::now();
        let id = watched.runtime.run(&pod, 0, Network::Pod);
        let ready = begun.elapsed();
        watched.next_found(&pod, &id);
        waits.push((ready, begun.elapsed()));
    }
    println!("sandbox ready, and told of, after: {waits:?}");
}
