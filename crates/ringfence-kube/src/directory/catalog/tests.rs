//! Files replaced, broken and removed, and what the receiver is told.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::document;

#[derive(Default)]
struct Fixture {
    catalog: Catalog,
    shown: String,
}

impl Fixture {
    fn write(mut self, path: &str, text: &str) -> Self {
        self.catalog.replace(Path::new(path), document::read(text, path));
        self
    }

    fn remove(mut self, path: &str) -> Self {
        self.catalog.remove(Path::new(path));
        self
    }

    fn unreadable(mut self, path: &str) -> Self {
        self.catalog.keep(Path::new(path), Reason::Unreadable, "no".to_owned());
        self
    }

    /// One batch.
    fn turn(mut self) -> Self {
        self.shown.push_str("turn\n");
        for update in self.catalog.updates() {
            let (line, diagnostics) = match &update {
                Update::Apply(decoded) => {
                    let key = decoded.object.as_ref().map(ringfence_model::Object::key);
                    (
                        format!("apply {} {key:?}", decoded.source),
                        decoded.diagnostics.as_slice(),
                    )
                }
                Update::Gone { key, source } => (format!("gone {source} {key:?}"), [].as_slice()),
                Update::Report { source, diagnostics } => (format!("report {source}"), diagnostics.as_slice()),
                Update::Synced { .. } | Update::Unread(_) => unreachable!("the watcher's"),
            };
            // Keys in short: `Pod(PodUid("u"))`.
            let line = line.replace("Some(", "").replace("))", ")");
            let _ = writeln!(self.shown, "  {line}");
            for it in diagnostics {
                let _ = writeln!(
                    self.shown,
                    "    ! {}: {}; {}",
                    it.reason.as_str(),
                    it.message,
                    it.consequence
                );
            }
        }
        self
    }

    #[track_caller]
    fn check(self, expected: &Expect) {
        expected.assert_eq(&self.shown);
    }
}

fn start() -> Fixture {
    Fixture::default()
}

