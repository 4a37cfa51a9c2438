//! The container runtime as the loop sees it: news of sandboxes, a way to ask for them, and how it is.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ringfence_cri::{Change, Error, Handle, Health, Options};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

/// Makes the runtime be asked now.
pub type Poke = Arc<dyn Fn() + Send + Sync>;

/// A runtime that is watched.
pub struct Sandboxes {
    /// What is new about sandboxes, in its order.
    pub changes: Receiver<Vec<Change>>,
    /// Asks it now, because there may be a new sandbox.
    pub poke: Poke,
    /// How it is.
    pub health: watch::Receiver<Health>,
    /// Whether the path of the template counts for pods that it has no sandbox of.
    pub fallback: bool,
}

impl Sandboxes {
    /// Watches the runtime at a socket, or at the first of the usual ones that exists. It need not be there yet.
    pub fn watch(socket: Option<PathBuf>, fallback: bool) -> Result<Self, Error> {
        let options = Options {
            socket,
            ..Options::default()
        };
        let (changes, handle) = ringfence_cri::watch(options)?;
        Ok(Self::new(changes, handle, fallback))
    }
}

impl Sandboxes {
    /// Looks for the pods' processes instead.
    pub fn scan(fallback: bool) -> Result<Self, Error> {
        let (changes, handle) = ringfence_cri::scan(Options::default().poll)?;
        Ok(Self::new(changes, handle, fallback))
    }

    fn new(changes: Receiver<Vec<Change>>, handle: Handle, fallback: bool) -> Self {
        Self {
            changes,
            health: handle.health(),
            poke: Arc::new(move || handle.poke()),
            fallback,
        }
    }
}

impl fmt::Debug for Sandboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandboxes")
            .field("health", &self.health)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}
