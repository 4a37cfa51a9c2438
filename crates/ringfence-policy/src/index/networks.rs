//! Networks as small numbers, with who is attached.

use std::collections::HashMap;

use ringfence_model::NetworkName;

use super::slab::{Id, Slab};

/// A network that a pod is attached to or that a table of peers asks for.
pub(super) struct NetworkState {
    pub(super) name: NetworkName,
    /// Pods that take part and have an attachment there.
    pub(super) pods: usize,
    /// Everything that holds the handle, the pods included.
    uses: usize,
}

pub(super) type NetworkId = Id<NetworkState>;

/// See the module.
#[derive(Default)]
pub(super) struct NetworkIds {
    by_name: HashMap<NetworkName, NetworkId>,
    states: Slab<NetworkState>,
}

impl NetworkIds {
    /// The handle of a name, held until [`Self::release`].
    pub(super) fn acquire(&mut self, name: &NetworkName) -> NetworkId {
        let id = if let Some(id) = self.by_name.get(name) {
            *id
        } else {
            let id = self.states.insert(NetworkState {
                name: name.clone(),
                pods: 0,
                uses: 0,
            });
            self.by_name.insert(name.clone(), id);
            id
        };
        if let Some(state) = self.states.get_mut(id) {
            state.uses += 1;
        }
        id
    }

    /// Ends one use.
    pub(super) fn release(&mut self, id: NetworkId) {
        let Some(state) = self.states.get_mut(id) else { return };
        state.uses -= 1;
        if state.uses == 0
            && let Some(state) = self.states.remove(id)
        {
            self.by_name.remove(&state.name);
        }
    }

    /// Counts a pod in (`true`) or out.
    pub(super) fn count_pod(&mut self, id: NetworkId, attached: bool) {
        if let Some(state) = self.states.get_mut(id) {
            state.pods = if attached { state.pods + 1 } else { state.pods - 1 };
        }
    }

    /// The network behind a handle.
    pub(super) fn get(&self, id: NetworkId) -> Option<&NetworkState> {
        self.states.get(id)
    }

    /// All handles, in no particular order.
    pub(super) fn ids(&self) -> impl Iterator<Item = NetworkId> {
        self.states.iter().map(|(id, _)| id)
    }

    /// All of them, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &NetworkState> {
        self.states.iter().map(|(_, state)| state)
    }
}
