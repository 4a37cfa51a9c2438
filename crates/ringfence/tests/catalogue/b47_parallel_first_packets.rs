//! B47: kube-network-policies, netfilter bug 1766.
//!
//! The first two packets of one flow went to user space at the same time; the second made a clash in conntrack and was lost,
//! or got through unjudged. There is no queue here, and each packet is judged by itself. Shown: two threads send the first
//! two datagrams of one flow at the same moment, for several hundred flows. All allowed ones arrive, no denied one does.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use ringfence_model::Family;

use crate::support::manifest::{BLUE, admits};
use crate::support::node::{Node, PATIENCE, spec};

const FLOWS: usize = 300;

#[test]
fn s142_two_first_packets_at_once_are_both_judged_and_none_is_lost() {
    let mut node = Node::new(
        "parallel",
        vec![
            spec("shop/web", "app=web"),
            spec("shop/friend", "role=friend"),
            spec("shop/stranger", ""),
        ],
    );
    node.folder
        .save(
            "guard.yaml",
            &admits("shop/guard", "[{podSelector: {matchLabels: {role: friend}}}]"),
        )
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    for family in Family::BOTH {
        let target = SocketAddr::new(node.pod("shop/web").address(BLUE, family).expect("an address"), 9000);
        let receiver = node
            .pod("shop/web")
            .netns
            .run(|| UdpSocket::bind(target))
            .expect("entered")
            .expect("bound");
        receiver.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut buffer = [0; 16];
        for flow in 0..FLOWS {
            for name in ["shop/stranger", "shop/friend"] {
                let pod = node.pod(name);
                let source = SocketAddr::new(pod.address(BLUE, family).expect("an address"), 0);
                let socket = pod
                    .netns
                    .run(|| UdpSocket::bind(source))
                    .expect("entered")
                    .expect("bound");
                socket.connect(target).expect("connected");
                let mark = if name == "shop/friend" { b"allowed" } else { b"refused" };
                let socket = Arc::new(socket);
                let start = Arc::new(Barrier::new(2));
                let threads = [0, 1].map(|_| {
                    let (socket, start) = (socket.clone(), start.clone());
                    std::thread::spawn(move || {
                        start.wait();
                        socket.send(mark).expect("sent");
                    })
                });
                for thread in threads {
                    thread.join().expect("it ends");
                }
            }
            for packet in 0..2 {
                let length = receiver
                    .recv(&mut buffer)
                    .unwrap_or_else(|error| panic!("{family:?}, flow {flow}: packet {packet} is lost: {error}"));
                assert_eq!(&buffer[..length], b"allowed", "{family:?}, flow {flow}");
            }
        }
        receiver
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a time-out");
        assert!(receiver.recv(&mut buffer).is_err(), "nothing is left over");
    }
}
