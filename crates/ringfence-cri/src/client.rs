//! A connection to the runtime: the four calls that are needed.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};
use tonic_prost::ProstCodec;

use crate::Error;
use crate::messages::{
    ContainerEventResponse, GetEventsRequest, ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox,
    PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest, VersionResponse,
};

/// A runtime that takes longer is as good as away. It answers in milliseconds, in a second under great load.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest answer, as the kubelet has it: a list of some thousand sandboxes with their annotations.
const LARGEST: usize = 16 << 20;

/// A method of the CRI.
macro_rules! method {
    ($name:literal) => {
        Method {
            name: $name,
            path: concat!("/runtime.v1.RuntimeService/", $name),
        }
    };
}

#[derive(Clone, Copy)]
struct Method {
    name: &'static str,
    path: &'static str,
}

/// What a runtime says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Version {
    /// Whether each of several clients is told of every event.
    ///
    /// containerd 1.7 hands each event to one reader only, so listening would take events from the kubelet, and CRI-O did
    /// so until 1.28; containerd has a queue for each reader since 2.0. CRI-O's are off by default (`enable_pod_events`),
    /// and the stream ends at once then. Where it cannot be said for certain, looking has to do.
    pub(crate) fn broadcasts_events(&self) -> bool {
        let major = self.version.trim_start_matches('v').split('.').next();
        self.name == "containerd"
            && major
                .and_then(|text| text.parse().ok())
                .is_some_and(|major: u32| major >= 2)
    }
}

/// An open connection. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| {
            // The innermost reason is the operating system's: "No such file or directory".
            let mut inner = error;
            while let Some(source) = inner.source() {
                inner = source;
            }
            Error::Connect {
                socket: socket.to_owned(),
                reason: inner.to_string(),
            }
        };
        let text = socket.to_str().ok_or_else(|| Error::Socket(socket.to_owned()))?;
        let endpoint = Endpoint::from_shared(format!("unix://{text}")).map_err(|error| failed(&error))?;
        let connected = tokio::time::timeout(PATIENCE, endpoint.connect()).await;
        let channel = connected
            .map_err(|_| Error::Timeout {
                method: "a connection",
                after: PATIENCE,
            })?
            .map_err(|error| failed(&error))?;
        Ok(Self { channel })
    }

    pub(crate) async fn version(&self) -> Result<Version, Error> {
        let request = VersionRequest { version: "v1".into() };
        let answer: VersionResponse = self.call(method!("Version"), request).await?;
        Ok(Version {
            name: answer.runtime_name,
            version: answer.runtime_version,
        })
    }

    /// Every sandbox that is ready.
    pub(crate) async fn sandboxes(&self) -> Result<Vec<PodSandbox>, Error> {
        let answer: ListPodSandboxResponse = self
            .call(method!("ListPodSandbox"), ListPodSandboxRequest::ready())
            .await?;
        Ok(answer.items)
    }

    /// Everything the runtime knows of a sandbox; `None` when there is none of that name any more.
    pub(crate) async fn status(&self, sandbox: &str) -> Result<Option<PodSandboxStatusResponse>, Error> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.to_owned(),
            verbose: true,
        };
        match self.call(method!("PodSandboxStatus"), request).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::Call { status, .. }) if status.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A stream of what happens to sandboxes and containers. Returns only with the first event: until then, the
    /// runtime sends nothing at all, not even the head of an answer.
    pub(crate) async fn events(&self) -> Result<Streaming<ContainerEventResponse>, Error> {
        let method = method!("GetContainerEvents");
        let mut grpc = self.ready(method).await?;
        let codec: ProstCodec<GetEventsRequest, ContainerEventResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static(method.path);
        grpc.server_streaming(Request::new(GetEventsRequest {}), path, codec)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| called(method, status))
    }

    async fn call<Q, A>(&self, method: Method, request: Q) -> Result<A, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer = async {
            let mut grpc = self.ready(method).await?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            grpc.unary(Request::new(request), PathAndQuery::from_static(method.path), codec)
                .await
                .map(tonic::Response::into_inner)
                .map_err(|status| called(method, status))
        };
        tokio::time::timeout(PATIENCE, answer)
            .await
            .map_err(|_| Error::Timeout {
                method: method.name,
                after: PATIENCE,
            })?
    }

    async fn ready(&self, method: Method) -> Result<Grpc<Channel>, Error> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        grpc.ready()
            .await
            .map_err(|error| called(method, tonic::Status::from_error(error.into())))?;
        Ok(grpc)
    }
}

fn called(method: Method, status: tonic::Status) -> Error {
    Error::Call {
        method: method.name,
        status: Box::new(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, version: &str, expected: bool) {
        let version = Version {
            name: name.into(),
            version: version.into(),
        };
        assert_eq!(version.broadcasts_events(), expected, "{version:?}");
    }

    #[test]
    fn events_are_asked_for_only_where_nobody_else_misses_them() {
        check("containerd", "1.6.20~ds1", false);
        check("containerd", "1.7.27", false);
        check("containerd", "v1.7.27", false);
        check("containerd", "2.4.2", true);
        check("containerd", "v2.0.0-rc.1", true);
        check("containerd", "", false);
        check("cri-o", "1.36.0", false);
    }
}
