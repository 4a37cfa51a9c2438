//! Packets that open no connection: invalid ones, ND from far away, forwarded ones, frames of packet sockets, forged
//! sources, interfaces that nothing explains.

use std::net::IpAddr;

use ringfence_model::{Direction, Family, InterfaceName, Peers, Policy, PolicyKey, Ports, Protocol};
use ringfence_policy::evaluate::{AttachmentRef, Because, Decision, L4, evaluate_at};
use ringfence_ruleset::{Conntrack, Content, CtDirection, Packet, Path, Transport};

use crate::cover::Cover;
use crate::generate::{ADDRESSES, OUTSIDE};
use crate::packets::{Kind, Talk, packet};
use crate::world::{Judges, address, interface};

/// What a run must come across, each passing and dropped.
pub const KINDS: [&str; 7] = [
    "invalid arriving",
    "invalid leaving",
    "forwarded",
    "forwarded answer",
    "frame of a packet socket",
    "frame of a DHCP client",
    "forged source",
];

/// Everything of this kind at every interface of every local pod.
pub fn check(judges: &Judges<'_>, cover: &mut Cover) -> Result<(), String> {
    for uid in &judges.local {
        if judges.ruleset(uid).is_none() {
            continue;
        }
        let Some(pod) = judges.world.universe.pods.get(uid) else {
            continue;
        };
        for index in 0..pod.attachments.len() {
            let Some(at) = judges.world.universe.attachment(uid, index) else {
                continue;
            };
            let Some(name) = &at.attachment.interface else { continue };
            let stray = Stray { judges, at, name };
            stray
                .check(cover)
                .map_err(|why| format!("stray packet at {name} of {uid}: {why}"))?;
        }
    }
    Ok(())
}

struct Stray<'a> {
    judges: &'a Judges<'a>,
    at: AttachmentRef<'a>,
    name: &'a InterfaceName,
}

