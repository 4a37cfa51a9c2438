//! One watch: what it delivers, what can go wrong with it, and how long to wait then.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::{Api, Client};
use kube_runtime::watcher::{self, watcher};
use serde_json::Value;
use tokio::sync::mpsc::Sender;

use super::raw::{Marker, Raw};

/// The watches of the source. Their order is the one in which people read about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Namespaces, metadata only.
    Namespaces,
    /// NetworkPolicies.
    NetworkPolicies,
    /// MultiNetworkPolicies.
    MultiNetworkPolicies,
    /// NetworkAttachmentDefinitions.
    NetworkAttachmentDefinitions,
    /// This node's pods, in full.
    LocalPods,
    /// The other nodes' pods and those without a node: metadata only where that is enough.
    RemotePods,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Namespaces,
        Self::NetworkPolicies,
        Self::MultiNetworkPolicies,
        Self::NetworkAttachmentDefinitions,
        Self::LocalPods,
        Self::RemotePods,
    ];

    /// As a metric label and in messages: the resource, and which part of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::NetworkPolicies => "networkpolicies",
            Self::MultiNetworkPolicies => "multi-networkpolicies",
            Self::NetworkAttachmentDefinitions => "network-attachment-definitions",
            Self::LocalPods => "local pods",
            Self::RemotePods => "remote pods",
        }
    }

    /// The resource with its group, as RBAC rules and kubectl name it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::NetworkPolicies => "networkpolicies.networking.k8s.io",
            Self::MultiNetworkPolicies => "multi-networkpolicies.k8s.cni.cncf.io",
            Self::NetworkAttachmentDefinitions => "network-attachment-definitions.k8s.cni.cncf.io",
            Self::LocalPods | Self::RemotePods => "pods",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a watch says.
#[derive(Debug)]
pub(super) enum Said {
    /// A list begins; what is known stays until it is complete.
    Init,
    /// An object of the list.
    Listed(Value),
    /// The list is complete: what it did not hold is gone.
    InitDone,
    /// A new or changed object.
    Apply(Value),
    /// A deleted one.
    Delete(Value),
    /// It does not work at the moment; it goes on by itself.
    Trouble(Trouble),
}

/// Why a watch does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The server has no such resource: a CRD that is not installed.
    NotInstalled,
    /// RBAC does not allow it.
    Forbidden(String),
    /// The server does not know a field selector of ours.
    Selector(String),
    /// The server has forgotten where we were (410): everything is listed again at once.
    Expired,
    /// Anything else: no connection, a server that is starting or overloaded.
    Failed(String),
}

impl Trouble {
    /// As a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotInstalled => "not_installed",
            Self::Forbidden(_) => "forbidden",
            Self::Selector(_) => "selector",
            Self::Expired => "expired",
            Self::Failed(_) => "failed",
        }
    }

    /// Every label, for metrics that show zero before the first case.
    pub const LABELS: [&'static str; 5] = ["not_installed", "forbidden", "selector", "expired", "failed"];

    fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::WatchError(status) if status.code == 410 => Self::Expired,
            watcher::Error::WatchError(status) => Self::of_status(status.code, status.message.clone()),
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => match error {
                kube::Error::Api(status) => Self::of_status(status.code, status.message.clone()),
                other => Self::Failed(in_full(other)),
            },
            watcher::Error::NoResourceVersion => Self::Failed(error.to_string()),
        }
    }

    fn of_status(code: u16, message: String) -> Self {
        match code {
            404 => Self::NotInstalled,
            401 | 403 => Self::Forbidden(message),
            400 if message.contains("field label not supported") => Self::Selector(message),
            410 => Self::Expired,
            _ => Self::Failed(format!("the server answers {code}: {message}")),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => f.write_str("not installed; it is looked for again and again"),
            Self::Forbidden(message) => write!(f, "forbidden: {message}; allow the agent to get, list and watch it"),
            Self::Selector(message) => write!(f, "the server refuses the field selector: {message}"),
            Self::Expired => f.write_str("the server has forgotten the watch; listing again"),
            Self::Failed(message) => write!(f, "{message}; tried again"),
        }
    }
}

/// An error with its causes: the outermost one is often only "client error (Connect)".
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// A CRD that is installed later is noticed within this time, and so is the end of an outage.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Each wait is this long at first, doubles up to half of [`LOOK_AGAIN`], and has up to as much again added by chance: a
/// server that comes back is not asked by every agent at the same moment, and changes that were made meanwhile arrive soon.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The waits between attempts.
#[derive(Debug)]
struct Waits {
    next: Duration,
}

