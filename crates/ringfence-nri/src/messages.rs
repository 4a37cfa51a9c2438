//! The messages of ttrpc and of NRI that are needed, written by hand: the fields that are read, with the numbers of
//! ttrpc's `request.proto` and of NRI's `api.proto` (package `nri.pkg.api.v1alpha1`). What is not named here is skipped.

use std::collections::BTreeMap;

use prost::Message;

use crate::{Network, Sandbox};

/// What the plugin wants to be asked: bit N − 1 for event N. Run (1), stop (2) and remove (3) of sandboxes.
pub(crate) const EVENTS: i32 = 0b111;

/// gRPC's numbers.
pub(crate) const INVALID_ARGUMENT: i32 = 3;
pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
pub(crate) const FAILED_PRECONDITION: i32 = 9;
pub(crate) const UNIMPLEMENTED: i32 = 12;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    /// Absent where all is well.
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RegisterPluginRequest {
    #[prost(string, tag = "1")]
    pub(crate) plugin_name: String,
    #[prost(string, tag = "2")]
    pub(crate) plugin_idx: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConfigureRequest {
    #[prost(string, tag = "2")]
    pub(crate) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(crate) runtime_version: String,
    /// Milliseconds; absent in older versions.
    #[prost(int64, tag = "5")]
    pub(crate) request_timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConfigureResponse {
    #[prost(int32, tag = "2")]
    pub(crate) events: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SynchronizeRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pods: Vec<PodSandbox>,
    /// Another part follows.
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SynchronizeResponse {
    /// As in the request, which shows that lists in parts are understood.
    #[prost(bool, tag = "2")]
    pub(crate) more: bool,
}

/// The request of RunPodSandbox, StopPodSandbox and RemovePodSandbox.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) pod: Option<PodSandbox>,
}

/// The request of StateChange, which older runtimes send in place of the three above.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StateChangeEvent {
    #[prost(enumeration = "Event", tag = "1")]
    pub(crate) event: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) pod: Option<PodSandbox>,
}

/// The events of [`EVENTS`]; all others are `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Event {
    Unknown = 0,
    RunPodSandbox = 1,
    StopPodSandbox = 2,
    RemovePodSandbox = 3,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) uid: String,
    #[prost(string, tag = "4")]
    pub(crate) namespace: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) linux: Option<LinuxPodSandbox>,
    #[prost(string, repeated, tag = "10")]
    pub(crate) ips: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxPodSandbox {
    #[prost(message, repeated, tag = "5")]
    pub(crate) namespaces: Vec<LinuxNamespace>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxNamespace {
    #[prost(string, tag = "1")]
    pub(crate) r#type: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

impl From<PodSandbox> for Sandbox {
    fn from(pod: PodSandbox) -> Self {
        let namespaces = pod.linux.map(|linux| linux.namespaces).unwrap_or_default();
        // A sandbox without one of its own shares the node's: so it stands in OCI specifications.
        let network = match namespaces.into_iter().find(|namespace| namespace.r#type == "network") {
            None => Network::Node,
            Some(namespace) if namespace.path.is_empty() => Network::Unsaid,
            Some(namespace) => Network::At(namespace.path),
        };
        Self {
            id: pod.id,
            uid: pod.uid,
            namespace: pod.namespace,
            name: pod.name,
            labels: pod.labels,
            annotations: pod.annotations,
            network,
            addresses: pod.ips,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hand-made bytes as the wire has them: (field, payload).
    fn fields(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (field, payload) in parts {
            out.push(field << 3 | 2);
            out.push(u8::try_from(payload.len()).expect("short"));
            out.extend(*payload);
        }
        out
    }

    #[test]
    fn what_is_sent_has_these_bytes() {
        let register = RegisterPluginRequest {
            plugin_name: "ringfence".into(),
            plugin_idx: "10".into(),
        };
        assert_eq!(register.encode_to_vec(), fields(&[(1, b"ringfence"), (2, b"10")]));
        let request = Request {
            service: "s".into(),
            method: "m".into(),
            payload: vec![1],
        };
        assert_eq!(request.encode_to_vec(), fields(&[(1, b"s"), (2, b"m"), (3, &[1])]));
        assert_eq!(ConfigureResponse { events: EVENTS }.encode_to_vec(), [2 << 3, 7]);
        assert_eq!(SynchronizeResponse { more: true }.encode_to_vec(), [2 << 3, 1]);
        let refusal = Response {
            status: Some(Status {
                code: UNIMPLEMENTED,
                message: "no".into(),
            }),
            payload: Vec::new(),
        };
        assert_eq!(refusal.encode_to_vec(), fields(&[(1, &[8, 12, 0x12, 2, b'n', b'o'])]));
        assert_eq!(Response::default().encode_to_vec(), [0; 0], "all is well");
    }

    #[track_caller]
    fn check_network(namespaces: &[(&str, &str)], expected: &Network) {
        let linux: Vec<u8> = namespaces
            .iter()
            .flat_map(|(kind, path)| fields(&[(5, &fields(&[(1, kind.as_bytes()), (2, path.as_bytes())]))]))
            .collect();
        let pod = PodSandbox::decode(&*fields(&[(8, &linux)])).expect("it decodes");
        assert_eq!(&Sandbox::from(pod).network, expected);
    }

    #[test]
    fn a_sandboxs_network_is_told_from_the_nodes() {
        let there = Network::At("/run/netns/x".into());
        check_network(&[("ipc", "/i"), ("network", "/run/netns/x")], &there);
        check_network(&[("ipc", "/i"), ("network", "")], &Network::Unsaid);
        check_network(&[("ipc", "/i")], &Network::Node);
        assert_eq!(Sandbox::from(PodSandbox::default()).network, Network::Node);
    }

    #[test]
    fn a_sandbox_is_read_and_what_is_not_known_is_skipped() {
        let label = fields(&[(1, b"app"), (2, b"web")]);
        let annotation = fields(&[(1, b"k"), (2, b"")]);
        let mut pod = fields(&[
            (1, b"id"),
            (2, b"web-0"),
            (3, b"u-1"),
            (4, b"shop"),
            (5, &label),
            (6, &annotation),
            (7, b"runc"),
        ]);
        pod.extend([9 << 3, 42]);
        pod.extend(fields(&[(10, b"10.0.0.9"), (10, b"fd00::9"), (15, b"later")]));
        let request = SandboxRequest::decode(&*fields(&[(1, &pod), (2, b"more")])).expect("it decodes");
        let expected = Sandbox {
            id: "id".into(),
            uid: "u-1".into(),
            namespace: "shop".into(),
            name: "web-0".into(),
            labels: BTreeMap::from([("app".into(), "web".into())]),
            annotations: BTreeMap::from([("k".into(), String::new())]),
            network: Network::Node,
            addresses: vec!["10.0.0.9".into(), "fd00::9".into()],
        };
        assert_eq!(request.pod.map(Sandbox::from), Some(expected));
    }
}
