//! The program behind `hack/demo`: a topology of real network namespaces, pods described as CNI-Genie and as Multus
//! describe them, the agent on a folder of manifests, and a story told by real traffic.
//!
//! Exit code 0 only if every probe came out as expected; 1 if one did not or a step failed; 2 for a wrong command line.

mod cast;
mod report;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "\
Usage: ringfence-demo --agent PATH [--keep]

Shows Ringfence on real network namespaces of this machine. Needs root, iproute2
and nft; touches nothing outside of namespaces that it makes and removes.

  --agent PATH   the ringfence binary to run
  --keep         leave everything running at the end, until Ctrl-C
  --help         this text

Example:
  ringfence-demo --agent target/release/ringfence
";

/// Set by Ctrl-C; looked at between the steps, so that everything is taken down in order.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

struct Arguments {
    agent: PathBuf,
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("ringfence-demo: {error:#}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match catch_signals().and_then(|stop| story::tell(&arguments.agent, arguments.keep.then_some(&stop))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nringfence-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>> {
    let (mut agent, mut keep) = (None, false);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--agent" => agent = Some(PathBuf::from(arguments.next().context("--agent needs a path")?)),
            "--keep" => keep = true,
            "--help" | "-h" => return Ok(None),
            other => bail!("unknown argument {other:?}"),
        }
    }
    let agent = agent.context("--agent is missing")?;
    ensure!(
        agent.is_file(),
        "{} is no file (build it first: cargo build -p ringfence)",
        agent.display()
    );
    Ok(Some(Arguments { agent, keep }))
}

/// Ctrl-C and SIGTERM end the story after the step that is under way. The threads that come later inherit the mask, the
/// processes do not (the standard library resets it).
fn catch_signals() -> Result<Receiver<()>> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    let (stop, stopped) = channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while signals.wait().is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
                if stop.send(()).is_err() {
                    return;
                }
            }
        })
        .context("start the signal thread")?;
    Ok(stopped)
}

/// Fails after Ctrl-C.
fn go_on() -> Result<()> {
    ensure!(
        !INTERRUPTED.load(Ordering::Relaxed),
        "interrupted; everything is taken down"
    );
    Ok(())
}
