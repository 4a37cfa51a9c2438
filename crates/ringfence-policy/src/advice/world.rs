//! The objects with the look-ups that the families share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringfence_model::{
    Attachment, Coverage, Direction, Family, Labels, Namespace, NamespacedName, Network, NetworkName, Note, Object,
    Peer, Peers, Pod, Policy, PolicyKind, PortName, Protocol, Requirement, Scope, Selector, Source,
};

use super::Input;

/// The label that every namespace carries (statement 46).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A set of pods, by its number in [`World`]. Equal numbers are equal sets; equal sets mostly have equal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetId(usize);

/// What a policy's target and coverage come to, by its number in [`World`]: many policies share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BundleId(usize);

/// The attachments that a set of pods has in a coverage.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    /// The pods that it isolates, which take part and have such an attachment.
    pub(super) pods: Vec<usize>,
    /// The networks of those attachments, on which peers must have addresses (statement 154).
    pub(super) networks: BTreeSet<NetworkName>,
    /// A pod that has addresses of both IP versions on them.
    pub(super) dual_stack: Option<usize>,
    /// The policies, by their positions.
    pub(super) policies: Vec<usize>,
}

/// A policy with what it acts on.
pub(super) struct Target<'a> {
    pub(super) policy: &'a Policy,
    pub(super) notes: &'a [Note],
    pub(super) source: Source,
    /// What its podSelector selects, whether or not it takes part.
    pub(super) selected: SetId,
    pub(super) bundle: BundleId,
}

/// Namespaces go by number: their positions in the order of names.
struct Place<'a> {
    name: &'a str,
    namespace: Option<&'a Namespace>,
    labels: Labels,
    pods: Vec<usize>,
}

#[derive(PartialEq, Eq, Hash)]
enum Where {
    In(usize),
    Matching(Selector),
}

/// What a coverage comes to: `None` is the scope.
type CoverageKey = Option<BTreeSet<NetworkName>>;

/// Everything, indexed. Pods that have ended are left out: they are neither targets nor peers (statement 132).
pub(super) struct World<'a> {
    pub(super) scope: Scope,
    pub(super) pods: Vec<(&'a Pod, &'a [Note])>,
    pub(super) policies: Vec<Target<'a>>,
    pub(super) networks: BTreeMap<&'a NamespacedName, &'a Network>,
    pub(super) namespaces: Vec<&'a Namespace>,
    /// Pods that take part, by network.
    pub(super) attached: BTreeMap<&'a NetworkName, Vec<usize>>,
    pub(super) bundles: Vec<Bundle>,
    /// Which bundles isolate a pod.
    pub(super) bundles_of: Vec<Vec<BundleId>>,
    places: Vec<Place<'a>>,
    by_label: HashMap<(usize, &'a str, &'a str), Vec<usize>>,
    places_by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    values: HashMap<(usize, &'a str), BTreeSet<&'a str>>,
    sets: Vec<Rc<[usize]>>,
    selections: HashMap<(Where, Selector), SetId>,
    matching: HashMap<Selector, Rc<[usize]>>,
    meets: HashMap<(SetId, BundleId), bool>,
    declared: HashMap<(SetId, PortName), Rc<Declared>>,
    bundle_ids: HashMap<(SetId, bool, CoverageKey), BundleId>,
}

/// How the pods of a set declare a port name.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// The numbers by protocol.
    pub(super) numbers: BTreeMap<Protocol, BTreeSet<u16>>,
    /// The protocols with which only ordinary init containers declare it.
    pub(super) init: BTreeSet<Protocol>,
    /// A few names that the pods declare, for hints.
    pub(super) names: BTreeSet<String>,
    /// Pods that take part.
    pub(super) pods: usize,
}

