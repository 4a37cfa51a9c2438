//! The base chains, and the whole ruleset of a pod.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence_model::{Direction, Family, InterfaceName, PodUid, PortRange, Protocol};
use ringfence_ruleset::{
    BaseChain, Chain, CtDirection, Hook, KernelFeatures, Match, Name, Rule, Ruleset, Side, Table, Verdict,
};

use super::names::Names;
use super::table::{DHCP, Writer, accept, picked_up};
use super::{Compiled, SetLink};
use crate::TargetFacts;
use crate::plan::{InterfacePlan, PodPlan};

/// Before destination NAT (`mangle - 10`): ports are still those on the wire.
const ARRIVE: i32 = -160;
/// After source NAT (`srcnat + 10`), for the same reason.
const LEAVE: i32 = 110;
/// The kernel's priority `filter`.
const FILTER: i32 = 0;
/// IPv4, IPv6, and both kinds of VLAN tags, behind which either may hide. Everything else, ARP included, is no
/// business of IP policies (statements 115, 116).
const ETHER_TYPES: [u16; 4] = [0x0800, 0x86dd, 0x8100, 0x88a8];
/// Longest comment that a table may have here.
const COMMENT: usize = 120;

/// What a ruleset depends on beside policies.
pub(crate) struct Environment<'a> {
    /// What the kernel can do.
    pub kernel: KernelFeatures,
    /// Addresses of the node.
    pub node_addresses: &'a BTreeSet<IpAddr>,
    /// The same, from the pod's status.
    pub host_addresses: &'a BTreeSet<IpAddr>,
    /// What is in the network namespace; nothing while that is not known.
    pub facts: &'a TargetFacts,
}

impl Environment<'_> {
    /// From where the node may always reach an interface of the cluster network (statement 117). The pod's own
    /// addresses never: from the wire they are forged (statement 120).
    fn trusted(&self, plan: &InterfacePlan) -> Vec<IpAddr> {
        if !plan.cluster {
            return Vec::new();
        }
        let known = self
            .node_addresses
            .iter()
            .chain(self.host_addresses)
            .chain(&self.facts.gateways);
        let trusted: BTreeSet<IpAddr> = known
            .filter(|address| !plan.addresses.contains(address))
            .copied()
            .collect();
        trusted.into_iter().collect()
    }
}

/// The ruleset of an isolated pod.
pub(crate) fn compile(uid: &PodUid, plan: &PodPlan, environment: &Environment<'_>) -> Compiled {
    let comment: String = format!("ringfence {uid}").chars().take(COMMENT).collect();
    let mut inet = Table::default();
    let mut links = Vec::new();
    for (position, interface) in plan.interfaces.iter().enumerate() {
        for direction in Direction::BOTH {
            let Some(table) = interface.table(direction) else {
                continue;
            };
            let trusted = match direction {
                Direction::Ingress => environment.trusted(interface),
                Direction::Egress => Vec::new(),
            };
            let names = Names::new(&interface.interface, direction);
            let mut writer = Writer::new(&mut inet, names, direction, table, interface.dhcp);
            writer.write(&trusted);
            links.extend(writer.peer_sets.into_iter().map(|(set, family, name)| SetLink {
                interface: position,
                direction,
                set,
                family,
                name,
            }));
        }
    }
    let unexplained = Name::new("unexplained-denied");
    inet.counters.insert(unexplained.clone());
    base(
        &mut inet,
        super::names::ARRIVE,
        Hook::Prerouting,
        ARRIVE,
        dispatch(plan, Way::Arrives, &unexplained),
    );
    base(
        &mut inet,
        "leave",
        Hook::Postrouting,
        LEAVE,
        dispatch(plan, Way::Leaves, &unexplained),
    );
    let source: Vec<Rule> = restricted(plan).flat_map(own_source).collect();
    if environment.kernel.fib && !source.is_empty() {
        base(&mut inet, "source", Hook::Output, ARRIVE, source);
    }
    let mut netdev = Table::default();
    if environment.kernel.egress_backstop {
        for interface in restricted(plan) {
            if environment.facts.interfaces.contains(&interface.interface) {
                let denied = Names::new(&interface.interface, Direction::Egress).part("denied");
                backstop(&mut netdev, &interface.interface, denied, interface.dhcp);
            }
        }
        // The pod may have renamed one of these, or made another one on top of it.
        if restricted(plan).next().is_some() {
            for interface in environment
                .facts
                .interfaces
                .iter()
                .filter(|name| is_unexplained(plan, name))
            {
                backstop(&mut netdev, interface, unexplained.clone(), false);
            }
        }
    }
    Compiled {
        ruleset: Ruleset {
            comment: comment.into(),
            inet,
            netdev,
        },
        links,
    }
}

/// Interfaces on which something that the pod sends may be denied. Where everything is allowed there is nothing to
/// walk around, and frames that a virtual machine sends past the IP stack are allowed like everything (statement 18).
fn restricted(plan: &PodPlan) -> impl Iterator<Item = &InterfacePlan> {
    plan.interfaces
        .iter()
        .filter(|plan| plan.egress.as_ref().is_some_and(|table| !table.is_open()))
}

/// Whether no attachment tells of an interface, so that it is closed.
fn is_unexplained(plan: &PodPlan, name: &InterfaceName) -> bool {
    name.as_str() != "lo" && plan.interfaces.iter().all(|plan| plan.interface != *name)
}

