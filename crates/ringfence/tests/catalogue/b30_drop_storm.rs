//! B30: antrea#5061.
//!
//! Every denied packet was logged through the same queue that programmed the datapath, and a storm of them starved it. Here
//! drops are counted by the kernel and read when metrics are asked for (statement 233: no line per packet). Shown: while four
//! streams send forbidden datagrams, allowed traffic passes, policy changes and metrics get through, the drops are counted,
//! and the log does not grow with them.

use std::time::Duration;

use ringfence_model::Family;
use ringfence_testkit::Protocol::{Tcp, Udp};
use ringfence_testkit::Stream;

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, spec};

#[test]
fn s233_a_storm_of_drops_starves_nothing() {
    let specs = vec![
        spec("shop/web", "app=web"),
        spec("shop/friend", "role=friend"),
        spec("shop/stranger", ""),
    ];
    let mut node = Node::new("storm", specs);
    let guard = |port: u16| {
        let spec = format!(
            "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{role: friend}}}}}}], \
             ports: [{{port: {port}}}, {{protocol: UDP, port: {port}}}]}}]}}"
        );
        multi("shop/guard", BLUE, &spec)
    };
    node.folder.save("guard.yaml", &guard(80)).expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let lines = node.agent().log().lines().count();
    let streams: Vec<Stream> = (0..4)
        .map(|number| {
            let path = node.path("shop/stranger", "shop/web", Family::V4, 9000 + number);
            Stream::start(&path, Duration::from_micros(200)).expect("a stream")
        })
        .collect();
    let series =
        "ringfence_dropped_packets_total{direction=\"ingress\",namespace=\"shop\",network=\"shop/blue\",pod=\"web\"}";
    let mut changes = 0;
    // So long until the storm was one.
    while node.metric(series).unwrap_or_default() < 5000.0 || changes < 6 {
        let port = if changes % 2 == 0 { 81 } else { 80 };
        node.save("guard.yaml", &guard(port));
        for protocol in [Tcp, Udp] {
            let open = node.path("shop/friend", "shop/web", Family::V4, port).probe(protocol);
            node.eventually("allowed traffic passes", || match open.ask() {
                Ok(ringfence_testkit::Outcome::Reached) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        changes += 1;
        assert!(changes < 1000, "the drops are not counted");
    }
    for stream in &streams {
        let (sent, arrived) = stream.counts();
        assert!(sent > 100 && arrived == 0, "{arrived} of {sent}");
    }
    drop(streams);
    let grown = node.agent().log().lines().count() - lines;
    // Some lines a change at most, and thousands of drops.
    assert!(
        grown <= changes * 10,
        "{grown} lines for {changes} changes:\n{}",
        node.agent().log()
    );
}
