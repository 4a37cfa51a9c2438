//! Pods in numbered places, and which of them a selector means, as sets of places. Nobody looks at labels twice: each
//! label, namespace and named port is a set of its own, and each selector's result is kept.

use std::collections::HashMap;
use std::sync::Arc;

use ringfence_model::{Pod, PortName, Protocol, Requirement, Selector};

use super::bits::Bits;
use crate::evaluate::Universe;

/// At most one pod per place.
pub(super) struct Layer {
    places: usize,
    occupied: Bits,
    by_key: HashMap<Arc<str>, Bits>,
    by_label: HashMap<Arc<str>, HashMap<Arc<str>, Bits>>,
    by_namespace: HashMap<Arc<str>, Bits>,
    by_port: HashMap<(PortName, Protocol, u16), Bits>,
    selected: HashMap<Selector, Bits>,
    namespaces: HashMap<Selector, Bits>,
}

impl Layer {
    /// So many places, and who is in them.
    pub(super) fn new<'a>(places: usize, pods: impl IntoIterator<Item = (usize, &'a Pod)>) -> Self {
        let mut layer = Self {
            places,
            occupied: Bits::none(places),
            by_key: HashMap::new(),
            by_label: HashMap::new(),
            by_namespace: HashMap::new(),
            by_port: HashMap::new(),
            selected: HashMap::new(),
            namespaces: HashMap::new(),
        };
        for (place, pod) in pods {
            layer.occupied.insert(place);
            let none = || Bits::none(places);
            for (key, value) in pod.labels.iter() {
                layer.by_key.entry(key.clone()).or_insert_with(none).insert(place);
                let values = layer.by_label.entry(key.clone()).or_default();
                values.entry(value.clone()).or_insert_with(none).insert(place);
            }
            let namespace = pod.name.namespace.clone();
            layer.by_namespace.entry(namespace).or_insert_with(none).insert(place);
            for port in &pod.ports {
                let key = (port.name.clone(), port.protocol, port.number);
                layer.by_port.entry(key).or_insert_with(none).insert(place);
            }
        }
        layer
    }

    /// The pods of one namespace; `None` where there are none.
    pub(super) fn namespace(&self, name: &str) -> Option<&Bits> {
        self.by_namespace.get(name)
    }

    /// The pods whose labels fit.
    pub(super) fn labelled(&mut self, selector: &Selector) -> &Bits {
        if !self.selected.contains_key(selector) {
            let mut bits = self.occupied.clone();
            for requirement in selector.requirements() {
                self.narrow(&mut bits, requirement);
            }
            self.selected.insert(selector.clone(), bits);
        }
        &self.selected[selector]
    }

    /// The pods whose namespaces fit.
    pub(super) fn in_namespaces(&mut self, universe: &Universe, selector: &Selector) -> &Bits {
        if !self.namespaces.contains_key(selector) {
            let mut bits = Bits::none(self.places);
            for (name, members) in &self.by_namespace {
                if universe.namespace_matches(name, selector) {
                    bits.add(members);
                }
            }
            self.namespaces.insert(selector.clone(), bits);
        }
        &self.namespaces[selector]
    }

    /// The pods that declare this number under one of these names (statements 92, 95).
    pub(super) fn declaring(&self, names: &[&PortName], protocol: Protocol, number: u16) -> Bits {
        let mut bits = Bits::none(self.places);
        for name in names {
            if let Some(members) = self.by_port.get(&((*name).clone(), protocol, number)) {
                bits.add(members);
            }
        }
        bits
    }

    fn narrow(&self, bits: &mut Bits, requirement: &Requirement) {
        let with_value = |key: &Arc<str>, values: &[Arc<str>]| {
            let mut found = Bits::none(self.places);
            if let Some(known) = self.by_label.get(key) {
                for members in values.iter().filter_map(|value| known.get(value)) {
                    found.add(members);
                }
            }
            found
        };
        match requirement {
            Requirement::In { key, values } => bits.keep(&with_value(key, values)),
            // 56: also where the key is absent.
            Requirement::NotIn { key, values } => bits.drop_all(&with_value(key, values)),
            Requirement::Exists(key) => match self.by_key.get(key) {
                Some(members) => bits.keep(members),
                None => *bits = Bits::none(self.places),
            },
            Requirement::DoesNotExist(key) => {
                if let Some(members) = self.by_key.get(key) {
                    bits.drop_all(members);
                }
            }
        }
    }
}
