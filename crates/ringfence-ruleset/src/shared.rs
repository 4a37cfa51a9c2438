//! A part of a ruleset that many copies have in common.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Cloning shares; writing to a value that is shared copies it first. Used like the value itself.
///
/// A peer more or less changes elements of sets, so the rules of every copy of a ruleset are one: an event that concerns a
/// hundred pods neither copies nor compares them.
#[derive(Debug, Clone, Default)]
pub struct Shared<T>(Arc<T>);

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || *self.0 == *other.0
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T: FromIterator<I>, I> FromIterator<I> for Shared<T> {
    fn from_iter<It: IntoIterator<Item = I>>(items: It) -> Self {
        Self(Arc::new(items.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn copies_share_until_one_is_written_to() {
        let first: Shared<BTreeSet<u8>> = [1, 2].into_iter().collect();
        let mut second = first.clone();
        assert!(Arc::ptr_eq(&first.0, &second.0) && first == second);
        second.insert(3);
        assert_eq!((first.len(), second.len()), (2, 3));
        assert_ne!(first, second);
        second.remove(&3);
        assert_eq!(first, second, "equal by what they hold, not by where it lies");
    }
}
