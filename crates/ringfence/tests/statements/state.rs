//! Section H: what belongs to a connection, and what a change does to connections that exist. ICMP errors (statement
//! 102) are in `errors.rs`.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ringfence_model::Family;
use ringfence_testkit::manifest::{Policy, block, pods};
use ringfence_testkit::{Flow, Load, Pod, PodSpec, Stream};

use super::packets::{Cases, Watch};
use super::world::{
    Asks, BLUE, CLUSTER, Dropped, FRIEND, Icmp, PATIENCE, Reached, Refused, SERVER, STRANGER, Tcp, Udp, World, friend,
    guard, tcp, udp, usual_pods,
};

/// How long nothing arrives until a flow counts as stopped.
const QUIET: Duration = Duration::from_millis(500);

#[test]
fn s100_s101_s103_answers_pass_and_the_reverse_direction_stays_closed() {
    let mut world = World::usual("answers");
    // The server accepts from the friend and opens nothing; the stranger opens everything and accepts nothing.
    world.policies(&[
        guard().isolate_egress().ingress(&[friend()], &[tcp(80), udp(80)]),
        Policy::multi("x/out", &[BLUE])
            .select(&[("app", "out")])
            .isolate_ingress(),
    ]);
    world.edit(&format!("Pod {STRANGER}"), |pod| {
        pod["metadata"]["labels"] = serde_json::json!({"app": "out"});
    });
    world.settle();
    world.expect(
        "answers pass, connections the other way do not",
        &[
            (FRIEND, SERVER, BLUE, Tcp, 80, Reached),
            (FRIEND, SERVER, BLUE, Udp, 80, Reached),
            (SERVER, FRIEND, BLUE, Tcp, 80, Dropped),
            (SERVER, FRIEND, BLUE, Udp, 80, Dropped),
            (SERVER, FRIEND, BLUE, Icmp, 0, Dropped),
            (STRANGER, FRIEND, BLUE, Tcp, 80, Reached),
            (STRANGER, FRIEND, BLUE, Udp, 81, Reached),
            (STRANGER, FRIEND, BLUE, Icmp, 0, Reached),
            (FRIEND, STRANGER, BLUE, Tcp, 80, Dropped),
            (FRIEND, STRANGER, BLUE, Udp, 81, Dropped),
            (FRIEND, STRANGER, BLUE, Icmp, 0, Dropped),
        ],
    );
    // A reset is an answer too.
    world.policies(&[guard().isolate_egress().ingress(&[friend()], &[tcp(80), tcp(82)])]);
    world.expect(
        "a refusal reaches the one who asked",
        &[
            (FRIEND, SERVER, BLUE, Tcp, 82, Refused),
            (FRIEND, SERVER, BLUE, Tcp, 81, Dropped),
        ],
    );
}

#[test]
fn s104_an_echo_request_with_the_identifier_of_an_earlier_one_is_a_new_connection() {
    let mut world = World::usual("echo-id");
    world.policies(&[guard().isolate_ingress().egress(&[friend()], &[])]);
    // The server asks the friend, who answers: conntrack knows this identifier between these addresses.
    let mut out = Cases::default();
    for family in Family::BOTH {
        let (server, peer) = (world.address(SERVER, BLUE, family), world.address(FRIEND, BLUE, family));
        out.one(format!("request {family:?}"), (server, peer), true, |ip| {
            ip.echo(true, 7, 1)
        });
    }
    out.leave(&world, "the server may ask", (SERVER, "net1"), (FRIEND, "net1"));
    for family in ["ipv4", "ipv6"] {
        let known = world.connections(SERVER, &["--family", family]);
        assert!(known.contains("id=7"), "{known}");
    }
    let mut back = Cases::default();
    for family in Family::BOTH {
        let ends = (world.address(FRIEND, BLUE, family), world.address(SERVER, BLUE, family));
        back.one(format!("request back {family:?}"), ends, false, |ip| {
            ip.echo(true, 7, 1)
        });
        back.one(format!("next request back {family:?}"), ends, false, |ip| {
            ip.echo(true, 7, 2)
        });
        back.one(format!("answer {family:?}"), ends, true, |ip| ip.echo(false, 7, 2));
        back.one(format!("answer to nobody {family:?}"), ends, false, |ip| {
            ip.echo(false, 8, 1)
        });
    }
    back.arrive(&world, "a request is no answer", (FRIEND, "net1"), (SERVER, "net1"));

    // The other way round: who may be asked may not ask.
    world.policies(&[guard().isolate_egress().ingress(&[friend()], &[])]);
    let mut asked = Cases::default();
    let mut out = Cases::default();
    for family in Family::BOTH {
        let (server, peer) = (world.address(SERVER, BLUE, family), world.address(FRIEND, BLUE, family));
        asked.one(format!("request {family:?}"), (peer, server), true, |ip| {
            ip.echo(true, 9, 1)
        });
        out.one(format!("request out {family:?}"), (server, peer), false, |ip| {
            ip.echo(true, 9, 1)
        });
    }
    asked.arrive(&world, "the server may be asked", (FRIEND, "net1"), (SERVER, "net1"));
    out.leave(&world, "and may not ask", (SERVER, "net1"), (FRIEND, "net1"));
}

