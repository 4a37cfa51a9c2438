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
struct Row {
    key: PolicyKey,
    /// `None` where it was rejected as a whole.
    summary: Option<PolicySummary>,
    isolated: Isolated,
    state: PolicyState,
}

fn rows(snapshot: &Snapshot) -> Vec<Row> {
    let isolated = snapshot.isolated_by();
    let known = snapshot.policies.iter().map(|(key, summary)| {
        let isolated = isolated.get(key).copied().unwrap_or_default();
        Row {
            key: key.clone(),
            summary: Some(summary.clone()),
            isolated,
            state: snapshot.policy_state(key, summary, isolated),
        }
    });
    let rejected = snapshot.rejected_policies().into_iter().map(|key| Row {
        key,
        summary: None,
        isolated: Isolated::default(),
        state: PolicyState::Rejected,
    });
    known.chain(rejected).collect()
}

fn text(snapshot: &Snapshot) -> String {
    let rows = rows(snapshot);
    let cells = |row: &Row| {
        [
            row.key.kind.to_string(),
            row.key.name.namespace.to_string(),
            row.key.name.name.to_string(),
            networks(row.summary.as_ref(), snapshot.scope),
            count(row, Direction::Ingress).map_or_else(|| "-".to_owned(), |count| count.to_string()),
            count(row, Direction::Egress).map_or_else(|| "-".to_owned(), |count| count.to_string()),
            row.state.to_string(),
        ]
    };
    let heading = ["KIND", "NAMESPACE", "NAME", "NETWORKS", "INGRESS", "EGRESS", "STATE"];
    let mut out = table(heading, rows.iter().map(cells));
    let findings: Vec<&Diagnostic> = rows.iter().flat_map(|row| snapshot.findings_of(&row.key)).collect();
    if !findings.is_empty() {
        out.push('\n');
    }
    for finding in findings {
        out.push_str(finding.reason.code());
        out.push(' ');
        out.push_str(&finding.to_string());
        out.push('\n');
    }
    out
}

/// Local pods that the policy isolates; `None` where it does not declare that direction at all.
fn count(row: &Row, direction: Direction) -> Option<usize> {
    let summary = row.summary.as_ref()?;
    match direction {
        Direction::Ingress => summary.ingress.then_some(row.isolated.ingress),
        Direction::Egress => summary.egress.then_some(row.isolated.egress),
    }
}

fn networks(summary: Option<&PolicySummary>, scope: Scope) -> String {
    match (summary.map(|summary| &summary.coverage), scope) {
        (Some(Coverage::Networks(networks)), _) => joined(networks),
        (Some(Coverage::Scope), Scope::Secondary) => "(all secondary)".to_owned(),
        (Some(Coverage::Scope), Scope::All) => "(all)".to_owned(),
        (Some(Coverage::Scope), Scope::Annotated | Scope::None) | (None, _) => joined(Vec::<String>::new()),
    }
}

fn json(snapshot: &Snapshot) -> Value {
    rows(snapshot)
        .iter()
        .map(|row| {
            let networks = match row.summary.as_ref().map(|summary| &summary.coverage) {
                Some(Coverage::Networks(networks)) => networks.iter().map(ToString::to_string).collect(),
                Some(Coverage::Scope) | None => Value::Null,
            };
            json!({
                "kind": row.key.kind.as_str(),
                "namespace": &*row.key.name.namespace,
                "name": &*row.key.name.name,
                "networks": networks,
                "ingress": count(row, Direction::Ingress),
                "egress": count(row, Direction::Egress),
                "state": row.state.label(),
                "diagnostics": snapshot.findings_of(&row.key).map(diagnostic).collect::<Value>(),
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
        "code": finding.reason.code(),
        "message": finding.message,
        "consequence": finding.consequence.to_string(),
    })
}
