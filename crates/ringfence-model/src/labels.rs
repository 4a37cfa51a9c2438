//! Labels and label selectors, with the meaning of `metav1.LabelSelector` (statements 53 to 61).

use std::sync::Arc;

/// The labels of one object, sorted by key. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of a key. The empty text is a value (statement 57).
    pub fn get(&self, key: &str) -> Option<&str> {
        let position = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[position].1)
    }

    /// All pairs in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

/// Collects pairs; of two with one key the later counts, as in a JSON object.
impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: std::collections::BTreeMap<Arc<str>, Arc<str>> = pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        Self(sorted.into_iter().collect())
    }
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Requirement {
    /// The key is there and its value is one of these (statement 55). `matchLabels` is this with one value.
    In {
        /// The label's key.
        key: Arc<str>,
        /// At least one value, sorted, without duplicates.
        values: Vec<Arc<str>>,
    },
    /// The key is absent, or its value is none of these (statement 56).
    NotIn {
        /// The label's key.
        key: Arc<str>,
        /// At least one value, sorted, without duplicates.
        values: Vec<Arc<str>>,
    },
    /// The key is there, with any value (statement 57).
    Exists(Arc<str>),
    /// The key is absent (statement 58).
    DoesNotExist(Arc<str>),
}

impl Requirement {
    /// Whether an object with these labels fulfils it.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In { key, values } => labels
                .get(key)
                .is_some_and(|value| values.iter().any(|v| **v == *value)),
            Self::NotIn { key, values } => labels.get(key).is_none_or(|value| values.iter().all(|v| **v != *value)),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::DoesNotExist(key) => labels.get(key).is_none(),
        }
    }
}

/// All of its requirements must hold (statements 53, 54). Without any it selects everything of its kind
/// (statement 38); a selector that selects nothing is no `Selector` at all but [`crate::Peer::Nothing`] or an absent
/// policy target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// Sorts the requirements and drops duplicates, so that equal meaning written in another order is equal.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        requirements.dedup();
        Self(requirements)
    }

    /// The selector `{}`.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// The requirements, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(requirement: &Requirement, labels: &[(&str, &str)], expected: bool) {
        let labels: Labels = labels.iter().copied().collect();
        assert_eq!(
            Selector::new(vec![requirement.clone()]).matches(&labels),
            expected,
            "{requirement:?} {labels:?}"
        );
    }

    #[test]
    fn s055_s056_s057_s058_s061_operators() {
        let values = || vec!["x".into()];
        let is_in = || Requirement::In {
            key: "k".into(),
            values: values(),
        };
        let not_in = || Requirement::NotIn {
            key: "k".into(),
            values: values(),
        };
        check(&is_in(), &[("k", "x")], true);
        check(&is_in(), &[("k", "X")], false);
        check(&is_in(), &[("k", "")], false);
        check(&is_in(), &[], false);
        check(&not_in(), &[("k", "x")], false);
        check(&not_in(), &[("k", "y")], true);
        check(&not_in(), &[], true);
        check(&Requirement::Exists("k".into()), &[("k", "")], true);
        check(&Requirement::Exists("k".into()), &[("kk", "")], false);
        check(&Requirement::DoesNotExist("k".into()), &[("k", "")], false);
        check(&Requirement::DoesNotExist("k".into()), &[], true);
    }

    #[test]
    fn s038_an_empty_selector_selects_everything() {
        assert!(Selector::everything().matches(&Labels::default()));
    }
}
