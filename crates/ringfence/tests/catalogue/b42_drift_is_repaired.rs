//! B42: KR#2059, calico's work on drift.
//!
//! A rule that somebody had deleted in the kernel was never put back, because only changes of policy led to writes. The agent
//! compares with the kernel when it starts and at every resync (statements 141, 227). Shown: while no agent runs, somebody
//! deletes the rule that drops, adds an element of his own, adds a rule that accepts, or deletes a set's element; the next
//! agent restores the rules exactly. (While it runs, the kernel lets nobody edit the table: the edit is refused, or repaired
//! where the kernel has no table owners.)

use crate::support::manifest::{admits, file};
use crate::support::node::{Node, spec};
use ringfence_testkit::Protocol::Tcp;

#[test]
fn s141_s227_what_somebody_edits_is_put_back() {
    let mut node = Node::new(
        "drift",
        vec![
            spec("shop/web", "app=web"),
            spec("shop/friend", "role=friend"),
            spec("shop/stranger", ""),
        ],
    );
    let policies = file(&[admits(
        "shop/guard",
        "[{podSelector: {matchLabels: {role: friend}}}, {ipBlock: {cidr: 192.0.2.0/24}}]",
    )]);
    node.folder.save("guard.yaml", &policies).expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let expected = node.rules("shop/web");
    let friend = node.pod("shop/friend").on("shop/blue").expect("net1").addresses[0].to_string();
    let stranger = node.pod("shop/stranger").on("shop/blue").expect("net1").addresses[0].to_string();
    // The set that holds the friend.
    let listing = node.rules("shop/web");
    let set = listing
        .split("\tset ")
        .find(|part| part.contains(&friend))
        .and_then(|part| part.split_whitespace().next())
        .unwrap_or_else(|| panic!("a set with {friend} in\n{listing}"))
        .to_owned();
    let edits = [
        "flush chain inet ringfence net1-in".to_owned(),
        "insert rule inet ringfence net1-in accept".to_owned(),
        format!("add element inet ringfence {set} {{ {stranger} }}"),
        format!("delete element inet ringfence {set} {{ {friend} }}"),
        "delete table netdev ringfence".to_owned(),
    ];
    let mut done = 0;
    for edit in &edits {
        // Running: refused by the kernel, or repaired.
        let _ = node.pod("shop/web").nft(edit);
        node.wait_rules("shop/web", |rules| rules == expected, &format!("repaired after {edit}"));
        node.kill();
        if node.pod("shop/web").nft(edit).is_ok() {
            done += 1;
            assert_ne!(node.rules("shop/web"), expected, "{edit}");
        }
        node.start();
        node.wait_rules("shop/web", |rules| rules == expected, &format!("restored after {edit}"));
        node.check(&[("shop/friend", "shop/web", Tcp, 81, true)]);
    }
    // The last one only where egress is isolated, which makes that table.
    assert!(done >= 4, "{done} of the edits could be made");
}
