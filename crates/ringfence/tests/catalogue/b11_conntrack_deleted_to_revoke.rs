//! B11: KNP PR#253, #259 and #268, mizar#312.
//!
//! To revoke a connection engines deleted its conntrack entry. The next packet, from whichever end, made the entry anew in
//! mid-stream, perhaps with the directions reversed, and the connection went on. Here every packet is judged by who may talk
//! to whom, and entries are left alone (statements 105, 106). Shown: uploads, downloads and both at once stop at the commit
//! and stay stopped while both ends send again; the entries of the protected pod are still there, with the opener they always
//! had; emptying conntrack at either end changes nothing; when the policy allows it again they go on where the protected
//! end still has the entries, and have to be opened anew where it has lost them.

use std::time::Duration;

use ringfence_model::Family;
use ringfence_testkit::{Flow, Load};

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, PATIENCE, spec};

const QUIET: Duration = Duration::from_millis(250);

fn policy(types: &str, role: &str) -> String {
    let peers = format!("[{{podSelector: {{matchLabels: {{role: {role}}}}}}}]");
    let spec = format!(
        "{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [{types}], ingress: [{{from: {peers}}}], egress: [{{to: {peers}}}]}}"
    );
    multi("shop/guard", BLUE, &spec)
}

/// `emptied`: at whose end conntrack is emptied.
fn check(name: &str, types: &str, emptied: &[&[&str]]) {
    let mut node = Node::new(
        name,
        vec![spec("shop/web", "app=web"), spec("shop/client", "role=friend")],
    );
    node.folder.save("guard.yaml", &policy(types, "friend")).expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let path = |family, port| node.path("shop/client", "shop/web", family, port);
    let flows = [
        Flow::open(&path(Family::V4, 9001), Load::Upload).expect("upload"),
        Flow::open(&path(Family::V4, 9002), Load::Download).expect("download"),
        Flow::open_echo(&path(Family::V6, 80)).expect("echo"),
    ];
    node.save("guard.yaml", &policy(types, "nobody"));
    for flow in &flows {
        flow.wait_for_silence(QUIET, PATIENCE).expect("it stops");
    }
    let stopped: Vec<usize> = flows.iter().map(Flow::arrived).collect();
    // Deleting them would be the trap.
    let entries = node
        .pod("shop/web")
        .exec("conntrack", &["-L", "-p", "tcp"])
        .expect("listed");
    let client = node.pod("shop/client").address(BLUE, Family::V4).expect("an address");
    for port in [9001, 9002] {
        let wanted = format!("dport={port} ");
        let line = entries
            .lines()
            .find(|line| line.contains(&wanted))
            .unwrap_or_else(|| panic!("{port} in {entries}"));
        let opener = line.split("src=").nth(1).and_then(|rest| rest.split(' ').next());
        assert_eq!(opener, Some(client.to_string().as_str()), "{line}");
    }
    for names in emptied {
        for name in *names {
            node.pod(name).exec("conntrack", &["-F"]).expect("emptied");
        }
        // Both ends send again meanwhile: 0.2 s, 0.4 s and 0.8 s after the first loss.
        std::thread::sleep(QUIET * 3);
        let now: Vec<usize> = flows.iter().map(Flow::arrived).collect();
        assert_eq!(now, stopped, "after emptying conntrack in {names:?}");
    }
    node.save("guard.yaml", &policy(types, "friend"));
    if !emptied.iter().any(|names| names.contains(&"shop/web")) {
        for flow in &flows {
            flow.wait_for_more(PATIENCE).expect("it goes on");
        }
    }
    let anew = Flow::open(&path(Family::V4, 9003), Load::Upload).expect("opened anew");
    anew.wait_for_more(PATIENCE).expect("it goes");
}

#[test]
fn s106_a_revoked_connection_stays_stopped_where_ingress_is_isolated() {
    check("revoke-in", "Ingress", &[&[], &["shop/client"]]);
    check(
        "revoke-in-gone",
        "Ingress",
        &[&["shop/web"], &["shop/web", "shop/client"]],
    );
}

#[test]
fn s106_a_revoked_connection_stays_stopped_where_both_directions_are_isolated() {
    check(
        "revoke-both",
        "Ingress, Egress",
        &[&[], &["shop/web"], &["shop/client"], &["shop/web", "shop/client"]],
    );
}
