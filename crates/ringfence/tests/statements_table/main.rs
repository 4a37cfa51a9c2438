//! The table in `tests/README.md` against the tests: every statement has a row, every row says which tests hold it or
//! what it waits for, and every test with statement numbers in its name stands in the rows of those numbers.
//!
//! `UPDATE_EXPECT=1 cargo test -p ringfence --test statements_table` writes the names of the tests and the counts into
//! the table; what remains is for a person.

mod check;
mod scan;
mod table;

use std::fs;
use std::path::Path;

use crate::check::problems;
use crate::scan::{Test, scan};
use crate::table::{Table, rewritten};

#[test]
fn every_statement_has_tests_or_a_reason() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = package.join("tests/README.md");
    let crates = package.parent().expect("the folder of all crates");
    let tests = scan(crates).expect("read the crates");
    let mut text = fs::read_to_string(&readme).expect("read the table");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        text = rewritten(&text, &tests);
        fs::write(&readme, &text).expect("write the table");
    }
    let found = problems(&text, &tests);
    assert!(
        found.is_empty(),
        "{}\n\nThe table is crates/ringfence/tests/README.md. Names of tests are written by\n  UPDATE_EXPECT=1 cargo test -p \
         ringfence --test statements_table",
        found.join("\n")
    );
}

/// Tests as the scan would find them: name and body's attributes.
fn tests(path: &str, source: &[&str]) -> Vec<Test> {
    scan::source(Path::new(path), &source.join("\n"))
}

/// A table of two statements and what is wrong with it.
#[track_caller]
fn check(rows: &[&str], tests: &[Test], expected: &[&str]) {
    let text = table::example(rows);
    let found = check::problems_up_to(&text, tests, 2);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
}

const FILE: &str = "ringfence-policy/tests/policy/rules.rs";
const FIRST: &str = "| 1 | first | `ringfence-policy/policy::rules::s001_one` | | |";
const SECOND: &str = "| 2 | second | | | C: needs a cluster |";

fn one() -> Vec<Test> {
    tests(FILE, &["#[test]", "fn s001_one() {"])
}

#[test]
fn a_table_that_is_right_has_no_problems() {
    check(&[FIRST, SECOND], &one(), &[]);
}

#[test]
fn rows_that_are_missing_double_or_foreign_are_found() {
    check(&[SECOND], &one(), &["statement 1 has no row"]);
    check(&[FIRST, SECOND, SECOND], &one(), &["statement 2 has 2 rows"]);
    check(
        &[FIRST, SECOND, "| 3 | third | | | C: needs a cluster |"],
        &one(),
        &["there is no statement 3"],
    );
    check(
        &[FIRST, "| 2 | second | | C: needs a cluster |"],
        &one(),
        &["needs 5 columns", "statement 2 has no row"],
    );
    check(
        &[FIRST, "| 2 | | | | C: needs a cluster |"],
        &one(),
        &["row 2 does not say"],
    );
}

#[test]
fn tests_that_do_not_exist_or_bear_another_number_are_found() {
    let gone = "| 1 | first | `ringfence-policy/policy::rules::s001_gone` | | |";
    check(
        &[gone, SECOND],
        &one(),
        &[
            "s001_gone, which does not exist",
            "s001_one belongs into row 1",
            "row 1 names no test",
        ],
    );
    let other = "| 2 | second | `ringfence-policy/policy::rules::s001_one` | | |";
    check(&[FIRST, other], &one(), &["row 2 names", "row 2 names no test"]);
}

#[test]
fn tests_that_do_not_run_are_found() {
    check(
        &[FIRST, SECOND],
        &tests(FILE, &["#[test]", "#[ignore = \"slow\"]", "fn s001_one() {"]),
        &["is ignored", "row 1 names no test"],
    );
    check(
        &[FIRST, SECOND],
        &tests(FILE, &["/// Not a test.", "fn s001_one() {"]),
        &["has no #[test]", "row 1 names no test"],
    );
    check(
        &[FIRST, SECOND],
        &tests(
            FILE,
            &[
                "    #[tokio::test(flavor = \"multi_thread\")]",
                "    async fn s001_one() {",
            ],
        ),
        &[],
    );
}

#[test]
fn a_test_that_no_row_names_is_found() {
    check(
        &[FIRST, SECOND],
        &tests(
            FILE,
            &["#[test]", "fn s001_one() {", "#[test]", "fn s001_s002_both() {"],
        ),
        &["s001_s002_both belongs into row 1", "s001_s002_both belongs into row 2"],
    );
    check(
        &[FIRST, SECOND],
        &tests(FILE, &["#[test]", "fn s001_one() {", "#[test]", "fn s235_more() {"]),
        &["there is no statement 235"],
    );
}

