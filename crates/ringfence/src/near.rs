//! Names that come near a misspelt one.

use std::collections::BTreeSet;

use ringfence_model::NamespacedName;
pub use ringfence_policy::near;

/// Which pods may have been meant where there is none of that name in the manifests: what follows the sentence that
/// says so. `names` are sorted.
pub fn instead(wanted: &NamespacedName, names: &[String]) -> String {
    let mut similar: Vec<&str> = names
        .iter()
        .map(String::as_str)
        // The right name in another namespace is what people mean most often.
        .filter(|name| name.rsplit('/').next() == Some(&*wanted.name))
        .collect();
    similar.extend(near(&wanted.to_string(), names.iter().map(String::as_str)));
    let mut seen = BTreeSet::new();
    similar.retain(|name| seen.insert(*name));
    match similar.as_slice() {
        [] if names.is_empty() => ": they hold no pod at all".to_owned(),
        [] => format!(
            "; there are {}",
            names.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        ),
        similar => format!("; near names: {}", similar.join(", ")),
    }
}
