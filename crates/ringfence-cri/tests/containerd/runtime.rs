//! A container runtime of the test's own, containerd or CRI-O, and the calls of the CRI that make and remove sandboxes and
//! containers. The tests of NRI (`ringfence/tests/nri`) use it too.
//!
//! `RINGFENCE_CRIO` names the `crio` that is to be used; without it `RINGFENCE_CONTAINERD` does, or it is the system's
//! containerd.

#![allow(dead_code, reason = "each test program uses its own part of this")]

// As paths: this file is included from another folder too, where modules without one would be looked for elsewhere.
#[path = "install.rs"]
mod install;
#[path = "messages.rs"]
mod messages;

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use install::Program;
use messages::{
    ContainerConfig, ContainerMetadata, ContainerSecurityContext, CreateContainerRequest, ImageSpec,
    LinuxContainerConfig, LinuxPodSandboxConfig, Metadata, NamespaceOption, Nothing, PodSandboxConfig, PodSandboxId,
    RunPodSandboxRequest, SecurityContext,
};

const PATIENCE: Duration = Duration::from_secs(60);

const IMAGE: &str = "localhost/ringfence-pause:test";

/// Waits to be killed. With an address it sends there as fast as it can: its first act is a datagram.
const PAUSE: &str = r#"fn main() {
    let Some(to) = std::env::args().nth(1) else { loop { std::thread::park(); } };
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    loop {
        // Where it may not, the kernel says so.
        drop(socket.send_to(b"x", &*to));
    }
}
"#;

/// A docker-archive with one static program, made without a registry. A process number 1 does not heed SIGTERM.
const MAKE_IMAGE: &str = r#"
set -e
"${RUSTC:-rustc}" -O -C target-feature=+crt-static -C strip=symbols -o pause pause.rs
tar cf layer.tar pause
layer=$(sha256sum layer.tar | cut -d' ' -f1)
case $(uname -m) in aarch64) arch=arm64;; *) arch=amd64;; esac
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"],"StopSignal":"SIGKILL"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"test"}]}' \
    "$arch" "$layer" > config
config=$(sha256sum config | cut -d' ' -f1).json
mv config "$config"
printf '[{"Config":"%s","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$IMAGE" > manifest.json
tar cf image.tar "$config" layer.tar manifest.json
"#;

/// A network plugin that makes nothing.
const PLUGIN: &str = r#"#!/bin/sh
cat > /dev/null
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"0.4.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"version":"4","interface":0,"address":"10.9.0.2/24"}]}' ;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
esac
"#;

/// What a test wants of its runtime.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The network plugin's program.
    pub plugin: String,
    /// The socket is `nri.sock`.
    pub nri: Nri,
    /// The network namespace that is to be the node's, by its path; the test's own where there is none.
    pub node: Option<PathBuf>,
}

/// Whether plugins are asked.
#[derive(Debug, Clone)]
pub enum Nri {
    Off,
    On,
    /// Containers are not made without the plugin, unless their pod has the annotation.
    Requires {
        plugin: String,
        annotation: String,
    },
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            plugin: PLUGIN.to_owned(),
            nri: Nri::Off,
            node: None,
        }
    }
}

/// A pod as the kubelet describes it to the runtime.
#[derive(Debug, Clone, Default)]
pub struct PodRequest {
    pub name: String,
    pub uid: String,
    pub attempt: u32,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub network: Network,
}

/// Which network a sandbox is on.
#[derive(Debug, Clone, Copy, Default)]
pub enum Network {
    #[default]
    Pod,
    Node,
}

pub struct ContainerRuntime {
    folder: TempDir,
    wishes: Wishes,
    program: Program,
    child: Option<Child>,
    cgroup: String,
    tokio: Runtime,
    sandboxes: Vec<String>,
}

impl ContainerRuntime {
    /// Everything but a running process.
    pub fn prepare() -> Self {
        Self::prepare_with(Wishes::default())
    }

    pub fn prepare_with(wishes: Wishes) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::Builder::new().prefix("rf-cri-").tempdir().expect("a folder");
        let runtime = Self {
            wishes,
            program: Program::chosen(),
            child: None,
            cgroup: format!(
                "rf-cri-p{}n{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
            tokio: Builder::new_current_thread().enable_all().build().expect("a runtime"),
            sandboxes: Vec::new(),
            folder,
        };
        runtime.write();
        runtime
    }

    fn write(&self) {
        let file = |name: &str, text: &str| {
            let path = self.folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(&path, text).expect("written");
            path
        };
        for (plugin, text) in [("fake", &*self.wishes.plugin), ("loopback", PLUGIN)] {
            let path = file(&format!("bin/{plugin}"), text);
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        // With a name of its own: CRI-O takes down what the machine's cache of results has of its network and it does not
        // know, which would be the pods of another test.
        let network = format!(r#"{{"cniVersion":"0.4.0","name":"{}","type":"fake"}}"#, self.cgroup);
        file("cni/10-test.conf", &network);
        file("pause.rs", PAUSE);
        run(Command::new("sh")
            .args(["-c", MAKE_IMAGE])
            .env("IMAGE", IMAGE)
            .current_dir(self.folder.path()));
        self.program.install(self.folder.path(), &self.wishes.nri);
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("cri.sock")
    }

    pub fn nri_socket(&self) -> PathBuf {
        self.folder.path().join("nri.sock")
    }

    /// What it calls itself.
    pub fn name(&self) -> &'static str {
        self.program.name()
    }

    /// Whether each of several readers is told of every event.
    pub fn broadcasts_events(&self) -> bool {
        self.program.broadcasts_events()
    }

    /// Starts it and waits until sandboxes can be made.
    pub fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log");
        let child = self
            .program
            .command(self.folder.path(), self.wishes.node.as_deref())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while let Err(status) = self.call::<_, Nothing>("Version", Nothing {}) {
            assert!(Instant::now() < deadline, "{status}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.program.after_start(self.folder.path());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// SIGKILL. Its sandboxes live on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is killed");
            child.wait().expect("it ends");
        }
    }

