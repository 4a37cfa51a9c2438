//! Text or JSON values in, domain objects and diagnostics out.

use ringfence_model::{Consequence, Diagnostic, Object, Reason, Severity, Source};
use serde_json::Value;

use crate::clause::{Fields, Findings, quoted, shown};
use crate::document;
use crate::kind::{Class, Kind, classify};
use crate::metadata::{Metadata, identity, source_of};
use crate::{namespace, network, pod, policy};

/// One manifest after decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// What its diagnostics are about: the object, or the file where no object can be named.
    pub source: Source,
    /// `None` where it was rejected as a whole; the diagnostics say why.
    pub object: Option<Object>,
    /// Everything that is wrong with it or likely not meant, in the order of the manifest.
    pub diagnostics: Vec<Diagnostic>,
}

/// How far decoding came: the directory source keeps the last good content where it did not come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is an object.
    Good,
    /// Its kind and name are known, but it cannot be used.
    Rejected,
    /// Nobody can say which object this is.
    Unidentified,
    /// A kind that Ringfence does not read: nothing is missing.
    Foreign,
}

/// A [`Decoded`] with how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) decoded: Decoded,
    pub(crate) outcome: Outcome,
}

/// The source of a file as a whole.
pub(crate) fn file_source(origin: &str) -> Source {
    Source {
        kind: "File".into(),
        name: origin.into(),
    }
}

/// Decodes YAML or JSON, one document or many, `List`s included. `origin` is the file's name, for documents that are
/// no recognisable object. A bad document spoils only itself. Kinds that Ringfence has no use for leave no trace
/// beyond a log line at debug level.
pub fn decode(text: &str, origin: &str) -> Vec<Decoded> {
    document::read(text, origin)
        .into_iter()
        .flat_map(|document| document.items)
        .map(|item| item.decoded)
        .collect()
}

/// Decodes one object or one `List`, as the API or a parser hands it over.
pub fn decode_value(value: Value, origin: &str) -> Vec<Decoded> {
    let items = decode_items(&value, origin, "");
    drop(value);
    items.into_iter().map(|item| item.decoded).collect()
}

/// Decodes an object whose kind is known from elsewhere: items of API lists carry neither kind nor apiVersion.
pub fn decode_kind(kind: Kind, value: &Value, origin: &str) -> Decoded {
    decode_known(kind, value, origin, "", None).decoded
}

/// `place` says where in the file it stands (`document 3: `), for messages about what has no name.
pub(crate) fn decode_items(value: &Value, origin: &str, place: &str) -> Vec<Item> {
    let mut items = Vec::new();
    flatten(value, None, origin, place, &mut items);
    items
}

/// Kind and apiVersion that the items of a typed list inherit.
type Inherited<'a> = Option<(&'a str, &'a str)>;

