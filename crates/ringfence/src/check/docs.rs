//! `docs/checks.md`, which the program carries so that `--explain` and the hints of decoding say what the page says.

use std::fmt;
use std::sync::LazyLock;

use crate::table::table;

/// The page.
pub const PAGE: &str = include_str!("../../../../docs/checks.md");

/// Every code that the page explains, in its order.
pub static CODES: LazyLock<Vec<Entry>> = LazyLock::new(|| PAGE.lines().filter_map(Entry::read).collect());

/// A line of one of the page's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// `RF101`
    pub code: &'static str,
    /// `error`, `warning`, `info`, or two of them with a slash.
    pub severity: &'static str,
    /// What the code means.
    pub meaning: &'static str,
    /// What raises it.
    pub example: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl Entry {
    fn read(line: &'static str) -> Option<Self> {
        let cells: Vec<&str> = line
            .strip_prefix("| ")?
            .strip_suffix(" |")?
            .split(" | ")
            .map(str::trim)
            .collect();
        match cells.as_slice() {
            &[code, severity, meaning, example, remedy] if code.starts_with("RF") => Some(Self {
                code,
                severity,
                meaning,
                example,
                remedy,
            }),
            _ => None,
        }
    }
}

/// What the page says of a code, written in any case.
pub(super) fn entry(code: &str) -> Option<&'static Entry> {
    CODES.iter().find(|entry| entry.code.eq_ignore_ascii_case(code))
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}): {}", self.code, self.severity, self.meaning)?;
        writeln!(f, "  example: {}", self.example)?;
        writeln!(f, "  remedy:  {}", self.remedy)
    }
}

/// All codes in a few words.
pub(super) fn list() -> String {
    let rows = CODES.iter().map(|entry| {
        [
            entry.code.to_owned(),
            entry.severity.to_owned(),
            entry.meaning.to_owned(),
        ]
    });
    table(["CODE", "SEVERITY", "MEANING"], rows)
}
