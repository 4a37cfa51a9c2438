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

/// Whether the text has the shape of a listing. Lines outside of any table are kept so that they are seen, but where they
/// then stand means nothing. A `#` is left only between quotes, and nft puts both into comments alone: in torn
/// elements, which are wrapped anew, they mean something else on another line.
fn is_listing(normal: &str) -> bool {
    normal.lines().all(|line| {
        let placed = line.is_empty() || line == "}" || line.starts_with('\t');
        let head = line.starts_with("table ") && line.ends_with('{');
        (placed || head) && (!line.contains('#') || line.trim_start().starts_with("comment \""))
    })
}
