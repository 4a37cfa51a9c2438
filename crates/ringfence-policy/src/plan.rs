//! From the policies that isolate one pod to what each of its interfaces may do: the part of a ruleset that depends on
//! policies and on the pod itself, and never on how many peers there are (statement 230).
//!
//! Everything here is a pure function of one pod, the policies of its namespace and the options.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{
    AddressRange, Attachment, Coverage, Direction, InterfaceName, NetworkName, Peer, Peers, Pod, Policy, PolicyKey,
    PolicyKind, PortMatch, PortName, PortRange, PortSet, Ports, Protocol, RangeSet, Rule, Scope, Selector,
};

/// A set of ports with at most this many members becomes exact elements (one look-up for all rules together); more
/// become a class, so that 10,000 peers times 500 ports are 10,000 elements and not five million.
const EXACT_PORTS: u32 = 8;

/// What a local pod's ruleset is to be made of, without the peers' addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodPlan {
    /// Every interface that an attachment names, in the order of the names.
    pub interfaces: Vec<InterfacePlan>,
    /// For each attachment of the pod, in its order, who isolates it: ingress, then egress.
    pub isolation: Vec<[Vec<PolicyKey>; 2]>,
}

impl PodPlan {
    /// Whether the pod needs a ruleset. An attachment without an interface name counts too: its interface is then
    /// one that nothing explains, and those are closed (statement 168).
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolation.iter().flatten().any(|keys| !keys.is_empty())
    }
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InterfacePlan {
    /// Its name.
    pub interface: InterfaceName,
    /// Whether it is on the cluster network, where the node may always reach it (statement 117).
    pub cluster: bool,
    /// Whether it is on a network that hands out its addresses by DHCP (statement 123).
    pub dhcp: bool,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// What others may do to the pod, `None` where it is not isolated.
    pub ingress: Option<Table>,
    /// What the pod may do to others, `None` where it is not isolated.
    pub egress: Option<Table>,
}

impl InterfacePlan {
    /// The table of a direction.
    pub(crate) fn table(&self, direction: Direction) -> Option<&Table> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

/// What an isolated direction of an interface allows: the union over every rule of every isolating policy
/// (statements 5, 33).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// What anybody may do (statements 29, 30).
    pub everyone: PortSet,
    /// What ranges of addresses may do, by the ports.
    pub blocks: BTreeMap<PortSet, RangeSet>,
    /// What single addresses may do. Interfaces with equal ones share their sets.
    pub peers: Arc<PeersSpec>,
}

impl Table {
    /// Whether everybody may do everything (statements 17, 18).
    pub(crate) fn is_open(&self) -> bool {
        self.everyone == PortSet::Everything
    }
}

/// Which single addresses may do what: by selectors, and by address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct PeersSpec {
    /// The networks on which peers are met: those of the interface (statements 154 to 157), sorted.
    pub networks: BTreeSet<NetworkName>,
    /// Rights of the pods that selectors select.
    pub selected: BTreeMap<PeerSelector, Grant>,
    /// Rights of single addresses (`/32` and `/128`, statement 76).
    pub singles: BTreeMap<IpAddr, Grant>,
}

impl PeersSpec {
    /// Which sets these rights need. Whether anybody has them makes no difference.
    pub(crate) fn layout(&self) -> Layout {
        let mut layout = Layout::default();
        let mut classes = BTreeSet::new();
        for grant in self.selected.values().chain(self.singles.values()) {
            layout.exact |= !grant.exact.is_empty() || !grant.named.is_empty();
            layout.any |= grant.any;
            classes.extend(grant.classes.iter().cloned());
        }
        layout.classes = classes.into_iter().collect();
        layout
    }
}

/// The sets that a [`PeersSpec`] needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// `address . protocol . port`, and the addresses alone.
    pub exact: bool,
    /// Addresses that may do everything.
    pub any: bool,
    /// Sets of ports that have sets of addresses of their own, sorted.
    pub classes: Vec<PortSet>,
}

impl Layout {
    /// Whether there is no set at all.
    pub(crate) fn is_empty(&self) -> bool {
        !self.exact && !self.any && self.classes.is_empty()
    }
}

/// Pods by their namespace and their labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerSelector {
    /// Which namespaces.
    pub namespaces: NamespacePart,
    /// Which of their pods.
    pub pods: Selector,
}

/// Which namespaces a peer selects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum NamespacePart {
    /// The policy's own (statement 39).
    Named(Arc<str>),
    /// By labels (statements 40, 43).
    Matching(Selector),
}

/// What one selector or one address is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Grant {
    /// Everything; then the rest is empty.
    pub any: bool,
    /// Few single ports; none that a class has too.
    pub exact: BTreeSet<(Protocol, u16)>,
    /// Larger sets of ports.
    pub classes: BTreeSet<PortSet>,
    /// Named ports of the destination pod, egress only (statement 90).
    pub named: BTreeSet<(PortName, Protocol)>,
}

