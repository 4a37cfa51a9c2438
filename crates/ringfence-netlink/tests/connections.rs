//! Connections that are open before the first ruleset, with real TCP over a veth pair.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::vocabulary::{accept, address, interface, name};
use common::{run, scratch};
use ringfence_model::Family;
use ringfence_netlink::{Enforcer, Tracked, track_established};
use ringfence_ruleset::{
    BaseChain, Chain, CtDirection, Element, Hook, KernelFeatures, Key, Match, Name, Rule, Ruleset, Set, SetKind, Side,
    Table, TableFamily, Verdict,
};

/// How long a condition may take: much longer than it ever does.
const PATIENCE: Duration = Duration::from_secs(60);

const POD: &str = "10.20.1.10";
const PEER: &str = "10.20.1.11";
const POD6: &str = "fd00:20::10";
const PEER6: &str = "fd00:20::11";

/// A namespace that stays as long as this does.
struct Net(File);

impl Net {
    fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").expect("the namespace"))
    }

    fn enter(&self) {
        // SAFETY: a live descriptor and no pointers; it concerns the calling thread only.
        let result = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// The calling thread is in the pod's namespace; the peer's is at the other end of `net1`.
struct Pair {
    pod: Net,
    peer: Net,
}

impl Pair {
    fn in_peer<T>(&self, f: impl FnOnce() -> T) -> T {
        self.peer.enter();
        let value = f();
        self.pod.enter();
        value
    }
}

fn set_up(addresses: [&str; 2]) {
    run("ip", &["link", "set", "lo", "up"]);
    run(
        "ip",
        &["address", "add", &format!("{}/24", addresses[0]), "dev", "net1"],
    );
    let six = format!("{}/64", addresses[1]);
    run("ip", &["address", "add", &six, "dev", "net1", "nodad"]);
    run("ip", &["link", "set", "net1", "up"]);
}

/// Two namespaces joined by `net1`, without rules.
fn pair<T: Send>(test: impl FnOnce(&Pair) -> T + Send) -> T {
    scratch(|| {
        let pod = Net::current();
        // SAFETY: no pointers; it concerns the calling thread only.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        let pair = Pair {
            pod,
            peer: Net::current(),
        };
        let pod = pair.pod.path();
        run(
            "ip",
            &[
                "link", "add", "net1", "type", "veth", "peer", "name", "net1", "netns", &pod,
            ],
        );
        set_up([PEER, PEER6]);
        pair.pod.enter();
        set_up([POD, POD6]);
        test(&pair)
    })
}

/// A connection, both of its ends without blocking.
struct Flow {
    pod: TcpStream,
    peer: TcpStream,
    _listener: TcpListener,
}

impl Flow {
    fn new((client, server, listener): (TcpStream, TcpStream, TcpListener), pod_is_server: bool) -> Self {
        client.set_nonblocking(true).unwrap();
        server.set_nonblocking(true).unwrap();
        let (pod, peer) = if pod_is_server {
            (server, client)
        } else {
            (client, server)
        };
        Self {
            pod,
            peer,
            _listener: listener,
        }
    }

    /// Opened by the peer.
    fn inbound(pair: &Pair, listen: &str, connect: &str) -> Self {
        let listener = TcpListener::bind((listen, 80)).unwrap();
        let client = pair.in_peer(|| TcpStream::connect((connect, 80)).unwrap());
        let (server, _) = listener.accept().unwrap();
        Self::new((client, server, listener), true)
    }

    /// Opened by the pod.
    fn outbound(pair: &Pair, server: &str) -> Self {
        let listener = pair.in_peer(|| TcpListener::bind((server, 80)).unwrap());
        let client = TcpStream::connect((server, 80)).unwrap();
        let (server, _) = listener.accept().unwrap();
        Self::new((client, server, listener), false)
    }

    fn ends(&self, sender: Sender) -> (&TcpStream, &TcpStream) {
        match sender {
            Sender::Pod => (&self.pod, &self.peer),
            Sender::Peer => (&self.peer, &self.pod),
        }
    }
}

#[derive(Clone, Copy)]
enum Sender {
    Pod,
    Peer,
}

