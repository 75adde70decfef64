//! Which handler answers, and the headers that let scripts of other origins read it.
//!
//! Source: RFC 9110 §15.5.6, the Fetch standard; `docs/semantics.md#cors`.

use std::rc::Rc;

use proxy_wire::cors;
use proxy_wire::head::{Method, RequestHead};
use proxy_wire::query::{self, Failure};
use proxy_wire::response::ResponseHead;
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::reply::{Content, Reply};
use crate::snapshot::Snapshot;
use crate::thread::Thread;
use crate::{archive, download, upload};

const ROOT: &str = "/";
const DOWNLOAD: &str = "/download";
const ARCHIVE: &str = "/download-archive";
const UPLOAD: &str = "/upload";

/// Finds the handler and runs it.
pub(crate) async fn dispatch(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Reply {
    let (endpoint, reply) = match head.path.as_str() {
        ROOT => (ROOT, root(head)),
        DOWNLOAD => (
            DOWNLOAD,
            match head.method {
                Method::Get | Method::Head => download::get(thread, snapshot, head).await,
                Method::Options => preflight(head),
                _ => not_allowed("GET,HEAD,OPTIONS"),
            },
        ),
        ARCHIVE => (
            ARCHIVE,
            match head.method {
                Method::Get | Method::Head => archive::get(thread, snapshot, head).await,
                Method::Options => preflight(head),
                _ => not_allowed("GET,HEAD,OPTIONS"),
            },
        ),
        UPLOAD => (
            UPLOAD,
            upload::answer(thread, snapshot, head, body)
                .await
                .unwrap_or_else(|| not_allowed("HEAD,OPTIONS,PATCH")),
        ),
        _ => ("unmatched", Reply::text(404, "404: Not Found")),
    };
    Reply { endpoint, ..reply }
}

fn root(head: &RequestHead) -> Reply {
    match head.method {
        Method::Get | Method::Head => {}
        Method::Options => return preflight(head),
        _ => return not_allowed("GET,HEAD,OPTIONS"),
    }
    if let Err(failures) = query::expect_none(head.query.as_deref()) {
        return invalid(failures);
    }
    let body = json!({
        "status": "ok",
        "type": "client-facing",
        "storage-proxy": proxy_core::VERSION,
    });
    proxy_core::problem::plain(200, &body).into()
}

fn preflight(head: &RequestHead) -> Reply {
    match cors::preflight(&head.headers) {
        Ok(headers) => {
            let mut answer = ResponseHead::new(200);
            answer.extend(headers);
            Reply::new(answer, Content::Bytes(Vec::new()))
        }
        Err(error) => Reply::text(error.status(), error.text()),
    }
}

fn not_allowed(allow: &'static str) -> Reply {
    let mut reply = Reply::text(405, "405: Method Not Allowed");
    reply.head.push("Allow", allow);
    reply
}

/// 400 with every failure by its key.
pub(crate) fn invalid(failures: Vec<Failure>) -> Reply {
    let data: Map<String, Value> = failures
        .into_iter()
        .map(|(key, text)| (key, Value::from(text)))
        .collect();
    proxy_core::problem::invalid_parameters(Value::Object(data)).into()
}

/// Adds the CORS headers that belong to the route and the answer.
pub(crate) fn share(endpoint: &str, head: &RequestHead, mut answer: ResponseHead) -> ResponseHead {
    match endpoint {
        UPLOAD => {
            let allowed = cors::upload_allowed(&head.headers);
            for (name, value) in cors::UPLOAD_HEADERS {
                let is_allowed = name == cors::ALLOW_HEADERS;
                answer.push(name, if is_allowed { allowed.as_str() } else { value });
            }
        }
        ROOT | DOWNLOAD | ARCHIVE if head.method != Method::Options && answer.status() != 405 => {
            cors::expose(&mut answer, head.headers.get("origin"));
        }
        _ => {}
    }
    answer
}