impl Grant {
    fn add(&mut self, ports: &ResolvedPorts) {
        match &ports.numbers {
            PortSet::Everything => self.any = true,
            numbers @ PortSet::Ranges(_) => match exact_ports(numbers) {
                Some(exact) => self.exact.extend(exact),
                None => {
                    self.classes.insert(numbers.clone());
                }
            },
        }
        self.named.extend(ports.named.iter().cloned());
    }

    /// The normal form: nothing twice, and never more exact ports than the limit.
    fn settle(&mut self) {
        if self.any {
            *self = Self {
                any: true,
                ..Self::default()
            };
            return;
        }
        if u32::try_from(self.exact.len()).is_ok_and(|count| count > EXACT_PORTS) {
            let ports = std::mem::take(&mut self.exact).into_iter();
            self.classes.insert(PortSet::union_of(
                ports.map(|(protocol, port)| PortRange::single(protocol, port)),
            ));
        }
        self.exact
            .retain(|&(protocol, port)| !self.classes.iter().any(|class| class.contains(protocol, port)));
    }
}

/// The single ports of a small set; `None` where it is no small one.
fn exact_ports(ports: &PortSet) -> Option<Vec<(Protocol, u16)>> {
    let ranges = ports.ranges()?;
    let count: u32 = ranges.iter().map(|range| range.count()).sum();
    if count > EXACT_PORTS {
        return None;
    }
    let singles = |range: &PortRange| {
        (range.first..=range.last)
            .map(|port| (range.protocol, port))
            .collect::<Vec<_>>()
    };
    Some(ranges.iter().flat_map(singles).collect())
}

/// The ports of one rule: numbers, and what only the destination pod can tell.
struct ResolvedPorts {
    numbers: PortSet,
    named: BTreeSet<(PortName, Protocol)>,
}

impl ResolvedPorts {
    /// Ingress: the destination is the protected pod itself, so its names become numbers here (statement 89).
    /// Egress: names stay names (statement 90).
    fn of(rule: &Rule, direction: Direction, pod: &Pod) -> Self {
        let Ports::OneOf(matches) = &rule.ports else {
            return Self {
                numbers: PortSet::Everything,
                named: BTreeSet::new(),
            };
        };
        let mut ranges = Vec::new();
        let mut named = BTreeSet::new();
        for port in matches {
            match port {
                PortMatch::Range(range) => ranges.push(*range),
                PortMatch::Named { name, protocol } if direction == Direction::Egress => {
                    named.insert((name.clone(), *protocol));
                }
                PortMatch::Named { name, protocol } => ranges.extend(
                    pod.ports
                        .iter()
                        .filter(|port| port.name == *name && port.protocol == *protocol)
                        .map(|port| PortRange::single(*protocol, port.number)),
                ),
                PortMatch::Nothing => {}
            }
        }
        Self {
            numbers: PortSet::union_of(ranges),
            named,
        }
    }
}

/// The policy that the annotation of a namespace amounts to: no rules, everything selected, ingress only.
pub(crate) fn namespace_isolation(namespace: &Arc<str>) -> Policy {
    Policy {
        key: PolicyKey {
            kind: PolicyKind::NamespaceIsolation,
            name: ringfence_model::NamespacedName::new(namespace.clone(), namespace.clone()),
        },
        coverage: Coverage::Scope,
        target: Some(Selector::everything()),
        ingress: Some(Vec::new()),
        egress: None,
    }
}

/// Whether a policy acts on an attachment of a pod that it selects.
fn covers(policy: &Policy, attachment: &Attachment, scope: Scope) -> bool {
    let multi = policy.key.kind == PolicyKind::MultiNetworkPolicy;
    match &policy.coverage {
        // The scope "none" leaves NetworkPolicies to another engine altogether.
        Coverage::Networks(networks) => (multi || scope != Scope::None) && !networks.is_disjoint(&attachment.networks),
        // A MultiNetworkPolicy acts on what it names and on nothing else (statement 148).
        Coverage::Scope => {
            !multi
                && match scope {
                    Scope::Secondary => !attachment.primary,
                    Scope::All => true,
                    Scope::Annotated | Scope::None => false,
                }
        }
    }
}

