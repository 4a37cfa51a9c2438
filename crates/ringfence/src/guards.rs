//! AF_XDP sends past every hook of netfilter, and CAP_NET_RAW is enough for it. So the agent holds the queues of each
//! interface whose raw frames its rules stop; see [`TransmitGuard`]. They are held as long as the agent runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Once;

use ringfence_model::{InterfaceName, PodUid};
use ringfence_netns::{Error, Hold, Netns, TransmitGuard};
use ringfence_ruleset::{Hook, Ruleset};
use tracing::warn;

/// What is held in one pod.
#[derive(Debug, Default)]
pub struct Guards {
    /// `None`: it could not be held, and that has been said.
    held: BTreeMap<InterfaceName, Option<TransmitGuard>>,
    /// Interfaces whose trouble was logged.
    said: BTreeSet<InterfaceName>,
}

impl Guards {
    /// Holds what these rules need, and nothing else. Without `again` only where the rules name other interfaces
    /// than before.
    pub fn update(&mut self, pod: &PodUid, netns: &Netns, ruleset: Option<&Ruleset>, again: bool) {
        let wanted = || ruleset.into_iter().flat_map(guarded);
        if !again && wanted().eq(self.held.keys()) {
            return;
        }
        if wanted().next().is_none() {
            self.held.clear();
            return;
        }
        let entered = netns.run(|| {
            let mut held = BTreeMap::new();
            for interface in wanted() {
                let before = self.held.remove(interface);
                if let Some(Some(guard)) = &before
                    && guard.is_on(interface)
                {
                    held.insert(interface.clone(), before.flatten());
                    continue;
                }
                let was_held = before.is_some();
                // Closed first, or it would be in the way of its successor.
                drop(before);
                let guard = TransmitGuard::take(interface);
                // What is taken at first may be a former agent's, with which the kernel is not done.
                let taken = guard.as_ref().is_ok_and(|guard| matches!(guard.hold(), Hold::Taken(_)));
                if taken == was_held && self.said.insert(interface.clone()) {
                    complain(pod, interface, &guard);
                }
                if !taken {
                    self.said.remove(interface);
                }
                held.insert(interface.clone(), guard.ok());
            }
            held
        });
        match entered {
            Ok(held) => self.held = held,
            Err(error) => warn!(uid = %pod, %error, "AF_XDP cannot be kept from the pod"),
        }
    }
}

impl Guards {
    /// Whether something was somebody else's, so that it is worth trying again soon.
    pub fn unsettled(&self) -> bool {
        let taken = |guard: &TransmitGuard| matches!(guard.hold(), Hold::Taken(_));
        self.held
            .iter()
            .any(|(name, guard)| guard.as_ref().is_some_and(taken) && !self.said.contains(name))
    }
}

/// The interfaces with a chain at the egress hook, in order.
fn guarded(ruleset: &Ruleset) -> impl Iterator<Item = &InterfaceName> {
    let mut names: Vec<&InterfaceName> = ruleset
        .netdev
        .chains
        .values()
        .filter_map(|chain| match &chain.base.as_ref()?.hook {
            Hook::Egress(interface) => Some(interface),
            _ => None,
        })
        .collect();
    names.sort();
    names.into_iter()
}

fn complain(pod: &PodUid, interface: &InterfaceName, guard: &Result<TransmitGuard, Error>) {
    static LACKS: Once = Once::new();
    match guard {
        Ok(guard) => {
            if let Hold::Taken(queues) = guard.hold() {
                warn!(
                    uid = %pod,
                    interface = interface.as_str(),
                    queues = ?queues,
                    "The pod sends by AF_XDP, which no rule sees"
                );
            }
        }
        Err(error @ Error::Permission { .. }) => LACKS.call_once(|| {
            warn!(%error, "Pods with CAP_NET_RAW may send past their egress rules by AF_XDP");
        }),
        Err(error) => {
            warn!(uid = %pod, interface = interface.as_str(), %error, "AF_XDP cannot be kept from the pod");
        }
    }
}
