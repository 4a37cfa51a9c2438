//! Which runtime it is, and how a scratch one is configured, given its image and started.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{IMAGE, Nri, run};
use std::fs;

/// A runtime's program.
pub enum Program {
    /// With its shim and `ctr` beside it.
    Containerd {
        path: PathBuf,
        /// The major version.
        version: u32,
    },
    /// With `pinns` and `copyimg`, which are CRI-O's own, beside it.
    Crio { path: PathBuf },
}

impl Program {
    pub fn chosen() -> Self {
        if let Ok(path) = std::env::var("RINGFENCE_CRIO") {
            return Self::Crio { path: find(&path) };
        }
        let path = find(&std::env::var("RINGFENCE_CONTAINERD").unwrap_or_else(|_| "containerd".into()));
        let version = Command::new(&path).arg("--version").output().expect("it runs").stdout;
        let version = String::from_utf8_lossy(&version).into_owned();
        // containerd github.com/containerd/containerd/v2 v2.4.2 …
        let number = version
            .split_whitespace()
            .find_map(|word| word.trim_start_matches('v').split('.').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no version in {version:?}"));
        Self::Containerd { path, version: number }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Containerd { .. } => "containerd",
            Self::Crio { .. } => "cri-o",
        }
    }

    pub fn broadcasts_events(&self) -> bool {
        matches!(self, Self::Containerd { version, .. } if *version >= 2)
    }

    /// The configuration, and whatever has to be there before it starts for the first time.
    pub fn install(&self, folder: &Path, nri: &Nri) {
        let text = match self {
            Self::Containerd { version, .. } => containerd(folder, *version, nri),
            Self::Crio { path } => crio(folder, path, nri),
        };
        fs::write(folder.join("config.toml"), text).expect("written");
        if let Self::Crio { path } = self {
            // Nothing is pulled, so nothing needs a signature.
            fs::write(
                folder.join("policy.json"),
                r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
            )
            .expect("written");
            run(Command::new(path.with_file_name("copyimg"))
                .args(["--root", "root", "--runroot", "runroot", "--storage-driver", "vfs"])
                .args(["--signature-policy", "policy.json", "--image-name", IMAGE])
                .args(["--import-from", "docker-archive:image.tar"])
                .current_dir(folder));
        }
    }

    /// What starts it, in the network namespace that is to be the node's.
    pub fn command(&self, folder: &Path, node: Option<&Path>) -> Command {
        let (Self::Containerd { path, .. } | Self::Crio { path }) = self;
        let mut command = match node {
            Some(node) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", node.display())).arg(path);
                command
            }
            None => Command::new(path),
        };
        command.arg("--config").arg(folder.join("config.toml"));
        if let Self::Crio { .. } = self {
            // The system's own are not to be read.
            command.args(["--config-dir", ""]);
        }
        let beside = path.parent().expect("a folder").display();
        let others = std::env::var("PATH").unwrap_or_default();
        // Its own shim goes before the system's.
        command.env("PATH", format!("{beside}:{others}"));
        command
    }

    /// What can be done only when it answers.
    pub fn after_start(&self, folder: &Path) {
        if let Self::Containerd { path, .. } = self {
            run(Command::new(path.with_file_name("ctr"))
                .arg("-a")
                .arg(folder.join("cri.sock"))
                .args(["-n", "k8s.io", "images", "import", "image.tar"])
                .current_dir(folder));
        }
    }
}

/// Without CAP_SYS_RESOURCE a runtime cannot lower the OOM score of a sandbox, and says so in no clear words.
fn containerd(folder: &Path, version: u32, nri: &Nri) -> String {
    let folder = folder.display();
    let validator = match nri {
        Nri::Off => "disable = true\n".to_owned(),
        Nri::On => String::new(),
        Nri::Requires { plugin, annotation } => format!(
            "[plugins.\"io.containerd.nri.v1.nri\".default_validator]\nenable = true\nrequired_plugins = [\"{plugin}\"]\n\
             tolerate_missing_plugins_annotation = \"{annotation}\"\n"
        ),
    };
    let nri = format!(
        "socket_path = \"{folder}/nri.sock\"\nplugin_path = \"{folder}/nri/plugins\"\n\
         plugin_config_path = \"{folder}/nri/conf.d\"\n{validator}"
    );
    let common =
        format!("root = \"{folder}/root\"\nstate = \"{folder}/state\"\n[grpc]\n  address = \"{folder}/cri.sock\"\n");
    if version >= 2 {
        format!(
            "version = 3\n{common}\
             [ttrpc]\n  address = \"{folder}/cri.sock.ttrpc\"\n\
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

/// Everything of it below the folder. The storage driver is one that needs no mounts.
fn crio(folder: &Path, program: &Path, nri: &Nri) -> String {
    let folder = folder.display();
    let pinns = program.with_file_name("pinns");
    let pinns = pinns.display();
    let (runc, conmon) = (find("runc"), find("conmon"));
    let (runc, conmon) = (runc.display(), conmon.display());
    let nri = match nri {
        Nri::Off => "enable_nri = false\n".to_owned(),
        Nri::On => "enable_nri = true\n".to_owned(),
        Nri::Requires { plugin, annotation } => format!(
            "enable_nri = true\n[crio.nri.default_validator]\nnri_enable_default_validator = true\n\
             nri_validator_required_plugins = [\"{plugin}\"]\n\
             nri_validator_tolerate_missing_plugins_annotation = \"{annotation}\"\n"
        ),
    };
    format!(
        r#"[crio]
root = "{folder}/root"
runroot = "{folder}/runroot"
storage_driver = "vfs"
log_dir = "{folder}/logs"
version_file = "{folder}/version"
version_file_persist = "{folder}/version-persist"
clean_shutdown_file = "{folder}/clean"
[crio.api]
listen = "{folder}/cri.sock"
stream_port = "0"
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "{pinns}"
namespaces_dir = "{folder}/namespaces"
container_exits_dir = "{folder}/exits"
container_attach_socket_dir = "{folder}/attach"
irqbalance_config_restore_file = "disable"
apparmor_profile = "unconfined"
default_runtime = "runc"
[crio.runtime.runtimes.runc]
runtime_path = "{runc}"
runtime_root = "{folder}/runc"
monitor_path = "{conmon}"
monitor_cgroup = "pod"
[crio.image]
pause_image = "{IMAGE}"
pause_command = "/pause"
signature_policy = "{folder}/policy.json"
signature_policy_dir = "{folder}/policies"
namespaced_auth_dir = "{folder}/auth"
[crio.network]
network_dir = "{folder}/cni"
plugin_dirs = ["{folder}/bin"]
[crio.nri]
nri_listen = "{folder}/nri.sock"
nri_plugin_dir = "{folder}/nri/plugins"
nri_plugin_config_dir = "{folder}/nri/conf.d"
{nri}"#
    )
}

fn find(program: &str) -> PathBuf {
    if program.contains('/') {
        return program.into();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("{program} is not installed: apt-get install containerd runc conmon"))
}
