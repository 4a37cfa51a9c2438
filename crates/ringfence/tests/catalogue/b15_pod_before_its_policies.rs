//! B15: antrea#5777, MultiNetworkPolicy for nftables (only Running pods).
//!
//! A new pod could send and be reached before its policies were in force: because engines waited for phase Running, which
//! comes after the init containers, or wrote rules only once the interface was there. Here a pod is enforced from the moment
//! its namespace exists, whatever its phase, and rules for an interface that is still to come are there before it
//! (statements 129, 168). Shown: a Pending pod is enforced, and from an interface that is attached later not one forbidden
//! packet comes or goes. That the pod's first process waits for the agent needs a hook at its creation and is not shown here.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ringfence_model::Family;
use ringfence_testkit::{Flow, Load, Outcome};

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, spec};

const DENY: &str = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}";

#[test]
fn s129_a_pending_pod_is_enforced_and_its_init_container_cannot_send() {
    let mut node = Node::empty("pending");
    node.folder
        .save("guard.yaml", &multi("shop/guard", BLUE, DENY))
        .expect("saved");
    node.start();
    node.add(vec![spec("shop/web", "app=web"), spec("shop/peer", "")]);
    let mut manifest = node.pod("shop/web").manifest().expect("a manifest");
    manifest.0["status"]["phase"] = "Pending".into();
    node.save("web.yaml", &manifest.yaml());
    node.wait_state("shop/web", "enforced");
    for family in Family::BOTH {
        for (from, to) in [("shop/web", "shop/peer"), ("shop/peer", "shop/web")] {
            let outcome = node.path(from, to, family, 80).tcp().ask().expect("a probe");
            assert_eq!(outcome, Outcome::Dropped, "{from} to {to}");
        }
    }
}

#[test]
fn s168_an_interface_that_comes_later_is_closed_from_its_first_packet() {
    let mut node = Node::empty("late-interface");
    node.add(vec![spec("shop/web", "app=web"), spec("shop/peer", "")]);
    let (web, peer) = (node.pod("shop/web").clone(), node.pod("shop/peer").clone());
    // Out of the way, as before its plugin has run; addresses and servers stay with it.
    let rename = |from: &str, to: &str| {
        let line = ["link", "set", from, "name", to];
        web.exec("ip", &["link", "set", from, "down"]).expect("down");
        web.exec("ip", &line).expect("renamed");
    };
    rename("net1", "later");
    node.save_pods();
    node.folder
        .save("guard.yaml", &multi("shop/guard", BLUE, DENY))
        .expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    assert!(
        node.rules("shop/web").contains("net1"),
        "rules for what is not there yet"
    );

    // From now on somebody outside sends all the time, and a receiver in the pod waits.
    let target = SocketAddr::new(web.address(BLUE, Family::V4).expect("an address"), 9000);
    let receiver = web
        .netns
        .run(|| UdpSocket::bind(("0.0.0.0", 9000)))
        .expect("entered")
        .expect("bound");
    receiver
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a time-out");
    let sender = peer
        .netns
        .run(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("entered")
        .expect("bound");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let flood = std::thread::spawn(move || {
        let mut sent = 0;
        while !matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)) {
            // Refused while the neighbour is unknown.
            sent += usize::from(sender.send_to(b"x", target).is_ok());
            std::thread::sleep(Duration::from_millis(1));
        }
        sent
    });
    rename("later", "net1");
    web.exec("ip", &["link", "set", "net1", "up"]).expect("up");
    // The address went with the link's going down in IPv6 only; IPv4 has it at once.
    node.eventually("the neighbour is found", || {
        let found = peer
            .exec("ip", &["neighbour", "show", &target.ip().to_string()])
            .expect("listed");
        if found.contains("REACHABLE") || found.contains("DELAY") || found.contains("STALE") || found.contains("PROBE")
        {
            Ok(())
        } else {
            Err(found)
        }
    });
    let mut buffer = [0; 16];
    assert!(
        receiver.recv(&mut buffer).is_err(),
        "a forbidden datagram came in\n{}",
        node.rules("shop/web")
    );
    let reached = web
        .netns
        .run(|| {
            UdpSocket::bind("0.0.0.0:0")
                .and_then(|it| it.send_to(b"x", (peer.address(BLUE, Family::V4).expect("an address"), 80)))
        })
        .expect("entered");
    assert!(reached.is_err(), "a forbidden datagram went out");
    drop(stop);
    assert!(flood.join().expect("it ends") > 50, "the sender did send");

    // The same traffic passes as soon as a policy allows it.
    node.delete("guard.yaml");
    let path = node.path("shop/peer", "shop/web", Family::V4, 9100);
    Flow::open(&path, Load::Upload).expect("open without a policy");
}
