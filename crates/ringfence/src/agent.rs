//! `ringfence agent`: what the process is made of, in the order in which it comes to life.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use ringfence_kube::announce::Announcer;
use ringfence_kube::api;
use ringfence_kube::directory::{self, Update};
use ringfence_nri::Handle;
use ringfence_ruleset::KernelFeatures;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tracing::{error, info};

use crate::args::{AgentArgs, ListenSpec, SourceSpec};
use crate::cni;
use crate::config::{Cri, Settings};
use crate::controller::{self, Running, Setup};
use crate::http;
use crate::logging;
use crate::nri;
use crate::sandboxes::Sandboxes;
use crate::watches::Watches;

/// Bits of capability sets (linux/capability.h).
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Threads for HTTP: one may be busy with a large answer while the other tells that the agent lives.
const HTTP_THREADS: usize = 2;

/// Runs until SIGTERM or SIGINT.
pub fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    let without_owner = args.without_table_owner;
    let settings = Settings::resolve(args)?;
    logging::start(settings.log_format, settings.log_level);
    require_capabilities(&fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?)?;
    let mut features = probe()?;
    features.owner_persist &= !without_owner;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before anything else is started: an address in use must not stop an agent in the middle of its work.
        let main = listen(settings.listen, "--listen").await?;
        let metrics = listen(settings.metrics_listen, "--metrics-listen").await?;
        let cni = settings.cni.as_deref().map(cni::Server::bind).transpose()?;
        let source = Source::open(&settings)?;
        let mut running = controller::start_announced(
            setup(&settings, features),
            source.updates,
            sandboxes(&settings)?,
            source.announcer,
            Box::new(|_| {}),
        )?;
        // Goes with the agent. From here on pods wait for it.
        let nri = settings.nri.socket().map(|socket| {
            let events = running.readers.events.clone();
            nri::start(socket, settings.node.clone(), events)
        });
        let nri = nri.transpose()?;
        running.readers.watches = source.watches.with_nri(nri.as_ref().map(Handle::health));
        let readers = &running.readers;
        serve(main, http::router(readers.clone()), "all routes");
        serve(metrics, http::health_router(readers.clone()), "metrics and health");
        if let Some(server) = cni {
            tokio::spawn(cni::serve(server, readers.clone()));
        }
        info!(
            node = &*settings.node,
            source = %settings.source,
            netns_path = %settings.netns_path,
            nri_socket = shown(settings.nri.socket().as_ref()).as_str(),
            cni_socket = shown(settings.cni.as_ref()).as_str(),
            cri_socket = settings.cri.as_ref().map_or("off".into(), Cri::describe).as_str(),
            version = env!("CARGO_PKG_VERSION"),
            "Agent started"
        );
        wait(&running).await?;
        running.join()
    })?;
    // Requests that are still being answered end with the process.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

fn shown(socket: Option<&PathBuf>) -> String {
    socket.map_or_else(|| "off".to_owned(), |path| path.display().to_string())
}

/// Where objects come from.
struct Source {
    updates: Receiver<Vec<Update>>,
    watches: Watches,
    announcer: Announcer,
    /// Goes with the agent: the source ends when it is dropped.
    _alive: Alive,
}

enum Alive {
    Directory { _watch: directory::Watch },
    Kube { _alive: api::Alive },
}

impl Source {
    fn open(settings: &Settings) -> anyhow::Result<Self> {
        Ok(match &settings.source {
            SourceSpec::Directory(path) => {
                let (updates, watch) = directory::watch(path.clone())?;
                Self {
                    updates,
                    watches: Watches::default(),
                    announcer: Announcer::default(),
                    _alive: Alive::Directory { _watch: watch },
                }
            }
            SourceSpec::Kube => {
                let source = api::watch(api::Options {
                    node: settings.node.clone(),
                    scope: settings.scope,
                    events: settings.events,
                })?;
                Self {
                    updates: source.updates,
                    watches: Watches::new(source.health),
                    announcer: source.announcer,
                    _alive: Alive::Kube { _alive: source.alive },
                }
            }
        })
    }
}

/// Where the pods' network namespaces are, where the container runtime is to say it.
fn sandboxes(settings: &Settings) -> anyhow::Result<Option<Sandboxes>> {
    let start = |cri: &Cri| {
        if cri.proc {
            Sandboxes::scan(cri.fallback)
        } else {
            Sandboxes::watch(cri.socket.clone(), cri.fallback)
        }
    };
    Ok(settings.cri.as_ref().map(start).transpose()?)
}

fn setup(settings: &Settings, features: KernelFeatures) -> Setup {
    Setup {
        node: settings.node.clone(),
        source: settings.source.to_string().into(),
        scope: settings.scope,
        features,
        node_addresses: settings.node_addresses.clone(),
        netns_path: settings.netns_path.clone(),
        resync: settings.resync,
    }
}

/// Says what is missing before anything fails in the middle for want of it.
fn require_capabilities(status: &str) -> anyhow::Result<()> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .context("/proc/self/status does not say which capabilities this process has")?;
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| effective >> bit & 1 == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "{} missing: the agent enters the pods' network namespaces (CAP_SYS_ADMIN) and writes nftables rules there \
         (CAP_NET_ADMIN); run it as root on the node, or add both to the container's securityContext",
        missing.join(" and ")
    )
}

/// Tries what the kernel can do, in a network namespace of its own.
pub fn probe() -> anyhow::Result<KernelFeatures> {
    let features = ringfence_netns::scratch(ringfence_netlink::probe)
        .context("cannot make a network namespace to try the kernel's nftables in")?
        .context("the kernel's nftables cannot be used")?;
    info!(
        owner_persist = features.owner_persist,
        egress_backstop = features.egress_backstop,
        fib = features.fib,
        "Kernel features probed"
    );
    Ok(features)
}

async fn listen(spec: ListenSpec, flag: &str) -> anyhow::Result<Option<TcpListener>> {
    match spec {
        ListenSpec::Off => Ok(None),
        ListenSpec::At(address) => http::bind(address, flag).await.map(Some),
    }
}

fn serve(listener: Option<TcpListener>, router: Router, what: &'static str) {
    let Some(listener) = listener else { return };
    match listener.local_addr() {
        Ok(address) => info!(%address, what, "Listening"),
        Err(error) => error!(%error, what, "The listening address is unknown"),
    }
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            error!(%error, what, "HTTP server failed");
        }
    });
}

/// Returns when a signal has ended the loop, or when the loop has ended by itself, which it never should.
async fn wait(running: &Running) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let name = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = look.tick() => if running.has_ended() { return Ok(()) },
        }
    };
    info!(signal = name, "Signal received");
    running.shut_down();
    while !running.has_ended() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(effective: &str, expected: Option<&str>) {
        let status = format!("Name:\tringfence\nCapInh:\t0\nCapEff:\t{effective}\n");
        match (require_capabilities(&status), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => assert!(error.to_string().starts_with(part), "{error}"),
            (result, _) => panic!("{effective}: {result:?}"),
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        check("000001ffffffffff", None);
        check("0000000000201000", None);
        check("0000000000200000", Some("CAP_NET_ADMIN missing"));
        check("0000000000001000", Some("CAP_SYS_ADMIN missing"));
        check("0000000000000000", Some("CAP_NET_ADMIN and CAP_SYS_ADMIN missing"));
        check("nonsense", Some("/proc/self/status"));
    }
}
