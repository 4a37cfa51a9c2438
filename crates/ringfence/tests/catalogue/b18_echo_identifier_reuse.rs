//! B18: GHSA-c66w-hq56-4q97 (cilium).
//!
//! A closed pod had pinged somebody. A ping from there with the same identifier matched the entry of the first one as its
//! answer and was let in. An echo request opens a connection of its own in its own direction (statement 104). Shown in both
//! families: after A, which admits nobody, has pinged B and got its answer, B's ping to A with the very same identifier is
//! not answered; without the policy it is.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, sendto, socket,
};
use ringfence_model::Family;
use ringfence_testkit::Pod;

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, spec};

const IDENTIFIER: u16 = 4242;

/// A ping socket with a chosen identifier: its "port".
fn open(pod: &Pod, family: Family) -> OwnedFd {
    pod.netns
        .run(|| {
            let (domain, protocol, any): (_, _, IpAddr) = match family {
                Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp, [0, 0, 0, 0].into()),
                Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6, [0_u16; 8].into()),
            };
            let fd = socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol).expect("a ping socket");
            bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, IDENTIFIER))).expect("the identifier");
            fd
        })
        .expect("entered")
}

/// Whether one of some echo requests is answered.
fn ping(fd: &OwnedFd, to: IpAddr) -> bool {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    for sequence in 0..4 {
        let request = [kind, 0, 0, 0, 0, 0, 0, sequence, b'x'];
        sendto(
            fd.as_raw_fd(),
            &request,
            &SockaddrStorage::from(SocketAddr::new(to, 0)),
            MsgFlags::empty(),
        )
        .expect("sent");
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, 100_u8).expect("poll") > 0 {
            let mut buffer = [0; 64];
            recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
            return true;
        }
    }
    false
}

#[test]
fn s104_a_request_with_the_identifier_of_an_earlier_one_is_new() {
    let mut node = Node::new("echo-id", vec![spec("shop/a", "app=a"), spec("shop/b", "")]);
    node.start();
    let deny = "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress], ingress: []}";
    node.save("guard.yaml", &multi("shop/guard", BLUE, deny));
    for family in Family::BOTH {
        let (a, b) = (node.pod("shop/a"), node.pod("shop/b"));
        let address = |pod: &Pod| pod.address(BLUE, family).expect("an address");
        let (from_a, from_b) = (open(a, family), open(b, family));
        assert!(ping(&from_a, address(b)), "{family:?}: the closed pod may ask");
        assert!(
            !ping(&from_b, address(a)),
            "{family:?}: the same identifier the other way"
        );
        assert!(ping(&from_a, address(b)), "{family:?}: and may still ask");
        assert!(!ping(&from_b, address(a)), "{family:?}: still");
    }
    node.delete("guard.yaml");
    for family in Family::BOTH {
        let from_b = open(node.pod("shop/b"), family);
        assert!(
            ping(&from_b, node.pod("shop/a").address(BLUE, family).expect("an address")),
            "{family:?}: open"
        );
    }
}
