//! B44: cilium#5290.
//!
//! During an upgrade the new agent enforced what it had read so far, before all policies were known. Nothing is written
//! before the source has delivered everything once (statements 139, 140; invariant 5). Shown: an agent that starts while its
//! source is not there writes nothing and leaves the pod closed, however often it is started; when the source is there
//! again the policies are enforced; and a policy file that cannot be read any more keeps what it said.

use std::process::Command;

use crate::support::manifest::admits;
use crate::support::node::{Node, assert_shut, spec};

#[test]
fn s139_s140_an_agent_that_knows_only_a_part_opens_nothing() {
    let mut node = Node::new("partial", vec![spec("shop/web", "app=web"), spec("shop/stranger", "")]);
    let policy = admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]");
    node.folder.save("guard.yaml", &policy).expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let stream = node.stream("shop/stranger", "shop/web");
    let expected = node.rules("shop/web");
    assert_shut(&stream, "at first");

    // The folder is away (a mount that comes late).
    node.kill();
    let (folder, away) = (node.folder.path().to_owned(), node.folder.path().with_extension("away"));
    std::fs::rename(&folder, &away).expect("moved away");
    for _ in 0..2 {
        let ended = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(node.command_line())
            .output()
            .expect("it runs");
        assert_eq!(
            ended.status.code(),
            Some(2),
            "it says so and ends: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
        assert_shut(&stream, "the source is not there");
        assert_eq!(node.rules("shop/web"), expected);
    }
    std::fs::rename(&away, &folder).expect("moved back");
    node.start();
    assert_shut(&stream, "the source is there again");
    node.save("guard.yaml", &policy.replace("role: friend", "role: other"));
    assert_shut(&stream, "and is followed");
}

#[test]
fn s139_a_policy_file_that_cannot_be_read_any_more_keeps_what_it_said() {
    let mut node = Node::new("half", vec![spec("shop/web", "app=web"), spec("shop/stranger", "")]);
    let policy = admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]");
    node.folder.save("guard.yaml", &policy).expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let stream = node.stream("shop/stranger", "shop/web");
    let expected = node.rules("shop/web");
    let half = format!("{}: [\n", &policy[..policy.len() / 2]);
    node.save("guard.yaml", &half);
    assert!(
        node.agent().log().contains("guard.yaml"),
        "it is reported: {}",
        node.agent().log()
    );
    assert_shut(&stream, "the policy cannot be read");
    assert_eq!(node.rules("shop/web"), expected);
    node.save("guard.yaml", &policy);
    assert_shut(&stream, "it can be read again");
    assert_eq!(node.rules("shop/web"), expected);
}
