//! One connection at both of its ends, all of its packets.

use std::net::IpAddr;

use ringfence_model::{Direction, Family};
use ringfence_policy::evaluate::{
    AttachmentRef, Because, Connection, Decision, DirectionVerdict, L4, evaluate, evaluate_at,
};

use crate::cover::Cover;
use crate::packets::{Kind, Talk, client_port, is_tracked, packet, questions, way};
use crate::world::{Judges, address, interface};

/// What a run must come across (`end …` in the list of what was met).
pub const KINDS: [&str; 9] = [
    "outside",
    "remote",
    "open pod",
    "itself over lo",
    "interface without a name",
    "allowed connection",
    "denied connection",
    "error of an allowed connection",
    "error of a denied connection with a stranger",
];

/// An interface that no pod declares.
const UNEXPLAINED: &str = "eth77";

/// Whether oracle and tracer agree about a connection.
pub fn check(judges: &Judges<'_>, connection: &Connection, cover: &mut Cover) -> Result<(), String> {
    let verdict = evaluate(&judges.world.universe, connection);
    let talk = Talk {
        source: connection.source.address(),
        destination: connection.destination.address(),
        l4: connection.l4,
        client: client_port(connection.l4),
    };
    let ends = [
        (Direction::Egress, &connection.source, &verdict.egress),
        (Direction::Ingress, &connection.destination, &verdict.ingress),
    ];
    for (direction, end, verdict) in ends {
        cover.verdict(verdict);
        let Some(at) = judges.world.locate(connection, end) else {
            cover.met("end outside");
            continue;
        };
        let end = End {
            judges,
            talk,
            direction,
            at,
            verdict,
        };
        end.check(cover)
            .map_err(|why| format!("{direction} at attachment {} of {}: {why}", at.index, at.pod.uid))?;
    }
    Ok(())
}

struct End<'a> {
    judges: &'a Judges<'a>,
    talk: Talk,
    direction: Direction,
    at: AttachmentRef<'a>,
    verdict: &'a DirectionVerdict,
}