impl<'a> World<'a> {
    pub(super) fn new(input: Input<'a>) -> Self {
        let mut pods: Vec<(&Pod, &[Note])> = Vec::new();
        let mut policies: Vec<(&Policy, &[Note])> = Vec::new();
        let mut namespaces = BTreeMap::new();
        let mut networks = BTreeMap::new();
        for (object, notes) in input.objects {
            match object {
                Object::Pod(pod) if !pod.terminal => pods.push((pod, notes)),
                Object::Pod(_) => {}
                Object::Policy(policy) => policies.push((policy, notes)),
                Object::Namespace(namespace) => {
                    namespaces.insert(&*namespace.name, namespace);
                }
                Object::Network(network) => {
                    networks.insert(&network.name, network);
                }
            }
        }
        pods.sort_by_key(|(pod, _)| (&pod.name, &pod.uid));
        policies.sort_by_key(|(policy, _)| &policy.key);
        let mut world = Self {
            scope: input.scope,
            places: places(&namespaces, &pods),
            pods,
            policies: Vec::new(),
            networks,
            namespaces: namespaces.into_values().collect(),
            attached: BTreeMap::new(),
            bundles: Vec::new(),
            bundles_of: Vec::new(),
            by_label: HashMap::new(),
            places_by_label: HashMap::new(),
            values: HashMap::new(),
            sets: Vec::new(),
            selections: HashMap::new(),
            matching: HashMap::new(),
            meets: HashMap::new(),
            declared: HashMap::new(),
            bundle_ids: HashMap::new(),
        };
        world.index();
        let none = world.intern(Vec::new());
        for (policy, notes) in policies {
            let selected = policy
                .target
                .as_ref()
                .map_or(none, |target| world.select_in(&policy.key.name.namespace, target));
            let bundle = world.bundle(policy, selected);
            world.bundles[bundle.0].policies.push(world.policies.len());
            let source = Source {
                kind: policy.key.kind.as_str().into(),
                name: policy.key.name.to_string().into(),
            };
            world.policies.push(Target {
                policy,
                notes,
                source,
                selected,
                bundle,
            });
        }
        world
    }

    fn index(&mut self) {
        self.bundles_of = vec![Vec::new(); self.pods.len()];
        for (number, place) in self.places.iter().enumerate() {
            for &pod in &place.pods {
                for (key, value) in self.pods[pod].0.labels.iter() {
                    self.by_label.entry((number, key, value)).or_default().push(pod);
                    self.values.entry((number, key)).or_default().insert(value);
                    let places = self.places_by_label.entry((key, value)).or_default();
                    if places.last() != Some(&number) {
                        places.push(number);
                    }
                }
            }
        }
        for (number, (pod, _)) in self.pods.iter().enumerate() {
            for attachment in pod.attachments.iter().filter(|_| pod.takes_part()) {
                for network in &attachment.networks {
                    let attached = self.attached.entry(network).or_default();
                    if attached.last() != Some(&number) {
                        attached.push(number);
                    }
                }
            }
        }
    }

    fn intern(&mut self, set: Vec<usize>) -> SetId {
        self.sets.push(set.into());
        SetId(self.sets.len() - 1)
    }

    /// The pods of a set, ascending.
    pub(super) fn set(&self, id: SetId) -> Rc<[usize]> {
        Rc::clone(&self.sets[id.0])
    }

    /// What a policy acts on.
    pub(super) fn bundle_of(&self, position: usize) -> &Bundle {
        &self.bundles[self.policies[position].bundle.0]
    }

    /// A bundle by its number.
    pub(super) fn bundle_at(&self, id: BundleId) -> &Bundle {
        &self.bundles[id.0]
    }

    // === Selectors ===

    fn place(&self, name: &str) -> Option<usize> {
        self.places.binary_search_by(|place| place.name.cmp(name)).ok()
    }

