//! The command line. Exit codes: 0 yes, 1 no, 2 usage or bad input.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringfence_model::{Family, NamespacedName, Scope};
use ringfence_policy::evaluate::Party;
use ringfence_policy::explain::{NetworkArg, What};
use serde::Deserialize;

use crate::template::NetnsTemplate;

/// Network policy on every interface of every pod.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run on a node: keep every local pod's rules true in the kernel
    Agent(AgentArgs),
    /// Print a pod's ruleset as nft text, without a kernel or a cluster
    Render(RenderArgs),
    /// Say whether one end may open a connection to another, and why
    Explain(ExplainArgs),
    /// Show who may open connections to whom
    Reach(ReachArgs),
    /// Remove Ringfence's tables from this node's pods
    Cleanup(CleanupArgs),
    /// Ask the agent whether a pod may start: a chained CNI plugin, run by container runtimes
    #[command(
        after_help = "Example:\n  ringfence cni < configuration    (with CNI_COMMAND and the other variables of CNI)\n\n\
                      The same program under the name ringfence-cni needs no argument."
    )]
    Cni,
    /// Say what is invalid, ignored or surprising in manifests, without a kernel or a cluster
    Check(CheckArgs),
}

/// Arguments of `ringfence agent`. Every one can stand in the file of `--config` too; the command line goes before the
/// environment, and the environment before the file.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Example:\n  ringfence agent --node worker-1 --source dir:/etc/ringfence/manifests\n\n\
                  Stopping the agent leaves every rule in place; `ringfence cleanup` removes them."
)]
pub struct AgentArgs {
    /// YAML file with the same keys as these flags, without the dashes in front
    #[arg(long, value_name = "FILE", env = "RINGFENCE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of this node: pods whose spec.nodeName it is are enforced
    #[arg(long, value_name = "NAME", env = "RINGFENCE_NODE")]
    pub node: Option<String>,
    /// Where objects come from: dir:PATH (a folder of Kubernetes manifests) or kube [default: kube]
    #[arg(long, value_name = "SOURCE", env = "RINGFENCE_SOURCE")]
    pub source: Option<SourceSpec>,
    /// Where a pod's network namespace is; {namespace}, {name} and {uid} stand for the pod's. Beside a container runtime
    /// it counts for pods without a sandbox, where it is given or the source is dir:
    /// [default: /run/netns/{namespace}.{name}]
    #[arg(long, value_name = "TEMPLATE", env = "RINGFENCE_NETNS_PATH")]
    pub netns_path: Option<NetnsTemplate>,
    /// Socket of the container runtime, which is asked over the CRI where the pods' network namespaces are; proc to look at
    /// the node's processes instead, where no socket can be used (needs them in /proc, and CAP_SYS_PTRACE); or off
    /// [default with the source kube: the first of containerd's and CRI-O's that exists; with dir: off]
    #[arg(long, value_name = "PATH|proc|off", env = "RINGFENCE_CRI_SOCKET")]
    pub cri_socket: Option<CriSpec>,
    /// Socket of the container runtime's NRI, over which it asks before a pod starts, or off
    /// [default with the source kube: /var/run/nri/nri.sock if it exists; with dir: off]
    #[arg(long, value_name = "PATH|off", env = "RINGFENCE_NRI_SOCKET")]
    pub nri_socket: Option<SocketSpec>,
    /// Socket to listen on for the chained network plugin `ringfence cni`, which asks before a pod starts where there is no
    /// NRI [default: off]
    #[arg(long, value_name = "PATH|off", env = "RINGFENCE_CNI_SOCKET")]
    pub cni_socket: Option<SocketSpec>,
    /// Whether the cluster is told by Events about rejected policies and pods whose rules are not in force
    /// [default with the source kube: on; with dir: off]
    #[arg(long, value_name = "on|off", env = "RINGFENCE_EVENTS")]
    pub events: Option<Switch>,
    /// Interfaces that a NetworkPolicy without the annotation policy-for acts on [default: secondary]
    #[arg(long, value_name = "SCOPE", env = "RINGFENCE_NETWORK_POLICY_SCOPE")]
    pub network_policy_scope: Option<ScopeArg>,
    /// Address of this node, from which pods on the cluster network stay reachable (repeatable, or with commas)
    #[arg(long, value_name = "ADDR", env = "RINGFENCE_NODE_ADDRESS", value_delimiter = ',')]
    pub node_address: Vec<IpAddr>,
    /// Address and port of the HTTP server with every route, or off [default: 127.0.0.1:9470]
    #[arg(long, value_name = "ADDR|off", env = "RINGFENCE_LISTEN")]
    pub listen: Option<ListenSpec>,
    /// Address and port of a second HTTP server with metrics and health only [default: off]
    #[arg(long, value_name = "ADDR|off", env = "RINGFENCE_METRICS_LISTEN")]
    pub metrics_listen: Option<ListenSpec>,
    /// How log lines are written [default: text]
    #[arg(long, value_name = "FORMAT", env = "RINGFENCE_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Which log lines are written [default: info]
    #[arg(long, value_name = "LEVEL", env = "RINGFENCE_LOG_LEVEL")]
    pub log_level: Option<LogLevel>,
    /// How often each pod's rules are compared with the kernel's, in seconds [default: 10]
    #[arg(long, value_name = "SECONDS", env = "RINGFENCE_RESYNC")]
    pub resync: Option<u64>,
    /// For tests: do as on a kernel whose tables have no owner (before 6.9)
    #[arg(long, hide = true, env = "RINGFENCE_WITHOUT_TABLE_OWNER")]
    pub without_table_owner: bool,
}

