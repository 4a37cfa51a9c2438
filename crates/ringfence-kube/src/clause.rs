//! Places in a manifest, values in messages, and the list of what was found wrong.

use std::fmt;

use ringfence_model::{Consequence, Diagnostic, Reason, Severity, Source};
use serde_json::{Map, Value};

/// A JSON or YAML object.
pub(crate) type Fields = Map<String, Value>;

/// Longest part of a value that a message repeats, in characters.
const SHOWN: usize = 64;

/// A place in a manifest, such as `spec.ingress[0].from[1].ipBlock.cidr`. It borrows its parents, so that manifests
/// without mistakes cost no text.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// A top-level field.
    pub(crate) fn root(name: &'a str) -> Self {
        Self {
            parent: None,
            step: Step::Field(name),
        }
    }

    /// `.name`
    pub(crate) fn field(&'a self, name: &'a str) -> At<'a> {
        Self {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// `[index]`, counted from 0
    pub(crate) fn index(&'a self, index: usize) -> At<'a> {
        Self {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// `[key]` of a map whose keys are the users' own
    pub(crate) fn key(&'a self, key: &'a str) -> At<'a> {
        Self {
            parent: Some(self),
            step: Step::Key(key),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{}", Cut(name)),
            Step::Field(name) => write!(f, "{}", Cut(name)),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{}]", Cut(key)),
        }
    }
}

/// A user's text within a path or, where quotes would only disturb, a message: short, and without characters that would
/// break the line.
pub(crate) struct Cut<'a>(pub(crate) &'a str);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, character) in self.0.chars().enumerate() {
            if count == SHOWN {
                return f.write_str("…");
            }
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// A text in quotes, cut to a readable length.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A value as a message repeats it: scalars as they are, lists and objects by their type.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(it) => it.to_string(),
        Value::Number(it) => {
            let text = it.to_string();
            text.chars().take(SHOWN).collect()
        }
        Value::String(it) => quoted(it),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A field's value. Null counts as absent, as it does for Kubernetes.
pub(crate) fn given<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// The first field that is not among the known ones.
pub(crate) fn unknown_field<'a>(fields: &'a Fields, known: &[&str]) -> Option<&'a str> {
    fields.keys().map(String::as_str).find(|key| !known.contains(key))
}

/// Collects the diagnostics of one object.
pub(crate) struct Findings {
    source: Source,
    list: Vec<Diagnostic>,
}

impl Findings {
    /// Nothing found yet in this manifest.
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            list: Vec::new(),
        }
    }

    /// A clause is rejected.
    pub(crate) fn error(&mut self, at: &At<'_>, reason: Reason, consequence: Consequence, message: String) {
        self.push(at.to_string(), Severity::Error, reason, consequence, message);
    }

    /// Something is legal but likely a mistake.
    pub(crate) fn warn(&mut self, at: &At<'_>, reason: Reason, consequence: Consequence, message: String) {
        self.push(at.to_string(), Severity::Warning, reason, consequence, message);
    }

    /// Something about the manifest as a whole.
    pub(crate) fn whole(&mut self, severity: Severity, reason: Reason, consequence: Consequence, message: String) {
        self.push(String::new(), severity, reason, consequence, message);
    }

    fn push(&mut self, path: String, severity: Severity, reason: Reason, consequence: Consequence, message: String) {
        self.list.push(Diagnostic {
            source: self.source.clone(),
            path,
            severity,
            reason,
            message,
            consequence,
        });
    }

    /// Whether something was already said of this very place.
    pub(crate) fn holds(&self, at: &At<'_>) -> bool {
        let path = at.to_string();
        self.list.iter().any(|diagnostic| diagnostic.path == path)
    }

    /// The source that all of them speak of.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Everything that was found, in the order of the manifest.
    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.list
    }
}
