//! One PATCH of a resumable upload, from the claim on the session to the answer.
//!
//! Laws
//! - One writer per session: the ledger's lease says who, and a newer writer ends an older one.
//! - Received, synced, then recorded: in this order, for every acknowledged offset.
//! - The target appears whole, by rename, before the ledger calls the session finished; a crash
//!   in between is repaired by looking at the target.
//! - A failed sync ends the upload. A full disk or quota does not: space may come back.
//!
//! Source: tus 1.0.0 PATCH; `docs/semantics.md#uploads`.

use std::future::Future;
use std::io;

use proxy_core::units::{ByteLen, MIB, Offset};

use crate::receive::{Ended, Intake, receive};
use crate::seam::{Disk, PeerError, Source};

/// Bytes after which a long body is synced and recorded, so that a crash costs no more than
/// this. 256 MiB: about a fifth of a second at the speed of one local disk.
pub const CHECKPOINT_BYTES: u64 = 256 * MIB;

/// From this many missing bytes on, blocks are reserved ahead: extending writes queue up behind
/// each other in the file system, writes into reserved blocks do not.
pub const RESERVE_BYTES_MIN: u64 = 4 * MIB;

/// Writes in flight per upload. Four keep a disk busy while the next buffer fills.
pub const DEPTH: usize = 8;

/// What the ledger knows when a session is claimed.
#[derive(Debug)]
pub enum Claimed<G> {
    /// The session is ours until the grant is given back.
    Ours {
        /// Proof of the claim.
        grant: G,
        /// Bytes that are durable.
        offset: Offset,
        /// Bytes of the whole upload.
        size: Offset,
    },
    /// The upload is complete; a repeated last request may be answered again.
    Finished {
        /// Where the last request began.
        last_from: Offset,
        /// Bytes of the whole upload.
        size: Offset,
    },
}

/// What the ledger or the names say when something is not possible.
#[derive(Debug)]
pub enum LedgerError<E> {
    /// No such session.
    NotFound,
    /// An older writer did not let go in time.
    Held,
    /// A newer writer took over.
    Lost,
    /// Anything else, to be told as it is.
    Other(E),
}

/// Sessions and names, as one upload sees them.
pub trait Ledger {
    /// An open staging file.
    type File;
    /// Proof of a claim; dropping it gives the lease back.
    type Grant;
    /// Errors that pass through.
    type Error;

    /// Claims the session for a writer that wants to continue at `wanted`.
    fn claim(
        &self,
        wanted: Offset,
    ) -> impl Future<Output = Result<Claimed<Self::Grant>, LedgerError<Self::Error>>>;

    /// Opens the staging file of a claimed session.
    fn open(
        &self,
        grant: &Self::Grant,
    ) -> impl Future<Output = Result<Self::File, LedgerError<Self::Error>>>;

    /// Ready when a newer writer wants the session; says where that one will continue.
    fn revoked(&self, grant: &mut Self::Grant) -> impl Future<Output = Option<Offset>>;

    /// Records that bytes up to `to` are durable. Durable itself when it returns.
    fn advance(
        &self,
        grant: &Self::Grant,
        to: Offset,
    ) -> impl Future<Output = Result<(), LedgerError<Self::Error>>>;

    /// Puts the staging file in its place and records that the session is finished.
    fn finish(
        &self,
        grant: &Self::Grant,
        last_from: Offset,
    ) -> impl Future<Output = Result<(), LedgerError<Self::Error>>>;

    /// Ends the upload for good and removes what it left.
    fn abort(&self, grant: &Self::Grant) -> impl Future<Output = ()>;

    /// Gives the lease back.
    fn release(&self, grant: Self::Grant) -> impl Future<Output = ()>;
}

/// What the request says.
#[derive(Clone, Copy, Debug)]
pub struct PatchRequest {
    /// `Upload-Offset`: where the client continues.
    pub upload_offset: Offset,
    /// Whether laying out blocks ahead pays on this volume.
    pub reserve: bool,
}

