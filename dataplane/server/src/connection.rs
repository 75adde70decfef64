//! One HTTP/1.1 connection: heads in, answers out, until one side has enough.
//!
//! Laws
//! - Bytes of a body are never read as the next request: what an answer left unread is thrown
//!   away up to a bound, beyond it the connection ends.
//! - Every wait has a limit; a client that dawdles over its head is cut.
//! - A panic in one request ends its connection and is counted; the thread lives on.
//!
//! Source: RFC 9112 §9; `docs/semantics.md#connections`.

use std::rc::Rc;
use std::time::{Duration, Instant};

use proxy_transfer::PeerError;
use proxy_wire::head::{self, HeadError, Parsed, RequestHead};

use crate::body::{Body, Http1Body, Progress};
use crate::caught::{Panicked, caught};
use crate::http2;
use crate::reply::Reply;
use crate::respond;
use crate::route;
use crate::rt;
use crate::snapshot::Snapshot;
use crate::story::{Facts, Story};
use crate::stream::Stream;
use crate::thread::Thread;

/// Bytes received at a time while a head is looked for.
const RECV_BYTES: usize = 4 * 1024;
/// How long the last bytes of a refused body are waited for before the connection ends.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// A connection and the bytes that were received beyond what was asked for.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    /// `start <= buf.len()`; bytes before `start` are done with.
    buf: Vec<u8>,
    start: usize,
    /// Nothing was asked for yet.
    is_fresh: bool,
}

impl Connection {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            buf: Vec::new(),
            start: 0,
            is_fresh: true,
        }
    }

    /// Received and not yet consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// The first `n` of [`Connection::bytes`] are done with.
    pub(crate) fn consume(&mut self, n: usize) {
        assert!(n <= self.buf.len() - self.start);
        self.start += n;
        if self.start == self.buf.len() {
            self.buf.clear();
            self.start = 0;
        }
    }

    /// Receives more behind [`Connection::bytes`]. Zero is the end.
    pub(crate) async fn more(&mut self, limit: Duration) -> Result<usize, PeerError> {
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        let have = self.buf.len();
        self.buf.resize(have + RECV_BYTES, 0);
        let outcome = self.stream.recv(&mut self.buf[have..], limit).await;
        self.buf
            .truncate(have + outcome.as_ref().map_or(0, |count| *count));
        outcome
    }
}

/// What ended the wait for a head.
enum NoHead {
    /// The client closed, or it is time to go.
    Over,
    /// The client was too slow: 408.
    TooSlow,
    /// It is not HTTP as we accept it.
    Bad(HeadError),
}

/// Serves one connection to its end, in the protocol that its client speaks.
pub(crate) async fn serve(stream: Stream, thread: &Rc<Thread>) {
    // Boxed: room for it would be in every idle connection's task.
    if stream.is_http2() {
        return Box::pin(http2::serve(stream, Vec::new(), thread)).await;
    }
    let mut connection = Connection::new(stream);
    // Whoever speaks TLS says in the handshake what follows: RFC 9113 §3.3.
    if matches!(connection.stream, Stream::Plain(_)) && thread.snapshot().limits.http2.enabled {
        match knows_http2(&mut connection, thread).await {
            Ok(false) => {}
            Ok(true) => {
                let Connection { stream, buf, .. } = connection;
                return Box::pin(http2::serve(stream, buf, thread)).await;
            }
            Err(_) => return connection.stream.end(LINGER).await,
        }
    }
    loop {
        let snapshot = thread.snapshot();
        let head = match next_head(&mut connection, thread, &snapshot).await {
            Ok(head) => head,
            Err(NoHead::Over) => break,
            Err(NoHead::TooSlow) => {
                let reply = Reply::text(408, "408: Request Timeout");
                respond::refuse(&mut connection, thread, &snapshot, reply).await;
                break;
            }
            Err(NoHead::Bad(error)) => {
                let reply = Reply::text(error.status(), error.text());
                respond::refuse(&mut connection, thread, &snapshot, reply).await;
                linger(&mut connection, LINGER).await;
                break;
            }
        };
        let alive = {
            let one = one_request(&mut connection, thread, &snapshot, &head);
            match caught(one).await {
                Ok(alive) => alive,
                Err(Panicked) => {
                    thread.setup.metrics.panics.add(1);
                    tracing::error!(path = %head.path, "a request panicked");
                    connection.stream.socket().reset_on_close();
                    return;
                }
            }
        };
        // A drain was told to the client with the answer, or is met where the next head is awaited.
        if !alive {
            break;
        }
    }
    let limit = LINGER;
    connection.stream.end(limit).await;
}

