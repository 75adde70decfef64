//! What a request carries: nothing, a text, or a stretch of a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use indicatif::ProgressBar;

/// Bytes that are read from a file at a time: what a socket takes in a few turns.
const PIECE_BYTES: u64 = 256 * 1024;

/// A request body of known length.
pub enum Payload {
    /// Bytes in memory, possibly none.
    Bytes(Bytes),
    /// A stretch of a file.
    Stretch(Stretch),
}

/// Part of a file, from where the file stands.
pub struct Stretch {
    /// Read from its current position.
    pub file: File,
    /// Bytes that are still to be sent.
    pub left: u64,
    /// Counts what was handed to the connection.
    pub sent: Arc<AtomicU64>,
    /// Shows it.
    pub bar: ProgressBar,
}

impl Payload {
    /// No body.
    pub const fn empty() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Stretch {
    fn piece(&mut self) -> io::Result<Bytes> {
        let want = self.left.min(PIECE_BYTES);
        let mut bytes = Vec::new();
        let got = (&mut self.file).take(want).read_to_end(&mut bytes)?;
        if got as u64 != want {
            return Err(io::Error::other(
                "the file became shorter while it was sent",
            ));
        }
        self.left -= want;
        self.sent.fetch_add(want, Ordering::Relaxed);
        self.bar.inc(want);
        Ok(bytes.into())
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    /// Reads the disk in place: this program does nothing else meanwhile.
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = match self.get_mut() {
            Self::Bytes(bytes) if bytes.is_empty() => None,
            Self::Bytes(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Self::Stretch(stretch) if stretch.left == 0 => None,
            Self::Stretch(stretch) => Some(stretch.piece().map(Frame::data)),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Stretch(stretch) => stretch.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stretch(stretch) => stretch.left,
        })
    }
}
