//! Who reaches whom on a network: what [`evaluate::reach`](crate::evaluate::reach) says, for a thousand pods and ten
//! thousand policies within a second.
//!
//! The oracle asks each pair of pods about each policy. Here each policy is looked at once: its peers become a set of
//! addresses (a bit each) that is united with what is allowed at the interfaces it selects. A cell of the matrix is
//! then two bits. Reasons are not kept; [`crate::explain`] gives them for one cell.
//!
//! Reading order: `bits` (sets), `layer` (selectors to sets of pods), `places` (who is where), this module (policies to
//! what is allowed).

mod bits;
mod layer;
mod places;

use ringfence_model::{
    Coverage, Direction, Family, Namespace, NetworkName, Peer, Peers, Policy, PolicyKind, PortMatch, PortName, Ports,
    Protocol, Rule, Scope, Selector,
};

use self::bits::Bits;
use self::layer::Layer;
use self::places::Places;
use crate::evaluate::{AttachmentRef, Decision, L4, Universe};

/// One network with everybody on it, ready for questions.
pub struct Reach<'a> {
    universe: &'a Universe,
    places: Places<'a>,
    /// The attachments on the network by their pods: whom policies select.
    targets: Layer,
}

/// Who reaches whom with one protocol and port.
pub struct Matrix<'a> {
    places: Places<'a>,
    egress: Vec<Access>,
    ingress: Vec<Access>,
}

/// One ordered pair of attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// At the sender.
    pub egress: Decision,
    /// At the receiver.
    pub ingress: Decision,
}

impl Cell {
    const ALLOW: Self = Self {
        egress: Decision::Allow,
        ingress: Decision::Allow,
    };

    /// Allow only where both ends allow (statement 8).
    pub fn decision(self) -> Decision {
        if self == Self::ALLOW {
            Decision::Allow
        } else {
            Decision::Deny
        }
    }
}

/// With which addresses an attachment may talk, in one direction.
#[derive(Clone)]
enum Access {
    All,
    These(Bits),
}

impl Access {
    fn decision(&self, slot: usize) -> Decision {
        match self {
            Self::All => Decision::Allow,
            Self::These(slots) if slots.contains(slot) => Decision::Allow,
            Self::These(_) => Decision::Deny,
        }
    }
}

impl<'a> Reach<'a> {
    /// Takes in who is on the network: pods that share their node's network or have ended are not.
    pub fn new(universe: &'a Universe, network: &NetworkName) -> Self {
        let places = Places::new(universe, network);
        let pods = places.attachments.iter().map(|at| at.pod).enumerate();
        Self {
            universe,
            targets: Layer::new(places.attachments.len(), pods),
            places,
        }
    }

    /// The attachments in the order of the matrix: by namespace, name, UID and position.
    pub fn attachments(&self) -> &[AttachmentRef<'a>] {
        &self.places.attachments
    }

