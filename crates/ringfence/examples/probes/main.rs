//! Probes at full rate through everything that can go wrong with a node, and how soon changes by others are mended. Needs
//! root; makes namespaces `rf-…` and removes them.
//!
//! ```text
//! cargo build --release -p ringfence --bins --examples
//! target/release/examples/probes                 # everything, 10 million probes
//! target/release/examples/probes 100000          # so many for each fault
//! ```

#[path = "../../tests/faults/node.rs"]
mod node;
mod repair;

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use node::{Fault, Node, Row};

/// For each fault, so that all of them are ten million.
const PROBES: u64 = 1_200_000;

fn main() -> Result<()> {
    let probes = match env::args().nth(1) {
        Some(text) => text.parse().context("expected a number of probes for each fault")?,
        None => PROBES,
    };
    let program = program()?;
    let folder = env::temp_dir().join(format!("ringfence-probes-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let other = folder.join("ringfence");
    fs::copy(&program, &other)?;
    let result = all(&program, &other, probes);
    fs::remove_dir_all(&folder)?;
    result?;
    repair::measure()
}

fn all(program: &std::path::Path, other: &std::path::Path, probes: u64) -> Result<()> {
    println!(
        "{:<32} {:>7} {:>11} {:>7} {:>11} {:>7}",
        "fault", "times", "forbidden", "passed", "allowed", "lost"
    );
    let (mut sent, mut passed, mut lost) = (0, 0, 0);
    for fault in Fault::ALL {
        let mut node = Node::start("probes", program, other, &[])?;
        let row = node.run(fault, probes)?;
        print(fault.label(), &row);
        sent += row.tally.probes();
        passed += row.tally.passed;
        lost += row.tally.lost;
    }
    println!("{sent} probes: {passed} forbidden ones passed, {lost} allowed ones were lost");
    // Here the pod is open from the flush until the repair: how many get through says how long that is.
    let mut node = Node::start("probes", program, other, &["--without-table-owner"])?;
    let row = node.run(Fault::Flush, probes / 4)?;
    print("the last, tables without owner", &row);
    Ok(())
}

fn print(label: &str, row: &Row) {
    let tally = &row.tally;
    println!(
        "{label:<32} {:>7} {:>11} {:>7} {:>11} {:>7}",
        row.times, tally.forbidden, tally.passed, tally.allowed, tally.lost
    );
    for wrong in &tally.wrong {
        println!("    {wrong}");
    }
}

/// Beside the examples' folder.
fn program() -> Result<PathBuf> {
    let example = env::current_exe()?;
    let target = example
        .parent()
        .and_then(std::path::Path::parent)
        .context("no target folder")?;
    let program = target.join("ringfence");
    ensure!(
        program.exists(),
        "{} is missing: build with --bins too",
        program.display()
    );
    Ok(program)
}
