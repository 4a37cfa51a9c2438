//! Tests against the kernel. They need root and fail without it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::*;

fn own_id() -> NetnsId {
    Netns::current().expect("the thread's own namespace").id()
}

/// A namespace without a path: only the handle keeps it.
fn another() -> Netns {
    scratch(|| Netns::current().expect("open the scratch namespace")).expect("make a namespace (are you root?)")
}

/// A folder for one test's odd files, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rf-netns-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("make a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("remove the test's folder");
    }
}

/// Takes every capability from the calling thread only (capabilities are per thread in the kernel).
fn drop_capabilities() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    let header = Header {
        version: 0x2008_0522, // _LINUX_CAPABILITY_VERSION_3
        pid: 0,
    };
    let nothing = [0_u32; 6];
    // SAFETY: the header and the two sets of three words have the layout of linux/capability.h and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, nothing.as_ptr()) };
    assert_eq!(result, 0, "capset failed");
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default()
}

#[test]
fn run_enters_and_comes_back() {
    let (home, target) = (own_id(), another());
    assert_ne!(home, target.id());
    let inside = target.run(own_id).expect("enter");
    assert_eq!(inside, target.id());
    assert_eq!(own_id(), home);
}

#[test]
fn run_inside_run_comes_back_one_step() {
    let (home, outer, inner) = (own_id(), another(), another());
    let seen = outer
        .run(|| {
            let deepest = inner.run(own_id).expect("enter the inner one");
            (deepest, own_id())
        })
        .expect("enter the outer one");
    assert_eq!(seen, (inner.id(), outer.id()));
    assert_eq!(own_id(), home);
}

#[test]
fn a_panic_inside_leaves_the_thread_at_home() {
    let (home, target) = (own_id(), another());
    let caught = catch_unwind(AssertUnwindSafe(|| target.run(|| panic!("on purpose"))));
    assert_eq!(panic_text(&*caught.expect_err("the panic goes on")), "on purpose");
    assert_eq!(own_id(), home);
}

#[test]
fn other_threads_stay_where_they_are() {
    let (home, target) = (own_id(), another());
    let elsewhere = std::thread::scope(|scope| {
        let (enter, entered) = std::sync::mpsc::channel::<()>();
        let other = scope.spawn(move || {
            entered.recv().expect("wait until the main thread is inside");
            own_id()
        });
        target
            .run(|| {
                enter.send(()).expect("the other thread waits");
                other.join().expect("the other thread")
            })
            .expect("enter")
    });
    assert_eq!(elsewhere, home);
}

/// The thread's own namespace counts, not the process's: on a thread that is born in another one, coming back means
/// coming back there.
#[test]
fn home_is_the_threads_own_namespace() {
    let target = another();
    let (before, after) = scratch(|| {
        let before = own_id();
        target.run(|| ()).expect("enter");
        (before, own_id())
    })
    .expect("scratch");
    assert_eq!(before, after);
    assert_ne!(before, own_id());
}

#[test]
fn scratch_passes_panics_on_and_its_namespace_is_new_each_time() {
    assert_ne!(another().id(), own_id());
    let (first, second) = (another(), another());
    assert_ne!(first.id(), second.id());
    let caught = catch_unwind(|| scratch(|| panic!("in scratch")));
    assert_eq!(panic_text(&*caught.expect_err("the panic goes on")), "in scratch");
}

#[test]
fn identity_follows_the_namespace_and_not_the_path() {
    let direct = Netns::open(Path::new("/proc/self/ns/net")).expect("open by process");
    let by_pid = Netns::open(&PathBuf::from(format!("/proc/{}/ns/net", std::process::id()))).expect("open by pid");
    assert_eq!(direct.id(), by_pid.id());
    let link = std::fs::read_link("/proc/self/ns/net").expect("read the link");
    assert_eq!(link.to_string_lossy(), format!("net:[{}]", direct.id().inode));
}