fn base(table: &mut Table, name: &str, hook: Hook, priority: i32, rules: Vec<Rule>) {
    let base = Some(BaseChain { hook, priority });
    table.chains.insert(Name::new(name), Chain { base, rules });
}

/// Which way a packet goes, seen from the pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Arrives,
    Leaves,
}

impl Way {
    fn on(self, interface: InterfaceName) -> Match {
        match self {
            Self::Arrives => Match::ArrivesOn(interface),
            Self::Leaves => Match::LeavesOn(interface),
        }
    }
}

/// Sends every packet to the chain that judges the connection it belongs to. Comparisons and no verdict map: the
/// interfaces of a pod are few.
///
/// The order is that of cost. Comparing a name costs three times as much as comparing the direction, so the direction
/// comes first, and what opens connections, then answers, before everything that is seldom or not judged: packets
/// without a direction, interfaces that nothing isolates, loopback.
fn dispatch(plan: &PodPlan, way: Way, unexplained: &Name) -> Vec<Rule> {
    // Whose connection it is: what arrives first opens one to the pod, what leaves first opens one from it.
    let (opens, answers) = match way {
        Way::Arrives => (Direction::Ingress, Direction::Egress),
        Way::Leaves => (Direction::Egress, Direction::Ingress),
    };
    let (mut opening, mut answering, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for plan in &plan.interfaces {
        let on = way.on(plan.interface.clone());
        let that = |direction| vec![Match::CtDirection(direction), on.clone()];
        let opened = plan.table(opens).map(|_| Names::new(&plan.interface, opens));
        let reply = plan
            .table(answers)
            .map(|_| Names::new(&plan.interface, answers).part("reply"));
        // Where nothing judges what opens connections, the last rule accepts, and one before it that only accepts
        // would say nothing new.
        if reply.is_some() || opened.is_some() {
            answering.push(to(that(CtDirection::Reply), reply));
        }
        if let Some(names) = &opened {
            opening.push(to(that(CtDirection::Original), Some(names.chain())));
        } else if plan.table(answers).is_some() {
            // Nothing judges what goes this way, but a connection that was revoked the other way must not come back
            // as one that was opened this way.
            let denied = Names::new(&plan.interface, answers).part("denied");
            rest.push(picked_up(Some(on.clone()), &denied));
        }
        rest.push(to(vec![on], opened.map(|names| names.part("untracked"))));
    }
    // A pod cannot be blocked from itself (statements 118, 119, 169).
    let lo = InterfaceName::new("lo").map(|lo| accept(vec![way.on(lo)]));
    let deny = Rule {
        matches: Vec::new(),
        counter: Some(unexplained.clone()),
        verdict: Verdict::Drop,
    };
    [opening, answering, rest, lo.into_iter().collect(), vec![deny]].concat()
}

fn to(matches: Vec<Match>, chain: Option<Name>) -> Rule {
    Rule {
        matches,
        counter: None,
        verdict: chain.map_or(Verdict::Accept, Verdict::Goto),
    }
}

/// What the pod itself sends carries an address of its own. The known ones come first: a comparison is cheaper than
/// the routing table. The unspecified addresses name nobody (DHCP, duplicate address detection).
///
/// A redirect never leaves (statement 121), not even as an answer within an allowed connection, which it is to conntrack
/// where it quotes one. Receivers heed it only from a link-local address (RFC 4861, 8.1), so it is looked for among what
/// none of the known addresses sends, where it costs the common packet nothing.
fn own_source(plan: &InterfacePlan) -> Vec<Rule> {
    let unspecified = Family::BOTH.map(|family| match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    });
    let on = || Match::LeavesOn(plan.interface.clone());
    let link_local = |address: &IpAddr| matches!(address, IpAddr::V6(it) if it.is_unicast_link_local());
    let addresses = plan.addresses.iter().filter(|address| !link_local(address));
    let known = addresses.chain(&unspecified);
    let mut rules: Vec<Rule> = known
        .map(|address| accept(vec![on(), Match::Address(Side::Source, *address)]))
        .collect();
    let denied = Names::new(&plan.interface, Direction::Egress).part("denied");
    rules.extend([Match::Redirect(Family::V6), Match::SourceNotLocal].map(|what| Rule {
        matches: vec![on(), what],
        counter: Some(denied.clone()),
        verdict: Verdict::Drop,
    }));
    rules
}

/// The last gate before the wire: IP packets must come from the IP stack, where the chains above have seen them. A DHCP
/// client sends from a packet socket, because it may have no address yet; what it asks passes where the addresses come
/// from there (statement 123). A later fragment that looks like it passes as well, and is of no use: the first one of its
/// datagram is held to these ports.
fn backstop(table: &mut Table, interface: &InterfaceName, denied: Name, dhcp: bool) {
    let mut rules = vec![accept(vec![Match::Routed])];
    if dhcp {
        rules.extend(DHCP.map(|(client, server)| {
            let port = |side, port| Match::Ports(side, PortRange::single(Protocol::Udp, port));
            accept(vec![port(Side::Source, client), port(Side::Destination, server)])
        }));
    }
    rules.extend(ETHER_TYPES.map(|ether_type| Rule {
        matches: vec![Match::EtherType(ether_type)],
        counter: Some(denied.clone()),
        verdict: Verdict::Drop,
    }));
    table.counters.insert(denied);
    let name = format!("{}-backstop", interface.as_identifier());
    base(table, &name, Hook::Egress(interface.clone()), FILTER, rules);
}