fn ns(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn pod(name: &str, uid: &str) -> String {
    format!("---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: x\n  uid: {uid}\n")
}

const BROKEN: &str = "---\nkind: [\n";

#[test]
fn equal_objects_are_sent_once() {
    start()
        .write("a", &ns("a"))
        .turn()
        .write("a", &format!("# note\n{}", ns("a")))
        .turn()
        .write("a", &format!("{}  labels: {{t: x}}\n", ns("a")))
        .turn()
        .remove("a")
        .turn()
        .remove("a")
        .turn()
        .check(&expect![[r#"
            turn
              apply Namespace a Namespace("a")
            turn
            turn
              apply Namespace a Namespace("a")
            turn
              gone Namespace a Namespace("a")
            turn
        "#]]);
}

#[test]
fn what_moves_between_files_is_not_gone() {
    start()
        .write("a", &(ns("a") + &ns("b")))
        .turn()
        .write("a", &ns("b"))
        .write("b", &ns("a"))
        .turn()
        .remove("b")
        .write("c", &format!("{}  labels: {{t: x}}\n", ns("a")))
        .turn()
        .check(&expect![[r#"
            turn
              apply Namespace a Namespace("a")
              apply Namespace b Namespace("b")
            turn
            turn
              apply Namespace a Namespace("a")
        "#]]);
}

#[test]
fn of_duplicates_the_first_path_counts() {
    start()
        .write("b", &format!("{}  labels: {{from: b}}\n", ns("n")))
        .turn()
        .write("a", &format!("{}  labels: {{from: a}}\n", ns("n")))
        .turn()
        .remove("a")
        .turn()
        .write("b", &(ns("n") + &ns("n")))
        .turn()
        .check(&expect![[r#"
            turn
              apply Namespace n Namespace("n")
            turn
              apply Namespace n Namespace("n")
                ! duplicate: the manifest is in a and in b; the first one counts; the object is ignored
            turn
              apply Namespace n Namespace("n")
            turn
              apply Namespace n Namespace("n")
                ! duplicate: the manifest is twice in b; the first one counts; the object is ignored
        "#]]);
}

#[test]
fn s135_pods_go_by_their_uid() {
    start()
        .write("a", &pod("web", "u1"))
        .turn()
        .write("a", &pod("web", "u2"))
        .turn()
        // Renamed under the same uid: the key lives on.
        .write("a", &pod("other", "u2"))
        .turn()
        // A copy with the same uid.
        .write("b", &pod("copy", "u2"))
        .turn()
        .remove("b")
        .turn()
        .write("b", &pod("third", "u2"))
        .turn()
        .remove("a")
        .turn()
        .check(&expect![[r#"
            turn
              apply Pod x/web Pod(PodUid("u1"))
            turn
              gone Pod x/web Pod(PodUid("u1")
              apply Pod x/web Pod(PodUid("u2"))
            turn
              report Pod x/web
              apply Pod x/other Pod(PodUid("u2"))
            turn
              apply Pod x/copy Pod(PodUid("u2"))
              report Pod x/other
                ! duplicate: Pod x/copy has the same uid and counts; give each pod its own, or none; the object is ignored
            turn
              report Pod x/copy
              apply Pod x/other Pod(PodUid("u2"))
            turn
              report Pod x/third
                ! duplicate: Pod x/other has the same uid and counts; give each pod its own, or none; the object is ignored
            turn
              report Pod x/other
              apply Pod x/third Pod(PodUid("u2"))
        "#]]);
}

#[test]
fn broken_files_keep_their_objects() {
    start()
        .write("a", &(ns("a") + &ns("b")))
        .turn()
        .write("a", BROKEN)
        .turn()
        .write("a", BROKEN)
        .turn()
        .unreadable("a")
        .turn()
        .write("a", &ns("a"))
        .turn()
        .check(&expect![[r#"
            turn
              apply Namespace a Namespace("a")
              apply Namespace b Namespace("b")
            turn
              report File a
                ! syntax: document 1, line 2: no valid YAML or JSON: unclosed bracket '['; what was read before stays in force
            turn
            turn
              report File a
                ! unreadable: no; what was read before stays in force
            turn
              gone Namespace b Namespace("b")
              report File a
        "#]]);
}

#[test]
fn broken_files_without_objects_are_only_reported() {
    start()
        .write("a", BROKEN)
        .turn()
        .unreadable("a")
        .turn()
        .remove("a")
        .turn()
        .check(&expect![[r#"
            turn
              report File a
                ! syntax: document 1, line 2: no valid YAML or JSON: unclosed bracket '['; the object is ignored
            turn
              report File a
                ! unreadable: no; the object is ignored
            turn
              report File a
        "#]]);
}

#[test]
fn a_broken_document_keeps_its_own_object_and_others_count() {
    // Known by its name: b is broken, a is gone.
    start()
        .write("f", &(ns("a") + &ns("b") + &ns("c")))
        .turn()
        .write("f", &(format!("{}  labels: {{x: [\n", ns("b")) + &ns("c")))
        .turn()
        .write("f", &ns("c"))
        .turn()
        .check(&expect![[r#"
            turn
              apply Namespace a Namespace("a")
              apply Namespace b Namespace("b")
              apply Namespace c Namespace("c")
            turn
              gone Namespace a Namespace("a")
              report File f
                ! syntax: document 1, line 6: no valid YAML or JSON: unclosed bracket '['; what was read before stays in force
            turn
              gone Namespace b Namespace("b")
              report File f
        "#]]);
    // Known by its position.
    start()
        .write("f", &(ns("a") + &ns("b") + &ns("c")))
        .turn()
        .write("f", &(ns("a") + BROKEN + &ns("d")))
        .turn()
        .check(&expect![[r#"
            turn
              apply Namespace a Namespace("a")
              apply Namespace b Namespace("b")
              apply Namespace c Namespace("c")
            turn
              gone Namespace c Namespace("c")
              report File f
                ! syntax: document 2, line 7: no valid YAML or JSON: unclosed bracket '['; what was read before stays in force
              apply Namespace d Namespace("d")
        "#]]);
    // Not known: everything that is missing stays.
    start()
        .write("f", &(ns("a") + &ns("b") + &ns("c")))
        .turn()
        .write("f", &(ns("a") + BROKEN))
        .turn()
        .check(&expect![[r#"
            turn
              apply Namespace a Namespace("a")
              apply Namespace b Namespace("b")
              apply Namespace c Namespace("c")
            turn
              report File f
                ! syntax: document 2, line 7: no valid YAML or JSON: unclosed bracket '['; what was read before stays in force
        "#]]);
}

#[test]
fn an_object_that_can_no_longer_be_named_keeps_its_last_state() {
    start()
        .write("f", &ns("a"))
        .turn()
        .write("f", "apiVersion: v1\nkind: Namespace\nmetadata: 5\n")
        .turn()
        .write("f", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n")
        .turn()
        .check(&expect![[r#"
            turn
              apply Namespace a Namespace("a")
            turn
              report File f
                ! schema: document 1: Namespace cannot be identified: metadata is 5 instead of an object; what was read before stays in force
            turn
              gone Namespace a Namespace("a")
              report File f
        "#]]);
}

#[test]
fn remarks_have_a_slot_of_their_own() {
    let mut it = start().write("/r/a.yaml", &ns("a")).turn();
    it.catalog
        .remark(Path::new("/r/.slot"), Path::new("/r"), "gone".to_owned());
    it = it.turn();
    it.catalog.remove(Path::new("/r/.slot"));
    it.turn().check(&expect![[r#"
        turn
          apply Namespace a Namespace("a")
        turn
          report File /r
            ! unreadable: gone; what was read before stays in force
        turn
          report File /r
    "#]]);
}

/// `files` are written one after the other; then this is what has never been read.
#[track_caller]
fn check_unread(fixture: &Fixture, expected: &[&str]) {
    let unread: Vec<String> = fixture.catalog.unread().iter().map(ToString::to_string).collect();
    assert_eq!(unread, expected);
}

#[test]
fn s139_what_was_never_read_is_told_until_it_is_mended_or_removed() {
    let nameless = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {}\n";
    for broken in [BROKEN, "{}", nameless, &(ns("a") + BROKEN)] {
        let it = start().write("f", broken);
        check_unread(&it, &["File f"]);
        check_unread(&it.write("f", &ns("a")), &[]);
        check_unread(&start().write("f", broken).remove("f"), &[]);
        // Another fault does not make it known.
        check_unread(&start().write("f", broken).unreadable("f"), &["File f"]);
    }
    check_unread(&start().unreadable("f"), &["File f"]);
    check_unread(&start().unreadable("f").write("f", "# nothing"), &[]);
    let both = start().write("f", BROKEN).unreadable("g");
    check_unread(&both, &["File f", "File g"]);
    let mut awaited = start();
    awaited.catalog.await_first(Path::new("f"));
    check_unread(&awaited, &["File f"]);
    check_unread(&awaited.write("f", &ns("a")), &[]);
}

#[test]
fn s139_what_was_read_once_is_known_however_broken_it_is_now() {
    check_unread(&start().write("f", &ns("a")).write("f", BROKEN), &[]);
    check_unread(&start().write("f", &ns("a")).unreadable("f"), &[]);
    // Neither pods that are rejected nor kinds that nobody reads hide the isolation of anybody.
    check_unread(
        &start().write("f", "apiVersion: v1\nkind: Widget\nmetadata: {name: a}\n"),
        &[],
    );
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: x}\nspec: 5\n";
    let it = start().write("f", pod);
    assert_eq!(it.catalog.files().count(), 1, "it is reported");
    check_unread(&it, &[]);
}

#[test]
fn s139_a_file_that_was_read_in_part_stays_unread_whichever_part_is_broken() {
    let it = start().write("f", &(ns("a") + BROKEN)).write("f", BROKEN);
    check_unread(&it, &["File f"]);
    let it = it.write("f", &(BROKEN.to_owned() + &ns("b")));
    check_unread(&it, &["File f"]);
    check_unread(&it.write("f", &(ns("a") + &ns("b"))), &[]);
}

#[test]
fn s139_a_file_that_was_never_read_is_not_gone_before_that_is_certain() {
    let it = start().write("f", BROKEN).write("g", &ns("g"));
    let loses = |path: &str, text: &str| it.catalog.would_lose(Path::new(path), &document::read(text, path));
    assert!(loses("f", ""), "cut short, or removed to be written anew");
    assert!(loses("f", &ns("a")));
    assert!(!loses("f", "kind: [[\n"), "nothing becomes known");
    assert!(!loses("g", &ns("g")));
}
