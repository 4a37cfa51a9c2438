//! `/readyz`: whether every local pod has been dealt with once, and what is pending.

use std::fmt::Write as _;

use axum::extract::{self, RawQuery};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use ringfence_cri::State as Runtime;
use ringfence_kube::api::{Health, State, Trouble};

use crate::http::Readers;
use crate::snapshot::{Snapshot, State as PodState};
use crate::watches::describe;

/// `GET /readyz`
pub async fn ready(extract::State(readers): extract::State<Readers>, RawQuery(query): RawQuery) -> Response {
    let snapshot = readers.snapshots.load();
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    let ready = snapshot.synced && snapshot.settled;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut text = text(&snapshot, &readers.watches.get(), ready, verbose);
    if let Some(health) = readers.watches.nri() {
        text.push_str(&nri(&health, verbose));
    }
    (status, text).into_response()
}

/// A runtime that does not ask before pods start does not make the agent unready: pods are closed when they are found.
fn nri(health: &ringfence_nri::Health, verbose: bool) -> String {
    use ringfence_nri::State;

    match &health.state {
        State::New => "[pending] nri: it has not been tried yet\n".to_owned(),
        State::Connected if verbose => format!(
            "[ok] nri: {} asks before pods start\n",
            health.runtime.as_deref().unwrap_or("the container runtime")
        ),
        State::Connected => String::new(),
        State::Away(error) => format!("[failed] nri: {error}; pods are closed when they are found\n"),
    }
}

/// A pod that waits for its network namespace, that is held, or that the kernel refuses, does not make the agent unready once it has
/// had its turn: it is named here, and counted in the metrics, but an agent that is taken out of service for it would
/// help nobody.
fn text(snapshot: &Snapshot, watches: &[Health], ready: bool, verbose: bool) -> String {
    let mut out = String::from(if ready { "ok\n" } else { "not ready\n" });
    let mut line = |mark: &str, text: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "[{mark}] {text}");
    };
    if !snapshot.synced {
        line(
            "pending",
            &format!(
                "source {}: it has not delivered everything once; until then no pod's rules are touched",
                snapshot.source
            ),
        );
    } else if verbose {
        line("ok", &format!("source {}", snapshot.source));
    }
    // A watch that has worked once and does not at the moment changes nothing of what is in force, so it does not make
    // the agent unready either.
    for health in watches {
        let mark = match (&health.state, health.synced) {
            (State::Watching | State::Troubled(Trouble::NotInstalled), _) => "ok",
            (_, true) => "failed",
            (_, false) => "pending",
        };
        if verbose || mark != "ok" {
            line(mark, &describe(health));
        }
    }
    if let Some(health) = &snapshot.runtime {
        let health = health.borrow();
        match &health.state {
            Runtime::New => line("pending", "container runtime: it has not been asked yet"),
            Runtime::Connected if verbose => line(
                "ok",
                &format!(
                    "container runtime: {}, {} pods placed",
                    health.runtime.as_deref().unwrap_or("nameless"),
                    health.placed
                ),
            ),
            Runtime::Connected => {}
            Runtime::Away(error) => line("failed", &format!("container runtime: {error}; what is known stands")),
        }
    }
    for status in snapshot.pods.values() {
        let name = &status.pod.name;
        match &status.state {
            PodState::Held(reason) => line("held", &format!("pod {name}: {reason}")),
            PodState::Pending(reason) => line("pending", &format!("pod {name}: {reason}")),
            PodState::Failed(reason) => line("failed", &format!("pod {name}: {reason}")),
            PodState::Open | PodState::Enforced if verbose => {
                line("ok", &format!("pod {name}: {}", status.state.label()));
            }
            PodState::Open | PodState::Enforced => {}
        }
    }
    out
}
