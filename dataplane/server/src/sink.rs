//! Sending bytes and file spans into a connection by the cheapest way it has.
//!
//! Plain TCP: the page cache is spliced into the socket, warm spans at once on this thread, cold
//! ones read by the ring first, so that the thread never waits for a disk. TLS: through buffers.
//!
//! Laws
//! - Sockets are O_NONBLOCK from their accept on: a splice looks at nothing else.
//! - A slow client costs a wait for readiness, never a thread.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use proxy_core::units::{ByteLen, KIB, MIB, Offset};
use proxy_ring::{FileRef, Pipe, socket};
use proxy_transfer::seam::SinkError;
use proxy_transfer::{PeerError, Sink};

use crate::rt;
use crate::snapshot::Limits;
use crate::socket::Socket;
use crate::span;
use crate::stream::Stream;
use crate::thread::Thread;

/// Bytes that one connection may send before the others have their turn.
const TURN_BYTES: u64 = MIB;
/// The same where a crowd sends: eight connections of this take less than a millisecond, so that
/// a newcomer, who needs two or three turns to its first byte, has it within few.
const TURN_BYTES_IN_CROWD: u64 = 512 * KIB;
/// As many senders are a crowd.
const CROWD: usize = 4;
/// Spans below this are read and sent: a splice pays from about here on.
const SPLICE_BYTES_MIN: u64 = 64 * KIB;

/// A connection as the download machines see it.
pub(crate) struct StreamSink<'c> {
    stream: &'c mut Stream,
    thread: Rc<Thread>,
    limit: Duration,
    sent_since_turn: u64,
    sent: u64,
}

impl<'c> StreamSink<'c> {
    pub(crate) fn new(stream: &'c mut Stream, thread: &Rc<Thread>, limits: &Limits) -> Self {
        let thread = Rc::clone(thread);
        thread.senders.set(thread.senders.get() + 1);
        Self {
            stream,
            thread,
            limit: limits.progress_timeout,
            sent_since_turn: 0,
            sent: 0,
        }
    }

    /// Bytes sent so far, heads included.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    fn turn_bytes(&self) -> u64 {
        if self.thread.senders.get() > CROWD {
            TURN_BYTES_IN_CROWD
        } else {
            TURN_BYTES
        }
    }

    async fn count(&mut self, bytes: u64) {
        self.thread.setup.metrics.sent_bytes.add(bytes);
        self.sent_since_turn += bytes;
        self.sent += bytes;
        if self.sent_since_turn >= self.turn_bytes() {
            self.sent_since_turn = 0;
            rt::breathe().await;
        }
    }

    /// Splices as much of the span as the file system lets us. Returns what is left.
    async fn splice(
        &mut self,
        file: &FileRef,
        at: Offset,
        len: ByteLen,
        more: bool,
    ) -> Result<(Offset, ByteLen), SinkError> {
        let (mut at, mut left) = (at.get(), len.get());
        let mut is_advised = false;
        while left > 0 {
            let Ok(mut pipe) = self.thread.pipes.take() else {
                break;
            };
            let most = left.min(self.turn_bytes());
            let want = pipe
                .capacity()
                .min(usize::try_from(most).unwrap_or(usize::MAX));
            match self.fill(&mut pipe, file, at, want, &mut is_advised).await {
                Ok(0) => return Err(SinkError::Truncated),
                Ok(_) => {}
                // This file system can not splice.
                Err(error) if error.raw_os_error() == Some(libc_einval()) => break,
                Err(error) => return Err(SinkError::Disk(error)),
            }
            let count = pipe.held() as u64;
            assert!(count <= left);
            at += count;
            left -= count;
            let Stream::Plain(socket) = &*self.stream else {
                break;
            };
            drain(&mut pipe, socket, more || left > 0, self.limit).await?;
            self.count(count).await;
        }
        Ok((Offset::new(at), ByteLen::new(left)))
    }

    async fn fill(
        &self,
        pipe: &mut Pipe,
        file: &FileRef,
        at: u64,
        want: usize,
        is_advised: &mut bool,
    ) -> io::Result<usize> {
        let last = at + want as u64 - 1;
        if socket::is_cached(file, at) && socket::is_cached(file, last) {
            return pipe.splice_in_now(file, at, want);
        }
        if !std::mem::replace(is_advised, true) {
            socket::advise_sequential(file);
        }
        let ring = &self.thread.files.ring;
        let count = ring.splice_in(file, at, pipe.writer(), want).await?;
        pipe.filled(count);
        Ok(count)
    }
}

impl Drop for StreamSink<'_> {
    fn drop(&mut self) {
        self.thread.senders.set(self.thread.senders.get() - 1);
    }
}

/// EINVAL, by its number on every Linux.
const fn libc_einval() -> i32 {
    rustix::io::Errno::INVAL.raw_os_error()
}

/// Empties the pipe into the socket.
async fn drain(
    pipe: &mut Pipe,
    socket: &Socket,
    more: bool,
    limit: Duration,
) -> Result<(), SinkError> {
    while pipe.held() > 0 {
        match pipe.splice_out_now(socket.fd(), more) {
            Ok(0) => return Err(PeerError::Gone.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.writable(limit).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(PeerError::Gone.into()),
        }
    }
    Ok(())
}

impl Sink for StreamSink<'_> {
    type File = FileRef;

    async fn send(&mut self, bytes: &[u8], more: bool) -> Result<(), SinkError> {
        self.stream.send(bytes, more, self.limit).await?;
        self.count(bytes.len() as u64).await;
        Ok(())
    }

    async fn send_file(
        &mut self,
        file: &FileRef,
        at: Offset,
        len: ByteLen,
        more: bool,
    ) -> Result<(), SinkError> {
        let (mut at, mut len) = (at, len);
        if matches!(self.stream, Stream::Plain(_)) && len.get() >= SPLICE_BYTES_MIN {
            (at, len) = self.splice(file, at, len, more).await?;
        }
        let (mut at, mut left) = (at.get(), len.get());
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX);
            let lease = span::read(&self.thread.files, file, at, want).await?;
            let count = lease.filled() as u64;
            at += count;
            left -= count;
            self.send(lease.as_slice(), more || left > 0).await?;
        }
        Ok(())
    }
}
