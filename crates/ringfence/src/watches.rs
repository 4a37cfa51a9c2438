//! How the watches of the Kubernetes API are, for readers. Empty where objects come from a folder.

use std::sync::Arc;

use ringfence_kube::api::{Health, State};
use tokio::sync::watch;

/// Reads what the source publishes.
#[derive(Debug, Clone, Default)]
pub struct Watches {
    health: Option<watch::Receiver<Arc<[Health]>>>,
}

impl Watches {
    /// Of a running source.
    pub fn new(health: watch::Receiver<Arc<[Health]>>) -> Self {
        Self { health: Some(health) }
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