/// Arguments of `ringfence render`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringfence render -f manifests/ --pod shop/web | nft -c -f -")]
pub struct RenderArgs {
    /// File or folder of Kubernetes manifests, YAML or JSON (repeatable)
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// The pod
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_pod)]
    pub pod: NamespacedName,
    /// Take only pods of this node as local; without it the pod may be on any
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Interfaces that a NetworkPolicy without the annotation policy-for acts on
    #[arg(long, value_name = "SCOPE", default_value = "secondary")]
    pub network_policy_scope: ScopeArg,
    /// Address of the node, from which the pod stays reachable on the cluster network (repeatable, or with commas)
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub node_address: Vec<IpAddr>,
}

/// Arguments of `ringfence explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ringfence explain -f manifests/ --from shop/client --to shop/web --port 80/tcp\n\n\
                  Exit code 0: allowed on every network that was judged; 1: denied; 2: bad usage or input."
)]
pub struct ExplainArgs {
    /// File or folder of Kubernetes manifests, YAML or JSON (repeatable)
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// Who opens the connection: NAMESPACE/POD or an address
    #[arg(long, value_name = "ENDPOINT")]
    pub from: Party,
    /// To whom: NAMESPACE/POD or an address
    #[arg(long, value_name = "ENDPOINT")]
    pub to: Party,
    /// The network, written as in policy-for: default, NAMESPACE/NAME, NAME or interface:NAME
    /// [default: every network on which both are]
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<NetworkArg>,
    /// Protocol and destination port: 80, 80/tcp, 80/udp, 80/sctp, icmp (an echo request), icmpv6/TYPE, or ip/NUMBER
    /// (another protocol, 47 for GRE)
    #[arg(long, value_name = "PORT")]
    pub port: What,
    /// IP version of the addresses to judge [default: 4 where both ends have it, else 6]
    #[arg(long, value_name = "4|6")]
    pub ip_family: Option<FamilyArg>,
    /// How the answer is written
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "text")]
    pub output: ExplainOutput,
    /// Interfaces that a NetworkPolicy without the annotation policy-for acts on
    #[arg(long, value_name = "SCOPE", default_value = "secondary")]
    pub network_policy_scope: ScopeArg,
    /// Address of the nodes, from which pods stay reachable on the cluster network (repeatable, or with commas)
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub node_address: Vec<IpAddr>,
}

/// Arguments of `ringfence reach`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringfence reach -f manifests/ --network shop/net-a --port 80/tcp --port icmp")]
pub struct ReachArgs {
    /// File or folder of Kubernetes manifests, YAML or JSON (repeatable)
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// The network: default, NAMESPACE/NAME, NAME (in whatever namespace) or interface:NAME [default: all of them]
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<NetworkArg>,
    /// Protocol and destination port, one matrix each: 80, 80/tcp, 80/udp, 80/sctp, icmp (an echo request) or ip/NUMBER
    #[arg(long, value_name = "PORT", required = true)]
    pub port: Vec<What>,
    /// Only pods of this namespace as senders (repeatable)
    #[arg(long, value_name = "NAMESPACE")]
    pub from_namespace: Vec<String>,
    /// Only pods of this namespace as receivers (repeatable)
    #[arg(long, value_name = "NAMESPACE")]
    pub to_namespace: Vec<String>,
    /// How the answer is written
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table")]
    pub output: ReachOutput,
    /// Colours in the table; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorArg,
    /// Interfaces that a NetworkPolicy without the annotation policy-for acts on
    #[arg(long, value_name = "SCOPE", default_value = "secondary")]
    pub network_policy_scope: ScopeArg,
    /// Address of the nodes, from which pods stay reachable on the cluster network (repeatable, or with commas)
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub node_address: Vec<IpAddr>,
}

