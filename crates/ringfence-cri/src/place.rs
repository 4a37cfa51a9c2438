//! Where a sandbox's network namespace is, out of what the runtime says about it.
//!
//! The CRI has no field for it. Both runtimes put a JSON text under the key `info` of a verbose status, and in it the
//! OCI specification that they gave to runc: containerd (1.6 to 2.4) and CRI-O beside the process of the sandbox, CRI-O
//! without one where a pod needs no pause container.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::messages::{PodSandboxStatus, PodSandboxStatusResponse};

/// Where a sandbox's network namespace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has none of its own.
    Node,
    /// There.
    At(PathBuf),
    /// There, as the runtime says; but nothing is to be seen there.
    Unseen(PathBuf),
}

/// What is to be seen of the node. A trait, because tests have no node.
pub(crate) trait View {
    /// Whether something is at a path.
    fn exists(&self, path: &Path) -> bool;
    /// The control groups of a process, as /proc tells them.
    fn cgroups(&self, pid: u32) -> Option<String>;
}

/// The node as this process sees it.
#[derive(Debug)]
pub(crate) struct Here;

impl View for Here {
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn cgroups(&self, pid: u32) -> Option<String> {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    pid: u32,
    runtime_spec: Option<Spec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Namespace {
    r#type: String,
    path: String,
}

/// Reads a verbose status. An error says in words why the sandbox's namespace cannot be known.
pub(crate) fn place(sandbox: &str, answer: &PodSandboxStatusResponse, view: &impl View) -> Result<Place, String> {
    if answer.status.as_ref().is_some_and(PodSandboxStatus::host_network) {
        return Ok(Place::Node);
    }
    let text = answer
        .info
        .get("info")
        .ok_or("the container runtime gives no details of the sandbox")?;
    let info: Info = serde_json::from_str(text)
        .map_err(|error| format!("the container runtime's details of the sandbox cannot be read: {error}"))?;
    let told = info
        .runtime_spec
        .and_then(|spec| spec.linux)
        .map(|linux| linux.namespaces)
        .unwrap_or_default()
        .into_iter()
        .find(|namespace| namespace.r#type == "network")
        .map(|namespace| namespace.path)
        .filter(|path| !path.is_empty())
        .map(|path| check(&path))
        .transpose()?;
    if let Some(seen) = told.as_deref().and_then(|path| seen(path, view)) {
        return Ok(Place::At(seen));
    }
    // In a process namespace of its own, this process would see quite another one under that number; the control
    // group carries the sandbox's identifier with every runtime.
    let same = |pid: u32| view.cgroups(pid).is_some_and(|groups| groups.contains(sandbox));
    if info.pid != 0 && !sandbox.is_empty() && same(info.pid) {
        return Ok(Place::At(format!("/proc/{}/ns/net", info.pid).into()));
    }
    told.map(Place::Unseen)
        .ok_or_else(|| "the container runtime does not say where the sandbox's network namespace is".to_owned())
}

/// Where this process sees what the runtime has at that path, if it does.
fn seen(path: &Path, view: &impl View) -> Option<PathBuf> {
    if view.exists(path) {
        return Some(path.to_owned());
    }
    // One folder on every system that has both (FHS 3.0), but an image need not have the link.
    let path = Path::new("/run").join(path.strip_prefix("/var/run").ok()?);
    view.exists(&path).then_some(path)
}

/// The same for a path that a runtime has told in another way than over the CRI. One that is not to be seen is given as
/// it is; an error says in words why it cannot be a place at all.
pub fn visible(path: &str) -> Result<PathBuf, String> {
    let path = check(path)?;
    Ok(seen(&path, &Here).unwrap_or(path))
}

/// What is at the path is judged by whoever opens it; a path itself must name one place.
fn check(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let plain = |component: Component<'_>| matches!(component, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.components().all(plain) && !text.contains('\0') {
        Ok(path.to_owned())
    } else {
        Err(format!(
            "the container runtime names {text:?} as the sandbox's network namespace, which is no absolute path without \"..\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{LinuxPodSandboxStatus, Namespace as Namespaces, NamespaceOption};

    const SANDBOX: &str = "0123456789abcdef";

    struct Fake {
        paths: &'static [&'static str],
        cgroups: &'static str,
    }

    impl View for Fake {
        fn exists(&self, path: &Path) -> bool {
            self.paths.iter().any(|known| path == Path::new(known))
        }

        fn cgroups(&self, pid: u32) -> Option<String> {
            (pid == 77).then(|| self.cgroups.to_owned())
        }
    }

    const NETNS: Fake = Fake {
        paths: &["/run/netns/cni-1"],
        cgroups: "0::/system.slice/other.service\n",
    };

    const PROCESS: Fake = Fake {
        paths: &[],
        cgroups: "4:memory:/kubepods/podu-1/0123456789abcdef\n",
    };

    #[track_caller]
    fn check(view: &Fake, info: Option<&str>, expected: Result<&Place, &str>) {
        let answer = PodSandboxStatusResponse {
            status: Some(PodSandboxStatus::default()),
            info: info
                .map(|text| ("info".to_owned(), text.to_owned()))
                .into_iter()
                .collect(),
        };
        match (place(SANDBOX, &answer, view), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(&found, expected),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, expected) => panic!("{info:?}: {found:?} and not {expected:?}"),
        }
    }

    fn spec(pid: &str, path: &str) -> String {
        format!(
            r#"{{{pid}"image":"p","runtimeSpec":{{"ociVersion":"1.0","linux":{{"namespaces":[{{"type":"pid"}},{{"type":"network","path":"{path}"}},{{"type":"ipc","path":"/x"}}]}}}},"config":{{}}}}"#
        )
    }

    #[test]
    fn both_runtimes_details_are_read() {
        let there = Place::At("/run/netns/cni-1".into());
        // containerd says /var/run, CRI-O without a pause container names no process.
        check(&NETNS, Some(&spec(r#""pid":77,"#, "/var/run/netns/cni-1")), Ok(&there));
        check(&NETNS, Some(&spec("", "/run/netns/cni-1")), Ok(&there));
    }

    #[test]
    fn the_process_is_the_way_where_the_path_is_not_to_be_seen_and_it_is_the_sandboxs() {
        let process = Place::At("/proc/77/ns/net".into());
        check(&PROCESS, Some(&spec(r#""pid":77,"#, "")), Ok(&process));
        check(&PROCESS, Some(r#"{"pid":77}"#), Ok(&process));
        check(
            &PROCESS,
            Some(&spec(r#""pid":77,"#, "/var/run/netns/gone")),
            Ok(&process),
        );
        let unseen = Place::Unseen("/var/run/netns/gone".into());
        check(&NETNS, Some(&spec(r#""pid":77,"#, "/var/run/netns/gone")), Ok(&unseen));
        check(&NETNS, Some(r#"{"pid":77}"#), Err("does not say where"));
        check(&PROCESS, Some(r#"{"pid":78}"#), Err("does not say where"));
    }

    #[test]
    fn nonsense_is_refused_with_what_it_is() {
        check(&NETNS, None, Err("no details"));
        check(&NETNS, Some("{}"), Err("does not say where"));
        check(&NETNS, Some("nonsense"), Err("cannot be read"));
        check(&NETNS, Some(r#"{"pid":-1}"#), Err("cannot be read"));
        check(&NETNS, Some(&spec("", "run/netns/cni-1")), Err("\"run/netns/cni-1\""));
        check(
            &NETNS,
            Some(&spec("", "/run/netns/../netns/cni-1")),
            Err("no absolute path"),
        );
    }

    #[test]
    fn a_sandbox_on_the_nodes_network_has_no_namespace_of_its_own() {
        let options = Some(NamespaceOption { network: 2 });
        let answer = PodSandboxStatusResponse {
            status: Some(PodSandboxStatus {
                id: SANDBOX.into(),
                linux: Some(LinuxPodSandboxStatus {
                    namespaces: Some(Namespaces { options }),
                }),
            }),
            ..PodSandboxStatusResponse::default()
        };
        assert_eq!(place(SANDBOX, &answer, &PROCESS), Ok(Place::Node));
    }
}
