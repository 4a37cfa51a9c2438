//! One end of a connection: is it isolated, is the traffic exempt, does a rule allow it.

use std::net::IpAddr;

use ringfence_model::{Direction, NetworkName, Peers, Policy, Ports, Protocol, Rule};

use super::peers::{Other, peer_matches};
use super::ports::{Lookup, port_matches};
use super::{Allowance, AttachmentRef, Because, Clause, Decision, DirectionVerdict, L4, NearMiss, Universe};

/// Judges a packet that opens a connection at an attachment of a pod that takes part. Loopback has been dealt with.
pub(super) fn judge(
    universe: &Universe,
    at: AttachmentRef<'_>,
    direction: Direction,
    other: IpAddr,
    l4: L4,
) -> DirectionVerdict {
    // 168 and section 4 of the design: the kernel's rules know interfaces by their names, so one without a name cannot
    // be told from one that no attachment explains, and those are closed while the pod is isolated anywhere.
    if at.attachment.interface.is_none() {
        let keys = universe.isolating_anywhere(at.pod);
        if !keys.is_empty() {
            return DirectionVerdict {
                decision: Decision::Deny,
                because: Because::Unnamed,
                isolating: keys,
                allowed_by: Vec::new(),
                near_misses: Vec::new(),
            };
        }
    }

    let isolating = universe.isolating(at, direction);
    // 1, 7: without isolation in this direction everything passes.
    if isolating.is_empty() {
        return DirectionVerdict::allow(Because::NotIsolated);
    }

    let other = Other::find(universe, at, other);
    // Every rule of every isolating policy, in the order in which people read them.
    let rules = || {
        isolating.iter().flat_map(|policy| {
            let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
            rules.map(|(position, rule)| {
                let context = Context {
                    universe,
                    at,
                    direction,
                    other: &other,
                    l4,
                    policy,
                    position,
                };
                (context, rule)
            })
        })
    };
    // 4, 5, 6, 10: the union over all policies and rules; nothing subtracts.
    let allowed_by: Vec<_> = rules().flat_map(|(context, rule)| context.allowances(rule)).collect();

    let exemption = exemption(universe, at, direction, &other, l4);
    let (decision, because) = match exemption {
        Some(found) => found,
        None if allowed_by.is_empty() => (Decision::Deny, Because::NothingAllows),
        None => (Decision::Allow, Because::Allowed),
    };

    let near_misses = if because == Because::NothingAllows {
        rules().flat_map(|(context, rule)| context.near_misses(rule)).collect()
    } else {
        Vec::new()
    };

    DirectionVerdict {
        decision,
        because,
        isolating: isolating.iter().map(|policy| policy.key.clone()).collect(),
        allowed_by,
        near_misses,
    }
}

/// Traffic about which the rules are not asked, although the pod is isolated.
fn exemption(
    universe: &Universe,
    at: AttachmentRef<'_>,
    direction: Direction,
    other: &Other<'_>,
    l4: L4,
) -> Option<(Decision, Because)> {
    // 117: the pod's node reaches it on the cluster network; on no other network, and not the other way round.
    if direction == Direction::Ingress && at.attachment.networks.contains(&NetworkName::Default) {
        let more = at.pod.node.as_ref().and_then(|node| universe.node_addresses.get(node));
        if at.pod.host_addresses.contains(&other.address) || more.is_some_and(|more| more.contains(&other.address)) {
            return Some((Decision::Allow, Because::NodeTraffic));
        }
    }

    match l4 {
        // 121: neighbour solicitation and advertisement; multicast listener query, report, done, report version 2.
        L4::Icmpv6 {
            message: 135 | 136 | 130 | 131 | 132 | 143,
        } => Some((Decision::Allow, Because::NeighbourDiscovery)),
        // 121: router solicitation out, router advertisement in.
        L4::Icmpv6 { message: 133 } if direction == Direction::Egress => {
            Some((Decision::Allow, Because::NeighbourDiscovery))
        }
        L4::Icmpv6 { message: 134 } if direction == Direction::Ingress => {
            Some((Decision::Allow, Because::NeighbourDiscovery))
        }
        // 121: router advertisement and redirect from an isolated pod never pass.
        L4::Icmpv6 { message: 134 | 137 } if direction == Direction::Egress => {
            Some((Decision::Deny, Because::RouterMessage))
        }
        // 123: to the server's port out, to the client's port in, DHCPv4 and DHCPv6.
        L4::Port {
            protocol: Protocol::Udp,
            port,
        } if is_dhcp_network(universe, at) => {
            let expected = match direction {
                Direction::Egress => [67, 547],
                Direction::Ingress => [68, 546],
            };
            expected.contains(&port).then_some((Decision::Allow, Because::Dhcp))
        }
        _ => None,
    }
}

