//! The runtime's end: a process per network of a pod, as the CNI specification has it (versions 0.3.1 to 1.1.0).
//!
//! It changes nothing of the result of the plugins before it. Whatever goes wrong is an error, and the kubelet tries
//! again: a pod that cannot be closed does not start. Where the agent is away the configuration may say otherwise.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{LONGEST, Pod, Request, Response, SOCKET};

/// A little longer than the agent's.
const PATIENCE: Duration = Duration::from_secs(8);

/// Longest configuration, with the results of the plugins before.
const LONGEST_CONFIGURATION: u64 = 4 << 20;

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

// Codes of the specification.
const INVALID_ENVIRONMENT: u32 = 4;
const IO: u32 = 5;
const UNDECODABLE: u32 = 6;
const INVALID_CONFIGURATION: u32 = 7;
const TRY_AGAIN: u32 = 11;
const NOT_AVAILABLE: u32 = 50;

/// The plugin's part of the network configuration.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    cni_version: String,
    /// Of the agent.
    #[serde(default = "default_socket")]
    socket: PathBuf,
    #[serde(default)]
    when_agent_is_away: Away,
    /// Pods of these namespaces start in any case: the agent's own, where it has a network of its own.
    #[serde(default)]
    exempt_namespaces: Vec<String>,
    /// What the plugins before have done.
    prev_result: Option<Value>,
}

fn default_socket() -> PathBuf {
    SOCKET.into()
}

/// What is to happen where the agent does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Away {
    /// The pod does not start.
    #[default]
    Refuse,
    /// The pod starts, and is open until the agent finds it.
    Allow,
}

/// As it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    code: u32,
    message: String,
    details: String,
}

/// Why there is no answer of the agent that lets the pod start.
#[derive(Debug)]
enum No {
    /// It does not answer.
    Away(String),
    /// It says so.
    Refused(String),
}

fn failure(code: u32, message: &str, details: &impl ToString) -> Failure {
    Failure {
        code,
        message: message.to_owned(),
        details: details.to_string(),
    }
}

/// Whether this process was started as a network plugin and not by a person: by the name of the program, or by the
/// environment where there is no argument.
pub fn is_asked(mut arguments: impl Iterator<Item = std::ffi::OsString>, command: bool) -> bool {
    let program = arguments.next().unwrap_or_default();
    let named = Path::new(&program)
        .file_name()
        .is_some_and(|name| name == "ringfence-cni");
    named || (command && arguments.next().is_none())
}

