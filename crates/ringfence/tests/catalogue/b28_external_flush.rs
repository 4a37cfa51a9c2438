//! B28: calico#10872, firewalld#863, rke2#10469, k0s#2908.
//!
//! Somebody ran `nft flush ruleset`, and enforcement was gone without a word. Where the kernel has table owners (6.9) the
//! flush passes our tables by; otherwise the agent puts them back and counts it (statement 141). Shown on this kernel for a
//! running agent: the flush succeeds for others' tables and the pod is (or is soon again) closed; and for every kernel, with
//! the agent down: after a flush the next agent makes the tables anew.

use crate::support::manifest::admits;
use crate::support::node::{Node, assert_shut, spec};
use ringfence_testkit::Protocol::Tcp;

#[test]
fn s141_a_flush_does_not_end_enforcement() {
    let mut node = Node::new("flush", vec![spec("shop/web", "app=web"), spec("shop/stranger", "")]);
    node.folder
        .save(
            "guard.yaml",
            &admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
        )
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let expected = node.rules("shop/web");
    let blocked = [("shop/stranger", "shop/web", Tcp, 80, false)];
    node.check(&blocked);
    let flush = |node: &Node| {
        let web = node.pod("shop/web");
        web.nft("table inet foreign {\n chain c {\n }\n}\n")
            .expect("a foreign table");
        // Tables of another owner make it fail in part on some kernels; what counts is what is left.
        let _ = web.exec("nft", &["flush", "ruleset"]);
    };
    for _ in 0..3 {
        flush(&node);
        node.wait_rules("shop/web", |rules| rules.contains(expected.trim()), "our rules");
        node.check(&blocked);
    }
    node.kill();
    flush(&node);
    node.start();
    node.wait_rules("shop/web", |rules| rules.contains(expected.trim()), "our rules");
    node.check(&blocked);
    let stream = node.stream("shop/stranger", "shop/web");
    assert_shut(&stream, "at the end");
}
