//! What is seen of every request: an identifier, a count, a duration, and a line when it fails.
//!
//! Laws
//! - One line per request that was work on a volume or that failed. The texts begin as the
//!   original's; everything else is fields.
//! - No query string, no token, no header value of a client is logged, except a request
//!   identifier of harmless characters.
//! - Levels by who must act: ERROR a defect of ours, WARN the operator or a backend, INFO nobody.
//! - The access log has a line for every request, under the logger name that it has in the
//!   original, which is off unless `logging.pkg-ns` names it.
//!
//! Source: contract 1.3, 7.2; logging A6, A8, A9.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use proxy_core::id::VFolderId;
use proxy_core::problem;
use serde_json::Value;
use tracing::{Instrument, Span, field};
use uuid::Uuid;

use crate::metrics;
use crate::reply::Verdict;
use crate::route::operation;
use crate::state::ApiState;

/// Names a request in the logs of all components.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-backendai-requestid");

/// A UUID has 36; anything longer is not an identifier.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The endpoint of what no route matches: one series, however many paths a scanner tries.
const UNMATCHED: &str = "unmatched";

/// What a request is about, as far as its parameters say.
#[derive(Clone, Debug, Default)]
pub(crate) struct About(Arc<Mutex<Subject>>);

/// Volume and folder. Empty until known: a name that is not configured stays unknown.
#[derive(Clone, Debug, Default)]
struct Subject {
    volume: String,
    backend: &'static str,
    vfid: Option<VFolderId>,
}

impl About {
    /// Looks for volume and folder among the parameters; tells the current span.
    pub(crate) fn note(&self, state: &ApiState, parameters: &Value) {
        let text = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| parameters.get(*name));
            found.and_then(Value::as_str)
        };
        let mut subject = self.0.lock();
        let volume = text(["volume", "src_volume"]).and_then(|name| state.volumes.find(name).ok());
        if let Some(volume) = volume {
            volume.name().clone_into(&mut subject.volume);
            subject.backend = volume.kind().wire();
            Span::current().record("volume", volume.name());
            Span::current().record("backend", subject.backend);
        }
        subject.vfid = text(["vfid", "src_vfid"]).and_then(|text| VFolderId::parse(text).ok());
        if let Some(vfid) = subject.vfid {
            Span::current().record("vfolder_id", field::display(vfid));
        }
    }
}

/// One request, from its head to the end of its answer.
struct Story {
    state: ApiState,
    started: Instant,
    method: &'static str,
    endpoint: String,
    operation: &'static str,
    about: About,
    span: Span,
}

/// Wraps one request, whoever answers it.
pub(crate) async fn request(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let started = Instant::now();
    let method = metrics::method_label(request.method().as_str());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let endpoint = matched.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let operation = operation(method, endpoint);
    let id = request_id(request.headers().get(REQUEST_ID));
    let span = tracing::info_span!(
        "request",
        request_id = id,
        method,
        endpoint,
        operation = (!operation.is_empty()).then_some(operation),
        volume = field::Empty,
        backend = field::Empty,
        vfolder_id = field::Empty,
        traceparent = traceparent(request.headers().get("traceparent")),
    );
    let about = About::default();
    request.extensions_mut().insert(about.clone());
    let work = Arc::clone(&state.metrics);
    let at_work = (!operation.is_empty()).then(|| work.work.begin(operation));
    let mut response = next.run(request).instrument(span.clone()).await;
    drop(at_work);

    let verdict = response
        .extensions_mut()
        .remove::<Verdict>()
        .unwrap_or_default();
    let story = Story {
        state,
        started,
        method,
        endpoint: endpoint.to_owned(),
        operation,
        about,
        span,
    };
    // `request_id` lets only visible ASCII through.
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    if let Some(bytes) = response.body().size_hint().exact() {
        story.end(status, &verdict, bytes);
        return response;
    }
    let (ended, sent) = (Some((story, status, verdict)), 0);
    response.map(|body| Body::new(Told { body, ended, sent }))
}

/// A body of unknown length: the request ends with it, or when its client leaves.
struct Told {
    body: Body,
    ended: Option<(Story, u16, Verdict)>,
    sent: u64,
}

impl hyper::body::Body for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = std::pin::pin!(self.body.frame()).poll(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some((story, status, verdict)) = self.ended.take() {
            story.end(status, &verdict, self.sent);
        }
    }
}

impl Story {
    fn end(&self, status: u16, verdict: &Verdict, bytes: u64) {
        let duration = self.started.elapsed();
        self.state.metrics.answered(&metrics::Request {
            endpoint: &self.endpoint,
            method: self.method,
            status,
            error: verdict.labels,
            duration,
        });
        let subject = self.about.0.lock().clone();
        if !self.operation.is_empty() {
            let of = (subject.volume.as_str(), subject.backend);
            let success = status < 400;
            let work = &self.state.metrics.work;
            work.done(self.operation, of, success, duration);
        }
        self.span.in_scope(|| {
            self.accessed(status, bytes, duration);
            if status >= 400 {
                report(&self.endpoint, self.method, status, verdict, duration);
            } else if !self.operation.is_empty() {
                self.told(&subject, status, duration);
            }
        });
    }

    /// One line of the access log; method, route and identifier are the span's.
    fn accessed(&self, status: u16, bytes: u64, duration: Duration) {
        let duration_ms = duration.as_millis() as u64;
        let (method, endpoint) = (self.method, &self.endpoint);
        tracing::info!(
            target: "aiohttp::access",
            status, bytes, duration_ms, "{method} {endpoint} {status}"
        );
    }

    /// The line that operators of the original look for.
    fn told(&self, subject: &Subject, status: u16, duration: Duration) {
        let mut text = format!(
            "ManagerAPI::{}(v:{}",
            self.operation.to_uppercase().replace('-', "_"),
            subject.volume
        );
        if let Some(vfid) = subject.vfid {
            text.push_str(&format!(", f:{vfid}"));
        }
        let duration_ms = duration.as_millis() as u64;
        tracing::info!(status, duration_ms, "{text})");
    }
}

fn report(endpoint: &str, method: &str, status: u16, verdict: &Verdict, duration: Duration) {
    let duration_ms = duration.as_millis() as u64;
    let code = verdict.labels.join("_");
    let detail = verdict.detail.as_str();
    macro_rules! line {
        ($level:ident, $text:literal) => {
            tracing::$level!(
                method,
                endpoint,
                status,
                code,
                detail,
                duration_ms,
                $text,
                method,
                endpoint
            )
        };
    }
    // A class of its own says that somebody thought of the case; the bare 500 is our defect.
    match status {
        500 if code == problem::GENERIC_CODE => {
            line!(error, "Uncaught exception in HTTP request handlers ({} {})");
        }
        403 | 500.. => line!(warn, "request failed: client error or backend ({} {})"),
        _ => line!(info, "client error raised inside handlers: ({} {})"),
    }
}

/// A parent of our spans, if it has the form of one (W3C Trace Context).
fn traceparent(sent: Option<&HeaderValue>) -> Option<&str> {
    let text = sent?.to_str().ok()?;
    let fits = text.len() == 55
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    fits.then_some(text)
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
