//! What can go wrong, split by what a caller does about it.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// A namespace could not be opened, entered or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is at the path: the pod's sandbox has not been made yet, or is gone. See [`Error::is_pending`].
    #[error("no network namespace at {}", path.display())]
    NotFound {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A plain file is at the path with no namespace mounted on it. Runtimes create the file first and mount the
    /// namespace on it a moment later, and a host that lost its mounts (a reboot with a persistent /run) keeps such files.
    #[error("{} is a plain file: no network namespace is mounted on it (yet)", path.display())]
    NotMounted {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// Something else is at the path: a folder, a pipe, a namespace of another type.
    #[error("{} is no network namespace but {found}", path.display())]
    NotANamespace {
        /// The path that was asked for.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// The kernel refused because this process lacks a capability.
    #[error("{action}: {source}; this needs {capability} (a privileged container, or root on the node)")]
    Permission {
        /// What was tried: `enter the network namespace …`.
        action: String,
        /// The capability that is likely missing.
        capability: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Any other failure of the kernel.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's list of links, addresses or routes could not be understood.
    #[error("{action}: {why}")]
    Protocol {
        /// What was tried.
        action: String,
        /// What was wrong with the answer.
        why: &'static str,
    },
}

impl Error {
    /// Whether the namespace may still appear by itself, so that the pod is pending and not failed.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NotMounted { .. })
    }

    /// Sorts a refusal (EPERM, EACCES) from other failures.
    pub(crate) fn of(errno: Errno, action: impl Into<String>, capability: &'static str) -> Self {
        let (action, source) = (action.into(), io::Error::from(errno));
        match errno {
            Errno::EPERM | Errno::EACCES => Self::Permission {
                action,
                capability,
                source,
            },
            _ => Self::System { action, source },
        }
    }

    /// The failure to open `path`.
    pub(crate) fn opening(errno: Errno, path: &Path) -> Self {
        match errno {
            // ESRCH: /proc/<pid>/ns/net of a process that ended while we looked at it.
            Errno::ENOENT | Errno::ESRCH => Self::NotFound { path: path.into() },
            _ => Self::of(
                errno,
                format!("open the network namespace {}", path.display()),
                "CAP_SYS_PTRACE for a process of another user, CAP_DAC_READ_SEARCH for a folder of another user",
            ),
        }
    }
}
