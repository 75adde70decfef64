//! One connection: frames in and out, a task per stream, and when it ends.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use proxy_wire::head::{self, HeadError, Pseudo, RequestHead};
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::caught::{Panicked, caught};
use crate::connection::LINGER;
use crate::http2::Incoming;
use crate::http2::respond;
use crate::http2::sink::Chunk;
use crate::http2::wire::{self, Io, Wire};
use crate::reply::Reply;
use crate::route;
use crate::rt;
use crate::snapshot::Limits;
use crate::story::{Facts, Story};
use crate::stream::Stream;
use crate::thread::Thread;

/// What the tasks of one connection share with it.
struct Tasks {
    /// Requests at work.
    running: Cell<usize>,
    /// When the last one ended.
    rested: Cell<Instant>,
    /// Whom to tell when one ends.
    waiting: RefCell<Option<Waker>>,
    /// What may be in flight to the client.
    shares: Arc<Semaphore>,
    peer: Option<SocketAddr>,
}

/// One request at work.
struct Running(Rc<Tasks>);

impl Running {
    fn new(tasks: &Rc<Tasks>) -> Self {
        tasks.running.set(tasks.running.get() + 1);
        Self(Rc::clone(tasks))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.rested.set(Instant::now());
        if let Some(waker) = self.0.waiting.take() {
            waker.wake();
        }
    }
}

type Arrived = (http::Request<RecvStream>, SendResponse<Chunk>);

/// What a turn of the connection brought.
enum Turn {
    Stream(Box<Arrived>),
    /// The last stream ended.
    Rested,
    /// The connection is over.
    Over(Option<::h2::Error>),
}

/// Counts a connection for as long as it lives.
struct Counted<'t>(&'t Thread);

impl<'t> Counted<'t> {
    fn new(thread: &'t Thread) -> Self {
        thread.setup.metrics.http2_connections.add(1);
        Self(thread)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.setup.metrics.http2_connections.sub(1);
    }
}

/// Serves one connection, whose first bytes are `early`, to its end.
pub(crate) async fn serve(stream: Stream, early: Vec<u8>, thread: &Rc<Thread>) {
    // Frames come from outside: should the framing layer break over one, its connection ends.
    if let Err(Panicked) = caught(serve_inner(stream, early, thread)).await {
        thread.setup.metrics.panics.add(1);
        tracing::error!("an HTTP/2 connection panicked");
    }
}

async fn serve_inner(stream: Stream, early: Vec<u8>, thread: &Rc<Thread>) {
    let _counted = Counted::new(thread);
    let limits = thread.snapshot().limits.clone();
    let wire = Rc::new(RefCell::new(Wire::new(stream, early)));
    let shaking = builder(&limits).handshake::<_, Chunk>(Io(Rc::clone(&wire)));
    let shaken = rt::within(limits.head_timeout, driven(&wire, shaking)).await;
    if let Ok(Some(Ok(connection))) = shaken {
        Driver::new(connection, &wire, thread, limits).run().await;
        let rest = poll_fn(|cx| wire.borrow_mut().poll_drain(cx));
        if !matches!(rt::within(LINGER, rest).await, Ok(Ok(()))) {
            wire.borrow().reset_on_close();
        }
    }
    wire::end(wire, LINGER).await;
}

fn builder(limits: &Limits) -> Builder {
    let http2 = &limits.http2;
    let clamp = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(clamp(http2.streams_max))
        .initial_window_size(http2.stream_window_bytes)
        .initial_connection_window_size(http2.connection_window_bytes)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(clamp(limits.head.head_bytes_max))
        .max_send_buffer_size(http2.send_bytes_max)
        // A client that resets what it has just begun, and one that errs all the time, is told to
        // calm down: RFC 9113 §10.5, CVE-2023-44487.
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_concurrent_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(ERRORS_MAX));
    builder
}

/// Largest frame that clients may send. 64 KiB: fewer heads per upload; still short enough that
/// streams take turns.
const FRAME_BYTES: u32 = 64 * 1024;
/// Streams that a client may have begun and reset before we came to them.
const RESETS_MAX: usize = 32;
/// Streams that a client may break before its connection ends.
const ERRORS_MAX: usize = 256;

/// Runs a future of the framing layer; what it writes goes out. `None` when the socket is broken.
async fn driven<F: Future>(wire: &RefCell<Wire>, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx).map(Some);
        if let Poll::Ready(Err(_)) = wire.borrow_mut().poll_drain(cx) {
            return Poll::Ready(None);
        }
        polled
    })
    .await
}

struct Driver<'c> {
    connection: Connection<Io, Chunk>,
    wire: &'c RefCell<Wire>,
    thread: &'c Rc<Thread>,
    limits: Limits,
    tasks: Rc<Tasks>,
    /// When the client was told that this is the end.
    closing: Option<Instant>,
}

impl<'c> Driver<'c> {
    fn new(
        connection: Connection<Io, Chunk>,
        wire: &'c RefCell<Wire>,
        thread: &'c Rc<Thread>,
        limits: Limits,
    ) -> Self {
        let tasks = Rc::new(Tasks {
            running: Cell::new(0),
            rested: Cell::new(Instant::now()),
            waiting: RefCell::new(None),
            shares: Arc::new(Semaphore::new(limits.http2.send_bytes_max)),
            peer: wire.borrow().peer(),
        });
        Self {
            connection,
            wire,
            thread,
            limits,
            tasks,
            closing: None,
        }
    }

