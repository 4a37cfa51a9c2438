//! A peer and a pod: two namespaces, one veth pair between them for each interface, and connections that have seen an
//! answer.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use ringfence_model::Family;
use ringfence_netlink::{Enforcer, Outcome};
use ringfence_ruleset::{KernelFeatures, Ruleset};
use ringfence_testkit::NamedNetns;

use crate::measure::{Cost, cpu_time};

/// Connections of a subject, each from an address of its own: where a peer's element happens to lie in a hash or a
/// tree is luck, and 16 of them even it out.
pub const FLOWS: u8 = 16;
/// The port that the policies allow.
pub const PORT: u16 = 5_000;
const CLIENT_PORT: u16 = 40_000;
/// Packets on each connection between two looks at the clock, which costs about a tenth of a packet.
const PACKETS: u8 = 4;
/// Measured bursts of a slice: about half a millisecond.
const BURSTS: u32 = 8;
/// Payload of a packet, in bytes.
const PAYLOAD: [u8; 64] = [0x5a; 64];

/// The pod's address on an interface. It lies in none of the [`blocks`].
pub fn pod_address(interface: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10 + interface, 0, 0, 2).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x20 + u16::from(interface), 0, 0, 0, 0, 0, 2).into(),
    }
}

/// One of the peer's addresses: in the middle of a block, so that no tree ends its search early at an interval's first
/// address, and in blocks from all over the tree.
pub fn peer_address(interface: u8, family: Family, flow: u8) -> IpAddr {
    let (first, length) = block(interface, family, 611 * u16::from(flow) + 8);
    match first {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + (1 << (31 - length)) + 1).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + (1 << (127 - length)) + 1).into(),
    }
}

/// So many blocks that neither touch nor overlap, of five lengths in turn, as CIDRs. The first 10,000 hold all of the
/// peer's addresses.
pub fn blocks(interface: u8, family: Family, count: u16) -> impl Iterator<Item = String> {
    (1..=count).map(move |number| {
        let (first, length) = block(interface, family, number);
        format!("{first}/{length}")
    })
}

/// First address and prefix length of a block.
fn block(interface: u8, family: Family, number: u16) -> (IpAddr, u32) {
    let length = u32::from(number % 5);
    match family {
        Family::V4 => {
            let network = Ipv4Addr::new(10 + interface, 0, 0, 0).to_bits();
            (
                Ipv4Addr::from_bits(network + u32::from(number) * 0x600).into(),
                24 + length,
            )
        }
        Family::V6 => {
            let network = 0x20 + u16::from(interface);
            (
                Ipv6Addr::new(0xfd00, network, number, 0, 0, 0, 0, 0).into(),
                52 + length,
            )
        }
    }
}

/// Who opened the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// Ingress.
    Peer,
    /// Egress.
    Pod,
}

/// Who sends the packets that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// They arrive at the pod.
    Peer,
    /// They leave the pod.
    Pod,
}

/// The rules of a pod.
pub enum Rules {
    /// None.
    None,
    /// nft text.
    Text(String),
    /// What the compiler has made.
    Compiled(Ruleset),
}

/// A pod with so many interfaces, and its peer.
pub struct World {
    peer: NamedNetns,
    pod: NamedNetns,
    interfaces: u8,
    /// Owns the pod's tables.
    _enforcer: Option<Enforcer>,
}

impl World {
    /// Makes both namespaces, wires them, and puts the rules into the pod's.
    pub fn create(number: usize, interfaces: u8, rules: &Rules, features: KernelFeatures) -> Result<Self> {
        let prefix = format!("rf-packets-p{}n{number}", std::process::id());
        let names = ["peer", "pod"].map(|end| format!("{prefix}-{end}"));
        let [peer, pod] = <[NamedNetns; 2]>::try_from(NamedNetns::create(&names)?)
            .ok()
            .context("two namespaces")?;
        let inside: Vec<String> = (0..interfaces).flat_map(pod_lines).collect();
        let outside: Vec<String> = (0..interfaces)
            .flat_map(|interface| peer_lines(interface, pod.name()))
            .collect();
        peer.ip(&outside)?;
        pod.ip(&inside)?;
        let enforcer = match rules {
            Rules::None => None,
            Rules::Text(text) => {
                pod.nft(text)?;
                None
            }
            Rules::Compiled(ruleset) => Some(pod.netns().run(|| install(ruleset, features))??),
        };
        Ok(Self {
            peer,
            pod,
            interfaces,
            _enforcer: enforcer,
        })
    }

    /// Established connections over the last interface.
    pub fn flows(&self, family: Family, opener: Opener) -> Result<Flows> {
        let interface = self.interfaces - 1;
        let (peer_port, pod_port) = match opener {
            Opener::Peer => (CLIENT_PORT, PORT),
            Opener::Pod => (PORT, CLIENT_PORT),
        };
        let mut flows = Flows {
            peer: Vec::new(),
            pod: Vec::new(),
        };
        for flow in 0..FLOWS {
            let pod_port = if opener == Opener::Pod {
                pod_port + u16::from(flow)
            } else {
                pod_port
            };
            let peer = SocketAddr::new(peer_address(interface, family, flow), peer_port);
            let pod = SocketAddr::new(pod_address(interface, family), pod_port);
            flows.peer.push(self.peer.netns().run(|| connected(peer, pod))??);
            flows.pod.push(self.pod.netns().run(|| connected(pod, peer))??);
        }
        let (first, second) = match opener {
            Opener::Peer => (Sender::Peer, Sender::Pod),
            Opener::Pod => (Sender::Pod, Sender::Peer),
        };
        for sender in [first, second] {
            ensure!(
                flows.burst(sender)?.is_some(),
                "no packets of the {sender:?} in {}",
                self.pod.name()
            );
        }
        Ok(flows)
    }
}

