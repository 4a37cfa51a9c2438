//! The directory source on real files: what arrives, and what must never disappear.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_kube::directory::{Update, Watch, WatchError, watch};
use ringfence_kube::load;
use ringfence_model::{Consequence, Diagnostic, Object, ObjectKey, Source};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::Receiver;

/// Far beyond anything that a loaded machine needs; only a lost update takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Follows a source and holds what it has told.
struct Follower {
    runtime: Runtime,
    batches: Receiver<Vec<Update>>,
    _watch: Watch,
    objects: BTreeMap<ObjectKey, Object>,
    diagnostics: BTreeMap<Source, Vec<Diagnostic>>,
    /// Every object that was ever reported gone.
    gone: Vec<ObjectKey>,
    /// Number of objects sent.
    applied: usize,
    synced: bool,
    /// As it was told last.
    unread: Vec<String>,
}

impl Follower {
    fn start(path: &Path) -> Self {
        let (batches, watch) = watch(path).unwrap();
        let mut it = Self {
            runtime: Builder::new_current_thread().enable_time().build().unwrap(),
            batches,
            _watch: watch,
            objects: BTreeMap::new(),
            diagnostics: BTreeMap::new(),
            gone: Vec::new(),
            applied: 0,
            synced: false,
            unread: Vec::new(),
        };
        it.turn("the first batch");
        assert!(it.synced, "the first batch ends with Synced");
        it
    }

    fn turn(&mut self, waiting_for: &str) {
        let batch = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.batches.recv()).await });
        let batch = match batch {
            Ok(Some(batch)) => batch,
            other => panic!(
                "waiting for {waiting_for}: {other:?}; {:?} {:?}",
                self.names(),
                self.diagnostics
            ),
        };
        assert!(!batch.is_empty());
        for update in batch {
            match update {
                Update::Apply(decoded) => {
                    let object = decoded.object.expect("an object to apply");
                    self.objects.insert(object.key(), object);
                    self.diagnostics.insert(decoded.source, decoded.diagnostics);
                    self.applied += 1;
                }
                Update::Gone { key, source } => {
                    assert!(self.objects.remove(&key).is_some(), "{key:?} was never there");
                    self.diagnostics.remove(&source);
                    self.gone.push(key);
                }
                Update::Report { source, diagnostics } => {
                    self.diagnostics.insert(source, diagnostics);
                }
                Update::Synced { unread } => {
                    assert!(!self.synced, "synced once");
                    self.synced = true;
                    self.unread = names_of(&unread);
                }
                Update::Unread(unread) => {
                    let unread = names_of(&unread);
                    assert_ne!(self.unread, unread, "only news");
                    self.unread = unread;
                }
            }
        }
        self.diagnostics.retain(|_, list| !list.is_empty());
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.turn(what);
        }
    }

    fn names(&self) -> BTreeSet<String> {
        self.objects
            .values()
            .map(|object| match object {
                Object::Namespace(it) => {
                    let value = it.labels.get("v").map(|value| format!("={value}")).unwrap_or_default();
                    format!("{}{value}", it.name)
                }
                other => format!("{:?}", other.key()),
            })
            .collect()
    }

    fn until_names(&mut self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        self.until(&format!("{expected:?}"), |it| it.names() == expected);
    }

    fn reports(&self, consequence: Consequence) -> usize {
        self.diagnostics
            .values()
            .flatten()
            .filter(|it| it.consequence == consequence)
            .count()
    }
}

/// Sources in words, files by their names alone.
fn names_of(sources: &[Source]) -> Vec<String> {
    let name = |source: &Source| match &*source.kind {
        "File" => source.name.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => source.to_string(),
    };
    sources.iter().map(name).collect()
}

/// A namespace with a label `v`.
fn ns(name: &str, value: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{v: \"{value}\"}}\n")
}

fn folder(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("manifests");
    fs::create_dir(&root).unwrap();
    for (name, text) in files {
        fs::write(root.join(name), text).unwrap();
    }
    (folder, root)
}

#[test]
fn the_first_batch_has_everything() {
    let (_folder, root) = folder(&[
        ("a.yaml", &ns("a", "1")),
        ("b.json", "{}"),
        (".hidden.yaml", &ns("h", "1")),
    ]);
    let it = Follower::start(&root);
    assert_eq!(it.names(), BTreeSet::from(["a=1".to_owned()]));
    assert_eq!(it.reports(Consequence::ObjectIgnored), 1);
    let (_folder, empty) = folder(&[]);
    assert!(Follower::start(&empty).names().is_empty());
}