    /// Whether the manifests know the namespace, by an object or by a pod in it.
    pub(super) fn knows_namespace(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    /// Whether the namespace has pods.
    pub(super) fn has_pods(&self, namespace: &str) -> bool {
        self.place(namespace)
            .is_some_and(|place| !self.places[place].pods.is_empty())
    }

    /// All namespaces that are known.
    pub(super) fn namespace_names(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.places.iter().map(|place| place.name)
    }

    /// Namespaces with pods and without an object.
    pub(super) fn namespaces_without_object(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.places
            .iter()
            .filter(|place| place.namespace.is_none())
            .map(|place| place.name)
    }

    /// The labels of the namespaces that have an object.
    pub(super) fn namespace_labels(&self) -> impl Iterator<Item = &Labels> {
        self.namespaces.iter().map(|namespace| &namespace.labels)
    }

    /// Pods of a namespace by their labels.
    pub(super) fn select_in(&mut self, namespace: &str, selector: &Selector) -> SetId {
        let Some(place) = self.place(namespace) else {
            return SetId(0);
        };
        self.select(Where::In(place), selector)
    }

    /// Namespaces by their labels, by number.
    pub(super) fn namespaces_matching(&mut self, selector: &Selector) -> Rc<[usize]> {
        if let Some(found) = self.matching.get(selector) {
            return Rc::clone(found);
        }
        // Of a namespace without object only the name is certain, as for enforcement.
        let by_name = asks_for_name_only(selector);
        let matches = |place: &Place<'_>| (place.namespace.is_some() || by_name) && selector.matches(&place.labels);
        let found: Rc<[usize]> = (0..self.places.len()).filter(|&it| matches(&self.places[it])).collect();
        self.matching.insert(selector.clone(), Rc::clone(&found));
        found
    }

    /// The pods that a peer means in a policy's namespace (statements 39 to 45).
    pub(super) fn peer(&mut self, own: &str, namespaces: Option<&Selector>, pods: &Selector) -> SetId {
        match namespaces {
            None => self.select_in(own, pods),
            Some(namespaces) => self.select(Where::Matching(namespaces.clone()), pods),
        }
    }

    fn select(&mut self, place: Where, selector: &Selector) -> SetId {
        let key = (place, selector.clone());
        if let Some(&id) = self.selections.get(&key) {
            return id;
        }
        let mut found = Vec::new();
        match &key.0 {
            Where::In(place) => self.add_matching(*place, selector, &mut found),
            Where::Matching(namespaces) => {
                for &place in self.namespaces_matching(namespaces).iter() {
                    self.add_matching(place, selector, &mut found);
                }
                found.sort_unstable();
            }
        }
        let id = self.intern(found);
        self.selections.insert(key, id);
        id
    }

    /// Starts from the rarest label that the selector asks for, so that a namespace with thousands of pods is not gone
    /// through for each of thousands of selectors.
    fn add_matching(&self, place: usize, selector: &Selector, found: &mut Vec<usize>) {
        let postings = selector
            .requirements()
            .iter()
            .filter_map(|requirement| match requirement {
                Requirement::In { key, values } => {
                    let known = values
                        .iter()
                        .filter_map(|value| self.by_label.get(&(place, &**key, &**value)));
                    Some(known.map(Vec::as_slice).collect::<Vec<&[usize]>>())
                }
                Requirement::NotIn { .. } | Requirement::Exists(_) | Requirement::DoesNotExist(_) => None,
            });
        let rarest = postings.min_by_key(|lists| lists.iter().map(|list| list.len()).sum::<usize>());
        match rarest {
            None => {
                let all = self.places[place].pods.iter().copied();
                found.extend(all.filter(|&pod| selector.matches(&self.pods[pod].0.labels)));
            }
            Some(lists) => {
                let mut candidates = lists.concat();
                candidates.sort_unstable();
                candidates.retain(|&pod| selector.matches(&self.pods[pod].0.labels));
                found.extend(candidates);
            }
        }
    }

    /// The values of a label on the pods of a namespace.
    pub(super) fn values_in<'s>(&'s self, namespace: &str, key: &'s str) -> Option<&'s BTreeSet<&'s str>> {
        self.values.get(&(self.place(namespace)?, key))
    }

