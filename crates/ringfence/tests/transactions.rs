//! One change, one transaction; no change, none: counted by strace at the system call and by the agent's own metric, which
//! must agree. Needs root and strace and fails without.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{COMMITTED, World, closing, pod, pod_with};
use ringfence_testkit::manifest::{Manifest, Policy, pods};

/// Attaches strace to a process with all its threads, and returns when it is attached.
fn attach(pid: u32, file: &Path) -> Child {
    let mut tracer = Command::new("strace")
        .args([
            "--follow-forks",
            "--trace=sendmsg,sendto",
            "--string-limit=64",
            "--output",
        ])
        .arg(file)
        .args(["--attach", &pid.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace starts (package strace)");
    let mut lines = BufReader::new(tracer.stderr.take().expect("its messages")).lines();
    // One line for all threads that there are.
    let line = lines.next().expect("strace lives").expect("a line");
    assert!(line.contains("attached"), "strace: {line}");
    // The rest is of no interest, but the pipe must not fill up.
    std::thread::spawn(move || lines.for_each(drop));
    tracer
}

/// What one scenario is counted by.
struct Counted {
    world: World,
    trace: tempfile::NamedTempFile,
    expected: usize,
}

impl Counted {
    /// Every transaction begins with one message of type `NFNL_MSG_BATCH_BEGIN`, 0x10, without other contents than a
    /// generation. strace writes the number, because it cannot look up sockets of another network namespace.
    fn sent(&self) -> usize {
        let text = std::fs::read_to_string(self.trace.path()).expect("strace writes its file");
        let begins = |line: &&str| {
            ["[{nlmsg_len=20, nlmsg_type=0x10 ", "[{nlmsg_len=28, nlmsg_type=0x10 "]
                .iter()
                .any(|it| line.contains(it))
                || line.contains("[{nlmsg_len=20, nlmsg_type=NFNL_MSG_BATCH_BEGIN")
                || line.contains("[{nlmsg_len=28, nlmsg_type=NFNL_MSG_BATCH_BEGIN")
        };
        text.lines().filter(begins).count()
    }

    /// `change` has been made and is in force: this many transactions more than before it.
    #[track_caller]
    fn check(&mut self, change: &str, transactions: usize) {
        self.expected += transactions;
        let expected = self.expected;
        self.world
            .eventually(&format!("{change}: {expected} transactions"), || {
                let metric = self.world.metric(COMMITTED).unwrap_or_default();
                // Counts are small: a float holds them exactly.
                if format!("{metric}") == expected.to_string() {
                    Ok(())
                } else {
                    Err(format!("{metric}"))
                }
            });
        assert_eq!(self.sent(), expected, "{change}: sent, by strace");
    }
}

/// Admits these pods to the pods with label `app`.
fn admitting(app: &str, peers: &str) -> Manifest {
    Policy::multi("shop/guard", &["shop/net-a"])
        .select(&[("app", app)])
        .ingress(&[pods(&[("role", peers)])], &[])
        .manifest()
}

fn with_role(mut pod: Manifest, role: &str) -> Manifest {
    pod.0["metadata"]["labels"]["role"] = role.into();
    pod
}

#[test]
fn s229_s230_one_transaction_per_change_and_none_for_an_unchanged_file_saved_again() {
    let mut world = World::new("trace");
    let web = world.netns("web", &["eth0", "net1"]);
    let other = world.netns("other", &["eth0", "net1"]);
    world.save("local.yaml", &[pod("web", "10.20.0.10"), pod("other", "10.20.0.11")]);
    // Somewhere else in the cluster: a peer, never a target.
    let mut remote = with_role(
        pod_with("remote", "uid-remote", "10.20.0.99", "2026-01-01T00:00:00Z"),
        "client",
    );
    remote.0["spec"]["nodeName"] = "n2".into();
    world.save("remote.yaml", std::slice::from_ref(&remote));
    world.start();
    let committed = world.metric(COMMITTED).unwrap_or_default();
    assert!(committed == 0.0, "nothing is isolated, nothing is written: {committed}");
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let tracer = attach(world.agent().pid(), trace.path());
    let mut counted = Counted {
        world,
        trace,
        expected: 0,
    };

    counted.world.save("policy.yaml", &[admitting("web", "client")]);
    counted.world.wait_rules(&web, "10.20.0.99");
    counted.check("a policy that isolates one of two pods", 1);

    counted.world.save("policy.yaml", &[admitting("web", "client")]);
    counted
        .world
        .save("remote.yaml", &[with_role(remote.clone(), "nobody")]);
    counted.check("the policy's file saved again unchanged, then a peer that goes", 1);
    assert!(!common::rules(&web).contains("10.20.0.99"));

    counted.world.save("remote.yaml", std::slice::from_ref(&remote));
    counted.check("the peer comes back", 1);

    let mut annotated = remote.clone();
    annotated.0["metadata"]["labels"]["irrelevant"] = "yes".into();
    counted.world.save("remote.yaml", &[annotated]);
    counted.world.save("second.yaml", &[closing("second", "other")]);
    counted.world.wait_rules(&other, "net1-in");
    counted.check("a label that nobody asks for, then a policy for the other pod", 1);

    counted.world.delete("policy.yaml");
    counted.world.wait_no_rules(&web);
    counted.check("the first policy removed", 1);
    counted.world.delete("second.yaml");
    counted.world.wait_no_rules(&other);
    counted.check("the second policy removed", 1);
    // It goes when the agent goes.
    counted.world.stop();
    let status = tracer.wait_with_output().expect("strace ends").status;
    assert!(status.success(), "strace: {status}");
}
