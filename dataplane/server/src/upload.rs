//! `/upload`: tus 1.0.0, and parts with a place.
//!
//! Source: tus 1.0.0; RFC 9110 §14.5; `docs/semantics.md#uploads`.

use std::rc::Rc;

use proxy_core::problem::{Kind, Problem};
use proxy_wire::head::RequestHead;
use proxy_wire::response::ResponseHead;
use proxy_wire::tus;

use crate::body::Body;
use crate::reply::{Content, Reply};
use crate::snapshot::Snapshot;
use crate::thread::Thread;

mod answer;
mod head;
mod ledger;
mod patch;
mod put;
mod request;

use request::Request;

/// `OPTIONS /upload`: what the server can do.
pub(crate) fn options(snapshot: &Snapshot) -> Reply {
    let mut head = ResponseHead::new(200);
    head.extend(tus::options_headers(snapshot.upload_size_max));
    Reply::new(head, Content::Bytes(Vec::new()))
}

/// `HEAD /upload`: how far it is.
pub(crate) async fn head(thread: &Rc<Thread>, snapshot: &Snapshot, head: &RequestHead) -> Reply {
    match head::answer(thread, snapshot, head).await {
        Ok(reply) | Err(reply) => reply,
    }
}

/// `PATCH /upload`: more of it.
pub(crate) async fn patch(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Reply {
    match patch::answer(thread, snapshot, head, body).await {
        Ok(reply) | Err(reply) => reply,
    }
}

/// `PUT /upload`: a part with its place. `None` for a PUT that says no place: it is no request
/// that this resource knows.
pub(crate) async fn put(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Option<Reply> {
    let place = head.headers.get(proxy_wire::part::CONTENT_RANGE_LOWER)?;
    match put::answer(thread, snapshot, head, place, body).await {
        Ok(reply) | Err(reply) => Some(reply),
    }
}

/// 400, with what is wrong.
fn bad(text: String) -> Reply {
    Problem::new(Kind::InvalidAPIParameters).msg(text).into()
}
