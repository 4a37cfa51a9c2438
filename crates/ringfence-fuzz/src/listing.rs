//! Listings of `nft` through `ringfence_ruleset::text::normalise`.

use ringfence_ruleset::text::normalise;

use crate::text;

/// Reads a listing.
pub fn run(data: &[u8]) {
    let listing = text(data);
    let once = normalise(&listing);
    // A `#` is left only between quotes. nft puts both into comments alone; in torn elements, which are wrapped anew, they
    // mean something else on another line.
    let torn = once
        .lines()
        .any(|line| line.contains('#') && !line.trim_start().starts_with("comment \""));
    if !torn {
        assert_eq!(normalise(&once), once, "what is normal stays as it is");
    }
    // Handles, blanks at the ends of lines and empty lines mean nothing.
    let lines: Vec<&str> = listing.lines().collect();
    let spaced = format!("  {}  \n", lines.join(" \n\n  "));
    assert_eq!(normalise(&spaced), once, "blanks mean nothing");
}
