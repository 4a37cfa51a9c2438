//! Packets that no socket makes, sent by hand to a pod on network blue: whether they pass its rules must be what the
//! tracer says, and what the oracle says where the statements say anything.
//!
//! A table of the test's own in each pod writes down the number of every such packet, once before anything has looked at
//! it and once after Ringfence's rules. A packet that is dropped is in the first list and not in the second.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_model::{Direction, Family, Protocol};
use ringfence_policy::evaluate::{Decision, L4, evaluate_at};
use ringfence_ruleset::{Conntrack, Content, CtDirection, Packet, Path, Transport};
use ringfence_testkit::{RawSender, frame::Frame};
use serde_json::Value;

use crate::frames::{Header, SENDER_TEXT, target_mac};
use crate::script::{World, interface, uid};
use crate::stage::{BLUE, Stage};

/// The interface on blue, and its position, in every pod that has one.
const INTERFACE: &str = "net1";
const ATTACHMENT: usize = 1;
/// The pods on blue.
const TARGETS: [usize; 4] = [0, 1, 2, 3];
/// How long frames may take to arrive; normally microseconds.
const ARRIVAL: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// A datagram to this port.
    Datagram(u16),
    /// The same in two fragments (125).
    Fragments(u16),
    /// The first segment of a TCP connection.
    Syn(u16),
    /// A segment in the middle of a TCP connection that nobody knows (106).
    Ack(u16),
    /// The first chunk of an SCTP association.
    Init(u16),
    /// An IP protocol without ports (113).
    Protocol(u8),
    /// An echo request.
    Echo,
    /// An echo answer that nobody asked for (109).
    StrayAnswer,
    /// An ICMP error about a connection that nobody knows (109).
    StrayError,
    /// An ICMP error about the answer to a datagram to this port, sent after that datagram (102).
    ErrorAbout(u16),
    /// An ICMPv6 message: type, code, hop limit (121, 122).
    Message(u8, u8, u8),
}

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shot {
    what: What,
    family: Family,
    to: usize,
    source: IpAddr,
    /// `None`: the pod's own address.
    group: Option<IpAddr>,
}

/// How many were sent, and of which kind some passed and some were dropped.
#[derive(Debug, Default)]
pub struct Tally {
    kinds: BTreeMap<(&'static str, bool), usize>,
}

impl Tally {
    /// Fails where a kind of packet always or never passed.
    pub fn require_everything(&self) {
        for kind in KINDS {
            for passed in [true, false] {
                let word = if passed { "passed" } else { "was dropped" };
                assert!(self.kinds.contains_key(&(kind, passed)), "{kind} never {word}\n{self}");
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.kinds.values().sum();
        write!(f, "{all} frames by hand")?;
        for ((kind, passed), count) in &self.kinds {
            write!(f, ", {kind} {} {count}", if *passed { "passed" } else { "dropped" })?;
        }
        Ok(())
    }
}

const KINDS: [&str; 11] = [
    "datagram",
    "fragments",
    "segment",
    "association",
    "protocol without ports",
    "echo",
    "stray",
    "related error",
    "router message",
    "group",
    "ND from afar",
];

impl Shot {
    fn kind(&self) -> &'static str {
        match self.what {
            _ if self.group.is_some() => "group",
            What::Datagram(_) => "datagram",
            What::Fragments(_) => "fragments",
            What::Syn(_) | What::Ack(_) => "segment",
            What::Init(_) => "association",
            What::Protocol(_) => "protocol without ports",
            What::Echo => "echo",
            What::StrayAnswer | What::StrayError => "stray",
            What::ErrorAbout(_) => "related error",
            What::Message(133 | 137, 0, 255) => "router message",
            What::Message(133..=137, ..) => "ND from afar",
            What::Message(..) => "listener discovery",
        }
    }

    /// What the oracle can be asked.
    fn l4(&self) -> Option<L4> {
        match self.what {
            What::Datagram(port) | What::Fragments(port) | What::ErrorAbout(port) => Some(L4::udp(port)),
            What::Syn(port) | What::Ack(port) => Some(L4::tcp(port)),
            What::Init(port) => Some(L4::sctp(port)),
            What::Protocol(number) => Some(L4::Other(number)),
            What::Echo => Some(match self.family {
                Family::V4 => L4::Other(1),
                Family::V6 => L4::Icmpv6 { message: 128 },
            }),
            What::Message(message, 0, 255) | What::Message(message @ (130..=132 | 143), ..) => {
                Some(L4::Icmpv6 { message })
            }
            What::StrayAnswer | What::StrayError | What::Message(..) => None,
        }
    }
}

/// Where frames are sent from and watched.
pub struct Range {
    sender: RawSender,
    targets: BTreeMap<usize, Target>,
}

struct Target {
    mac: [u8; 6],
    addresses: Vec<IpAddr>,
    /// Those of all its interfaces: a packet that claims to come from one of them is dropped by the routes as a Martian,
    /// after it has passed the rules, and leaves no connection behind.
    own: BTreeSet<IpAddr>,
}

impl Range {
    /// Puts the watching tables into the pods.
    pub fn new(stage: &Stage) -> Result<Self> {
        let mut targets = BTreeMap::new();
        for number in TARGETS {
            let pod = &stage.pods[number];
            pod.nft(&watch())?;
            let it = pod.interfaces.get(ATTACHMENT).context("an interface on blue")?;
            ensure!(it.network == BLUE && it.name == INTERFACE, "{it:?} is not on blue");
            targets.insert(
                number,
                Target {
                    mac: it.mac,
                    addresses: it.addresses.clone(),
                    own: pod.interfaces.iter().flat_map(|it| it.addresses.clone()).collect(),
                },
            );
        }
        Ok(Self {
            sender: RawSender::open(&stage.raw, INTERFACE)?,
            targets,
        })
    }

