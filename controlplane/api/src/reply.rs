//! What a handler hands back: a response, or a failure that becomes one in a single place.
//!
//! Laws
//! - A failure's bytes come from the error vocabulary of `proxy_core::problem`, never from here.
//! - What the log needs of a failure travels beside the response, so that it is written once.
//! - An internal error closes its connection: nobody knows what state the handler left.

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use proxy_core::problem::{self, Answer, Kind, Problem};
use proxy_state::StateError;
use proxy_volume::VolumeError;
use serde_json::Value;

/// Longest text about one failure in the log, in bytes.
const DETAIL_BYTES_MAX: usize = 1024;

/// A response, or why there is none.
pub(crate) type Outcome = Result<Response<Body>, Failure>;

/// Why a request failed, as the wire and the log see it.
#[derive(Debug)]
pub(crate) struct Failure {
    answer: Box<Answer>,
    detail: String,
}

/// Rides on a response from the handler to the log and the metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Metric labels `domain`, `operation`, `error_detail`; empty for a success.
    pub(crate) labels: [&'static str; 3],
    /// What happened, for the log. Empty when the status says it all.
    pub(crate) detail: String,
}

impl Failure {
    /// A failure that the log describes with `detail`.
    pub(crate) fn new(answer: Answer, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self {
            answer: Box::new(answer),
            detail,
        }
    }

    /// Parameters that failed their checks.
    pub(crate) fn parameters(failures: Value) -> Self {
        let detail = failures.to_string();
        Self::new(problem::invalid_parameters(failures), detail)
    }

    /// Counts as an answer, not as an error: what the original returns instead of raising.
    pub(crate) fn uncounted(mut self) -> Self {
        self.answer.code = None;
        self
    }

    /// The response, with the verdict on it.
    pub(crate) fn into_response(self) -> Response<Body> {
        let labels = self.answer.labels();
        let mut response = Response::new(Body::from(self.answer.body));
        *response.status_mut() = StatusCode::from_u16(self.answer.status)
            .expect("the table of errors holds valid statuses");
        if let Some(content_type) = self.answer.content_type {
            let value = HeaderValue::from_static(content_type);
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(Verdict {
            labels,
            detail: self.detail,
        });
        response
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::new(problem.answer(), problem.to_string())
    }
}

impl From<VolumeError> for Failure {
    fn from(error: VolumeError) -> Self {
        Self::new(error.answer(), error.to_string())
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let kind = match &error {
            StateError::TooLarge { .. } => Kind::InvalidDataLength,
            transient if transient.is_transient() => Kind::ServiceNotInitialized,
            _ => Kind::StorageProxy,
        };
        Problem::new(kind).msg(error.to_string()).into()
    }
}

/// 200 or another status, with a JSON body.
pub(crate) fn json(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let value = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}

/// 200 with a JSON body.
pub(crate) fn ok(body: &Value) -> Outcome {
    Ok(json(StatusCode::OK, body))
}

/// 204: nothing to say.
pub(crate) fn no_content() -> Outcome {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
