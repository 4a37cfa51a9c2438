//! Statement 125: a datagram in pieces is judged as a whole.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use ringfence_model::Family;
use ringfence_testkit::TIMEOUT;
use ringfence_testkit::packet::Ip;

use super::packets::Cases;
use super::world::{BLUE, FRIEND, PATIENCE, SERVER, STRANGER, World, friend, guard, tcp, udp};

const UDP: u8 = 17;
const TCP: u8 = 6;

/// Asks with a datagram that is larger than the MTU. Whether it is answered; an answer that shall come may take its time.
fn large(world: &World, (from, to): (&str, &str), family: Family, port: u16, passes: bool) -> bool {
    let source = SocketAddr::new(world.address(from, BLUE, family), 0);
    let target = SocketAddr::new(world.address(to, BLUE, family), port);
    let socket = world
        .pod(from)
        .netns
        .run(|| UdpSocket::bind(source))
        .expect("entered")
        .expect("bound");
    socket
        .set_read_timeout(Some(if passes { PATIENCE } else { TIMEOUT }))
        .expect("set");
    // A refusal of the own pod's (EPERM) is a drop.
    let _ = socket.send_to(&[7; 4000], target);
    // The answer has the first 2048 bytes and a greeting: it is in pieces too.
    let mut buffer = [0; 4096];
    socket.recv(&mut buffer).is_ok_and(|length| length > 2048)
}

#[test]
fn s125_datagrams_larger_than_the_mtu_are_judged_as_others() {
    let mut world = World::usual("large");
    world.policies(&[guard().ingress(&[friend()], &[udp(80)]).egress(&[friend()], &[udp(81)])]);
    for family in Family::BOTH {
        for (ends, port, passes) in [
            ((FRIEND, SERVER), 80, true),
            ((FRIEND, SERVER), 81, false),
            ((STRANGER, SERVER), 80, false),
            ((SERVER, FRIEND), 81, true),
            ((SERVER, FRIEND), 80, false),
            ((SERVER, STRANGER), 81, false),
        ] {
            assert_eq!(
                large(&world, ends, family, port, passes),
                passes,
                "{ends:?} {port} {family:?}\n{}",
                world.rules()
            );
        }
    }
}

/// Pieces in every order and shape; `good` is a port that is allowed and `bad` one that is not, for TCP and for UDP.
fn pieces(cases: &mut Cases, ends: (IpAddr, IpAddr), good: u16, bad: u16) {
    let segment = |ip: &Ip, port| ip.udp_segment(4000, port, &[7; 40]);
    cases.case("two pieces", ends, true, |ip| {
        ip.in_two(UDP, &segment(&ip, good), 24).to_vec()
    });
    cases.case("two pieces, the second one first", ends, true, |ip| {
        let [first, second] = ip.in_two(UDP, &segment(&ip, good), 24);
        vec![second, first]
    });
    cases.case("the first has the ports only", ends, true, |ip| {
        ip.in_two(UDP, &segment(&ip, good), 8).to_vec()
    });
    cases.case("a denied port in two pieces", ends, false, |ip| {
        ip.in_two(UDP, &segment(&ip, bad), 24).to_vec()
    });
    cases.case("a denied port, the second one first", ends, false, |ip| {
        let [first, second] = ip.in_two(UDP, &segment(&ip, bad), 8);
        vec![second, first]
    });
    cases.case("a first piece alone", ends, false, |ip| {
        vec![ip.fragment(UDP, 0, true, &segment(&ip, good)[..24])]
    });
    cases.case("a last piece alone", ends, false, |ip| {
        vec![ip.fragment(UDP, 24, false, &segment(&ip, good)[24..])]
    });
    // It looks like an allowed datagram to those who look at offset 0 of any piece.
    cases.case("a later piece like a header", ends, false, |ip| {
        vec![ip.fragment(UDP, 8, false, &segment(&ip, good))]
    });
    cases.case("an allowed header overwritten", ends, false, |ip| {
        let (allowed, denied) = (segment(&ip, good), segment(&ip, bad));
        vec![
            ip.fragment(UDP, 0, true, &allowed[..24]),
            ip.fragment(UDP, 0, true, &denied[..16]),
            ip.fragment(UDP, 16, false, &denied[16..]),
        ]
    });
    cases.case("pieces that overlap in the middle", ends, false, |ip| {
        let whole = segment(&ip, good);
        vec![
            ip.fragment(UDP, 0, true, &whole[..32]),
            ip.fragment(UDP, 24, false, &whole[24..]),
        ]
    });
    // Over IPv6 the first piece must have the whole header (RFC 7112); the kernel drops it otherwise.
    let v4 = ends.0.is_ipv4();
    for (name, port, passes) in [
        ("TCP's flags in the second piece", good, v4),
        ("the same to a denied port", bad, false),
    ] {
        cases.case(name, ends, passes, |ip| {
            let header = if v4 { 20 } else { 40 };
            ip.in_two(TCP, &ip.tcp(4001, port, 2)[header..], 8).to_vec()
        });
    }
}

#[test]
fn s125_pieces_never_pass_alone_and_never_hide_a_port() {
    let mut world = World::usual("pieces");
    world.policies(&[guard()
        .ingress(&[friend()], &[udp(80), tcp(80)])
        .egress(&[friend()], &[udp(80), tcp(80)])]);
    for family in Family::BOTH {
        let (server, peer) = (world.address(SERVER, BLUE, family), world.address(FRIEND, BLUE, family));
        let mut cases = Cases::default();
        pieces(&mut cases, (peer, server), 80, 81);
        cases.arrive(&world, &format!("in, {family:?}"), (FRIEND, "net1"), (SERVER, "net1"));
        let mut cases = Cases::default();
        pieces(&mut cases, (server, peer), 80, 81);
        cases.leave(&world, &format!("out, {family:?}"), (SERVER, "net1"), (FRIEND, "net1"));
        // From a packet socket no piece leaves, whatever it is.
        let mut cases = Cases::default();
        cases.case("two pieces of a packet socket", (server, peer), false, |ip| {
            ip.in_two(UDP, &ip.udp_segment(4000, 80, &[7; 40]), 24).to_vec()
        });
        cases.leave_raw(&world, &format!("raw, {family:?}"), (SERVER, "net1"), (FRIEND, "net1"));
    }
}
