//! `metadata`: names, labels, annotations and times, each field by itself.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ringfence_model::{Consequence, NamespacedName, Reason, Source};
use serde::Deserialize;
use serde_json::Value;

use crate::clause::{At, Fields, Findings, given, quoted, shown};
use crate::kind::Kind;

/// Largest annotation value that is looked at, in bytes: Kubernetes allows that much for all of an object's
/// annotations together, so a larger one comes from a hand-written file.
pub(crate) const LARGEST_ANNOTATION: usize = 256 * 1024;

/// Who an object is. `Err` holds the reason why nobody can tell.
pub(crate) fn identity(kind: Kind, object: &Fields) -> Result<NamespacedName, String> {
    let metadata = match object.get("metadata") {
        Some(Value::Object(fields)) => fields,
        Some(Value::Null) | None => return Err("metadata is missing; an object needs metadata.name".to_owned()),
        Some(other) => return Err(format!("metadata is {} instead of an object", shown(other))),
    };
    let name = match given(metadata, "name") {
        Some(Value::String(name)) => {
            valid_name(name).map_err(|why| format!("metadata.name {}: {why}", quoted(name)))?
        }
        Some(other) => return Err(format!("metadata.name is {}; put it in quotes", shown(other))),
        None => return Err("metadata.name is missing".to_owned()),
    };
    if kind == Kind::Namespace {
        return Ok(NamespacedName::new("", name));
    }
    let namespace = match given(metadata, "namespace") {
        Some(Value::String(name)) if name.is_empty() => "default",
        Some(Value::String(name)) => {
            valid_name(name).map_err(|why| format!("metadata.namespace {}: {why}", quoted(name)))?
        }
        Some(other) => return Err(format!("metadata.namespace is {}; put it in quotes", shown(other))),
        // As kubectl does without a context.
        None => "default",
    };
    Ok(NamespacedName::new(namespace, name))
}

/// The manifest as messages name it.
pub(crate) fn source_of(kind: Kind, name: &NamespacedName) -> Source {
    Source {
        kind: kind.as_str().into(),
        name: if name.namespace.is_empty() {
            name.name.clone()
        } else {
            name.to_string().into()
        },
    }
}

/// Names end in URLs and in `namespace/name`, so whatever Kubernetes may allow later, these hold.
fn valid_name(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() {
        Err("it is empty")
    } else if text.len() > 253 {
        Err("it is longer than 253 characters")
    } else if text == "." || text == ".." {
        Err("it is no name")
    } else if text.bytes().all(|b| b.is_ascii_graphic() && !b"/%\"\\".contains(&b)) {
        Ok(text)
    } else {
        Err("it has a blank, a slash, a per cent sign, a quote or a character outside of ASCII")
    }
}

/// `metadata`, read leniently.
pub(crate) struct Metadata<'a> {
    fields: &'a Fields,
}

impl<'a> Metadata<'a> {
    /// Of an object that has an [`identity`].
    pub(crate) fn of(object: &'a Fields) -> Option<Self> {
        object
            .get("metadata")
            .and_then(Value::as_object)
            .map(|fields| Self { fields })
    }

    /// The labels; one that is no text is reported and left out.
    pub(crate) fn labels(&self, findings: &mut Findings) -> Vec<(Arc<str>, Arc<str>)> {
        let metadata = At::root("metadata");
        let at = metadata.field("labels");
        let labels = match given(self.fields, "labels") {
            None => return Vec::new(),
            Some(Value::Object(labels)) => labels,
            Some(other) => {
                let message = format!("{} instead of an object of labels", shown(other));
                findings.error(&at, Reason::Schema, Consequence::PartIgnored, message);
                return Vec::new();
            }
        };
        let mut pairs = Vec::with_capacity(labels.len());
        for (key, value) in labels {
            match value {
                Value::String(value) => pairs.push((key.as_str().into(), value.as_str().into())),
                Value::Null => pairs.push((key.as_str().into(), "".into())),
                other => {
                    let message = format!(
                        "the label's value is {} instead of a text; put it in quotes",
                        shown(other)
                    );
                    findings.error(&at.key(key), Reason::Schema, Consequence::PartIgnored, message);
                }
            }
        }
        pairs
    }

    /// An annotation's value, as far as it can be one.
    pub(crate) fn annotation(&self, key: &str, findings: &mut Findings) -> Option<&'a str> {
        let metadata = At::root("metadata");
        let at = metadata.field("annotations");
        let annotations = match given(self.fields, "annotations")? {
            Value::Object(annotations) => annotations,
            // One report is enough, and `policy-for`, `cni` … are all read of the same object.
            other => {
                let message = format!("{} instead of an object of annotations", shown(other));
                if !findings.holds(&at) {
                    findings.error(&at, Reason::Schema, Consequence::PartIgnored, message);
                }
                return None;
            }
        };
        match annotations.get(key)? {
            Value::String(text) if text.len() > LARGEST_ANNOTATION => {
                let message = format!(
                    "the value has {} bytes; Kubernetes allows {LARGEST_ANNOTATION}, so it is treated as absent",
                    text.len()
                );
                findings.error(&at.key(key), Reason::TooLarge, Consequence::PartIgnored, message);
                None
            }
            Value::String(text) => Some(text),
            Value::Null => None,
            other => {
                let message = format!("the annotation is {} instead of a text; put it in quotes", shown(other));
                findings.error(
                    &at.key(key),
                    Reason::InvalidAnnotation,
                    Consequence::PartIgnored,
                    message,
                );
                None
            }
        }
    }

    /// `uid`, if it is a text that is not empty.
    pub(crate) fn uid(&self) -> Option<&'a str> {
        given(self.fields, "uid")
            .and_then(Value::as_str)
            .filter(|uid| !uid.is_empty())
    }

    /// Whether it has a deletionTimestamp.
    pub(crate) fn is_deleted(&self) -> bool {
        given(self.fields, "deletionTimestamp").is_some()
    }

    /// Whether this node controls it, as the kubelet says of mirror pods.
    pub(crate) fn belongs_to_node(&self, node: &str) -> bool {
        let Some(Value::Array(owners)) = given(self.fields, "ownerReferences") else {
            return false;
        };
        let is =
            |owner: &Value, field: &str, expected: &str| owner.get(field).and_then(Value::as_str) == Some(expected);
        owners.iter().any(|owner| {
            is(owner, "apiVersion", "v1")
                && is(owner, "kind", "Node")
                && is(owner, "name", node)
                && owner.get("controller") == Some(&Value::Bool(true))
        })
    }

    /// `creationTimestamp` in seconds since 1970.
    pub(crate) fn created(&self) -> Option<i64> {
        given(self.fields, "creationTimestamp").and_then(seconds)
    }
}

/// An RFC 3339 time in seconds since 1970.
pub(crate) fn seconds(value: &Value) -> Option<i64> {
    Time::deserialize(value).ok().map(|time| time.0.as_second())
}
