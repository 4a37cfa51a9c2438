//! What the events of pods and namespaces do to peers.
//!
//! Nothing is worked out here but which addresses may have other rights than before; the tables look at those again at
//! the commit.

use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{NamedPort, Namespace, Pod, PodUid};
use smallvec::SmallVec;

use super::Index;
use super::networks::NetworkId;
use super::objects::{NamespaceId, NamespaceRecord, PeerId, PeerRecord, Place};
use super::outline::Outline;
use super::selectors::SelectorId;

type Matched = SmallVec<[SelectorId; 4]>;

impl Index {
    /// Puts a pod that takes part in the place of what was known under its UID, or removes it.
    pub(super) fn put_peer(&mut self, uid: &PodUid, pod: Option<&Pod>) {
        let known = self.objects.peers_by_uid.get(uid).copied();
        match (known, pod) {
            (None, None) => {}
            (Some(id), None) => self.remove_peer(id),
            (None, Some(pod)) => self.add_peer(pod),
            (Some(id), Some(pod)) => self.update_peer(id, pod),
        }
    }

    fn add_peer(&mut self, pod: &Pod) {
        let namespace = self.join_namespace(&pod.name.namespace);
        let labels = self.interner.labels(&pod.labels);
        let ports = self.interner.ports(pod.ports.iter());
        let outline = self.interner.outline(Outline::of(pod));
        let exceptions = Outline::exceptions(pod);
        let (networks, places) = self.attach(pod);
        let matched = match self.objects.namespaces.get(namespace) {
            Some(record) => self.selectors.matching(record, &labels),
            None => Matched::new(),
        };
        let id = self.objects.peers.insert(PeerRecord {
            uid: pod.uid.clone(),
            namespace,
            name: pod.name.name.clone(),
            outline,
            exceptions,
            labels,
            ports,
            places: places.clone(),
            networks,
            started: pod.started,
            matched: matched.clone(),
        });
        self.objects.peers_by_uid.insert(pod.uid.clone(), id);
        if let Some(record) = self.objects.namespaces.get_mut(namespace) {
            record.pods.insert(id);
        }
        for selector in &matched {
            self.selectors.set_member(*selector, id, true);
        }
        for place in &places {
            self.claims.claim(*place, id, &self.objects);
            self.touch_rivals(*place);
        }
        self.touch(&matched, &places);
    }

    fn remove_peer(&mut self, id: PeerId) {
        let Some(record) = self.objects.peers.remove(id) else {
            return;
        };
        self.objects.peers_by_uid.remove(&record.uid);
        for selector in &record.matched {
            self.selectors.set_member(*selector, id, false);
        }
        for place in &record.places {
            self.release_place(*place, id);
        }
        self.touch(&record.matched, &record.places);
        self.detach(&record.networks);
        self.interner.release_labels(&record.labels);
        self.interner.release_ports(&record.ports);
        self.interner.release_outline(&record.outline);
        self.leave_namespace(record.namespace, id);
    }

