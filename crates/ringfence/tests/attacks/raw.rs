//! With CAP_NET_RAW, which is in the default set of the usual runtimes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::sys::socket::{setsockopt, sockopt};
use ringfence_model::InterfaceName;
use ringfence_netns::{Hold, TransmitGuard};
use ringfence_testkit::frame::Frame;
use ringfence_testkit::packet::Ip;
use ringfence_testkit::{RawSender, StackSender};

use crate::world::{ALLOWED, FORBIDDEN, MARK, World};

const UDP: u8 = 17;

fn frames(world: &World, source_is_own: bool, port: u16) -> Vec<Vec<u8>> {
    world
        .ends()
        .into_iter()
        .flat_map(|(own, victim)| {
            let source = if source_is_own { own } else { world.nobody(own) };
            let frame = Frame {
                source_mac: world.mac(&world.attacker),
                target_mac: world.mac(&world.victim),
                source: SocketAddr::new(source, 1024),
                target: SocketAddr::new(victim, port),
            };
            let tagged = |kind: [u8; 2]| {
                let mut bytes = frame.udp(MARK);
                drop(bytes.splice(12..12, [kind[0], kind[1], 0, 7]));
                bytes
            };
            [frame.udp(MARK), tagged([0x81, 0x00]), tagged([0x88, 0xa8])]
        })
        .collect()
}

#[test]
fn closed_packet_sockets() {
    let world = World::new("packet");
    world.closed("AF_PACKET, to a forbidden port and with a forged source", || {
        for bypass in [false, true] {
            let sender = RawSender::open(&world.attacker, "net1").expect("a socket");
            let sender = if bypass {
                sender.bypass_queue().expect("set")
            } else {
                sender
            };
            for frame in [
                frames(&world, true, FORBIDDEN),
                frames(&world, false, ALLOWED),
                frames(&world, true, ALLOWED),
            ]
            .concat()
            {
                sender.send(&frame).expect("handed over");
            }
        }
    });
}

#[test]
fn closed_af_xdp_sockets() {
    let world = World::new("xdp");
    let net1 = InterfaceName::new("net1").expect("a name");
    world.eventually("the agent holds the queues", || {
        let guard = world
            .attacker
            .netns
            .run(|| TransmitGuard::take(&net1))
            .expect("entered");
        let found = guard.expect("asked").hold().clone();
        match found {
            Hold::Taken(queues) if queues.contains(&0) => Ok(()),
            Hold::Needless => Ok(()),
            other => {
                let other = format!("{other:?}");
                // What this attempt had is given back a moment later, and must not be taken for the agent's.
                std::thread::sleep(std::time::Duration::from_millis(500));
                Err(other)
            }
        }
    });
    // Where egress is open there is nothing to walk around.
    let net2 = InterfaceName::new("net2").expect("a name");
    let guard = world
        .attacker
        .netns
        .run(|| TransmitGuard::take(&net2))
        .expect("entered");
    assert!(!matches!(guard.expect("asked").hold(), Hold::Taken(_)));
    world.closed("afterwards", || world.send_forbidden("net1"));
}

#[test]
fn closed_raw_sockets_with_forged_sources() {
    let world = World::new("forged");
    let sender = StackSender::open(&world.attacker, "net1").expect("raw sockets");
    world.closed("IP_HDRINCL", || {
        for (own, victim) in world.ends() {
            let friend = world
                .friend
                .address(crate::world::BLUE, ringfence_model::Family::of(own))
                .expect("one");
            for (source, port) in [
                (world.nobody(own), ALLOWED),
                (friend, ALLOWED),
                (victim, ALLOWED),
                (own, FORBIDDEN),
            ] {
                let _ = sender.send(&Ip::new(source, victim, 7).udp(1024, port, MARK), victim);
            }
        }
    });
}

#[test]
fn closed_forged_marks() {
    let world = World::new("marks");
    world.closed("SO_MARK", || {
        for (_, victim) in world.ends() {
            for bit in 0..32 {
                let socket = world.socket(&world.attacker, "net1", victim);
                setsockopt(&socket, sockopt::Mark, &(1_u32 << bit)).expect("set");
                let _ = socket.send_to(MARK, SocketAddr::new(victim, FORBIDDEN));
            }
        }
    });
}