#[test]
fn files_are_saved_added_renamed_and_removed() {
    let (_folder, root) = folder(&[("a.yaml", &ns("a", "1"))]);
    let mut it = Follower::start(&root);
    fs::write(root.join("a.yaml"), ns("a", "2")).unwrap();
    it.until_names(&["a=2"]);
    fs::write(root.join("b.yaml"), ns("b", "1")).unwrap();
    it.until_names(&["a=2", "b=1"]);
    // Written beside and renamed over it, as careful programs do.
    fs::write(root.join("a.yaml.tmp"), ns("a", "3")).unwrap();
    fs::rename(root.join("a.yaml.tmp"), root.join("a.yaml")).unwrap();
    it.until_names(&["a=3", "b=1"]);
    assert!(it.gone.is_empty());
    fs::remove_file(root.join("b.yaml")).unwrap();
    it.until_names(&["a=3"]);
    fs::remove_file(root.join("a.yaml")).unwrap();
    it.until_names(&[]);
}

#[test]
fn equal_objects_are_not_sent_again() {
    let (_folder, root) = folder(&[("a.yaml", &ns("a", "1"))]);
    let mut it = Follower::start(&root);
    fs::write(root.join("a.yaml"), format!("# a note\n{}", ns("a", "1"))).unwrap();
    fs::rename(root.join("a.yaml"), root.join("z.yaml")).unwrap();
    fs::write(root.join("m.yaml"), ns("m", "1")).unwrap();
    it.until_names(&["a=1", "m=1"]);
    // One more, so that whatever the rename had caused would have come.
    fs::remove_file(root.join("m.yaml")).unwrap();
    it.until_names(&["a=1"]);
    assert_eq!(it.applied, 2, "a and m, once each");
    assert_eq!(it.gone.len(), 1, "only m");
}

#[test]
fn a_file_that_does_not_parse_keeps_its_objects() {
    let (_folder, root) = folder(&[("a.yaml", &(ns("a", "1") + &ns("b", "1")))]);
    let mut it = Follower::start(&root);
    fs::write(root.join("a.yaml"), "kind: [").unwrap();
    it.until("a report", |it| it.reports(Consequence::KeepsLast) == 1);
    assert_eq!(it.names().len(), 2);
    // A good document counts although another one is broken.
    fs::write(root.join("a.yaml"), format!("{}  x: [\n{}", ns("a", "1"), ns("b", "2"))).unwrap();
    it.until_names(&["a=1", "b=2"]);
    assert_eq!(it.reports(Consequence::KeepsLast), 1);
    fs::write(root.join("a.yaml"), [0xff, 0xfe]).unwrap();
    it.until("another report", |it| {
        it.diagnostics.values().flatten().any(|it| it.message.contains("UTF-8"))
    });
    fs::write(root.join("a.yaml"), ns("a", "3") + &ns("b", "2")).unwrap();
    it.until_names(&["a=3", "b=2"]);
    it.until("no report", |it| it.diagnostics.is_empty());
    assert!(it.gone.is_empty());
}

#[test]
fn a_file_that_is_being_written_keeps_its_objects() {
    let (_folder, root) = folder(&[("a.yaml", &ns("a", "1"))]);
    let mut it = Follower::start(&root);
    let mut writer = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(root.join("a.yaml"))
        .unwrap();
    for round in 0..3 {
        fs::write(root.join("other.yaml"), ns("other", &round.to_string())).unwrap();
        it.until_names(&["a=1", &format!("other={round}")]);
    }
    writer.write_all(ns("a", "2").as_bytes()).unwrap();
    drop(writer);
    it.until_names(&["a=2", "other=2"]);
    assert!(it.gone.is_empty());
}

