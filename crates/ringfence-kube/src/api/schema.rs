//! The look at the installed CRD of MultiNetworkPolicy: one whose schema lacks `endPort` makes the API server drop the
//! field, so that a range silently becomes one port (statement 224). The agent never sees the field, so it looks at
//! the schema. The OpenAPI documents are open to every authenticated client; CRDs themselves would need a right more.

use kube::Client;
use ringfence_model::{Consequence, Diagnostic, Reason, Severity, Source};
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::debug;

use crate::directory::Update;

const PATH: &str = "/openapi/v3/apis/k8s.cni.cncf.io/v1beta1";

/// Reports it, or that all is well (again). A server that does not tell is left alone: the next list asks again.
pub(super) async fn look(client: Client, batches: mpsc::Sender<Vec<Update>>) {
    let request = match http::Request::get(PATH).body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return debug!(%error, "No request for the OpenAPI document"),
    };
    let document: Value = match client.request(request).await {
        Ok(document) => document,
        Err(error) => return debug!(%error, "The API server does not give the schema of MultiNetworkPolicy"),
    };
    let source = Source {
        kind: "CustomResourceDefinition".into(),
        name: "multi-networkpolicies.k8s.cni.cncf.io".into(),
    };
    let diagnostics = match has_end_port(&document) {
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
    // Nobody listens any more: the agent ends.
    drop(batches.send(vec![Update::Report { source, diagnostics }]).await);
}

/// `None` where the document does not describe ports at all (a schema that preserves unknown fields).
fn has_end_port(document: &Value) -> Option<bool> {
    let schemas = document.pointer("/components/schemas")?.as_object()?;
    let policy = schemas
        .iter()
        .find(|(name, _)| name.ends_with(".MultiNetworkPolicy"))?
        .1;
    let rules = ["ingress", "egress"].into_iter().filter_map(|direction| {
        policy.pointer(&format!(
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

    #[track_caller]
    fn check(ports: &Value, expected: Option<bool>) {
        let document = json!({"components": {"schemas": {"io.cncf.cni.k8s.v1beta1.MultiNetworkPolicy": {"properties": {
            "spec": {"properties": {"ingress": {"items": {"properties": {"ports": {"items": ports}}}}}}}}}}});
        assert_eq!(has_end_port(&document), expected, "{ports}");
    }

    #[test]
    fn s224_a_schema_without_end_port_is_noticed() {
        check(&json!({"properties": {"port": {}, "protocol": {}}}), Some(false));
        check(&json!({"properties": {"port": {}, "endPort": {}}}), Some(true));
        check(&json!({"x-kubernetes-preserve-unknown-fields": true}), None);
        assert_eq!(has_end_port(&json!({})), None);
        assert_eq!(has_end_port(&json!({"components": {"schemas": {}}})), None);
    }
}
