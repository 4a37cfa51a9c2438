//! The container runtime's Node Resource Interface as the loop sees it: sandboxes become [`Sandbox`]es with a pod that
//! Ringfence's only decoder has read, on the thread of the connection, so that the loop has little to do.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ringfence_cri::is_static;
use ringfence_kube::{Kind, decode_kind};
use ringfence_model::{NamespacedName, Object, Pod, PodUid};
use ringfence_netns::Netns;
use ringfence_nri::{Error, Handle, Network, News, Options};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::timestamp;
use crate::event::Event;
use crate::start::{Answer, Hook, Sandbox, Start, TOLERATION};

/// The plugin's name, by which the runtime's configuration can require it.
pub const NAME: &str = "ringfence";

/// Labels that the kubelet adds to a sandbox.
const KUBELET_LABELS: [&str; 3] = [
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.namespace",
    "io.kubernetes.pod.uid",
];

/// Connects to the runtime, and tells the loop what it says.
pub fn start(socket: PathBuf, node: Arc<str>, events: UnboundedSender<Event>) -> Result<Handle, Error> {
    let listener = socket.file_name().unwrap_or_default().to_owned();
    ringfence_nri::watch(Options::new(socket, NAME), move |news| {
        let is_node = |path: &Path| is_the_nodes(path, &listener);
        if let Some(hook) = hook(news, &node, SystemTime::now(), &is_node) {
            // Where the loop has ended, the question goes with the event, and is answered with an error.
            drop(events.send(Event::Hook(hook)));
        }
    })
}

fn hook(news: News, node: &str, now: SystemTime, is_node: &dyn Fn(&Path) -> bool) -> Option<Hook> {
    Some(match news {
        News::Listed(sandboxes) => {
            let read = |raw| {
                let shared = shares_the_nodes(&raw, is_node);
                let mut sandbox = sandbox(raw, node, now);
                // Where it is stays said: its processes run, and one of them may listen under the runtime's name. Whether
                // rules belong there is for the pod's object to say.
                if shared {
                    sandbox.pod = None;
                }
                sandbox
            };
            Hook::Listed(sandboxes.into_iter().map(read).filter(is_alive).collect())
        }
        News::Run {
            sandbox: raw,
            reply,
            received,
            until,
        } => {
            // Sandboxes without a pod's UID were made by hand.
            if raw.uid.is_empty() {
                reply.send(Ok(()));
                return None;
            }
            let mut raw = raw;
            if shares_the_nodes(&raw, is_node) {
                raw.network = Network::Node;
            }
            let sandbox = sandbox(raw, node, now);
            Hook::Start(Box::new(Start {
                sandbox,
                answer: Answer::new(|answer| reply.send(answer)),
                received,
                until,
            }))
        }
        News::Gone(raw) => Hook::Gone { sandbox: raw.id },
        News::Lost => Hook::Lost,
    })
}

/// Whether a sandbox that has a path for its network is on the node's network in truth. CRI-O mounts the node's namespace
/// for such a sandbox and names it like any other, so that only what is there can tell. A sandbox with addresses is not
/// looked at: for one on the node's network no network plugin is asked.
fn shares_the_nodes(raw: &ringfence_nri::Sandbox, is_node: &dyn Fn(&Path) -> bool) -> bool {
    match &raw.network {
        Network::At(path) if raw.addresses.is_empty() => ringfence_cri::visible(path).is_ok_and(|path| is_node(&path)),
        Network::At(_) | Network::Node | Network::Unsaid => false,
    }
}

/// The runtime is on the node's network, and so is the socket that it asks over.
fn is_the_nodes(path: &Path, listener: &OsStr) -> bool {
    // A namespace that cannot be looked at is nobody's, and will get no rules either.
    Netns::open(path)
        .and_then(|netns| netns.has_listener(listener))
        .unwrap_or_default()
}

/// Runtimes list sandboxes that have ended as well; their namespaces are gone.
fn is_alive(sandbox: &Sandbox) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    match &sandbox.place {
        Ok(Some(path)) => device(path).is_some() && device(path) == device(Path::new("/proc/self/ns/net")),
        Ok(None) | Err(_) => false,
    }
}

