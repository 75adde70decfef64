//! Sending an answer: head, then what the handler promised.
//!
//! Law: a body that can not be sent whole resets the connection, so that no client takes a part
//! for the whole.

use std::rc::Rc;

use proxy_transfer::seam::SinkError;
use proxy_transfer::{PeerError, Sink, download};
use proxy_wire::head::{RequestHead, Version};
use proxy_wire::response::{ResponseHead, has_body};

use crate::connection::Connection;
use crate::reply::{Content, Reply};
use crate::route;
use crate::sink::StreamSink;
use crate::snapshot::Snapshot;
use crate::thread::Thread;

/// What `Server` says.
const SERVER: &str = concat!("storage-proxy/", env!("CARGO_PKG_VERSION"));

/// Sends `reply` to the request `head`; says how many bytes went out. An error ends the
/// connection.
pub(crate) async fn send(
    connection: &mut Connection,
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    reply: Reply,
    keep: bool,
) -> (u64, Result<(), PeerError>) {
    let Reply {
        head: answer,
        content,
        endpoint,
        ..
    } = reply;
    let with_body = has_body(&head.method, answer.status());
    let answer = dressed(answer, &content, endpoint, head, thread);
    let answer = answer.connection(head.version, keep);
    let mut bytes = Vec::with_capacity(512);
    answer.write_to(&mut bytes);
    let limits = &snapshot.limits;
    let mut sink = StreamSink::new(&mut connection.stream, thread, limits);
    let outcome = match content {
        _ if !with_body => sink.send(&bytes, false).await,
        Content::None => sink.send(&bytes, false).await,
        Content::Bytes(body) => {
            bytes.extend_from_slice(&body);
            sink.send(&bytes, false).await
        }
        Content::File { file, pieces } => match small(&pieces, limits.inline_bytes_max) {
            Some((at, len)) if read_now(&file, at, len, &mut bytes) => {
                sink.send(&bytes, false).await
            }
            _ => download::send(&mut sink, &bytes, &file, &pieces).await,
        },
        Content::Archive(archive) => archive.send(&mut sink, &bytes, thread, limits).await,
    };
    let sent = sink.sent();
    drop(sink);
    let outcome = outcome.map_err(|error| {
        connection.stream.socket().reset_on_close();
        cut(error, endpoint)
    });
    (sent, outcome)
}

/// The answer's head with everything that does not belong to one protocol.
pub(crate) fn dressed(
    answer: ResponseHead,
    content: &Content,
    endpoint: &'static str,
    head: &RequestHead,
    thread: &Thread,
) -> ResponseHead {
    let mut answer = sized(answer, content).stamped(&thread.date(), SERVER);
    if let Some(id) = head.headers.get("x-backendai-requestid") {
        answer.push("X-BackendAI-RequestID", id);
    }
    route::share(endpoint, head, answer)
}

/// An answer to what is no request that we can read.
pub(crate) fn undressed(reply: Reply, thread: &Thread) -> (ResponseHead, Content) {
    let head = sized(reply.head, &reply.content).stamped(&thread.date(), SERVER);
    (head, reply.content)
}

/// Says why an answer was cut, and what that makes of the peer.
pub(crate) fn cut(error: SinkError, endpoint: &'static str) -> PeerError {
    match error {
        SinkError::Peer(error) => {
            tracing::debug!(
                endpoint,
                ?error,
                "the client left before the end of its answer"
            );
            error
        }
        SinkError::Truncated => {
            tracing::warn!(
                endpoint,
                "a file changed while it was sent, the answer was cut"
            );
            PeerError::Gone
        }
        SinkError::Disk(error) => {
            tracing::error!(endpoint, %error, "reading failed in the middle of an answer");
            PeerError::Gone
        }
    }
}

/// Adds `Content-Length` where we made the body.
fn sized(mut answer: ResponseHead, content: &Content) -> ResponseHead {
    if let Content::Bytes(body) = content
        && !matches!(answer.status(), 204 | 304)
    {
        answer.push("Content-Length", body.len() as u64);
    }
    answer
}

/// The one span of a small file.
fn small(pieces: &[download::Piece], most: u64) -> Option<(u64, usize)> {
    let [download::Piece::Span { at, len }] = pieces else {
        return None;
    };
    (len.get() <= most).then(|| usize::try_from(len.get()).ok().map(|len| (at.get(), len)))?
}

/// Reads cached bytes behind the head. False, with nothing added, when a disk would be waited for.
///
/// Copy: one read and one send cost less than two splices for a few pages.
fn read_now(file: &proxy_ring::FileRef, at: u64, len: usize, bytes: &mut Vec<u8>) -> bool {
    let head = bytes.len();
    bytes.resize(head + len, 0);
    match proxy_ring::socket::read_cached(file, &mut bytes[head..], at) {
        Ok(count) if count == len => true,
        _ => {
            bytes.truncate(head);
            false
        }
    }
}

/// Answers something that is no request we can read, and gives the connection up.
pub(crate) async fn refuse(
    connection: &mut Connection,
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    reply: Reply,
) {
    let (answer, content) = undressed(reply, thread);
    let answer = answer.connection(Version::Http11, false);
    let mut bytes = Vec::with_capacity(256);
    answer.write_to(&mut bytes);
    if let Content::Bytes(body) = &content {
        bytes.extend_from_slice(body);
    }
    // The client may be gone; there is nobody else to tell.
    let _ = connection
        .stream
        .send(&bytes, false, snapshot.limits.head_timeout)
        .await;
}
