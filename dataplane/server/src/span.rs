//! Spans of a file through buffers: for connections that can not splice.
//!
//! Laws
//! - Cached bytes are read at once, on this thread; others through the ring, read ahead.
//! - A file that is shorter than it was is an error, never a shorter answer.

use proxy_core::units::MIB;
use proxy_ring::{FileRef, Files, Lease, socket};
use proxy_transfer::seam::SinkError;

/// Bytes that are read ahead of a cold span.
const READ_AHEAD_BYTES: u64 = 4 * MIB;

/// Reads up to a buffer's worth at `at`: at least one byte, at most `want`.
///
/// # Errors
/// The file ends before `at`, or the disk failed.
pub(crate) async fn read(
    files: &Files,
    file: &FileRef,
    at: u64,
    want: usize,
) -> Result<Lease, SinkError> {
    let mut lease = files.pool.lease().await;
    lease.clear();
    let want = want.min(lease.capacity());
    match socket::read_cached(file, &mut lease.spare_mut()[..want], at) {
        Ok(0) => return Err(SinkError::Truncated),
        Ok(count) => {
            lease.advance(count);
            return Ok(lease);
        }
        // Not in the page cache, or a file system that does not tell.
        Err(_) => {}
    }
    // Advice only: an error shows again at the read.
    let _ = files.ring.read_ahead(file, at, READ_AHEAD_BYTES).await;
    let (outcome, lease) = files.ring.read_at(file, lease, at, want).await;
    match outcome.map_err(SinkError::Disk)? {
        0 => Err(SinkError::Truncated),
        _ => Ok(lease),
    }
}

/// All of a short span, if it is cached.
pub(crate) fn own_if_cached(file: &FileRef, at: u64, want: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; want];
    match socket::read_cached(file, &mut bytes, at) {
        Ok(count) if count == want => Some(bytes),
        _ => None,
    }
}