#[test]
fn a_writer_who_never_closes_is_read_in_the_end() {
    let (_folder, root) = folder(&[]);
    let mut it = Follower::start(&root);
    let mut writer = File::create(root.join("a.yaml")).unwrap();
    writer.write_all(ns("a", "1").as_bytes()).unwrap();
    it.until_names(&["a=1"]);
    // Truncated by its holder: the objects stay until there is something else.
    writer.set_len(0).unwrap();
    fs::write(root.join("b.yaml"), ns("b", "1")).unwrap();
    it.until_names(&["a=1", "b=1"]);
    drop(writer);
    fs::write(root.join("a.yaml"), "").unwrap();
    it.until_names(&["b=1"]);
}

/// Rewrites one file as fast as possible, in pieces, while another thread reads along: the object is never missing,
/// although most moments find the file empty or cut.
#[test]
fn rewriting_in_place_never_loses_an_object() {
    let text = |value: usize| format!("{}{}", ns("a", &value.to_string()), ns("b", "1"));
    let (_folder, root) = folder(&[("a.yaml", &text(0))]);
    let mut it = Follower::start(&root);
    let path = root.join("a.yaml");
    let writer = std::thread::spawn(move || {
        for value in 1..=400 {
            let mut file = File::create(&path).unwrap();
            for piece in text(value).as_bytes().chunks(40) {
                file.write_all(piece).unwrap();
            }
        }
    });
    it.until_names(&["a=400", "b=1"]);
    writer.join().unwrap();
    assert!(it.gone.is_empty(), "{:?}", it.gone);
}

#[test]
fn editors_that_rename_the_old_file_first_lose_nothing() {
    let (_folder, root) = folder(&[("a.yaml", &ns("a", "1"))]);
    let mut it = Follower::start(&root);
    for value in ["2", "3"] {
        fs::rename(root.join("a.yaml"), root.join("a.yaml~")).unwrap();
        fs::write(root.join("b.yaml"), ns("b", value)).unwrap();
        it.until(&format!("b={value}"), |it| it.names().contains(&format!("b={value}")));
        fs::write(root.join("a.yaml"), ns("a", value)).unwrap();
        it.until_names(&[&format!("a={value}"), &format!("b={value}")]);
    }
    assert!(it.gone.is_empty(), "{:?}", it.gone);
}

#[test]
fn of_two_files_with_one_object_the_first_counts() {
    let (_folder, root) = folder(&[("b.yaml", &ns("n", "b"))]);
    let mut it = Follower::start(&root);
    fs::write(root.join("a.yaml"), ns("n", "a")).unwrap();
    it.until_names(&["n=a"]);
    assert_eq!(it.reports(Consequence::ObjectIgnored), 1);
    fs::remove_file(root.join("a.yaml")).unwrap();
    it.until_names(&["n=b"]);
    assert!(it.diagnostics.is_empty());
    assert!(it.gone.is_empty());
}

#[test]
fn subfolders_come_and_go() {
    let (folder, root) = folder(&[]);
    let mut it = Follower::start(&root);
    fs::create_dir_all(root.join("one/two")).unwrap();
    fs::write(root.join("one/two/a.yaml"), ns("a", "1")).unwrap();
    it.until_names(&["a=1"]);
    fs::write(root.join("one/two/a.yaml"), ns("a", "2")).unwrap();
    it.until_names(&["a=2"]);
    // A full folder moved in, renamed, changed inside, moved out.
    fs::create_dir(folder.path().join("ready")).unwrap();
    fs::write(folder.path().join("ready/b.yaml"), ns("b", "1")).unwrap();
    fs::rename(folder.path().join("ready"), root.join("ready")).unwrap();
    it.until_names(&["a=2", "b=1"]);
    fs::rename(root.join("ready"), root.join("renamed")).unwrap();
    fs::write(root.join("renamed/b.yaml"), ns("b", "2")).unwrap();
    it.until_names(&["a=2", "b=2"]);
    assert!(it.gone.is_empty());
    fs::rename(root.join("renamed"), folder.path().join("ready")).unwrap();
    it.until_names(&["a=2"]);
    fs::remove_dir_all(root.join("one")).unwrap();
    it.until_names(&[]);
}

