//! The table's text: reading it, and writing the names of tests into it.

use std::fmt::Write as _;

use crate::scan::Test;

/// The line above the rows.
const HEAD: &str = "| n | the statement in few words | tests | of the oracle or the tracer alone | waits for |";

/// The reason of a row whose tests are on their way. It goes when they are there.
pub const BEING_WRITTEN: &str = "being written";

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// The statement.
    pub number: u16,
    /// What it says.
    pub words: String,
    /// Tests that fail when the program gets it wrong.
    pub tests: Vec<String>,
    /// Tests of what judges the program.
    pub tools: Vec<String>,
    /// Empty, or `C: why`.
    pub reason: String,
}

/// What could be read, and what could not.
pub struct Table {
    pub rows: Vec<Row>,
    /// Lines with a number that are no rows.
    pub broken: Vec<String>,
    /// The line that says how many statements are held.
    pub counts: String,
}

impl Table {
    /// Every line that begins like a row is one; the rest is prose.
    pub fn parse(text: &str) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            broken: Vec::new(),
            counts: text.lines().find(|line| is_counts(line)).unwrap_or_default().to_owned(),
        };
        for line in text.lines() {
            match row(line) {
                None => {}
                Some(Ok(row)) => table.rows.push(row),
                Some(Err(line)) => table.broken.push(line),
            }
        }
        table
    }

    /// `164 statements are held by tests; of the others 46 wait for "later", 24 for C.`
    pub fn counted(&self) -> String {
        let (held, waiting): (Vec<&Row>, _) = self.rows.iter().partition(|row| !row.tests.is_empty());
        let mut kinds: Vec<&str> = waiting.iter().filter_map(|row| kind(&row.reason)).collect();
        kinds.sort_unstable();
        let mut out = format!("{} statements are held by tests", held.len());
        let partly = held.iter().filter(|row| !row.reason.is_empty()).count();
        if partly > 0 {
            let _ = write!(out, ", {partly} of them in part");
        }
        while let Some(first) = kinds.first().copied() {
            let count = kinds.iter().filter(|kind| **kind == first).count();
            let _ = write!(out, "; {count}: {first}");
            kinds.retain(|kind| *kind != first);
        }
        out + "."
    }
}

fn is_counts(line: &str) -> bool {
    line.contains(" statements are held by tests")
}

/// `None` for a line that does not begin with a number in the first column.
fn row(line: &str) -> Option<Result<Row, String>> {
    let inside = line.trim().strip_prefix('|')?;
    let cells: Vec<&str> = inside
        .strip_suffix('|')
        .unwrap_or(inside)
        .split('|')
        .map(str::trim)
        .collect();
    let number = cells.first()?.parse().ok()?;
    let [_, words, tests, tools, reason] = cells[..] else {
        return Some(Err(line.to_owned()));
    };
    let names = |cell: &str| {
        let names = cell.split(',').map(|name| name.trim().trim_matches('`').to_owned());
        names.filter(|name| !name.is_empty()).collect()
    };
    Some(Ok(Row {
        number,
        words: words.to_owned(),
        tests: names(tests),
        tools: names(tools),
        reason: reason.to_owned(),
    }))
}

/// What comes before the colon of a reason that has words after it: `C`, `later`, `not built`.
pub fn kind(reason: &str) -> Option<&str> {
    let (kind, words) = reason.split_once(": ")?;
    let letter = kind.len() == 1 && kind.chars().all(|c| c.is_ascii_uppercase());
    let known = letter || matches!(kind, "later" | "not built" | BEING_WRITTEN);
    (known && words.trim().len() > 5).then_some(kind)
}

/// The text with the names of the tests that exist in their rows, and the counts that follow.
pub fn rewritten(text: &str, tests: &[Test]) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if let Some(Ok(row)) = row(line) {
            let names = |of_a_tool: bool| {
                let tests = tests.iter().filter(|test| test.of_a_tool == of_a_tool && test.runs());
                let names = tests.filter(|test| test.numbers.contains(&row.number));
                names
                    .map(|test| format!("`{}`", test.id))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let (held, tools) = (names(false), names(true));
            let written = !held.is_empty() && kind(&row.reason) == Some(BEING_WRITTEN);
            let reason = if written { "" } else { &row.reason };
            let _ = writeln!(out, "| {} | {} | {held} | {tools} | {reason} |", row.number, row.words);
        } else {
            out += line;
            out.push('\n');
        }
    }
    let table = Table::parse(&out);
    if table.counts.is_empty() {
        out
    } else {
        out.replacen(&table.counts, &table.counted(), 1)
    }
}

/// A table of these rows for the tests of the check.
pub fn example(rows: &[&str]) -> String {
    let rows = rows.join("\n");
    let counts = Table::parse(&rows).counted();
    format!("{counts}\n\n{HEAD}\n|---|---|---|---|---|\n{rows}")
}
