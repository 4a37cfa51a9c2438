//! Paths of network namespaces that do not answer: a FUSE file system whose server says nothing. It is a matter of their
//! pods and of nobody else (statement 228).

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use common::{World, closing, pod, rules};
use ringfence_testkit::run_program;
use tempfile::TempDir;

/// The folder in which the agent looks for namespaces. To be made before what hangs in it, so that it goes after that.
struct Places {
    folder: TempDir,
}

impl Places {
    /// Not in /run/netns, where others would run into what hangs.
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn template(&self) -> String {
        format!("{}/{{namespace}}.{{name}}", self.folder.path().display())
    }

    fn of(&self, pod: &str) -> PathBuf {
        self.folder.path().join(format!("shop.{pod}"))
    }

    /// The pod's namespace is that of its name in /run/netns.
    fn link(&self, world: &World, pod: &str) {
        symlink(world.netns_path(pod), self.of(pod)).expect("a link");
    }
}

/// A file system at a path whose server answers nothing, its first question included.
struct Silent {
    path: PathBuf,
    server: Option<File>,
    mounted: bool,
}

impl Silent {
    fn mount(path: PathBuf) -> Self {
        fs::create_dir(&path).expect("a folder");
        let server = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("FUSE");
        let mounted = Command::new("mount")
            .args([
                "-i",
                "-t",
                "fuse",
                "-o",
                "fd=0,rootmode=40000,user_id=0,group_id=0",
                "rf-silent",
            ])
            .arg(&path)
            .stdin(server.try_clone().expect("another descriptor"))
            .status()
            .expect("mount starts");
        assert!(mounted.success(), "{mounted}");
        Self {
            path,
            server: Some(server),
            mounted: true,
        }
    }

    /// The server ends: from now on everything is answered, with an error.
    fn end(&mut self) {
        self.server = None;
    }

    /// Nothing is left there. Lazily: who has been waiting for an answer is only just getting it.
    fn unmount(&mut self) {
        self.end();
        self.mounted = false;
        let path = self.path.to_str().expect("UTF-8");
        run_program("umount", &["--lazy", path], "").expect("unmounted");
        fs::remove_dir(&self.path).expect("removed");
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // By now something else may be there, which is to stay.
        if self.mounted {
            self.end();
            drop(run_program(
                "umount",
                &["--lazy", self.path.to_str().expect("UTF-8")],
                "",
            ));
        }
    }
}

/// Number of threads of the agent that look, or are to look, at paths.
fn lookers(world: &World) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", world.agent().pid())).expect("tasks");
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks
        .filter_map(name)
        .filter(|name| name.trim() == "watch-netns")
        .count()
}

fn wait_lookers(world: &World, expected: usize) {
    world.eventually(&format!("{expected} threads that look"), || match lookers(world) {
        count if count == expected => Ok(()),
        count => Err(count.to_string()),
    });
}

/// Waits until the pod is pending because its path does not answer.
fn wait_silent(world: &World, pod: &str) {
    world.eventually(&format!("{pod} is waited for"), || match world.state(pod) {
        (state, reason) if state == "pending" && reason.contains("does not answer") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn s228_a_path_that_hangs_delays_no_other_pod() {
    let places = Places::new();
    let mut world = World::new("silent");
    world.netns_path = Some(places.template());
    let names = ["a-hangs", "b-hangs", "db", "web", "z-hangs"];
    let pods: Vec<_> = names
        .iter()
        .zip(10..)
        .map(|(name, last)| pod(name, &format!("10.20.1.{last}")))
        .collect();
    world.save("pods.yaml", &pods);
    let policies: Vec<_> = names
        .iter()
        .map(|name| closing(&format!("guard-{name}"), name))
        .collect();
    world.save("guard.yaml", &policies);

    // One that hangs from the start keeps the agent neither from the others nor from getting ready.
    let mut first = Silent::mount(places.of("a-hangs"));
    let web = world.netns("web", &["net1"]);
    places.link(&world, "web");
    world.start();
    world.wait_state("web", "enforced");
    wait_silent(&world, "a-hangs");
    assert_eq!(world.lines(&["WARN", "does not answer", "shop/a-hangs"]), 1);

    // What appears from now on is seen, at the paths before and behind it too.
    let db = world.netns("db", &["net1"]);
    places.link(&world, "db");
    world.wait_state("db", "enforced");
    assert!(rules(&db).contains("chain net1-in"));

    // One thread for each path that hangs, and one for all others, however long it takes.
    let others = ["b-hangs", "z-hangs"].map(|name| (name, Silent::mount(places.of(name))));
    for (name, _) in &others {
        wait_silent(&world, name);
    }
    wait_lookers(&world, 4);
    // A replaced namespace is noticed, so the rounds go on.
    fs::remove_file(places.of("db")).expect("removed");
    world.wait_state("db", "pending");
    places.link(&world, "db");
    world.wait_state("db", "enforced");
    wait_lookers(&world, 4);

    // Its pod goes while it hangs, and the others go on.
    world.save("pods.yaml", &pods[1..]);
    world.eventually("the pod is gone", || match world.get("/namespaces/shop/pods/a-hangs") {
        (404, _) => Ok(()),
        (status, body) => Err(format!("{status} {body}")),
    });
    assert_eq!(world.state("web").0, "enforced");
    assert!(rules(&web).contains("chain net1-in"));
    first.end();
    wait_lookers(&world, 3);

    // It answers in the end, and its pod is like any other.
    let b = world.netns("b-hangs", &["net1"]);
    for (name, mut silent) in others {
        silent.unmount();
        if name == "b-hangs" {
            places.link(&world, "b-hangs");
        }
    }
    world.wait_state("b-hangs", "enforced");
    assert!(rules(&b).contains("chain net1-in"));
    wait_lookers(&world, 1);
    first.unmount();
    world.stop();
}

#[test]
fn s228_an_agent_ends_although_a_path_hangs() {
    let places = Places::new();
    let mut world = World::new("ends");
    world.netns_path = Some(places.template());
    world.save("pods.yaml", &[pod("web", "10.20.1.10")]);
    world.save("guard.yaml", &[closing("guard", "web")]);
    let _silent = Silent::mount(places.of("web"));
    world.start();
    wait_silent(&world, "web");
    world.stop();
}