/// What to answer.
#[derive(Debug)]
pub enum Patched<E> {
    /// 204 with the new offset.
    Stored {
        /// Bytes that are durable now.
        offset: Offset,
        /// Bytes of the whole upload.
        size: Offset,
    },
    /// 409: the client continues from the wrong place.
    Mismatch {
        /// What is durable.
        have: Offset,
    },
    /// 400: the body is longer than what is missing. Nothing of it was kept.
    TooLong {
        /// Bytes that are missing.
        missing: ByteLen,
    },
    /// 507: full, or over quota. Bytes up to `durable` stay and can be continued.
    NoSpace {
        /// Bytes that are durable.
        durable: Offset,
        /// What the file system said.
        error: io::Error,
    },
    /// The body broke; bytes up to `durable` stay and can be continued.
    Cut {
        /// Bytes that are durable.
        durable: Offset,
        /// How it broke.
        error: PeerError,
    },
    /// 500: the disk failed. `ended` says that the upload can not be continued.
    Disk {
        /// What was being done.
        operation: &'static str,
        /// What the file system said.
        error: io::Error,
        /// Whether the upload is over.
        ended: bool,
    },
    /// The ledger refused.
    Ledger(LedgerError<E>),
}

impl<E> From<LedgerError<E>> for Patched<E> {
    fn from(error: LedgerError<E>) -> Self {
        Self::Ledger(error)
    }
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
) -> Patched<L::Error>
where
    D: Disk,
    S: Source<Buf = D::Buf>,
    L: Ledger<File = D::File>,
{
    let claimed = match ledger.claim(request.upload_offset).await {
        Ok(claimed) => claimed,
        Err(error) => return error.into(),
    };
    let (mut grant, offset, size) = match claimed {
        Claimed::Ours {
            grant,
            offset,
            size,
        } => (grant, offset, size),
        Claimed::Finished { last_from, size } => {
            return answer_again(source, request, last_from, size);
        }
    };
    assert!(offset <= size);
    let patched = run(disk, source, ledger, &mut grant, request, offset, size).await;
    ledger.release(grant).await;
    patched
}

/// The answer to a request for a finished session: the lost 204 of its last request once more.
fn answer_again<S: Source, E>(
    source: &S,
    request: PatchRequest,
    last_from: Offset,
    size: Offset,
) -> Patched<E> {
    let stored = Patched::Stored { offset: size, size };
    let offset = request.upload_offset;
    let announced = source.remaining();
    let end = announced.and_then(|bytes| offset.advance(ByteLen::new(bytes)));
    if end == Some(size) && (offset == last_from || offset == size) {
        return stored;
    }
    Patched::Mismatch { have: size }
}

async fn run<D, S, L>(
    disk: &D,
    source: &mut S,
    ledger: &L,
    grant: &mut L::Grant,
    request: PatchRequest,
    from: Offset,
    size: Offset,
) -> Patched<L::Error>
where
    D: Disk,
    S: Source<Buf = D::Buf>,
    L: Ledger<File = D::File>,
{
    if request.upload_offset != from {
        return Patched::Mismatch { have: from };
    }
    let missing = size.since(from).unwrap_or(ByteLen::ZERO);
    if source
        .remaining()
        .is_some_and(|announced| announced > missing.get())
    {
        return Patched::TooLong { missing };
    }
    let file = match ledger.open(grant).await {
        Ok(file) => file,
        Err(error) => return error.into(),
    };
    // Only what this request brings: blocks of an upload that never ends should not be taken.
    if let Some(announced) = source
        .remaining()
        .filter(|bytes| *bytes >= RESERVE_BYTES_MIN)
        && request.reserve
        && let Err(error) = disk.reserve(&file, from, ByteLen::new(announced)).await
        && is_no_space(&error)
    {
        return Patched::NoSpace {
            durable: from,
            error,
        };
    }
    let mut durable = from;
    let ended = loop {
        let step = step(disk, source, ledger, grant, &file, durable, size).await;
        match step {
            Step::Recorded(to) => durable = to,
            Step::Whole(to) => {
                durable = to;
                break Ok(());
            }
            Step::Ended(patched) => break Err(patched),
        }
    };
    if let Err(patched) = ended {
        return patched;
    }
    if durable < size {
        return Patched::Stored {
            offset: durable,
            size,
        };
    }
    match ledger.finish(grant, from).await {
        Ok(()) => Patched::Stored { offset: size, size },
        Err(error) => error.into(),
    }
}

enum Step<E> {
    /// A checkpoint: recorded, and the body goes on.
    Recorded(Offset),
    /// The body is over and its bytes are durable (and recorded unless the upload is complete).
    Whole(Offset),
    Ended(Patched<E>),
}