    /// What is sent in a universe with this sample.
    pub fn shots(&self, sample: u64) -> Vec<Shot> {
        let mut out = Vec::new();
        for to in TARGETS {
            for family in Family::BOTH {
                for (number, what) in whats(family).into_iter().enumerate() {
                    let mut dice = DefaultHasher::new();
                    (sample, to, family, number).hash(&mut dice);
                    let dice = dice.finish();
                    let sources: Vec<IpAddr> = self.sources(to, family);
                    let pick = |list: &[IpAddr], dice: u64| {
                        let count = u64::try_from(list.len()).unwrap_or(1);
                        usize::try_from(dice % count).ok().and_then(|it| list.get(it).copied())
                    };
                    let Some(source) = pick(&sources, dice) else { continue };
                    // One datagram in four goes to many (124).
                    let group = matches!(what, What::Datagram(_)) && (dice >> 32).is_multiple_of(4);
                    let group = group.then(|| pick(&groups(family), dice >> 40)).flatten();
                    out.push(Shot {
                        what,
                        family,
                        to,
                        source,
                        group,
                    });
                }
            }
        }
        out
    }

    /// Who may be named as the sender: the other pods, p4 whose address is one of theirs, and outsiders.
    fn sources(&self, to: usize, family: Family) -> Vec<IpAddr> {
        let others = self.targets.iter().filter(|(number, _)| **number != to);
        let mut out: Vec<IpAddr> = others.flat_map(|(_, target)| target.addresses.clone()).collect();
        let outside = ["192.0.2.7", "10.22.1.13", "2001:db8::7", "fd00:22::1:13"];
        out.extend(outside.iter().filter_map(|text| text.parse::<IpAddr>().ok()));
        let own = self.targets.get(&to).map(|target| &target.own);
        out.retain(|it| Family::of(*it) == family && !own.is_some_and(|own| own.contains(it)));
        out
    }