/// Arguments of `ringfence cleanup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ringfence cleanup\n\nStop the agent first: it owns the tables of the pods that \
                        it protects."
)]
pub struct CleanupArgs {
    /// Look at the network namespaces that fit this template too, beside /run/netns and those of all processes
    #[arg(long, value_name = "TEMPLATE", env = "RINGFENCE_NETNS_PATH", default_value_t)]
    pub netns_path: NetnsTemplate,
}

/// Arguments of `ringfence check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ringfence check -f manifests/\n\nExit code 0: nothing found, or remarks (info) only; 1: errors \
                  or warnings; 2: wrong usage, or a path that cannot be read."
)]
pub struct CheckArgs {
    /// File or folder of Kubernetes manifests, YAML or JSON (repeatable)
    #[arg(short = 'f', long = "file", value_name = "PATH", required_unless_present_any = ["list", "explain"])]
    pub files: Vec<PathBuf>,
    /// How findings are written
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "text")]
    pub output: CheckOutput,
    /// Interfaces that a NetworkPolicy without the annotation policy-for acts on
    #[arg(long, value_name = "SCOPE", default_value = "secondary")]
    pub network_policy_scope: ScopeArg,
    /// Exit with code 1 for remarks (info) too
    #[arg(long)]
    pub strict: bool,
    /// Say what a code means, such as RF101, and what to do about it
    #[arg(long, value_name = "CODE", conflicts_with_all = ["files", "list"])]
    pub explain: Option<String>,
    /// List every code
    #[arg(long, conflicts_with = "files")]
    pub list: bool,
}

/// `-o` of `ringfence check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// A line for each finding.
    Text,
    /// One JSON object.
    Json,
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SourceSpec {
    /// The Kubernetes API.
    Kube,
    /// A folder of manifests, watched.
    Directory(PathBuf),
}

impl FromStr for SourceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "kube" => Ok(Self::Kube),
            Some(("dir", "")) => Err("dir: needs a path behind the colon".to_owned()),
            Some(("dir", path)) => Ok(Self::Directory(path.into())),
            _ => Err("expected dir:PATH or kube".to_owned()),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kube => f.write_str("kube"),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

/// Whether the container runtime is asked, and where.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum CriSpec {
    /// It is not asked.
    Off,
    /// It is not asked; the node's processes are looked at.
    Proc,
    /// At this socket.
    At(PathBuf),
}

impl FromStr for CriSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => return Ok(Self::Off),
            "proc" => return Ok(Self::Proc),
            _ => {}
        }
        // Other tools write sockets as addresses.
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') && path.len() > 1 {
            Ok(Self::At(path.into()))
        } else {
            Err(
                "expected off, proc, or the absolute path of a socket such as /run/containerd/containerd.sock"
                    .to_owned(),
            )
        }
    }
}

/// Whether a socket is used, and which.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SocketSpec {
    /// None.
    Off,
    /// This one.
    At(PathBuf),
}

impl FromStr for SocketSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(CriSpec::Off) => Ok(Self::Off),
            Ok(CriSpec::At(path)) => Ok(Self::At(path)),
            Ok(CriSpec::Proc) | Err(_) => Err("expected off, or the absolute path of a socket".to_owned()),
        }
    }
}

/// Where an HTTP server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ListenSpec {
    /// Nowhere.
    Off,
    /// There. Port 0 takes a free one.
    At(SocketAddr),
}

impl FromStr for ListenSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| "expected off, or an address with a port such as 127.0.0.1:9470 or [::1]:9470".to_owned())
    }
}

/// `TryFrom<String>` is what serde asks for; the text forms are those of the command line.
macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = <$type as FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    )*};
}
from_text!(SourceSpec, ListenSpec, CriSpec, SocketSpec, NetnsTemplate);

/// `--network-policy-scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScopeArg {
    /// Every interface except the primary one.
    Secondary,
    /// The primary interface too, for clusters whose primary plugin enforces nothing.
    All,
    /// Only policies that carry policy-for.
    Annotated,
    /// No NetworkPolicy at all.
    None,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Secondary => Self::Secondary,
            ScopeArg::All => Self::All,
            ScopeArg::Annotated => Self::Annotated,
            ScopeArg::None => Self::None,
        }
    }
}

/// `--events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// `--ip-family`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FamilyArg {
    /// IPv4.
    #[value(name = "4")]
    V4,
    /// IPv6.
    #[value(name = "6")]
    V6,
}

