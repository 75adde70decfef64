//! The Manager's token, checked before anything else is looked at.
//!
//! Laws
//! - Without the token a client learns nothing: not which paths exist, not which methods.
//! - The comparison takes the same time for every wrong token.
//! - Exempt is a method of a path, not a path: `POST /status` needs the token.
//!
//! Source: contract 1.2.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use http::Response;
use proxy_core::problem;

use crate::reply::Failure;
use crate::route;
use crate::state::ApiState;

/// The header that carries the token.
pub const TOKEN_HEADER: &str = "x-backendai-storage-auth-token";

/// Lets a request pass that has the token or needs none.
pub(crate) async fn check(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let open = route::is_open(request.method(), request.uri().path());
    let sent = request
        .headers()
        .get(TOKEN_HEADER)
        .map(|value| value.as_bytes());
    let refusal = match sent.filter(|token| !token.is_empty()) {
        _ if open => None,
        None => Some((true, "manager token missing")),
        Some(token) if state.settings.load().manager_secret.eq_constant_time(token) => None,
        Some(_) => Some((false, "manager token wrong")),
    };
    match refusal {
        None => next.run(request).await,
        Some((missing, text)) => Failure::new(problem::forbidden(missing), text).into_response(),
    }
}
