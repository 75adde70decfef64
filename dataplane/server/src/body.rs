//! A request body as it comes off the connection: counted, unchunked, and never past its end.
//!
//! Laws
//! - Bytes that came with the head are taken first; what follows the body stays for the next head.
//! - `100 Continue` goes out with the first wish for a byte, so only after authorisation.
//! - Data goes straight into its final buffer where the framing says how much is certain.
//!
//! Source: RFC 9112 §6, RFC 9110 §10.1.1.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use proxy_ring::{Lease, socket};
use proxy_transfer::{Fill, PeerError, Source};
use proxy_wire::chunked::{Decoder, Step};
use proxy_wire::head::{Framing, RequestHead};
use proxy_wire::response::{CONTINUE, ResponseHead};

use crate::connection::Connection;
use crate::http2::Incoming;
use crate::snapshot::Limits;
use crate::stream::Stream;
use crate::thread::Thread;

/// How long a buffer waits for more bytes before it is written as it is: longer than the gaps
/// of a connection that is in full flow, far below what would show as a delay.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// How the rest of a body is delimited.
#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Box<Decoder>),
}

/// Where in its body a request stands.
#[derive(Debug)]
pub(crate) struct Progress {
    rest: Rest,
    /// The client waits for a 100.
    awaits_continue: bool,
    /// The peer broke the framing or went away: nothing after it can be trusted.
    broken: bool,
    /// Bytes of it so far.
    received: u64,
}

impl Progress {
    /// Before the first byte.
    pub(crate) fn new(head: &RequestHead, limits: &Limits) -> Self {
        let rest = match head.framing {
            Framing::None => Rest::Length(0),
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Box::new(Decoder::new(limits.chunk))),
        };
        Self {
            rest,
            awaits_continue: head.expect_continue,
            broken: false,
            received: 0,
        }
    }

    /// Bytes of it so far.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    /// Nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        match &self.rest {
            Rest::Length(length) => *length == 0,
            Rest::Chunked(decoder) => decoder.is_ended(),
        }
    }

    /// Bytes that are left at least; a chunked body tells its length at its end only.
    pub(crate) fn left_at_least(&self) -> u64 {
        match &self.rest {
            Rest::Length(length) => *length,
            Rest::Chunked(decoder) => decoder.remaining_in_chunk(),
        }
    }

    /// The client still waits for a 100 before it sends its body.
    pub(crate) fn awaits_continue(&self) -> bool {
        self.awaits_continue && !self.is_over()
    }

    /// Nothing after this body can be trusted.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }
}

/// The body of one request, whatever its protocol.
pub(crate) enum Body<'c> {
    /// Off an HTTP/1.1 connection.
    Http1(Http1Body<'c>),
    /// Off one stream of an HTTP/2 connection.
    Http2(Incoming),
}

impl Body<'_> {
    /// Who sends it; for logs.
    pub(crate) fn peer(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Http1(body) => body.connection.stream.socket().peer(),
            Self::Http2(body) => body.peer(),
        }
    }

    /// Bytes of it so far.
    pub(crate) fn received(&self) -> u64 {
        match self {
            Self::Http1(body) => body.progress.received(),
            Self::Http2(body) => body.received(),
        }
    }

    /// Sends an interim answer.
    pub(crate) async fn inform(&mut self, interim: &ResponseHead) -> Result<(), PeerError> {
        match self {
            Self::Http1(body) => {
                let mut bytes = Vec::new();
                interim.write_to(&mut bytes);
                let stream = &mut body.connection.stream;
                stream.send(&bytes, false, body.limit).await
            }
            Self::Http2(body) => body.inform(interim),
        }
    }
}

