//! `/networks`

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::Readers;
use crate::http::answer::Format;
use crate::snapshot::{Snapshot, network_kind};
use crate::table::table;

/// `GET /networks`
pub async fn list(State(readers): State<Readers>, format: Format) -> Response {
    let snapshot = readers.snapshots.load();
    format.answer(|| text(&snapshot), || json(&snapshot))
}

fn text(snapshot: &Snapshot) -> String {
    table(
        ["NAME", "KIND", "PODS", "LOCAL PODS", "INTERFACES"],
        snapshot.networks.iter().map(|(name, summary)| {
            [
                name.to_string(),
                network_kind(name, *summary).to_owned(),
                summary.pods.to_string(),
                summary.local_pods.to_string(),
                summary.interfaces.to_string(),
            ]
        }),
    )
}

fn json(snapshot: &Snapshot) -> Value {
    snapshot
        .networks
        .iter()
        .map(|(name, summary)| {
            json!({
                "name": name.to_string(),
                "kind": network_kind(name, *summary),
                "pods": summary.pods,
                "localPods": summary.local_pods,
                "interfaces": summary.interfaces,
            })
        })
        .collect()
}
