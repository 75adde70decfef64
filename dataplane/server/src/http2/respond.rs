//! Answering on one stream.
//!
//! Law: an answer that can not be sent whole resets its stream; the connection goes on.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ::h2::Reason;
use ::h2::server::SendResponse;
use proxy_transfer::seam::SinkError;
use proxy_transfer::{PeerError, Sink, download};
use proxy_wire::head::{RequestHead, is_of_a_connection};
use proxy_wire::response::{ResponseHead, has_body};
use tokio::sync::Semaphore;

use crate::http2::Outgoing;
use crate::http2::sink::Chunk;
use crate::reply::{Content, Reply};
use crate::respond::{cut, dressed, undressed};
use crate::snapshot::Limits;
use crate::thread::Thread;

/// The right to answer one stream: shared with its body, which says `100 Continue`.
pub(super) type Respond = Rc<RefCell<Option<SendResponse<Chunk>>>>;

/// Sends `reply` to the request `head`; says how many bytes of body went out.
pub(super) async fn send(
    respond: &Respond,
    shares: &Arc<Semaphore>,
    (thread, limits): (&Rc<Thread>, &Limits),
    head: &RequestHead,
    reply: Reply,
) -> (u64, Result<(), PeerError>) {
    let Reply {
        head: answer,
        content,
        endpoint,
        ..
    } = reply;
    let with_body = has_body(&head.method, answer.status());
    let answer = dressed(answer, &content, endpoint, head, thread);
    let len = announced(&answer);
    let empty = !with_body || matches!(content, Content::None) || len == Some(0);
    let Some(mut respond) = respond.borrow_mut().take() else {
        return (0, Err(PeerError::Gone));
    };
    let Ok(stream) = respond.send_response(response(&answer), empty) else {
        return (0, Err(PeerError::Gone));
    };
    if empty {
        return (0, Ok(()));
    }
    let mut out = Outgoing::new(stream, len, shares, (thread, limits));
    let outcome = match content {
        Content::None => Ok(()),
        Content::Bytes(body) => out.send(&body, false).await,
        Content::File { file, pieces } => download::send(&mut out, b"", &file, &pieces).await,
        Content::Archive(archive) => archive.send(&mut out, b"", thread, limits).await,
    };
    let outcome = outcome.and_then(|()| out.finish()).map_err(|error| {
        out.reset(match error {
            SinkError::Peer(_) => Reason::CANCEL,
            SinkError::Truncated | SinkError::Disk(_) => Reason::INTERNAL_ERROR,
        });
        cut(error, endpoint)
    });
    (out.sent(), outcome)
}

/// Answers a stream whose request we can not read.
pub(super) async fn refuse(
    mut respond: SendResponse<Chunk>,
    shares: &Arc<Semaphore>,
    (thread, limits): (&Rc<Thread>, &Limits),
    with_body: bool,
    reply: Reply,
) {
    let (answer, content) = undressed(reply, thread);
    let len = announced(&answer);
    let empty = !with_body || len.unwrap_or(0) == 0;
    let Ok(stream) = respond.send_response(response(&answer), empty) else {
        return;
    };
    if let Content::Bytes(body) = &content
        && !empty
    {
        // The client may be gone; there is nobody else to tell.
        let mut out = Outgoing::new(stream, len, shares, (thread, limits));
        let _ = out.send(body, false).await;
    }
}

fn announced(answer: &ResponseHead) -> Option<u64> {
    let value = answer.get("content-length")?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The head as HTTP/2 sends it: lower-case names, and nothing about a connection.
pub(super) fn response(answer: &ResponseHead) -> http::Response<()> {
    let mut response = http::Response::new(());
    // Three digits, which the head made sure of.
    if let Ok(status) = http::StatusCode::from_u16(answer.status()) {
        *response.status_mut() = status;
    }
    let fields = response.headers_mut();
    let told = answer.iter().filter(|(name, _)| !is_of_a_connection(name));
    for (name, value) in told {
        // Names are tokens and values hold no control characters: both always fit.
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(name.as_bytes()),
            http::HeaderValue::from_bytes(value),
        ) {
            fields.append(name, value);
        }
    }
    response
}