impl End<'_> {
    fn check(&self, cover: &mut Cover) -> Result<(), String> {
        let uid = &self.at.pod.uid;
        if !self.judges.local.contains(uid) {
            cover.met("end remote");
            return Ok(());
        }
        if self.judges.ruleset(uid).is_none() {
            cover.met("end open pod");
            return match self.verdict.decision {
                Decision::Allow => Ok(()),
                Decision::Deny => Err(format!("denied, but the pod has no rules: {:?}", self.verdict)),
            };
        }
        if matches!(self.verdict.because, Because::Loopback | Because::SamePod) {
            return self.over_lo(cover);
        }
        let Some(name) = &self.at.attachment.interface else {
            return self.without_a_name(cover);
        };
        // 120: the node may reach its pods, but not under a pod's own address. There the rules are stricter than the
        // oracle, as the statement allows.
        if self.verdict.because == Because::NodeTraffic && self.at.attachment.addresses.contains(&self.other()) {
            return Ok(());
        }
        let allowed = self.allowed(cover)?;
        cover.met(if allowed {
            "end allowed connection"
        } else {
            "end denied connection"
        });
        for kind in Kind::ALL {
            if kind != Kind::Original && !is_tracked(self.talk.l4) {
                continue;
            }
            let (wanted, router) = if kind.is_error() {
                match self.error(allowed, cover) {
                    Some(found) => found,
                    None => continue,
                }
            } else {
                // 100, 101, 103: answers go with their connection, whatever the other direction says.
                (allowed, self.other())
            };
            let path = way(self.direction, kind.goes_back(), name.clone());
            let packet = packet(self.talk, kind, path, router);
            let why = (kind, self.verdict);
            self.judges.expect(uid, &packet, wanted, &why, cover)?;
        }
        self.dhcp_is_between_its_ports(cover)
    }

    /// The address of the other end.
    fn other(&self) -> IpAddr {
        match self.direction {
            Direction::Ingress => self.talk.source,
            Direction::Egress => self.talk.destination,
        }
    }

    /// The oracle's decision, with the one question that the statements leave open: port 0.
    ///
    /// Statement 88 makes 1 to 65535 equal to all ports, and the match of several entries their union. The oracle looks
    /// at one entry at a time, the compiler at their union, so together they may allow what no entry allows alone. That
    /// must be every port, or it is none of this.
    fn allowed(&self, cover: &mut Cover) -> Result<bool, String> {
        let decided = self.verdict.decision == Decision::Allow;
        let L4::Port { protocol, port: 0 } = self.talk.l4 else {
            return Ok(decided);
        };
        let Some(name) = &self.at.attachment.interface else {
            return Ok(decided);
        };
        let path = way(self.direction, false, name.clone());
        let first = packet(self.talk, Kind::Original, path, self.other());
        let found = self.judges.passes(&self.at.pod.uid, &first, cover)?;
        if decided || !found {
            return Ok(decided);
        }
        let mut every = questions(Family::V4, &self.judges.world.ports);
        every.retain(|l4| matches!(l4, L4::Port { protocol: of, port } if *of == protocol && *port != 0));
        match every.into_iter().find(|l4| !self.may(self.other(), *l4)) {
            None => Ok(true),
            Some(denied) => Err(format!("port 0 passes although {denied} does not")),
        }
    }

    /// Whether the oracle allows a connection of another kind between this end and an address.
    fn may(&self, other: IpAddr, l4: L4) -> bool {
        let universe = &self.judges.world.universe;
        let verdict = evaluate_at(universe, &self.at.pod.uid, self.at.index, self.direction, other, l4);
        verdict.decision == Decision::Allow
    }

    /// 118, 119, 169: what a pod sends to itself goes over lo and passes.
    fn over_lo(&self, cover: &mut Cover) -> Result<(), String> {
        cover.met("end itself over lo");
        for kind in [Kind::Original, Kind::Reply] {
            let path = way(self.direction, kind.goes_back(), interface("lo"));
            let packet = packet(self.talk, kind, path, self.other());
            self.judges
                .expect(&self.at.pod.uid, &packet, true, self.verdict, cover)?;
        }
        Ok(())
    }

    /// 168 and section 4 of the design: an interface without a name cannot be told from one that nothing explains, so
    /// it is closed while the pod is isolated anywhere. The oracle, which knows the attachment, may well allow here.
    fn without_a_name(&self, cover: &mut Cover) -> Result<(), String> {
        cover.met("end interface without a name");
        for kind in Kind::ALL {
            let path = way(self.direction, kind.goes_back(), interface(UNEXPLAINED));
            let packet = packet(self.talk, kind, path, self.other());
            self.judges
                .expect(&self.at.pod.uid, &packet, false, self.verdict, cover)?;
        }
        Ok(())
    }

    /// 102: whether an ICMP error about this connection passes, and who sends it. `None` where the statements do not
    /// say.
    fn error(&self, allowed: bool, cover: &mut Cover) -> Option<(bool, IpAddr)> {
        let other = self.other();
        let router = address(if other.is_ipv4() {
            "198.51.100.9"
        } else {
            "2001:db8:9::9"
        });
        let by_exemption = self.verdict.allowed_by.is_empty();
        match self.verdict.because {
            // Errors carry no ports by which a DHCP exchange could be known.
            Because::Dhcp if by_exemption => None,
            // The node is its pod's neighbour: nobody else is in between to report errors.
            Because::NodeTraffic if by_exemption => Some((true, other)),
            _ if allowed => {
                cover.met("end error of an allowed connection");
                Some((true, router))
            }
            // The error of a connection that was allowed until a moment ago: it stops at the latest when nothing at all
            // is allowed with the peer any more. The router itself must not be allowed to send what it likes.
            _ => {
                let stranger = questions(Family::of(other), &self.judges.world.ports)
                    .into_iter()
                    .filter(|l4| is_tracked(*l4))
                    .all(|l4| !self.may(other, l4));
                let router_may = self.may(router, L4::Other(47));
                (stranger && !router_may).then(|| {
                    cover.met("end error of a denied connection with a stranger");
                    (false, router)
                })
            }
        }
    }

    /// 123: the switch opens the exchange between the two well-known ports and nothing else.
    fn dhcp_is_between_its_ports(&self, cover: &mut Cover) -> Result<(), String> {
        let (Because::Dhcp, Some(name)) = (self.verdict.because, &self.at.attachment.interface) else {
            return Ok(());
        };
        let talk = Talk {
            client: 40_000,
            ..self.talk
        };
        let path = way(self.direction, false, name.clone());
        let packet = packet(talk, Kind::Original, path, self.other());
        let wanted = !self.verdict.allowed_by.is_empty();
        self.judges
            .expect(&self.at.pod.uid, &packet, wanted, self.verdict, cover)
    }
}