/// The layout of a mounted ConfigMap: files are links into `..data`, which is a link to a folder that is exchanged.
#[test]
fn a_mounted_config_map_is_exchanged_as_a_whole() {
    let (_folder, root) = folder(&[]);
    let generation = |name: &str, value: &str| {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("a.yaml"), ns("a", value)).unwrap();
        fs::write(root.join(name).join("b.yaml"), ns("b", value)).unwrap();
        symlink(name, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    generation("..1", "1");
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    symlink("..data/b.yaml", root.join("b.yaml")).unwrap();
    let mut it = Follower::start(&root);
    assert_eq!(it.names(), BTreeSet::from(["a=1".to_owned(), "b=1".to_owned()]));
    for (old, new, value) in [("..1", "..2", "2"), ("..2", "..3", "3")] {
        generation(new, value);
        fs::remove_dir_all(root.join(old)).unwrap();
        it.until_names(&[&format!("a={value}"), &format!("b={value}")]);
    }
    // The target of a link changes in place.
    fs::write(root.join("..3/a.yaml"), ns("a", "4")).unwrap();
    it.until_names(&["a=4", "b=3"]);
    assert!(it.gone.is_empty(), "{:?}", it.gone);
}

#[test]
fn a_folder_that_is_gone_keeps_its_objects_until_it_is_back() {
    let (folder, root) = folder(&[("a.yaml", &ns("a", "1")), ("b.yaml", &ns("b", "1"))]);
    let mut it = Follower::start(&root);
    let away = folder.path().join("away");
    fs::rename(&root, &away).unwrap();
    it.until("a report", |it| it.reports(Consequence::KeepsLast) == 1);
    // What happens there is of no interest any more.
    fs::remove_file(away.join("a.yaml")).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("b.yaml"), ns("b", "2")).unwrap();
    it.until_names(&["b=2"]);
    it.until("no report", |it| it.diagnostics.is_empty());
    fs::write(root.join("c.yaml"), ns("c", "1")).unwrap();
    it.until_names(&["b=2", "c=1"]);
}

#[test]
fn a_folder_that_is_removed_file_by_file_keeps_its_last_object() {
    let (folder, root) = folder(&[("a.yaml", &ns("a", "1"))]);
    let mut it = Follower::start(&root);
    fs::remove_dir_all(&root).unwrap();
    it.until("a report", |it| it.reports(Consequence::KeepsLast) == 1);
    assert!(it.gone.is_empty());
    // The parents may go as well.
    drop(folder);
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("a.yaml"), ns("a", "2")).unwrap();
    it.until_names(&["a=2"]);
    assert!(it.gone.is_empty());
    fs::remove_dir_all(root.parent().unwrap()).unwrap();
}

#[test]
fn a_single_file_may_be_the_source() {
    let (_folder, root) = folder(&[("other.yaml", &ns("other", "1"))]);
    let path = root.join("policies");
    fs::write(&path, ns("a", "1")).unwrap();
    let mut it = Follower::start(&path);
    assert_eq!(it.names(), BTreeSet::from(["a=1".to_owned()]));
    fs::write(&path, ns("a", "2")).unwrap();
    it.until_names(&["a=2"]);
    fs::remove_file(&path).unwrap();
    it.until("a report", |it| it.reports(Consequence::KeepsLast) == 1);
    fs::write(root.join("tmp"), ns("a", "3")).unwrap();
    fs::rename(root.join("tmp"), &path).unwrap();
    it.until_names(&["a=3"]);
    it.until("no report", |it| it.diagnostics.is_empty());
    assert!(it.gone.is_empty());
}

#[test]
fn s139_the_source_says_what_it_has_never_been_able_to_read() {
    let (_folder, root) = folder(&[
        ("a.yaml", &ns("a", "1")),
        ("b.yaml", "kind: ["),
        ("c.yaml", "kind: ["),
        ("d.yaml", &(ns("d", "1") + "---\nkind: [")),
    ]);
    // No text at all.
    fs::write(root.join("e.yaml"), [0xff, 0xfe, 0xff]).unwrap();
    let mut it = Follower::start(&root);
    assert_eq!(it.unread, ["b.yaml", "c.yaml", "d.yaml", "e.yaml"]);
    // Known once is known for good.
    fs::write(root.join("a.yaml"), "kind: [").unwrap();
    fs::write(root.join("b.yaml"), ns("b", "1")).unwrap();
    it.until("b is read", |it| it.unread == ["c.yaml", "d.yaml", "e.yaml"]);
    assert!(it.names().contains("b=1"), "told with what it holds or after it");
    fs::remove_file(root.join("c.yaml")).unwrap();
    it.until("c is gone", |it| it.unread == ["d.yaml", "e.yaml"]);
    // Renamed is not removed.
    fs::rename(root.join("e.yaml"), root.join("f.yaml")).unwrap();
    it.until("e is f", |it| {
        let names = ["e.yaml", "f.yaml"].map(str::to_owned);
        assert!(names.iter().any(|name| it.unread.contains(name)), "{:?}", it.unread);
        it.unread == ["d.yaml", "f.yaml"]
    });
    // Written anew in the way of editors that remove first.
    for _ in 0..3 {
        fs::remove_file(root.join("d.yaml")).unwrap();
        fs::write(root.join("d.yaml"), ns("d", "1") + "---\nkind: [[").unwrap();
    }
    fs::write(root.join("f.yaml"), ns("f", "1")).unwrap();
    it.until("f is read", |it| {
        assert!(it.unread.contains(&"d.yaml".to_owned()), "{:?}", it.unread);
        it.unread == ["d.yaml"]
    });
    fs::write(root.join("d.yaml"), ns("d", "2")).unwrap();
    it.until("everything is read", |it| it.unread.is_empty());
    it.until_names(&["a=1", "b=1", "d=2", "f=1"]);
}