    /// Judges every pair.
    pub fn matrix(&mut self, l4: L4) -> Matrix<'a> {
        let mut tables = [Direction::Egress, Direction::Ingress].map(|direction| Table::new(direction, &self.places));
        let isolations = self.universe.namespaces.values().filter_map(isolation);
        let isolations: Vec<Policy> = isolations
            .filter(|policy| !self.universe.policies.contains_key(&policy.key))
            .collect();
        for policy in self.universe.policies.values().chain(&isolations) {
            let selected = self.selected(policy);
            if selected.is_empty() {
                continue;
            }
            for table in &mut tables {
                let Some(rules) = policy.rules(table.direction) else {
                    continue;
                };
                // 4: selected is isolated, whatever the rules say.
                table.isolated.add(&selected);
                for rule in rules {
                    self.allow(table, policy, rule, &selected, l4);
                }
            }
        }
        let [egress, ingress] = tables.map(|table| table.settle(self.universe, &self.places, l4));
        Matrix {
            places: self.places.clone(),
            egress,
            ingress,
        }
    }

    /// The attachments that a policy isolates (statements 2, 3, 60, 148 to 151).
    fn selected(&mut self, policy: &Policy) -> Bits {
        let none = Bits::none(self.places.attachments.len());
        let Some(target) = &policy.target else { return none };
        let Some(members) = self.targets.namespace(&policy.key.name.namespace) else {
            return none;
        };
        let multi = policy.key.kind == PolicyKind::MultiNetworkPolicy;
        let mut selected = match (&policy.coverage, self.universe.scope) {
            (_, Scope::None) if !multi => return none,
            (Coverage::Networks(networks), _) => {
                let mut covered = none;
                for attached in networks.iter().filter_map(|network| self.places.on.get(network)) {
                    covered.add(attached);
                }
                covered.keep(members);
                covered
            }
            (Coverage::Scope, _) if multi => return none,
            (Coverage::Scope, Scope::All) => members.clone(),
            (Coverage::Scope, Scope::Secondary) => {
                let mut secondary = members.clone();
                secondary.drop_all(&self.places.primary);
                secondary
            }
            (Coverage::Scope, Scope::Annotated | Scope::None) => return none,
        };
        if !selected.is_empty() {
            selected.keep(self.targets.labelled(target));
        }
        selected
    }

    /// Adds what a rule allows to those of the selected attachments at which it counts.
    fn allow(&mut self, table: &mut Table, policy: &Policy, rule: &Rule, selected: &Bits, l4: L4) {
        let (targets, named) = match (ports(&rule.ports, l4), table.direction) {
            (Matched::No, _) => return,
            (Matched::Yes, _) => (selected.clone(), None),
            // 89: a named port of an ingress rule counts on the selected pod.
            (Matched::ByName(names, protocol, number), Direction::Ingress) => {
                (selected.and(&self.targets.declaring(&names, protocol, number)), None)
            }
            // 90: of an egress rule on the peer's pods.
            (Matched::ByName(names, protocol, number), Direction::Egress) => {
                (selected.clone(), Some((names, protocol, number)))
            }
        };
        if named.is_none() && rule.peers == Peers::All {
            table.open.add(&targets);
            return;
        }
        for view in 0..self.places.views.len() {
            let targets = targets.and(&self.places.views[view].members);
            if targets.is_empty() {
                continue;
            }
            let slots = self.peers(view, policy, rule, named.as_ref());
            for target in targets.iter() {
                table.allow(target, &slots);
            }
        }
    }

    /// The addresses that a rule means, as an attachment with this view sees them.
    fn peers(&mut self, view: usize, policy: &Policy, rule: &Rule, declared: Option<&Named<'_>>) -> Bits {
        let mut slots = Bits::none(self.places.slots.len());
        let Peers::OneOf(peers) = &rule.peers else {
            // 97: every pod of the network that declares the name.
            for layer in &self.places.views[view].layers {
                match declared {
                    Some((names, protocol, number)) => slots.add(&layer.declaring(names, *protocol, *number)),
                    None => return Bits::all(self.places.slots.len()),
                }
            }
            return slots;
        };
        for peer in peers {
            match peer {
                Peer::Nothing => {}
                // 96: an ipBlock names no pod on which a named port could count.
                Peer::IpBlock(block) => {
                    if declared.is_none() {
                        self.places.add_block(block, &mut slots);
                    }
                }
                Peer::Pods { namespaces, pods } => {
                    for layer in &mut self.places.views[view].layers {
                        let found = select(self.universe, layer, policy, namespaces.as_ref(), pods);
                        let Some(mut found) = found else { continue };
                        if let Some((names, protocol, number)) = declared {
                            found.keep(&layer.declaring(names, *protocol, *number));
                        }
                        slots.add(&found);
                    }
                }
            }
        }
        slots
    }
}

impl<'a> Matrix<'a> {
    /// The attachments: row `n` and column `n` are the n-th one's.
    pub fn attachments(&self) -> &[AttachmentRef<'a>] {
        &self.places.attachments
    }

    /// What comes of a connection from one attachment to another; `None` where they have no address family in common.
    pub fn cell(&self, from: usize, to: usize) -> Option<Cell> {
        let (source, destination) = self.places.slots_of(from, to)?;
        // 118, 119, 169.
        let exempt = self.places.pods.get(from) == self.places.pods.get(to)
            || self.places.loopback.contains(source)
            || self.places.loopback.contains(destination);
        if exempt {
            return Some(Cell::ALLOW);
        }
        Some(Cell {
            egress: self.egress.get(from)?.decision(destination),
            ingress: self.ingress.get(to)?.decision(source),
        })
    }
}

/// What is allowed in one direction, as it grows.
struct Table {
    direction: Direction,
    slots: usize,
    isolated: Bits,
    /// Attachments at which a rule allows everybody.
    open: Bits,
    allowed: Vec<Option<Bits>>,
}

impl Table {
    fn new(direction: Direction, places: &Places<'_>) -> Self {
        let attachments = places.attachments.len();
        Self {
            direction,
            slots: places.slots.len(),
            isolated: Bits::none(attachments),
            open: Bits::none(attachments),
            allowed: vec![None; attachments],
        }
    }

    fn allow(&mut self, target: usize, slots: &Bits) {
        let limit = self.slots;
        if let Some(allowed) = self.allowed.get_mut(target) {
            allowed.get_or_insert_with(|| Bits::none(limit)).add(slots);
        }
    }

