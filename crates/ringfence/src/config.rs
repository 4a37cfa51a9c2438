//! What the agent is to do: the command line, the environment and the file of `--config`, put together and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ringfence_model::Scope;
use serde::Deserialize;

use crate::args::{AgentArgs, CriSpec, ListenSpec, LogFormat, LogLevel, ScopeArg, SocketSpec, SourceSpec, Switch};
use crate::template::NetnsTemplate;

/// Everything that `ringfence agent` can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of this node.
    pub node: Arc<str>,
    /// Where objects come from.
    pub source: SourceSpec,
    /// Where the pods' network namespaces are.
    pub netns_path: NetnsTemplate,
    /// Whether the container runtime is asked for them, and how.
    pub cri: Option<Cri>,
    /// Whether Events are written.
    pub events: bool,
    /// Whether the container runtime is to ask before pods start.
    pub nri: Nri,
    /// Where the chained network plugin asks, if it may.
    pub cni: Option<PathBuf>,
    /// What NetworkPolicies without `policy-for` act on.
    pub scope: Scope,
    /// Addresses of this node.
    pub node_addresses: BTreeSet<IpAddr>,
    /// The HTTP server with every route.
    pub listen: ListenSpec,
    /// The HTTP server with metrics and health only.
    pub metrics_listen: ListenSpec,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: LogLevel,
    /// Time within which each pod's rules are compared with the kernel's once.
    pub resync: Duration,
}

/// How the container runtime is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cri {
    /// Its socket; `None` for the first of the usual ones that exists.
    pub socket: Option<PathBuf>,
    /// It is not asked; the node's processes are looked at instead.
    pub proc: bool,
    /// Whether the path of the template counts for pods that it has no sandbox of.
    pub fallback: bool,
}

impl Cri {
    /// For people: the socket, or that it is looked for.
    pub fn describe(&self) -> String {
        if self.proc {
            return "proc".to_owned();
        }
        self.socket
            .as_ref()
            .map_or_else(|| "the first that exists".to_owned(), |path| path.display().to_string())
    }

    /// Objects of a cluster come with a runtime; a folder of manifests need not. A template that somebody has asked for
    /// is not passed over in silence.
    fn resolve(spec: Option<CriSpec>, source: &SourceSpec, template: bool) -> Option<Self> {
        let folder = matches!(source, SourceSpec::Directory(_));
        let proc = spec == Some(CriSpec::Proc);
        let socket = match spec {
            Some(CriSpec::Off) => return None,
            Some(CriSpec::At(path)) => Some(path),
            None if folder => return None,
            Some(CriSpec::Proc) | None => None,
        };
        Some(Self {
            socket,
            proc,
            fallback: folder || template,
        })
    }
}

/// Where the container runtime's NRI is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nri {
    /// It is not used.
    Off,
    /// At the usual socket, where there is one when the agent starts.
    IfThere,
    /// At this socket, which may appear later.
    At(PathBuf),
}

impl Nri {
    fn resolve(spec: Option<SocketSpec>, source: &SourceSpec) -> Self {
        match (spec, source) {
            (Some(SocketSpec::At(path)), _) => Self::At(path),
            (None, SourceSpec::Kube) => Self::IfThere,
            (Some(SocketSpec::Off), _) | (None, SourceSpec::Directory(_)) => Self::Off,
        }
    }

    /// The socket to connect to, as things are now.
    pub fn socket(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from(ringfence_nri::SOCKET)).filter(|path| path.exists());
        match self {
            Self::Off => None,
            Self::IfThere => usual(),
            Self::At(path) => Some(path.clone()),
        }
    }
}

/// The file of `--config`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    node: Option<String>,
    source: Option<SourceSpec>,
    netns_path: Option<NetnsTemplate>,
    cri_socket: Option<CriSpec>,
    nri_socket: Option<SocketSpec>,
    cni_socket: Option<SocketSpec>,
    events: Option<Switch>,
    network_policy_scope: Option<ScopeArg>,
    node_address: Option<Vec<IpAddr>>,
    listen: Option<ListenSpec>,
    metrics_listen: Option<ListenSpec>,
    log_format: Option<LogFormat>,
    log_level: Option<LogLevel>,
    resync: Option<u64>,
}

/// The keys of [`File`], in the order of the command line.
const KEYS: [&str; 14] = [
    "node",
    "source",
    "netns-path",
    "cri-socket",
    "nri-socket",
    "cni-socket",
    "events",
    "network-policy-scope",
    "node-address",
    "listen",
    "metrics-listen",
    "log-format",
    "log-level",
    "resync",
];

