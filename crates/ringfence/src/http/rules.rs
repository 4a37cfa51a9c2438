//! `/pods/{name}/rules`: a pod's ruleset as nft text with a header of comments, so that the whole loads with `nft -f`.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use ringfence_ruleset::Ruleset;
use serde_json::Value;

use crate::http::Readers;
use crate::http::answer::Format;
use crate::http::pods;
use crate::snapshot::{PodStatus, Snapshot, State as PodState};

/// `GET /pods/{name}/rules`
pub async fn by_name(State(readers): State<Readers>, Path(name): Path<String>, format: Format) -> Response {
    answer(readers.find(None, &name, "/rules", format).await, format)
}

/// `GET /namespaces/{namespace}/pods/{name}/rules`
pub async fn by_full_name(
    State(readers): State<Readers>,
    Path((namespace, name)): Path<(String, String)>,
    format: Format,
) -> Response {
    answer(readers.find(Some(&namespace), &name, "/rules", format).await, format)
}

fn answer(found: Result<(Arc<Snapshot>, Arc<PodStatus>), Response>, format: Format) -> Response {
    match found {
        Ok((snapshot, status)) => format.answer(|| text(&status, &snapshot), || json(&status, &snapshot)),
        Err(failure) => failure,
    }
}

/// Which rules are shown, and what is to be said about them.
fn shown(status: &PodStatus) -> (Option<&Ruleset>, &'static str) {
    let wanted = status.wanted.as_deref();
    match (&status.state, status.in_kernel.as_deref()) {
        (PodState::Enforced, _) if status.is_current() => (wanted, "rules: in force"),
        (PodState::Enforced, _) => (wanted, "rules: being written, those before are in force until then"),
        (PodState::Open, None) => (wanted, "rules: none, everything passes"),
        (PodState::Open, Some(before)) => (Some(before), "rules: being removed, in force until then"),
        (PodState::Held(_), None) => (None, "rules: those of an earlier run are in force and cannot be shown"),
        (PodState::Failed(_) | PodState::Held(_), Some(before)) => {
            (Some(before), "rules: those that were in force before and still are")
        }
        (PodState::Failed(_), None) | (PodState::Pending(_), _) => (wanted, "rules: wanted, NOT in force"),
    }
}

fn text(status: &PodStatus, snapshot: &Snapshot) -> String {
    let (ruleset, remark) = shown(status);
    let mut out = String::new();
    for line in pods::text(status, snapshot).lines().chain([remark]) {
        // No text out of a manifest may end the comment: it would be read as rules.
        let _ = writeln!(out, "# {}", line.replace(char::is_control, "?"));
    }
    if let Some(ruleset) = ruleset {
        let _ = write!(out, "{ruleset}");
    }
    out
}

fn json(status: &PodStatus, snapshot: &Snapshot) -> Value {
    let (ruleset, remark) = shown(status);
    let mut out = pods::json(status, snapshot);
    if let Value::Object(fields) = &mut out {
        fields.insert("rules".to_owned(), remark.trim_start_matches("rules: ").into());
        fields.insert("ruleset".to_owned(), ruleset.map(ToString::to_string).into());
    }
    out
}
