//! One PATCH of a resumable upload, from the claim on the session to the answer.
//!
//! Laws
//! - One request at a time goes on at the end of a session: the ledger's lease says which, and a
//!   newer one ends an older one.
//! - A request whose answer was lost is answered again, without a byte being written.
//!
//! Source: tus 1.0.0 PATCH; `docs/semantics.md#uploads`.

use proxy_core::extent::{Extents, Want};
use proxy_core::units::{ByteLen, Offset};

pub use crate::ledger::{Claimed, Ledger, LedgerError};
use crate::seam::{Disk, Source};
pub use crate::write::{CHECKPOINT_BYTES, DEPTH, RESERVE_BYTES_MIN, is_no_space};
use crate::write::{Job, LayOut, Written, write};

/// What the request says.
#[derive(Clone, Copy, Debug)]
pub struct PatchRequest {
    /// `Upload-Offset`: where the client continues.
    pub upload_offset: Offset,
    /// Whether laying out blocks ahead pays on this volume.
    pub reserve: bool,
}

/// Runs one PATCH.
///
/// # Cancellation
/// Dropping the future gives the lease back through the grant; bytes that were not recorded are
/// overwritten by the next request.
pub async fn patch<D, S, L>(
    disk: &D,
    source: &mut S,
    ledger: &L,
    request: PatchRequest,
) -> Written<L::Error>
where
    D: Disk,
    S: Source<Buf = D::Buf>,
    L: Ledger<File = D::File>,
{
    let from = request.upload_offset;
    let announced = source.remaining();
    let end = announced.and_then(|bytes| from.advance(ByteLen::new(bytes)));
    let want = Want::Append {
        at: Some(from),
        end: end.map_or(u64::MAX, Offset::get),
    };
    let claimed = match ledger.claim(want).await {
        Ok(claimed) => claimed,
        Err(error) => return error.into(),
    };
    let (mut grant, durable, size) = match claimed {
        Claimed::Ours {
            grant,
            durable,
            size,
            ..
        } => (grant, durable, size),
        Claimed::Finished { last_from, size } => return answer_again(from, end, last_from, size),
    };
    let have = Offset::new(durable.prefix());
    assert!(have <= size);
    let missing = size.since(have).unwrap_or(ByteLen::ZERO);
    let written = if from != have {
        Written::Mismatch { have }
    } else if announced.is_some_and(|announced| announced > missing.get()) {
        Written::TooLong { missing }
    } else {
        // Only what this request brings: blocks of an upload that never ends should not be taken.
        let lay_out = match announced.filter(|bytes| *bytes >= RESERVE_BYTES_MIN) {
            Some(bytes) if request.reserve => LayOut::These(ByteLen::new(bytes)),
            _ => LayOut::Nothing,
        };
        let job = Job {
            from: have.get(),
            to: size.get(),
            is_append: true,
            size: Some(size.get()),
            known: durable,
            lay_out,
        };
        write(disk, source, ledger, &mut grant, job).await
    };
    ledger.release(grant).await;
    written
}

/// The answer to a request for a finished session: the lost 204 of its last request once more.
fn answer_again<E>(
    from: Offset,
    end: Option<Offset>,
    last_from: Offset,
    size: Offset,
) -> Written<E> {
    if end == Some(size) && (from == last_from || from == size) {
        return Written::Stored {
            durable: Extents::prefix_of(size.get()),
            size,
            finished: false,
        };
    }
    Written::Mismatch { have: size }
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
