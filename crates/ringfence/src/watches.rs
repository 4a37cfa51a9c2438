//! How the watches of the Kubernetes API are, for readers, and the connection over which the container runtime asks before
//! pods start. Empty where objects come from a folder.

use std::sync::Arc;

use ringfence_kube::api::{Health, State};
use tokio::sync::watch;

/// Reads what the source publishes.
#[derive(Debug, Clone, Default)]
pub struct Watches {
    health: Option<watch::Receiver<Arc<[Health]>>>,
    nri: Option<watch::Receiver<ringfence_nri::Health>>,
}

impl Watches {
    /// Of a running source.
    pub fn new(health: watch::Receiver<Arc<[Health]>>) -> Self {
        Self {
            health: Some(health),
            nri: None,
        }
    }

    /// The same, with the connection to the runtime's NRI.
    #[must_use]
    pub fn with_nri(self, nri: Option<watch::Receiver<ringfence_nri::Health>>) -> Self {
        Self { nri, ..self }
    }

    /// The connection to the runtime's NRI as it is now, where there is to be one.
    pub fn nri(&self) -> Option<ringfence_nri::Health> {
        self.nri.as_ref().map(|health| health.borrow().clone())
    }

    /// As they are now.
    pub fn get(&self) -> Arc<[Health]> {
        self.health
            .as_ref()
            .map_or_else(|| Arc::from(Vec::new()), |health| Arc::clone(&health.borrow()))
    }
}

/// `watch networkpolicies: watching, 12 objects`, with what is wrong and what follows where something is.
pub fn describe(health: &Health) -> String {
    let name = health.stream;
    match &health.state {
        State::Watching => format!("watch {name}: watching, {} objects", health.objects),
        State::Listing => format!("watch {name}: the first list is not complete"),
        State::Troubled(trouble) => {
            let kept = if health.synced {
                "; what it delivered before stays in force"
            } else {
                ""
            };
            format!("watch {name}: {trouble}{kept}")
        }
    }
}
