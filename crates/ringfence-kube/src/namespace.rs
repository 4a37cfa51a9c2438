//! Namespace: labels, whether it is going away, and the beta isolation annotation.

use std::sync::Arc;

use ringfence_model::{Consequence, Namespace, Reason};
use serde_json::Value;

use crate::clause::{At, Findings, quoted, shown};
use crate::metadata::Metadata;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const ISOLATION: &str = "net.beta.kubernetes.io/network-policy";

/// Decodes a namespace that has a name.
pub(crate) fn decode(name: Arc<str>, metadata: &Metadata<'_>, findings: &mut Findings) -> Namespace {
    let mut labels = metadata.labels(findings);
    // The API server sets it and lets nobody change it (statement 46), so the name wins over a hand-written file.
    labels.push((NAME_LABEL.into(), name.clone()));
    Namespace {
        name,
        labels: labels.into_iter().collect(),
        terminating: metadata.is_deleted(),
        isolate_ingress: isolated(metadata, findings),
    }
}

/// Only `{"ingress":{"isolation":"DefaultDeny"}}` isolates; everything else is reported and does not, as with the
/// engines that have read this annotation before.
fn isolated(metadata: &Metadata<'_>, findings: &mut Findings) -> bool {
    let Some(text) = metadata.annotation(ISOLATION, findings) else {
        return false;
    };
    let root = At::root("metadata");
    let at = root.field("annotations");
    let at = at.key(ISOLATION);
    let mut warn = |message: String| {
        findings.warn(&at, Reason::InvalidAnnotation, Consequence::PartIgnored, message);
        false
    };
    let advice = "the namespace is not isolated; write {\"ingress\":{\"isolation\":\"DefaultDeny\"}}";
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return warn(format!("{} is no JSON: {advice}", quoted(text)));
    };
    let Value::Object(fields) = &value else {
        return warn(format!("{} is no object: {advice}", quoted(text)));
    };
    match fields.get("ingress").map(|ingress| (ingress, ingress.get("isolation"))) {
        Some((_, Some(Value::String(isolation)))) if isolation == "DefaultDeny" => true,
        // The annotation without a say on isolation is legal.
        None | Some((Value::Null, None) | (Value::Object(_), None | Some(Value::Null))) => false,
        Some((_, Some(other))) => warn(format!("isolation {} is unknown: {advice}", shown(other))),
        Some((other, None)) => warn(format!("ingress is {}: {advice}", shown(other))),
    }
}
