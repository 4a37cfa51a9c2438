//! README.md against the files: every number of the catalogue has exactly one row, every file with a number is in the row of
//! that number and has a test, and every test that a row names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How many entries the catalogue has.
const LAST: usize = 48;
/// How many faults of the reference implementation there are.
const FAULTS: usize = 15;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalogue")
}

/// The cells of the table rows whose first cell has this shape: `B12`, `12`.
fn rows(readme: &str, first: impl Fn(&str) -> bool) -> Vec<Vec<&str>> {
    readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.first().is_some_and(|cell| first(cell)))
        .collect()
}

/// What stands in back quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Everything that is wrong.
fn faults(readme: &str, files: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut listed = BTreeSet::new();
    let numbered = |cell: &str| cell.strip_prefix('B').and_then(|number| number.parse::<usize>().ok());
    let bugs = rows(readme, |cell| numbered(cell).is_some());
    for number in 1..=LAST {
        let own: Vec<_> = bugs.iter().filter(|cells| numbered(cells[0]) == Some(number)).collect();
        let [row] = own[..] else {
            wrong.push(format!("B{number} has {} rows", own.len()));
            continue;
        };
        let named: Vec<&str> = row
            .iter()
            .flat_map(|cell| quoted(cell))
            .filter(|name| Path::new(name).extension().is_some_and(|it| it == "rs"))
            .collect();
        if named.is_empty()
            && !row
                .iter()
                .any(|cell| cell.contains("waits for") || cell.contains("does not apply"))
        {
            wrong.push(format!("B{number} names no file and gives no reason"));
        }
        for name in named {
            listed.insert(name.to_owned());
            if !name.starts_with(&format!("b{number:02}_")) {
                wrong.push(format!("B{number} names {name}"));
            }
            match files.get(name) {
                None => wrong.push(format!("{name} is not there")),
                Some(text) if !text.contains("#[test]") => wrong.push(format!("{name} has no test")),
                Some(text) if !text.starts_with(&format!("//! B{number}: ")) => {
                    wrong.push(format!("{name} does not begin with its number"));
                }
                Some(_) => {}
            }
        }
    }
    if bugs.len() != LAST {
        wrong.push(format!("{} rows for {LAST} numbers", bugs.len()));
    }
    let is_bug = |name: &&String| name.starts_with('b') && name[1..3].bytes().all(|byte| byte.is_ascii_digit());
    for name in files.keys().filter(is_bug).filter(|name| !listed.contains(*name)) {
        wrong.push(format!("{name} is in no row"));
    }
    // The second table: faults by plain numbers, each with tests `file::test`.
    let seconds = rows(readme, |cell| cell.parse::<usize>().is_ok());
    let numbers: Vec<usize> = seconds.iter().filter_map(|cells| cells[0].parse().ok()).collect();
    if numbers != (1..=FAULTS).collect::<Vec<_>>() {
        wrong.push(format!("the faults are numbered {numbers:?}"));
    }
    let measured = rows(readme, |cell| cell.starts_with("measured"));
    if measured.is_empty() {
        wrong.push("nothing is listed as measured".to_owned());
    }
    for cells in seconds.iter().chain(&measured) {
        let tests: Vec<&str> = cells
            .iter()
            .flat_map(|cell| quoted(cell))
            .filter(|name| name.contains("::"))
            .collect();
        if tests.is_empty() {
            wrong.push(format!("{} names no test", cells[0]));
        }
        for test in tests {
            let (file, function) = test.split_once("::").unwrap_or_default();
            let text = files.get(&format!("{file}.rs")).map(String::as_str).unwrap_or_default();
            if !text.contains(&format!("#[test]\nfn {function}() {{")) {
                wrong.push(format!("{test} does not exist"));
            }
        }
    }
    wrong
}

fn read() -> (String, BTreeMap<String, String>) {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("the table");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|it| it == "rs") {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            files.insert(name, std::fs::read_to_string(&path).expect("read"));
        }
    }
    (readme, files)
}

#[test]
fn the_table_and_the_files_agree() {
    let (readme, files) = read();
    assert_eq!(faults(&readme, &files), Vec::<String>::new());
}

/// Each change of table or files is noticed.
#[test]
fn the_check_can_fail() {
    let (readme, files) = read();
    let row = readme
        .lines()
        .find(|line| line.starts_with("| B1 |"))
        .expect("row B1")
        .to_owned();
    let file = "b01_except_is_not_a_deny.rs";
    let with = |change: &dyn Fn(&mut BTreeMap<String, String>)| {
        let mut files = files.clone();
        change(&mut files);
        faults(&readme, &files).join("\n")
    };
    let table = |from: &str, to: &str| {
        assert!(readme.contains(from), "{from}");
        faults(&readme.replacen(from, to, 1), &files).join("\n")
    };
    for (found, expected) in [
        (table(&row, ""), "B1 has 0 rows"),
        (table(&row, &format!("{row}\n{row}")), "B1 has 2 rows"),
        (table(file, "b02_overlapping_cidrs.rs"), "B1 names b02"),
        (table(file, "b01_other.rs"), "b01_other.rs is not there"),
        (table("waits for C", "later"), "B46 names no file and gives no reason"),
        (table("| 7 |", "| 8 |"), "the faults are numbered"),
        (table("`faults::f04_", "`faults::f05_"), "does not exist"),
        (
            with(&|files| drop(files.remove(file))),
            "b01_except_is_not_a_deny.rs is not there",
        ),
        (
            with(&|files| drop(files.insert("b49_new.rs".into(), "#[test]".into()))),
            "b49_new.rs is in no row",
        ),
        (
            with(&|files| drop(files.insert(file.into(), "//! B1: nothing".into()))),
            "has no test",
        ),
        (
            with(&|files| drop(files.insert(file.into(), "//! #[test]".into()))),
            "does not begin with its number",
        ),
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
