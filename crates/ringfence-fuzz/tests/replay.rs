//! Every input that is kept goes through its target in every test run: the corpora, which reach what the fuzzer has
//! reached, and the regressions, each of which once failed.

use std::fs;
use std::path::{Path, PathBuf};

use ringfence_fuzz::{Run, TARGETS};

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

/// The files of a folder in the order of their names; a folder that is not there has none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Runs everything and names each input that fails, so that one failure does not hide the next.
fn replay(kind: &str) {
    let mut failed = Vec::new();
    for (name, run) in TARGETS {
        let folder = folder(kind).join(name);
        let inputs = files(&folder);
        assert!(
            kind != "corpus" || inputs.len() >= 5,
            "{} holds next to nothing",
            folder.display()
        );
        failed.extend(inputs.into_iter().filter(|input| !passes(run, input)));
    }
    assert!(failed.is_empty(), "what failed is above: {failed:#?}");
}

fn passes(run: Run, input: &Path) -> bool {
    let bytes = fs::read(input).expect("a file that can be read");
    std::panic::catch_unwind(|| run(&bytes)).is_ok()
}

#[test]
fn the_corpora_pass() {
    replay("corpus");
}

#[test]
fn what_once_failed_passes() {
    replay("regressions");
}

/// Whatever is cut off, at every length of a few inputs of each target.
#[test]
fn truncated_inputs_pass() {
    for (name, run) in TARGETS {
        for input in files(&folder("corpus").join(name)).iter().take(3) {
            let bytes = fs::read(input).expect("a file that can be read");
            for length in (0..bytes.len().min(2_000)).step_by(7) {
                run(&bytes[..length]);
            }
        }
    }
}

/// A folder whose name is no target's would be replayed by nobody.
#[test]
fn every_folder_and_dictionary_belongs_to_a_target() {
    for kind in ["corpus", "regressions", "dictionaries", "fuzz_targets"] {
        for path in files(&folder(kind)) {
            let stem = path.file_stem().and_then(|name| name.to_str()).expect("a name");
            assert!(
                TARGETS.iter().any(|(name, _)| *name == stem) || stem == "README",
                "{}",
                path.display()
            );
        }
    }
    for (name, _) in TARGETS {
        let manifest = include_str!("../Cargo.toml");
        assert!(
            manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
    }
}
