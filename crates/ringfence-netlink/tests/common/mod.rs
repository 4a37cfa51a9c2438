//! What the tests against the kernel share: scratch namespaces, the `nft` program, rulesets.
#![allow(dead_code, reason = "every test file uses a part")]

pub mod vocabulary;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ringfence_netlink::{Enforcer, Error};
use ringfence_ruleset::{KernelFeatures, Ruleset};

/// Runs in a new network namespace of its own, which is gone afterwards. Programs that it starts are in it too.
///
/// Fails without root: a test that was not run must not look like one that passed.
pub fn scratch<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no pointers; it concerns the calling thread only, which ends with the closure.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(
                result,
                0,
                "these tests need root (CAP_SYS_ADMIN, CAP_NET_ADMIN): {}",
                std::io::Error::last_os_error()
            );
            run()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

/// Runs a program that must succeed, and gives what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Runs `nft`, which must succeed.
pub fn nft(arguments: &[&str]) -> String {
    run("nft", arguments)
}

/// Runs `nft`, which must fail, and gives its complaint.
pub fn nft_fails(arguments: &[&str]) -> String {
    let output = output("nft", arguments);
    assert!(!output.status.success(), "nft {arguments:?} succeeded");
    String::from_utf8(output.stderr).expect("text")
}

/// Loads a text with `nft -f`.
pub fn nft_load(text: &str) {
    use std::io::Write as _;
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("nft");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("to write");
    let output = child.wait_with_output().expect("nft");
    assert!(
        output.status.success(),
        "nft -f: {}\n{text}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What `nft` lists, in the form in which rulesets print themselves.
pub fn listing() -> String {
    ringfence_ruleset::text::normalise(&nft(&["-s", "list", "ruleset"]))
}

/// The bytecode of all rules in the kernel as `nft` shows it, without the rules' handles.
pub fn bytecode() -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in nft(&["--debug=netlink", "list", "ruleset"]).lines() {
        let head = ["inet ringfence ", "netdev ringfence "]
            .iter()
            .find(|head| line.starts_with(**head) && !line.contains('@'));
        if let Some(head) = head {
            let chain = line[head.len()..].split(' ').next().unwrap_or_default();
            lines.push(format!("{head}{chain}"));
        } else if line.trim_start().starts_with('[') {
            lines.push(line.trim().to_owned());
        }
    }
    lines
}

/// A veth pair `net1` and `peer1`, up.
pub fn make_net1() {
    run("ip", &["link", "add", "net1", "type", "veth", "peer", "name", "peer1"]);
    run("ip", &["link", "set", "net1", "up"]);
    run("ip", &["link", "set", "peer1", "up"]);
}

/// Opens an Enforcer where an earlier one has just been dropped.
///
/// The kernel lets the tables go when the last copy of the descriptor closes, and a program that another test's thread
/// is just starting holds copies of all of them until it runs. So a living owner is believed only after a while.
pub fn reopen() -> Enforcer {
    let start = Instant::now();
    loop {
        match Enforcer::open(KernelFeatures::ALL) {
            Err(Error::Owned { .. }) if start.elapsed() < Duration::from_secs(30) => std::thread::yield_now(),
            result => return result.expect("to open"),
        }
    }
}

/// Asserts that the kernel holds exactly this, by nft's own listing.
#[track_caller]
pub fn assert_listed(wanted: Option<&Ruleset>) {
    let expected = wanted.map(ToString::to_string).unwrap_or_default();
    assert_eq!(listing(), expected);
}
