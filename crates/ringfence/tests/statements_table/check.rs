//! What is wrong with the table, in sentences that say what to do.

use std::collections::BTreeMap;

use crate::scan::Test;
use crate::table::{BEING_WRITTEN, Row, Table, kind};

/// The last statement.
const LAST: u16 = 234;

impl Test {
    /// Whether `cargo test` runs it.
    pub fn runs(&self) -> bool {
        self.attributed && !self.ignored
    }
}

/// Everything that is wrong; empty when the table holds.
pub fn problems(text: &str, tests: &[Test]) -> Vec<String> {
    problems_up_to(text, tests, LAST)
}

/// The same for a specification of so many statements.
pub fn problems_up_to(text: &str, tests: &[Test], last: u16) -> Vec<String> {
    let table = Table::parse(text);
    let mut out = Vec::new();
    let broken = table.broken.iter();
    out.extend(broken.map(|line| format!("a row needs 5 columns (leave no '|' in a text): {line}")));
    let mut rows: BTreeMap<u16, Vec<&Row>> = BTreeMap::new();
    for row in &table.rows {
        rows.entry(row.number).or_default().push(row);
    }
    for number in 1..=last {
        match rows.get(&number).map_or(0, Vec::len) {
            0 => out.push(format!(
                "statement {number} has no row: add one with its words and what it waits for"
            )),
            1 => {}
            count => out.push(format!("statement {number} has {count} rows: keep one")),
        }
    }
    let foreign = rows.keys().filter(|number| !(1..=last).contains(*number));
    out.extend(foreign.map(|number| format!("there is no statement {number}: remove its row")));
    out.extend(tests.iter().filter_map(|test| stillborn(test, last)));
    let known: BTreeMap<&str, &Test> = tests.iter().map(|test| (test.id.as_str(), test)).collect();
    for row in &table.rows {
        named(row, &known, &mut out);
    }
    for test in tests.iter().filter(|test| test.runs()) {
        for number in &test.numbers {
            let row = rows.get(number).and_then(|rows| rows.first());
            let named = |row: &Row| {
                [&row.tests, &row.tools]
                    .into_iter()
                    .any(|names| names.contains(&test.id))
            };
            if row.is_some_and(|row| !named(row)) {
                out.push(format!("{} belongs into row {number}: add `{}`", test.id, test.id));
            }
        }
    }
    for row in &table.rows {
        judged(row, &known, &mut out);
    }
    if table.counts != table.counted() {
        out.push(format!("the counts are old; they should read: {}", table.counted()));
    }
    out
}

fn stillborn(test: &Test, last: u16) -> Option<String> {
    let id = &test.id;
    if let Some(number) = test.numbers.iter().find(|number| !(1..=last).contains(*number)) {
        return Some(format!("{id}: there is no statement {number}: rename it"));
    }
    if !test.attributed {
        return Some(format!(
            "{id} has statement numbers and has no #[test]: make it a test or rename it"
        ));
    }
    let message = "is ignored: a test that does not run holds nothing; make it run or take the numbers out of its name";
    test.ignored.then(|| format!("{id} {message}"))
}

/// The names that a row gives.
fn named(row: &Row, known: &BTreeMap<&str, &Test>, out: &mut Vec<String>) {
    let number = row.number;
    for (names, of_a_tool) in [(&row.tests, false), (&row.tools, true)] {
        for name in names {
            match known.get(name.as_str()) {
                None => out.push(format!("row {number} names {name}, which does not exist: remove or correct it")),
                Some(test) if !test.numbers.contains(&number) => out.push(format!(
                    "row {number} names {name}, which does not bear its number: rename the test (s{number:03}_…) or remove it"
                )),
                Some(test) if test.of_a_tool != of_a_tool => {
                    out.push(format!("row {number} names {name} in the wrong column: move it to the other column"));
                }
                Some(_) => {}
            }
        }
    }
}

/// Whether anything holds the row.
fn judged(row: &Row, known: &BTreeMap<&str, &Test>, out: &mut Vec<String>) {
    let number = row.number;
    if row.words.is_empty() {
        out.push(format!(
            "row {number} does not say what the statement says: add a few words"
        ));
    }
    if !row.tests.is_empty() && kind(&row.reason) == Some(BEING_WRITTEN) {
        out.push(format!(
            "row {number} has tests and still says that they are being written: empty its last column"
        ));
    }
    let holds = |name: &String| {
        let test = known.get(name.as_str());
        test.is_some_and(|test| test.runs() && !test.of_a_tool && test.numbers.contains(&number))
    };
    if !row.tests.iter().any(holds) && kind(&row.reason).is_none() {
        out.push(format!(
            "row {number} names no test that fails when the program gets it wrong: write one called s{number:03}_…, or say in \
             the last column what it waits for (\"C: why\" with an issue's letter, \"later: what\", \"not built: why\")"
        ));
    }
}