/// One request and its answer. True if the connection can take another.
async fn one_request(
    connection: &mut Connection,
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
) -> bool {
    let story = Story::begin(thread, head);
    let limits = &snapshot.limits;
    let mut progress = Progress::new(head, limits);
    let (reply, peer) = {
        let body = Http1Body::new(connection, &mut progress, thread, limits);
        let mut body = Body::Http1(body);
        let reply = route::dispatch(thread, snapshot, head, &mut body).await;
        (reply, body.peer())
    };
    // A client that waits for a 100 and got its answer instead may send the body or not: nobody
    // can tell what its next bytes are.
    let cut = progress.is_broken() || progress.awaits_continue() || reply.close;
    let keep = head.keep_alive
        && !cut
        && thread.setup.drain.borrow().is_none()
        && progress.left_at_least() <= limits.discard_bytes_max;
    let facts = Facts::of(&reply, head, peer);
    story.answers(&facts);
    let (sent_bytes, sent) = respond::send(connection, thread, snapshot, head, reply, keep).await;
    let bytes = [progress.received(), sent_bytes];
    story.end(head, &facts, bytes, sent.is_ok());
    if sent.is_err() {
        return false;
    }
    if progress.is_over() {
        return keep;
    }
    if !cut {
        let mut rest = Http1Body::new(connection, &mut progress, thread, limits);
        if rest.discard(limits.discard_bytes_max).await {
            return keep;
        }
    }
    linger(connection, LINGER).await;
    false
}

/// Whether a connection begins with the preface of HTTP/2.
async fn knows_http2(connection: &mut Connection, thread: &Thread) -> Result<bool, PeerError> {
    let limits = thread.snapshot().limits.clone();
    let mut limit = limits.idle_timeout;
    loop {
        if let Some(known) = http2::is_preface(connection.bytes()) {
            return Ok(known);
        }
        let draining = end_of_idleness(thread);
        let readable = connection.stream.readable(limit);
        match rt::first(readable, draining).await {
            // A begin that does not go on is a slow head, which is answered as such.
            rt::Either::Left(Err(PeerError::Stalled)) if !connection.bytes().is_empty() => {
                return Ok(false);
            }
            rt::Either::Left(outcome) => outcome?,
            rt::Either::Right(_) => return Err(PeerError::ShuttingDown),
        }
        if connection.more(limit).await? == 0 {
            return Err(PeerError::Gone);
        }
        limit = limits.head_timeout;
    }
}

/// Waits until the thread wants no more requests on connections that have none.
async fn end_of_idleness(thread: &Thread) {
    let mut drain = thread.setup.drain.clone();
    // The sender lives as long as the server; without one it is time to go.
    let order = drain.wait_for(Option::is_some).await;
    let order = order.ok().and_then(|order| *order);
    let until = order.map_or_else(Instant::now, |order| order.idle_until);
    rt::sleep(until.saturating_duration_since(Instant::now())).await;
}

async fn next_head(
    connection: &mut Connection,
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
) -> Result<RequestHead, NoHead> {
    let limits = &snapshot.limits;
    if connection.bytes().is_empty() {
        // An idle connection holds no buffer.
        connection.buf = Vec::new();
        let is_first = std::mem::take(&mut connection.is_fresh);
        let request = async {
            // The first request often came with the connection: looking spares a turn.
            match is_first {
                true => connection.stream.readable_now(limits.idle_timeout).await,
                false => connection.stream.readable(limits.idle_timeout).await,
            }
        };
        let draining = end_of_idleness(thread);
        match rt::first(request, draining).await {
            rt::Either::Left(Ok(())) => {}
            rt::Either::Left(Err(_)) | rt::Either::Right(()) => return Err(NoHead::Over),
        }
    }
    let begun = Instant::now();
    loop {
        match head::parse(connection.bytes(), &limits.head) {
            Ok(Parsed::Complete { head, consumed }) => {
                connection.consume(consumed);
                return Ok(head);
            }
            Ok(Parsed::Partial) => {}
            Err(error) => return Err(NoHead::Bad(error)),
        }
        let left = limits
            .head_timeout
            .checked_sub(begun.elapsed())
            .ok_or(NoHead::TooSlow)?;
        match connection.more(left).await {
            Ok(0) => return Err(NoHead::Over),
            Ok(_) => {}
            Err(PeerError::Stalled) if !connection.bytes().is_empty() => {
                return Err(NoHead::TooSlow);
            }
            Err(_) => return Err(NoHead::Over),
        }
    }
}

/// Ends our side and takes what the client still sends for a moment: closing with bytes unread
/// resets the connection, and the client might never see the answer.
async fn linger(connection: &mut Connection, limit: Duration) {
    connection.stream.end(limit).await;
    let until = Instant::now() + limit;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        connection.consume(connection.bytes().len());
        match connection.more(left).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