/// Repeats until there is a value.
#[track_caller]
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a call without blocking did; 0 where it would have blocked.
fn count(result: std::io::Result<usize>) -> usize {
    match result {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// A transfer in one direction.
struct Transfer<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    data: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
}

impl<'a> Transfer<'a> {
    fn new(flow: &'a Flow, sender: Sender, bytes: usize) -> Self {
        let (from, to) = flow.ends(sender);
        Self {
            from,
            to,
            // A period that is no divisor of anything, so that a lost or repeated piece shows.
            data: (0..251).cycle().take(bytes).collect(),
            sent: 0,
            got: Vec::new(),
        }
    }

    fn send(&mut self) -> usize {
        let sent = count(self.from.write(&self.data[self.sent..]));
        self.sent += sent;
        sent
    }

    /// Sends until the buffers of both ends are full: the most that can be on its way.
    fn fill(&mut self) {
        while self.send() != 0 {}
        assert!(self.sent < self.data.len(), "too little data");
    }

    #[track_caller]
    fn finish(mut self) {
        let mut buffer = vec![0; 1 << 16];
        until("the transfer", || {
            loop {
                let sent = self.send();
                let read = count(self.to.read(&mut buffer));
                self.got.extend_from_slice(&buffer[..read]);
                if sent + read == 0 {
                    break;
                }
            }
            (self.got.len() >= self.data.len()).then_some(())
        });
        assert!(self.got == self.data, "other data");
    }
}

/// Only `sender` sends: every byte arrives, in order.
#[track_caller]
fn flows(flow: &Flow, sender: Sender, bytes: usize) {
    Transfer::new(flow, sender, bytes).finish();
}

fn denied(enforcer: &mut Enforcer) -> u64 {
    let counters = enforcer.counters().unwrap();
    ["net1-in-denied", "net1-out-denied"]
        .into_iter()
        .filter_map(|counter| counters.get(&(TableFamily::Inet, name(counter))))
        .map(|count| count.packets)
        .sum()
}

/// `sender` sends: packets are dropped, more than the one that it sends first, and nothing arrives.
#[track_caller]
fn stopped(flow: &Flow, enforcer: &mut Enforcer, sender: Sender) {
    let (mut from, mut to) = flow.ends(sender);
    let before = denied(enforcer);
    assert_ne!(count(from.write(b"lost")), 0);
    until("the drop", || (denied(enforcer) >= before + 3).then_some(()));
    assert_eq!(count(to.read(&mut [0; 16])), 0, "it arrived");
}

/// Who may open connections in one direction.
#[derive(Clone, Copy)]
enum Isolation<'a> {
    None,
    Only(&'a [&'a str]),
}

const NOBODY: Isolation<'static> = Isolation::Only(&[]);

/// The rules of one direction on `net1`, in the shape that Ringfence compiles: who opened is the peer of `net1-in` and
/// the pod in `net1-out`.
fn direction(table: &mut Table, prefix: &str, opened: &(Hook, Side), reply: &(Hook, Side), isolation: Isolation<'_>) {
    let chain = |suffix: &str| name(&format!("net1-{prefix}{suffix}"));
    let sets = [Family::V4, Family::V6].map(|family| (family, chain(&format!("-{family:?}"))));
    let verdict = |suffix: &str| match isolation {
        Isolation::None => Verdict::Accept,
        Isolation::Only(_) => Verdict::Goto(chain(suffix)),
    };
    let place = |hook: &Hook| match hook {
        Hook::Prerouting => (name("arrive"), Match::ArrivesOn(interface("net1"))),
        _ => (name("leave"), Match::LeavesOn(interface("net1"))),
    };
    // Segments from the middle of a connection without an entry open none (statement 106).
    let (base, on) = place(&opened.0);
    let picked_up = Rule {
        matches: vec![Match::CtNew, on, Match::TcpNotSyn],
        counter: Some(chain("-denied")),
        verdict: Verdict::Drop,
    };
    table.chains.get_mut(&base).unwrap().rules.push(picked_up);
    let mut enter = |(hook, _): &(Hook, Side), ct: Option<CtDirection>, suffix: &str| {
        let (base, on) = place(hook);
        let rule = Rule {
            matches: std::iter::once(on).chain(ct.map(Match::CtDirection)).collect(),
            counter: None,
            verdict: verdict(suffix),
        };
        table.chains.get_mut(&base).unwrap().rules.push(rule);
    };
    enter(opened, Some(CtDirection::Original), "");
    enter(reply, Some(CtDirection::Reply), "-reply");
    let Isolation::Only(allowed) = isolation else {
        return;
    };
    let counter = chain("-denied");
    let drop = Rule {
        matches: vec![],
        counter: Some(counter.clone()),
        verdict: Verdict::Drop,
    };
    for (suffix, (_, side)) in [("", opened), ("-reply", reply)] {
        let known = |(family, set): &(Family, Name)| {
            let key = Key::Address(*family, *side);
            accept(vec![Match::InSet(key, set.clone())])
        };
        let rules = sets.iter().map(known).chain([drop.clone()]).collect();
        table.chains.insert(chain(suffix), Chain { base: None, rules });
    }
    for (family, set) in sets {
        let elements = allowed
            .iter()
            .map(|text| address(text))
            .filter(|address| Family::of(*address) == family)
            .map(Element::Address)
            .collect();
        let kind = SetKind::Addresses(family);
        table.sets.insert(set, Set { kind, elements });
    }
    table.counters.insert(counter);
}