/// One connection of the server's or to it.
fn flows(world: &World, peer: &str, family: Family, port: u16) -> [(&'static str, Flow); 4] {
    let open = |from, to, port, load| {
        let path = world.path(from, to, BLUE, family, port);
        Flow::open(&path, load).expect("a flow along an open path")
    };
    [
        ("upload to the server", open(peer, SERVER, port, Load::Upload)),
        ("download from the server", open(peer, SERVER, port + 1, Load::Download)),
        ("upload by the server", open(SERVER, peer, port + 2, Load::Upload)),
        ("download by the server", open(SERVER, peer, port + 3, Load::Download)),
    ]
}

#[test]
fn s105_s106_s107_narrowing_stops_what_is_no_longer_allowed_and_nothing_else() {
    let mut world = World::usual("narrowing");
    let everybody = [friend(), pods(&[("access", "too")])];
    world.edit(&format!("Pod {STRANGER}"), |pod| {
        pod["metadata"]["labels"] = serde_json::json!({"access": "too"});
    });
    let both = guard().ingress(&everybody, &[]).egress(&everybody, &[]);
    let only_friend = guard().ingress(&everybody[..1], &[]).egress(&everybody[..1], &[]);
    world.policies(std::slice::from_ref(&both));
    let kept: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| flows(&world, FRIEND, family, 9000))
        .collect();
    let stopped: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| flows(&world, STRANGER, family, 9010))
        .collect();
    // Datagrams tell whether there was a gap, which TCP would hide.
    let path = world.path(FRIEND, SERVER, BLUE, Family::V4, 9100);
    let stream = Stream::start(&path, Duration::from_millis(1)).expect("a stream");
    stream.wait_open(Instant::now(), PATIENCE).expect("it is open");

    world.policies(&[only_friend]);
    for (name, flow) in &stopped {
        flow.wait_for_silence(QUIET, PATIENCE)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    let at_stop: Vec<usize> = stopped.iter().map(|(_, flow)| flow.arrived()).collect();
    for (name, flow) in &kept {
        flow.wait_for_more(PATIENCE)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    // Every sender has something to send and sends it again and again, in both directions; the peer's side has also
    // been asked for more. The connection stays what it was: denied.
    let denied = |world: &World| {
        let text = world
            .pod(SERVER)
            .exec("nft", &["list", "counters", "table", "inet", "ringfence"])
            .expect("nft");
        text.lines()
            .filter_map(|line| {
                line.trim()
                    .strip_prefix("packets ")?
                    .split(' ')
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .sum::<u64>()
    };
    let before = denied(&world);
    world.eventually("retransmissions", || {
        let now = denied(&world);
        if now >= before + 16 {
            Ok(())
        } else {
            Err(format!("{before} {now}"))
        }
    });
    for ((name, flow), before) in stopped.iter().zip(&at_stop) {
        assert_eq!(flow.arrived(), *before, "{name}: nothing more has arrived");
    }

    // Widening breaks nothing, and what was stopped goes on.
    world.policies(&[both]);
    for (name, flow) in kept.iter().chain(&stopped) {
        flow.wait_for_more(PATIENCE)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(flow.ended(), None, "{name}");
    }
    let (sent, arrived) = world.eventually("the last datagram", || {
        let (sent, arrived) = stream.counts();
        // One or two are on their way.
        if arrived + 2 >= sent {
            Ok((sent, arrived))
        } else {
            Err(format!("{arrived} of {sent}"))
        }
    });
    assert!(arrived > 100, "{arrived} of {sent}");
}

/// A connection between `opener` and the other of friend and server, which `narrowed` forbids and conntrack then forgets,
/// as after a long idle time. Whoever sends next finds no entry in its way, and would make one. `counters`: where the
/// server's rules count what both ends send.
fn forgotten(name: &str, opener: &str, [allowed, narrowed]: [Policy; 2], counters: &[&str]) {
    // With several resyncs while it is forgotten: an entry that they made would be one of the pod's choice, because who
    // listens on a port seems to have been called there.
    let mut world = World::new(name, usual_pods(), &["--resync", "1"]);
    world.policies(std::slice::from_ref(&allowed));
    let other = if opener == FRIEND { SERVER } else { FRIEND };
    let open = |world: &World, ports: [u16; 2]| -> Vec<(String, Flow)> {
        let loads = [(ports[0], Load::Download), (ports[1], Load::Upload)];
        let open = |family, (port, load)| {
            let path = world.path(opener, other, BLUE, family, port);
            (format!("{load:?} {family:?}"), Flow::open(&path, load).expect("a flow"))
        };
        let all = Family::BOTH.into_iter().flat_map(|family| loads.map(|it| (family, it)));
        all.map(|(family, it)| open(family, it)).collect()
    };
    let flows = open(&world, [9200, 9201]);
    world.policies(&[narrowed]);
    for (name, flow) in &flows {
        flow.wait_for_silence(QUIET, PATIENCE)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    let before: Vec<usize> = flows.iter().map(|(_, flow)| flow.arrived()).collect();
    let flushed = world.pod(SERVER).exec("conntrack", &["--flush"]);
    flushed.expect("conntrack");
    let again = [("again", "tcp sport 9200-9201"), ("forth", "tcp dport 9200-9201")];
    let watch = Watch::counting(world.pod(FRIEND), &again);
    let denied = || -> Vec<u64> {
        let count = |counter: &&str| {
            let words = ["list", "counter", "inet", "ringfence", *counter];
            let text = world.pod(SERVER).exec("nft", &words).expect("nft");
            let count = text
                .split("packets ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next()?.parse().ok());
            count.unwrap_or_else(|| panic!("{text}"))
        };
        counters.iter().map(count).collect()
    };
    // One end uploads, the other has something to send too: each again and again, over both families.
    let start = denied();
    let enough = 8 / u64::try_from(counters.len()).expect("few");
    world.eventually("both ends send again", || {
        let now = denied();
        let is_enough = now.iter().zip(&start).all(|(now, start)| *now >= start + enough);
        if is_enough {
            Ok(())
        } else {
            Err(format!("{start:?} {now:?}"))
        }
    });
    for ((name, flow), before) in flows.iter().zip(&before) {
        assert_eq!(flow.arrived(), *before, "{name}: admitted again");
    }
    for (name, _) in again {
        assert_eq!(watch.count(name), 0, "something of the revoked connection has left");
    }
    let listed = ["ipv4", "ipv6"].map(|family| world.connections(SERVER, &["--family", family, "--proto", "tcp"]));
    assert!(!listed.concat().contains("port=920"), "{listed:?}");
    // What is opened anew is judged as ever, data in both directions included.
    world.policies(&[allowed]);
    for (name, flow) in open(&world, [9210, 9211]) {
        flow.wait_for_more(PATIENCE)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

#[test]
fn s106_forgotten_by_conntrack_where_only_ingress_is_isolated() {
    let policies = [guard().ingress(&[friend()], &[]), guard().isolate_ingress()];
    forgotten("forgotten-in", FRIEND, policies, &["net1-in-denied"]);
}

#[test]
fn s106_forgotten_by_conntrack_where_only_egress_is_isolated() {
    let policies = [guard().egress(&[friend()], &[]), guard().isolate_egress()];
    forgotten("forgotten-out", SERVER, policies, &["net1-out-denied"]);
}

const BOTH: &[&str] = &["net1-in-denied", "net1-out-denied"];

#[test]
fn s106_forgotten_by_conntrack_where_both_directions_are_isolated() {
    let narrowed = || guard().isolate_ingress().isolate_egress();
    let allowed = guard().isolate_egress().ingress(&[friend()], &[]);
    forgotten("forgotten-both", FRIEND, [allowed, narrowed()], BOTH);
    let allowed = guard().isolate_ingress().egress(&[friend()], &[]);
    forgotten("forgotten-too", SERVER, [allowed, narrowed()], BOTH);
}

#[test]
fn s106_forgotten_by_conntrack_where_the_other_direction_allows_everything() {
    let allowed = guard().ingress(&[friend()], &[]).egress(&[], &[]);
    let narrowed = guard().isolate_ingress().egress(&[], &[]);
    forgotten("forgotten-all", FRIEND, [allowed, narrowed], BOTH);
    let allowed = guard().egress(&[friend()], &[]).ingress(&[], &[]);
    let narrowed = guard().isolate_egress().ingress(&[], &[]);
    forgotten("forgotten-any", SERVER, [allowed, narrowed], BOTH);
}

#[test]
fn s106_forgotten_by_conntrack_where_the_other_direction_allows_the_peer() {
    let allowed = guard().ingress(&[friend()], &[]).egress(&[friend()], &[]);
    let narrowed = guard().isolate_ingress().egress(&[friend()], &[]);
    forgotten("forgotten-peer", FRIEND, [allowed.clone(), narrowed], BOTH);
    let narrowed = guard().isolate_egress().ingress(&[friend()], &[]);
    forgotten("forgotten-host", SERVER, [allowed, narrowed], BOTH);
}

/// Which segments may be the first of a connection, at an interface that is isolated the other way only.
#[test]
fn s106_only_a_syn_opens_a_connection() {
    let [fin, syn, rst, psh, ack, ece, cwr]: [u8; 7] = [1, 2, 4, 8, 16, 64, 128];
    let mut world = World::usual("first-segment");
    for (way, policy) in [("out", guard().isolate_ingress()), ("in", guard().isolate_egress())] {
        world.policies(&[policy]);
        let mut cases = Cases::default();
        for family in Family::BOTH {
            let (server, peer) = (world.address(SERVER, BLUE, family), world.address(FRIEND, BLUE, family));
            let ends = if way == "out" { (server, peer) } else { (peer, server) };
            for (port, (name, flags, passes)) in (6000..).zip([
                ("SYN", syn, true),
                ("SYN that asks for congestion notification", syn | ece | cwr, true),
                ("SYN with data to push", syn | psh, true),
                ("ACK", ack, false),
                ("data", ack | psh, false),
            ]) {
                cases.one(format!("{name}, {family:?}"), ends, passes, |ip| ip.tcp(port, 9, flags));
            }
            // Of these conntrack says that they are invalid, which an interface that is open this way lets pass.
            for (port, (name, flags)) in (6100..).zip([("SYN and ACK", syn | ack), ("RST", rst), ("FIN", fin | ack)]) {
                cases.one(format!("{name}, {family:?}"), ends, true, |ip| ip.tcp(port, 9, flags));
            }
        }
        match way {
            "out" => cases.leave(&world, way, (SERVER, "net1"), (FRIEND, "net1")),
            _ => cases.arrive(&world, way, (FRIEND, "net1"), (SERVER, "net1")),
        }
    }
}

/// A socket bound to an address and port, inside a pod.
fn udp_socket(pod: &Pod, address: SocketAddr) -> UdpSocket {
    let socket = pod
        .netns
        .run(|| UdpSocket::bind(address))
        .expect("entered")
        .expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket
}

#[test]
fn s108_a_datagram_after_the_conntrack_timeout_is_judged_anew() {
    let mut world = World::usual("udp-timeout");
    // The server may ask the friend, whose answers pass; the friend may not ask the server.
    world.policies(&[guard().isolate_ingress().egress(&[friend()], &[udp(5300)])]);
    for setting in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        world.sysctl(SERVER, &format!("netfilter/{setting}"), "2");
    }
    for family in Family::BOTH {
        let ours = SocketAddr::new(world.address(SERVER, BLUE, family), 4000);
        let theirs = SocketAddr::new(world.address(FRIEND, BLUE, family), 5300);
        let (server, peer) = (
            udp_socket(world.pod(SERVER), ours),
            udp_socket(world.pod(FRIEND), theirs),
        );
        let mut buffer = [0; 8];
        server.send_to(b"ask", theirs).expect("sent");
        assert_eq!(peer.recv(&mut buffer).expect("the question"), 3);
        peer.send_to(b"answer", ours).expect("sent");
        assert_eq!(server.recv(&mut buffer).expect("the answer"), 6);
        let name = if family == Family::V4 { "ipv4" } else { "ipv6" };
        world.eventually("conntrack forgets", || {
            let listed = world.connections(SERVER, &["--family", name, "--proto", "udp"]);
            if listed.contains("port=5300") {
                Err(listed)
            } else {
                Ok(())
            }
        });
        server.set_read_timeout(Some(QUIET)).expect("set");
        peer.send_to(b"late", ours).expect("sent");
        assert!(
            server.recv(&mut buffer).is_err(),
            "{family:?}: a late datagram is a new connection"
        );
        // The server asks again, and the answer passes again.
        server.set_read_timeout(Some(PATIENCE)).expect("set");
        server.send_to(b"ask", theirs).expect("sent");
        assert_eq!(peer.recv(&mut buffer).expect("the question"), 3);
        peer.send_to(b"answer", ours).expect("sent");
        assert_eq!(server.recv(&mut buffer).expect("the answer"), 6);
    }
}

/// Packets that conntrack refuses to assign to any connection.
fn invalid(cases: &mut Cases, ends: (std::net::IpAddr, std::net::IpAddr), passes: bool) {
    cases.one("SYN and FIN", ends, passes, |ip| ip.tcp(4000, 80, 2 | 1));
    cases.one("SYN and RST", ends, passes, |ip| ip.tcp(4000, 80, 2 | 4));
    cases.one("no flag at all", ends, passes, |ip| ip.tcp(4000, 80, 0));
    cases.one("a TCP header cut short", ends, passes, |ip| {
        ip.packet(6, &[0x0f, 0xa0, 0, 80, 0, 0])
    });
    cases.one("a UDP header cut short", ends, passes, |ip| {
        ip.packet(17, &[0x0f, 0xa0, 0, 80])
    });
    cases.one("an echo reply to nobody", ends, passes, |ip| ip.echo(false, 77, 1));
}

#[test]
fn s109_packets_without_a_connection_are_dropped_where_a_direction_is_isolated() {
    let mut world = World::usual("invalid");
    // The friend may do everything, and yet.
    world.policies(&[guard().ingress(&[friend()], &[]).egress(&[friend()], &[])]);
    let tried = |world: &World, passes: bool| {
        for family in Family::BOTH {
            let (server, peer) = (world.address(SERVER, BLUE, family), world.address(FRIEND, BLUE, family));
            let mut cases = Cases::default();
            invalid(&mut cases, (peer, server), passes);
            cases.one("a good one", (peer, server), true, |ip| ip.tcp(4001, 80, 2));
            cases.arrive(world, &format!("in, {family:?}"), (FRIEND, "net1"), (SERVER, "net1"));
            let mut cases = Cases::default();
            invalid(&mut cases, (server, peer), passes);
            cases.one("a good one", (server, peer), true, |ip| ip.tcp(4002, 80, 2));
            cases.leave(world, &format!("out, {family:?}"), (SERVER, "net1"), (FRIEND, "net1"));
        }
    };
    tried(&world, false);
    world.policies(&[]);
    tried(&world, true);
}

#[test]
fn s110_a_new_pod_with_an_old_address_has_no_rights_from_old_connections() {
    let address: Vec<std::net::IpAddr> = ["10.21.1.77", "fd00:21::1:77"]
        .map(|it| it.parse().expect("an address"))
        .to_vec();
    let with_address = |app: &str| {
        PodSpec::multus("x/reborn")
            .label("app", app)
            .attach("eth0", CLUSTER)
            .attach_with("net1", BLUE, &address)
    };
    let mut specs = usual_pods();
    specs.push(with_address("old"));
    let mut world = World::new("reborn", specs, &[]);
    let policy = |app: &str| Policy::multi(&format!("x/{app}"), &[BLUE]).select(&[("app", app)]);
    world.policies(&[
        policy("old").ingress(&[friend()], &[]).egress(&[friend()], &[]),
        policy("new").isolate_ingress().isolate_egress(),
    ]);
    let both = |world: &World| {
        let (inward, outward) = ((FRIEND, "x/reborn"), ("x/reborn", FRIEND));
        [(inward, 9300), (outward, 9301)].map(|((from, to), port)| world.path(from, to, BLUE, Family::V4, port))
    };
    let old: Vec<Flow> = both(&world)
        .iter()
        .map(|path| Flow::open(path, Load::Upload).expect("a flow"))
        .collect();
    let old_pod = world.pod("x/reborn").uid.clone();
    // The flows hold the old namespace, with which its link would go: it is the fourth pod's second.
    world
        .topology
        .node(1)
        .expect("a node")
        .ip(&["link del p3i1".to_owned()])
        .expect("deleted");
    world.remove_pod("x/reborn");
    world.add_pods(vec![with_address("new")]);
    assert_ne!(world.pod("x/reborn").uid, old_pod);
    world.settle();
    // The friend has learnt the old MAC address.
    world
        .pod(FRIEND)
        .exec("ip", &["neigh", "flush", "dev", "net1"])
        .expect("flushed");
    let mut cases = Cases::default();
    let ends = (world.address(FRIEND, BLUE, Family::V4), address[0]);
    cases.one("a segment of the old connection", ends, false, |ip| {
        ip.tcp(5000, 9300, 16)
    });
    cases.one("an answer in the old connection", ends, false, |ip| {
        ip.tcp(9301, 5000, 16)
    });
    cases.arrive(&world, "nothing is inherited", (FRIEND, "net1"), ("x/reborn", "net1"));
    world.expect(
        "the new pod is closed",
        &[
            (FRIEND, "x/reborn", BLUE, Tcp, 80, Dropped),
            ("x/reborn", FRIEND, BLUE, Tcp, 80, Dropped),
            (FRIEND, "x/reborn", BLUE, Icmp, 0, Dropped),
        ],
    );
    drop(old);
}

#[test]
fn s111_no_helper_opens_a_second_connection() {
    let mut world = World::usual("helper");
    world.policies(&[guard().isolate_egress().ingress(&[friend()], &[tcp(21)])]);
    let path = world.path(FRIEND, SERVER, BLUE, Family::V4, 21);
    // What an FTP server says, and what its client does, on an allowed control connection.
    let listener = world
        .pod(SERVER)
        .netns
        .run(|| std::net::TcpListener::bind(path.target))
        .expect("entered")
        .expect("bound");
    let mut client = world
        .pod(FRIEND)
        .netns
        .run(|| std::net::TcpStream::connect(path.target))
        .expect("entered")
        .expect("open");
    let (mut server, _) = listener.accept().expect("accepted");
    let mut buffer = [0; 128];
    for (passive, line) in [
        (
            true,
            format!(
                "227 Entering Passive Mode ({},0,80)\r\n",
                path.target.ip().to_string().replace('.', ",")
            ),
        ),
        (
            false,
            format!("PORT {},0,80\r\n", path.source.to_string().replace('.', ",")),
        ),
    ] {
        let (from, to) = if passive {
            (&mut server, &mut client)
        } else {
            (&mut client, &mut server)
        };
        std::io::Write::write_all(from, line.as_bytes()).expect("said");
        let length = std::io::Read::read(to, &mut buffer).expect("heard");
        assert_eq!(&buffer[..length], line.as_bytes());
    }
    let mut asks = Asks::default();
    asks.ask(path.port(80).tcp(), Dropped);
    asks.ask(world.path(SERVER, FRIEND, BLUE, Family::V4, 80).tcp(), Dropped);
    asks.check(&world, "the data connections are connections like others");
    let expected = world
        .pod(SERVER)
        .exec("conntrack", &["--dump", "expect"])
        .expect("conntrack");
    assert_eq!(expected, "", "no expectations");
    // Allowed, they pass: nothing else is in their way.
    world.policies(&[guard()
        .egress(&[block("10.21.0.0/16", &[])], &[tcp(80)])
        .ingress(&[friend()], &[tcp(21), tcp(80)])]);
    world.expect("with rules of their own", &[(FRIEND, SERVER, BLUE, Tcp, 80, Reached)]);
}
