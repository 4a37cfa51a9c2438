//! Statement 102: ICMP errors about allowed connections pass, in both directions, and errors about others do not.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use ringfence_model::Family;
use ringfence_testkit::manifest::block;
use ringfence_testkit::packet::Ip;
use ringfence_testkit::{PodSpec, StackSender};

use super::packets::{Cases, Watch};
use super::world::{
    Asks, BLUE, CLUSTER, Dropped, FRIEND, GREEN, PATIENCE, Refused, SERVER, STRANGER, Udp, World, friend, guard, tcp,
    udp,
};

/// Type and code of the errors in a family, and what each is called.
fn kinds(family: Family) -> [(&'static str, u8, u8); 4] {
    match family {
        Family::V4 => [
            ("port unreachable", 3, 3),
            ("fragmentation needed", 3, 4),
            ("time exceeded", 11, 0),
            ("host unreachable", 3, 1),
        ],
        Family::V6 => [
            ("port unreachable", 1, 4),
            ("packet too big", 2, 0),
            ("time exceeded", 3, 0),
            ("no route", 1, 0),
        ],
    }
}

/// An error that quotes a packet; 1400 is the MTU where there is one.
fn error(ip: Ip, (kind, code): (u8, u8), quoted: &[u8]) -> Vec<u8> {
    let mut rest = vec![0, 0, 0x05, 0x78];
    rest.extend(quoted);
    ip.icmp(kind, code, &rest)
}

/// The connections that errors are about, one opened by each end.
struct Quoted {
    /// Somebody on the way, whom no policy names.
    router: IpAddr,
    server: IpAddr,
    friend: IpAddr,
}

impl Quoted {
    fn new(world: &World, family: Family) -> Self {
        let router = match family {
            Family::V4 => "10.21.1.250",
            Family::V6 => "fd00:21::1:250",
        };
        Self {
            router: router.parse().expect("an address"),
            server: world.address(SERVER, BLUE, family),
            friend: world.address(FRIEND, BLUE, family),
        }
    }

    /// From the router to the server, about what the server has sent: answers of its port 80, requests to the friend's
    /// port 81, and something that nobody has sent.
    fn arriving(&self, cases: &mut Cases, family: Family, passes: bool) {
        let ends = (self.router, self.server);
        let sent = Ip::new(self.server, self.friend, 1);
        for (name, kind, code) in kinds(family) {
            let answer = sent.udp(80, 5001, b"answer");
            let request = sent.udp(5002, 81, b"request");
            let unknown = sent.udp(5003, 83, b"unknown");
            cases.one(format!("{name} about an answer"), ends, passes, |ip| {
                error(ip, (kind, code), &answer)
            });
            cases.one(format!("{name} about a request"), ends, passes, |ip| {
                error(ip, (kind, code), &request)
            });
            cases.one(format!("{name} about nothing"), ends, false, |ip| {
                error(ip, (kind, code), &unknown)
            });
        }
    }

    /// From the server to the friend, about what the friend has sent.
    fn leaving(&self, cases: &mut Cases, family: Family, passes: bool) {
        let ends = (self.server, self.friend);
        let sent = Ip::new(self.friend, self.server, 1);
        for (name, kind, code) in kinds(family) {
            let request = sent.udp(5001, 80, b"request");
            let answer = sent.udp(81, 5002, b"answer");
            let unknown = sent.udp(5003, 83, b"unknown");
            cases.one(format!("{name} about a request"), ends, passes, |ip| {
                error(ip, (kind, code), &request)
            });
            cases.one(format!("{name} about an answer"), ends, passes, |ip| {
                error(ip, (kind, code), &answer)
            });
            cases.one(format!("{name} about nothing"), ends, false, |ip| {
                error(ip, (kind, code), &unknown)
            });
        }
    }
}

#[test]
fn s102_errors_pass_with_their_connection_and_stop_with_it() {
    let mut world = World::usual("errors");
    let allowed = guard().ingress(&[friend()], &[udp(80)]).egress(&[friend()], &[udp(81)]);
    world.policies(std::slice::from_ref(&allowed));
    let (mut requests, mut out) = (Cases::default(), Cases::default());
    for family in Family::BOTH {
        let it = Quoted::new(&world, family);
        requests.one("the friend's request", (it.friend, it.server), true, |ip| {
            ip.udp(5001, 80, b"hello")
        });
        out.one("the server's request", (it.server, it.friend), true, |ip| {
            ip.udp(5002, 81, b"hello")
        });
    }
    requests.arrive(&world, "a connection to the server", (FRIEND, "net1"), (SERVER, "net1"));
    out.leave(&world, "a connection of the server", (SERVER, "net1"), (FRIEND, "net1"));

    let tried = |world: &World, passes: bool| {
        for family in Family::BOTH {
            let it = Quoted::new(world, family);
            let mut cases = Cases::default();
            it.arriving(&mut cases, family, passes);
            cases.arrive(
                world,
                &format!("errors in, {family:?}"),
                (STRANGER, "net1"),
                (SERVER, "net1"),
            );
            let mut cases = Cases::default();
            it.leaving(&mut cases, family, passes);
            cases.leave(
                world,
                &format!("errors out, {family:?}"),
                (SERVER, "net1"),
                (FRIEND, "net1"),
            );
        }
    };
    tried(&world, true);
    // Conntrack still knows both connections, but they are denied now.
    world.policies(&[guard().isolate_ingress().isolate_egress()]);
    tried(&world, false);
    // The same peer by a block, with a class of ports.
    let anybody = [block("10.21.0.0/16", &[]), block("fd00:21::/64", &[])];
    world.policies(&[guard().ingress(&anybody, &[udp(80)]).egress(&anybody, &[])]);
    tried(&world, true);
}

#[test]
fn s102_s101_a_closed_port_is_reported_in_both_directions() {
    let mut world = World::usual("unreachable");
    // Isolated in the direction in which the error goes.
    world.policies(&[guard().isolate_egress().ingress(&[friend()], &[udp(9)])]);
    world.expect(
        "out of a pod that may send nothing of its own",
        &[
            (FRIEND, SERVER, BLUE, Udp, 9, Refused),
            (FRIEND, SERVER, BLUE, Udp, 10, Dropped),
            (STRANGER, SERVER, BLUE, Udp, 9, Dropped),
        ],
    );
    world.policies(&[guard().isolate_ingress().egress(&[friend()], &[udp(9)])]);
    world.expect(
        "into a pod that accepts nothing",
        &[
            (SERVER, FRIEND, BLUE, Udp, 9, Refused),
            (SERVER, FRIEND, BLUE, Udp, 10, Dropped),
            (SERVER, STRANGER, BLUE, Udp, 9, Dropped),
        ],
    );
}

/// Server on blue, client on green, a router between them whose green side takes smaller packets than anybody thinks.
fn routed(name: &str) -> World {
    let world = World::new(
        name,
        vec![
            PodSpec::multus(SERVER)
                .label("app", "server")
                .attach("eth0", CLUSTER)
                .attach("net1", BLUE),
            PodSpec::multus("x/router")
                .attach("eth0", CLUSTER)
                .attach("net1", BLUE)
                .attach("net2", GREEN),
            PodSpec::multus("x/client")
                .attach("eth0", CLUSTER)
                .attach("net1", GREEN),
        ],
        &[],
    );
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        world.sysctl("x/router", setting, "1");
    }
    world
        .pod("x/router")
        .exec("ip", &["link", "set", "net2", "mtu", "1300"])
        .expect("set");
    for (pod, there, here) in [(SERVER, GREEN, BLUE), ("x/client", BLUE, GREEN)] {
        for family in Family::BOTH {
            let (prefix, length) = match (family, there) {
                (Family::V4, BLUE) => ("10.21.0.0", 16),
                (Family::V4, _) => ("10.22.0.0", 16),
                (Family::V6, BLUE) => ("fd00:21::", 64),
                (Family::V6, _) => ("fd00:22::", 64),
            };
            let via = world.address("x/router", here, family).to_string();
            let to = format!("{prefix}/{length}");
            world
                .pod(pod)
                .exec("ip", &["route", "add", &to, "via", &via])
                .expect("a route");
        }
    }
    world
}

