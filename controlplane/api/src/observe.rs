//! What is seen of every request: an identifier, a count, a duration, and a line when it fails.
//!
//! Laws
//! - One line per failed request, none per successful one. Fields, not sentences.
//! - No query string, no token, no header value of a client is logged, except a request
//!   identifier of harmless characters.
//! - Levels by who must act: ERROR a defect of ours, WARN the operator or a backend, INFO nobody.
//!
//! Source: contract 1.3, 7.2.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use proxy_core::problem;
use tracing::Instrument;
use uuid::Uuid;

use crate::metrics;
use crate::reply::Verdict;
use crate::state::ApiState;

/// Names a request in the logs of all components.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-backendai-requestid");

/// A UUID has 36; anything longer is not an identifier.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The endpoint of what no route matches: one series, however many paths a scanner tries.
const UNMATCHED: &str = "unmatched";

/// Wraps one request, whoever answers it.
pub(crate) async fn request(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let started = Instant::now();
    let method = metrics::method_label(request.method().as_str());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let endpoint = matched.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let id = request_id(request.headers().get(REQUEST_ID));
    let span = tracing::info_span!("request", id, method, endpoint);
    let mut response = next.run(request).instrument(span).await;

    let duration = started.elapsed();
    let verdict = response
        .extensions_mut()
        .remove::<Verdict>()
        .unwrap_or_default();
    let status = response.status().as_u16();
    let error = verdict.labels;
    state.metrics.answered(&metrics::Request {
        endpoint,
        method,
        status,
        error,
        duration,
    });
    if status >= 400 {
        report(&id, method, endpoint, status, &verdict, duration);
    }
    // `request_id` lets only visible ASCII through.
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn report(
    id: &str,
    method: &str,
    endpoint: &str,
    status: u16,
    verdict: &Verdict,
    duration: Duration,
) {
    let elapsed_ms = duration.as_millis() as u64;
    let code = verdict.labels.join("_");
    let detail = verdict.detail.as_str();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request_id = id,
                method,
                endpoint,
                status,
                code,
                detail,
                elapsed_ms,
                "request failed"
            )
        };
    }
    // A class of its own says that somebody thought of the case; the bare 500 is our defect.
    match status {
        500 if code == problem::GENERIC_CODE => line!(error),
        403 | 500.. => line!(warn),
        _ => line!(info),
    }
}

/// The identifier that came with the request, if it is one, or a new one.
fn request_id(sent: Option<&HeaderValue>) -> String {
    match sent.and_then(harmless) {
        Some(id) => id.to_owned(),
        None => Uuid::new_v4().to_string(),
    }
}

/// The identifier that came with a request, if there was one of harmless characters.
pub(crate) fn sent_request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(REQUEST_ID).and_then(harmless)
}

fn harmless(value: &HeaderValue) -> Option<&str> {
    let fits = |id: &&str| {
        !id.is_empty()
            && id.len() <= REQUEST_ID_BYTES_MAX
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    value.to_str().ok().filter(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_identifiers_are_taken_over() {
        let long = "a".repeat(65);
        for (sent, kept) in [
            ("7d3f-a.b:c_d", true),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            (long.as_str(), false),
        ] {
            let value = HeaderValue::from_str(sent).ok();
            assert_eq!(request_id(value.as_ref()) == sent, kept, "{sent:?}");
        }
        assert_eq!(request_id(None).len(), 36);
    }
}