impl Source for Body<'_> {
    type Buf = Lease;

    fn remaining(&self) -> Option<u64> {
        match self {
            Self::Http1(body) => body.remaining(),
            Self::Http2(body) => body.remaining(),
        }
    }

    async fn ready(&mut self) -> Result<(), PeerError> {
        match self {
            Self::Http1(body) => body.ready().await,
            Self::Http2(body) => body.ready().await,
        }
    }

    async fn fill(&mut self, buf: Lease, limit: usize) -> (Result<Fill, PeerError>, Lease) {
        match self {
            Self::Http1(body) => body.fill(buf, limit).await,
            Self::Http2(body) => body.fill(buf, limit).await,
        }
    }

    async fn is_over(&mut self) -> Result<bool, PeerError> {
        match self {
            Self::Http1(body) => body.is_over().await,
            Self::Http2(body) => body.is_over().await,
        }
    }
}

/// A body that HTTP/1.1 delimits.
pub(crate) struct Http1Body<'c> {
    connection: &'c mut Connection,
    progress: &'c mut Progress,
    thread: Rc<Thread>,
    limit: Duration,
}

impl<'c> Http1Body<'c> {
    pub(crate) fn new(
        connection: &'c mut Connection,
        progress: &'c mut Progress,
        thread: &Rc<Thread>,
        limits: &Limits,
    ) -> Self {
        let thread = Rc::clone(thread);
        Self {
            connection,
            progress,
            thread,
            limit: limits.progress_timeout,
        }
    }

    /// Takes what is left off the connection, up to `most` bytes. True if that was all of it.
    pub(crate) async fn discard(&mut self, most: u64) -> bool {
        let mut left = most;
        while !self.progress.is_over() {
            if left == 0 {
                return false;
            }
            if self.ready().await.is_err() {
                return false;
            }
            let mut lease = self.thread.files.pool.lease().await;
            lease.clear();
            let want = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(lease.capacity());
            let (outcome, lease) = self.fill(lease, want).await;
            left -= lease.filled() as u64;
            match outcome {
                Ok(Fill::End) => return true,
                Ok(Fill::More) => {}
                Err(_) => return false,
            }
        }
        true
    }

    async fn say_continue(&mut self) -> Result<(), PeerError> {
        if !self.progress.awaits_continue {
            return Ok(());
        }
        self.progress.awaits_continue = false;
        if !self.connection.bytes().is_empty() {
            return Ok(());
        }
        self.connection
            .stream
            .send(CONTINUE, false, self.limit)
            .await
    }

    /// One step of a body with a length. False when there was nothing to do.
    async fn fill_length(&mut self, lease: &mut Lease, limit: usize) -> Result<bool, PeerError> {
        let Rest::Length(left) = self.progress.rest else {
            return Ok(false);
        };
        let want = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(limit - lease.filled());
        let count = self.take(lease, want).await?;
        self.progress.rest = Rest::Length(left - count as u64);
        Ok(count > 0)
    }

