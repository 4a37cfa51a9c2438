//! The HTTP interface: everything out of snapshots, so that no reader ever makes the loop wait. `/explain` has the loop
//! copy the few objects that decide, and judges by itself.

mod answer;
mod explain;
mod health;
mod networks;
mod pods;
mod policies;
mod rules;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

use crate::drops::Drops;
use crate::event::Event;
use crate::http::answer::failure_text;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::watches::Watches;

pub use self::policies::diagnostic;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Readers {
    /// The last published picture.
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    /// For the few questions that snapshots do not answer.
    pub events: UnboundedSender<Event>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Memory of the drop counters.
    pub drops: Arc<Drops>,
    /// The watches of the source, where it has any.
    pub watches: Watches,
}

/// The routes of both servers, with what they are for: the index page is made of it.
const HEALTH: [(&str, &str); 3] = [
    ("/metrics", "Prometheus metrics"),
    ("/livez", "200 while the agent runs"),
    (
        "/readyz",
        "200 when every local pod has been dealt with once, else 503; says what is pending (?verbose)",
    ),
];

const ROUTES: [(&str, &str); 8] = [
    ("/pods", "this node's pods and how far their rules are"),
    ("/pods/{name}", "one pod: interfaces, addresses, policies, findings"),
    ("/pods/{name}/rules", "its rules as nft text that loads with nft -f"),
    (
        "/namespaces/{namespace}/pods/{name}",
        "the same, where a name lives in several namespaces",
    ),
    ("/namespaces/{namespace}/pods/{name}/rules", "its rules"),
    (
        "/policies",
        "all policies, what they isolate here, and what is wrong with them",
    ),
    ("/networks", "all networks and who is on them"),
    (
        "/explain?from=…&to=…&port=…",
        "whether one pod or address may connect to another, and why (&network=…, &family=4|6)",
    ),
];

/// The server with every route.
pub fn router(readers: Readers) -> Router {
    Router::new()
        .route("/", get(|| async { index(&[ROUTES.as_slice(), &HEALTH].concat()) }))
        .route("/pods", get(pods::list))
        .route("/pods/{name}", get(pods::by_name))
        .route("/pods/{name}/rules", get(rules::by_name))
        .route("/namespaces/{namespace}/pods/{name}", get(pods::by_full_name))
        .route("/namespaces/{namespace}/pods/{name}/rules", get(rules::by_full_name))
        .route("/policies", get(policies::list))
        .route("/networks", get(networks::list))
        .route("/explain", get(explain::answer))
        .merge(health())
        .fallback(unknown)
        .with_state(readers)
}

/// The server with metrics and health only, for addresses that others can reach.
pub fn health_router(readers: Readers) -> Router {
    Router::new()
        .route("/", get(|| async { index(&HEALTH) }))
        .merge(health())
        .fallback(unknown)
        .with_state(readers)
}

fn health() -> Router<Readers> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(health::ready))
}

/// Takes the address. Separate from serving, so that an address in use is known before anything else is started.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: give another address with {flag}, or {flag} off"))
}

fn index(routes: &[(&str, &str)]) -> String {
    let rows = routes
        .iter()
        .map(|(path, what)| [(*path).to_owned(), (*what).to_owned()]);
    format!(
        "Ringfence {}\n\n{}\nListings and pods are text; JSON with ?output=json or Accept: application/json.\n",
        env!("CARGO_PKG_VERSION"),
        crate::table::table(["ROUTE", "WHAT"], rows)
    )
}

async fn unknown(uri: Uri) -> Response {
    failure_text(
        StatusCode::NOT_FOUND,
        &format!("There is no route {}; / lists all of them.", uri.path()),
    )
}

async fn metrics(State(readers): State<Readers>) -> Response {
    let snapshot = readers.snapshots.load_full();
    readers.drops.collect(&snapshot, &readers.metrics).await;
    if let Some(health) = readers.watches.nri() {
        readers.metrics.starts().refresh(&health);
    }
    match readers.metrics.render(&snapshot, &readers.watches.get()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => failure_text(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("The metrics cannot be written: {error}"),
        ),
    }
}
