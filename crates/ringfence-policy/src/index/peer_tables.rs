//! The addresses of peers, as elements of sets.
//!
//! Interfaces for which the same peers have the same rights (the replicas of a Deployment under one policy) share one
//! table: a peer event is worked out once, and the rulesets of all of them share the memory of the elements.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdSet;
use ringfence_model::{Family, NamedPort, PodUid, PortName, PortSet, Protocol};
use ringfence_ruleset::Element;
use smallvec::SmallVec;

use super::claims::Claims;
use super::networks::{NetworkId, NetworkIds};
use super::objects::{Objects, PeerId};
use super::selectors::{SelectorId, Selectors};
use super::slab::{Id, Slab};
use crate::compile::PeerSet;
use crate::plan::{Grant, Layout, PeersSpec};

/// The elements of one family.
#[derive(Clone, Default)]
struct Elements {
    exact: OrdSet<Element>,
    exact_addresses: OrdSet<Element>,
    any: OrdSet<Element>,
    classes: Vec<OrdSet<Element>>,
}

/// A grant with its classes as positions in the layout.
struct CompactGrant {
    any: bool,
    exact: Box<[(Protocol, u16)]>,
    classes: Box<[usize]>,
    named: Box<[(PortName, Protocol)]>,
}

impl CompactGrant {
    fn new(grant: &Grant, layout: &Layout) -> Self {
        let position = |class: &PortSet| layout.classes.binary_search(class).ok();
        Self {
            any: grant.any,
            exact: grant.exact.iter().copied().collect(),
            classes: grant.classes.iter().filter_map(position).collect(),
            named: grant.named.iter().cloned().collect(),
        }
    }
}

/// What one address may do, in normal form: a function of the current objects and of nothing else.
#[derive(Default, PartialEq, Eq)]
struct Access {
    any: bool,
    classes: SmallVec<[usize; 4]>,
    exact: SmallVec<[(Protocol, u16); 8]>,
}

impl Access {
    fn add(&mut self, grant: &CompactGrant, destination: &[NamedPort]) {
        self.any |= grant.any;
        self.classes.extend_from_slice(&grant.classes);
        self.exact.extend_from_slice(&grant.exact);
        for (name, protocol) in &grant.named {
            let declared = destination
                .iter()
                .filter(|port| port.name == *name && port.protocol == *protocol);
            self.exact.extend(declared.map(|port| (*protocol, port.number)));
        }
    }

    /// Nothing twice: neither by repetition nor under two titles.
    fn settle(&mut self, classes: &[PortSet]) {
        if self.any {
            self.classes.clear();
            self.exact.clear();
            return;
        }
        self.classes.sort_unstable();
        self.classes.dedup();
        self.exact.sort_unstable();
        self.exact.dedup();
        let ours = &self.classes;
        self.exact.retain(|(protocol, port)| {
            !ours
                .iter()
                .filter_map(|class| classes.get(*class))
                .any(|class| class.contains(*protocol, *port))
        });
    }
}

/// See the module.
pub(super) struct PeerTable {
    spec: Arc<PeersSpec>,
    classes: Vec<PortSet>,
    /// How often each local pod uses it.
    pub(super) users: BTreeMap<PodUid, usize>,
    pub(super) networks: SmallVec<[NetworkId; 2]>,
    selected: HashMap<SelectorId, CompactGrant>,
    singles: HashMap<IpAddr, CompactGrant>,
    elements: [Elements; 2],
    /// Whether the elements have changed since the users' rulesets were brought up to date.
    pub(super) changed: bool,
}

pub(super) type PeerTableId = Id<PeerTable>;

/// What tables read and subscribe to.
pub(super) struct World<'a> {
    pub(super) objects: &'a mut Objects,
    pub(super) selectors: &'a mut Selectors,
    pub(super) networks: &'a mut NetworkIds,
    pub(super) claims: &'a Claims,
}

impl PeerTable {
    /// The current elements of a set.
    pub(super) fn elements(&self, set: PeerSet, family: Family) -> Option<&OrdSet<Element>> {
        let elements = &self.elements[half(family)];
        match set {
            PeerSet::Exact => Some(&elements.exact),
            PeerSet::ExactAddresses => Some(&elements.exact_addresses),
            PeerSet::Any => Some(&elements.any),
            PeerSet::Class(position) => elements.classes.get(position),
        }
    }

    /// What an address may do now: by the pods that own it on the networks of this table, and by itself.
    fn access(&self, address: IpAddr, objects: &Objects, claims: &Claims) -> Access {
        let mut access = Access::default();
        let mut seen: SmallVec<[PeerId; 2]> = SmallVec::new();
        for network in &self.networks {
            let Some(owner) = claims.owner((*network, address)) else {
                continue;
            };
            if seen.contains(&owner) {
                continue;
            }
            seen.push(owner);
            let Some(record) = objects.peers.get(owner) else {
                continue;
            };
            for selector in &record.matched {
                if let Some(grant) = self.selected.get(selector) {
                    access.add(grant, &record.ports);
                }
            }
        }
        if let Some(grant) = self.singles.get(&address) {
            access.add(grant, &[]);
        }
        access.settle(&self.classes);
        access
    }

