//! Whole files, YAML or JSON, through `ringfence_kube::decode`.

use ringfence_kube::{Decoded, decode};
use ringfence_model::Object;

use crate::{sound, text};

/// Reads a file.
pub fn run(data: &[u8]) {
    let text = text(data);
    let decoded = decode(&text, "fuzz.yaml");
    for one in &decoded {
        sound::check(one);
    }
    assert_eq!(decode(&text, "fuzz.yaml"), decoded, "the same text says the same");
    // A document that is broken hides nothing of what follows, and nothing leaks from one to the next.
    let text = text.trim_start_matches('\u{feff}');
    let twice = decode(&format!("{text}\n---\n{text}"), "fuzz.yaml");
    assert_eq!(
        objects(&twice),
        objects(decoded.iter().chain(&decoded)),
        "twice the file gives everything twice"
    );
    let clean = "\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: after}\n";
    let followed = decode(&format!("{text}{clean}"), "fuzz.yaml");
    assert_eq!(followed.len(), decoded.len() + 1, "a namespace behind it is seen");
    assert!(
        followed
            .last()
            .is_some_and(|last| last.object.is_some() && last.diagnostics.is_empty())
    );
}

fn objects<'d>(decoded: impl IntoIterator<Item = &'d Decoded>) -> Vec<&'d Object> {
    decoded.into_iter().filter_map(|one| one.object.as_ref()).collect()
}