    fn update_peer(&mut self, id: PeerId, pod: &Pod) {
        let Some(record) = self.objects.peers.get(id) else {
            return;
        };
        let same_namespace = self
            .objects
            .namespaces
            .get(record.namespace)
            .is_some_and(|known| known.name == pod.name.namespace);
        if !same_namespace {
            // No cluster does this to a pod; a folder of files may.
            self.remove_peer(id);
            self.add_peer(pod);
            return;
        }
        let namespace = record.namespace;
        let new_labels = record.labels != pod.labels;
        let restarted = record.started != pod.started;
        let new_ports = !same_ports(&record.ports, pod);

        let labels = new_labels.then(|| self.interner.labels(&pod.labels));
        let ports = new_ports.then(|| self.interner.ports(pod.ports.iter()));
        let outline = self.interner.outline(Outline::of(pod));
        let exceptions = Outline::exceptions(pod);
        // Attached anew before the old attachments are given up, so that handles of networks that stay are the same.
        let (networks, places) = self.attach(pod);
        let matched = match (&labels, self.objects.namespaces.get(namespace)) {
            (Some(labels), Some(known)) => Some(self.selectors.matching(known, labels)),
            _ => None,
        };
        let Some(record) = self.objects.peers.get_mut(id) else {
            return;
        };
        let old_labels = labels.map(|labels| std::mem::replace(&mut record.labels, labels));
        let old_ports = ports.map(|ports| std::mem::replace(&mut record.ports, ports));
        let old_networks = std::mem::replace(&mut record.networks, networks);
        let old_outline = std::mem::replace(&mut record.outline, outline);
        record.exceptions = exceptions;
        record.name.clone_from(&pod.name.name);
        let moved = record.places != places;
        let old_places = if moved {
            std::mem::replace(&mut record.places, places)
        } else {
            places
        };
        record.started = pod.started;
        let places = record.places.clone();
        let old_matched = match matched {
            Some(matched) => std::mem::replace(&mut record.matched, matched),
            None => record.matched.clone(),
        };
        let matched = record.matched.clone();

        if let Some(labels) = old_labels {
            self.interner.release_labels(&labels);
        }
        if let Some(ports) = old_ports {
            self.interner.release_ports(&ports);
        }
        self.interner.release_outline(&old_outline);
        self.detach(&old_networks);
        let turned = self.set_members(id, &old_matched, &matched);
        if moved {
            for place in old_places.iter().filter(|place| places.binary_search(place).is_err()) {
                self.release_place(*place, id);
            }
            for place in places.iter().filter(|place| old_places.binary_search(place).is_err()) {
                self.claims.claim(*place, id, &self.objects);
                self.touch_rivals(*place);
            }
        }
        if restarted {
            for place in &places {
                self.claims.elect(*place, &self.objects);
                self.touch_rivals(*place);
            }
        }
        if moved || new_ports {
            self.touch(&old_matched, &old_places);
            self.touch(&matched, &places);
        } else {
            self.touch(&turned, &places);
        }
    }

    /// Puts a namespace object in the place of the one known by this name, or removes it.
    pub(super) fn put_namespace(&mut self, name: &Arc<str>, object: Option<Namespace>) {
        let known = self.objects.namespaces_by_name.get(name).copied();
        let id = match (known, &object) {
            (None, None) => return,
            (Some(id), _) => id,
            (None, Some(_)) => self.create_namespace(name),
        };
        let Some(record) = self.objects.namespaces.get_mut(id) else {
            return;
        };
        if record.object == object {
            return;
        }
        record.object = object;
        if record.object.is_none() && record.pods.is_empty() {
            self.drop_namespace(id);
            return;
        }
        let parts = self.selectors.parts_of(record);
        if parts == record.parts {
            return;
        }
        let before = std::mem::replace(&mut record.parts, parts);
        self.selectors.set_parts(id, &before, &record.parts);
        let pods: Vec<PeerId> = record.pods.iter().copied().collect();
        for pod in pods {
            self.match_again(pod);
        }
    }

    fn match_again(&mut self, id: PeerId) {
        let Some(record) = self.objects.peers.get_mut(id) else {
            return;
        };
        let Some(namespace) = self.objects.namespaces.get(record.namespace) else {
            return;
        };
        let matched = self.selectors.matching(namespace, &record.labels);
        if matched == record.matched {
            return;
        }
        let before = std::mem::replace(&mut record.matched, matched.clone());
        let places = record.places.clone();
        let turned = self.set_members(id, &before, &matched);
        self.touch(&turned, &places);
    }

    /// Tells the selectors that a pod has come or gone, and returns those for which it has.
    fn set_members(&mut self, id: PeerId, before: &[SelectorId], after: &[SelectorId]) -> Matched {
        let mut turned = Matched::new();
        for selector in before.iter().filter(|selector| after.binary_search(selector).is_err()) {
            self.selectors.set_member(*selector, id, false);
            turned.push(*selector);
        }
        for selector in after.iter().filter(|selector| before.binary_search(selector).is_err()) {
            self.selectors.set_member(*selector, id, true);
            turned.push(*selector);
        }
        turned
    }