impl Stray<'_> {
    fn check(&self, cover: &mut Cover) -> Result<(), String> {
        for family in Family::BOTH {
            let (other, own) = match family {
                Family::V4 => (self.somebody(family), address("10.20.1.200")),
                Family::V6 => (self.somebody(family), address("fd00:20::200")),
            };
            self.invalid(own, other, cover)?;
            self.frames(own, other, cover)?;
            self.forged(other, cover)?;
            self.unexplained(own, other, cover)?;
            self.forwarded(family, cover)?;
        }
        self.neighbours_from_afar(cover)
    }

    fn somebody(&self, family: Family) -> IpAddr {
        let all: Vec<IpAddr> = ADDRESSES
            .iter()
            .chain(&OUTSIDE)
            .map(|text| address(text))
            .filter(|it| Family::of(*it) == family)
            .collect();
        *self
            .judges
            .world
            .choose((&self.at.pod.uid, self.at.index, "somebody"), &all)
    }

    fn expect(&self, what: &str, packet: &Packet, wanted: bool, cover: &mut Cover) -> Result<(), String> {
        let word = if wanted { "passes" } else { "drops" };
        cover.met(format!("stray {what} {word}"));
        self.judges.expect(&self.at.pod.uid, packet, wanted, &what, cover)
    }

    /// 109: neither invalid nor untracked packets are part of a connection.
    fn invalid(&self, own: IpAddr, other: IpAddr, cover: &mut Cover) -> Result<(), String> {
        for conntrack in [Conntrack::Invalid, Conntrack::Untracked] {
            for (what, direction) in [
                ("invalid arriving", Direction::Ingress),
                ("invalid leaving", Direction::Egress),
            ] {
                let arrives = direction == Direction::Ingress;
                let (source, destination) = if arrives { (other, own) } else { (own, other) };
                let packet = Packet {
                    path: if arrives {
                        Path::Arrives(self.name.clone())
                    } else {
                        Path::Leaves(self.name.clone())
                    },
                    conntrack,
                    ..tcp(source, destination)
                };
                let isolated = self.judges.world.isolated(self.at, direction);
                self.expect(what, &packet, !isolated, cover)?;
            }
        }
        Ok(())
    }

    /// 122: ND with another hop limit has come from another link, and one with another code is none.
    fn neighbours_from_afar(&self, cover: &mut Cover) -> Result<(), String> {
        let (own, other) = (address("fd00:20::200"), address("2001:db8:9::9"));
        let may = self.may(Direction::Ingress, other, L4::Other(47));
        if !self.judges.world.isolated(self.at, Direction::Ingress) || may {
            return Ok(());
        }
        for (kind, hop_limit, code) in [(135, 64, 0), (136, 254, 0), (134, 255, 1), (135, 255, 1)] {
            let packet = Packet {
                path: Path::Arrives(self.name.clone()),
                content: Content::Ip {
                    source: other,
                    destination: own,
                    hop_limit,
                    transport: Transport::Icmp {
                        protocol: Family::V6,
                        kind,
                        code,
                    },
                },
                conntrack: Conntrack::Untracked,
                source_local: false,
            };
            self.expect("neighbour from afar", &packet, false, cover)?;
        }
        Ok(())
    }

    /// Section 4 of the design: what a packet socket sends has not been judged, so it does not leave where anything is
    /// denied. ARP passes (115).
    fn frames(&self, own: IpAddr, other: IpAddr, cover: &mut Cover) -> Result<(), String> {
        let restricted = self.judges.world.facts && self.restricted();
        let raw = Packet {
            path: Path::Raw(self.name.clone()),
            ..tcp(own, other)
        };
        self.expect("frame of a packet socket", &raw, !restricted, cover)?;
        // 123: DHCP clients use packet sockets.
        let (client, server) = if own.is_ipv4() { (68, 67) } else { (546, 547) };
        let universe = &self.judges.world.universe;
        let asked = L4::udp(server);
        let verdict = evaluate_at(
            universe,
            &self.at.pod.uid,
            self.at.index,
            Direction::Egress,
            other,
            asked,
        );
        let request = Packet {
            content: Content::Ip {
                source: own,
                destination: other,
                hop_limit: 64,
                transport: Transport::Ports {
                    protocol: Protocol::Udp,
                    source: client,
                    destination: server,
                },
            },
            ..raw.clone()
        };
        let wanted = !restricted || verdict.because == Because::Dhcp;
        self.expect("frame of a DHCP client", &request, wanted, cover)?;
        for (ether_type, wanted) in [(0x0806, true), (0x8100, !restricted), (0x88cc, true)] {
            let frame = Packet {
                content: Content::Other(ether_type),
                ..raw.clone()
            };
            self.expect("frame of another protocol", &frame, wanted, cover)?;
        }
        Ok(())
    }

    /// Whether something that this interface sends may be denied.
    fn restricted(&self) -> bool {
        let universe = &self.judges.world.universe;
        let nobody = address("203.0.113.77");
        let verdict = evaluate_at(
            universe,
            &self.at.pod.uid,
            self.at.index,
            Direction::Egress,
            nobody,
            L4::Other(47),
        );
        let rules = |key: &PolicyKey| universe.policies.get(key).and_then(|it: &Policy| it.egress.as_deref());
        let all = verdict
            .isolating
            .iter()
            .filter_map(rules)
            .flatten()
            .any(|rule| rule.peers == Peers::All && rule.ports == Ports::All);
        !verdict.isolating.is_empty() && !all
    }

    /// What the pod itself sends carries an address of its own, where anything is denied.
    fn forged(&self, other: IpAddr, cover: &mut Cover) -> Result<(), String> {
        let forged = address(if other.is_ipv4() {
            "198.51.100.66"
        } else {
            "2001:db8:9::66"
        });
        let packet = Packet {
            path: Path::Leaves(self.name.clone()),
            source_local: false,
            ..tcp(forged, other)
        };
        let wanted = !self.restricted() && self.may(Direction::Egress, other, L4::tcp(80));
        self.expect("forged source", &packet, wanted, cover)
    }

    /// 168: the pod is isolated somewhere, so what nothing explains is closed, both ways.
    fn unexplained(&self, own: IpAddr, other: IpAddr, cover: &mut Cover) -> Result<(), String> {
        for path in [Path::Arrives(interface("eth77")), Path::Leaves(interface("eth77"))] {
            let packet = Packet {
                path,
                ..tcp(own, other)
            };
            self.expect("unexplained interface", &packet, false, cover)?;
        }
        Ok(())
    }

    /// 170: what a router pod forwards is judged where it comes in and where it goes out.
    fn forwarded(&self, family: Family, cover: &mut Cover) -> Result<(), String> {
        for (index, to) in self.at.pod.attachments.iter().enumerate() {
            let Some(out) = to.interface.as_ref().filter(|out| *out != self.name) else {
                continue;
            };
            let (source, destination) = match family {
                Family::V4 => ("10.20.1.2", "10.20.1.3"),
                Family::V6 => ("fd00:20::2", "fd00:20::3"),
            };
            let (source, destination) = (address(source), address(destination));
            let own = |at: &ringfence_model::Attachment| {
                at.addresses.contains(&source) || at.addresses.contains(&destination)
            };
            // Not between addresses of the router itself: they never are forwarded (119, 120).
            if own(self.at.attachment) || own(to) {
                continue;
            }
            let l4 = L4::tcp(*self.judges.world.choose((index, "forwarded"), &self.judges.world.ports));
            let universe = &self.judges.world.universe;
            let allows = |index, direction, other| {
                let verdict = evaluate_at(universe, &self.at.pod.uid, index, direction, other, l4);
                verdict.decision == Decision::Allow
            };
            let wanted =
                allows(self.at.index, Direction::Ingress, source) && allows(index, Direction::Egress, destination);
            let talk = Talk {
                source,
                destination,
                l4,
                client: 40_000,
            };
            for (what, kind) in [("forwarded", Kind::Original), ("forwarded answer", Kind::Reply)] {
                let (from, to) = if kind.goes_back() {
                    (out.clone(), self.name.clone())
                } else {
                    (self.name.clone(), out.clone())
                };
                let packet = Packet {
                    source_local: false,
                    ..packet(talk, kind, Path::Forwarded { from, to }, source)
                };
                self.expect(what, &packet, wanted, cover)?;
            }
        }
        Ok(())
    }

    fn may(&self, direction: Direction, other: IpAddr, l4: L4) -> bool {
        let universe = &self.judges.world.universe;
        let verdict = evaluate_at(universe, &self.at.pod.uid, self.at.index, direction, other, l4);
        verdict.decision == Decision::Allow
    }
}

/// The first segment of a TCP connection that arrives on no interface yet.
fn tcp(source: IpAddr, destination: IpAddr) -> Packet {
    Packet {
        path: Path::Raw(interface("none")),
        content: Content::Ip {
            source,
            destination,
            hop_limit: 64,
            transport: Transport::Ports {
                protocol: Protocol::Tcp,
                source: 40_000,
                destination: 80,
            },
        },
        conntrack: Conntrack::Tracked {
            direction: CtDirection::Original,
            related: false,
            original_source: source,
            reply_source: destination,
        },
        source_local: true,
    }
}
