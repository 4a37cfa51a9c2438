//! A runtime for tests: the other end of the socket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use prost::Message;
use tempfile::TempDir;

use crate::frame::{Decoder, Frame, Kind, Side};
use crate::messages::{
    ConfigureRequest, ConfigureResponse, EVENTS, LinuxNamespace, LinuxPodSandbox, PodSandbox, RegisterPluginRequest,
    Request, Response, SandboxRequest, Status, SynchronizeRequest, SynchronizeResponse,
};
use crate::{Handle, News, Options, watch};

/// How long something may take that is to happen at all. No test measures it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Runtime {
    folder: TempDir,
    listener: UnixListener,
}

/// A plugin and what it tells.
pub(crate) struct Watched {
    pub(crate) handle: Handle,
    news: Receiver<News>,
}

/// A connection that the plugin has made.
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    frames: Vec<Frame>,
    next: u32,
}

impl Runtime {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("rf-nri-").tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("nri.sock")).expect("a socket");
        Self { folder, listener }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("nri.sock")
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(self.socket(), "ringfence")
    }

    pub(crate) fn watch(&self, patience: Duration) -> Watched {
        let options = Options {
            patience,
            ..self.options()
        };
        let (sender, news) = channel();
        let tell = move |news| drop(sender.send(news));
        Watched {
            handle: watch(options, tell).expect("it starts"),
            news,
        }
    }

    pub(crate) fn accept(&self) -> Connection {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        Connection {
            stream,
            decoder: Decoder::default(),
            frames: Vec::new(),
            next: 1,
        }
    }

    /// As far as the first list, which is given in parts.
    pub(crate) fn connect(&self, parts: &[&[PodSandbox]]) -> Connection {
        let mut connection = self.accept();
        connection.register(None);
        connection.configure(0);
        connection.synchronize(parts);
        connection
    }
}

impl Watched {
    #[track_caller]
    pub(crate) fn next(&self) -> News {
        self.news.recv_timeout(PATIENCE).expect("something is told")
    }
}

impl Connection {
    /// Reads the registration and answers it.
    pub(crate) fn register(&mut self, refusal: Option<&str>) {
        let frame = self.read().expect("a registration");
        assert_eq!((frame.side, frame.kind), (Side::Runtime, Kind::Request));
        let request = Request::decode(&*frame.body).expect("it decodes");
        assert_eq!(
            (&*request.service, &*request.method),
            ("nri.pkg.api.v1alpha1.Runtime", "RegisterPlugin")
        );
        let plugin = RegisterPluginRequest::decode(&*request.payload).expect("it decodes");
        assert_eq!((&*plugin.plugin_name, &*plugin.plugin_idx), ("ringfence", "10"));
        let status = refusal.map(|message| Status {
            code: 2,
            message: message.into(),
        });
        let response = Response {
            status,
            payload: Vec::new(),
        };
        self.write(&Frame {
            side: Side::Runtime,
            stream: frame.stream,
            kind: Kind::Response,
            body: response.encode_to_vec(),
        });
    }

    pub(crate) fn configure(&mut self, request_timeout: i64) {
        let request = ConfigureRequest {
            runtime_name: "containerd".into(),
            runtime_version: "v2.4.2".into(),
            request_timeout,
        };
        let stream = self.ask("Configure", &request);
        let response: ConfigureResponse = self.answered(stream).expect("no error");
        assert_eq!(response.events, EVENTS);
    }

    pub(crate) fn synchronize(&mut self, parts: &[&[PodSandbox]]) {
        for (number, pods) in parts.iter().enumerate() {
            let more = number + 1 < parts.len();
            let pods = pods.to_vec();
            let stream = self.ask("Synchronize", &SynchronizeRequest { pods, more });
            let response: SynchronizeResponse = self.answered(stream).expect("no error");
            assert_eq!(response.more, more, "parts are understood");
        }
    }

    /// Asks about a sandbox; the stream of the question.
    pub(crate) fn ask_about(&mut self, method: &str, pod: &PodSandbox) -> u32 {
        self.ask(method, &SandboxRequest { pod: Some(pod.clone()) })
    }

    pub(crate) fn ask(&mut self, method: &str, message: &impl Message) -> u32 {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Plugin".into(),
            method: method.into(),
            payload: message.encode_to_vec(),
        };
        let stream = self.next;
        self.next += 2;
        self.write(&Frame {
            side: Side::Plugin,
            stream,
            kind: Kind::Request,
            body: request.encode_to_vec(),
        });
        stream
    }

    /// The next answer, which is to this question.
    #[track_caller]
    pub(crate) fn answered<M: Message + Default>(&mut self, stream: u32) -> Result<M, Status> {
        let (found, response) = self.answer();
        assert_eq!(found, stream, "{response:?}");
        match response.status {
            Some(status) => Err(status),
            None => Ok(M::decode(&*response.payload).expect("it decodes")),
        }
    }

    /// The next answer, whichever question it is to.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> (u32, Response) {
        let frame = self.read().expect("an answer");
        assert_eq!((frame.side, frame.kind), (Side::Plugin, Kind::Response));
        (frame.stream, Response::decode(&*frame.body).expect("it decodes"))
    }

    /// The next frame; `None` where the plugin has closed the connection.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        while self.frames.is_empty() {
            let mut bytes = [0; 1000];
            let length = match self.stream.read(&mut bytes) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => panic!("{error}"),
            };
            if length == 0 {
                return None;
            }
            self.decoder
                .feed(&bytes[..length], &mut self.frames)
                .expect("well formed");
        }
        Some(self.frames.remove(0))
    }

    pub(crate) fn write(&mut self, frame: &Frame) {
        self.write_bytes(&frame.encode().expect("not too long"));
    }

    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }
}

/// A sandbox with a network of its own.
pub(crate) fn pod(id: &str) -> PodSandbox {
    PodSandbox {
        id: id.into(),
        name: "web".into(),
        uid: format!("uid-{id}"),
        namespace: "shop".into(),
        linux: Some(LinuxPodSandbox {
            namespaces: vec![LinuxNamespace {
                r#type: "network".into(),
                path: format!("/run/netns/{id}"),
            }],
        }),
        ..PodSandbox::default()
    }
}
