//! One part of a resumable upload: bytes with a known place, beside other parts on their way.
//!
//! Laws
//! - Parts come in any order and may come again. A byte that is on record is not written again:
//!   it is compared, and a part that says otherwise is refused.
//! - No two requests write the same bytes at a time: a newer part ends an older one that it
//!   overlaps, and waits for its last write.
//! - Whoever records the last missing bytes, and nobody else, puts the file in its place.
//!
//! Source: RFC 9110 §14.5 (partial PUT); `docs/semantics.md#parts`.

use proxy_core::extent::{Extent, Extents, Want};
use proxy_core::units::{ByteLen, Offset};

use crate::ledger::{Claimed, Ledger, LedgerError};
use crate::seam::{Buffer, Disk, Fill, Source};
use crate::write::{Job, LayOut, RESERVE_BYTES_MIN, Written, write};

/// What the request says.
#[derive(Clone, Copy, Debug)]
pub struct PartRequest {
    /// `Content-Range`: which bytes the body has. Not empty, within the size of the upload.
    pub extent: Extent,
    /// Whether laying out blocks ahead pays on this volume.
    pub reserve: bool,
}

/// Runs one PUT of a part.
///
/// # Cancellation
/// Dropping the future gives the lease back through the grant; bytes that were not recorded are
/// overwritten by whoever brings them next.
pub async fn part<D, S, L>(
    disk: &D,
    source: &mut S,
    ledger: &L,
    request: PartRequest,
) -> Written<L::Error>
where
    D: Disk,
    S: Source<Buf = D::Buf>,
    L: Ledger<File = D::File>,
{
    let extent = request.extent;
    let length = ByteLen::new(extent.len());
    if source.remaining().is_some_and(|bytes| bytes > length.get()) {
        return Written::TooLong { missing: length };
    }
    let claimed = match ledger.claim(Want::Part(extent)).await {
        Ok(claimed) => claimed,
        Err(error) => return error.into(),
    };
    let (mut grant, durable, size, laid_out) = match claimed {
        Claimed::Ours {
            grant,
            durable,
            size,
            laid_out,
        } => (grant, durable, size, laid_out),
        Claimed::Finished { size, .. } => return swallow(disk, source, size).await,
    };
    assert!(extent.to <= size.get());
    let reserve = request.reserve && !laid_out;
    let job = Job {
        from: extent.from,
        to: extent.to,
        is_append: false,
        size: Some(size.get()),
        known: durable,
        // Once for all parts: whoever sends parts means to send them all.
        lay_out: lay_out(reserve, size.get()),
    };
    let written = write(disk, source, ledger, &mut grant, job).await;
    ledger.release(grant).await;
    written
}

fn lay_out(reserve: bool, size: u64) -> LayOut {
    if reserve && RESERVE_BYTES_MIN <= size {
        LayOut::All(ByteLen::new(size))
    } else {
        LayOut::Nothing
    }
}

/// What a PATCH of a partial upload says, and where that lies.
#[derive(Clone, Copy, Debug)]
pub struct PartialRequest {
    /// The bytes of the staging file that are for the partial upload.
    pub extent: Extent,
    /// `Upload-Offset`: where the client continues, counted from the first of these bytes.
    pub upload_offset: Offset,
    /// Bytes of the whole upload.
    pub size: ByteLen,
    /// Whether laying out blocks ahead pays on this volume.
    pub reserve: bool,
}

/// Runs one PATCH of a partial upload. Positions in the answer are those of the staging file, but
/// for [`Written::Mismatch`], which counts as the client does.
///
/// # Cancellation
/// As for [`part`].
pub async fn partial<D, S, L>(
    disk: &D,
    source: &mut S,
    ledger: &L,
    request: PartialRequest,
) -> Written<L::Error>
where
    D: Disk,
    S: Source<Buf = D::Buf>,
    L: Ledger<File = D::File>,
{
    let extent = request.extent;
    let from = extent.from.saturating_add(request.upload_offset.get());
    let end = from.saturating_add(source.remaining().unwrap_or(u64::MAX));
    let want = Want::Part(Extent::new(from.min(extent.to), end.min(extent.to)));
    let claimed = match ledger.claim(want).await {
        Ok(claimed) => claimed,
        Err(error) => return error.into(),
    };
    let Claimed::Ours {
        mut grant,
        durable,
        laid_out,
        ..
    } = claimed
    else {
        return Written::Ledger(LedgerError::NotFound);
    };
    let have = durable.end_of(extent.from);
    let missing = ByteLen::new(extent.to.saturating_sub(have));
    let written = if from != have {
        let have = Offset::new(have - extent.from);
        Written::Mismatch { have }
    } else if source
        .remaining()
        .is_some_and(|bytes| bytes > missing.get())
    {
        Written::TooLong { missing }
    } else {
        let job = Job {
            from,
            to: extent.to,
            is_append: true,
            size: None,
            known: durable,
            lay_out: lay_out(request.reserve && !laid_out, request.size.get()),
        };
        write(disk, source, ledger, &mut grant, job).await
    };
    ledger.release(grant).await;
    written
}

/// A part of a file that is in its place already: taken off the connection, and thrown away.
async fn swallow<D, S, E>(disk: &D, source: &mut S, size: Offset) -> Written<E>
where
    D: Disk,
    S: Source<Buf = D::Buf>,
{
    let durable = Extents::prefix_of(size.get());
    loop {
        if let Err(error) = source.ready().await {
            return Written::Cut { durable, error };
        }
        let mut buf = disk.buffer().await;
        buf.clear();
        let room = buf.capacity();
        match source.fill(buf, room).await.0 {
            Ok(Fill::More) => {}
            Ok(Fill::End) => break,
            Err(error) => return Written::Cut { durable, error },
        }
    }
    Written::Stored {
        durable,
        size,
        finished: false,
    }
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
