//! A containerd of the test's own, and the calls of the CRI that make and remove sandboxes and containers. The tests of
//! NRI (`ringfence/tests/containerd`) use it too.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
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

/// A docker-archive with one static program, made without a registry.
const MAKE_IMAGE: &str = r#"
set -e
"${RUSTC:-rustc}" -O -C target-feature=+crt-static -C strip=symbols -o pause pause.rs
tar cf layer.tar pause
layer=$(sha256sum layer.tar | cut -d' ' -f1)
case $(uname -m) in aarch64) arch=arm64;; *) arch=amd64;; esac
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"test"}]}' \
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

/// What a test wants of its containerd.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The network plugin's program.
    pub plugin: String,
    /// Lines of the configuration's section of NRI, where it is to be on; its socket is `nri.sock`.
    pub nri: Option<String>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            plugin: PLUGIN.to_owned(),
            nri: None,
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

pub struct Containerd {
    folder: TempDir,
    wishes: Wishes,
    program: PathBuf,
    version: u32,
    child: Option<Child>,
    cgroup: String,
    tokio: Runtime,
    sandboxes: Vec<String>,
}

impl Containerd {
    /// Everything but a running process.
    pub fn prepare() -> Self {
        Self::prepare_with(Wishes::default())
    }

    pub fn prepare_with(wishes: Wishes) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = find(&std::env::var("RINGFENCE_CONTAINERD").unwrap_or_else(|_| "containerd".into()));
        let version = Command::new(&program)
            .arg("--version")
            .output()
            .expect("it runs")
            .stdout;
        let version = String::from_utf8_lossy(&version).into_owned();
        // containerd github.com/containerd/containerd/v2 v2.4.2 …
        let number = version
            .split_whitespace()
            .find_map(|word| word.trim_start_matches('v').split('.').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no version in {version:?}"));
        let folder = tempfile::Builder::new().prefix("rf-cri-").tempdir().expect("a folder");
        let containerd = Self {
            wishes,
            program,
            version: number,
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
        containerd.write();
        containerd
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
        file(
            "cni/10-test.conf",
            r#"{"cniVersion":"0.4.0","name":"test","type":"fake"}"#,
        );
        file("pause.rs", PAUSE);
        run(Command::new("sh")
            .args(["-c", MAKE_IMAGE])
            .env("IMAGE", IMAGE)
            .current_dir(self.folder.path()));
        file("config.toml", &self.config());
    }

    /// Without CAP_SYS_RESOURCE a runtime cannot lower the OOM score of a sandbox, and says so in no clear words.
    fn config(&self) -> String {
        let folder = self.folder.path().display();
        let nri = match &self.wishes.nri {
            None => "disable = true\n".to_owned(),
            Some(lines) => format!(
                "socket_path = \"{folder}/nri.sock\"\nplugin_path = \"{folder}/nri/plugins\"\n\
                 plugin_config_path = \"{folder}/nri/conf.d\"\n{lines}\n"
            ),
        };
        let common = format!(
            "root = \"{folder}/root\"\nstate = \"{folder}/state\"\n[grpc]\n  address = \"{folder}/containerd.sock\"\n"
        );
        if self.version >= 2 {
            format!(
                "version = 3\n{common}\
                 [ttrpc]\n  address = \"{folder}/containerd.sock.ttrpc\"\n\
                 [plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = \"{IMAGE}\"\n\
                 [plugins.\"io.containerd.cri.v1.runtime\"]\n  restrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".cni]\n  bin_dirs = [\"{folder}/bin\"]\n  conf_dir = \"{folder}/cni\"\n\
                 [plugins.\"io.containerd.nri.v1.nri\"]\n{nri}"
            )
        } else {
            format!(
                "version = 2\n{common}\
                 [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{IMAGE}\"\n  restrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{folder}/bin\"\n  conf_dir = \"{folder}/cni\"\n"
            )
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    pub fn nri_socket(&self) -> PathBuf {
        self.folder.path().join("nri.sock")
    }

    /// The major version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Starts it and waits until sandboxes can be made.
    pub fn start(&mut self) {
        let path = std::env::var("PATH").unwrap_or_default();
        let beside = self.program.parent().expect("a folder").display();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log");
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.folder.path().join("config.toml"))
            // Its own shim goes before the system's.
            .env("PATH", format!("{beside}:{path}"))
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
        let ctr = self.program.with_file_name("ctr");
        run(Command::new(ctr)
            .arg("-a")
            .arg(self.socket())
            .args(["-n", "k8s.io", "images", "import", "image.tar"])
            .current_dir(self.folder.path()));
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
                    namespace_options: Some(NamespaceOption {
                        network: match pod.network {
                            Network::Pod => 0,
                            Network::Node => 2,
                        },
                        pid: 1,
                    }),
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
                image: Some(ImageSpec { image: IMAGE.into() }),
                command: vec!["/pause".into(), to.into()],
                log_path: "main.log".into(),
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

/// Leaves no process, mount or control group.
impl Drop for Containerd {
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
            // Not every controller has it.
            drop(fs::remove_dir(controller.join(&self.cgroup)));
        }
    }
}

fn find(program: &str) -> PathBuf {
    if program.contains('/') {
        return program.into();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("{program} is not installed: apt-get install containerd runc"))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

// === Messages, with the numbers of the CRI's api.proto ===

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxId {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "7")]
    annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(string, tag = "11")]
    log_path: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(uint32, tag = "4")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<SecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct SecurityContext {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}