fn is_dhcp_network(universe: &Universe, at: AttachmentRef<'_>) -> bool {
    at.attachment.networks.iter().any(|network| match network {
        NetworkName::Namespaced(name) => universe
            .networks
            .get(name)
            .is_some_and(|nad| nad.ipam.iter().any(|kind| **kind == *"dhcp")),
        NetworkName::Default | NetworkName::Plugin(_) | NetworkName::Interface(_) => false,
    })
}

/// One rule and what it is asked about.
struct Context<'a> {
    universe: &'a Universe,
    at: AttachmentRef<'a>,
    direction: Direction,
    other: &'a Other<'a>,
    l4: L4,
    policy: &'a Policy,
    position: usize,
}

impl<'a> Context<'a> {
    /// Every pair of a peer and a port entry that matches (statements 32, 33).
    fn allowances(&self, rule: &Rule) -> Vec<Allowance> {
        let mut out = Vec::new();
        for (peer, lookup) in self.matching_peers(rule) {
            match &rule.ports {
                // 31: all ports and all protocols, also those without ports.
                Ports::All => out.push(Allowance {
                    peer: self.clause(peer.clone()),
                    port: None,
                }),
                // 35: none of them matching is nothing, never "all".
                Ports::OneOf(entries) => {
                    for (number, entry) in entries.iter().enumerate() {
                        if port_matches(entry, self.l4, &lookup).is_ok() {
                            out.push(Allowance {
                                peer: self.clause(peer.clone()),
                                port: Some(self.port_path(number)),
                            });
                        }
                    }
                }
            }
        }
        out
    }

    /// The clauses that stand alone between the connection and this rule, given that the rule does not allow it.
    fn near_misses(&self, rule: &Rule) -> Vec<NearMiss> {
        let mut out: Vec<NearMiss> = Vec::new();
        let matching = self.matching_peers(rule);
        if matching.is_empty() {
            // But for its peers?
            if self.some_port_matches(rule, &self.lookup_anywhere())
                && let Peers::OneOf(peers) = &rule.peers
            {
                for (number, peer) in peers.iter().enumerate() {
                    if let Err(why) = peer_matches(self.universe, self.policy, peer, self.other) {
                        let clause = self.clause(self.peer_path(number));
                        out.push(NearMiss { clause, why });
                    }
                }
            }
        } else if let Ports::OneOf(entries) = &rule.ports {
            // But for its ports.
            for (number, entry) in entries.iter().enumerate() {
                for (_, lookup) in &matching {
                    if let Err(why) = port_matches(entry, self.l4, lookup) {
                        let clause = self.clause(self.port_path(number));
                        let miss = NearMiss { clause, why };
                        if !out.contains(&miss) {
                            out.push(miss);
                        }
                    }
                }
            }
        }
        out
    }

    /// The peers of a rule that match the other end, each with the pods on which a named port of the rule counts.
    fn matching_peers(&self, rule: &Rule) -> Vec<(String, Lookup<'a>)> {
        let mut out = Vec::new();
        match &rule.peers {
            // 29, 30: missing and empty match everybody. 97: a named port then counts on every pod of the network.
            Peers::All => out.push((self.rule_path(), self.lookup(self.other.holders.clone()))),
            // 34: no peer matching is nothing, never "all".
            Peers::OneOf(peers) => {
                for (number, peer) in peers.iter().enumerate() {
                    if let Ok(pods) = peer_matches(self.universe, self.policy, peer, self.other) {
                        out.push((self.peer_path(number), self.lookup(pods)));
                    }
                }
            }
        }
        out
    }

    /// 89: a named port of an ingress rule counts on the selected pod. 90: of an egress rule on the peer's pods.
    fn lookup(&self, peers: Vec<&'a ringfence_model::Pod>) -> Lookup<'a> {
        match self.direction {
            Direction::Ingress => Lookup(vec![self.at.pod]),
            Direction::Egress => Lookup(peers),
        }
    }

    /// For near misses: named ports of whoever has the address, on whatever network.
    fn lookup_anywhere(&self) -> Lookup<'a> {
        self.lookup(self.other.claimants.iter().map(|at| at.pod).collect())
    }

    fn some_port_matches(&self, rule: &Rule, lookup: &Lookup<'_>) -> bool {
        match &rule.ports {
            Ports::All => true,
            Ports::OneOf(entries) => entries.iter().any(|entry| port_matches(entry, self.l4, lookup).is_ok()),
        }
    }

    fn clause(&self, path: String) -> Clause {
        Clause {
            policy: self.policy.key.clone(),
            path,
        }
    }

    fn rule_path(&self) -> String {
        format!("{}[{}]", self.direction, self.position)
    }

    fn peer_path(&self, number: usize) -> String {
        let field = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        format!("{}.{field}[{number}]", self.rule_path())
    }

    fn port_path(&self, number: usize) -> String {
        format!("{}.ports[{number}]", self.rule_path())
    }
}
