//! Sending an answer's body into a stream.
//!
//! Laws
//! - First the window, then a share of what the connection may have in flight, then a buffer: a
//!   client that takes nothing holds none.
//! - The last byte that the head announced ends the stream; there is no frame without need.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::h2::{Reason, SendStream};
use bytes::Buf;
use proxy_core::units::{ByteLen, MIB, Offset};
use proxy_ring::{FileRef, Lease};
use proxy_transfer::seam::SinkError;
use proxy_transfer::{PeerError, Sink};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rt;
use crate::snapshot::Limits;
use crate::span;
use crate::thread::Thread;

/// Bytes that one stream may send before the others have their turn.
const TURN_BYTES: u64 = MIB;
/// Pieces up to this size travel in memory of their own instead of a pool buffer.
const OWN_BYTES_MAX: usize = 64 * 1024;

/// Bytes on their way into DATA frames.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Held,
    at: usize,
    /// Its share of what the connection has in flight; given back when the frames are written.
    _share: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Held {
    Own(Vec<u8>),
    Lease(Lease),
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.chunk().len()
    }

    fn chunk(&self) -> &[u8] {
        match &self.bytes {
            Held::Own(bytes) => &bytes[self.at..],
            Held::Lease(lease) => &lease.as_slice()[self.at..],
        }
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining());
        self.at += count;
    }
}

/// A stream as the download machines see it.
pub(crate) struct Outgoing {
    stream: SendStream<Chunk>,
    thread: Rc<Thread>,
    /// What the connection may have in flight.
    shares: Arc<Semaphore>,
    limit: Duration,
    /// Bytes of one piece: a buffer, and no more than half of what may be in flight, so that one
    /// is read while another leaves.
    piece_bytes_max: usize,
    /// Bytes of the body that are not sent yet; `None` when the head did not say.
    left: Option<u64>,
    ended: bool,
    sent_since_turn: u64,
    sent: u64,
}

impl Outgoing {
    /// A body of `len` bytes, as far as the head says it.
    pub(super) fn new(
        stream: SendStream<Chunk>,
        len: Option<u64>,
        shares: &Arc<Semaphore>,
        (thread, limits): (&Rc<Thread>, &Limits),
    ) -> Self {
        Self {
            stream,
            thread: Rc::clone(thread),
            shares: Arc::clone(shares),
            limit: limits.progress_timeout,
            piece_bytes_max: thread
                .files
                .pool
                .buffer_bytes()
                .min(limits.http2.send_bytes_max / 2),
            left: len,
            ended: false,
            sent_since_turn: 0,
            sent: 0,
        }
    }

    /// Bytes sent so far.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits for a window, and for a share of what may be in flight. At most `want` bytes.
    async fn room(&mut self, want: usize) -> Result<(usize, OwnedSemaphorePermit), PeerError> {
        let want = want.min(self.piece_bytes_max);
        self.stream.reserve_capacity(want);
        while self.stream.capacity() == 0 {
            let more = rt::within(self.limit, poll_fn(|cx| self.stream.poll_capacity(cx)));
            match more.await.map_err(|rt::Elapsed| PeerError::Stalled)? {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(PeerError::Gone),
            }
        }
        let count = want.min(self.stream.capacity());
        let share = Arc::clone(&self.shares).acquire_many_owned(count as u32);
        match rt::within(self.limit, share).await {
            Ok(Ok(share)) => Ok((count, share)),
            Ok(Err(_)) => Err(PeerError::Gone),
            Err(rt::Elapsed) => Err(PeerError::Stalled),
        }
    }

    async fn put(&mut self, bytes: Held, share: OwnedSemaphorePermit) -> Result<(), SinkError> {
        let chunk = Chunk {
            bytes,
            at: 0,
            _share: Some(share),
        };
        let count = chunk.remaining() as u64;
        if let Some(left) = &mut self.left {
            // More than was announced would break the framing.
            *left = left.checked_sub(count).ok_or(SinkError::Truncated)?;
            self.ended = *left == 0;
        }
        self.stream
            .send_data(chunk, self.ended)
            .map_err(|_| PeerError::Gone)?;
        self.thread.setup.metrics.sent_bytes.add(count);
        self.sent_since_turn += count;
        self.sent += count;
        if self.sent_since_turn >= TURN_BYTES {
            self.sent_since_turn = 0;
            rt::breathe().await;
        }
        Ok(())
    }

    /// Ends the stream behind a whole body.
    pub(super) fn finish(&mut self) -> Result<(), SinkError> {
        if self.ended {
            return Ok(());
        }
        if self.left.is_some_and(|left| 0 < left) {
            return Err(SinkError::Truncated);
        }
        let end = Chunk {
            bytes: Held::Own(Vec::new()),
            at: 0,
            _share: None,
        };
        let sent = self.stream.send_data(end, true);
        sent.map_err(|_| PeerError::Gone.into())
    }

    /// Ends a stream that can not be finished, so that no client takes a part for the whole.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}

impl Sink for Outgoing {
    type File = FileRef;

    async fn send(&mut self, bytes: &[u8], _more: bool) -> Result<(), SinkError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (count, share) = self.room(rest.len()).await?;
            let (part, after) = rest.split_at(count);
            rest = after;
            let held = if count <= OWN_BYTES_MAX {
                Held::Own(part.to_vec())
            } else {
                let mut lease = self.thread.files.pool.lease().await;
                lease.clear();
                lease.append(part);
                Held::Lease(lease)
            };
            self.put(held, share).await?;
        }
        Ok(())
    }

    async fn send_file(
        &mut self,
        file: &FileRef,
        at: Offset,
        len: ByteLen,
        _more: bool,
    ) -> Result<(), SinkError> {
        let (mut at, mut left) = (at.get(), len.get());
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX);
            let (want, share) = self.room(want).await?;
            let (held, count) = if want <= OWN_BYTES_MAX
                && let Some(bytes) = span::own_if_cached(file, at, want)
            {
                (Held::Own(bytes), want)
            } else {
                let lease = span::read(&self.thread.files, file, at, want).await?;
                let count = lease.filled();
                (Held::Lease(lease), count)
            };
            at += count as u64;
            left -= count as u64;
            self.put(held, share).await?;
        }
        Ok(())
    }
}