fn ruleset(ingress: Isolation<'_>, egress: Isolation<'_>) -> Ruleset {
    let base = |hook, priority| Chain {
        base: Some(BaseChain { hook, priority }),
        rules: vec![],
    };
    let mut inet = Table {
        counters: BTreeSet::from([name("net1-in-denied"), name("net1-out-denied")]).into(),
        sets: BTreeMap::new(),
        chains: BTreeMap::from([
            (name("arrive"), base(Hook::Prerouting, -160)),
            (name("leave"), base(Hook::Postrouting, 110)),
        ])
        .into(),
    };
    let arrives = (Hook::Prerouting, Side::Source);
    let leaves = (Hook::Postrouting, Side::Destination);
    direction(&mut inet, "in", &arrives, &leaves, ingress);
    direction(&mut inet, "out", &leaves, &arrives, egress);
    // Neighbour and listener discovery, and nothing else without a direction: what conntrack finds invalid is counted.
    for (base, on, counter) in [
        ("arrive", Match::ArrivesOn(interface("net1")), "net1-in-denied"),
        ("leave", Match::LeavesOn(interface("net1")), "net1-out-denied"),
    ] {
        let rules = &mut inet.chains.get_mut(&name(base)).unwrap().rules;
        for kind in [133, 135, 136] {
            rules.push(accept(vec![on.clone(), Match::Neighbour(kind)]));
        }
        rules.push(accept(vec![on.clone(), Match::ListenerDiscovery(143)]));
        rules.push(Rule {
            matches: vec![on],
            counter: Some(name(counter)),
            verdict: Verdict::Drop,
        });
    }
    Ruleset {
        comment: "ringfence connections".into(),
        inet,
        netdev: Table::default(),
    }
}

/// The first ruleset, with what belongs before it.
fn isolate(expected: Tracked, ingress: Isolation<'_>, egress: Isolation<'_>) -> Enforcer {
    assert_eq!(track_established().unwrap(), expected);
    enforce(ingress, egress)
}

fn enforce(ingress: Isolation<'_>, egress: Isolation<'_>) -> Enforcer {
    let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
    enforcer.enforce(Some(&ruleset(ingress, egress))).unwrap();
    enforcer
}

const INBOUND: Tracked = Tracked {
    inbound: 1,
    outbound: 0,
    skipped: 0,
};
const OUTBOUND: Tracked = Tracked {
    inbound: 0,
    outbound: 1,
    skipped: 0,
};

/// Enough for windows to be scaled and to wrap around the buffers often.
const MUCH: usize = 24 << 20;

#[test]
fn s105_s106_what_a_peer_opened_stops_for_good() {
    // Side by side, because each waits for repetitions.
    std::thread::scope(|scope| {
        for (listen, to) in [("0.0.0.0", POD), (POD, POD), ("::", POD6), (POD6, POD6), ("::", POD)] {
            scope.spawn(move || {
                pair(|pair| {
                    let flow = Flow::inbound(pair, listen, to);
                    flows(&flow, Sender::Pod, 1000);
                    let mut enforcer = isolate(INBOUND, NOBODY, Isolation::None);
                    // The pod sends first, then the peer, then the pod again.
                    stopped(&flow, &mut enforcer, Sender::Pod);
                    stopped(&flow, &mut enforcer, Sender::Peer);
                    stopped(&flow, &mut enforcer, Sender::Pod);
                });
            });
        }
    });
}

