//! B27: cilium#8071, #28337, #38998 and #44855.
//!
//! A policy outgrew the map that was to hold it, or its regeneration failed half way, and an empty map was left behind. A
//! ruleset is one transaction: it is in force whole, or the one before it is (statement 142). Shown: a policy with 200,000
//! blocks that do not touch loads into a real pod in one transaction, while forbidden traffic from outside the blocks is
//! refused all the time and an earlier grant goes on until the commit and after it; then the large policy goes again.

use std::fmt::Write as _;

use ringfence_testkit::Protocol::Tcp;

use crate::support::manifest::{BLUE, admits, multi};
use crate::support::node::{Node, assert_shut, spec};

/// Every other address of 12.0.0.0/8 from the start: no two of them make a range.
const BLOCKS: u32 = 200_000;

#[test]
fn s142_two_hundred_thousand_elements_load_in_one_transaction() {
    let specs = vec![
        spec("shop/web", "app=web"),
        spec("shop/friend", "role=friend"),
        spec("shop/stranger", ""),
    ];
    let mut node = Node::new("large", specs);
    let friends = "[{podSelector: {matchLabels: {role: friend}}}]";
    node.folder
        .save("guard.yaml", &admits("shop/guard", friends))
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let stream = node.stream("shop/stranger", "shop/web");
    let committed = |node: &Node| {
        node.metric("ringfence_transactions_total{result=\"committed\"}")
            .unwrap_or_default()
    };
    let before = committed(&node);

    let mut peers = String::from("[");
    for number in 0..BLOCKS {
        let address = std::net::Ipv4Addr::from_bits(0x0c00_0000 + 2 * number);
        let _ = write!(peers, "{{ipBlock: {{cidr: {address}/32}}}}, ");
    }
    peers.push(']');
    let spec = format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: {peers}}}]}}");
    node.folder
        .save("large.yaml", &multi("shop/large", BLUE, &spec))
        .expect("saved");
    // The last address of them: nothing is cut off.
    let last = std::net::Ipv4Addr::from_bits(0x0c00_0000 + 2 * (BLOCKS - 1)).to_string();
    node.eventually("the large policy is known", || {
        if node.get("/policies").contains("large") {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    node.eventually("it is in force", || {
        let status = node.json("/namespaces/shop/pods/web");
        if status["current"] == true {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    // Asked again, because a listing misses elements while the kernel still grows the set's hash table; a look-up does not.
    node.eventually("every element is listed", || {
        let rules = node.rules("shop/web");
        let count = rules
            .split([' ', '\t', '\n', ','])
            .filter(|word| word.starts_with("12."))
            .count();
        let complete = count == 200_000 && rules.contains("12.0.0.0") && rules.contains(&last);
        if complete {
            Ok(())
        } else {
            Err(format!("{count} elements"))
        }
    });
    assert_shut(&stream, "with the large policy");
    node.check(&[
        ("shop/friend", "shop/web", Tcp, 80, true),
        ("shop/stranger", "shop/web", Tcp, 80, false),
    ]);
    assert!((committed(&node) - before - 1.0).abs() < 0.5, "one transaction");

    node.delete("large.yaml");
    assert!(!node.rules("shop/web").contains(&last));
    assert_shut(&stream, "without it");
    node.check(&[
        ("shop/friend", "shop/web", Tcp, 80, true),
        ("shop/stranger", "shop/web", Tcp, 80, false),
    ]);
}
