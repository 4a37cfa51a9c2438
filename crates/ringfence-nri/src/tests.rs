//! The plugin against a runtime that the tests play, over a real socket.

use std::time::Duration;

use crate::messages::{FAILED_PRECONDITION, INVALID_ARGUMENT, PodSandbox, RESOURCE_EXHAUSTED, UNIMPLEMENTED};
use crate::runtime::{Connection, Runtime, Watched, pod};
use crate::session::Empty;
use crate::{Error, News, Options, Reply, Sandbox, State, watch};

/// So long that no test waits for it.
const LONG: Duration = Duration::from_secs(3600);

fn ids(sandboxes: &[Sandbox]) -> Vec<&str> {
    sandboxes.iter().map(|sandbox| &*sandbox.id).collect()
}

#[track_caller]
fn check_listed(watched: &Watched, expected: &[&str]) {
    match watched.next() {
        News::Listed(sandboxes) => assert_eq!(ids(&sandboxes), expected),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn next_question(watched: &Watched, id: &str) -> Reply {
    match watched.next() {
        News::Run { sandbox, reply, .. } => {
            assert_eq!(sandbox, Sandbox::from(pod(id)));
            reply
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_refused(connection: &mut Connection, stream: u32, code: i32, part: &str) {
    let status = connection.answered::<Empty>(stream).expect_err("refused");
    assert_eq!(status.code, code, "{status:?}");
    assert!(status.message.contains(part), "{status:?}");
}

#[test]
fn the_first_list_may_come_in_parts() {
    let runtime = Runtime::new();
    let watched = runtime.watch(LONG);
    let _connection = runtime.connect(&[&[pod("a"), pod("b")], &[], &[pod("c")]]);
    check_listed(&watched, &["a", "b", "c"]);
    let health = watched.handle.health().borrow().clone();
    assert_eq!(health.state, State::Connected);
    assert_eq!(health.runtime.as_deref(), Some("containerd v2.4.2"));
    assert_eq!((health.sessions, health.errors), (1, 0));
}

#[test]
fn questions_wait_and_are_answered_in_any_order() {
    let runtime = Runtime::new();
    let watched = runtime.watch(LONG);
    let mut connection = runtime.connect(&[&[]]);
    check_listed(&watched, &[]);
    let first = connection.ask_about("RunPodSandbox", &pod("a"));
    let second = connection.ask_about("RunPodSandbox", &pod("b"));
    let third = connection.ask_about("RunPodSandbox", &pod("c"));
    let (a, b, c) = (
        next_question(&watched, "a"),
        next_question(&watched, "b"),
        next_question(&watched, "c"),
    );
    // What does not wait is answered meanwhile.
    let gone = connection.ask_about("StopPodSandbox", &pod("z"));
    connection.answered::<Empty>(gone).expect("no error");
    assert!(matches!(watched.next(), News::Gone(sandbox) if sandbox.id == "z"));
    b.send(Ok(()));
    connection.answered::<Empty>(second).expect("it may start");
    c.send(Err("the kernel refuses its rules".into()));
    check_refused(
        &mut connection,
        third,
        FAILED_PRECONDITION,
        "the kernel refuses its rules",
    );
    drop(a);
    check_refused(&mut connection, first, FAILED_PRECONDITION, "nobody has decided");
    let removed = connection.ask_about("RemovePodSandbox", &pod("c"));
    connection.answered::<Empty>(removed).expect("no error");
    assert!(matches!(watched.next(), News::Gone(sandbox) if sandbox.id == "c"));
}

#[test]
fn a_question_that_nobody_answers_is_answered_with_an_error_in_time() {
    let runtime = Runtime::new();
    let watched = runtime.watch(Duration::from_millis(50));
    let mut connection = runtime.connect(&[&[]]);
    check_listed(&watched, &[]);
    let stream = connection.ask_about("RunPodSandbox", &pod("a"));
    let late = next_question(&watched, "a");
    check_refused(
        &mut connection,
        stream,
        FAILED_PRECONDITION,
        "not decided within 0.05 seconds",
    );
    // Too late: the next answer is to the next question.
    late.send(Ok(()));
    let stream = connection.ask_about("RunPodSandbox", &pod("b"));
    next_question(&watched, "b").send(Ok(()));
    connection.answered::<Empty>(stream).expect("it may start");
}

#[test]
fn what_is_not_known_or_cannot_be_read_is_refused_and_the_connection_goes_on() {
    let runtime = Runtime::new();
    let watched = runtime.watch(LONG);
    let mut connection = runtime.connect(&[&[]]);
    check_listed(&watched, &[]);
    for method in ["CreateContainer", "Ping", "ValidateContainerAdjustment"] {
        let stream = connection.ask(method, &Empty {});
        check_refused(&mut connection, stream, UNIMPLEMENTED, method);
    }
    // A text where a message belongs.
    let garbage = PodSandbox {
        id: "\u{ff}\u{ff}".into(),
        ..PodSandbox::default()
    };
    let stream = connection.ask("RunPodSandbox", &garbage);
    check_refused(&mut connection, stream, INVALID_ARGUMENT, "RunPodSandbox");
    let stream = connection.ask("Shutdown", &Empty {});
    connection.answered::<Empty>(stream).expect("no error");
}

#[test]
fn more_questions_than_a_runtime_has_are_refused() {
    let runtime = Runtime::new();
    let watched = runtime.watch(LONG);
    let mut connection = runtime.connect(&[&[]]);
    check_listed(&watched, &[]);
    let mut replies = Vec::new();
    for _ in 0..256 {
        connection.ask_about("RunPodSandbox", &pod("a"));
        replies.push(next_question(&watched, "a"));
    }
    let stream = connection.ask_about("RunPodSandbox", &pod("b"));
    check_refused(&mut connection, stream, RESOURCE_EXHAUSTED, "too many");
}

/// Each way in which a connection ends is followed by the next connection.
#[track_caller]
fn check_connected_anew(end: impl FnOnce(&mut Connection), reason: &str) {
    let runtime = Runtime::new();
    let watched = runtime.watch(LONG);
    let mut connection = runtime.connect(&[&[pod("a")]]);
    check_listed(&watched, &["a"]);
    connection.ask_about("RunPodSandbox", &pod("b"));
    let reply = next_question(&watched, "b");
    end(&mut connection);
    drop(connection);
    assert!(matches!(watched.next(), News::Lost));
    // Of the connection before: it reaches nobody.
    reply.send(Ok(()));
    let mut connection = runtime.connect(&[&[pod("c")]]);
    check_listed(&watched, &["c"]);
    let health = watched.handle.health().borrow().clone();
    assert_eq!((health.state, health.sessions), (State::Connected, 2), "after {reason}");
    let stream = connection.ask_about("RunPodSandbox", &pod("d"));
    next_question(&watched, "d").send(Ok(()));
    connection.answered::<Empty>(stream).expect("it may start");
}

#[test]
fn a_lost_connection_is_made_anew() {
    check_connected_anew(|_| {}, "a cut connection");
    check_connected_anew(
        |connection| {
            connection.write_bytes(&[0, 0, 0, 1, 255, 255, 255, 255]);
            while connection.read().is_some() {}
        },
        "a malformed frame",
    );
}

#[test]
fn a_refused_registration_is_tried_again() {
    let runtime = Runtime::new();
    let watched = runtime.watch(LONG);
    runtime.accept().register(Some("not this one"));
    // Held until then: the health is that of the attempt before.
    let mut second = runtime.accept();
    let health = watched.handle.health().borrow().clone();
    let State::Away(reason) = health.state else {
        panic!("{health:?}");
    };
    assert_eq!(
        reason,
        "the container runtime refuses the NRI plugin: not this one (status 2)"
    );
    second.register(None);
    second.configure(0);
    second.synchronize(&[&[]]);
    // Nothing was lost, because nothing was there.
    check_listed(&watched, &[]);
}

#[test]
fn the_connection_ends_with_its_handle() {
    let runtime = Runtime::new();
    let watched = runtime.watch(LONG);
    let mut connection = runtime.connect(&[&[]]);
    check_listed(&watched, &[]);
    drop(watched);
    assert_eq!(connection.read(), None);
}

#[test]
fn options_that_no_runtime_takes_are_refused() {
    let check = |options: Options, part: &str| match watch(options, |_| {}) {
        Err(Error::Options(text)) => assert!(text.contains(part), "{text}"),
        other => panic!("{other:?}"),
    };
    check(Options::new("nri.sock".into(), "ringfence"), "no absolute path");
    check(Options::new("/nri.sock".into(), ""), "has a name");
    let index = Options {
        index: "1".into(),
        ..Options::new("/nri.sock".into(), "ringfence")
    };
    check(index, "two digits");
}