/// As a connection is that was made between the list of sockets and the first ruleset.
#[test]
fn s106_s107_an_entry_that_comes_after_the_ruleset_sets_things_right() {
    for allowed in [true, false] {
        pair(|pair| {
            let flow = Flow::inbound(pair, "0.0.0.0", POD);
            let ingress = if allowed { Isolation::Only(&[PEER]) } else { NOBODY };
            // Egress is open, and yet the pod's next segment makes no entry with the pod as opener.
            let mut enforcer = enforce(ingress, Isolation::None);
            stopped(&flow, &mut enforcer, Sender::Pod);
            assert_eq!(track_established().unwrap(), INBOUND);
            if allowed {
                let mut peer = &flow.peer;
                let mut lost = [0; 4];
                until("the repetition", || peer.read_exact(&mut lost).ok());
                assert_eq!(&lost, b"lost");
                flows(&flow, Sender::Peer, 1000);
                flows(&flow, Sender::Pod, 1000);
            } else {
                stopped(&flow, &mut enforcer, Sender::Peer);
                stopped(&flow, &mut enforcer, Sender::Pod);
            }
        });
    }
}

#[test]
fn s107_what_an_allowed_peer_opened_goes_on() {
    for (listen, to, peer) in [("0.0.0.0", POD, PEER), ("::", POD6, PEER6), ("::", POD, PEER)] {
        for egress in [Isolation::None, NOBODY] {
            pair(|pair| {
                let flow = Flow::inbound(pair, listen, to);
                let mut running = Transfer::new(&flow, Sender::Pod, MUCH);
                running.fill();
                let mut enforcer = isolate(INBOUND, Isolation::Only(&[peer]), egress);
                running.finish();
                flows(&flow, Sender::Peer, MUCH);
                assert_eq!(denied(&mut enforcer), 0);
            });
        }
    }
}

#[test]
fn s107_a_download_from_an_allowed_server_goes_on() {
    for server in [PEER, PEER6] {
        for ingress in [Isolation::None, NOBODY] {
            pair(|pair| {
                let flow = Flow::outbound(pair, server);
                let mut running = Transfer::new(&flow, Sender::Peer, MUCH);
                running.fill();
                let mut enforcer = isolate(OUTBOUND, ingress, Isolation::Only(&[server]));
                running.finish();
                flows(&flow, Sender::Pod, MUCH);
                assert_eq!(denied(&mut enforcer), 0);
            });
        }
    }
}

#[test]
fn s105_a_download_from_a_denied_server_stops() {
    for server in [PEER, PEER6] {
        pair(|pair| {
            let flow = Flow::outbound(pair, server);
            flows(&flow, Sender::Peer, 1000);
            let mut enforcer = isolate(OUTBOUND, Isolation::None, NOBODY);
            stopped(&flow, &mut enforcer, Sender::Peer);
            stopped(&flow, &mut enforcer, Sender::Pod);
            stopped(&flow, &mut enforcer, Sender::Peer);
        });
    }
}

#[test]
fn s101_a_download_goes_on_when_only_ingress_is_isolated() {
    pair(|pair| {
        let flow = Flow::outbound(pair, PEER);
        flows(&flow, Sender::Peer, 1000);
        let mut enforcer = isolate(OUTBOUND, NOBODY, Isolation::None);
        flows(&flow, Sender::Peer, MUCH);
        assert_eq!(denied(&mut enforcer), 0);
    });
}

#[test]
fn s107_without_entries_a_download_would_stall() {
    pair(|pair| {
        let flow = Flow::outbound(pair, PEER);
        flows(&flow, Sender::Peer, 1000);
        let mut enforcer = enforce(NOBODY, Isolation::None);
        stopped(&flow, &mut enforcer, Sender::Peer);
    });
}

#[test]
fn s105_a_listener_that_is_gone_makes_no_difference() {
    pair(|pair| {
        let Flow {
            pod,
            peer,
            _listener: listener,
        } = Flow::inbound(pair, "0.0.0.0", POD);
        drop(listener);
        assert_eq!(track_established().unwrap(), INBOUND);
        drop((pod, peer));
    });
}