/// Reads what the runtime says of a sandbox. `node` is where it is.
pub fn sandbox(raw: ringfence_nri::Sandbox, node: &str, now: SystemTime) -> Sandbox {
    let place = match &raw.network {
        Network::Node => Ok(None),
        Network::At(path) => ringfence_cri::visible(path).map(Some),
        Network::Unsaid => Err("the container runtime does not say where its network namespace is".to_owned()),
    };
    // A UID that nobody can read is no reason to let a pod start: whose rules it needs is not known.
    let uid = (!raw.uid.is_empty()).then(|| PodUid::new(&raw.uid)).transpose();
    let place = match (place, &uid) {
        (Ok(Some(_)), Err(error)) => Err(format!("the container runtime gives its pod no usable UID: {error}")),
        (place, _) => place,
    };
    let annotation = |key: &str| raw.annotations.get(key).map(String::as_str);
    let pod = matches!(place, Ok(Some(_))).then(|| pod(&raw, node, now)).flatten();
    // It would be waited for in vain.
    let place = match place {
        Ok(Some(_)) if pod.is_none() => Err("the container runtime describes no pod with a name".to_owned()),
        place => place,
    };
    Sandbox {
        uid: uid.ok().flatten(),
        from_file: is_static(annotation),
        tolerates: annotation(TOLERATION) == Some("true"),
        pod,
        name: NamespacedName::new(&*raw.namespace, &*raw.name),
        place,
        id: raw.id,
    }
}

