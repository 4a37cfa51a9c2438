//! `/pods`, `/pods/{name}` and `/namespaces/{namespace}/pods/{name}`, and how a pod is found.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ringfence_model::{Diagnostic, Direction, NamespacedName, PolicyKey};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::clock::{age, timestamp};
use crate::event::{Event, Query};
use crate::http::Readers;
use crate::http::answer::Format;
use crate::http::policies::diagnostic;
use crate::near::near;
use crate::snapshot::{Isolation, PodStatus, Snapshot, addresses};
use crate::table::{list as joined, table};

/// The loop answers a question within a turn; this is for one that has ended.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// `GET /pods`
pub async fn list(State(readers): State<Readers>, format: Format) -> Response {
    let snapshot = readers.snapshots.load();
    format.answer(
        || list_text(&snapshot, SystemTime::now()),
        || snapshot.pods.values().map(|status| json(status, &snapshot)).collect(),
    )
}

/// `GET /pods/{name}`
pub async fn by_name(State(readers): State<Readers>, Path(name): Path<String>, format: Format) -> Response {
    match readers.find(None, &name, "", format).await {
        Ok((snapshot, status)) => format.answer(|| text(&status, &snapshot), || json(&status, &snapshot)),
        Err(failure) => failure,
    }
}

/// `GET /namespaces/{namespace}/pods/{name}`
pub async fn by_full_name(
    State(readers): State<Readers>,
    Path((namespace, name)): Path<(String, String)>,
    format: Format,
) -> Response {
    match readers.find(Some(&namespace), &name, "", format).await {
        Ok((snapshot, status)) => format.answer(|| text(&status, &snapshot), || json(&status, &snapshot)),
        Err(failure) => failure,
    }
}

impl Readers {
    /// The one local pod of that name. Otherwise the answer that says what is the matter: several of that name, one
    /// on another node, or none. `rest` is what follows the name in the URL.
    pub async fn find(
        &self,
        namespace: Option<&str>,
        name: &str,
        rest: &str,
        format: Format,
    ) -> Result<(Arc<Snapshot>, Arc<PodStatus>), Response> {
        let snapshot = self.snapshots.load_full();
        let found: Vec<Arc<PodStatus>> = match namespace {
            Some(namespace) => snapshot
                .pods
                .get(&NamespacedName::new(namespace, name))
                .into_iter()
                .cloned()
                .collect(),
            None => snapshot.pods_named(name).into_iter().cloned().collect(),
        };
        match <[_; 1]>::try_from(found) {
            Ok([status]) => Ok((snapshot, status)),
            Err(found) if found.is_empty() => Err(self.unknown(&snapshot, namespace, name, format).await),
            Err(found) => Err(several(&found, rest, format)),
        }
    }

    async fn unknown(&self, snapshot: &Snapshot, namespace: Option<&str>, name: &str, format: Format) -> Response {
        let mut sentence = match namespace {
            Some(namespace) => format!("There is no pod {namespace}/{name} on node {}.", snapshot.node),
            None => format!("There is no pod named {name} on node {}.", snapshot.node),
        };
        for (name, node) in self.locate(namespace, name).await {
            let _ = match node {
                Some(node) if node == snapshot.node => write!(
                    sentence,
                    " {name} is assigned to this node but has no rules: it shares the node's network, or it has ended."
                ),
                Some(node) => write!(
                    sentence,
                    " {name} is on node {node}, not on this node: ask the agent there."
                ),
                None => write!(sentence, " {name} is on no node yet."),
            };
        }
        if !snapshot.synced {
            let _ = write!(
                sentence,
                " Source {} has not delivered everything yet.",
                snapshot.source
            );
        }
        let near = near_pods(snapshot, name);
        if !near.is_empty() {
            let _ = write!(sentence, " Near names: {}.", near.join(", "));
        }
        format.failure(StatusCode::NOT_FOUND, &sentence)
    }

    /// Pods of the cluster of that name and their nodes; none where the loop does not answer.
    pub(super) async fn locate(&self, namespace: Option<&str>, name: &str) -> Vec<(NamespacedName, Option<Arc<str>>)> {
        let (answer, answered) = oneshot::channel();
        let query = Query::Locate {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            answer,
        };
        if self.events.send(Event::Query(query)).is_err() {
            return Vec::new();
        }
        timeout(PATIENCE, answered)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default()
    }
}

/// Local pods, with their namespaces, whose names come near.
pub(super) fn near_pods(snapshot: &Snapshot, name: &str) -> Vec<String> {
    near(name, snapshot.pods.keys().map(|name| &*name.name))
        .into_iter()
        .flat_map(|near| snapshot.pods_named(near))
        .map(|status| status.pod.name.to_string())
        .take(5)
        .collect()
}

