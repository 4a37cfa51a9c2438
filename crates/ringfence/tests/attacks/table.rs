//! docs/security.md against the tests: every test is in one row of its table of attacks, with the outcome that its name
//! begins with, and every test that a row names exists.

use std::collections::BTreeMap;
use std::path::Path;

const PAGE: &str = include_str!("../../../../docs/security.md");
/// How the names of tests begin, and how the table says it.
const OUTCOMES: [(&str, &str); 3] = [("closed_", "closed"), ("repaired_", "repaired"), ("open_", "not held")];

/// The tests and their files.
fn tests() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let file = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if file == "table" {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        for part in text.split("#[test]\nfn ").skip(1) {
            let name = part.split('(').next().expect("a name");
            found.insert(name.to_owned(), file.clone());
        }
    }
    found
}

fn faults(page: &str, tests: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut listed: BTreeMap<&str, usize> = BTreeMap::new();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        let [_, _, _, outcome, names] = cells[..] else { continue };
        for name in names.split('`').skip(1).step_by(2) {
            *listed.entry(name).or_default() += 1;
            let said = OUTCOMES.iter().find(|(prefix, _)| name.starts_with(prefix));
            match said {
                Some((_, word)) if outcome.starts_with(word) => {}
                _ => wrong.push(format!("{name} is called \"{outcome}\"")),
            }
            if !tests.contains_key(name) {
                wrong.push(format!("{name} does not exist"));
            }
        }
    }
    for name in tests.keys() {
        match listed.get(name.as_str()) {
            Some(1) => {}
            Some(_) => wrong.push(format!("{name} is in several rows")),
            None => wrong.push(format!("{name} is in no row")),
        }
    }
    wrong
}

#[test]
fn the_table_and_the_tests_agree() {
    assert_eq!(faults(PAGE, &tests()), Vec::<String>::new());
}

#[test]
fn the_check_can_fail() {
    let tests = tests();
    let name = "closed_packet_sockets";
    let row = PAGE.lines().find(|line| line.contains(name)).expect("a row");
    let with = |from: &str, to: &str| faults(&PAGE.replacen(from, to, 1), &tests).join("\n");
    assert!(with(row, "").contains("closed_packet_sockets is in no row"));
    assert!(with(row, &format!("{row}\n{row}")).contains("is in several rows"));
    assert!(with(name, "closed_other").contains("closed_other does not exist"));
    assert!(with("| closed |", "| not held |").contains("is called \"not held\""));
}
