//! The seams between the machines and the world.
//!
//! Source: the ownership rules of io_uring: a buffer is moved in and handed back.

use std::future::Future;
use std::io;

use proxy_core::units::{ByteLen, Offset};

/// A buffer that is lent to the kernel and comes back.
pub trait Buffer {
    /// Bytes that fit.
    fn capacity(&self) -> usize;
    /// The filled bytes.
    fn as_slice(&self) -> &[u8];
    /// Forgets the filled bytes.
    fn clear(&mut self);
}

/// A write that stopped in the middle.
#[derive(Debug)]
pub struct Partial {
    /// Bytes that the file system took before the error.
    pub written: usize,
    /// What it said then.
    pub error: io::Error,
}

/// The disk under one data-plane thread: the ring in production, a model in tests.
pub trait Disk {
    /// An open file.
    type File;
    /// What bytes travel in.
    type Buf: Buffer;

    /// Waits for a buffer; an exhausted pool is backpressure.
    fn buffer(&self) -> impl Future<Output = Self::Buf>;

    /// Writes that begin and end at multiples of this go the fast way. One: all do.
    fn stride(&self, _file: &Self::File) -> ByteLen {
        ByteLen::new(1)
    }

    /// Reads up to `want` bytes at `at` behind what `buf` holds. Zero at the end of the file.
    fn read_at(
        &self,
        file: &Self::File,
        buf: Self::Buf,
        at: Offset,
        want: usize,
    ) -> impl Future<Output = (io::Result<usize>, Self::Buf)>;

    /// Writes all that `buf` holds at `at`.
    fn write_at(
        &self,
        file: &Self::File,
        buf: Self::Buf,
        at: Offset,
    ) -> impl Future<Output = (Result<usize, Partial>, Self::Buf)>;

    /// Makes what was written durable. After an error nothing since the last success is trusted.
    fn sync(&self, file: &Self::File) -> impl Future<Output = io::Result<()>>;

    /// Reserves blocks where that helps; an error is only a slower way.
    fn reserve(
        &self,
        file: &Self::File,
        at: Offset,
        len: ByteLen,
    ) -> impl Future<Output = io::Result<()>>;
}

/// What became of the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum PeerError {
    /// The connection broke or ended before its time.
    Gone,
    /// Nothing moved for longer than the limit.
    Stalled,
    /// The framing is not HTTP; the text says where.
    Malformed(&'static str),
    /// The server is shutting down and the time for transfers is over.
    ShuttingDown,
}

/// What one turn of a [`Source`] brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Fill {
    /// The buffer holds bytes; there may be more.
    More,
    /// The body is over. The buffer may hold its last bytes.
    End,
}

/// Where a request body comes from.
pub trait Source {
    /// What bytes travel in.
    type Buf: Buffer;

    /// Bytes that the framing says are still to come; `None` for a chunked body.
    fn remaining(&self) -> Option<u64>;

    /// Waits until something can be received, or the body is over. Holds no buffer meanwhile: a
    /// peer that stalls must not take one from the others.
    fn ready(&mut self) -> impl Future<Output = Result<(), PeerError>>;

    /// Receives into `buf`, at most `limit` bytes in all, until it is full, `limit` is reached or
    /// the body is over. Comes back early with less, or nothing, when the peer pauses.
    ///
    /// # Cancellation
    /// Dropping the future loses the bytes that are in `buf`: only at the end of a connection.
    fn fill(
        &mut self,
        buf: Self::Buf,
        limit: usize,
    ) -> impl Future<Output = (Result<Fill, PeerError>, Self::Buf)>;

    /// Whether the body is over. Receives, and loses, a byte if it is not.
    fn is_over(&mut self) -> impl Future<Output = Result<bool, PeerError>>;

    /// Whether the bytes so far are what the client's checksum says; `None` without a checksum.
    /// Counts at the end of the body.
    fn verdict(&self) -> Option<bool> {
        None
    }
}

/// Where a response body goes to.
pub trait Sink {
    /// An open file.
    type File;

    /// Sends all of `bytes`. `more` says that something follows at once.
    fn send(&mut self, bytes: &[u8], more: bool) -> impl Future<Output = Result<(), SinkError>>;

    /// Sends `len` bytes of `file` from `at`, by the cheapest way the connection has.
    fn send_file(
        &mut self,
        file: &Self::File,
        at: Offset,
        len: ByteLen,
        more: bool,
    ) -> impl Future<Output = Result<(), SinkError>>;
}

/// Why a response body could not be sent whole. The connection must then be closed.
#[derive(Debug)]
pub enum SinkError {
    /// The peer went away or stalled.
    Peer(PeerError),
    /// The file is shorter than it was when the response began.
    Truncated,
    /// The disk failed.
    Disk(io::Error),
}

impl From<PeerError> for SinkError {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}