/// 300 with the URLs in the body and no Location: none of them is to be preferred.
fn several(found: &[Arc<PodStatus>], rest: &str, format: Format) -> Response {
    let urls: Vec<String> = found
        .iter()
        .map(|status| {
            let name = &status.pod.name;
            format!("/namespaces/{}/pods/{}{rest}", name.namespace, name.name)
        })
        .collect();
    let body = format.answer(|| urls.join("\n") + "\n", || json!(urls));
    (StatusCode::MULTIPLE_CHOICES, body).into_response()
}

fn list_text(snapshot: &Snapshot, now: SystemTime) -> String {
    table(
        ["NAMESPACE", "NAME", "STATE", "SINCE", "INGRESS", "EGRESS", "REASON"],
        snapshot.pods.values().map(|status| {
            [
                status.pod.name.namespace.to_string(),
                status.pod.name.name.to_string(),
                status.state.label().to_owned(),
                age(now.duration_since(status.since).unwrap_or_default()),
                isolated_interfaces(status, Direction::Ingress),
                isolated_interfaces(status, Direction::Egress),
                status.state.reason().unwrap_or_default().to_owned(),
            ]
        }),
    )
}

/// The interfaces that are isolated in a direction.
fn isolated_interfaces(status: &PodStatus, direction: Direction) -> String {
    joined(
        status
            .isolation
            .iter()
            .filter(|isolation| isolation.direction == direction)
            .map(|isolation| interface(isolation.interface.as_ref())),
    )
}

fn interface(name: Option<&ringfence_model::InterfaceName>) -> String {
    name.map_or_else(|| "?".to_owned(), ToString::to_string)
}

/// Everything about a pod in lines, which `/rules` puts in front of the ruleset too.
pub fn text(status: &PodStatus, snapshot: &Snapshot) -> String {
    let pod = &status.pod;
    let mut out = format!(
        "pod {} (uid {}) on node {}\nstate: {} since {}\n",
        pod.name,
        pod.uid,
        snapshot.node,
        status.state,
        timestamp(status.since)
    );
    if let Some(netns) = &status.netns {
        let _ = writeln!(out, "network namespace: {}", netns.display());
    }
    for attachment in &pod.attachments {
        let _ = writeln!(
            out,
            "interface {}: {}; {}{}",
            interface(attachment.interface.as_ref()),
            joined(&attachment.networks),
            addresses(&attachment.addresses),
            if attachment.primary { "; primary" } else { "" }
        );
    }
    for isolation in status.isolation.iter() {
        let _ = writeln!(
            out,
            "{} on {} ({}) isolated by {}",
            isolation.direction,
            interface(isolation.interface.as_ref()),
            joined(&isolation.networks),
            joined(&isolation.policies).replace(',', ", ")
        );
    }
    if status.isolation.is_empty() {
        out.push_str("no policy isolates it\n");
    }
    for finding in findings(status, snapshot) {
        let _ = writeln!(out, "note: {finding}");
    }
    out
}

/// What is wrong with the pod itself and with the policies that isolate it.
pub fn findings<'a>(status: &PodStatus, snapshot: &'a Snapshot) -> Vec<&'a Diagnostic> {
    let mut policies: Vec<&PolicyKey> = status
        .isolation
        .iter()
        .flat_map(|isolation| &isolation.policies)
        .collect();
    policies.sort();
    policies.dedup();
    snapshot
        .findings_about("Pod", &status.pod.name.to_string())
        .chain(policies.into_iter().flat_map(|policy| snapshot.findings_of(policy)))
        .collect()
}

/// The same as JSON.
pub fn json(status: &PodStatus, snapshot: &Snapshot) -> Value {
    let pod = &status.pod;
    let texts = |items: &std::collections::BTreeSet<_>| -> Vec<String> {
        items
            .iter()
            .map(|it: &ringfence_model::NetworkName| it.to_string())
            .collect()
    };
    json!({
        "namespace": &*pod.name.namespace,
        "name": &*pod.name.name,
        "uid": pod.uid.as_str(),
        "node": &*snapshot.node,
        "state": status.state.label(),
        "reason": status.state.reason(),
        "current": status.is_current(),
        "since": timestamp(status.since),
        "netns": status.netns,
        "interfaces": pod.attachments.iter().map(|attachment| json!({
            "name": attachment.interface.as_ref().map(ringfence_model::InterfaceName::as_str),
            "networks": texts(&attachment.networks),
            "addresses": attachment.addresses,
            "primary": attachment.primary,
        })).collect::<Value>(),
        "isolation": status.isolation.iter().map(|isolation| isolation_json(isolation, texts)).collect::<Value>(),
        "diagnostics": findings(status, snapshot).into_iter().map(diagnostic).collect::<Value>(),
    })
}

fn isolation_json(
    isolation: &Isolation,
    texts: impl Fn(&std::collections::BTreeSet<ringfence_model::NetworkName>) -> Vec<String>,
) -> Value {
    json!({
        "interface": isolation.interface.as_ref().map(ringfence_model::InterfaceName::as_str),
        "networks": texts(&isolation.networks),
        "direction": isolation.direction.as_str(),
        "policies": isolation.policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