    /// The exemptions go before the rules.
    fn settle(mut self, universe: &Universe, places: &Places<'_>, l4: L4) -> Vec<Access> {
        let allowed = std::mem::take(&mut self.allowed);
        let access = |(position, allowed): (usize, Option<Bits>)| {
            let at = places.attachments[position];
            let rules = || {
                if self.open.contains(position) {
                    Access::All
                } else {
                    Access::These(allowed.unwrap_or_else(|| Bits::none(self.slots)))
                }
            };
            // 168: one without a name is closed while its pod is isolated anywhere, be it on another network. They are few,
            // so that looking at every policy for each does no harm.
            if at.attachment.interface.is_none() && !universe.isolating_anywhere(at.pod).is_empty() {
                return Access::These(Bits::none(self.slots));
            }
            if !self.isolated.contains(position) {
                return Access::All;
            }
            match (self.direction, l4) {
                // 121.
                (
                    _,
                    L4::Icmpv6 {
                        message: 130..=132 | 135 | 136 | 143,
                    },
                )
                | (Direction::Egress, L4::Icmpv6 { message: 133 })
                | (Direction::Ingress, L4::Icmpv6 { message: 134 }) => return Access::All,
                (Direction::Egress, L4::Icmpv6 { message: 134 | 137 }) => {
                    return Access::These(Bits::none(self.slots));
                }
                // 123.
                (
                    Direction::Egress,
                    L4::Port {
                        protocol: Protocol::Udp,
                        port: 67 | 547,
                    },
                )
                | (
                    Direction::Ingress,
                    L4::Port {
                        protocol: Protocol::Udp,
                        port: 68 | 546,
                    },
                ) if is_dhcp(universe, at) => {
                    return Access::All;
                }
                _ => {}
            }
            let mut access = rules();
            // 117.
            if let (Direction::Ingress, Access::These(slots)) = (self.direction, &mut access)
                && at.attachment.networks.contains(&NetworkName::Default)
            {
                places.add_node(universe, at, slots);
            }
            access
        };
        allowed.into_iter().enumerate().map(access).collect()
    }
}

fn is_dhcp(universe: &Universe, at: AttachmentRef<'_>) -> bool {
    at.attachment.networks.iter().any(|network| match network {
        NetworkName::Namespaced(name) => {
            let definition = universe.networks.get(name);
            definition.is_some_and(|it| it.ipam.iter().any(|kind| **kind == *"dhcp"))
        }
        NetworkName::Default | NetworkName::Plugin(_) | NetworkName::Interface(_) => false,
    })
}

/// The beta annotation of a namespace as the policy that it amounts to.
fn isolation(namespace: &Namespace) -> Option<Policy> {
    namespace.isolate_ingress.then(|| Policy {
        key: ringfence_model::PolicyKey {
            kind: PolicyKind::NamespaceIsolation,
            name: ringfence_model::NamespacedName::new(namespace.name.clone(), namespace.name.clone()),
        },
        coverage: Coverage::Scope,
        target: Some(Selector::everything()),
        ingress: Some(Vec::new()),
        egress: None,
    })
}

/// The places whose pods a peer means; `None` for none.
fn select(
    universe: &Universe,
    layer: &mut Layer,
    policy: &Policy,
    namespaces: Option<&Selector>,
    pods: &Selector,
) -> Option<Bits> {
    let mut found = match namespaces {
        // 39, 44.
        None => layer.namespace(&policy.key.name.namespace)?.clone(),
        // 40, 43.
        Some(selector) => layer.in_namespaces(universe, selector).clone(),
    };
    found.keep(layer.labelled(pods));
    Some(found)
}

/// Names, and the protocol and number that they must stand for.
type Named<'a> = (Vec<&'a PortName>, Protocol, u16);

/// How the ports of a rule take a connection.
enum Matched<'a> {
    No,
    Yes,
    /// Where one of these names stands for this protocol and number.
    ByName(Vec<&'a PortName>, Protocol, u16),
}

fn ports(ports: &Ports, l4: L4) -> Matched<'_> {
    let (entries, protocol, port) = match (ports, l4) {
        // 31.
        (Ports::All, _) => return Matched::Yes,
        (Ports::OneOf(entries), L4::Port { protocol, port }) => (entries, protocol, port),
        // 113.
        (Ports::OneOf(_), L4::Icmpv6 { .. } | L4::Other(_)) => return Matched::No,
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            PortMatch::Range(range) => {
                // 88: 1 to 65535 is the whole protocol.
                let first = if range.last == u16::MAX && range.first == 1 {
                    0
                } else {
                    range.first
                };
                if range.protocol == protocol && (first..=range.last).contains(&port) {
                    return Matched::Yes;
                }
            }
            PortMatch::Named { name, protocol: wanted } if *wanted == protocol => names.push(name),
            PortMatch::Named { .. } | PortMatch::Nothing => {}
        }
    }
    if names.is_empty() {
        Matched::No
    } else {
        Matched::ByName(names, protocol, port)
    }
}

fn first_of(at: AttachmentRef<'_>, family: Family) -> Option<std::net::IpAddr> {
    let addresses = at.attachment.addresses.iter().copied();
    addresses.into_iter().find(|address| Family::of(*address) == family)
}
