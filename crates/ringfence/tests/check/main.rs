//! `ringfence check`: every code is raised by a manifest of its own and by no near twin of it, the page holds against the
//! code, the project's own manifests raise nothing, and the command line says what it promises.

mod cases;
mod command;
mod families;
mod own;
mod page;
mod size;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ringfence::check::{Report, check};
use ringfence_model::Scope;

/// What is found in one file.
fn report(text: &str, scope: Scope) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("all.yaml");
    std::fs::write(&file, text).expect("written");
    check(&[file], scope).expect("it can be read")
}

/// The codes of a report, each once.
fn codes(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.code).collect()
}