fn flatten(value: &Value, inherited: Inherited<'_>, origin: &str, place: &str, out: &mut Vec<Item>) {
    let Value::Object(fields) = value else {
        let message = format!(
            "{place}{} is no Kubernetes object; it has no apiVersion and kind",
            shown(value)
        );
        out.push(unidentified(origin, Reason::UnknownKind, message));
        return;
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let (kind, api_version) = match (text("kind"), text("apiVersion"), inherited) {
        (Some(kind), Some(api_version), _) => (kind, api_version),
        (kind, api_version, Some((list_kind, list_version))) => {
            (kind.unwrap_or(list_kind), api_version.unwrap_or(list_version))
        }
        (kind, api_version, None) => {
            let missing = if kind.is_none() { "kind" } else { "apiVersion" };
            let message = format!(
                "{place}{missing} is missing or no text{}",
                kind.or(api_version)
                    .map(|text| format!(" (beside {})", quoted(text)))
                    .unwrap_or_default()
            );
            out.push(unidentified(origin, Reason::UnknownKind, message));
            return;
        }
    };
    match classify(api_version, kind) {
        Class::Read(kind, remark) => out.push(decode_known(kind, value, origin, place, remark)),
        Class::List => flatten_list(fields, kind, api_version, origin, place, out),
        Class::PassOver => tracing::debug!(origin, kind, api_version, "Document passed over: not a kind to read"),
        Class::Unknown(why) => out.push(foreign(fields, kind, origin, format!("{place}{why}"))),
    }
}

fn flatten_list(fields: &Fields, kind: &str, api_version: &str, origin: &str, place: &str, out: &mut Vec<Item>) {
    let items = match fields.get("items") {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => return,
        Some(other) => {
            let message = format!("{place}items of {kind} is {} instead of a list", shown(other));
            out.push(unidentified(origin, Reason::Schema, message));
            return;
        }
    };
    // `List` gives its items no kind; `PodList` does.
    let item_kind = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
    for (position, item) in items.iter().enumerate() {
        let place = format!("{place}items[{position}]: ");
        flatten(item, item_kind.map(|kind| (kind, api_version)), origin, &place, out);
    }
}

fn decode_known(kind: Kind, value: &Value, origin: &str, place: &str, remark: Option<String>) -> Item {
    let Some(fields) = value.as_object() else {
        let message = format!("{place}{} is {} instead of an object", kind.as_str(), shown(value));
        return unidentified(origin, Reason::Schema, message);
    };
    let (name, metadata) = match (identity(kind, fields), Metadata::of(fields)) {
        (Ok(name), Some(metadata)) => (name, metadata),
        (Ok(_), None) => return unidentified(origin, Reason::Schema, format!("{place}metadata is missing")),
        (Err(why), _) => {
            let message = format!("{place}{} cannot be identified: {why}", kind.as_str());
            return unidentified(origin, Reason::Schema, message);
        }
    };
    let mut findings = Findings::new(source_of(kind, &name));
    if let Some(remark) = remark {
        findings.whole(Severity::Warning, Reason::UnknownKind, Consequence::None, remark);
    }
    let object = match kind {
        Kind::Namespace => Some(Object::Namespace(namespace::decode(
            name.name,
            &metadata,
            &mut findings,
        ))),
        Kind::Pod => pod::decode(name, &metadata, fields, &mut findings).map(Object::Pod),
        Kind::NetworkPolicy | Kind::MultiNetworkPolicy => Some(Object::Policy(policy::decode(
            kind,
            name,
            &metadata,
            fields,
            &mut findings,
        ))),
        Kind::NetworkAttachmentDefinition => Some(Object::Network(network::decode(name, fields, &mut findings))),
    };
    let outcome = if object.is_some() {
        Outcome::Good
    } else {
        Outcome::Rejected
    };
    Item {
        decoded: Decoded {
            source: findings.source().clone(),
            object,
            diagnostics: findings.into_diagnostics(),
        },
        outcome,
    }
}

/// A document that is about nothing that can be named.
pub(crate) fn unidentified(origin: &str, reason: Reason, message: String) -> Item {
    let mut findings = Findings::new(file_source(origin));
    findings.whole(Severity::Error, reason, Consequence::ObjectIgnored, message);
    Item {
        decoded: Decoded {
            source: findings.source().clone(),
            object: None,
            diagnostics: findings.into_diagnostics(),
        },
        outcome: Outcome::Unidentified,
    }
}

/// A name that nobody has checked as `identity` does: as long as a name may be, and on one line.
fn line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(253).map(printable).collect()
}

fn foreign(fields: &Fields, kind: &str, origin: &str, why: String) -> Item {
    let text = |name: &str| {
        fields
            .get("metadata")
            .and_then(|metadata| metadata.get(name))
            .and_then(Value::as_str)
            .map(line)
    };
    let source = match (text("namespace"), text("name")) {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
        (None, Some(name)) => Some(name),
        (_, None) => None,
    }
    .map_or_else(
        || file_source(origin),
        |name| Source {
            kind: line(kind).into(),
            name: name.into(),
        },
    );
    let mut findings = Findings::new(source);
    findings.whole(Severity::Warning, Reason::UnknownKind, Consequence::ObjectIgnored, why);
    Item {
        decoded: Decoded {
            source: findings.source().clone(),
            object: None,
            diagnostics: findings.into_diagnostics(),
        },
        outcome: Outcome::Foreign,
    }
}