    /// Other namespaces of which pods have the labels that a selector asks for: a few.
    pub(super) fn elsewhere(&mut self, own: &str, selector: &Selector) -> Vec<&'a str> {
        // Each look costs; people need one or two names.
        const LOOKS: usize = 16;
        const NAMES: usize = 3;
        let label = selector
            .requirements()
            .iter()
            .find_map(|requirement| match requirement {
                Requirement::In { key, values } => Some((key, values)),
                _ => None,
            });
        let Some((key, values)) = label else { return Vec::new() };
        let mut candidates: Vec<usize> = Vec::new();
        for value in values {
            candidates.extend(self.places_by_label.get(&(&**key, &**value)).into_iter().flatten());
        }
        candidates.sort_unstable();
        candidates.dedup();
        let mut found = Vec::new();
        for place in candidates.into_iter().take(LOOKS) {
            let name = self.places[place].name;
            if name != own && found.len() < NAMES {
                let set = self.select(Where::In(place), selector);
                if !self.sets[set.0].is_empty() {
                    found.push(name);
                }
            }
        }
        found
    }

    // === Coverage ===

    /// Whether a policy acts on an attachment (design, section 2).
    pub(super) fn covers(&self, policy: &Policy, attachment: &Attachment) -> bool {
        if self.scope == Scope::None && policy.key.kind != PolicyKind::MultiNetworkPolicy {
            return false;
        }
        match &policy.coverage {
            Coverage::Networks(networks) => !networks.is_disjoint(&attachment.networks),
            Coverage::Scope if policy.key.kind == PolicyKind::MultiNetworkPolicy => false,
            Coverage::Scope => self.scope_covers(attachment),
        }
    }

    /// Whether the scope alone names an attachment.
    pub(super) fn scope_covers(&self, attachment: &Attachment) -> bool {
        match self.scope {
            Scope::Secondary => !attachment.primary,
            Scope::All => true,
            Scope::Annotated | Scope::None => false,
        }
    }

    fn bundle(&mut self, policy: &Policy, selected: SetId) -> BundleId {
        let coverage = match &policy.coverage {
            Coverage::Scope => None,
            Coverage::Networks(networks) => Some(networks.clone()),
        };
        let multi = policy.key.kind == PolicyKind::MultiNetworkPolicy;
        let key = (selected, multi, coverage);
        if let Some(&id) = self.bundle_ids.get(&key) {
            return id;
        }
        let id = BundleId(self.bundles.len());
        let mut bundle = Bundle::default();
        for &number in self.set(selected).iter() {
            let pod = self.pods[number].0;
            if !pod.takes_part() {
                continue;
            }
            let mut families = BTreeSet::new();
            let mut covered = false;
            for attachment in pod.attachments.iter().filter(|it| self.covers(policy, it)) {
                covered = true;
                for network in &attachment.networks {
                    if !bundle.networks.contains(network) {
                        bundle.networks.insert(network.clone());
                    }
                }
                families.extend(attachment.addresses.iter().map(|address| Family::of(*address)));
            }
            if covered {
                bundle.pods.push(number);
                self.bundles_of[number].push(id);
            }
            if families.len() == Family::BOTH.len() {
                bundle.dual_stack.get_or_insert(number);
            }
        }
        self.bundles.push(bundle);
        self.bundle_ids.insert(key, id);
        id
    }

    /// Whether a pod of the set has an address on a network of the bundle (statements 50, 154 to 156).
    pub(super) fn meets(&mut self, set: SetId, id: BundleId) -> bool {
        if let Some(&known) = self.meets.get(&(set, id)) {
            return known;
        }
        let bundle = &self.bundles[id.0];
        let meets = self.sets[set.0].iter().map(|&pod| self.pods[pod].0).any(|pod| {
            // A pod that has no address anywhere has not started; it will have some on each of its networks.
            let waiting = pod.attachments.iter().all(|it| it.addresses.is_empty());
            let on =
                |it: &Attachment| (waiting || !it.addresses.is_empty()) && !it.networks.is_disjoint(&bundle.networks);
            pod.takes_part() && pod.attachments.iter().any(on)
        });
        self.meets.insert((set, id), meets);
        meets
    }

    // === Pods ===

    /// How the pods of a set declare a port name.
    pub(super) fn declared(&mut self, set: SetId, name: &PortName) -> Rc<Declared> {
        const NAMES: usize = 64;
        if let Some(known) = self.declared.get(&(set, name.clone())) {
            return Rc::clone(known);
        }
        let mut declared = Declared::default();
        for &number in self.sets[set.0].iter() {
            let (pod, notes) = self.pods[number];
            if !pod.takes_part() {
                continue;
            }
            declared.pods += 1;
            for port in &pod.ports {
                if port.name == *name {
                    declared.numbers.entry(port.protocol).or_default().insert(port.number);
                } else if declared.names.len() < NAMES {
                    declared.names.insert(port.name.as_str().to_owned());
                }
            }
            for note in notes {
                if let Note::InitPort { name: of, protocol } = note
                    && of == name
                {
                    declared.init.insert(*protocol);
                }
            }
        }
        let declared = Rc::new(declared);
        self.declared.insert((set, name.clone()), Rc::clone(&declared));
        declared
    }

    /// All pods, as a set.
    pub(super) fn everybody(&mut self) -> SetId {
        self.select(Where::Matching(Selector::everything()), &Selector::everything())
    }

    /// `x/web`
    pub(super) fn pod_name(&self, number: usize) -> String {
        self.pods[number].0.name.to_string()
    }

    /// The pods that have an address.
    pub(super) fn addresses(&self) -> BTreeMap<IpAddr, Vec<usize>> {
        let mut out: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
        for (number, (pod, _)) in self.pods.iter().enumerate().filter(|(_, (pod, _))| pod.takes_part()) {
            for address in pod.attachments.iter().flat_map(|it| &it.addresses) {
                let pods = out.entry(*address).or_default();
                if pods.last() != Some(&number) {
                    pods.push(number);
                }
            }
        }
        out
    }
}

