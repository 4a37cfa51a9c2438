//! Ringfence's program: the per-node agent and its command line.
//!
//! Reading order: [`agent`] (what the process is made of), [`controller`] (the loop that owns all state), [`applier`]
//! (one thread per pod) on [`host`] and [`threads`], [`sandboxes`] and [`watcher`] (where the pods' network namespaces are),
//! [`start`], [`nri`] and [`cni`] (who asks before a pod starts), [`snapshot`] (what readers see), [`http`], [`metrics`] and
//! [`announce`] (what the cluster is told); then the commands that need no agent: [`render`], [`explain`] (which the agent serves
//! too), [`reach`], [`check`], [`cleanup`].

pub mod agent;
pub mod announce;
pub mod applier;
pub mod args;
pub mod check;
pub mod cleanup;
pub mod clock;
pub mod cni;
pub mod config;
pub mod controller;
pub mod drift;
pub mod drops;
pub mod event;
pub mod explain;
pub mod findings;
mod guards;
pub mod host;
pub mod http;
pub mod logging;
mod manifests;
pub mod metrics;
mod near;
pub mod nri;
pub mod reach;
pub mod render;
pub mod sandboxes;
pub mod snapshot;
pub mod start;
mod table;
pub mod template;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod watcher;
pub mod watches;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};

/// Exit code for usage errors, bad input, and what could not be done.
const BAD: u8 = 2;

/// Runs the program on its command line.
pub fn main() -> ExitCode {
    if cni::is_asked(std::env::args_os(), std::env::var_os("CNI_COMMAND").is_some()) {
        return cni::run();
    }
    let result = match Cli::parse().command {
        Command::Agent(args) => agent::run(args),
        Command::Render(args) => render::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Reach(args) => reach::run(&args),
        Command::Cleanup(args) => cleanup::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Cni => return cni::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ringfence: {error:#}");
        BAD.into()
    })
}