#[test]
fn a_listener_is_where_its_process_was_and_not_where_its_file_is() {
    let folder = Folder::new("listener");
    let other = another();
    let path = folder.0.join("nri.sock");
    let here = own_id();
    let check = |netns: &Netns, name: &str, expected: bool| {
        let found = netns.has_listener(OsStr::new(name)).expect("looked at");
        assert_eq!(found, expected, "{name}, {:?} from {here:?}", netns.id());
    };
    check(&other, "nri.sock", false);
    let listener = other
        .run(|| std::os::unix::net::UnixListener::bind(&path).expect("bound"))
        .expect("entered");
    check(&other, "nri.sock", true);
    check(&other, "ri.sock", false);
    check(&another(), "nri.sock", false);
    // One that only connects, and one that has gone.
    let _client = std::os::unix::net::UnixStream::connect(&path).expect("connected");
    check(&another(), "nri.sock", false);
    drop(listener);
    check(&other, "nri.sock", false);
}

#[test]
fn only_listening_sockets_with_a_path_count() {
    let check = |line: &str, expected: bool| {
        let table = format!("Num       RefCount Protocol Flags    Type St Inode Path\n{line}\n");
        assert_eq!(listens(table.as_bytes(), b"nri.sock"), expected, "{line}");
    };
    check(
        "0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/nri/nri.sock",
        true,
    );
    check(
        "0000000078671516: 00000002 00000000 00010000 0001 01 61721 nri.sock",
        false,
    );
    check(
        "0000000000000000: 00000002 00000000 00010000 0001 01 4711 @/run/nri/nri.sock",
        false,
    );
    check(
        "0000000000000000: 00000003 00000000 00000000 0001 03 4711 /run/nri/nri.sock",
        false,
    );
    check(
        "0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/nri/nri.sock.ttrpc",
        false,
    );
    check("0000000000000000: 00000003 00000000 00010000 0001 01 4711", false);
    check("", false);
}

#[test]
fn what_is_no_namespace_says_what_it_is() {
    let folder = Folder::new("odd");
    let file = |name: &str, content: &str| {
        let path = folder.0.join(name);
        std::fs::write(&path, content).expect("write a file");
        path
    };
    let pipe = folder.0.join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("make a pipe");
    let check = |path: &Path, pending: bool, text: &str| {
        let error = Netns::open(path).expect_err("must not open");
        assert_eq!(error.is_pending(), pending, "{error}");
        assert!(error.to_string().contains(text), "{error} does not contain {text:?}");
    };
    check(
        Path::new("/run/netns/rf-netns-absent"),
        true,
        "no network namespace at /run/netns",
    );
    check(Path::new("/proc/4194305/ns/net"), true, "no network namespace at");
    check(&file("empty", ""), true, "no network namespace is mounted on it");
    check(
        &file("text", "x"),
        false,
        "no network namespace but a file with content",
    );
    check(&folder.0, false, "no network namespace but a folder");
    check(&pipe, false, "no network namespace but a pipe");
    check(Path::new("/dev/null"), false, "no network namespace but a special file");
    check(Path::new("/proc/self/ns/mnt"), false, "another type (mount)");
}

#[test]
fn a_missing_capability_is_named() {
    let target = another();
    let check = |name: &str, error: Error| {
        assert!(matches!(error, Error::Permission { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{name}: {error}");
        assert!(!error.is_pending(), "{name}: {error}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop_capabilities();
            check("run", target.run(|| ()).expect_err("must not enter"));
            check("scratch", scratch(|| ()).expect_err("must not be made"));
        });
    });
}

/// A thread that cannot come home must not go on silently in the pod.
#[test]
fn a_thread_that_cannot_come_back_panics() {
    let target = another();
    let ended = std::thread::scope(|scope| scope.spawn(|| target.run(drop_capabilities)).join());
    let panic = ended.expect_err("the thread must panic");
    assert!(panic_text(&*panic).contains("cannot return"), "{}", panic_text(&*panic));
}
