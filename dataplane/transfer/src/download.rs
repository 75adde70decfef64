//! Sending what a response promised: bytes, and spans of one file.
//!
//! Laws
//! - A response is whole or the connection ends: nothing is padded, nothing is left out.
//! - Pieces go out in order; all but the last say that more follows.

use proxy_core::units::{ByteLen, Offset};

use crate::seam::{Buffer, Disk, Sink, SinkError};

/// One piece of a response body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes made by us: part headers of `multipart/byteranges`.
    Bytes(Vec<u8>),
    /// Bytes of the file.
    Span {
        /// First byte.
        at: Offset,
        /// How many.
        len: ByteLen,
    },
}

/// Sends `head` and `pieces` of `file`.
pub async fn send<S: Sink>(
    sink: &mut S,
    head: &[u8],
    file: &S::File,
    pieces: &[Piece],
) -> Result<(), SinkError> {
    sink.send(head, !pieces.is_empty()).await?;
    for (index, piece) in pieces.iter().enumerate() {
        let more = index + 1 < pieces.len();
        match piece {
            Piece::Bytes(bytes) => sink.send(bytes, more).await?,
            Piece::Span { at, len } => sink.send_file(file, *at, *len, more).await?,
        }
    }
    Ok(())
}

/// Reads a span through buffers and hands each to `each`: for connections that can not splice,
/// and for readers that must see the bytes.
///
/// Shape: `each` sees the bytes in order and whether more follow.
pub async fn pump<D: Disk>(
    disk: &D,
    file: &D::File,
    at: Offset,
    len: ByteLen,
    mut each: impl AsyncFnMut(&[u8], bool) -> Result<(), SinkError>,
) -> Result<(), SinkError> {
    let mut at = at;
    let mut left = len.get();
    while left > 0 {
        let mut buf = disk.buffer().await;
        buf.clear();
        let want = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buf.capacity());
        let (outcome, buf) = disk.read_at(file, buf, at, want).await;
        let count = outcome.map_err(SinkError::Disk)? as u64;
        if count == 0 {
            return Err(SinkError::Truncated);
        }
        assert!(count <= left);
        left -= count;
        at = at
            .advance(ByteLen::new(count))
            .ok_or(SinkError::Truncated)?;
        each(buf.as_slice(), left > 0).await?;
    }
    Ok(())
}
