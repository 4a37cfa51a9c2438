//! The look at the installed CRD of MultiNetworkPolicy: one whose schema lacks `endPort` makes the API server drop the
//! field, so that a range silently becomes one port (statement 224). The agent never sees the field, so it looks at
//! the schema. The OpenAPI documents are open to every authenticated client; CRDs themselves would need a right more.
//!
//! A watch that began under an old schema goes on delivering by it for a while, and what it has delivered so is not
//! delivered again when the schema changes: the objects themselves have not changed. So whenever the schema is another
//! one, the policies are listed again. Until then they are narrower than they are written, never wider.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode, header};
use kube::Client;
use kube::client::Body;
use ringfence_model::{Consequence, Diagnostic, Reason, Severity, Source};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::debug;

use crate::directory::Update;

const PATH: &str = "/openapi/v3/apis/k8s.cni.cncf.io/v1beta1";

/// Time between two looks while nothing is wrong, and while somebody is asked to install a better schema. An unchanged
/// document is answered by a few bytes.
const CALM: Duration = Duration::from_secs(60);
const ALERT: Duration = Duration::from_secs(10);

/// A server that does not answer is asked again later.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server publishes a schema and begins to use it independently, and several servers do so one after the other:
/// some time after a change the policies are listed once more.
const SETTLING: Duration = Duration::from_secs(10);

/// What follows from a look.
#[derive(Debug)]
pub(super) struct Seen {
    /// That something is wrong, or that all is well (again).
    pub(super) report: Update,
    /// Objects that were delivered before may say less than is stored.
    pub(super) list_again: bool,
}

/// What the runner tells the looker.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// A reason to look now: a list has been completed, or a watch works again.
    pub(super) look: Notify,
    /// Policies have been delivered by whatever schema there was.
    pub(super) listed: AtomicBool,
}

