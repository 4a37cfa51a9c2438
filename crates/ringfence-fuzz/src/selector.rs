//! Label selectors as JSON (statements 53 to 61, 223).

use std::collections::BTreeSet;

use ringfence_model::{Labels, Peer, Requirement, Selector};
use serde_json::{Value, json};

use crate::{text, write};

/// Reads a selector; what is no JSON is a key and a value of `matchLabels`.
pub fn run(data: &[u8]) {
    let text = text(data);
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| {
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        json!({ "matchLabels": { key: value } })
    });
    let (peer, diagnostics) = write::first_peer(&json!({ "podSelector": value }));
    let selector = match peer {
        Peer::Pods { namespaces: None, pods } => pods,
        Peer::Nothing => return assert!(diagnostics > 0, "{value} was rejected in silence"),
        other => panic!("a selector is no {other:?}"),
    };
    let requirements = selector.requirements();
    assert!(requirements.is_sorted(), "{selector:?}");
    let again = Selector::new(requirements.iter().rev().chain(requirements).cloned().collect());
    assert_eq!(again, selector, "order and repetition mean nothing");
    let (again, _) = write::first_peer(&json!({ "podSelector": write::selector(&selector) }));
    assert_eq!(
        again,
        Peer::Pods {
            namespaces: None,
            pods: selector.clone()
        }
    );
    for labels in worlds(&selector) {
        let wanted = requirements.iter().all(|it| holds(it, &labels));
        assert_eq!(selector.matches(&labels), wanted, "{selector:?} {labels:?}");
        assert_eq!(wanted, stated(&value, &labels), "{value} {labels:?}");
    }
}

/// Sets of labels that tell the requirements apart: each key absent, empty, and with each value.
fn worlds(selector: &Selector) -> Vec<Labels> {
    let mut pairs: BTreeSet<(&str, &str)> = BTreeSet::new();
    for requirement in selector.requirements().iter().take(6) {
        let (key, values): (&str, &[_]) = match requirement {
            Requirement::In { key, values } | Requirement::NotIn { key, values } => (key, values),
            Requirement::Exists(key) | Requirement::DoesNotExist(key) => (key, &[]),
        };
        pairs.insert((key, ""));
        pairs.extend(values.iter().take(3).map(|value| (key, &**value)));
    }
    let pairs: Vec<(&str, &str)> = pairs.into_iter().take(8).collect();
    (0..1_usize << pairs.len())
        .map(|chosen| {
            let of = pairs
                .iter()
                .enumerate()
                .filter(|(position, _)| chosen >> position & 1 == 1);
            of.map(|(_, (key, value))| (*key, *value)).collect()
        })
        .collect()
}

fn holds(requirement: &Requirement, labels: &Labels) -> bool {
    match requirement {
        Requirement::In { key, values } => values.iter().any(|value| labels.get(key) == Some(value)),
        Requirement::NotIn { key, values } => !values.iter().any(|value| labels.get(key) == Some(value)),
        Requirement::Exists(key) => labels.get(key).is_some(),
        Requirement::DoesNotExist(key) => labels.get(key).is_none(),
    }
}

/// The manifest's own words, which are known to be valid here.
fn stated(selector: &Value, labels: &Labels) -> bool {
    let equal = |(key, value): (&String, &Value)| labels.get(key) == value.as_str();
    let expression = |it: &Value| {
        let found = it["key"].as_str().and_then(|key| labels.get(key));
        let among = it["values"]
            .as_array()
            .is_some_and(|values| values.iter().any(|value| value.as_str() == found));
        match it["operator"].as_str() {
            Some("In") => found.is_some() && among,
            Some("NotIn") => found.is_none() || !among,
            Some("Exists") => found.is_some(),
            Some("DoesNotExist") => found.is_none(),
            other => panic!("{other:?} was taken for an operator"),
        }
    };
    let labels_hold = selector["matchLabels"]
        .as_object()
        .is_none_or(|it| it.iter().all(equal));
    labels_hold
        && selector["matchExpressions"]
            .as_array()
            .is_none_or(|it| it.iter().all(expression))
}
