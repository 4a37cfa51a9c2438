//! One copy of what many pods have in common: label keys and values, whole label sets, lists of named ports, outlines.
//!
//! Uses are counted here and not read off the `Arc`s, so that a copy that somebody else still holds keeps nothing
//! alive: what the last object gives back is gone.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use ringfence_model::{Labels, NamedPort};

use super::outline::Outline;

/// Values with the number of their uses.
struct Counted<T>(HashMap<T, u32>);

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone + Eq + Hash> Counted<T> {
    /// The kept copy, with one use more.
    fn reuse(&mut self, value: &T) -> Option<T> {
        let kept = self.0.get_key_value(value)?.0.clone();
        if let Some(uses) = self.0.get_mut(value) {
            *uses += 1;
        }
        Some(kept)
    }

    /// Takes one use away; whether it was the last.
    fn release(&mut self, value: &T) -> bool {
        let Some(uses) = self.0.get_mut(value) else {
            return false;
        };
        *uses -= 1;
        if *uses == 0 {
            self.0.remove(value);
            return true;
        }
        false
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Interner {
    texts: Counted<Arc<str>>,
    labels: Counted<Labels>,
    ports: Counted<Arc<[NamedPort]>>,
    outlines: Counted<Arc<Outline>>,
}

impl Interner {
    /// The shared copy of a label set; give it back with [`Self::release_labels`].
    pub(super) fn labels(&mut self, labels: &Labels) -> Labels {
        if let Some(kept) = self.labels.reuse(labels) {
            return kept;
        }
        let texts = &mut self.texts;
        let mut text = |text: &Arc<str>| {
            texts.reuse(text).unwrap_or_else(|| {
                texts.0.insert(text.clone(), 1);
                text.clone()
            })
        };
        let kept: Labels = labels.iter().map(|(key, value)| (text(key), text(value))).collect();
        self.labels.0.insert(kept.clone(), 1);
        kept
    }

    /// Ends one use of a label set.
    pub(super) fn release_labels(&mut self, labels: &Labels) {
        if self.labels.release(labels) {
            for (key, value) in labels.iter() {
                self.texts.release(key);
                self.texts.release(value);
            }
        }
    }

    /// The shared copy of a list of named ports; give it back with [`Self::release_ports`].
    pub(super) fn ports<'a>(&mut self, ports: impl Iterator<Item = &'a NamedPort>) -> Arc<[NamedPort]> {
        let ports: Arc<[NamedPort]> = ports.cloned().collect();
        self.ports.reuse(&ports).unwrap_or_else(|| {
            self.ports.0.insert(ports.clone(), 1);
            ports
        })
    }

    /// Ends one use of a list of named ports.
    pub(super) fn release_ports(&mut self, ports: &Arc<[NamedPort]>) {
        self.ports.release(ports);
    }

    /// The shared copy of an outline; give it back with [`Self::release_outline`].
    pub(super) fn outline(&mut self, outline: Outline) -> Arc<Outline> {
        let outline = Arc::new(outline);
        self.outlines.reuse(&outline).unwrap_or_else(|| {
            self.outlines.0.insert(outline.clone(), 1);
            outline
        })
    }

    /// Ends one use of an outline.
    pub(super) fn release_outline(&mut self, outline: &Arc<Outline>) {
        self.outlines.release(outline);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.texts.0.is_empty() && self.labels.0.is_empty() && self.ports.0.is_empty() && self.outlines.0.is_empty()
    }
}