/// Looks for ever, or until nobody listens. A server that does not tell is left alone.
pub(super) async fn run(client: Client, hints: Arc<Hints>, out: mpsc::Sender<Seen>) {
    let mut memory = Memory::default();
    let mut tag = None;
    loop {
        match tokio::time::timeout(PATIENCE, ask(&client, tag.as_deref())).await {
            Ok(Ok(Answer::Same)) => {}
            Ok(Ok(Answer::Document { document, tag: new })) => {
                tag = new;
                let list_again = memory.take(&document, hints.listed.load(Ordering::Relaxed), Instant::now());
                let seen = Seen {
                    report: report(memory.end_port),
                    list_again,
                };
                // Nobody listens any more: the agent ends.
                if out.send(seen).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => debug!(
                error = error.as_str(),
                "The API server does not give the schema of MultiNetworkPolicy"
            ),
            Err(_) => debug!("The API server takes too long to give the schema of MultiNetworkPolicy"),
        }
        if memory.settled(Instant::now()) {
            let seen = Seen {
                report: report(memory.end_port),
                list_again: true,
            };
            if out.send(seen).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(memory.pause(Instant::now())) => {}
            () = hints.look.notified() => {}
        }
    }
}

enum Answer {
    /// As at the last look.
    Same,
    /// `Value::Null` where the group is not served.
    Document { document: Value, tag: Option<String> },
}

async fn ask(client: &Client, tag: Option<&str>) -> Result<Answer, String> {
    let mut request = Request::get(PATH);
    if let Some(tag) = tag {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
    let response = client.send(request).await.map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(Answer::Same),
        StatusCode::NOT_FOUND => {
            return Ok(Answer::Document {
                document: Value::Null,
                tag: None,
            });
        }
        other => return Err(format!("it answers {other}")),
    }
    let tag = response.headers().get(header::ETAG);
    let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    let bytes = response
        .into_body()
        .collect_bytes()
        .await
        .map_err(|error| error.to_string())?;
    let document = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Ok(Answer::Document { document, tag })
}

/// What was seen last. Pure.
#[derive(Debug, Default)]
struct Memory {
    /// Of the schema of MultiNetworkPolicy; `None` before the first look.
    fingerprint: Option<u64>,
    end_port: Option<bool>,
    /// When the policies are to be listed once more.
    settling: Option<Instant>,
}

impl Memory {
    /// Takes in a document. Whether the policies have to be listed again is the answer.
    ///
    /// The first look does not tell by which schema a list was made that came before it.
    fn take(&mut self, document: &Value, listed: bool, now: Instant) -> bool {
        let schema = schema(document);
        let mut hasher = DefaultHasher::new();
        schema.map(Value::to_string).hash(&mut hasher);
        let fingerprint = hasher.finish();
        let changed = match self.fingerprint.replace(fingerprint) {
            Some(before) => before != fingerprint,
            None => listed,
        };
        self.end_port = schema.and_then(has_end_port);
        if changed {
            self.settling = Some(now + SETTLING);
        }
        changed
    }

    /// Whether a change is old enough for the second list. Tells it once.
    fn settled(&mut self, now: Instant) -> bool {
        let due = self.settling.is_some_and(|until| until <= now);
        if due {
            self.settling = None;
        }
        due
    }

    /// Time until the next look.
    fn pause(&self, now: Instant) -> Duration {
        let pause = if self.end_port == Some(false) { ALERT } else { CALM };
        match self.settling {
            Some(until) => pause.min(until.duration_since(now)),
            None => pause,
        }
    }
}

fn report(end_port: Option<bool>) -> Update {
    let source = Source {
        kind: "CustomResourceDefinition".into(),
        name: "multi-networkpolicies.k8s.cni.cncf.io".into(),
    };
    let diagnostics = match end_port {
        Some(false) => vec![Diagnostic {
            source: source.clone(),
            path: "spec.versions[v1beta1].schema".to_owned(),
            severity: Severity::Warning,
            reason: Reason::Schema,
            message: "the installed schema has no endPort, so the API server drops it and a range of ports becomes \
                      its first port; install a CRD that has it, such as the one in Ringfence's chart"
                .to_owned(),
            consequence: Consequence::None,
        }],
        Some(true) | None => Vec::new(),
    };
    Update::Report { source, diagnostics }
}

/// The schema of MultiNetworkPolicy.
fn schema(document: &Value) -> Option<&Value> {
    let schemas = document.pointer("/components/schemas")?.as_object()?;
    schemas
        .iter()
        .find(|(name, _)| name.ends_with(".MultiNetworkPolicy"))
        .map(|(_, schema)| schema)
}

/// `None` where the schema does not describe ports at all (it preserves unknown fields).
fn has_end_port(schema: &Value) -> Option<bool> {
    let rules = ["ingress", "egress"].into_iter().filter_map(|direction| {
        schema.pointer(&format!(
            "/properties/spec/properties/{direction}/items/properties/ports/items"
        ))
    });
    let mut answer = None;
    for ports in rules {
        if ports.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
            continue;
        }
        let has = ports.pointer("/properties/endPort").is_some();
        answer = Some(answer.unwrap_or(true) && has);
    }
    answer
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(ports: &Value) -> Value {
        json!({"components": {"schemas": {"io.cncf.cni.k8s.v1beta1.MultiNetworkPolicy": {"properties": {
            "spec": {"properties": {"ingress": {"items": {"properties": {"ports": {"items": ports}}}}}}}}}}})
    }

    fn old() -> Value {
        document(&json!({"properties": {"port": {}, "protocol": {}}}))
    }

    fn new() -> Value {
        document(&json!({"properties": {"port": {}, "endPort": {}}}))
    }

    #[track_caller]
    fn check(document: &Value, expected: Option<bool>) {
        let mut memory = Memory::default();
        memory.take(document, false, Instant::now());
        assert_eq!(memory.end_port, expected, "{document}");
        let Update::Report { diagnostics, .. } = report(memory.end_port) else {
            panic!("a report")
        };
        assert_eq!(!diagnostics.is_empty(), expected == Some(false));
    }

    #[test]
    fn s224_a_schema_without_end_port_is_noticed() {
        check(&old(), Some(false));
        check(&new(), Some(true));
        check(&document(&json!({"x-kubernetes-preserve-unknown-fields": true})), None);
        check(&json!({}), None);
        check(&json!({"components": {"schemas": {}}}), None);
        check(&Value::Null, None);
    }

    #[test]
    fn s224_policies_are_listed_again_when_the_schema_is_another_one() {
        let now = Instant::now();
        let mut memory = Memory::default();
        assert!(!memory.take(&old(), false, now), "nothing was delivered before");
        assert!(!memory.take(&old(), true, now));
        assert_eq!(memory.pause(now), ALERT);
        assert!(memory.take(&new(), true, now));
        // And once more when every server has it.
        assert_eq!(memory.pause(now), SETTLING);
        assert!(!memory.settled(now));
        assert!(memory.settled(now + SETTLING));
        assert!(!memory.settled(now + SETTLING), "once");
        assert_eq!(memory.pause(now), CALM);
        assert!(memory.take(&Value::Null, true, now), "uninstalled");
        assert!(memory.take(&new(), true, now), "installed again");

        let mut late = Memory::default();
        assert!(late.take(&new(), true, now), "by which schema was the list made?");
    }
}
