//! Findings as text and as JSON.

use std::fmt;
use std::path::PathBuf;

use ringfence_model::Source;
use ringfence_policy::advice::Level;
use serde_json::{Value, json};

use super::shown;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The stable code: `RF112`.
    pub code: &'static str,
    /// How much it matters.
    pub level: Level,
    /// The object, or the file where no object can be named.
    pub source: Source,
    /// The file in which the object stands; empty where nobody can tell.
    pub file: PathBuf,
    /// Where in the object; empty for the whole.
    pub path: String,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// How many objects were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Namespaces.
    pub namespaces: usize,
    /// Pods.
    pub pods: usize,
    /// NetworkPolicies.
    pub network_policies: usize,
    /// MultiNetworkPolicies.
    pub multi_policies: usize,
    /// NetworkAttachmentDefinitions.
    pub networks: usize,
    /// CustomResourceDefinitions of MultiNetworkPolicy.
    pub definitions: usize,
}

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Objects that were looked at.
    pub counts: Counts,
    /// By file, then by object.
    pub findings: Vec<Finding>,
    /// There are policies and no pods, so that nothing can be said about what selectors select.
    pub blind: bool,
}

impl Counts {
    /// All of them.
    pub fn total(self) -> usize {
        self.namespaces + self.pods + self.policies() + self.networks + self.definitions
    }

    /// Policies of both kinds.
    pub fn policies(self) -> usize {
        self.network_policies + self.multi_policies
    }

    fn named(self) -> [(usize, &'static str, &'static str); 6] {
        [
            (self.namespaces, "Namespace", "namespaces"),
            (self.pods, "Pod", "pods"),
            (self.network_policies, "NetworkPolicy", "networkPolicies"),
            (self.multi_policies, "MultiNetworkPolicy", "multiNetworkPolicies"),
            (
                self.networks,
                "NetworkAttachmentDefinition",
                "networkAttachmentDefinitions",
            ),
            (
                self.definitions,
                "CustomResourceDefinition",
                "customResourceDefinitions",
            ),
        ]
    }
}

impl Report {
    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let objects: serde_json::Map<String, Value> = self
            .counts
            .named()
            .into_iter()
            .map(|(count, _, key)| (key.to_owned(), count.into()))
            .collect();
        let findings = self.findings.iter().map(|finding| {
            json!({
                "code": finding.code,
                "severity": finding.level.as_str(),
                "kind": &*finding.source.kind,
                "name": &*finding.source.name,
                "file": shown(&finding.file),
                "path": finding.path,
                "message": finding.message,
                "hint": finding.hint,
            })
        });
        json!({"objects": objects, "findings": findings.collect::<Value>()})
    }
}

/// One line without control characters: texts come from manifests, and a terminal obeys some of them.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if &*self.source.kind == "File" {
            self.source.name.to_string()
        } else {
            format!("{} ({})", self.source, shown(&self.file))
        };
        let mut line = format!("{} {} {place}", self.code, self.level);
        for part in [&self.path, &self.message] {
            if !part.is_empty() {
                line.push_str(": ");
                line.push_str(part);
            }
        }
        if !self.hint.is_empty() {
            line.push_str("; to do: ");
            line.push_str(&self.hint);
        }
        f.write_str(&line.replace(char::is_control, "?"))
    }
}

/// A line for each finding, then what was looked at.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let found = [
            (self.count(Level::Error), "error", "errors"),
            (self.count(Level::Warning), "warning", "warnings"),
            (self.count(Level::Info), "info", "infos"),
        ];
        let found: Vec<String> = found
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
            .collect();
        let found = if found.is_empty() {
            "Nothing found".to_owned()
        } else {
            found.join(", ")
        };
        let kinds: Vec<String> = self
            .counts
            .named()
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, kind, _)| format!("{count} {kind}"))
            .collect();
        let total = self.counts.total();
        let objects = if total == 1 { "object" } else { "objects" };
        let kinds = if kinds.is_empty() {
            String::new()
        } else {
            format!(" ({})", kinds.join(", "))
        };
        writeln!(f, "{found} in {total} {objects}{kinds}.")?;
        if self.blind {
            writeln!(
                f,
                "There is no pod among them, so what selectors select was not looked at."
            )?;
        }
        Ok(())
    }
}
