//! Text or JSON, and failures in the form that was asked for.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the reader wants to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    Text,
    /// JSON.
    Json,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    output: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Format {
    type Rejection = Response;

    /// `?output=` goes before the Accept header.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let Ok(Query(Parameters { output })) = Query::try_from_uri(&parts.uri) else {
            return Err(failure_text(
                StatusCode::BAD_REQUEST,
                "The parameters of the URL cannot be read.",
            ));
        };
        match output.as_deref() {
            None => Ok(accepted(&parts.headers)),
            Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(failure_text(
                StatusCode::BAD_REQUEST,
                &format!("There is no output {other:?}: it is text or json."),
            )),
        }
    }
}

/// JSON where the header names it, with no lower weight than plain text; text otherwise (RFC 9110 section 12.5.1).
fn accepted(headers: &HeaderMap) -> Format {
    let (mut json, mut text) = (0, 0);
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1000, thousandths);
        match media.as_str() {
            "application/json" => json = weight,
            "text/plain" | "text/*" => text = text.max(weight),
            _ => {}
        }
    }
    if json > 0 && json >= text {
        Format::Json
    } else {
        Format::Text
    }
}

/// A weight of the Accept header, `0.8`, in thousandths; 0 where it is none.
fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole.parse::<u16>(), digits.parse::<u16>()) {
        (Ok(whole), Ok(fraction)) if whole <= 1 => (whole * 1000 + fraction).min(1000),
        _ => 0,
    }
}

impl Format {
    /// An answer in both forms, of which only the one that is wanted is made.
    pub fn answer(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Response {
        match self {
            Self::Text => text().into_response(),
            Self::Json => axum::Json(json()).into_response(),
        }
    }

    /// A failure with a sentence that helps.
    pub fn failure(self, status: StatusCode, sentence: &str) -> Response {
        match self {
            Self::Text => failure_text(status, sentence),
            Self::Json => (status, axum::Json(json!({ "error": sentence }))).into_response(),
        }
    }
}

/// A failure as text.
pub fn failure_text(status: StatusCode, sentence: &str) -> Response {
    (status, format!("{sentence}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn json_only_where_it_is_asked_for() {
        for (value, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("application/json", Format::Json),
            ("Application/JSON; charset=utf-8", Format::Json),
            ("application/json, text/plain", Format::Json),
            ("application/json;q=0.5, text/plain;q=0.9", Format::Text),
            ("application/json;q=0.9, text/plain;q=0.5", Format::Json),
            ("application/json;q=0", Format::Text),
            ("application/json;q=x", Format::Text),
            ("application/json, text/plain, */*", Format::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            assert_eq!(accepted(&headers), expected, "{value}");
        }
        assert_eq!(accepted(&HeaderMap::new()), Format::Text);
    }
}