    /// Has the tables that use one of these selectors look at these addresses again.
    fn touch(&mut self, selectors: &[SelectorId], places: &[Place]) {
        for selector in selectors.iter().filter_map(|id| self.selectors.get(*id)) {
            for table in &selector.tables {
                let Some(networks) = self.tables.get(*table).map(|table| &table.networks) else {
                    continue;
                };
                let met = places.iter().filter(|(network, _)| networks.contains(network));
                self.stale.extend(met.map(|(_, address)| (*table, *address)));
            }
        }
    }

    /// The same for everybody who claims an address that several pods claim.
    fn touch_rivals(&mut self, place: Place) {
        let rivals: SmallVec<[PeerId; 4]> = self.claims.rivals(place).iter().copied().collect();
        for rival in rivals {
            if let Some(matched) = self.objects.peers.get(rival).map(|record| record.matched.clone()) {
                self.touch(&matched, &[place]);
            }
        }
    }

    /// Takes a claim away; the address may pass to another pod.
    fn release_place(&mut self, place: Place, id: PeerId) {
        self.touch_rivals(place);
        self.claims.release(place, id, &self.objects);
    }

    /// The networks and addresses of a pod, with a use of each network and the pod counted there.
    fn attach(&mut self, pod: &Pod) -> (SmallVec<[NetworkId; 4]>, Box<[Place]>) {
        let mut networks: SmallVec<[NetworkId; 4]> = SmallVec::new();
        let mut places: SmallVec<[Place; 8]> = SmallVec::new();
        for attachment in &pod.attachments {
            for name in &attachment.networks {
                let id = self.networks.acquire(name);
                if networks.contains(&id) {
                    self.networks.release(id);
                } else {
                    networks.push(id);
                    self.networks.count_pod(id, true);
                }
                places.extend(attachment.addresses.iter().map(|address: &IpAddr| (id, *address)));
            }
        }
        networks.sort_unstable();
        places.sort_unstable();
        places.dedup();
        (networks, places.into_boxed_slice())
    }

    fn detach(&mut self, networks: &[NetworkId]) {
        for id in networks {
            self.networks.count_pod(*id, false);
            self.networks.release(*id);
        }
    }

    /// The namespace of a new pod. Its first pod may be known before its object.
    fn join_namespace(&mut self, name: &Arc<str>) -> NamespaceId {
        match self.objects.namespaces_by_name.get(name) {
            Some(id) => *id,
            None => self.create_namespace(name),
        }
    }

    fn create_namespace(&mut self, name: &Arc<str>) -> NamespaceId {
        let mut record = NamespaceRecord {
            name: name.clone(),
            object: None,
            pods: std::collections::HashSet::new(),
            parts: Vec::new(),
        };
        record.parts = self.selectors.parts_of(&record);
        let parts = record.parts.clone();
        let id = self.objects.namespaces.insert(record);
        self.objects.namespaces_by_name.insert(name.clone(), id);
        self.selectors.set_parts(id, &[], &parts);
        id
    }

    fn leave_namespace(&mut self, id: NamespaceId, pod: PeerId) {
        let Some(record) = self.objects.namespaces.get_mut(id) else {
            return;
        };
        record.pods.remove(&pod);
        if record.pods.is_empty() && record.object.is_none() {
            self.drop_namespace(id);
        }
    }

    fn drop_namespace(&mut self, id: NamespaceId) {
        if let Some(record) = self.objects.namespaces.remove(id) {
            self.objects.namespaces_by_name.remove(&record.name);
            self.selectors.set_parts(id, &record.parts, &[]);
        }
    }
}

fn same_ports(known: &[NamedPort], pod: &Pod) -> bool {
    known.len() == pod.ports.len() && known.iter().eq(&pod.ports)
}