/// Sends far more than a packet from `from` to a listener of `to`, and gives how much has arrived.
fn transfer(world: &World, (listens, connects): (&str, &str), target: SocketAddr, listener_sends: bool) -> usize {
    const BYTES: usize = 100_000;
    let limit = Some(PATIENCE);
    let listener = world
        .pod(listens)
        .netns
        .run(|| TcpListener::bind(target))
        .expect("entered")
        .expect("bound");
    let client = world
        .pod(connects)
        .netns
        .run(|| TcpStream::connect(target))
        .expect("entered")
        .expect("connected");
    let (server, _) = listener.accept().expect("accepted");
    let (mut sender, mut receiver) = if listener_sends {
        (server, client)
    } else {
        (client, server)
    };
    receiver.set_read_timeout(limit).expect("set");
    let thread = std::thread::spawn(move || {
        // It may take all of it into its buffer or stop: the receiver tells.
        let _ = sender.set_write_timeout(limit);
        let _ = sender.write_all(&vec![7; BYTES]);
        let _ = sender.shutdown(std::net::Shutdown::Write);
        sender
    });
    let mut total = 0;
    let mut buffer = [0; 8192];
    while let Ok(length) = receiver.read(&mut buffer) {
        total += length;
        if length == 0 || total >= BYTES {
            break;
        }
    }
    drop(receiver);
    drop(thread.join().expect("the sender ends"));
    total
}

