//! Whose an address is. Two pods can claim one address on one network: a finished pod whose address was given away
//! before its object went, events that overtake each other, a mistake. Only one of them has rights by it
//! (statement 134, catalogue B3, B4).

use std::cmp::Reverse;
use std::collections::HashMap;

use super::objects::{Objects, PeerId, Place};

/// The claims of all pods that take part. Nearly every address has one claimant, so that case takes one small entry.
#[derive(Default)]
pub(super) struct Claims {
    owners: HashMap<Place, PeerId>,
    /// All claimants where there are several, the owner first.
    contested: HashMap<Place, Vec<PeerId>>,
}

impl Claims {
    /// The pod that has rights by this address.
    pub(super) fn owner(&self, place: Place) -> Option<PeerId> {
        self.owners.get(&place).copied()
    }

    /// Everybody who claims it where several do, the owner first; else nobody.
    pub(super) fn rivals(&self, place: Place) -> &[PeerId] {
        self.contested.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Adds a claim. The pod must be among the objects.
    pub(super) fn claim(&mut self, place: Place, pod: PeerId, objects: &Objects) {
        let Some(&owner) = self.owners.get(&place) else {
            self.owners.insert(place, pod);
            return;
        };
        let claimants = self.contested.entry(place).or_insert_with(|| vec![owner]);
        if !claimants.contains(&pod) {
            claimants.push(pod);
        }
        self.elect(place, objects);
    }

    /// Takes a claim away. Whoever else claims the address keeps or gets it: the pod itself may already be gone from
    /// the objects.
    pub(super) fn release(&mut self, place: Place, pod: PeerId, objects: &Objects) {
        match self.contested.get_mut(&place) {
            Some(claimants) => {
                claimants.retain(|claimant| *claimant != pod);
                self.elect(place, objects);
            }
            None => {
                if self.owners.get(&place) == Some(&pod) {
                    self.owners.remove(&place);
                }
            }
        }
    }

    /// Decides anew: after a claim or a start time has changed.
    pub(super) fn elect(&mut self, place: Place, objects: &Objects) {
        let Some(claimants) = self.contested.get_mut(&place) else {
            return;
        };
        claimants.sort_by_key(|claimant| Reverse(objects.rank(*claimant)));
        if let Some(owner) = claimants.first() {
            self.owners.insert(place, *owner);
        }
        if claimants.len() < 2 {
            self.contested.remove(&place);
        }
    }

    /// The contested places, in no particular order.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = (&Place, &[PeerId])> {
        self.contested
            .iter()
            .map(|(place, claimants)| (place, claimants.as_slice()))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.contested.is_empty()
    }
}
