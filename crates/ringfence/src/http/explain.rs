//! `/explain`: what `ringfence explain` says, of the cluster as the agent knows it.

use std::fmt::Write as _;

use axum::extract::{Query as UrlQuery, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use ringfence_model::{Diagnostic, Family, NamespacedName};
use ringfence_policy::evaluate::{Party, Universe};
use ringfence_policy::explain::{NetworkArg, Question, Refusal, What, explain};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::event::{Event, Query};
use crate::explain::{Concern, json, text};
use crate::http::Readers;
use crate::http::answer::Format;
use crate::http::pods::{PATIENCE, near_pods};
use crate::snapshot::Snapshot;

const EXAMPLE: &str = "/explain?from=shop/client&to=shop/web&port=80/tcp";

/// As they stand in the URL.
#[derive(Debug, Clone, Deserialize)]
struct Parameters {
    from: Option<String>,
    to: Option<String>,
    port: Option<String>,
    network: Option<String>,
    family: Option<String>,
}

/// `GET /explain`: 200 whatever the verdict is.
pub async fn answer(State(readers): State<Readers>, uri: Uri, format: Format) -> Response {
    match judged(&readers, &uri, format).await {
        Ok(response) | Err(response) => response,
    }
}

async fn judged(readers: &Readers, uri: &Uri, format: Format) -> Result<Response, Response> {
    let bad = |sentence: String| format.failure(StatusCode::BAD_REQUEST, &sentence);
    let parameters = UrlQuery::<Parameters>::try_from_uri(uri);
    let UrlQuery(parameters) = parameters.map_err(|_| bad("The parameters of the URL cannot be read.".to_owned()))?;
    let what = required("port", parameters.port.as_deref()).and_then(str::parse::<What>);
    let what = what.map_err(|why| bad(sentence(&why)))?;
    let network = parameters.network.as_deref().map(str::parse::<NetworkArg>).transpose();
    let network = network.map_err(|why| bad(sentence(&why)))?;
    let family = match parameters.family.as_deref() {
        None => None,
        Some("4") => Some(Family::V4),
        Some("6") => Some(Family::V6),
        Some(other) => return Err(bad(format!("There is no IP family {other:?}: it is 4 or 6."))),
    };
    let mut ends = Vec::new();
    for (name, value) in [("from", &parameters.from), ("to", &parameters.to)] {
        let text = required(name, value.as_deref()).map_err(|why| bad(sentence(&why)))?;
        ends.push(readers.party(name, text, &parameters, format).await?);
    }
    let [from, to] = <[Party; 2]>::try_from(ends).map_err(|_| bad(String::new()))?;
    let slice = readers.slice(vec![from.clone(), to.clone()]).await;
    let slice =
        slice.ok_or_else(|| format.failure(StatusCode::SERVICE_UNAVAILABLE, "The agent loop does not answer."))?;
    let snapshot = readers.snapshots.load_full();
    let question = Question {
        from,
        to,
        network,
        what,
        family,
    };
    match explain(&slice, &question) {
        Ok(answer) => {
            let findings = findings(&snapshot, &slice, &question);
            Ok(format.answer(|| text::write(&answer, &findings), || json::value(&answer, &findings)))
        }
        Err(Refusal::UnknownPod(name)) => Err(readers.unknown_end(&snapshot, &name, format).await),
        Err(refusal) => Err(format.failure(StatusCode::UNPROCESSABLE_ENTITY, &sentence(&refusal.to_string()))),
    }
}

impl Readers {
    /// The end that a parameter names. A name without a namespace is looked for everywhere.
    async fn party(&self, parameter: &str, text: &str, all: &Parameters, format: Format) -> Result<Party, Response> {
        if text.contains('/') || text.parse::<std::net::IpAddr>().is_ok() {
            return text
                .parse()
                .map_err(|why: String| format.failure(StatusCode::BAD_REQUEST, &sentence(&why)));
        }
        let mut found: Vec<NamespacedName> = self.locate(None, text).await.into_iter().map(|it| it.0).collect();
        found.dedup();
        match found.as_slice() {
            [] => {
                let snapshot = self.snapshots.load_full();
                let failure = format!(
                    "There is no pod named {text}, and it is no address.{}",
                    hints(&snapshot, text)
                );
                Err(format.failure(StatusCode::NOT_FOUND, &failure))
            }
            [name] => Ok(Party::Pod(name.clone())),
            several => {
                let urls: Vec<String> = several
                    .iter()
                    .map(|name| all.url(parameter, &name.to_string()))
                    .collect();
                let body = format.answer(|| urls.join("\n") + "\n", || json!(urls));
                Err((StatusCode::MULTIPLE_CHOICES, body).into_response())
            }
        }
    }

    async fn slice(&self, parties: Vec<Party>) -> Option<Universe> {
        let (answer, answered) = oneshot::channel();
        self.events
            .send(Event::Query(Query::Explain { parties, answer }))
            .ok()?;
        timeout(PATIENCE, answered).await.ok()?.ok().map(Into::into)
    }

    async fn unknown_end(&self, snapshot: &Snapshot, name: &NamespacedName, format: Format) -> Response {
        if !self.locate(Some(&name.namespace), &name.name).await.is_empty() {
            let sentence = format!(
                "Pod {name} shares its node's network, or it has ended: policies never act on it. Ask about an address \
                 instead."
            );
            return format.failure(StatusCode::UNPROCESSABLE_ENTITY, &sentence);
        }
        let sentence = format!("There is no pod {name} in the cluster.{}", hints(snapshot, &name.name));
        format.failure(StatusCode::NOT_FOUND, &sentence)
    }
}

impl Parameters {
    /// The same question with another value.
    fn url(&self, parameter: &str, value: &str) -> String {
        let mut url = String::from("/explain");
        let pairs = [
            ("from", &self.from),
            ("to", &self.to),
            ("port", &self.port),
            ("network", &self.network),
            ("family", &self.family),
        ];
        let given = pairs
            .into_iter()
            .filter_map(|(name, given)| Some((name, given.as_deref()?)));
        for (number, (name, given)) in given.enumerate() {
            let value = if name == parameter { value } else { given };
            let _ = write!(url, "{}{name}={}", if number == 0 { '?' } else { '&' }, escaped(value));
        }
        url
    }
}

/// Percent-encoding of what may not stand in a query (RFC 3986 section 3.4), and of what separates its parts.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn required<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    value.ok_or_else(|| format!("the parameter {name} is missing; an example: {EXAMPLE}"))
}

/// A message as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    let rest = letters.as_str();
    let end = if rest.ends_with('.') { "" } else { "." };
    first.into_iter().collect::<String>() + rest + end
}

fn hints(snapshot: &Snapshot, name: &str) -> String {
    let mut out = String::new();
    if !snapshot.synced {
        let _ = write!(out, " Source {} has not delivered everything yet.", snapshot.source);
    }
    let near = near_pods(snapshot, name);
    if !near.is_empty() {
        let _ = write!(out, " Near names on this node: {}.", near.join(", "));
    }
    out
}

/// What is wrong with the pods and policies that the question is about.
fn findings<'a>(snapshot: &'a Snapshot, slice: &Universe, question: &Question) -> Vec<&'a Diagnostic> {
    let concern = Concern {
        parties: [&question.from, &question.to],
        slice,
    };
    let about = snapshot
        .findings
        .iter()
        .filter(|(key, _)| concern.has(&key.source, |policy| snapshot.policies.contains_key(policy)));
    about.flat_map(|(_, findings)| findings.iter()).collect()
}
