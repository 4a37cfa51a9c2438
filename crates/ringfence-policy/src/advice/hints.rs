//! Names and labels that may have been meant.

use std::fmt::Write as _;

use ringfence_model::{Labels, Requirement, Selector};

use super::world::World;
use crate::near;

/// Most names that are compared with a misspelt one: comparing costs, and of thousands none is a likely slip.
const COMPARED: usize = 200;
/// Most names that a sentence lists.
const LISTED: usize = 3;

/// Names in a sentence, the first few.
pub(super) fn some<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let mut names: Vec<String> = names
        .into_iter()
        .take(LISTED + 1)
        .map(|name| name.to_string())
        .collect();
    let more = names.len() > LISTED;
    names.truncate(LISTED);
    let mut text = names.join(", ");
    if more {
        text.push_str(" …");
    }
    text
}

/// `; near names: a, b`, or nothing.
pub(super) fn near_names<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let found = near(wanted, names.into_iter().take(COMPARED));
    if found.is_empty() {
        String::new()
    } else {
        format!("; near names: {}", some(found))
    }
}

/// What a podSelector that selects nothing in a namespace may have meant: the same key with another value, a key that
/// nobody has, the same labels in another namespace.
pub(super) fn pod_labels(world: &mut World<'_>, namespace: &str, selector: &Selector) -> String {
    let mut out = String::new();
    for requirement in selector.requirements() {
        match requirement {
            Requirement::In { key, values } => match world.values_in(namespace, key) {
                None => {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "; no pod there has the label {key}");
                }
                Some(known) if !values.iter().any(|value| known.contains(&**value)) => {
                    let known = known.iter().copied().take(COMPARED);
                    other_values(&mut out, key, values.first().map_or("", |value| value), known);
                }
                Some(_) => {}
            },
            Requirement::Exists(key) if world.values_in(namespace, key).is_none() => {
                let _ = write!(out, "; no pod there has the label {key}");
            }
            _ => {}
        }
    }
    let elsewhere = world.elsewhere(namespace, selector);
    if !elsewhere.is_empty() {
        let _ = write!(out, "; pods with these labels are in namespace {}", some(elsewhere));
    }
    out
}

/// What a namespaceSelector that selects nothing may have meant.
pub(super) fn namespace_labels(world: &World<'_>, selector: &Selector) -> String {
    let mut out = String::new();
    for requirement in selector.requirements() {
        let Requirement::In { key, values } = requirement else {
            continue;
        };
        let mut known: Vec<&str> = world
            .namespace_labels()
            .take(COMPARED)
            .filter_map(|labels: &Labels| labels.get(key))
            .collect();
        known.sort_unstable();
        known.dedup();
        if known.is_empty() {
            let _ = write!(out, "; no namespace has the label {key}");
        } else if !values.iter().any(|value| known.contains(&&**value)) {
            other_values(
                &mut out,
                key,
                values.first().map_or("", |value| value),
                known.into_iter(),
            );
        }
    }
    out
}

/// The values that come near, or the first few.
fn other_values<'a>(out: &mut String, key: &str, wanted: &str, known: impl Iterator<Item = &'a str>) {
    let known: Vec<&str> = known.collect();
    let close = near(wanted, known.iter().copied());
    let shown = if close.is_empty() { some(known) } else { some(close) };
    // Writing to a String cannot fail.
    let _ = write!(out, "; {key} is {shown} there");
}

/// A selector as people read it: `app=web,tier in (a,b),!old`.
pub(super) fn selector(selector: &Selector) -> String {
    let words = selector.requirements().iter().map(|requirement| match requirement {
        Requirement::In { key, values } if values.len() == 1 => format!("{key}={}", values[0]),
        Requirement::In { key, values } => format!("{key} in ({})", values.join(",")),
        Requirement::NotIn { key, values } => format!("{key} not in ({})", values.join(",")),
        Requirement::Exists(key) => key.to_string(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
    });
    let text = words.collect::<Vec<_>>().join(",");
    if text.is_empty() { "{}".to_owned() } else { text }
}
