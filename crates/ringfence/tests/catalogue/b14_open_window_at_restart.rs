//! B14: KR 061fa21c and #873, k3s#947 and #13432, AWS#189 and #271, GO-2023-1644 (cilium), kube-network-policies at
//! shutdown.
//!
//! Rules were flushed and filled again at start, restart, upgrade or stop, and what was forbidden passed in between (and
//! lived on afterwards). No step of the agent's life widens anything (statements 139, 140, 142, 226). Shown: datagrams are
//! sent all the time, in both directions, and not one forbidden arrives while the agent is killed, started, stopped, started
//! with changed policies, with its source gone, and with the tables of an older version in place.

use ringfence_model::Family;

use crate::support::manifest::{BLUE, admits, multi};
use crate::support::node::{Node, assert_shut, spec};

#[test]
fn s139_s140_nothing_forbidden_passes_at_any_step_of_the_agents_life() {
    let specs = vec![
        spec("shop/web", "app=web"),
        spec("shop/friend", "role=friend"),
        spec("shop/stranger", ""),
    ];
    let mut node = Node::new("window", specs);
    let spec = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], \
                ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}], \
                egress: [{to: [{podSelector: {matchLabels: {role: friend}}}]}]}";
    node.folder
        .save("guard.yaml", &multi("shop/guard", BLUE, spec))
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let streams = [
        node.stream("shop/stranger", "shop/web"),
        node.stream_of("shop/stranger", "shop/web", Family::V6),
        node.stream("shop/web", "shop/stranger"),
    ];
    let shut = |what: &str| streams.iter().for_each(|stream| assert_shut(stream, what));
    shut("enforced");
    let before = node.rules("shop/web");
    node.kill();
    shut("killed");
    assert_eq!(node.rules("shop/web"), before);
    node.start();
    shut("started again");
    node.stop();
    shut("stopped");
    assert_eq!(node.rules("shop/web"), before);

    // Other policies than those that are in force: one transaction to the new state.
    node.folder
        .save(
            "guard.yaml",
            &admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
        )
        .expect("saved");
    let out = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}";
    node.folder
        .save("out.yaml", &multi("shop/out", BLUE, out))
        .expect("saved");
    node.start();
    node.wait_rules("shop/web", |rules| rules.contains("192.0.2.0/24"), "the new rules");
    shut("started with other policies");

    // What an older version might have left: closed in its own way, with chains and sets that this one does not know.
    node.kill();
    let older = "table inet ringfence {\n set old-peers { type ipv4_addr; elements = { 192.0.2.77 } }\n \
                 chain old-judge { ip saddr @old-peers accept; iifname net1 drop; oifname net1 drop; }\n \
                 chain old-in { type filter hook prerouting priority -150; icmpv6 type { 135, 136 } accept; jump old-judge; }\n \
                 chain old-out { type filter hook postrouting priority 150; icmpv6 type { 135, 136 } accept; jump old-judge; }\n}\n";
    node.pod("shop/web")
        .nft(&format!("delete table inet ringfence\n{older}"))
        .expect("an older version's table");
    shut("an older version's table");
    node.start();
    node.wait_rules(
        "shop/web",
        |rules| rules.contains("net1-in") && !rules.contains("old-"),
        "this version's table",
    );
    shut("upgraded");

    // Deleted while the agent is down: lifted by the next one, for that direction only.
    node.kill();
    node.folder.delete("out.yaml").expect("deleted");
    node.start();
    node.wait_rules("shop/web", |rules| !rules.contains("192.0.2.0/24"), "egress is lifted");
    for stream in &streams[..2] {
        assert_shut(stream, "ingress is still closed");
    }
}
