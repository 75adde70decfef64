//! A request body as it comes off a stream.
//!
//! Laws
//! - The window opens again when bytes are in the buffer that goes to the disk, not before: what
//!   is received and not wanted is bounded by the window.
//! - `100 Continue` goes out with the first wish for a byte, so only after authorisation.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ::h2::RecvStream;
use bytes::{Buf, Bytes};
use proxy_ring::Lease;
use proxy_transfer::{Fill, PeerError, Source};
use proxy_wire::head::{Framing, RequestHead};
use proxy_wire::response::ResponseHead;

use crate::body::PAUSE;
use crate::http2::respond::{Respond, response};
use crate::rt;
use crate::snapshot::Limits;
use crate::thread::Thread;

/// The body of one stream.
pub(crate) struct Incoming {
    stream: RecvStream,
    /// Received and not yet taken.
    part: Bytes,
    /// Bytes that the client announced and has not sent.
    left: Option<u64>,
    over: bool,
    broken: bool,
    received: u64,
    /// The client waits for a 100 before it sends.
    awaited: bool,
    respond: Respond,
    peer: Option<SocketAddr>,
    thread: Rc<Thread>,
    limit: Duration,
}

impl Incoming {
    pub(super) fn new(
        stream: RecvStream,
        head: &RequestHead,
        respond: &Respond,
        (thread, limits): (&Rc<Thread>, &Limits),
        peer: Option<SocketAddr>,
    ) -> Self {
        let left = match head.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        Self {
            over: stream.is_end_stream(),
            stream,
            part: Bytes::new(),
            left,
            broken: false,
            received: 0,
            awaited: head.expect_continue,
            respond: Rc::clone(respond),
            peer,
            thread: Rc::clone(thread),
            limit: limits.progress_timeout,
        }
    }

    /// Bytes of it so far.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Sends an interim answer.
    pub(crate) fn inform(&mut self, interim: &ResponseHead) -> Result<(), PeerError> {
        let mut respond = self.respond.borrow_mut();
        let respond = respond.as_mut().ok_or(PeerError::Gone)?;
        let sent = respond.send_informational(response(interim));
        sent.map_err(|_| PeerError::Gone)
    }

    fn say_continue(&mut self) {
        if self.awaited {
            self.awaited = false;
            // A stream that is gone says so at the next byte.
            let _ = self.inform(&ResponseHead::new(100));
        }
    }

    /// Waits until there is a part to take, or the end.
    async fn part(&mut self, limit: Duration) -> Result<(), PeerError> {
        while self.part.is_empty() && !self.at_end() {
            self.say_continue();
            // Waiting holds no bytes: a part is taken when it is there.
            let part = rt::within(limit, poll_fn(|cx| self.stream.poll_data(cx))).await;
            match part.map_err(|rt::Elapsed| PeerError::Stalled)? {
                Some(Ok(part)) => self.part = part,
                Some(Err(_)) => return Err(PeerError::Gone),
                None => self.over = true,
            }
        }
        Ok(())
    }

    async fn fill_inner(&mut self, buf: &mut Lease, limit: usize) -> Result<Fill, PeerError> {
        while buf.filled() < limit {
            match self.part(PAUSE).await {
                // What came goes to the disk; the wait for more holds no buffer.
                Err(PeerError::Stalled) => return Ok(Fill::More),
                outcome => outcome?,
            }
            if self.at_end() {
                return Ok(Fill::End);
            }
            let want = self.part.len().min(limit - buf.filled());
            let count = buf.append(&self.part[..want]);
            self.part.advance(count);
            self.left = self.left.map(|left| left.saturating_sub(count as u64));
            let window = self.stream.flow_control();
            window
                .release_capacity(count)
                .map_err(|_| PeerError::Gone)?;
        }
        Ok(if self.at_end() { Fill::End } else { Fill::More })
    }

    /// Everything was taken: the stream ended, or brought what was announced. More than that is
    /// an error that the framing layer finds.
    fn at_end(&self) -> bool {
        self.part.is_empty() && (self.over || self.left == Some(0) || self.stream.is_end_stream())
    }
}

impl Source for Incoming {
    type Buf = Lease;

    fn remaining(&self) -> Option<u64> {
        if self.at_end() { Some(0) } else { self.left }
    }

    async fn ready(&mut self) -> Result<(), PeerError> {
        if self.broken {
            return Err(PeerError::Gone);
        }
        let outcome = self.part(self.limit).await;
        self.broken |= outcome.is_err();
        outcome
    }

    async fn fill(&mut self, mut buf: Lease, limit: usize) -> (Result<Fill, PeerError>, Lease) {
        if self.broken {
            return (Err(PeerError::Gone), buf);
        }
        let before = buf.filled();
        let outcome = self.fill_inner(&mut buf, limit).await;
        let metrics = &self.thread.setup.metrics;
        let count = (buf.filled() - before) as u64;
        metrics.received_bytes.add(count);
        self.received += count;
        self.broken |= outcome.is_err();
        (outcome, buf)
    }

    async fn is_over(&mut self) -> Result<bool, PeerError> {
        self.ready().await?;
        Ok(self.at_end())
    }
}