#[test]
fn s102_a_router_says_that_packets_are_too_big_and_that_their_time_is_up() {
    let mut world = routed("router");
    let green = [block("10.22.0.0/16", &[]), block("fd00:22::/64", &[])];
    let too_big = [
        ("big", "icmp type destination-unreachable icmp code frag-needed"),
        ("big6", "icmpv6 type packet-too-big"),
    ];
    // The server answers big, and may open nothing; then the server opens and sends, and may accept nothing.
    for (policy, server_listens, port) in [
        (
            guard().isolate_egress().ingress(&green, &[tcp(8000), udp(9)]),
            true,
            8000,
        ),
        (
            guard().isolate_ingress().egress(&green, &[tcp(8001), udp(9)]),
            false,
            8001,
        ),
    ] {
        world.policies(&[policy]);
        let watch = Watch::counting(world.pod(SERVER), &too_big);
        for family in Family::BOTH {
            // What the router has said before is remembered.
            let flush = if family == Family::V4 { "-4" } else { "-6" };
            world
                .pod(SERVER)
                .exec("ip", &[flush, "route", "flush", "cache"])
                .expect("flushed");
            let (listens, connects, network) = if server_listens {
                (SERVER, "x/client", BLUE)
            } else {
                ("x/client", SERVER, GREEN)
            };
            let target = SocketAddr::new(world.address(listens, network, family), port);
            let received = transfer(&world, (listens, connects), target, server_listens);
            assert_eq!(
                received,
                100_000,
                "{family:?}, server listens: {server_listens}\n{}",
                world.rules()
            );
        }
        assert!(
            watch.count("big") > 0 && watch.count("big6") > 0,
            "the router has said nothing"
        );
    }

    // In force now: the server may open UDP 9 of the client, and no other port. Its packets' time is up at the router.
    let up = [("up", "icmp type time-exceeded"), ("up6", "icmpv6 type time-exceeded")];
    let watch = Watch::counting(world.pod(SERVER), &up);
    let sender = StackSender::open(world.pod(SERVER), "net1").expect("a raw socket");
    for family in Family::BOTH {
        let (server, client) = (
            world.address(SERVER, BLUE, family),
            world.address("x/client", GREEN, family),
        );
        let packet = |port| Ip::new(server, client, 1).hops(1).udp(5000, port, b"x");
        assert!(!sender.send(&packet(10), client).expect("sent"), "UDP 10 is denied");
        assert!(sender.send(&packet(9), client).expect("sent"), "UDP 9 is allowed");
    }
    world.eventually("both errors arrive", || {
        let counts = (watch.count("up"), watch.count("up6"));
        if counts == (1, 1) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    });
    // And through the router a closed port is refused.
    let mut asks = Asks::default();
    for family in Family::BOTH {
        let target = SocketAddr::new(world.address("x/client", GREEN, family), 9);
        asks.ask_from(world.pod(SERVER), Udp, target, Refused);
    }
    asks.check(&world, "port unreachable through a router");
}
