//! Who answers here, and how it is: status, health, metrics.
//!
//! Source: contract 1 and 7; manager-facing API 1.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use proxy_core::VERSION;
use serde_json::json;

use crate::call::Call;
use crate::health::Question;
use crate::reply::{self, Outcome};

/// `GET /` and `GET /status`.
pub(crate) async fn manager(call: Call) -> Outcome {
    call.without_parameters()?;
    reply::ok(&json!({"status": "ok", "type": "manager-facing", "storage-proxy": VERSION}))
}

/// `GET /health`.
pub(crate) async fn health(call: Call) -> Outcome {
    answer(&call, Question::Health)
}

/// `GET /livez`.
pub(crate) async fn alive(call: Call) -> Outcome {
    answer(&call, Question::Alive)
}

/// `GET /readyz`.
pub(crate) async fn ready(call: Call) -> Outcome {
    answer(&call, Question::Ready)
}

/// `GET /metrics`. The content type carries no version, as the original's.
pub(crate) async fn metrics(call: Call) -> Outcome {
    let mut response = Response::new(Body::from(call.state.metrics.page()));
    let value = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, value);
    Ok(response)
}

fn answer(call: &Call, question: Question) -> Outcome {
    let (code, body) = call.state.health.answer(question);
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    Ok(reply::json(status, &body))
}