/// The pod that a sandbox was made for. Its labels and annotations are those that the kubelet had; what the network
/// plugins found out is not among them, so that its interfaces are those that it has requested.
fn pod(raw: &ringfence_nri::Sandbox, node: &str, now: SystemTime) -> Option<Pod> {
    let texts = |map: &BTreeMap<String, String>| -> Value {
        let own = map.iter().filter(|(key, _)| !KUBELET_LABELS.contains(&&***key));
        own.map(|(key, value)| (key.clone(), Value::from(value.clone())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let addresses: Vec<Value> = raw.addresses.iter().map(|address| json!({ "ip": address })).collect();
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": raw.name,
            "namespace": raw.namespace,
            "uid": raw.uid,
            "labels": texts(&raw.labels),
            "annotations": texts(&raw.annotations),
        },
        "spec": { "nodeName": node },
        // Newer than every other pod that has had its name or its addresses (statement 134).
        "status": { "podIPs": addresses, "startTime": timestamp(now) },
    });
    match decode_kind(Kind::Pod, &manifest, "the container runtime").object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use ringfence_cri::CONFIG_SOURCE;

    use super::*;

    fn raw() -> ringfence_nri::Sandbox {
        let texts = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        ringfence_nri::Sandbox {
            id: "s-1".into(),
            uid: "u-1".into(),
            namespace: "shop".into(),
            name: "web".into(),
            labels: texts(&[("app", "web"), ("io.kubernetes.pod.name", "web")]),
            annotations: texts(&[
                ("k8s.v1.cni.cncf.io/networks", "net-a,other/net-b@storage"),
                (CONFIG_SOURCE, "api"),
            ]),
            network: Network::At("/proc/self/ns/net".into()),
            addresses: vec!["10.0.0.9".into(), "fd00::9".into()],
        }
    }

    fn made(raw: ringfence_nri::Sandbox) -> Sandbox {
        sandbox(raw, "n1", UNIX_EPOCH + Duration::from_secs(1000))
    }

    #[test]
    fn a_pod_is_made_of_its_sandbox() {
        let pod = made(raw()).pod.expect("a pod");
        assert_eq!(pod.uid.as_str(), "u-1");
        assert_eq!(
            (pod.name.to_string().as_str(), pod.node.as_deref()),
            ("shop/web", Some("n1"))
        );
        let labels: Vec<String> = pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["app=web"]);
        assert_eq!(pod.started, 1000);
        let attachments: Vec<String> = pod
            .attachments
            .iter()
            .map(|it| {
                let interface = it.interface.as_ref().map_or("", |name| name.as_str());
                let network = it.network().map(ToString::to_string).unwrap_or_default();
                format!("{interface} {network} {:?}", it.addresses)
            })
            .collect();
        assert_eq!(
            attachments,
            [
                "eth0 default {10.0.0.9, fd00::9}",
                "net1 shop/net-a {}",
                "storage other/net-b {}",
            ]
        );
    }

    #[test]
    fn what_a_sandbox_is_follows_from_what_is_said_of_it() {
        let plain = made(raw());
        assert!(!plain.from_file && !plain.tolerates);
        assert_eq!(plain.place, Ok(Some("/proc/self/ns/net".into())));
        assert!(is_alive(&plain));

        let mut other = raw();
        other.annotations.insert(CONFIG_SOURCE.into(), "file".into());
        other.annotations.insert(TOLERATION.into(), "true".into());
        other.network = Network::At("/nonexistent/netns".into());
        let other = made(other);
        assert!(other.from_file && other.tolerates && !is_alive(&other));

        for (network, expected) in [
            (Network::Node, Ok(None)),
            (Network::Unsaid, Err("does not say where")),
            (Network::At("netns/x".into()), Err("no absolute path")),
            (Network::At("/run/../x".into()), Err("no absolute path")),
        ] {
            let sandbox = made(ringfence_nri::Sandbox { network, ..raw() });
            assert_eq!(sandbox.pod, None);
            match (sandbox.place, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
                (found, expected) => panic!("{found:?} and not {expected:?}"),
            }
        }
    }

    /// CRI-O's shape of a sandbox on the node's network: a namespace with a path like any other, and no addresses.
    #[test]
    fn the_nodes_network_under_another_name_is_still_the_nodes() {
        let bare = || ringfence_nri::Sandbox {
            addresses: Vec::new(),
            ..raw()
        };
        let heard = |news: News, node: bool| hook(news, "n1", UNIX_EPOCH, &|_: &Path| node).expect("something");
        let listed = |raw, node| match heard(News::Listed(vec![raw]), node) {
            Hook::Listed(mut sandboxes) => sandboxes.pop().expect("it is alive"),
            other => panic!("{other:?}"),
        };
        assert_eq!(listed(bare(), true).pod, None);
        assert!(listed(bare(), true).place.is_ok_and(|place| place.is_some()));
        assert!(listed(bare(), false).pod.is_some());
        assert!(listed(raw(), true).pod.is_some(), "it has addresses of its own");

        let check = |raw: ringfence_nri::Sandbox, node: bool, expected: bool| {
            assert_eq!(shares_the_nodes(&raw, &|_: &Path| node), expected, "{raw:?}");
        };
        check(bare(), true, true);
        check(bare(), false, false);
        check(raw(), true, false);
        for network in [Network::Node, Network::Unsaid] {
            check(ringfence_nri::Sandbox { network, ..bare() }, true, false);
        }
    }

    #[test]
    fn a_uid_that_is_none_is_no_way_around_the_rules() {
        let mut odd = raw();
        odd.uid = "u 1".into();
        let on_the_node = made(ringfence_nri::Sandbox {
            network: Network::Node,
            ..odd.clone()
        });
        assert_eq!((on_the_node.uid, on_the_node.place), (None, Ok(None)));
        let odd = made(odd);
        assert_eq!(odd.uid, None);
        assert!(odd.place.is_err_and(|reason| reason.contains("u 1")));
    }

    #[test]
    fn a_sandbox_that_cannot_be_a_pod_is_none() {
        let nameless = made(ringfence_nri::Sandbox {
            name: String::new(),
            ..raw()
        });
        assert_eq!(nameless.pod, None);
        assert!(nameless.place.is_err_and(|reason| reason.contains("no pod")));
        let by_hand = made(ringfence_nri::Sandbox {
            uid: String::new(),
            ..raw()
        });
        assert_eq!(by_hand.uid, None);
    }
}