    /// Sends everything and compares. The first packet that is not judged alike comes back with the reasons.
    pub fn fire(
        &self,
        stage: &Stage,
        world: &World,
        shots: &[Shot],
        tally: &mut Tally,
    ) -> Result<Option<(Shot, String)>> {
        if shots.is_empty() {
            return Ok(None);
        }
        for to in TARGETS {
            let flush = LISTS.map(|list| format!("flush set inet rf-watch {list}\n")).concat();
            stage.pods[to].nft(&flush)?;
        }
        let first = 16_u16;
        let mut sent: Vec<(&Shot, u16, u16)> = Vec::new();
        let mut expected: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        for (number, shot) in (first..).zip(shots) {
            let client = client();
            for frame in self.frames(shot, number, client) {
                self.sender.send(&frame)?;
            }
            expected.entry(shot.to).or_default().insert(number.into());
            sent.push((shot, number, client));
        }
        wait(stage, &expected)?;
        // Errors about connections that the first round has made.
        let errors = 10_000_u16;
        let mut judged = Vec::new();
        for (shot, number, client) in sent {
            let mut number = number;
            if let What::ErrorAbout(port) = shot.what {
                number += errors;
                self.sender.send(&self.error_about(shot, number, client, port))?;
                expected.entry(shot.to).or_default().insert(number.into());
            }
            judged.push((shot, number));
        }
        wait(stage, &expected)?;
        let mut seen = BTreeMap::new();
        for to in expected.keys() {
            seen.insert(*to, lists(stage, *to)?.1);
        }
        for (shot, number) in judged {
            let passed = seen.get(&shot.to).is_some_and(|it| it.contains(&number.into()));
            *tally.kinds.entry((shot.kind(), passed)).or_default() += 1;
            let traced = self.traced(world, shot)?;
            let oracle = oracle(world, shot)?;
            if passed != traced || oracle.is_some_and(|oracle| oracle != traced) {
                let said = |passes| if passes { "passes" } else { "is dropped" };
                let why = format!(
                    "{shot:?}\noracle: {}\ntracer: {}\nkernel: {}\n{}",
                    oracle.map_or("does not say", said),
                    said(traced),
                    said(passed),
                    world.rules(&[shot.to])
                );
                return Ok(Some((*shot, why)));
            }
        }
        Ok(None)
    }

    fn header(&self, shot: &Shot, number: u16) -> Header {
        let target = &self.targets[&shot.to];
        let own = target.addresses.iter().find(|it| Family::of(**it) == shot.family);
        let destination = shot.group.or(own.copied()).unwrap_or(shot.source);
        let hop_limit = match shot.what {
            What::Message(_, _, hop_limit) => hop_limit,
            _ => 64,
        };
        Header {
            target: target_mac(destination, target.mac),
            source: shot.source,
            destination,
            hop_limit,
            number,
        }
    }

    fn frames(&self, shot: &Shot, number: u16, client: u16) -> Vec<Vec<u8>> {
        let header = self.header(shot, number);
        let icmp = match shot.family {
            Family::V4 => 1,
            Family::V6 => 58,
        };
        let one = |protocol, payload: &[u8]| vec![header.whole(protocol, payload)];
        match shot.what {
            What::Datagram(port) | What::ErrorAbout(port) => one(17, &header.udp(client, port, b"by hand")),
            What::Fragments(port) => {
                let payload = header.udp(client, port, &[b'x'; 64]);
                // The first one has the ports or, with 8 bytes, no more than them.
                header.fragments(17, &payload, 8).to_vec()
            }
            What::Syn(port) => one(6, &header.tcp(client, port, 2)),
            What::Ack(port) => one(6, &header.tcp(client, port, 16)),
            What::Init(port) => {
                let frame = Frame {
                    source_mac: [0; 6],
                    target_mac: [0; 6],
                    source: SocketAddr::new(shot.source, client),
                    target: SocketAddr::new(header.destination, port),
                };
                let segment = match shot.family {
                    Family::V4 => 34,
                    Family::V6 => 54,
                };
                one(132, &frame.sctp_init()[segment..])
            }
            What::Protocol(number) => one(number, &[0; 16]),
            What::Echo | What::StrayAnswer => {
                let kind = match (shot.family, shot.what == What::Echo) {
                    (Family::V4, true) => 8,
                    (Family::V4, false) => 0,
                    (Family::V6, true) => 128,
                    (Family::V6, false) => 129,
                };
                let [high, low] = client.to_be_bytes();
                one(icmp, &header.icmp(kind, 0, &[high, low, 0, 1]))
            }
            What::StrayError => vec![self.error_about(shot, number, client, 9)],
            What::Message(kind, code, _) => one(icmp, &header.icmp(kind, code, &message(kind, header.destination))),
        }
    }