    /// Takes up to `want` bytes that are certainly data. Zero: the peer pauses.
    async fn take(&mut self, lease: &mut Lease, want: usize) -> Result<usize, PeerError> {
        assert!(want > 0);
        let early = self.connection.bytes();
        if !early.is_empty() {
            let count = lease.append(&early[..early.len().min(want)]);
            self.connection.consume(count);
            return Ok(count);
        }
        let count = match &mut self.connection.stream {
            Stream::Plain(plain) => loop {
                match socket::recv_into(plain.fd(), lease, want) {
                    Ok(count) => break count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        // A peer that pauses gets no buffer to itself: what came goes to
                        // the disk, and the wait for more is done without one.
                        match plain.readable(PAUSE).await {
                            Ok(()) => {}
                            Err(PeerError::Stalled) => return Ok(0),
                            Err(error) => return Err(error),
                        }
                    }
                    Err(_) => return Err(PeerError::Gone),
                }
            },
            Stream::Tls(tls) => {
                let count = match tls.recv(&mut lease.spare_mut()[..want], PAUSE).await {
                    Err(PeerError::Stalled) => return Ok(0),
                    outcome => outcome?,
                };
                lease.advance(count);
                count
            }
        };
        if count == 0 {
            return Err(PeerError::Gone);
        }
        Ok(count)
    }

    /// One step of a chunked body. False when there was nothing to do.
    async fn fill_chunked(&mut self, lease: &mut Lease, limit: usize) -> Result<bool, PeerError> {
        let Rest::Chunked(decoder) = &mut self.progress.rest else {
            return Ok(false);
        };
        let certain = decoder.remaining_in_chunk();
        if certain > 0 {
            let want = usize::try_from(certain)
                .unwrap_or(usize::MAX)
                .min(limit - lease.filled());
            let count = self.take(lease, want).await?;
            if let Rest::Chunked(decoder) = &mut self.progress.rest {
                decoder.advance_data(count as u64);
            }
            return Ok(count > 0);
        }
        self.framing().await.map(|()| true)
    }

    /// Reads framing up to the next data or the end.
    async fn framing(&mut self) -> Result<(), PeerError> {
        loop {
            let Rest::Chunked(decoder) = &mut self.progress.rest else {
                return Ok(());
            };
            // One byte more than framing would be data, which belongs into a buffer: framing is
            // fed byte by byte, it is short.
            let bytes = self.connection.bytes();
            let Some(first) = bytes.get(..1) else {
                if self.connection.more(self.limit).await? == 0 {
                    return Err(PeerError::Gone);
                }
                continue;
            };
            match decoder.decode(first) {
                Ok(Step::NeedMore { consumed } | Step::End { consumed }) => {
                    self.connection.consume(consumed);
                }
                Ok(Step::Data { .. }) => unreachable!("data is taken elsewhere"),
                Err(error) => return Err(PeerError::Malformed(error.text())),
            }
            if decoder.is_ended() || decoder.remaining_in_chunk() > 0 {
                return Ok(());
            }
        }
    }

    async fn fill_inner(&mut self, lease: &mut Lease, limit: usize) -> Result<Fill, PeerError> {
        self.say_continue().await?;
        while !self.progress.is_over() && lease.filled() < limit {
            let moved = match self.progress.rest {
                Rest::Length(_) => self.fill_length(lease, limit).await?,
                Rest::Chunked(_) => self.fill_chunked(lease, limit).await?,
            };
            if !moved {
                return Ok(Fill::More);
            }
        }
        Ok(if self.progress.is_over() {
            Fill::End
        } else {
            Fill::More
        })
    }
}

impl Source for Http1Body<'_> {
    type Buf = Lease;

    fn remaining(&self) -> Option<u64> {
        match &self.progress.rest {
            Rest::Length(length) => Some(*length),
            Rest::Chunked(_) => None,
        }
    }

    async fn ready(&mut self) -> Result<(), PeerError> {
        if self.progress.broken {
            return Err(PeerError::Gone);
        }
        if self.progress.is_over() {
            return Ok(());
        }
        let outcome = match self.say_continue().await {
            Ok(()) if self.connection.bytes().is_empty() => {
                self.connection.stream.readable_now(self.limit).await
            }
            other => other,
        };
        self.progress.broken |= outcome.is_err();
        outcome
    }

    async fn fill(&mut self, mut buf: Lease, limit: usize) -> (Result<Fill, PeerError>, Lease) {
        if self.progress.broken {
            return (Err(PeerError::Gone), buf);
        }
        let before = buf.filled();
        let outcome = self.fill_inner(&mut buf, limit).await;
        let count = (buf.filled() - before) as u64;
        self.progress.received += count;
        self.thread.setup.metrics.received_bytes.add(count);
        self.progress.broken |= outcome.is_err();
        (outcome, buf)
    }

    async fn is_over(&mut self) -> Result<bool, PeerError> {
        if self.progress.broken {
            return Err(PeerError::Gone);
        }
        let outcome = match &self.progress.rest {
            Rest::Length(length) => Ok(*length == 0),
            Rest::Chunked(decoder) if decoder.is_ended() => Ok(true),
            Rest::Chunked(decoder) if decoder.remaining_in_chunk() > 0 => Ok(false),
            Rest::Chunked(_) => {
                let said = self.say_continue().await;
                let read = match said {
                    Ok(()) => self.framing().await,
                    Err(error) => Err(error),
                };
                read.map(|()| self.progress.is_over())
            }
        };
        self.progress.broken |= outcome.is_err();
        outcome
    }
}
