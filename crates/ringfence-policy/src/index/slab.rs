//! Storage with small typed handles. Handles are never shown outside and never decide an order in a ruleset: which
//! one a thing gets depends on history.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Handle of a `T` in its [`Slab`].
pub(super) struct Id<T> {
    index: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<T> Eq for Id<T> {}

impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.index.cmp(&other.index)
    }
}

impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

/// Holds values under handles that are used again after removal. Access by a handle whose value is gone gives
/// `None`, and by one that was given out again the new value: users of a handle must do no harm to either.
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> Id<T> {
        while let Some(index) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(index as usize) {
                *slot = Some(value);
                return Self::id(index);
            }
        }
        // 2^32 pods do not fit into any memory, so the conversion never saturates.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Some(value));
        Self::id(index)
    }

    pub(super) fn remove(&mut self, id: Id<T>) -> Option<T> {
        let value = self.slots.get_mut(id.index as usize)?.take()?;
        self.free.push(id.index);
        Some(value)
    }

    pub(super) fn get(&self, id: Id<T>) -> Option<&T> {
        self.slots.get(id.index as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        self.slots.get_mut(id.index as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        let slots = (0u32..).zip(&self.slots);
        slots.filter_map(|(index, slot)| Some((Self::id(index), slot.as_ref()?)))
    }

    fn id(index: u32) -> Id<T> {
        Id { index, of: PhantomData }
    }
}