    /// Makes a sandbox as the kubelet does. Its identifier.
    pub fn run(&mut self, pod: &str, attempt: u32, network: Network) -> String {
        let pod = PodRequest {
            name: pod.into(),
            uid: pod.into(),
            attempt,
            network,
            ..PodRequest::default()
        };
        self.run_pod(&pod)
            .unwrap_or_else(|status| panic!("{status}\n{}", self.log()))
    }

    fn sandbox_config(&self, pod: &PodRequest) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(Metadata {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                namespace: "shop".into(),
                attempt: pod.attempt,
            }),
            // With the node's network goes the node's name.
            hostname: match pod.network {
                Network::Pod => "test".into(),
                Network::Node => String::new(),
            },
            log_directory: self.folder.path().join("pods").display().to_string(),
            labels: pod.labels.clone(),
            annotations: pod.annotations.clone(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.cgroup),
                security_context: Some(SecurityContext {
                    namespace_options: Some(namespaces(pod)),
                }),
            }),
        }
    }

    /// Makes a sandbox; its identifier, or why there is none.
    pub fn run_pod(&mut self, pod: &PodRequest) -> Result<String, Status> {
        let request = RunPodSandboxRequest {
            config: Some(self.sandbox_config(pod)),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A runtime that has just started reads its network configuration in the background.
            match self.call::<_, PodSandboxId>("RunPodSandbox", request.clone()) {
                Ok(answer) => {
                    self.sandboxes.push(answer.id.clone());
                    return Ok(answer.id);
                }
                Err(status) if Instant::now() < deadline && status.message().contains("not initialized") => {}
                Err(status) => return Err(status),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes a container in a sandbox and starts it: the program that sends to an address as fast as it can.
    pub fn run_sender(&mut self, sandbox: &str, pod: &PodRequest, to: &str) -> Result<(), Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata { name: "main".into() }),
                image: Some(ImageSpec {
                    image: IMAGE.into(),
                    // CRI-O looks for its signature, whether one is wanted or not.
                    user_specified_image: IMAGE.into(),
                }),
                command: vec!["/pause".into(), to.into()],
                log_path: "main.log".into(),
                linux: Some(LinuxContainerConfig {
                    security_context: Some(ContainerSecurityContext {
                        namespace_options: Some(namespaces(pod)),
                    }),
                }),
            }),
            sandbox_config: Some(self.sandbox_config(pod)),
        };
        let container: PodSandboxId = self.call("CreateContainer", request)?;
        self.call::<_, Nothing>("StartContainer", container).map(drop)
    }

    /// Stops and removes a sandbox.
    pub fn remove(&mut self, sandbox: &str) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let id = sandbox.to_owned();
            if let Err(status) = self.call::<_, Nothing>(method, PodSandboxId { id }) {
                assert!(
                    status.code() == Code::NotFound || std::thread::panicking(),
                    "{method}: {status}\n{}",
                    self.log()
                );
            }
        }
        self.sandboxes.retain(|known| known != sandbox);
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.block_on(future)
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let path: PathAndQuery = format!("/runtime.v1.RuntimeService/{method}").parse().expect("a path");
        self.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket().display())).map_err(unavailable)?;
            let mut grpc = Grpc::new(endpoint.connect().await.map_err(unavailable)?);
            grpc.ready().await.map_err(unavailable)?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
        })
    }
}

fn namespaces(pod: &PodRequest) -> NamespaceOption {
    NamespaceOption {
        network: match pod.network {
            Network::Pod => 0,
            Network::Node => 2,
        },
        // Each container its own: one for the whole pod would need a process that holds it.
        pid: 1,
    }
}

/// Leaves no process, mount or control group.
impl Drop for ContainerRuntime {
    fn drop(&mut self) {
        if !self.sandboxes.is_empty() {
            if self.child.is_none() {
                self.start();
            }
            for sandbox in self.sandboxes.clone() {
                self.remove(&sandbox);
            }
        }
        self.kill();
        let Ok(controllers) = fs::read_dir("/sys/fs/cgroup") else {
            return;
        };
        let here = PathBuf::from("/sys/fs/cgroup");
        for controller in controllers.flatten().map(|entry| entry.path()).chain([here]) {
            let group = controller.join(&self.cgroup);
            // CRI-O leaves those of sandboxes that were refused.
            for below in fs::read_dir(&group).into_iter().flatten().flatten() {
                drop(fs::remove_dir(below.path()));
            }
            // Not every controller has it.
            drop(fs::remove_dir(group));
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}
