//! The process that holds a pod's namespaces: waits for a signal, and reaps what is orphaned in the pod.

use std::ffi::c_int;
use std::process::exit;

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

unsafe extern "C" {
    safe fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    safe fn pause() -> c_int;
    safe fn _exit(code: c_int) -> !;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
}

extern "C" fn end(_: c_int) {
    _exit(0)
}

extern "C" fn reap(_: c_int) {
    // SAFETY: waitpid may be called in a signal handler, and a null status is allowed.
    while unsafe { waitpid(-1, std::ptr::null_mut(), WNOHANG) } > 0 {}
}

fn main() {
    if [(SIGINT, end as extern "C" fn(c_int)), (SIGTERM, end), (SIGCHLD, reap)]
        .into_iter()
        .any(|(number, handler)| signal(number, handler) == usize::MAX)
    {
        exit(1);
    }
    loop {
        pause();
    }
}
