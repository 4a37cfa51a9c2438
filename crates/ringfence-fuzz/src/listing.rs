//! Listings of `nft` through `ringfence_ruleset::text::normalise`.

use ringfence_ruleset::text::normalise;

use crate::text;

/// Reads a listing.
pub fn run(data: &[u8]) {
    let listing = text(data);
    let once = normalise(&listing);
    if is_listing(&once) {
        assert_eq!(normalise(&once), once, "what is normal stays as it is");
    }
    // Handles, blanks at the ends of lines and empty lines mean nothing.
    let lines: Vec<&str> = listing.lines().collect();
    let spaced = format!("  {}  \n", lines.join(" \n\n  "));
    assert_eq!(normalise(&spaced), once, "blanks mean nothing");
}

/// Whether the text has the shape of a listing: blocks of lines in tables, elements in sets and nowhere else. Other lines
/// are kept so that a difference is seen, but when torn elements are wrapped anew or a line outside of any table moves to
/// its place, they may mean something else than they did. A `#` is left only between quotes, and nft puts both into
/// comments alone.
fn is_listing(normal: &str) -> bool {
    let mut in_set = false;
    let mut in_elements = false;
    normal.lines().all(|line| {
        if line.contains('#') && !line.trim_start().starts_with("comment \"") {
            return false;
        }
        let depth = line.bytes().take_while(|byte| *byte == b'\t').count();
        let words = line[depth..].trim_start();
        if in_elements {
            in_elements = !words.ends_with('}');
            return depth == 3 && !words.trim_end_matches(" }").contains(['{', '}', '=']);
        }
        match depth {
            0 => words.is_empty() || words == "}" || (words.starts_with("table ") && words.ends_with('{')),
            1 if words == "}" => true,
            1 => {
                in_set = words.starts_with("set ");
                words.ends_with('{') || words.starts_with("comment ")
            }
            2 => match words.strip_prefix("elements = { ") {
                Some(elements) => {
                    in_elements = !elements.ends_with(" }");
                    in_set && !elements.trim_end_matches(" }").contains(['{', '}', '='])
                }
                None => !words.contains(['{', '}']) && !words.starts_with("elements"),
            },
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Or the sharper of the two properties would be asserted of nothing.
    #[test]
    fn what_rulesets_print_has_the_shape_of_a_listing() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/listing");
        let mut seen = 0;
        for entry in fs::read_dir(corpus).expect("the corpus") {
            let path = entry.expect("an entry").path();
            if path.to_string_lossy().contains("golden-") {
                let listing = fs::read_to_string(&path).expect("a text");
                assert!(is_listing(&normalise(&listing)), "{}", path.display());
                seen += 1;
            }
        }
        assert!(seen >= 10, "only {seen}");
    }
}