#[test]
fn closed_fragments() {
    let world = World::new("fragments");
    let sender = StackSender::open(&world.attacker, "net1").expect("raw sockets");
    let raw = RawSender::open(&world.attacker, "net1").expect("a socket");
    world.closed("datagrams to a forbidden port in pieces", || {
        for (mark, (own, victim)) in (20_u16..).step_by(10).zip(world.ends()) {
            let payload = [MARK, &[0; 55][..]].concat();
            // The smallest first piece holds the ports and nothing else.
            for (more, first) in [8, 16, 48].into_iter().enumerate() {
                let ip = Ip::new(own, victim, mark + u16::try_from(more).expect("small"));
                let segment = ip.udp_segment(1024, FORBIDDEN, &payload);
                for piece in ip.in_two(UDP, &segment, first) {
                    let _ = sender.send(&piece, victim);
                    let frame = ringfence_testkit::packet::ethernet(
                        world.mac(&world.attacker),
                        world.mac(&world.victim),
                        &piece,
                    );
                    raw.send(&frame).expect("handed over");
                }
            }
            // A piece that writes the forbidden port over the allowed one, and pieces without a first one.
            let ip = Ip::new(own, victim, mark + 5);
            let (good, bad) = (
                ip.udp_segment(1024, ALLOWED, &payload),
                ip.udp_segment(1024, FORBIDDEN, &payload),
            );
            for piece in [
                ip.fragment(UDP, 0, true, &good[..16]),
                ip.fragment(UDP, 0, true, &bad[..16]),
                ip.fragment(UDP, 8, true, &bad[8..24]),
                ip.fragment(UDP, 16, false, &bad[16..]),
            ] {
                let _ = sender.send(&piece, victim);
            }
            let ip = Ip::new(own, victim, mark + 6);
            let _ = sender.send(&ip.fragment(UDP, 64, true, &payload[..16]), victim);
        }
    });
}

/// IPv6 headers between the first one and UDP: hop-by-hop options, destination options, routing of types 0, 2 and 4,
/// each with eight more bytes where needed, and the number of what follows.
fn extended(ip: &Ip, via: IpAddr, port: u16) -> Vec<Vec<u8>> {
    let segment = ip.udp_segment(1024, port, MARK);
    let address = match via {
        IpAddr::V6(via) => via.octets().to_vec(),
        IpAddr::V4(_) => Vec::new(),
    };
    let options = |_: u8| vec![UDP, 0, 1, 4, 0, 0, 0, 0];
    let routing = |kind: u8, left: u8| [&[UDP, 2, kind, left, 0, 0, 0, 0][..], &address].concat();
    [
        (0, options(0)),
        (60, options(0)),
        (43, routing(0, 1)),
        (43, routing(2, 1)),
        (43, routing(4, 0)),
        (60, [&[60, 0, 1, 4, 0, 0, 0, 0][..], &options(0)].concat()),
    ]
    .into_iter()
    .map(|(first, headers)| ip.packet(first, &[headers, segment.clone()].concat()))
    .collect()
}

#[test]
fn closed_extension_headers() {
    let world = World::new("extensions");
    let sender = StackSender::open(&world.attacker, "net1").expect("raw sockets");
    let [_, (own, victim)] = world.ends();
    world.closed("IPv6 headers in front of UDP", || {
        for (source, port) in [(own, FORBIDDEN), (world.nobody(own), ALLOWED)] {
            for packet in extended(&Ip::new(source, victim, 9), victim, port) {
                let _ = sender.send(&packet, victim);
            }
        }
    });
}

#[test]
fn closed_source_routing() {
    let world = World::new("routing");
    let sender = StackSender::open(&world.attacker, "net1").expect("raw sockets");
    let friend = |family| world.friend.address(crate::world::BLUE, family).expect("one");
    world.closed("to the victim by way of the friend", || {
        let [(own4, victim4), (own6, victim6)] = world.ends();
        let via = friend(ringfence_model::Family::V6);
        for packet in extended(&Ip::new(own6, via, 9), victim6, ALLOWED) {
            let _ = sender.send(&packet, via);
        }
        let via = friend(ringfence_model::Family::V4);
        let mut packet = Ip::new(own4, via, 9).udp(1024, ALLOWED, MARK);
        let IpAddr::V4(last) = victim4 else { panic!("IPv4") };
        // Loose source route, one hop: type, length, pointer, the address, end of options.
        let option = [&[131, 7, 4][..], &Ipv4Addr::octets(&last)[..], &[0][..]].concat();
        drop(packet.splice(20..20, option));
        packet[0] = 0x47;
        let _ = sender.send(&packet, via);
    });
}

#[test]
fn closed_tunnels_by_hand() {
    let world = World::new("tunnels");
    let sender = StackSender::open(&world.attacker, "net1").expect("raw sockets");
    world.closed("protocols that carry packets", || {
        for (own, victim) in world.ends() {
            let outer = Ip::new(own, victim, 9);
            let inner = Ip::new(world.nobody(own), victim, 10).udp(1024, FORBIDDEN, MARK);
            // IP in IP of both versions, GRE, ESP, SCTP, UDP-Lite.
            for protocol in [4, 41, 47, 50, 132, 136] {
                let _ = sender.send(&outer.packet(protocol, &inner), victim);
            }
            // VXLAN: judged by its own port.
            let wrapped = [&[8, 0, 0, 0, 0, 0, 7, 0][..], &inner].concat();
            let _ = sender.send(&outer.udp(1024, 4789, &wrapped), victim);
        }
    });
}
