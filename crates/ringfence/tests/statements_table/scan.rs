//! Finds the tests with statement numbers in their names, by reading the sources as text.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A function whose name begins with statement numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// `crate/target::module::name` for a test in `tests/`, `crate::module::name` for one in `src/`.
    pub id: String,
    /// Those of its name: `s034_s062_to_s064_…` has 34, 62, 63 and 64.
    pub numbers: BTreeSet<u16>,
    /// It has `#[test]` or an attribute that ends in `::test`.
    pub attributed: bool,
    /// It has `#[ignore]`.
    pub ignored: bool,
    /// It asks the oracle or the packet tracer alone, and would pass whatever the program did.
    pub of_a_tool: bool,
}

/// What judges the program, and is no part of it.
const TOOLS: [&str; 4] = [
    "ringfence-policy/tests/evaluate",
    "ringfence-policy/src/evaluate",
    "ringfence-ruleset/tests/trace.rs",
    "ringfence-ruleset/src/trace.rs",
];

/// Every such function under the folder of all crates, sorted.
pub fn scan(crates: &Path) -> io::Result<Vec<Test>> {
    let mut files = Vec::new();
    collect(crates, &mut files)?;
    let mut tests = Vec::new();
    for file in files {
        let relative = file.strip_prefix(crates).unwrap_or(&file);
        tests.extend(source(relative, &fs::read_to_string(&file)?));
    }
    tests.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(tests)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Those of one file; its path begins with the crate's name.
pub fn source(path: &Path, text: &str) -> Vec<Test> {
    let place = path.to_string_lossy();
    let of_a_tool = TOOLS.iter().any(|tool| place.starts_with(tool));
    let mut tests = Vec::new();
    let mut attributes: Vec<&str> = Vec::new();
    // The module of the file itself in which the lines are.
    let mut inner = None;
    for line in text.lines() {
        let code = line.trim();
        if let Some(module) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            inner = Some(module);
        } else if line == "}" {
            inner = None;
        }
        if code.starts_with("#[") {
            attributes.push(code);
            continue;
        }
        if code.starts_with("//") {
            continue;
        }
        let found = std::mem::take(&mut attributes);
        let function = code.strip_prefix("pub ").unwrap_or(code);
        let function = function.strip_prefix("async ").unwrap_or(function);
        let Some(rest) = function.strip_prefix("fn ") else {
            continue;
        };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let numbers = numbers(&name);
        if numbers.is_empty() {
            continue;
        }
        tests.push(Test {
            id: [module(path), inner.map(str::to_owned), Some(name)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("::"),
            numbers,
            attributed: found
                .iter()
                .any(|attribute| *attribute == "#[test]" || attribute.contains("::test")),
            ignored: found.iter().any(|attribute| attribute.starts_with("#[ignore")),
            of_a_tool,
        });
    }
    tests
}

/// `crate/target::module` or `crate::module`.
fn module(path: &Path) -> Option<String> {
    let path = path.with_extension("");
    let mut parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    parts.retain(|part| !matches!(*part, "lib" | "main" | "mod"));
    match parts.as_slice() {
        [package, "tests", rest @ ..] => Some(format!("{package}/{}", rest.join("::"))),
        [package, "src", rest @ ..] => Some([&[*package], rest].concat().join("::")),
        _ => None,
    }
}

fn numbers(name: &str) -> BTreeSet<u16> {
    let mut numbers = BTreeSet::new();
    let mut last = None;
    let mut range = false;
    for word in name.split('_') {
        let number = word.strip_prefix('s').filter(|digits| digits.len() == 3);
        match (number.and_then(|digits| digits.parse::<u16>().ok()), last) {
            (Some(number), Some(first)) if range => numbers.extend(first..=number),
            (Some(number), _) => {
                numbers.insert(number);
            }
            (None, Some(_)) if word == "to" && !range => {
                range = true;
                continue;
            }
            (None, _) => break,
        }
        range = false;
        last = numbers.last().copied();
    }
    numbers
}