/// Whatever listens on its port, and whichever ports they are.
#[test]
fn s105_who_has_opened_cannot_be_hidden() {
    pair(|pair| {
        // The pod calls from a port on which it listens.
        let waits = pair.in_peer(|| TcpListener::bind((PEER, 50_000)).unwrap());
        let [listener, caller] = [(); 2].map(|()| sharing(libc::SOCK_STREAM, libc::SO_REUSEPORT, POD, 80));
        let to = sockaddr(PEER, 50_000);
        // SAFETY: live descriptors, and a pointer to a live value of the length given, of the type that the kernel reads here.
        unsafe {
            assert_eq!(libc::listen(listener.as_raw_fd(), 8), 0);
            let length = size(size_of_val(&to));
            assert_eq!(libc::connect(caller.as_raw_fd(), (&raw const to).cast(), length), 0);
        }
        let (peer, _) = waits.accept().unwrap();
        let flow = Flow::new((caller.into(), peer, waits), false);
        // With everything that can be on its way, in both directions.
        for sender in [Sender::Pod, Sender::Peer] {
            Transfer::new(&flow, sender, MUCH).fill();
        }
        let mut enforcer = isolate(OUTBOUND, Isolation::None, NOBODY);
        let before = denied(&mut enforcer);
        until("the drop", || (denied(&mut enforcer) >= before + 3).then_some(()));
        drop(listener);
    });
    pair(|pair| {
        // A server on a port that might have been chosen for a caller, and which takes nobody else.
        let listener = TcpListener::bind((POD, 40_000)).unwrap();
        let client = pair.in_peer(|| TcpStream::connect((POD, 40_000)).unwrap());
        let (server, _) = listener.accept().unwrap();
        drop(listener);
        assert_eq!(track_established().unwrap(), INBOUND);
        drop((client, server));
    });
}

#[test]
fn s107_half_closed_connections_go_on() {
    pair(|pair| {
        // The peer has asked and closed its half; the answer is on its way.
        let flow = Flow::inbound(pair, "0.0.0.0", POD);
        flow.peer.shutdown(std::net::Shutdown::Write).unwrap();
        let mut pod = &flow.pod;
        until("the end", || matches!(pod.read(&mut [0; 1]), Ok(0)).then_some(()));
        let mut enforcer = isolate(INBOUND, Isolation::Only(&[PEER]), NOBODY);
        flows(&flow, Sender::Pod, MUCH);
        flow.pod.shutdown(std::net::Shutdown::Write).unwrap();
        let mut peer = &flow.peer;
        until("the end", || matches!(peer.read(&mut [0; 1]), Ok(0)).then_some(()));
        assert_eq!(denied(&mut enforcer), 0);
    });
}

#[test]
fn s107_a_handshake_in_progress_is_finished() {
    pair(|pair| {
        // Nothing of the peer's leaves: SYN and answer meet nobody until the rules are there.
        pair.in_peer(|| {
            common::nft_load(
                "table inet wall {\n chain leave {\n type filter hook postrouting priority 0\n meta l4proto tcp drop\n }\n}\n",
            );
        });
        let _listener = pair.in_peer(|| TcpListener::bind((PEER, 80)).unwrap());
        let client = std::thread::spawn(|| TcpStream::connect((PEER, 80)));
        until("the SYN", || {
            run("ss", &["-Htn", "state", "syn-sent"]).contains(PEER).then_some(())
        });
        let enforcer = isolate(OUTBOUND, NOBODY, Isolation::Only(&[PEER]));
        assert!(run("conntrack", &["-L", "-p", "tcp"]).contains("SYN_SENT"));
        pair.in_peer(|| common::nft(&["delete", "table", "inet", "wall"]));
        client.join().unwrap().unwrap();
        drop(enforcer);
    });
}

