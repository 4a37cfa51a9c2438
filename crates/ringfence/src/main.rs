//! The `ringfence` program: everything is in the library, so that tests and benches can drive it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence::main()
}