/// What the pod's ruleset is to be made of. `policies` are those of its namespace, in the order of their keys;
/// `is_dhcp` says of a network whether its addresses come by DHCP.
pub(crate) fn plan<'a>(
    pod: &Pod,
    policies: impl Iterator<Item = &'a Policy>,
    scope: Scope,
    is_dhcp: impl Fn(&NetworkName) -> bool,
) -> PodPlan {
    let selecting: Vec<&Policy> = policies
        .filter(|policy| pod.takes_part() && policy.target.as_ref().is_some_and(|target| target.matches(&pod.labels)))
        .collect();
    let mut isolation = Vec::with_capacity(pod.attachments.len());
    // Two attachments with one interface name are one interface: whatever isolates either isolates it.
    let mut interfaces: BTreeMap<&InterfaceName, Joined<'_>> = BTreeMap::new();
    for attachment in &pod.attachments {
        let covering: Vec<&Policy> = selecting
            .iter()
            .copied()
            .filter(|policy| covers(policy, attachment, scope))
            .collect();
        isolation.push(Direction::BOTH.map(|direction| {
            let isolating = covering.iter().filter(|policy| policy.rules(direction).is_some());
            isolating.map(|policy| policy.key.clone()).collect()
        }));
        if let Some(interface) = &attachment.interface {
            let joined = interfaces.entry(interface).or_default();
            joined.addresses.extend(&attachment.addresses);
            joined.networks.extend(attachment.networks.iter().cloned());
            joined
                .policies
                .extend(covering.into_iter().map(|policy| (&policy.key, policy)));
        }
    }
    let interfaces = interfaces.into_iter().map(|(interface, joined)| InterfacePlan {
        interface: interface.clone(),
        cluster: joined.networks.contains(&NetworkName::Default),
        dhcp: joined.networks.iter().any(&is_dhcp),
        ingress: joined.table(pod, Direction::Ingress),
        egress: joined.table(pod, Direction::Egress),
        addresses: joined.addresses,
    });
    PodPlan {
        interfaces: interfaces.collect(),
        isolation,
    }
}

/// The attachments of one interface.
#[derive(Default)]
struct Joined<'a> {
    addresses: BTreeSet<IpAddr>,
    networks: BTreeSet<NetworkName>,
    policies: BTreeMap<&'a PolicyKey, &'a Policy>,
}

impl Joined<'_> {
    fn table(&self, pod: &Pod, direction: Direction) -> Option<Table> {
        let mut isolated = false;
        let mut draft = Draft::default();
        for policy in self.policies.values() {
            if let Some(rules) = policy.rules(direction) {
                isolated = true;
                for rule in rules {
                    draft.add(policy, rule, &ResolvedPorts::of(rule, direction, pod));
                }
            }
        }
        isolated.then(|| draft.finish(&self.networks))
    }
}

/// A table in the making.
struct Draft {
    everyone: PortSet,
    blocks: BTreeMap<PortSet, Vec<AddressRange>>,
    selected: BTreeMap<PeerSelector, Grant>,
    singles: BTreeMap<IpAddr, Grant>,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            everyone: PortSet::nothing(),
            blocks: BTreeMap::new(),
            selected: BTreeMap::new(),
            singles: BTreeMap::new(),
        }
    }
}

impl Draft {
    fn add(&mut self, policy: &Policy, rule: &Rule, ports: &ResolvedPorts) {
        // Ports of which none resolves match nothing, whoever the peer is (statement 35, catalogue B6).
        if ports.numbers.is_nothing() && ports.named.is_empty() {
            return;
        }
        let Peers::OneOf(peers) = &rule.peers else {
            self.everyone = self.everyone.union(&ports.numbers);
            if !ports.named.is_empty() {
                // Names need a pod to look them up on: every one that there is (statement 97).
                let everybody = PeerSelector {
                    namespaces: NamespacePart::Matching(Selector::everything()),
                    pods: Selector::everything(),
                };
                let only_named = ResolvedPorts {
                    numbers: PortSet::nothing(),
                    named: ports.named.clone(),
                };
                self.selected.entry(everybody).or_default().add(&only_named);
            }
            return;
        };
        for peer in peers {
            match peer {
                Peer::Pods { namespaces, pods } => {
                    let selector = PeerSelector {
                        namespaces: namespaces.clone().map_or_else(
                            || NamespacePart::Named(policy.key.name.namespace.clone()),
                            NamespacePart::Matching,
                        ),
                        pods: pods.clone(),
                    };
                    self.selected.entry(selector).or_default().add(ports);
                }
                Peer::IpBlock(block) if !ports.numbers.is_nothing() => {
                    let ranges = block.ranges();
                    let numbers = ResolvedPorts {
                        numbers: ports.numbers.clone(),
                        // A block has no pod on which a name could be looked up (statement 96).
                        named: BTreeSet::new(),
                    };
                    if block.cidr.prefix_len() == block.cidr.max_prefix_len() {
                        for range in ranges.ranges() {
                            self.singles.entry(range.first()).or_default().add(&numbers);
                        }
                    } else if !ranges.is_empty() {
                        self.blocks.entry(numbers.numbers).or_default().extend(ranges.ranges());
                    }
                }
                Peer::IpBlock(_) | Peer::Nothing => {}
            }
        }
    }

    fn finish(mut self, networks: &BTreeSet<NetworkName>) -> Table {
        if self.everyone == PortSet::Everything {
            // What single peers may do does not matter any more: no sets, and no work when peers come and go.
            self = Self {
                everyone: PortSet::Everything,
                ..Self::default()
            };
        }
        self.selected
            .values_mut()
            .chain(self.singles.values_mut())
            .for_each(Grant::settle);
        Table {
            everyone: self.everyone,
            blocks: self
                .blocks
                .into_iter()
                .map(|(ports, ranges)| (ports, RangeSet::union_of(ranges)))
                .collect(),
            peers: Arc::new(PeersSpec {
                networks: networks.clone(),
                selected: self.selected,
                singles: self.singles,
            }),
        }
    }
}
