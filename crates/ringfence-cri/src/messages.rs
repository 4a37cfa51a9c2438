//! The messages of the CRI that are needed, written by hand: the fields that are read, with the numbers of
//! `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`, which the API never changes. What is not named here is skipped.
//!
//! Generated code would want `protoc` on every machine that builds Ringfence, and bring some two hundred messages of
//! which these are used.

use std::collections::HashMap;

use prost::Message;

/// `SANDBOX_READY`, the zero of `PodSandboxState`.
const READY: i32 = 0;

/// `NODE` of `NamespaceMode`.
const NODE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionRequest {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub(crate) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(crate) runtime_version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) filter: Option<PodSandboxFilter>,
}

impl ListPodSandboxRequest {
    /// Asks for those that are ready. The message with the state has to be there: without it all are meant.
    pub(crate) fn ready() -> Self {
        let state = Some(PodSandboxStateValue { state: READY });
        Self {
            filter: Some(PodSandboxFilter { state }),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxFilter {
    #[prost(message, optional, tag = "2")]
    pub(crate) state: Option<PodSandboxStateValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxStateValue {
    #[prost(int32, tag = "1")]
    pub(crate) state: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) metadata: Option<PodSandboxMetadata>,
    #[prost(int32, tag = "3")]
    pub(crate) state: i32,
    #[prost(int64, tag = "4")]
    pub(crate) created_at: i64,
    #[prost(map = "string, string", tag = "6")]
    pub(crate) annotations: HashMap<String, String>,
}

/// The annotation of a sandbox that says where the kubelet has its pod from: `api`, or a file or an address of the node. The
/// kubelet writes it itself, over whatever the pod says (kubernetes.io/config.source).
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

/// Whether a sandbox with these annotations is of a static pod, which the API knows under another UID.
pub fn is_static<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> bool {
    annotation(CONFIG_SOURCE).is_some_and(|source| source != "api")
}

impl PodSandbox {
    /// Whether its pod is a static one, which the API knows under another UID.
    pub(crate) fn is_static(&self) -> bool {
        is_static(|name| self.annotations.get(name).map(String::as_str))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state == READY
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(crate) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub(crate) pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    pub(crate) verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<PodSandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxStatus {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) linux: Option<LinuxPodSandboxStatus>,
}

impl PodSandboxStatus {
    /// Whether it shares the node's network.
    pub(crate) fn host_network(&self) -> bool {
        let options = |linux: &LinuxPodSandboxStatus| linux.namespaces.clone()?.options;
        self.linux
            .as_ref()
            .and_then(options)
            .is_some_and(|options| options.network == NODE)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxPodSandboxStatus {
    #[prost(message, optional, tag = "1")]
    pub(crate) namespaces: Option<Namespace>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Namespace {
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamespaceOption {
    #[prost(int32, tag = "1")]
    pub(crate) network: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetEventsRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerEventResponse {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) pod_sandbox_status: Option<PodSandboxStatus>,
}

impl ContainerEventResponse {
    /// Whether it is about a sandbox itself and not about a container in one. Where that cannot be told it may be.
    pub(crate) fn is_about_a_sandbox(&self) -> bool {
        self.pod_sandbox_status
            .as_ref()
            .is_none_or(|status| status.id == self.container_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_names_the_state_although_it_is_zero() {
        // filter = { state = {} }: fields 1 and 2, length-delimited, the second one empty.
        assert_eq!(ListPodSandboxRequest::ready().encode_to_vec(), [0x0a, 2, 0x12, 0]);
    }

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
    fn a_sandbox_is_read_and_what_is_not_known_is_skipped() {
        let mut metadata = fields(&[(1, b"web"), (2, b"u-1"), (3, b"shop")]);
        metadata.extend([4 << 3, 7]);
        let mut sandbox = fields(&[(1, b"abc"), (2, &metadata)]);
        sandbox.extend([3 << 3, 1, 4 << 3, 42]);
        sandbox.extend(fields(&[
            (5, b"\x0a\x01k\x12\x01v"),
            (6, &fields(&[(1, CONFIG_SOURCE.as_bytes()), (2, b"file")])),
            (7, b"runc"),
            (15, b"later"),
        ]));
        let list = ListPodSandboxResponse::decode(&*fields(&[(1, &sandbox), (9, b"x")])).expect("it decodes");
        let expected = PodSandbox {
            id: "abc".into(),
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: "u-1".into(),
                namespace: "shop".into(),
                attempt: 7,
            }),
            state: 1,
            created_at: 42,
            annotations: [(CONFIG_SOURCE.to_owned(), "file".to_owned())].into(),
        };
        assert_eq!(list.items, [expected]);
        assert!(!list.items[0].is_ready() && list.items[0].is_static());
    }

    #[test]
    fn a_status_tells_the_nodes_network_from_a_pods_own() {
        for (mode, expected) in [(0, false), (2, true), (1, false)] {
            let options = [1 << 3, mode];
            let linux = fields(&[(1, &fields(&[(2, &options)]))]);
            let bytes = fields(&[
                (1, &fields(&[(1, b"abc"), (6, &linux)])),
                (2, &fields(&[(1, b"info"), (2, b"{}")])),
            ]);
            let answer = PodSandboxStatusResponse::decode(&*bytes).expect("it decodes");
            assert_eq!(answer.info.get("info").map(String::as_str), Some("{}"));
            assert_eq!(answer.status.expect("there").host_network(), expected, "mode {mode}");
        }
        assert!(!PodSandboxStatus::default().host_network());
    }

    #[test]
    fn events_of_containers_are_told_from_those_of_sandboxes() {
        for (container, sandbox, expected) in [("s", Some("s"), true), ("c", Some("s"), false), ("c", None, true)] {
            let mut bytes = fields(&[(1, container.as_bytes())]);
            if let Some(sandbox) = sandbox {
                bytes.extend(fields(&[(4, &fields(&[(1, sandbox.as_bytes())]))]));
            }
            let event = ContainerEventResponse::decode(&*bytes).expect("it decodes");
            assert_eq!(event.is_about_a_sandbox(), expected, "{container} {sandbox:?}");
        }
    }
}