#[test]
fn s107_a_connection_that_waits_for_its_last_handshake_packet() {
    pair(|pair| {
        let listener = TcpListener::bind((POD, 80)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut client = pair.in_peer(|| {
            common::nft_load(
                "table inet wall {\n chain leave {\n type filter hook postrouting priority 0\n tcp flags & (syn | ack) == ack drop\n }\n}\n",
            );
            TcpStream::connect((POD, 80)).unwrap()
        });
        let enforcer = isolate(INBOUND, Isolation::Only(&[PEER]), NOBODY);
        assert!(run("conntrack", &["-L", "-p", "tcp"]).contains("SYN_RECV"));
        pair.in_peer(|| common::nft(&["delete", "table", "inet", "wall"]));
        client.write_all(b"hello").unwrap();
        let (mut server, _) = until("the connection", || listener.accept().ok());
        server.set_nonblocking(false).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = [0; 5];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(enforcer);
    });
}

#[test]
fn what_conntrack_knows_is_left_alone_and_lo_is_left_out() {
    pair(|pair| {
        let flow = Flow::inbound(pair, "0.0.0.0", POD);
        for own in ["127.0.0.1", POD] {
            let listener = TcpListener::bind((own, 81)).unwrap();
            let ends = (TcpStream::connect((own, 81)).unwrap(), listener.accept().unwrap());
            assert!(track_established().unwrap().outbound == 0);
            drop(ends);
        }
        let again = Tracked {
            inbound: 0,
            outbound: 0,
            skipped: 1,
        };
        assert_eq!(track_established().unwrap(), again);
        let entries = run("conntrack", &["-L"]);
        assert_eq!(entries.lines().count(), 1, "{entries}");
        let port = flow.peer.local_addr().unwrap().port();
        for part in [
            "ESTABLISHED",
            "[ASSURED]",
            &format!("src={PEER} dst={POD} sport={port} dport=80 src={POD} dst={PEER} sport=80 dport={port}"),
        ] {
            assert!(entries.contains(part), "{part}: {entries}");
        }
    });
}

#[test]
fn s105_connected_udp_sockets() {
    pair(|pair| {
        let connected = |local: SocketAddr, port: u16| {
            let socket = UdpSocket::bind(local).unwrap();
            socket.connect((PEER.parse::<IpAddr>().unwrap(), port)).unwrap();
            socket
        };
        let any = SocketAddr::new(address("0.0.0.0"), 0);
        let client = connected(any, 53);
        assert_eq!(track_established().unwrap(), OUTBOUND);
        drop(client);
        // A server that connects a socket of its own to each client.
        let server = bound_for_sharing(POD, 443);
        let conversation = bound_for_sharing(POD, 443);
        conversation.connect((PEER, 5000)).unwrap();
        let mut enforcer = isolate(INBOUND, NOBODY, Isolation::None);
        let receiver = pair.in_peer(|| UdpSocket::bind((PEER, 5000)).unwrap());
        receiver.set_nonblocking(true).unwrap();
        let before = denied(&mut enforcer);
        conversation.send(b"lost").unwrap_or_default();
        until("the drop", || (denied(&mut enforcer) > before).then_some(()));
        assert_eq!(count(receiver.recv(&mut [0; 16])), 0);
        drop(server);
    });
}

/// A UDP socket that shares its port with others that want so too.
fn bound_for_sharing(local: &str, port: u16) -> UdpSocket {
    sharing(libc::SOCK_DGRAM, libc::SO_REUSEADDR, local, port).into()
}

/// A socket that is bound with this option.
fn sharing(kind: libc::c_int, option: libc::c_int, local: &str, port: u16) -> OwnedFd {
    let one: libc::c_int = 1;
    // SAFETY: no pointers; the result is checked and owned by nothing else.
    let socket = unsafe {
        let raw = libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0);
        assert!(raw >= 0);
        OwnedFd::from_raw_fd(raw)
    };
    let target = sockaddr(local, port);
    // SAFETY: the pointers are to live values of the lengths given, of the types that the kernel reads here.
    unsafe {
        let length = size(size_of_val(&one));
        let pointer = (&raw const one).cast();
        let set = libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, pointer, length);
        assert_eq!(set, 0);
        let length = size(size_of_val(&target));
        assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const target).cast(), length), 0);
    }
    socket
}

fn sockaddr(text: &str, port: u16) -> libc::sockaddr_in {
    let IpAddr::V4(local) = address(text) else {
        panic!("IPv4")
    };
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("small"),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(local).to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn size(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).expect("small")
}

#[test]
fn thousands_of_connections_take_several_batches_and_dumps() {
    const MANY: usize = 3_000;
    pair(|pair| {
        let listener = TcpListener::bind(("::", 80)).unwrap();
        let mut ends = Vec::new();
        for number in 0..MANY {
            let to = if number % 2 == 0 { POD } else { POD6 };
            let client = pair.in_peer(|| TcpStream::connect((to, 80)).unwrap());
            ends.push((client, listener.accept().unwrap()));
        }
        let all = Tracked {
            inbound: MANY,
            ..Tracked::default()
        };
        let mut enforcer = isolate(all, Isolation::Only(&[PEER, PEER6]), NOBODY);
        for (peer, (pod, _)) in &mut ends {
            pod.write_all(b"x").unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            peer.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(denied(&mut enforcer), 0);
    });
}
