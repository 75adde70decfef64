//! The routes of the manager-facing and the internal listener, as two tables.
//!
//! Laws
//! - A path answers exactly the methods that the table lists; `HEAD` is not implied by `GET`.
//! - A handler runs to its end even when its client goes away: half a change is worse than an
//!   answer that nobody reads. The number of handlers at work is bounded.
//! - What a handler throws, panics included, becomes a response here and nowhere else.
//!
//! Source: contract 2.2 (E6), 7, and the route list of the manager-facing API.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::any;
use http::header::ALLOW;
use http::{HeaderValue, Method, Response};
use proxy_core::problem;
use tracing::Instrument;

use crate::call::Call;
use crate::manage::{
    fetch, files, folders, listing, scopes, snapshots, status, tasks, tokens, volumes,
};
use crate::reply::{Failure, Outcome};
use crate::state::ApiState;
use crate::{gate, observe};

type Answering = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One method of one path.
struct Route {
    method: &'static str,
    path: &'static str,
    /// Needs no token.
    open: bool,
    call: fn(Call) -> Answering,
}

macro_rules! routes {
    ($($method:ident $path:literal $access:ident => $call:path;)+) => {
        &[$(Route {
            method: stringify!($method),
            path: $path,
            open: routes!(@open $access),
            call: |call| Box::pin($call(call)),
        },)+]
    };
    (@open open) => { true };
    (@open token) => { false };
}

const MANAGER: &[Route] = routes! {
    GET "/" open => status::manager;
    GET "/status" open => status::manager;
    GET "/health" open => status::health;
    GET "/livez" open => status::alive;
    GET "/readyz" open => status::ready;

    GET "/volumes" token => volumes::list;
    GET "/volume/hwinfo" token => volumes::hwinfo;
    GET "/volume/performance-metric" token => volumes::performance_metric;
    GET "/volume/quota" token => volumes::quota;
    PATCH "/volume/quota" token => volumes::set_quota;

    POST "/quota-scope" token => scopes::create;
    GET "/quota-scope" token => scopes::describe;
    PATCH "/quota-scope" token => scopes::update;
    DELETE "/quota-scope/quota" token => scopes::unset;

    POST "/folder/create" token => folders::create;
    POST "/folder/delete" token => folders::delete;
    POST "/folder/clone" token => folders::clone;
    GET "/folder/mount" token => folders::mount;
    GET "/folder/metadata" token => folders::metadata;
    POST "/folder/metadata" token => folders::set_metadata;
    GET "/folder/usage" token => folders::usage;
    GET "/folder/used-bytes" token => folders::used_bytes;
    GET "/folder/fs-usage" token => folders::fs_usage;

    POST "/folder/file/mkdir" token => files::mkdir;
    POST "/folder/file/list" token => listing::list;
    POST "/folder/file/page" token => listing::page;
    POST "/folder/file/rename" token => files::rename;
    POST "/folder/file/move" token => files::move_entry;
    POST "/folder/file/delete" token => files::delete;
    POST "/folder/file/delete-async" token => files::delete_async;
    POST "/folder/file/fetch" token => fetch::fetch;
    POST "/folder/file/download" token => tokens::download;
    POST "/folder/file/upload" token => tokens::upload;
    POST "/folder/file/archive-download-token" token => tokens::archive;
    POST "/folder/file/download-archive" token => tokens::archive;

    GET "/snapshot" token => snapshots::list;
    POST "/snapshot/create" token => snapshots::create;
    POST "/snapshot/restore" token => snapshots::restore;
    POST "/snapshot/delete" token => snapshots::delete;
    POST "/snapshot/retain" token => snapshots::retain;

    GET "/task" token => tasks::look;
    POST "/task/cancel" token => tasks::cancel;
};

const INTERNAL: &[Route] = routes! {
    GET "/health" open => status::health;
    GET "/livez" open => status::alive;
    GET "/readyz" open => status::ready;
    GET "/metrics" open => status::metrics;
};

