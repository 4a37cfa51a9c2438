//! `metav1.LabelSelector`, with the API server's validation (statements 53 to 61, 223).

use std::sync::Arc;

use ringfence_model::{Consequence, Reason, Requirement, Selector};
use serde_json::Value;

use super::rejects_unknown;
use crate::clause::{At, Fields, Findings, given, shown};

/// Decodes a selector. `None`: it is invalid, which has been reported with the given consequence.
pub(super) fn decode(
    value: &Value,
    at: &At<'_>,
    consequence: Consequence,
    findings: &mut Findings,
) -> Option<Selector> {
    let mut decoder = Decoder {
        consequence,
        findings,
        valid: true,
        requirements: Vec::new(),
    };
    decoder.selector(value, at);
    decoder.valid.then(|| Selector::new(decoder.requirements))
}

/// Goes through the whole selector, so that one look shows all of its mistakes.
struct Decoder<'a> {
    consequence: Consequence,
    findings: &'a mut Findings,
    valid: bool,
    requirements: Vec<Requirement>,
}

impl Decoder<'_> {
    fn reject(&mut self, at: &At<'_>, message: String) {
        self.valid = false;
        self.findings
            .error(at, Reason::InvalidSelector, self.consequence, message);
    }

    fn selector(&mut self, value: &Value, at: &At<'_>) {
        let Value::Object(fields) = value else {
            self.reject(
                at,
                format!("{} instead of a selector; {{}} selects everything", shown(value)),
            );
            return;
        };
        self.known(fields, &["matchLabels", "matchExpressions"], "a selector", at);
        let labels_at = at.field("matchLabels");
        match given(fields, "matchLabels") {
            None => {}
            Some(Value::Object(labels)) => {
                for (key, value) in labels {
                    self.label(key, value, &labels_at.key(key));
                }
            }
            Some(other) => self.reject(&labels_at, format!("{} instead of an object of labels", shown(other))),
        }
        let expressions_at = at.field("matchExpressions");
        match given(fields, "matchExpressions") {
            None => {}
            Some(Value::Array(expressions)) => {
                for (position, expression) in expressions.iter().enumerate() {
                    self.expression(expression, &expressions_at.index(position));
                }
            }
            Some(other) => self.reject(&expressions_at, format!("{} instead of a list", shown(other))),
        }
    }

    fn known(&mut self, fields: &Fields, known: &[&str], what: &str, at: &At<'_>) {
        let rejected = rejects_unknown(
            fields,
            known,
            what,
            Reason::InvalidSelector,
            self.consequence,
            at,
            self.findings,
        );
        self.valid &= !rejected;
    }

    fn label(&mut self, key: &str, value: &Value, at: &At<'_>) {
        let key = self.key(key, at);
        let value = self.value(value, at);
        if let (Some(key), Some(value)) = (key, value) {
            self.requirements.push(Requirement::In {
                key,
                values: vec![value],
            });
        }
    }

    fn expression(&mut self, value: &Value, at: &At<'_>) {
        let Value::Object(fields) = value else {
            self.reject(at, format!("{} instead of key, operator and values", shown(value)));
            return;
        };
        self.known(fields, &["key", "operator", "values"], "an expression", at);
        let key_at = at.field("key");
        let key = match given(fields, "key") {
            Some(Value::String(key)) => self.key(key, &key_at),
            Some(other) => {
                self.reject(&key_at, format!("{} instead of a label's key", shown(other)));
                None
            }
            None => {
                self.reject(&key_at, "the key is missing".to_owned());
                None
            }
        };
        let values_at = at.field("values");
        let values: Option<Vec<Arc<str>>> = match given(fields, "values") {
            None => Some(Vec::new()),
            Some(Value::Array(values)) => values
                .iter()
                .enumerate()
                .map(|(position, value)| self.value(value, &values_at.index(position)))
                .collect(),
            Some(other) => {
                self.reject(&values_at, format!("{} instead of a list of texts", shown(other)));
                None
            }
        };
        let operator_at = at.field("operator");
        let operator = match given(fields, "operator") {
            Some(Value::String(operator)) => operator.as_str(),
            other => {
                let given = other.map_or_else(|| "nothing".to_owned(), shown);
                self.reject(
                    &operator_at,
                    format!("{given} instead of In, NotIn, Exists or DoesNotExist"),
                );
                return;
            }
        };
        if !matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist") {
            let operator = shown(&Value::from(operator));
            self.reject(
                &operator_at,
                format!("{operator} is none of In, NotIn, Exists and DoesNotExist"),
            );
            return;
        }
        let (Some(key), Some(mut values)) = (key, values) else {
            return;
        };
        values.sort();
        values.dedup();
        match (operator, values.is_empty()) {
            ("In", false) => self.requirements.push(Requirement::In { key, values }),
            ("NotIn", false) => self.requirements.push(Requirement::NotIn { key, values }),
            ("Exists", true) => self.requirements.push(Requirement::Exists(key)),
            ("DoesNotExist", true) => self.requirements.push(Requirement::DoesNotExist(key)),
            (_, true) => self.reject(&values_at, format!("{operator} needs at least one value")),
            (_, false) => self.reject(&values_at, format!("{operator} takes no values")),
        }
    }

    fn key(&mut self, key: &str, at: &At<'_>) -> Option<Arc<str>> {
        match check_key(key) {
            Ok(()) => Some(key.into()),
            Err(why) => {
                self.reject(at, format!("{} is no label key: {why}", crate::clause::quoted(key)));
                None
            }
        }
    }

    fn value(&mut self, value: &Value, at: &At<'_>) -> Option<Arc<str>> {
        let Value::String(text) = value else {
            self.reject(
                at,
                format!("{} instead of a label's value; put it in quotes", shown(value)),
            );
            return None;
        };
        if text.is_empty() || is_label_word(text) {
            return Some(text.as_str().into());
        }
        self.reject(
            at,
            format!(
                "{} is no label value: up to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends",
                shown(value)
            ),
        );
        None
    }
}

fn check_key(key: &str) -> Result<(), &'static str> {
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) => {
            let label = |part: &str| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && !part.starts_with('-')
                    && !part.ends_with('-')
            };
            if prefix.is_empty() || prefix.len() > 253 || !prefix.split('.').all(label) {
                return Err("what stands before the slash is no domain name");
            }
            name
        }
    };
    if is_label_word(name) {
        Ok(())
    } else {
        Err("a name has 1 to 63 letters, digits, '-', '_' and '.', and a letter or digit at both ends")
    }
}

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}