#[test]
fn a_row_without_tests_needs_a_reason() {
    for empty in ["", "later", "C:", "some day"] {
        let row = format!("| 2 | second | | | {empty} |");
        check(&[FIRST, &row], &one(), &["row 2 names no test"]);
    }
    for reason in ["D: the whole start", "later: ClusterNetworkPolicy", "not built: no log"] {
        check(&[FIRST, &format!("| 2 | second | | | {reason} |")], &one(), &[]);
    }
}

#[test]
fn a_test_of_the_oracle_or_of_the_tracer_alone_holds_nothing() {
    let oracle = tests(
        "ringfence-policy/tests/evaluate/ports.rs",
        &["#[test]", "fn s002_oracle() {"],
    );
    let all = [one(), oracle].concat();
    let named = "| 2 | second | | `ringfence-policy/evaluate::ports::s002_oracle` | |";
    check(&[FIRST, named], &all, &["row 2 names no test"]);
    let waits = "| 2 | second | | `ringfence-policy/evaluate::ports::s002_oracle` | C: needs a cluster |";
    check(&[FIRST, waits], &all, &[]);
    let misplaced = "| 2 | second | `ringfence-policy/evaluate::ports::s002_oracle` | | |";
    check(&[FIRST, misplaced], &all, &["the other column", "row 2 names no test"]);
}

#[test]
fn a_row_whose_tests_have_come_is_no_longer_being_written() {
    let row = "| 1 | first | `ringfence-policy/policy::rules::s001_one` | | being written: a test of it |";
    check(&[row, SECOND], &one(), &["still says that they are being written"]);
    check(&["| 1 | first | | | being written: a test of it |", SECOND], &[], &[]);
    let again = rewritten(&table::example(&[row, SECOND]), &one());
    assert!(!again.contains("being written"), "{again}");
}

#[test]
fn counts_that_are_old_are_found() {
    let text = table::example(&[FIRST, SECOND]).replace("1 statements are held", "7 statements are held");
    let found = check::problems_up_to(&text, &one(), 2);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("the counts"), "{found:?}");
}

#[test]
fn names_are_put_into_their_rows_and_nothing_else_is_touched() {
    let oracle = tests(
        "ringfence-policy/tests/evaluate.rs",
        &["#[test]", "fn s001_to_s002_oracle() {"],
    );
    let wrong = [
        "| 1 | first | `ringfence-policy/policy::rules::s001_gone` | | |",
        "| 2 | second | `gone` | | C: needs a cluster |",
    ];
    let text = format!("before\n{}\nafter\n", table::example(&wrong));
    let again = rewritten(&text, &[one(), oracle].concat());
    let expected = [
        "| 1 | first | `ringfence-policy/policy::rules::s001_one` | `ringfence-policy/evaluate::s001_to_s002_oracle` |  |",
        "| 2 | second |  | `ringfence-policy/evaluate::s001_to_s002_oracle` | C: needs a cluster |",
    ];
    assert_eq!(again, format!("before\n{}\nafter\n", table::example(&expected)));
    assert_eq!(Table::parse(&again).rows.len(), 2);
}

#[test]
fn names_and_places_of_tests() {
    let check = |path: &str, source: &[&str], id: &str, numbers: &[u16]| {
        let found = tests(path, source);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].id, id);
        assert_eq!(found[0].numbers.iter().copied().collect::<Vec<_>>(), numbers);
    };
    let plain: &[&str] = &["#[test]", "fn s003_s010_to_s012_s020_b7_s099_words() {"];
    let words = "s003_s010_to_s012_s020_b7_s099_words";
    let numbers = [3, 10, 11, 12, 20];
    check("c/tests/t.rs", plain, &format!("c/t::{words}"), &numbers);
    check("c/tests/t/main.rs", plain, &format!("c/t::{words}"), &numbers);
    check("c/tests/t/a/mod.rs", plain, &format!("c/t::a::{words}"), &numbers);
    check("c/src/a/b.rs", plain, &format!("c::a::b::{words}"), &numbers);
    let inline: &[&str] = &["mod tests {", "    #[test]", "    fn s001_x() {", "    }", "}"];
    check("c/src/lib.rs", inline, "c::tests::s001_x", &[1]);
    check(
        "c/tests/t.rs",
        &["proptest! {", "    #[test]", "    fn s001_x(a in b()) {"],
        "c/t::s001_x",
        &[1],
    );
    assert_eq!(
        tests(
            "c/tests/t.rs",
            &["#[test]", "fn s1_words() {", "let s = \"fn s001_x()\";"]
        ),
        []
    );
}
