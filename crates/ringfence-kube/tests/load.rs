//! Files and folders as the command line reads them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use ringfence_kube::{LoadError, load};
use tempfile::TempDir;

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    load(paths).unwrap().iter().map(|it| it.source.to_string()).collect()
}

#[test]
fn folders_are_read_in_order_and_without_leftovers() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("m/deep")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    for (path, name) in [
        ("z.yaml", "z"),
        ("a.yml", "a"),
        ("m/deep/c.json", "c"),
        ("m/b.yaml", "b"),
        (".git/hidden.yaml", "no"),
        (".#a.yaml", "no"),
        ("a.yaml~", "no"),
        (".a.yaml.swp", "no"),
        ("#a.yaml#", "no"),
        ("notes.txt", "no"),
    ] {
        fs::write(root.join(path), namespace(name)).unwrap();
    }
    // A circle of links ends.
    symlink(root, root.join("m/again")).unwrap();
    symlink("nowhere", root.join("broken.yaml")).unwrap();
    let all = ["Namespace a", "Namespace b", "Namespace c", "Namespace z"];
    assert_eq!(names(&[root.to_owned()]), all);
    assert_eq!(
        names(&[root.join("a.yml"), root.join("m/../a.yml"), root.join("notes.txt")]),
        ["Namespace a", "Namespace no"]
    );
    assert_eq!(names(&[root.to_owned(), root.join("z.yaml")]), all);
}

#[test]
fn of_duplicates_the_first_counts() {
    let folder = TempDir::new().unwrap();
    fs::write(
        folder.path().join("a.yaml"),
        format!("{}---\n{}", namespace("x"), namespace("y")),
    )
    .unwrap();
    fs::write(folder.path().join("b.yaml"), namespace("x")).unwrap();
    let decoded = load(&[folder.path().to_owned()]).unwrap();
    assert_eq!(decoded.len(), 2);
    let text = decoded[0].diagnostics[0].to_string();
    assert!(
        text.starts_with("Namespace x: the manifest is in ") && text.contains("b.yaml"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = TempDir::new().unwrap();
    let check = |path: PathBuf, expected: fn(&LoadError) -> bool| {
        let error = load(std::slice::from_ref(&path)).unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    };
    check(folder.path().join("missing"), |error| {
        matches!(error, LoadError::NotFound { .. })
    });
    check(folder.path().to_owned(), |error| {
        matches!(error, LoadError::NoManifests { .. })
    });
    fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    check(folder.path().join("binary.yaml"), |error| {
        matches!(error, LoadError::File { .. })
    });
}
