//! The connection below the frames, as tokio's I/O traits over calls that never wait.
//!
//! Frames are gathered here and sent in large pieces once the framing layer has nothing more to
//! say; that is why flushing does nothing and [`Wire::poll_drain`] is called after every turn.
//!
//! Copy: one, frame by frame into the piece; a call per frame of 16 KiB costs more, and over TLS
//! each frame would be a record and a tail.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::rt;
use crate::stream::Stream;

/// Bytes of frames that are gathered before the socket must take some.
const GATHER_BYTES: usize = 128 * 1024;

/// Bytes that are received before others have their turn: a flood of frames that ask for nothing
/// has no window to stop it.
const TURN_BYTES: usize = 1024 * 1024;

type Wait = Pin<Box<dyn Future<Output = ()>>>;

/// A connection, its gathered bytes, and what it waits for.
pub(super) struct Wire {
    stream: Stream,
    /// Received before the protocol was known, from `taken` on.
    early: Vec<u8>,
    taken: usize,
    /// To be sent, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// Something was taken by the stream and may not have reached the socket.
    unflushed: bool,
    /// Since when the socket has taken nothing.
    full_since: Option<Instant>,
    /// Bytes received since others had their turn.
    received: usize,
    reading: Option<Wait>,
    writing: Option<Wait>,
}

impl Wire {
    pub(super) fn new(stream: Stream, early: Vec<u8>) -> Self {
        Self {
            stream,
            early,
            taken: 0,
            out: Vec::new(),
            sent: 0,
            unflushed: false,
            full_since: None,
            received: 0,
            reading: None,
            writing: None,
        }
    }

    pub(super) fn peer(&self) -> Option<std::net::SocketAddr> {
        self.stream.socket().peer()
    }

    /// How long the socket has taken nothing of what waits for it.
    pub(super) fn full_for(&self) -> Duration {
        self.full_since.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Gives the memory of an idle connection back.
    pub(super) fn rest(&mut self) {
        if self.sent == self.out.len() {
            (self.out, self.sent) = (Vec::new(), 0);
        }
    }

    /// The peer must not take what it got for whole.
    pub(super) fn reset_on_close(&self) {
        self.stream.socket().reset_on_close();
    }

    /// Sends what was gathered. Pending while the socket takes nothing.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(wait) = &mut self.writing {
                ready!(wait.as_mut().poll(cx));
                self.writing = None;
            }
            let outcome = if self.sent < self.out.len() {
                let outcome = self.stream.try_send(&self.out[self.sent..]);
                outcome.map(|count| {
                    self.sent += count;
                    self.unflushed = true;
                })
            } else if self.unflushed {
                self.stream.try_flush().map(|()| self.unflushed = false)
            } else {
                self.out.clear();
                self.sent = 0;
                return Poll::Ready(Ok(()));
            };
            match outcome {
                Ok(()) => self.full_since = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.full_since.get_or_insert_with(Instant::now);
                    let socket = self.stream.socket().clone();
                    self.writing = Some(Box::pin(socket.writable_ever()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken < self.early.len() {
            let rest = &self.early[self.taken..];
            let count = rest.len().min(room.remaining());
            room.put_slice(&rest[..count]);
            self.taken += count;
            return Poll::Ready(Ok(()));
        }
        self.early = Vec::new();
        self.taken = 0;
        loop {
            if let Some(wait) = &mut self.reading {
                ready!(wait.as_mut().poll(cx));
                self.reading = None;
            }
            match self.stream.try_recv(room.initialize_unfilled()) {
                Ok(count) => {
                    room.advance(count);
                    self.received += count;
                    if TURN_BYTES <= self.received {
                        self.received = 0;
                        self.reading = Some(Box::pin(rt::breathe()));
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.received = 0;
                    let socket = self.stream.socket().clone();
                    self.reading = Some(Box::pin(socket.readable_ever()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.len() >= GATHER_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        let count = bytes.len().min(GATHER_BYTES - self.out.len());
        self.out.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }
}

/// Says goodbye, within `limit`.
pub(super) async fn end(wire: Rc<RefCell<Wire>>, limit: Duration) {
    // The framing layer is gone, and with it the other handle.
    if let Some(wire) = Rc::into_inner(wire) {
        let mut stream = wire.into_inner().stream;
        stream.end(limit).await;
    }
}

/// The framing layer's handle.
pub(super) struct Io(pub(super) Rc<RefCell<Wire>>);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_recv(cx, room)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_gather(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let mut taken = 0;
        for slice in slices {
            match wire.poll_gather(cx, slice) {
                Poll::Ready(Ok(count)) => {
                    taken += count;
                    if count < slice.len() {
                        break;
                    }
                }
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Ready(Err(error)) if taken == 0 => return Poll::Ready(Err(error)),
                // Comes again with the next call.
                Poll::Pending | Poll::Ready(Err(_)) => break,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_drain(cx)
    }
}