/// Namespaces that have an object or a pod, by name.
fn places<'a>(namespaces: &BTreeMap<&'a str, &'a Namespace>, pods: &[(&'a Pod, &'a [Note])]) -> Vec<Place<'a>> {
    let mut places: BTreeMap<&str, Place<'a>> = BTreeMap::new();
    for (&name, namespace) in namespaces {
        let labels = namespace.labels.clone();
        places.insert(
            name,
            Place {
                name,
                namespace: Some(namespace),
                labels,
                pods: Vec::new(),
            },
        );
    }
    for (number, (pod, _)) in pods.iter().enumerate() {
        let name: &Arc<str> = &pod.name.namespace;
        let place = places.entry(name).or_insert_with(|| Place {
            name,
            namespace: None,
            labels: [(NAME_LABEL, name.clone())].into_iter().collect(),
            pods: Vec::new(),
        });
        place.pods.push(number);
    }
    places.into_values().collect()
}

/// Whether a selector can be answered for a namespace of which only the name is known.
pub(super) fn asks_for_name_only(selector: &Selector) -> bool {
    selector.requirements().iter().all(|requirement| {
        let (Requirement::In { key, .. }
        | Requirement::NotIn { key, .. }
        | Requirement::Exists(key)
        | Requirement::DoesNotExist(key)) = requirement;
        **key == *NAME_LABEL
    })
}

/// Each peer of a policy's rules, with its place. A list that is missing has none.
pub(super) fn peers(policy: &Policy) -> impl Iterator<Item = (Direction, usize, usize, &Peer)> {
    rules(policy).flat_map(|(direction, position, rule)| {
        let peers = match &rule.peers {
            Peers::All => &[][..],
            Peers::OneOf(peers) => peers,
        };
        let numbered = peers.iter().enumerate();
        numbered.map(move |(number, peer)| (direction, position, number, peer))
    })
}

/// Each rule of a policy, with its place.
pub(super) fn rules(policy: &Policy) -> impl Iterator<Item = (Direction, usize, &ringfence_model::Rule)> {
    Direction::BOTH.into_iter().flat_map(|direction| {
        let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
        rules.map(move |(position, rule)| (direction, position, rule))
    })
}

/// `spec.ingress[0].from[1]`
pub(super) fn peer_path(direction: Direction, rule: usize, peer: usize) -> String {
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    format!("spec.{direction}[{rule}].{list}[{peer}]")
}