    async fn run(&mut self) {
        let mut drain = self.thread.setup.drain.clone();
        loop {
            let (wait, drained) = (self.wait(), self.closing.is_some());
            let was_busy = self.is_busy();
            let draining = async {
                match drained {
                    true => std::future::pending().await,
                    false => drop(drain.wait_for(Option::is_some).await),
                }
            };
            let limit = rt::first(draining, rt::sleep(wait));
            let turn = poll_fn(|cx| self.poll_turn(was_busy, cx));
            match rt::first(turn, limit).await {
                rt::Either::Left(Turn::Stream(arrived)) => self.start(*arrived),
                rt::Either::Left(Turn::Rested) => {}
                rt::Either::Left(Turn::Over(error)) => {
                    if let Some(error) = error {
                        tracing::debug!(%error, "an HTTP/2 connection ended");
                    }
                    return;
                }
                rt::Either::Right(rt::Either::Left(())) => self.close(),
                rt::Either::Right(rt::Either::Right(())) => {
                    if !self.is_worth_waiting() {
                        return;
                    }
                }
            }
        }
    }

    /// One turn: frames in, frames out, and the next stream if there is room for its task.
    fn poll_turn(&mut self, was_busy: bool, cx: &mut Context<'_>) -> Poll<Turn> {
        self.tasks.waiting.replace(Some(cx.waker().clone()));
        let polled = if self.tasks.running.get() < self.limits.http2.streams_max {
            self.connection.poll_accept(cx).map(|next| match next {
                Some(Ok(arrived)) => Turn::Stream(Box::new(arrived)),
                Some(Err(error)) => Turn::Over(Some(error)),
                None => Turn::Over(None),
            })
        } else {
            let closed = self.connection.poll_closed(cx);
            closed.map(|closed| Turn::Over(closed.err()))
        };
        let mut wire = self.wire.borrow_mut();
        match wire.poll_drain(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Turn::Over(None)),
            Poll::Ready(Ok(())) if polled.is_pending() && !self.is_busy() => wire.rest(),
            Poll::Ready(Ok(())) | Poll::Pending => return polled,
        }
        if was_busy {
            return Poll::Ready(Turn::Rested);
        }
        polled
    }

    /// Somebody still works on this connection, or has bytes in it.
    fn is_busy(&self) -> bool {
        0 < self.tasks.running.get() || self.connection.has_streams()
    }

    /// How long until [`Driver::is_worth_waiting`] must be asked.
    fn wait(&self) -> Duration {
        if self.is_busy() {
            let full_for = self.wire.borrow().full_for();
            return self.limits.progress_timeout.saturating_sub(full_for);
        }
        let since = self.tasks.rested.get();
        let (limit, since) = match self.closing {
            Some(at) => (LINGER, at.max(since)),
            None => (self.limits.idle_timeout, since),
        };
        limit.saturating_sub(since.elapsed())
    }

    /// Called when time is over: decides what that means.
    fn is_worth_waiting(&mut self) -> bool {
        if self.limits.progress_timeout <= self.wire.borrow().full_for() {
            self.connection.abrupt_shutdown(Reason::NO_ERROR);
            return false;
        }
        if self.is_busy() || !self.wait().is_zero() {
            return true;
        }
        if self.closing.is_some() {
            return false;
        }
        self.close();
        true
    }

    /// Tells the client to begin nothing more here; what runs goes on.
    fn close(&mut self) {
        self.closing = Some(Instant::now());
        self.connection.graceful_shutdown();
    }

    fn start(&self, (request, respond): Arrived) {
        let (thread, tasks) = (Rc::clone(self.thread), Rc::clone(&self.tasks));
        thread.setup.metrics.http2_streams.add(1);
        let running = Running::new(&tasks);
        rt::spawn(async move {
            let path = request.uri().path().to_owned();
            if let Err(Panicked) = caught(one_request(&thread, &tasks, request, respond)).await {
                // The stream is reset by letting go of it.
                thread.setup.metrics.panics.add(1);
                tracing::error!(path, "a request panicked");
            }
            drop(running);
        });
    }
}

async fn one_request(
    thread: &Rc<Thread>,
    tasks: &Tasks,
    request: http::Request<RecvStream>,
    respond: SendResponse<Chunk>,
) {
    let snapshot = thread.snapshot();
    let limits = &snapshot.limits;
    let (parts, body) = request.into_parts();
    let head = match head_of(&parts, body.is_end_stream(), limits) {
        Ok(head) => head,
        Err(error) => {
            let reply = Reply::text(error.status(), error.text());
            let with_body = parts.method != http::Method::HEAD;
            respond::refuse(respond, &tasks.shares, (thread, limits), with_body, reply).await;
            return;
        }
    };
    let respond = Rc::new(RefCell::new(Some(respond)));
    let incoming = Incoming::new(body, &head, &respond, (thread, limits), tasks.peer);
    let mut body = Body::Http2(incoming);
    let story = Story::begin(thread, &head);
    let reply = route::dispatch(thread, &snapshot, &head, &mut body).await;
    let facts = Facts::of(&reply, &head, body.peer());
    story.answers(&facts);
    // What went wrong is logged where it went wrong.
    let (sent_bytes, sent) =
        respond::send(&respond, &tasks.shares, (thread, limits), &head, reply).await;
    story.end(&head, &facts, [body.received(), sent_bytes], sent.is_ok());
}

fn head_of(
    parts: &http::request::Parts,
    ends: bool,
    limits: &Limits,
) -> Result<RequestHead, HeadError> {
    let path = parts.uri.path_and_query().ok_or(HeadError::Target)?;
    let pseudo = Pseudo {
        method: parts.method.as_str(),
        path: path.as_str(),
        authority: parts.uri.authority().map(http::uri::Authority::as_str),
        ends,
    };
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
    head::from_fields(pseudo, fields, &limits.head)
}