/// What a request does to a volume, in the words of logs and metrics; empty for the others.
pub(crate) fn operation(method: &str, path: &str) -> &'static str {
    match (method, path) {
        ("POST", "/folder/create") => "create-vfolder",
        ("POST", "/folder/delete") => "delete-vfolder",
        ("POST", "/folder/clone") => "clone-vfolder",
        ("GET", "/folder/mount") => "mount",
        ("GET", "/folder/usage") => "usage",
        ("GET", "/folder/used-bytes") => "used-bytes",
        ("GET", "/folder/fs-usage") => "fs-usage",
        ("POST", "/folder/file/mkdir") => "mkdir",
        ("POST", "/folder/file/list") => "list",
        ("POST", "/folder/file/rename") => "rename",
        ("POST", "/folder/file/move") => "move",
        ("POST", "/folder/file/delete" | "/folder/file/delete-async") => "delete",
        ("POST", "/folder/file/fetch") => "fetch",
        ("POST", "/folder/file/upload") => "upload-token",
        ("POST", "/folder/file/download") => "download-token",
        ("POST", "/folder/file/archive-download-token" | "/folder/file/download-archive") => {
            "download-archive-token"
        }
        ("POST", "/quota-scope") => "quota-create",
        ("GET", "/quota-scope" | "/volume/quota") => "quota-get",
        ("PATCH", "/quota-scope" | "/volume/quota") => "quota-set",
        ("DELETE", "/quota-scope/quota") => "quota-unset",
        ("GET", "/volume/hwinfo") => "hwinfo",
        ("GET", "/volume/performance-metric") => "performance-metric",
        _ => "",
    }
}

/// The Manager's API. Every request is counted, identified and, if it fails, logged.
pub fn manager_router(state: ApiState) -> Router {
    build(MANAGER, &state)
        .layer(from_fn_with_state(state.clone(), gate::check))
        .layer(from_fn_with_state(state, observe::request))
}

/// Health and metrics for the machines around: no token, not counted.
pub fn internal_router(state: ApiState) -> Router {
    build(INTERNAL, &state)
}

/// Whether a method of a path of the manager-facing listener needs no token.
pub(crate) fn is_open(method: &Method, path: &str) -> bool {
    MANAGER
        .iter()
        .any(|route| route.open && route.path == path && method == route.method)
}

fn build(table: &'static [Route], state: &ApiState) -> Router {
    let paths: BTreeSet<&'static str> = table.iter().map(|route| route.path).collect();
    paths
        .into_iter()
        .fold(Router::new().fallback(unmatched), |router, path| {
            let state = state.clone();
            router.route(
                path,
                any(move |request| dispatch(table, path, state.clone(), request)),
            )
        })
}

async fn unmatched() -> Response<Body> {
    Failure::new(problem::text(404, "404: Not Found"), "").into_response()
}

async fn dispatch(
    table: &'static [Route],
    path: &'static str,
    state: ApiState,
    request: Request,
) -> Response<Body> {
    let methods = table.iter().filter(|route| route.path == path);
    match methods
        .clone()
        .find(|route| request.method() == route.method)
    {
        Some(route) => run(route, state, request).await,
        None => {
            let allowed: BTreeSet<&str> = methods.map(|route| route.method).collect();
            let allowed: Vec<&str> = allowed.into_iter().collect();
            let answer = problem::text(405, "405: Method Not Allowed");
            let mut response = Failure::new(answer, "").into_response();
            if let Ok(value) = HeaderValue::from_str(&allowed.join(",")) {
                response.headers_mut().insert(ALLOW, value);
            }
            response
        }
    }
}

async fn run(route: &Route, state: ApiState, request: Request) -> Response<Body> {
    let turn = Arc::clone(&state.in_flight)
        .acquire_owned()
        .await
        .expect("the semaphore of requests never closes");
    let answering = (route.call)(Call::new(state, request));
    let work = async move {
        let outcome = answering.await;
        drop(turn);
        outcome
    };
    // A task of its own: it outlives its client, and a panic stays inside.
    match tokio::spawn(work.in_current_span()).await {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => failure.into_response(),
        Err(error) => Failure::new(problem::internal_error(), panic_text(error)).into_response(),
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Err(_) => "handler was cancelled".to_owned(),
        Ok(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            format!("handler panicked: {}", text.unwrap_or("no message"))
        }
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