fn install(ruleset: &Ruleset, features: KernelFeatures) -> Result<Enforcer> {
    let mut enforcer = Enforcer::open(features)?;
    match enforcer.enforce(Some(ruleset))? {
        Outcome::Ruleset { .. } => Ok(enforcer),
        other => bail!("a whole ruleset was expected: {other:?}"),
    }
}

/// Its name at both ends.
pub fn interface_name(interface: u8) -> String {
    format!("net{}", interface + 1)
}

/// The MAC address of an end, so that neighbours are known without asking.
fn mac(interface: u8, pod: bool) -> String {
    format!("02:72:66:00:{interface:02x}:{:02x}", u8::from(pod))
}

fn peer_lines(interface: u8, pod: &str) -> Vec<String> {
    let name = interface_name(interface);
    let (ours, theirs) = (mac(interface, false), mac(interface, true));
    let mut lines = vec![
        format!("link add {name} address {ours} type veth peer name {name} address {theirs} netns {pod}"),
        format!("link set {name} up"),
    ];
    for family in Family::BOTH {
        for flow in 0..FLOWS {
            lines.push(add_address(peer_address(interface, family, flow), &name));
        }
        lines.push(add_neighbour(pod_address(interface, family), &theirs, &name));
    }
    lines
}

fn pod_lines(interface: u8) -> Vec<String> {
    let name = interface_name(interface);
    let mut lines = vec![format!("link set {name} up")];
    for family in Family::BOTH {
        lines.push(add_address(pod_address(interface, family), &name));
        let peers = (0..FLOWS).map(|flow| peer_address(interface, family, flow));
        lines.extend(peers.map(|peer| add_neighbour(peer, &mac(interface, false), &name)));
    }
    lines
}

fn add_address(address: IpAddr, device: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("address add {address}/8 dev {device}"),
        IpAddr::V6(address) => format!("address add {address}/32 dev {device} nodad"),
    }
}

fn add_neighbour(address: IpAddr, mac: &str, device: &str) -> String {
    format!("neighbour add {address} lladdr {mac} dev {device} nud permanent")
}

/// A socket of the calling thread's namespace. Several share a local port, which the standard library cannot say.
fn connected(from: SocketAddr, to: SocketAddr) -> Result<UdpSocket> {
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from)).with_context(|| format!("bind to {from}"))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).with_context(|| format!("connect to {to}"))?;
    Ok(fd.into())
}

/// Both ends of the connections.
pub struct Flows {
    peer: Vec<UdpSocket>,
    pod: Vec<UdpSocket>,
}

impl Flows {
    /// One slice.
    pub fn slice(&self, sender: Sender) -> Result<Option<Cost>> {
        // The first burst brings the caches back.
        let mut valid = self.burst(sender)?.is_some();
        let (mut sent, mut delivered) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..BURSTS {
            match self.burst(sender)? {
                Some(burst) => {
                    sent += burst.0;
                    delivered += burst.1;
                }
                None => valid = false,
            }
        }
        let packets = f64::from(BURSTS) * f64::from(FLOWS) * f64::from(PACKETS);
        let of_one = |time: Duration| time.as_secs_f64() * 1e9 / packets;
        Ok(valid.then(|| Cost {
            sent: of_one(sent),
            delivered: of_one(delivered),
        }))
    }

    /// Sends a burst and takes it out at the other end: CPU time of the first, and of both. `None`: packets were
    /// received later than in the call that sent them, so somebody else has borne part of their cost. A lost packet is
    /// an error.
    fn burst(&self, sender: Sender) -> Result<Option<(Duration, Duration)>> {
        let (from, to) = match sender {
            Sender::Peer => (&self.peer, &self.pod),
            Sender::Pod => (&self.pod, &self.peer),
        };
        let begun = cpu_time()?;
        for socket in (0..PACKETS).flat_map(|_| from) {
            socket.send(&PAYLOAD)?;
        }
        let sent = cpu_time()?;
        let mut late = 0;
        let mut buffer = [0; PAYLOAD.len()];
        for socket in (0..PACKETS).flat_map(|_| to) {
            match socket.recv(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => late += 1,
                Err(error) => return Err(error.into()),
            }
        }
        let delivered = cpu_time()?;
        if late > 0 {
            collect(to, late)?;
            return Ok(None);
        }
        Ok(Some((sent.saturating_sub(begun), delivered.saturating_sub(begun))))
    }
}

/// Waits for so many more packets.
fn collect(sockets: &[UdpSocket], mut missing: usize) -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(1);
    let mut buffer = [0; PAYLOAD.len()];
    while missing > 0 {
        ensure!(Instant::now() < patience, "{missing} packets were lost");
        std::thread::yield_now();
        for socket in sockets {
            match socket.recv(&mut buffer) {
                Ok(_) => missing = missing.saturating_sub(1),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