/// Receives up to a checkpoint, syncs, records.
async fn step<D, S, L>(
    disk: &D,
    source: &mut S,
    ledger: &L,
    grant: &mut L::Grant,
    file: &D::File,
    durable: Offset,
    size: Offset,
) -> Step<L::Error>
where
    D: Disk,
    S: Source<Buf = D::Buf>,
    L: Ledger<File = D::File>,
{
    let missing = size.since(durable).unwrap_or(ByteLen::ZERO);
    let room = ByteLen::new(missing.get().min(CHECKPOINT_BYTES));
    let intake = Intake {
        from: durable,
        room,
        depth: DEPTH,
    };
    let mut newcomer = None;
    let received = {
        let wait = async { newcomer = Some(ledger.revoked(grant).await) };
        let stop = std::pin::pin!(wait);
        receive(disk, file, source, intake, stop).await
    };
    let over = match &received.ended {
        Ended::RoomFull if room == missing => match source.is_over().await {
            Ok(true) => true,
            Ok(false) => return Step::Ended(Patched::TooLong { missing }),
            Err(error) => {
                return settle(disk, ledger, grant, file, durable, received.written, |to| {
                    Patched::Cut { durable: to, error }
                })
                .await;
            }
        },
        Ended::RoomFull => false,
        Ended::BodyOver => true,
        _ => {
            let newcomer = newcomer.flatten();
            return interrupted(disk, ledger, grant, file, durable, received, newcomer).await;
        }
    };
    if received.written > durable
        && let Err(error) = disk.sync(file).await
    {
        return Step::Ended(sync_failed(ledger, grant, durable, error).await);
    }
    let to = received.written;
    if to == size && over {
        return Step::Whole(to);
    }
    if to > durable
        && let Err(error) = ledger.advance(grant, to).await
    {
        return Step::Ended(error.into());
    }
    if over {
        Step::Whole(to)
    } else {
        Step::Recorded(to)
    }
}

/// The body did not come to its end: keep what is whole, say how it ended.
async fn interrupted<D, L>(
    disk: &D,
    ledger: &L,
    grant: &mut L::Grant,
    file: &D::File,
    durable: Offset,
    received: crate::receive::Received,
    newcomer: Option<Offset>,
) -> Step<L::Error>
where
    D: Disk,
    L: Ledger<File = D::File>,
{
    let written = received.written;
    match received.ended {
        // The newer writer continues where the record stands: our tail would only be in its way.
        Ended::Stopped if newcomer == Some(durable) => Step::Ended(LedgerError::Lost.into()),
        Ended::Stopped => {
            let lost = |_| Patched::Ledger(LedgerError::Lost);
            settle(disk, ledger, grant, file, durable, written, lost).await
        }
        Ended::Peer(error) => {
            let cut = |to| Patched::Cut { durable: to, error };
            settle(disk, ledger, grant, file, durable, written, cut).await
        }
        Ended::Disk(error) if is_no_space(&error) => {
            let full = |to| Patched::NoSpace { durable: to, error };
            settle(disk, ledger, grant, file, durable, written, full).await
        }
        Ended::Disk(error) => {
            let failed = |_| Patched::Disk {
                operation: "write",
                error,
                ended: false,
            };
            settle(disk, ledger, grant, file, durable, written, failed).await
        }
        Ended::BodyOver | Ended::RoomFull => unreachable!("these ends are no interruption"),
    }
}

/// Syncs and records what is whole, then ends with what `outcome` makes of the durable offset.
async fn settle<D, L>(
    disk: &D,
    ledger: &L,
    grant: &L::Grant,
    file: &D::File,
    durable: Offset,
    written: Offset,
    outcome: impl FnOnce(Offset) -> Patched<L::Error>,
) -> Step<L::Error>
where
    D: Disk,
    L: Ledger<File = D::File>,
{
    if written <= durable {
        return Step::Ended(outcome(durable));
    }
    if let Err(error) = disk.sync(file).await {
        return Step::Ended(sync_failed(ledger, grant, durable, error).await);
    }
    match ledger.advance(grant, written).await {
        Ok(()) => Step::Ended(outcome(written)),
        Err(error) => Step::Ended(error.into()),
    }
}

/// A full disk shows late on network file systems, at the sync: what was durable before still is.
/// Any other failure may have lost pages that looked written, so the upload ends.
async fn sync_failed<L: Ledger>(
    ledger: &L,
    grant: &L::Grant,
    durable: Offset,
    error: io::Error,
) -> Patched<L::Error> {
    if is_no_space(&error) {
        return Patched::NoSpace { durable, error };
    }
    ledger.abort(grant).await;
    Patched::Disk {
        operation: "sync",
        error,
        ended: true,
    }
}

/// ENOSPC and EDQUOT: the operator or the user can mend it, the upload can go on.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
