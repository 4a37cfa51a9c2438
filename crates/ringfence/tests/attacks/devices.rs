//! With CAP_NET_ADMIN: interfaces on top of, beside and in the place of the protected one.

use std::net::SocketAddr;

use ringfence_testkit::frame::Frame;
use ringfence_testkit::{NamedNetns, RawSender};

use crate::world::{FORBIDDEN, MARK, World};

fn forbidden_frames(world: &World) -> Vec<Vec<u8>> {
    world
        .ends()
        .map(|(own, victim)| {
            let frame = Frame {
                source_mac: world.mac(&world.attacker),
                target_mac: world.mac(&world.victim),
                source: SocketAddr::new(own, 1024),
                target: SocketAddr::new(victim, FORBIDDEN),
            };
            frame.udp(MARK)
        })
        .into()
}

/// Sends through a new interface in every way that CAP_NET_RAW knows.
fn send_by(world: &World, interface: &str) {
    let sender = RawSender::open(&world.attacker, interface).expect("a packet socket");
    for frame in forbidden_frames(world) {
        sender.send(&frame).expect("handed over");
    }
    world.send_forbidden(interface);
}

#[test]
fn closed_new_interfaces() {
    let world = World::new("new");
    let [(own, victim), (_, victim6)] = world.ends();
    for (interface, commands) in [
        (
            "mv0",
            vec!["link add mv0 link net1 type macvlan mode bridge".to_owned()],
        ),
        ("mvp", vec!["link add mvp link net1 type macvlan mode vepa".to_owned()]),
        (
            "vx0",
            vec![format!(
                "link add vx0 type vxlan id 7 remote {victim} dstport 4789 dev net1"
            )],
        ),
        (
            "va0",
            vec![
                "link add va0 type veth peer name vb0".to_owned(),
                "link set vb0 up".to_owned(),
            ],
        ),
        ("tun0", vec!["tuntap add dev tun0 mode tap".to_owned()]),
    ] {
        world.closed(interface, || {
            for command in &commands {
                world.ip(&world.attacker, command);
            }
            world.ip(&world.attacker, &format!("link set {interface} up"));
            world.ip(
                &world.attacker,
                &format!("address add {own}/24 dev {interface} noprefixroute"),
            );
            world.ip(
                &world.attacker,
                &format!("route add {victim}/32 dev {interface} table 9"),
            );
            world.ip(
                &world.attacker,
                &format!("-6 route add {victim6}/128 dev {interface} table 9"),
            );
            if interface != "tun0" {
                send_by(&world, interface);
            }
            world.send_forbidden(interface);
        });
        world.ip(&world.attacker, &format!("link del {interface}"));
    }
}

/// The interface becomes a port of a bridge: what the bridge sends goes through the hook of the interface itself.
#[test]
fn closed_bridge_over_the_interface() {
    let world = World::new("bridge");
    world.closed_altogether("a bridge", || {
        for command in [
            "link add br0 type bridge",
            "link set br0 up",
            "link set net1 master br0",
        ] {
            world.ip(&world.attacker, command);
        }
        let (own, _) = world.ends()[0];
        world.ip(&world.attacker, &format!("address add {own}/24 dev br0"));
        send_by(&world, "br0");
        send_by(&world, "net1");
    });
}

#[test]
fn closed_renamed_interface() {
    let world = World::new("renamed");
    world.closed_altogether("another name", || {
        for command in ["link set net1 down", "link set net1 name free0", "link set free0 up"] {
            world.ip(&world.attacker, command);
        }
        // Since 6.16 the chain for raw frames stays with the name. The agent hears of the new one and makes another.
        world.eventually("the new name is closed for raw frames too", || {
            let rules = world.rules();
            if rules.contains("free0-backstop") {
                Ok(())
            } else {
                Err(rules)
            }
        });
        send_by(&world, "free0");
    });
    world.closed_altogether("and its old name again", || {
        for command in ["link set free0 down", "link set free0 name net1", "link set net1 up"] {
            world.ip(&world.attacker, command);
        }
        world.send_forbidden("net1");
    });
}

/// A second network that nothing isolates gives its name to the interface of the first.
#[test]
fn open_swapped_names() {
    let world = World::new("swapped");
    for command in [
        "link set net1 down",
        "link set net2 down",
        "link set net1 name tmp",
        "link set net2 name net1",
        "link set tmp name net2",
        "link set net1 up",
        "link set net2 up",
    ] {
        world.ip(&world.attacker, command);
    }
    let [(own, victim), _] = world.ends();
    world.ip(&world.attacker, &format!("address replace {own}/24 dev net2"));
    world.ip(&world.attacker, &format!("route replace {victim}/32 dev net2"));
    world.open("blue under the name of green", || world.send_forbidden("net2"));
}

/// An interface that nothing isolates is replaced by one on top of the protected one, under its name.
#[test]
fn open_stacked_under_an_open_name() {
    let world = World::new("stacked");
    let [(own, victim), _] = world.ends();
    for command in [
        "link del net2".to_owned(),
        "link add net2 link net1 type macvlan mode bridge".to_owned(),
        "link set net2 up".to_owned(),
        format!("address add {own}/32 dev net2"),
        format!("route add {victim}/32 dev net2"),
    ] {
        world.ip(&world.attacker, &command);
    }
    world.open("a macvlan named as the open interface", || world.send_forbidden("net2"));
}

/// tc moves frames from an interface that nothing judges to the protected one, behind its hooks.
#[test]
fn open_tc_redirect() {
    let world = World::new("tc");
    let tc = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        world
            .attacker
            .exec("tc", &words)
            .unwrap_or_else(|error| panic!("tc {line}: {error:#}"));
    };
    tc("qdisc add dev lo clsact");
    tc("filter add dev lo egress protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev net1");
    let sender = RawSender::open(&world.attacker, "lo").expect("a packet socket");
    world.open("from lo", || {
        for frame in forbidden_frames(&world) {
            sender.send(&frame).expect("handed over");
        }
    });
    world.eventually("it is told", || {
        let log = world.log();
        if log.contains("A tc filter is new in the pod") {
            Ok(())
        } else {
            Err(log)
        }
    });
}

/// Needs a namespace of its own to move it to: CAP_SYS_ADMIN, or a user namespace.
#[test]
fn open_moved_to_another_namespace() {
    let world = World::new("moved");
    let name = format!("rf-at-moved-away-p{}n0-x", std::process::id());
    let away = NamedNetns::create(&[name]).expect("a namespace").pop().expect("one");
    let [(own, victim), _] = world.ends();
    world.ip(&world.attacker, &format!("link set net1 netns {}", away.name()));
    away.ip(&[format!("address add {own}/24 dev net1"), "link set net1 up".to_owned()])
        .expect("set up");
    world.open("where no agent looks", || {
        let socket = away
            .netns()
            .run(|| std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket"))
            .expect("entered");
        let _ = socket.send_to(MARK, SocketAddr::new(victim, FORBIDDEN));
    });
}