impl Settings {
    /// Reads the file that the arguments name, if any, and puts both together.
    pub fn resolve(args: AgentArgs) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        Self::merge(args, file)
    }

    /// What [`Self::resolve`] would make of a file with this text: without reading a file, for `ringfence-fuzz`.
    #[doc(hidden)]
    pub fn from_text(args: AgentArgs, text: &str) -> anyhow::Result<Self> {
        Self::merge(args, parse(text)?)
    }

    fn merge(args: AgentArgs, file: File) -> anyhow::Result<Self> {
        let Some(node) = args.node.or(file.node).filter(|node| !node.is_empty()) else {
            bail!("the name of this node is missing: give --node NAME, RINGFENCE_NODE, or `node:` in the config file");
        };
        let resync = args.resync.or(file.resync).unwrap_or(10);
        if resync == 0 {
            bail!("--resync must be at least 1 second");
        }
        let node_addresses = if args.node_address.is_empty() {
            file.node_address.unwrap_or_default()
        } else {
            args.node_address
        };
        let source = args.source.or(file.source).unwrap_or(SourceSpec::Kube);
        let events = match (args.events.or(file.events), &source) {
            (Some(Switch::On), SourceSpec::Directory(_)) => {
                bail!("--events on needs --source kube: a folder of manifests has nobody to be told")
            }
            (events, SourceSpec::Kube) => events != Some(Switch::Off),
            (_, SourceSpec::Directory(_)) => false,
        };
        let netns_path = args.netns_path.or(file.netns_path);
        Ok(Self {
            node: node.into(),
            cri: Cri::resolve(args.cri_socket.or(file.cri_socket), &source, netns_path.is_some()),
            nri: Nri::resolve(args.nri_socket.or(file.nri_socket), &source),
            cni: match args.cni_socket.or(file.cni_socket) {
                Some(SocketSpec::At(path)) => Some(path),
                Some(SocketSpec::Off) | None => None,
            },
            source,
            events,
            netns_path: netns_path.unwrap_or_default(),
            scope: args
                .network_policy_scope
                .or(file.network_policy_scope)
                .map_or_else(Scope::default, Scope::from),
            node_addresses: node_addresses.into_iter().collect(),
            listen: args
                .listen
                .or(file.listen)
                .unwrap_or(ListenSpec::At(([127, 0, 0, 1], 9470).into())),
            metrics_listen: args.metrics_listen.or(file.metrics_listen).unwrap_or(ListenSpec::Off),
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            log_level: args.log_level.or(file.log_level).unwrap_or_default(),
            resync: Duration::from_secs(resync),
        })
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the config file {}", path.display()))?;
    parse(&text).with_context(|| format!("in the config file {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<File> {
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    // First only the keys, so that every unknown one is named at once and not one a try.
    let keys: BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str(text).context("it is not a YAML mapping of settings")?;
    let unknown: Vec<&str> = keys
        .keys()
        .map(String::as_str)
        .filter(|key| !KEYS.contains(key))
        .collect();
    if !unknown.is_empty() {
        bail!("unknown keys: {}; there are {}", unknown.join(", "), KEYS.join(", "));
    }
    Ok(serde_saphyr::from_str(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(node: Option<&str>) -> AgentArgs {
        AgentArgs {
            node: node.map(str::to_owned),
            ..AgentArgs::default()
        }
    }

    #[track_caller]
    fn check_error(text: &str, node: Option<&str>, parts: &[&str]) {
        let error = parse(text)
            .and_then(|file| Settings::merge(args(node), file))
            .expect_err("refused");
        let shown = format!("{error:#}");
        for part in parts {
            assert!(shown.contains(part), "{part:?} in {shown}");
        }
    }

    #[test]
    fn a_full_file_sets_everything() {
        let text = "
node: worker-1
source: dir:/etc/manifests
netns-path: /run/netns/{uid}
cri-socket: unix:///run/crio/crio.sock
events: off
nri-socket: /run/nri/nri.sock
cni-socket: /run/ringfence/cni.sock
network-policy-scope: all
node-address: [10.0.0.1, 'fd00::1']
listen: off
metrics-listen: 0.0.0.0:9471
log-format: json
log-level: debug
resync: 30
";
        let settings = Settings::merge(AgentArgs::default(), parse(text).expect("valid")).expect("complete");
        let expected = Settings {
            node: "worker-1".into(),
            source: SourceSpec::Directory("/etc/manifests".into()),
            netns_path: "/run/netns/{uid}".parse().expect("valid"),
            cri: Some(Cri {
                socket: Some("/run/crio/crio.sock".into()),
                proc: false,
                fallback: true,
            }),
            events: false,
            nri: Nri::At("/run/nri/nri.sock".into()),
            cni: Some("/run/ringfence/cni.sock".into()),
            scope: Scope::All,
            node_addresses: ["10.0.0.1", "fd00::1"]
                .iter()
                .map(|a| a.parse().expect("valid"))
                .collect(),
            listen: ListenSpec::Off,
            metrics_listen: ListenSpec::At(([0, 0, 0, 0], 9471).into()),
            log_format: LogFormat::Json,
            log_level: LogLevel::Debug,
            resync: Duration::from_secs(30),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn the_command_line_goes_before_the_file_and_the_file_before_the_defaults() {
        let file = parse("node: from-file\nresync: 30\n").expect("valid");
        let settings = Settings::merge(args(Some("from-flag")), file).expect("complete");
        assert_eq!(&*settings.node, "from-flag");
        assert_eq!(settings.resync, Duration::from_secs(30));
        assert_eq!(settings.scope, Scope::Secondary);
        assert_eq!(settings.source, SourceSpec::Kube);
        assert_eq!(settings.listen, ListenSpec::At(([127, 0, 0, 1], 9470).into()));
        assert_eq!(settings.metrics_listen, ListenSpec::Off);
    }

    #[test]
    fn the_runtime_is_asked_with_a_cluster_and_on_demand_with_a_folder() {
        let asked = |text: &str| {
            let file = parse(text).expect("valid");
            Settings::merge(args(Some("n")), file).expect("complete").cri
        };
        let cri = |socket: Option<&str>, fallback| {
            Some(Cri {
                socket: socket.map(PathBuf::from),
                proc: false,
                fallback,
            })
        };
        assert_eq!(asked(""), cri(None, false));
        assert_eq!(asked("cri-socket: off"), None);
        let proc = asked("cri-socket: proc").expect("the processes");
        assert_eq!((proc.proc, proc.socket, proc.fallback), (true, None, false));
        assert_eq!(asked("cri-socket: /x.sock"), cri(Some("/x.sock"), false));
        assert_eq!(asked("netns-path: '/run/{uid}'"), cri(None, true));
        assert_eq!(asked("source: dir:/m"), None);
        assert_eq!(asked("source: dir:/m\ncri-socket: /x.sock"), cri(Some("/x.sock"), true));
    }

    #[test]
    fn events_are_for_clusters() {
        let on = |text: &str| {
            let file = parse(text).expect("valid");
            Settings::merge(args(Some("n")), file).expect("complete").events
        };
        assert!(on(""));
        assert!(on("events: on"));
        assert!(!on("events: off"));
        assert!(!on("source: dir:/m"));
        assert!(!on("source: dir:/m\nevents: off"));
    }

    #[test]
    fn the_runtime_asks_before_pods_start_where_it_can() {
        let check = |text: &str, nri: Nri, cni: Option<&str>| {
            let settings = Settings::merge(args(Some("n")), parse(text).expect("valid")).expect("complete");
            assert_eq!((settings.nri, settings.cni), (nri, cni.map(PathBuf::from)), "{text}");
        };
        check("", Nri::IfThere, None);
        check("source: dir:/m", Nri::Off, None);
        check("nri-socket: off\ncni-socket: off", Nri::Off, None);
        let at = Nri::At("/n.sock".into());
        check(
            "source: dir:/m\nnri-socket: /n.sock\ncni-socket: /c.sock",
            at,
            Some("/c.sock"),
        );
        assert_eq!(Nri::Off.socket(), None);
        assert_eq!(Nri::At("/x".into()).socket(), Some("/x".into()));
    }

    #[test]
    fn bad_files_are_refused_with_what_is_wrong() {
        check_error(
            "nodes: a\nlisten: off\nlogs: b\n",
            Some("n"),
            &["unknown keys: logs, nodes", "netns-path"],
        );
        check_error("- node\n", Some("n"), &["not a YAML mapping"]);
        check_error("listen: 9470\n", Some("n"), &["listen"]);
        check_error("source: etcd\n", Some("n"), &["dir:PATH"]);
        check_error("netns-path: /run/{name}\n", Some("n"), &["{uid}"]);
        check_error("nri-socket: on\n", Some("n"), &["absolute path of a socket"]);
        check_error("cri-socket: x.sock\n", Some("n"), &["absolute path of a socket"]);
        check_error(
            "source: dir:/m\nevents: on\n",
            Some("n"),
            &["--events on", "--source kube"],
        );
        check_error("events: sometimes\n", Some("n"), &["sometimes"]);
        check_error("network-policy-scope: some\n", Some("n"), &["some"]);
        check_error("resync: 0\n", Some("n"), &["at least 1 second"]);
        check_error("resync: -1\n", Some("n"), &["resync"]);
        check_error("", None, &["--node"]);
        check_error("", Some(""), &["--node"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let args = AgentArgs {
            config: Some("/nonexistent/ringfence.yaml".into()),
            ..args(Some("n"))
        };
        let error = Settings::resolve(args).expect_err("refused");
        assert!(
            format!("{error:#}").contains("/nonexistent/ringfence.yaml"),
            "{error:#}"
        );
    }
}
