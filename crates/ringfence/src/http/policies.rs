//! `/policies`

use axum::extract::State;
use axum::response::Response;
use ringfence_model::{Coverage, Diagnostic, Direction, PolicyKey, Scope, Severity};
use serde_json::{Value, json};

use crate::http::Readers;
use crate::http::answer::Format;
use crate::snapshot::{Isolated, PolicyState, PolicySummary, Snapshot};
use crate::table::{list as joined, table};

/// `GET /policies`
pub async fn list(State(readers): State<Readers>, format: Format) -> Response {
    let snapshot = readers.snapshots.load();
    format.answer(|| text(&snapshot), || json(&snapshot))
}

/// A policy with what this node makes of it.
struct Row<'a> {
    key: &'a PolicyKey,
    summary: &'a PolicySummary,
    isolated: Isolated,
    state: PolicyState,
}

fn rows(snapshot: &Snapshot) -> Vec<Row<'_>> {
    let isolated = snapshot.isolated_by();
    let row = |(key, summary)| {
        let isolated = isolated.get(key).copied().unwrap_or_default();
        Row {
            key,
            summary,
            isolated,
            state: snapshot.policy_state(key, summary, isolated),
        }
    };
    snapshot.policies.iter().map(row).collect()
}

fn text(snapshot: &Snapshot) -> String {
    let mut out = table(
        ["KIND", "NAMESPACE", "NAME", "NETWORKS", "INGRESS", "EGRESS", "STATE"],
        rows(snapshot).into_iter().map(|row| {
            [
                row.key.kind.to_string(),
                row.key.name.namespace.to_string(),
                row.key.name.name.to_string(),
                networks(row.summary, snapshot.scope),
                count(&row, Direction::Ingress),
                count(&row, Direction::Egress),
                row.state.to_string(),
            ]
        }),
    );
    let findings: Vec<&Diagnostic> = snapshot
        .policies
        .keys()
        .flat_map(|key| snapshot.findings_of(key))
        .collect();
    if !findings.is_empty() {
        out.push('\n');
    }
    for finding in findings {
        out.push_str(&finding.to_string());
        out.push('\n');
    }
    out
}

/// `-` where the policy does not isolate that direction at all.
fn count(row: &Row<'_>, direction: Direction) -> String {
    let (acts, count) = match direction {
        Direction::Ingress => (row.summary.ingress, row.isolated.ingress),
        Direction::Egress => (row.summary.egress, row.isolated.egress),
    };
    if acts { count.to_string() } else { "-".to_owned() }
}

fn networks(summary: &PolicySummary, scope: Scope) -> String {
    match (&summary.coverage, scope) {
        (Coverage::Networks(networks), _) => joined(networks),
        (Coverage::Scope, Scope::Secondary) => "(all secondary)".to_owned(),
        (Coverage::Scope, Scope::All) => "(all)".to_owned(),
        (Coverage::Scope, Scope::Annotated | Scope::None) => joined(Vec::<String>::new()),
    }
}

fn json(snapshot: &Snapshot) -> Value {
    rows(snapshot)
        .into_iter()
        .map(|row| {
            let networks = match &row.summary.coverage {
                Coverage::Networks(networks) => networks.iter().map(ToString::to_string).collect(),
                Coverage::Scope => Value::Null,
            };
            json!({
                "kind": row.key.kind.as_str(),
                "namespace": &*row.key.name.namespace,
                "name": &*row.key.name.name,
                "networks": networks,
                "ingress": row.summary.ingress.then_some(row.isolated.ingress),
                "egress": row.summary.egress.then_some(row.isolated.egress),
                "state": row.state.label(),
                "diagnostics": snapshot.findings_of(row.key).map(diagnostic).collect::<Value>(),
            })
        })
        .collect()
}

/// A finding as JSON.
pub fn diagnostic(finding: &Diagnostic) -> Value {
    json!({
        "kind": &*finding.source.kind,
        "name": &*finding.source.name,
        "path": finding.path,
        "severity": match finding.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        },
        "reason": finding.reason.as_str(),
        "message": finding.message,
        "consequence": finding.consequence.to_string(),
    })
}