impl Waits {
    fn new() -> Self {
        Self { next: FIRST_WAIT }
    }

    /// `chance` is any number up to 1000.
    fn next(&mut self, chance: u32) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LOOK_AGAIN / 2);
        wait + wait * chance / 1000
    }
}

/// A number that differs between agents and between attempts: the standard library seeds its hash maps with such ones.
fn chance() -> u32 {
    u32::try_from(RandomState::new().build_hasher().finish() % 1001).unwrap_or_default()
}

/// Objects that a list brings at a time. A page is in memory as text and as values at once, and what that takes the C library
/// does not give back: with 500, as is usual, and 5,000 pods the agent stays at 70 MiB and not at 48.
const PAGE: u32 = 100;

/// Runs for ever, or until nobody listens. `tag` goes with everything that is said.
pub(super) async fn run<M: Marker, T: Copy>(client: Client, fields: Option<&str>, tag: T, out: Sender<(T, Said)>) {
    let mut config = watcher::Config::default().page_size(PAGE);
    if let Some(fields) = fields {
        config = config.fields(fields);
    }
    let mut events = pin!(watcher(Api::<Raw<M>>::all(client), config));
    let mut waits = Waits::new();
    let mut in_trouble = false;
    while let Some(event) = events.next().await {
        let (said, wait) = match event {
            Ok(event) => {
                // `Init` comes before the first request is answered, so it proves nothing.
                if in_trouble && !matches!(event, watcher::Event::Init) {
                    in_trouble = false;
                    waits = Waits::new();
                }
                let said = match event {
                    watcher::Event::Init => Said::Init,
                    watcher::Event::InitApply(object) => Said::Listed(object.into_value()),
                    watcher::Event::InitDone => Said::InitDone,
                    watcher::Event::Apply(object) => Said::Apply(object.into_value()),
                    watcher::Event::Delete(object) => Said::Delete(object.into_value()),
                };
                (said, None)
            }
            Err(error) => {
                let trouble = Trouble::of(&error);
                in_trouble = true;
                let wait = waits.next(chance());
                let wait = match trouble {
                    // A new list is the answer, and the sooner the better. Twice in a row is a different matter.
                    Trouble::Expired => None,
                    _ => Some(wait),
                };
                (Said::Trouble(trouble), wait)
            }
        };
        if out.send((tag, said)).await.is_err() {
            return;
        }
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::core::Status;

    use super::*;

    #[track_caller]
    fn check(code: u16, message: &str, expected: &Trouble) {
        let mut status = Status::failure(message, "Reason");
        status.code = code;
        assert_eq!(
            &Trouble::of(&watcher::Error::InitialListFailed(kube::Error::Api(Box::new(
                status.clone()
            )))),
            expected
        );
        assert_eq!(&Trouble::of(&watcher::Error::WatchError(Box::new(status))), expected);
    }

    #[test]
    fn waits_grow_to_five_seconds_at_most() {
        let shown = |chance: u32| {
            let mut waits = Waits::new();
            let waits: Vec<u128> = (0..6).map(|_| waits.next(chance).as_millis()).collect();
            waits
        };
        assert_eq!(shown(0), [200, 400, 800, 1600, 2500, 2500]);
        assert_eq!(shown(1000), [400, 800, 1600, 3200, 5000, 5000]);
        let chances: BTreeSet<u32> = (0..100).map(|_| chance()).collect();
        assert!(
            chances.len() > 1 && chances.iter().all(|chance| *chance <= 1000),
            "{chances:?}"
        );
    }

    #[test]
    fn answers_of_the_server_are_told_apart() {
        check(404, "not found", &Trouble::NotInstalled);
        check(403, "no", &Trouble::Forbidden("no".to_owned()));
        check(401, "who", &Trouble::Forbidden("who".to_owned()));
        check(410, "too old", &Trouble::Expired);
        check(
            400,
            "field label not supported: spec.hostNetwork",
            &Trouble::Selector("field label not supported: spec.hostNetwork".to_owned()),
        );
        for code in [400, 429, 500, 503, 504] {
            check(
                code,
                "busy",
                &Trouble::Failed(format!("the server answers {code}: busy")),
            );
        }
    }
}
