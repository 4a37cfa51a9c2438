//! B12: calico#2759 and #6399, azure#488, AWS#73, #650 and #682.
//!
//! `established` was accepted before anything else, so a connection outlived every change of policy for ever. Here
//! conntrack only says who opened it, and each packet is judged (statements 105, 107). Shown: a TCP connection and a UDP
//! flow stop when the peer loses its label, when the rule is edited, when a policy that isolates is created, and when the
//! allowing policy goes while another still isolates; a flow that stays allowed through all of it never ends.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ringfence_model::Family;
use ringfence_testkit::manifest::documents;
use ringfence_testkit::{Flow, Load};

use crate::support::manifest::{BLUE, admits, multi};
use crate::support::node::{Node, PATIENCE, spec};

const QUIET: Duration = Duration::from_millis(150);

/// What narrows, doing it, and doing what makes it wide again.
type Change = (&'static str, Box<dyn Fn(&Node)>, Box<dyn Fn(&Node)>);

#[test]
fn s105_s107_each_way_of_narrowing_stops_what_it_forbids_and_nothing_else() {
    let specs = vec![
        spec("shop/web", "app=web"),
        spec("shop/friend", "role=friend"),
        spec("shop/keeper", "role=keeper"),
    ];
    let mut node = Node::new("established", specs);
    node.start();
    let tcp = Flow::open(&node.path("shop/friend", "shop/web", Family::V6, 9001), Load::Upload).expect("a flow");
    let kept = Flow::open(&node.path("shop/keeper", "shop/web", Family::V4, 9002), Load::Upload).expect("a flow");
    let udp = node.stream("shop/friend", "shop/web");
    let pods = |role: &str| {
        let pods = ["shop/web", "shop/friend", "shop/keeper"].map(|name| {
            let pod = node.pod(name).clone();
            if name == "shop/friend" {
                pod.with_label("role", role)
            } else {
                pod
            }
        });
        documents(&pods.map(|pod| pod.manifest().expect("a manifest")))
    };
    let keeper = "{podSelector: {matchLabels: {role: keeper}}}";
    let both = "[{podSelector: {matchLabels: {role: keeper}}}, {podSelector: {matchLabels: {role: friend}}}]";
    let extra = "[{podSelector: {matchLabels: {role: friend}}}]";
    let changes: Vec<Change> = vec![
        (
            "a policy is created",
            Box::new(move |node| node.save("guard.yaml", &admits("shop/guard", &format!("[{keeper}]")))),
            Box::new(move |node| node.save("guard.yaml", &admits("shop/guard", both))),
        ),
        (
            "the peer loses its label",
            Box::new({
                let text = pods("stranger");
                move |node| node.save("pods.yaml", &text)
            }),
            Box::new({
                let text = pods("friend");
                move |node| node.save("pods.yaml", &text)
            }),
        ),
        (
            "the rule is edited",
            Box::new(move |node| {
                let spec = format!(
                    "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{keeper}]}}, {{from: {extra}, ports: [{{port: 1}}]}}]}}"
                );
                node.save("guard.yaml", &multi("shop/guard", BLUE, &spec));
            }),
            Box::new(move |node| {
                node.save("more.yaml", &admits("shop/more", extra));
                node.save("guard.yaml", &admits("shop/guard", &format!("[{keeper}]")));
            }),
        ),
        (
            "the allowing policy goes, another isolates",
            Box::new(|node| node.delete("more.yaml")),
            Box::new(|node| node.delete("guard.yaml")),
        ),
    ];
    for (what, narrow, widen) in changes {
        narrow(&node);
        let moment = Instant::now();
        tcp.wait_for_silence(QUIET, PATIENCE)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        udp.wait_blocked(moment, QUIET, PATIENCE)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        kept.wait_for_more(PATIENCE)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        widen(&node);
        udp.wait_open(Instant::now(), PATIENCE)
            .unwrap_or_else(|error| panic!("after {what}: {error}"));
        tcp.wait_for_more(PATIENCE)
            .unwrap_or_else(|error| panic!("after {what}: {error}"));
    }
    assert_eq!(kept.ended(), None);
}

#[test]
fn s105_the_answering_end_alone_cannot_keep_a_flow_alive() {
    let mut node = Node::new(
        "answers",
        vec![spec("shop/web", "app=web"), spec("shop/friend", "role=friend")],
    );
    let friends = "[{podSelector: {matchLabels: {role: friend}}}]";
    node.folder
        .save("guard.yaml", &admits("shop/guard", friends))
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    for family in Family::BOTH {
        let bind = |name: &str, port: u16| {
            let pod = node.pod(name);
            let address = SocketAddr::new(pod.address(BLUE, family).expect("an address"), port);
            let socket = pod.netns.run(|| UdpSocket::bind(address)).expect("entered");
            let socket = socket.expect("bound");
            socket.set_read_timeout(Some(QUIET)).expect("a time-out");
            socket
        };
        let (web, friend) = (bind("shop/web", 9100), bind("shop/friend", 9101));
        let mut buffer = [0; 16];
        friend
            .send_to(b"ask", web.local_addr().expect("an address"))
            .expect("sent");
        let (_, asker) = web.recv_from(&mut buffer).expect("the question arrives");
        // From now on only answers are sent, as in a long download.
        let answered = |buffer: &mut [u8]| {
            // Refused by our own rule: EPERM.
            let _ = web.send_to(b"answer", asker);
            friend.recv(buffer).is_ok()
        };
        assert!(answered(&mut buffer), "{family:?}: answers pass");
        node.save(
            "guard.yaml",
            &admits("shop/guard", "[{podSelector: {matchLabels: {role: nobody}}}]"),
        );
        for _ in 0..3 {
            assert!(!answered(&mut buffer), "{family:?}: an answer of a revoked flow");
        }
        node.save("guard.yaml", &admits("shop/guard", friends));
        assert!(answered(&mut buffer), "{family:?}: allowed again");
    }
}