    /// Brings the elements of one address up to date. Independent of what was there before.
    pub(super) fn refresh(&mut self, address: IpAddr, objects: &Objects, claims: &Claims) {
        let access = self.access(address, objects, claims);
        let elements = &mut self.elements[half(Family::of(address))];
        let mut changed = set_element(&mut elements.any, Element::Address(address), access.any);
        for (position, class) in elements.classes.iter_mut().enumerate() {
            changed |= set_element(class, Element::Address(address), access.classes.contains(&position));
        }
        let has_exact = !access.exact.is_empty();
        if set_element(&mut elements.exact_addresses, Element::Address(address), has_exact) {
            changed = true;
        }
        let first = Element::Service(address, Protocol::Tcp, 0);
        let last = Element::Service(address, Protocol::Sctp, u16::MAX);
        let present: SmallVec<[Element; 8]> = elements.exact.range(first..=last).copied().collect();
        for element in &present {
            if let Element::Service(_, protocol, port) = *element
                && access.exact.binary_search(&(protocol, port)).is_err()
            {
                elements.exact.remove(element);
                changed = true;
            }
        }
        for (protocol, port) in access.exact {
            let element = Element::Service(address, protocol, port);
            if present.binary_search(&element).is_err() {
                elements.exact.insert(element);
                changed = true;
            }
        }
        self.changed |= changed;
    }

    /// Puts in every address from scratch.
    fn fill(&mut self, world: &World<'_>) {
        let mut addresses: Vec<IpAddr> = self.singles.keys().copied().collect();
        for selector in self.selected.keys().filter_map(|id| world.selectors.get(*id)) {
            for record in selector.members.iter().filter_map(|pod| world.objects.peers.get(*pod)) {
                let met = record
                    .places
                    .iter()
                    .filter(|(network, _)| self.networks.contains(network));
                addresses.extend(met.map(|(_, address)| *address));
            }
        }
        // Sorted: inserting in order is what the sets are best at.
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            let access = self.access(address, world.objects, world.claims);
            let elements = &mut self.elements[half(Family::of(address))];
            if access.any {
                elements.any.insert(Element::Address(address));
            }
            for position in access.classes {
                if let Some(class) = elements.classes.get_mut(position) {
                    class.insert(Element::Address(address));
                }
            }
            if !access.exact.is_empty() {
                elements.exact_addresses.insert(Element::Address(address));
            }
            for (protocol, port) in access.exact {
                elements.exact.insert(Element::Service(address, protocol, port));
            }
        }
    }
}

/// Adds or removes; whether that changed anything.
fn set_element(set: &mut OrdSet<Element>, element: Element, wanted: bool) -> bool {
    if set.contains(&element) == wanted {
        return false;
    }
    if wanted {
        set.insert(element);
    } else {
        set.remove(&element);
    }
    true
}

fn half(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// All tables in use.
#[derive(Default)]
pub(super) struct PeerTables {
    tables: Slab<PeerTable>,
    by_spec: HashMap<Arc<PeersSpec>, PeerTableId>,
}

impl PeerTables {
    pub(super) fn get(&self, id: PeerTableId) -> Option<&PeerTable> {
        self.tables.get(id)
    }

    pub(super) fn get_mut(&mut self, id: PeerTableId) -> Option<&mut PeerTable> {
        self.tables.get_mut(id)
    }

    /// The table of a specification, for one more use by a local pod.
    pub(super) fn acquire(&mut self, spec: &Arc<PeersSpec>, user: &PodUid, world: &mut World<'_>) -> PeerTableId {
        let id = match self.by_spec.get(spec) {
            Some(id) => *id,
            None => self.create(spec, world),
        };
        if let Some(table) = self.tables.get_mut(id) {
            *table.users.entry(user.clone()).or_default() += 1;
        }
        id
    }

    /// Ends one use.
    pub(super) fn release(&mut self, id: PeerTableId, user: &PodUid, world: &mut World<'_>) {
        let Some(table) = self.tables.get_mut(id) else { return };
        if let Some(uses) = table.users.get_mut(user) {
            *uses -= 1;
            if *uses == 0 {
                table.users.remove(user);
            }
        }
        if !table.users.is_empty() {
            return;
        }
        let Some(table) = self.tables.remove(id) else { return };
        self.by_spec.remove(&table.spec);
        for selector in table.selected.keys() {
            world.selectors.unsubscribe(*selector, id, world.objects);
        }
        for network in table.networks {
            world.networks.release(network);
        }
    }

    fn create(&mut self, spec: &Arc<PeersSpec>, world: &mut World<'_>) -> PeerTableId {
        let layout = spec.layout();
        let elements = || Elements {
            classes: vec![OrdSet::new(); layout.classes.len()],
            ..Elements::default()
        };
        let mut table = PeerTable {
            spec: spec.clone(),
            users: BTreeMap::new(),
            networks: spec.networks.iter().map(|name| world.networks.acquire(name)).collect(),
            selected: HashMap::new(),
            singles: spec
                .singles
                .iter()
                .map(|(address, grant)| (*address, CompactGrant::new(grant, &layout)))
                .collect(),
            elements: [elements(), elements()],
            classes: Vec::new(),
            changed: false,
        };
        let grants: Vec<_> = spec
            .selected
            .iter()
            .map(|(key, grant)| (key, CompactGrant::new(grant, &layout)))
            .collect();
        table.classes = layout.classes;
        // The handle must exist before the selectors are told about it.
        let id = self.tables.insert(table);
        self.by_spec.insert(spec.clone(), id);
        if let Some(table) = self.tables.get_mut(id) {
            for (key, grant) in grants {
                let selector = world.selectors.subscribe(key, id, world.objects);
                table.selected.insert(selector, grant);
            }
            table.fill(world);
        }
        id
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_spec.is_empty()
    }
}