/// Runs the plugin on the environment and the standard input.
pub fn run() -> ExitCode {
    let mut text = Vec::new();
    let read = io::stdin().take(LONGEST_CONFIGURATION).read_to_end(&mut text);
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let (version, result) = match read {
        Ok(_) => decide(&text, &env),
        Err(error) => (
            String::new(),
            Err(failure(IO, "the configuration cannot be read", &error)),
        ),
    };
    let (output, code) = match result {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(failure) => (Some(failure.print(&version)), ExitCode::FAILURE),
    };
    let Some(output) = output else { return code };
    match writeln!(io::stdout(), "{output}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

impl Failure {
    fn print(&self, version: &str) -> Value {
        json!({
            "cniVersion": if version.is_empty() { "1.0.0" } else { version },
            "code": self.code,
            "msg": format!("ringfence: {}", self.message),
            "details": self.details,
        })
    }
}

/// The version that the output is written in, and what is printed.
fn decide(text: &[u8], env: &dyn Fn(&str) -> String) -> (String, Result<Option<Value>, Failure>) {
    let configuration: Configuration = match serde_json::from_slice(text) {
        Ok(configuration) => configuration,
        Err(error) => {
            let failed = failure(UNDECODABLE, "the network configuration cannot be read", &error);
            return (String::new(), Err(failed));
        }
    };
    let version = configuration.cni_version.clone();
    let result = match &*env("CNI_COMMAND") {
        "VERSION" => Ok(Some(json!({ "cniVersion": version, "supportedVersions": VERSIONS }))),
        "ADD" => add(configuration, env).map(Some),
        "DEL" => {
            let sandbox = env("CNI_CONTAINERID");
            // What goes needs no permission. An agent that is away finds out by itself.
            drop(ask(&configuration.socket, &Request::Del { sandbox }));
            Ok(None)
        }
        // What an ADD has made is the agent's to keep.
        "CHECK" | "GC" => Ok(None),
        "STATUS" => match ask(&configuration.socket, &Request::Status) {
            Ok(()) => Ok(None),
            Err(No::Away(why) | No::Refused(why)) => Err(failure(NOT_AVAILABLE, "pods cannot be protected", &why)),
        },
        other => Err(failure(
            INVALID_ENVIRONMENT,
            "CNI_COMMAND is none of ADD, DEL, CHECK, GC, STATUS and VERSION",
            &other,
        )),
    };
    (version, result)
}

fn add(configuration: Configuration, env: &dyn Fn(&str) -> String) -> Result<Value, Failure> {
    let result = configuration.prev_result.ok_or_else(|| {
        failure(
            INVALID_CONFIGURATION,
            "this plugin makes no interface: it must stand behind others in a list",
            &"prevResult is missing",
        )
    })?;
    let arguments = env("CNI_ARGS");
    let argument = |name: &str| {
        let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) else {
        // Not Kubernetes: nobody's pod.
        return Ok(result);
    };
    let required = |name: &str| match env(name) {
        value if value.is_empty() => Err(failure(INVALID_ENVIRONMENT, "a variable is missing", &name)),
        value => Ok(value),
    };
    let pod = Pod {
        uid: argument("K8S_POD_UID").unwrap_or_default(),
        sandbox: required("CNI_CONTAINERID")?,
        netns: required("CNI_NETNS")?,
        name,
        namespace,
    };
    let exempt = configuration.exempt_namespaces.contains(&pod.namespace);
    let may_be_away = configuration.when_agent_is_away == Away::Allow;
    match ask(&configuration.socket, &Request::Add(pod)) {
        Ok(()) => Ok(result),
        Err(No::Away(why)) if may_be_away || exempt => Ok(unprotected(result, &why)),
        Err(No::Refused(why)) if exempt => Ok(unprotected(result, &why)),
        Err(No::Away(why)) => Err(failure(
            TRY_AGAIN,
            "the agent is away, so the pod cannot be protected",
            &why,
        )),
        Err(No::Refused(why)) => Err(failure(TRY_AGAIN, "the pod may not start", &why)),
    }
}

/// Runtimes keep what plugins write to the standard error in their logs.
fn unprotected(result: Value, why: &str) -> Value {
    eprintln!("ringfence: the pod starts unprotected: {why}");
    result
}

fn ask(socket: &Path, request: &Request) -> Result<(), No> {
    let response = exchange(socket, request).map_err(|error| No::Away(format!("{}: {error}", socket.display())))?;
    match response.error {
        None => Ok(()),
        Some(error) => Err(No::Refused(error)),
    }
}

fn exchange(socket: &Path, request: &Request) -> io::Result<Response> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut line = String::new();
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    BufReader::new(stream.take(limit)).read_line(&mut line)?;
    // An agent that stops closes the connection: an empty line.
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const POD: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u-1";

    /// An agent that answers once, if it answers at all.
    fn agent(answer: Option<&'static str>) -> (tempfile::TempDir, thread::JoinHandle<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("cni.sock")).expect("a socket");
        let thread = thread::spawn(move || {
            let Some(answer) = answer else { return String::new() };
            let (mut stream, _) = listener.accept().expect("a question");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a line");
            stream.write_all(answer.as_bytes()).expect("written");
            line
        });
        (folder, thread)
    }

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let base = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "s-1"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", POD),
        ];
        let pairs = base.iter().chain(pairs);
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn decided(configuration: &Value, env: &BTreeMap<String, String>) -> Result<Option<Value>, Failure> {
        let env = |name: &str| env.get(name).cloned().unwrap_or_default();
        decide(configuration.to_string().as_bytes(), &env).1
    }

    fn result() -> Value {
        json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0", "odd": null }], "ips": [] })
    }

    fn configuration(socket: &Path, more: &Value) -> Value {
        let mut configuration = json!({
            "cniVersion": "1.0.0",
            "name": "cluster",
            "type": "ringfence-cni",
            "socket": socket.join("cni.sock"),
            "prevResult": result(),
        });
        for (key, value) in more.as_object().expect("an object") {
            configuration[key] = value.clone();
        }
        configuration
    }

    #[track_caller]
    fn check_failed(found: &Result<Option<Value>, Failure>, code: u32, part: &str) {
        match found {
            Err(failure) => {
                assert_eq!(failure.code, code, "{failure:?}");
                let text = failure.print("").to_string();
                assert!(text.contains(part), "{text}");
            }
            Ok(output) => panic!("{output:?}"),
        }
    }

    #[test]
    fn the_result_of_the_plugins_before_is_passed_on_as_it_is() {
        let (folder, agent) = agent(Some("{}\n"));
        let configuration = configuration(folder.path(), &json!({}));
        assert_eq!(decided(&configuration, &env(&[])), Ok(Some(result())));
        let asked = agent.join().expect("it answers");
        assert_eq!(
            asked,
            "{\"command\":\"add\",\"namespace\":\"shop\",\"name\":\"web\",\"uid\":\"u-1\",\"sandbox\":\"s-1\",\
             \"netns\":\"/run/netns/x\"}\n"
        );
    }

    #[test]
    fn a_refusal_and_an_agent_that_is_away_are_errors_unless_the_configuration_says_otherwise() {
        let refuse = Some("{\"error\":\"the kernel refuses\"}\n");
        for (answer, more, expected) in [
            (refuse, json!({}), Some("the kernel refuses")),
            (
                refuse,
                json!({ "whenAgentIsAway": "allow" }),
                Some("the kernel refuses"),
            ),
            (refuse, json!({ "exemptNamespaces": ["shop"] }), None),
            (Some(""), json!({}), Some("the agent is away")),
            (
                Some("nonsense\n"),
                json!({ "whenAgentIsAway": "refuse" }),
                Some("the agent is away"),
            ),
            (Some(""), json!({ "whenAgentIsAway": "allow" }), None),
            (Some(""), json!({ "exemptNamespaces": ["kube-system", "shop"] }), None),
        ] {
            let (folder, agent) = agent(answer);
            let found = decided(&configuration(folder.path(), &more), &env(&[]));
            match expected {
                Some(part) => check_failed(&found, TRY_AGAIN, part),
                None => assert_eq!(found, Ok(Some(result())), "{more}"),
            }
            agent.join().expect("it answers");
        }
        let nowhere = configuration(Path::new("/nonexistent"), &json!({}));
        check_failed(&decided(&nowhere, &env(&[])), TRY_AGAIN, "No such file");
    }

    #[test]
    fn what_goes_is_told_and_never_refused() {
        let (folder, agent) = agent(Some("{}\n"));
        let del = env(&[("CNI_COMMAND", "DEL")]);
        assert_eq!(decided(&configuration(folder.path(), &json!({})), &del), Ok(None));
        assert_eq!(
            agent.join().expect("it answers"),
            "{\"command\":\"del\",\"sandbox\":\"s-1\"}\n"
        );
        let nowhere = configuration(Path::new("/nonexistent"), &json!({}));
        for command in ["DEL", "CHECK", "GC"] {
            assert_eq!(decided(&nowhere, &env(&[("CNI_COMMAND", command)])), Ok(None));
        }
    }

    #[test]
    fn the_other_commands_are_answered_as_the_specification_has_it() {
        let nowhere = configuration(Path::new("/nonexistent"), &json!({}));
        let version = decided(&nowhere, &env(&[("CNI_COMMAND", "VERSION")])).expect("it is known");
        assert_eq!(version.expect("an answer")["supportedVersions"][3], "1.0.0");
        check_failed(
            &decided(&nowhere, &env(&[("CNI_COMMAND", "STATUS")])),
            NOT_AVAILABLE,
            "No such file",
        );
        let (folder, agent) = agent(Some("{}\n"));
        let there = configuration(folder.path(), &json!({}));
        assert_eq!(decided(&there, &env(&[("CNI_COMMAND", "STATUS")])), Ok(None));
        agent.join().expect("it answers");
        check_failed(
            &decided(&nowhere, &env(&[("CNI_COMMAND", "UPDATE")])),
            INVALID_ENVIRONMENT,
            "UPDATE",
        );
    }

    #[test]
    fn bad_configurations_and_environments_are_named() {
        let env_of = |name: &str| env(&[]).get(name).cloned().unwrap_or_default();
        check_failed(&decide(b"{", &env_of).1, UNDECODABLE, "cannot be read");
        let alone = json!({ "cniVersion": "1.0.0", "name": "x", "type": "ringfence-cni" });
        check_failed(&decided(&alone, &env(&[])), INVALID_CONFIGURATION, "behind others");
        let folder = Path::new("/nonexistent");
        check_failed(
            &decided(
                &configuration(folder, &json!({ "whenAgentIsAway": "perhaps" })),
                &env(&[]),
            ),
            UNDECODABLE,
            "perhaps",
        );
        check_failed(
            &decided(&configuration(folder, &json!({})), &env(&[("CNI_NETNS", "")])),
            INVALID_ENVIRONMENT,
            "CNI_NETNS",
        );
        // A container that is no pod's.
        let found = decided(
            &configuration(folder, &json!({})),
            &env(&[("CNI_ARGS", "IgnoreUnknown=1")]),
        );
        assert_eq!(found, Ok(Some(result())));
    }

    #[test]
    fn a_plugin_is_told_from_a_command() {
        for (arguments, command, expected) in [
            (&["/opt/cni/bin/ringfence-cni"][..], false, true),
            (&["ringfence"], true, true),
            (&["ringfence"], false, false),
            (&["ringfence", "agent"], true, false),
            (&[], false, false),
        ] {
            let found = is_asked(arguments.iter().map(std::ffi::OsString::from), command);
            assert_eq!(found, expected, "{arguments:?} {command}");
        }
    }
}