impl From<FamilyArg> for Family {
    fn from(family: FamilyArg) -> Self {
        match family {
            FamilyArg::V4 => Self::V4,
            FamilyArg::V6 => Self::V6,
        }
    }
}

/// `--output` of `ringfence explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `--output` of `ringfence reach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReachOutput {
    /// For people: a matrix.
    Table,
    /// For programs.
    Json,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `--log-level`: this and everything worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// Bad input, refused transactions, drift.
    Warn,
    /// Changes of state.
    #[default]
    Info,
    /// Every turn.
    Debug,
    /// Everything.
    Trace,
}

fn parse_pod(text: &str) -> Result<NamespacedName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(NamespacedName::new(namespace, name))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example_in_its_help() {
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            let name = command.get_name();
            assert!(
                help.contains(&format!("Example:\n  ringfence {name}")),
                "{name}: {help}"
            );
        }
    }

    #[test]
    fn every_flag_of_the_agent_has_its_environment_variable() {
        let agent = Cli::command().find_subcommand("agent").cloned().expect("it exists");
        for argument in agent.get_arguments() {
            let expected = format!("RINGFENCE_{}", argument.get_id().as_str().to_uppercase());
            let env = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(env, Some(expected), "{}", argument.get_id());
        }
    }

    #[track_caller]
    fn check_refused(arguments: &[&str], expected: ErrorKind) {
        let error = Cli::try_parse_from(arguments.iter().copied().map(std::ffi::OsStr::new)).expect_err("refused");
        assert_eq!(error.kind(), expected, "{arguments:?}: {error}");
        assert_eq!(error.exit_code(), 2, "{arguments:?}");
    }

    #[test]
    fn bad_usage_is_refused_with_exit_code_2() {
        check_refused(&["ringfence"], ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        check_refused(&["ringfence", "elucidate"], ErrorKind::InvalidSubcommand);
        check_refused(&["ringfence", "agent", "--source", "dir:"], ErrorKind::ValueValidation);
        check_refused(
            &["ringfence", "agent", "--source", "etcd:x"],
            ErrorKind::ValueValidation,
        );
        check_refused(&["ringfence", "agent", "--listen", "9470"], ErrorKind::ValueValidation);
        check_refused(
            &["ringfence", "agent", "--node-address", "10.0.0"],
            ErrorKind::ValueValidation,
        );
        check_refused(
            &["ringfence", "agent", "--network-policy-scope", "some"],
            ErrorKind::InvalidValue,
        );
        check_refused(
            &["ringfence", "agent", "--netns-path", "relative/{namespace}.{name}"],
            ErrorKind::ValueValidation,
        );
        check_refused(
            &["ringfence", "agent", "--cri-socket", "containerd.sock"],
            ErrorKind::ValueValidation,
        );
        check_refused(
            &["ringfence", "agent", "--nri-socket", "on"],
            ErrorKind::ValueValidation,
        );
        check_refused(
            &["ringfence", "render", "--pod", "a/b"],
            ErrorKind::MissingRequiredArgument,
        );
        check_refused(
            &["ringfence", "render", "-f", "x", "--pod", "web"],
            ErrorKind::ValueValidation,
        );
        check_refused(&["ringfence", "explain"], ErrorKind::MissingRequiredArgument);
        check_refused(&["ringfence", "reach", "-f", "x"], ErrorKind::MissingRequiredArgument);
        let explain = |flag: &'static str, value: &'static str, expected| {
            let mut arguments = vec!["ringfence", "explain", "-f", "x"];
            for (name, good) in [("--from", "a/b"), ("--to", "a/c"), ("--port", "80")] {
                arguments.extend([name, if name == flag { value } else { good }]);
            }
            if !arguments.contains(&flag) {
                arguments.extend([flag, value]);
            }
            check_refused(&arguments, expected);
        };
        explain("--from", "web", ErrorKind::ValueValidation);
        explain("--to", "10.0.0.256", ErrorKind::ValueValidation);
        explain("--port", "0", ErrorKind::ValueValidation);
        explain("--port", "http", ErrorKind::ValueValidation);
        explain("--port", "80/tpc", ErrorKind::ValueValidation);
        explain("--network", "a/b/c", ErrorKind::ValueValidation);
        explain("--ip-family", "5", ErrorKind::InvalidValue);
        explain("-o", "yaml", ErrorKind::InvalidValue);
        check_refused(
            &["ringfence", "reach", "-f", "x", "--port", "80", "--color", "sometimes"],
            ErrorKind::InvalidValue,
        );
    }
}