#[test]
fn a_link_to_the_folder_may_be_pointed_elsewhere() {
    let (folder, root) = folder(&[("a.yaml", &ns("a", "1"))]);
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("a.yaml"), ns("a", "2")).unwrap();
    let link = folder.path().join("link");
    symlink(&root, &link).unwrap();
    let mut it = Follower::start(&link);
    symlink(&other, folder.path().join("new")).unwrap();
    fs::rename(folder.path().join("new"), &link).unwrap();
    it.until_names(&["a=2"]);
    fs::write(other.join("a.yaml"), ns("a", "3")).unwrap();
    it.until_names(&["a=3"]);
    assert!(it.gone.is_empty());
}

#[test]
fn what_is_not_there_cannot_be_watched() {
    let (_folder, root) = folder(&[]);
    let error = watch(root.join("missing")).unwrap_err();
    assert!(matches!(error, WatchError::NotFound { .. }), "{error:?}");
    assert!(
        error.to_string().contains("missing: there is no such file or folder"),
        "{error}"
    );
}

#[test]
fn dropping_the_watch_ends_the_source() {
    let (_folder, root) = folder(&[]);
    let (mut batches, watch) = watch(&root).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let mut next = || {
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, batches.recv()).await })
            .unwrap()
    };
    assert_eq!(next(), Some(vec![Update::Synced { unread: Vec::new() }]));
    drop(watch);
    assert_eq!(next(), None);
}

/// Many changes of all kinds in a fixed pseudo-random order: in the end the source tells what `load` reads.
#[test]
fn after_any_sequence_the_source_agrees_with_the_files() {
    for seed in 1_u64..=6 {
        let (_folder, root) = folder(&[]);
        fs::create_dir_all(root.join("d")).unwrap();
        let mut it = Follower::start(&root);
        let mut state = seed;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let files = ["a.yaml", "b.yaml", "d/c.yaml", "d/e.yaml", "tmp"];
        for step in 0..150 {
            let (one, two) = (root.join(files[next(5)]), root.join(files[next(5)]));
            let text = ns(["n1", "n2", "n3"][next(3)], &step.to_string());
            // Not all of them succeed, for example a rename of what is not there.
            let _ = match next(8) {
                0..=3 => fs::write(one, text),
                4 => fs::remove_file(one),
                5 => fs::rename(one, two),
                6 => fs::rename(root.join("d"), root.join("d2"))
                    .and_then(|()| fs::rename(root.join("d2"), root.join("d"))),
                _ => fs::write(one, text + "---\nbroken: ["),
            };
        }
        // Whole files in the end, because broken ones keep what they had.
        for name in &files[..4] {
            fs::write(
                root.join(name),
                ns(name.trim_end_matches(".yaml").trim_start_matches("d/"), "end"),
            )
            .unwrap();
        }
        let expected: BTreeMap<ObjectKey, Object> = load(std::slice::from_ref(&root))
            .unwrap()
            .into_iter()
            .filter_map(|it| it.object)
            .map(|object| (object.key(), object))
            .collect();
        it.until(&format!("the end of {seed}"), |it| {
            it.objects == expected && it.diagnostics.is_empty()
        });
    }
}