    /// Destination unreachable, about the answer to a datagram from port `client` to `port`.
    fn error_about(&self, shot: &Shot, number: u16, client: u16, port: u16) -> Vec<u8> {
        let header = self.header(shot, number);
        let answer = Header {
            source: header.destination,
            destination: header.source,
            ..header
        };
        let quoted = answer.quoted(17, &answer.udp(port, client, b"answer"));
        let rest = [&[0; 4][..], &quoted].concat();
        match shot.family {
            Family::V4 => header.whole(1, &header.icmp(3, 3, &rest)),
            Family::V6 => header.whole(58, &header.icmp(1, 4, &rest)),
        }
    }

    /// What the tracer says of a packet.
    fn traced(&self, world: &World, shot: &Shot) -> Result<bool> {
        let header = self.header(shot, 1);
        let tracked = |related| Conntrack::Tracked {
            direction: CtDirection::Original,
            related,
            original_source: header.source,
            reply_source: header.destination,
        };
        let icmp = |kind, code| Transport::Icmp {
            protocol: shot.family,
            kind,
            code,
        };
        let ports = |protocol, port| Transport::Ports {
            protocol,
            source: 40_000,
            destination: port,
        };
        let v4 = shot.family == Family::V4;
        let error = if v4 { icmp(3, 3) } else { icmp(1, 4) };
        let (transport, conntrack) = match shot.what {
            What::Datagram(port) | What::Fragments(port) => (ports(Protocol::Udp, port), tracked(false)),
            What::Syn(port) | What::Ack(port) => (ports(Protocol::Tcp, port), tracked(false)),
            What::Init(port) => (ports(Protocol::Sctp, port), tracked(false)),
            What::Protocol(number) => (Transport::Other(number), tracked(false)),
            What::Echo => (icmp(if v4 { 8 } else { 128 }, 0), tracked(false)),
            What::StrayAnswer => (icmp(if v4 { 0 } else { 129 }, 0), Conntrack::Invalid),
            What::StrayError => (error, Conntrack::Invalid),
            What::ErrorAbout(port) => {
                // A datagram that is dropped leaves no connection behind to which the error could belong.
                let datagram = Shot {
                    what: What::Datagram(port),
                    ..*shot
                };
                let known = self.traced(world, &datagram)?;
                (error, if known { tracked(true) } else { Conntrack::Invalid })
            }
            What::Message(137, ..) => (icmp(137, 0), Conntrack::Invalid),
            What::Message(kind, code, _) => (icmp(kind, code), Conntrack::Untracked),
        };
        world.passes(
            shot.to,
            &Packet {
                path: Path::Arrives(interface(INTERFACE)),
                content: Content::Ip {
                    source: header.source,
                    destination: header.destination,
                    hop_limit: header.hop_limit,
                    transport,
                },
                conntrack,
                source_local: false,
            },
        )
    }
}

/// Waits until every one of these has arrived, whatever then became of it.
fn wait(stage: &Stage, expected: &BTreeMap<usize, BTreeSet<u64>>) -> Result<()> {
    let deadline = Instant::now() + ARRIVAL;
    for (to, numbers) in expected {
        loop {
            let (came, _) = lists(stage, *to)?;
            let missing: Vec<&u64> = numbers.difference(&came).collect();
            if missing.is_empty() {
                break;
            }
            ensure!(Instant::now() < deadline, "frames {missing:?} do not arrive at p{to}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// What the oracle says, where the statements say anything.
fn oracle(world: &World, shot: &Shot) -> Result<Option<bool>> {
    let isolated = world.isolated(shot.to, ATTACHMENT, Direction::Ingress)?;
    let allows = |l4| {
        let verdict = evaluate_at(
            &world.universe,
            &uid(shot.to),
            ATTACHMENT,
            Direction::Ingress,
            shot.source,
            l4,
        );
        verdict.decision == Decision::Allow
    };
    Ok(match (shot.what, shot.l4()) {
        // 109: part of no connection.
        (What::StrayAnswer | What::StrayError, _) => Some(!isolated),
        // 102: with the connection. After a denied one there is nothing that the error could be about.
        (_, Some(l4)) => Some(allows(l4)),
        // 122: no exemption; what has come over a router is no ND, and what may do everything may send that too.
        (_, None) if !isolated => Some(true),
        (_, None) => (!allows(L4::Other(47))).then_some(false),
    })
}

/// What is sent to each pod, in the order of the samples.
fn whats(family: Family) -> Vec<What> {
    let mut out = vec![
        What::Datagram(80),
        What::Datagram(443),
        What::Datagram(67),
        What::Fragments(81),
        What::Fragments(1001),
        What::Syn(82),
        What::Syn(9),
        What::Ack(80),
        What::Init(80),
        What::Init(1000),
        What::Protocol(47),
        What::Protocol(50),
        What::Echo,
        What::StrayAnswer,
        What::StrayError,
        What::ErrorAbout(82),
        What::ErrorAbout(443),
    ];
    match family {
        Family::V4 => out.push(What::Protocol(2)),
        Family::V6 => {
            out.extend([133, 134, 135, 136, 137].map(|kind| What::Message(kind, 0, 255)));
            out.extend([133, 134, 135, 136].map(|kind| What::Message(kind, 0, 64)));
            out.extend([What::Message(135, 1, 255), What::Message(134, 3, 255)]);
            out.extend([130, 131, 132, 143].map(|kind| What::Message(kind, 0, 1)));
        }
    }
    out
}

/// Destinations that many hear.
fn groups(family: Family) -> Vec<IpAddr> {
    let texts: &[&str] = match family {
        Family::V4 => &["10.21.255.255", "255.255.255.255", "224.0.0.1", "239.1.2.3"],
        Family::V6 => &["ff02::1", "ff02::fb", "ff05::2"],
    };
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The rest of an ICMPv6 message, without options, so that nobody's neighbour table learns from it.
fn message(kind: u8, target: IpAddr) -> Vec<u8> {
    let target = match target {
        IpAddr::V6(it) => it.octets(),
        IpAddr::V4(it) => it.to_ipv6_mapped().octets(),
    };
    match kind {
        133 | 143 => vec![0; 4],
        134 => vec![0; 12],
        135 | 136 => [&[0; 4][..], &target].concat(),
        137 => [&[0; 4][..], &target, &target].concat(),
        _ => vec![0; 20],
    }
}

/// A port, or an echo identifier, that no earlier packet of this run had.
fn client() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    30_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 30_000
}

/// Before and after, IPv4 and IPv6.
const LISTS: [&str; 4] = ["came4", "came6", "seen4", "seen6"];

/// The table that writes down what arrives, and what is left of it after Ringfence.
fn watch() -> String {
    let set = |list: &str| {
        let key = if list.ends_with('4') { "ip id" } else { "ip6 flowlabel" };
        format!("set {list} {{ typeof {key}; flags dynamic; size 65535; }}\n")
    };
    let sets = LISTS.map(set).concat();
    let chain = |name: &str, priority: i32| {
        let rule = |key: &str, list: String| format!("ether saddr {SENDER_TEXT} {key} != 0 add @{list} {{ {key} }}\n");
        format!(
            "chain {name} {{ type filter hook prerouting priority {priority};\n{}{} }}\n",
            rule("ip id", format!("{name}4")),
            rule("ip6 flowlabel", format!("{name}6"))
        )
    };
    // Before defragmentation (-400), and after everything.
    format!(
        "table inet rf-watch {{\n{sets}{}{} }}\n",
        chain("came", -450),
        chain("seen", 300)
    )
}

/// The numbers that have arrived at a pod, and those that have passed.
fn lists(stage: &Stage, pod: usize) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
    let text = stage.pods[pod].exec("nft", &["-j", "list", "sets", "table", "inet", "rf-watch"])?;
    let value: Value = serde_json::from_str(&text).context("read nft's answer")?;
    let (mut came, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for item in value["nftables"].as_array().into_iter().flatten() {
        let set = &item["set"];
        let list = match set["name"].as_str() {
            Some("came4" | "came6") => &mut came,
            Some("seen4" | "seen6") => &mut seen,
            _ => continue,
        };
        list.extend(set["elem"].as_array().into_iter().flatten().filter_map(Value::as_u64));
    }
    Ok((came, seen))
}
