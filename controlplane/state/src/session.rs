//! Upload sessions: what is recorded of an upload, and who may write to it.
//!
//! A session says which bytes of its staging file are durable. A lease says which request may
//! write which others. The record outlives the process, the lease does not.
//!
//! Laws
//! - A byte that is on record stays there; none passes the size; it is on disk before a caller
//!   hears of it.
//! - No two holders may write the same bytes. The newest claim wins: it revokes the holders and
//!   older claims that it conflicts with ([`Want::conflicts`]).
//! - A lease ends when its [`LeaseGuard`] is dropped, wherever and why ever that happens. Nothing
//!   else needs to go right.
//! - A finished session stays on record until its token expires, so that a lost answer can be
//!   given again.
//!
//! Source: tus 1.0.0; contract, client API 5.

use std::fmt;

use async_trait::async_trait;
use proxy_core::extent::{Extent, Extents, Recorded, Want};
use proxy_core::id::{SessionId, VFolderId};
use proxy_core::partial::{self, Partial};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::error::StateError;

/// One upload, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Names the session and its staging file.
    pub id: SessionId,
    /// Name of the volume.
    pub volume: String,
    /// The folder the file goes to.
    pub vfid: VFolderId,
    /// Where the token wants the file, relative to the folder.
    pub relpath: RelPath,
    /// Bytes of the whole file.
    pub size: u64,
    /// Bytes of the staging file that are durable without a gap. `0 <= offset <= size`
    #[serde(with = "offset_as_number")]
    pub offset: Offset,
    /// Durable bytes behind a gap: `offset < from`, `to <= size`.
    #[serde(default, skip_serializing_if = "Extents::is_empty")]
    pub ranges: Extents,
    /// Pieces that wait to be put together. Beside them nothing else is durable.
    #[serde(default, skip_serializing_if = "Pieces::is_unused")]
    pub pieces: Pieces,
    /// What the client said of the file when it created the upload, as it said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// Inode of the staging file.
    pub ino: u64,
    /// Device of the staging file.
    pub dev: u64,
    /// When the token expires, in seconds since 1970. The record goes with it.
    pub exp: u64,
    /// Whether bytes are still expected.
    pub state: SessionState,
}

/// The partial uploads of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// Those that are there, in the order of their making.
    pub all: Vec<Partial>,
    /// How many were ever made: names the next one.
    pub made: u32,
}

impl Pieces {
    fn is_unused(&self) -> bool {
        self.made == 0
    }

    /// The list of whom made more; of equal ones, what neither has dropped. Offsets never go back.
    fn merged(&self, other: &Self) -> Self {
        let (newer, older) = match self.made < other.made {
            true => (other, self),
            false => (self, other),
        };
        let is_equal = newer.made == older.made;
        let pieces = newer.all.iter().filter_map(|piece| {
            let same = older.all.iter().find(|old| old.number == piece.number);
            let offset = match same {
                Some(same) => same.offset.max(piece.offset),
                None if is_equal => return None,
                None => piece.offset,
            };
            Some(Partial { offset, ..*piece })
        });
        Self {
            all: pieces.collect(),
            made: newer.made,
        }
    }
}

/// A change to a session that does not make bytes of the whole file durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another partial upload of so many bytes.
    AddPartial {
        /// Its bytes.
        length: u64,
    },
    /// The first `to` bytes of a partial upload are durable.
    AdvancePartial {
        /// Which.
        number: u32,
        /// Its new offset.
        to: u64,
    },
    /// A partial upload is not wanted any more.
    DropPartial {
        /// Which.
        number: u32,
    },
    /// What the client says of the file.
    Describe {
        /// As it says it.
        metadata: String,
    },
}

/// Whether bytes are still expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// The file is not in place yet.
    Open,
    /// The file is in place. `offset == size`
    Finished {
        /// Where the request that finished it began: a repetition of that request is answered
        /// like the first.
        #[serde(with = "offset_as_number")]
        last_from: Offset,
        /// Where the file went, relative to the folder.
        target: RelPath,
    },
}

impl Session {
    /// Whether the file is in place.
    pub const fn is_finished(&self) -> bool {
        matches!(self.state, SessionState::Finished { .. })
    }

    /// All durable bytes.
    pub fn durable(&self) -> Extents {
        let mut all = self.ranges.clone();
        all.insert(Extent::new(0, self.offset.get()));
        all
    }

    /// Makes `durable` the durable bytes.
    pub fn set_durable(&mut self, durable: &Extents) {
        let prefix = durable.prefix();
        self.offset = Offset::new(prefix);
        self.ranges = durable.after(prefix);
    }

    /// Makes a change that is not about bytes of the whole file, of which a session has at most
    /// `pieces_max`.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub fn apply(&mut self, change: Change, pieces_max: usize) -> Result<(), LeaseError> {
        match change {
            Change::AddPartial { length } => self.add_partial(length, pieces_max)?,
            Change::AdvancePartial { number, to } => {
                let pieces = &mut self.pieces.all;
                let piece = pieces.iter_mut().find(|piece| piece.number == number);
                let piece = piece.ok_or(LeaseError::Unknown)?;
                if to < piece.offset || piece.length < to {
                    return Err(LeaseError::Backwards {
                        have: Offset::new(piece.offset),
                        got: Offset::new(to),
                    });
                }
                piece.offset = to;
            }
            Change::DropPartial { number } => {
                let pieces = &mut self.pieces.all;
                if !pieces.iter().any(|piece| piece.number == number) {
                    return Err(LeaseError::Unknown);
                }
                pieces.retain(|piece| piece.number != number);
            }
            Change::Describe { metadata } => self.metadata = Some(metadata),
        }
        Ok(())
    }

    fn add_partial(&mut self, length: u64, pieces_max: usize) -> Result<(), LeaseError> {
        if !self.durable().is_empty() {
            return Err(LeaseError::Mixed);
        }
        let too_many = LeaseError::TooManyRanges {
            ranges_max: pieces_max,
        };
        if pieces_max <= self.pieces.all.len() {
            return Err(too_many);
        }
        let place = partial::place(&self.pieces.all, length, self.size);
        let place = place.ok_or(too_many)?;
        self.pieces.all.push(Partial {
            number: self.pieces.made,
            place,
            length,
            offset: 0,
        });
        self.pieces.made = self.pieces.made.saturating_add(1);
        Ok(())
    }

    /// What two records of one upload say together: every byte that is durable in one is, and a
    /// finished upload is finished.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        if self.is_finished() {
            return self.clone();
        }
        if other.is_finished() {
            return other.clone();
        }
        let mut merged = self.clone();
        let mut durable = self.durable();
        other
            .durable()
            .iter()
            .for_each(|extent| durable.insert(extent));
        merged.set_durable(&durable);
        merged.pieces = self.pieces.merged(&other.pieces);
        merged.metadata = self.metadata.clone().or_else(|| other.metadata.clone());
        merged
    }

    /// Whether `other` is the same upload: everything but what may change while it runs. The inode
    /// may, since a lost staging file is made anew.
    pub fn is_same_upload(&self, other: &Self) -> bool {
        self.id == other.id
            && self.volume == other.volume
            && self.vfid == other.vfid
            && self.relpath == other.relpath
            && self.size == other.size
    }
}

/// Names one writer of one session. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder(Uuid);

impl Holder {
    /// A holder that nobody else has.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for Holder {
    /// 32 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// A wish to write to a session.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What the token and the staging file say. It is recorded when the store does not know the
    /// session (a store that lost its memory), then with offset 0 and state open.
    pub session: Session,
    /// Which bytes. A holder that is in the way hears of it, see [`Revocation`].
    pub want: Want,
}

/// Why a holder has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What the newer request wants.
    ///
    /// A client that asked for the offset and then resumes says the recorded one: committing the
    /// tail now would make its number wrong, so the holder commits only if the two differ.
    pub newcomer: Want,
}

/// Permission to write the bytes of a session that were claimed.
///
/// All parts may be moved to other threads and kept apart. The permission lives as long as
/// [`Grant::guard`].
#[derive(Debug)]
pub struct Grant {
    /// Who the writer is.
    pub holder: Holder,
    /// The session as recorded at the moment of the grant. Its state is open.
    pub session: Session,
    /// Fires once when a newer request wants the session; after that the holder may still advance,
    /// and should end soon. Closed without a value when the lease ends in another way.
    pub revoked: oneshot::Receiver<Revocation>,
    /// Ends the lease when dropped.
    pub guard: LeaseGuard,
}

/// Keeps a lease alive; dropping it ends the lease.
///
/// Drop is short (one uncontended lock, no I/O) and may happen on any thread, also on one without
/// a runtime, also during a panic. Keep the guard until the last write to the staging file has
/// been *reaped*, not until its future is dropped: once the guard is gone, the next holder may
/// write to the same file.
#[must_use = "the lease ends when the guard is dropped"]
pub struct LeaseGuard {
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl LeaseGuard {
    /// A guard that runs `end` when dropped. `end` must not block and must not panic.
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self {
            end: Some(Box::new(end)),
        }
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl fmt::Debug for LeaseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseGuard")
    }
}

/// What became of a claim that did not fail.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// The caller may write.
    Granted(Box<Grant>),
    /// Nothing is left to write; no lease was given. The state is
    /// [`SessionState::Finished`].
    Finished(Box<Session>),
}

/// Why a claim got nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The holder did not let go within the bound. It is still the holder; 409, try again.
    #[error("another request still writes to this upload")]
    Held,
    /// A newer request for the same session came while this one waited; 409.
    #[error("a newer request took this upload over")]
    Superseded,
    /// The record of this identifier is about another file or size; 409.
    #[error("the session is on record for another upload")]
    OtherUpload,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StateError),
}

/// Why a holder's report was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The caller is not the holder, or no longer. Nothing was recorded.
    #[error("the lease is lost")]
    Lost,
    /// The record is gone: forgotten, or its file replaced. Nothing was recorded.
    #[error("the session is not on record")]
    Unknown,
    /// The session is finished already. Nothing was recorded.
    #[error("the session is finished")]
    Finished,
    /// Offsets never move back. Nothing was recorded.
    #[error("offset {got} is before the recorded {have}")]
    Backwards {
        /// On record.
        have: Offset,
        /// Asked for.
        got: Offset,
    },
    /// Offsets never pass the size. Nothing was recorded.
    #[error("offset {got} is past the size {size}")]
    PastSize {
        /// Bytes of the whole file.
        size: u64,
        /// Asked for.
        got: Offset,
    },
    /// The session would have more separate ranges than the store keeps. Nothing was recorded.
    #[error("more than {ranges_max} separate ranges")]
    TooManyRanges {
        /// The limit.
        ranges_max: usize,
    },
    /// Bytes of the whole file and partial uploads do not go together. Nothing was recorded.
    #[error("an upload is sent as a whole or in partial uploads, not both")]
    Mixed,
    /// The store failed; whether the report is on record is unknown.
    #[error(transparent)]
    Store(#[from] StateError),
}

/// The record of upload sessions, and the leases on them.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Records a new session. Seen by [`Sessions::look`] at once, durable a moment later: losing
    /// it is harmless, since a claim records it again.
    ///
    /// # Errors
    /// [`StateError::Exists`] if the identifier is on record; otherwise the store failed.
    async fn create(&self, session: Session) -> Result<(), StateError>;

    /// The session as last committed; `None` if it is not on record. Does not wait for a holder.
    ///
    /// # Errors
    /// The store failed.
    async fn look(&self, id: SessionId) -> Result<Option<Session>, StateError>;

    /// Asks for the permission to write.
    ///
    /// Holders that the claim conflicts with are revoked, and the claim waits for them to let go,
    /// up to the bound of the store. A report of a holder is not enough: it may still have writes
    /// in flight. Of several claims that conflict the newest wins.
    ///
    /// # Errors
    /// See [`ClaimError`].
    ///
    /// # Cancellation
    /// Dropping the future gives up the claim. A holder that was told to stop has been told.
    async fn claim(&self, want: Claim) -> Result<ClaimOutcome, ClaimError>;

    /// Records that all bytes before `to` are durable in the staging file; keeps the lease.
    /// On disk when it returns. `to` equal to the recorded offset is fine and costs nothing.
    /// For the holder of a [`Want::Append`].
    ///
    /// # Errors
    /// See [`LeaseError`].
    ///
    /// # Cancellation
    /// Once queued, the change is made also if the future is dropped; the lease does not pass on
    /// before it is.
    async fn advance(
        &self,
        id: SessionId,
        holder: Holder,
        to: Offset,
    ) -> Result<Recorded, LeaseError>;

    /// Records that the bytes of `extent` are durable in the staging file; keeps the lease.
    /// On disk when it returns; reports of many parts share a commit. Bytes that are on record
    /// already are fine.
    ///
    /// The bytes that make the upload whole are *not* recorded: [`Recorded::whole`] says so to the
    /// one holder who has them, and [`Sessions::finish`] records them with the name of the file.
    /// So a record that is whole is that of a file in its place.
    ///
    /// # Errors
    /// See [`LeaseError`].
    ///
    /// # Cancellation
    /// As for [`Sessions::advance`].
    async fn record(
        &self,
        id: SessionId,
        holder: Holder,
        extent: Extent,
    ) -> Result<Recorded, LeaseError>;

    /// Makes the record of a session durable if it is not yet: what [`Sessions::create`] and
    /// [`Sessions::claim`] recorded may be in memory only. To be called before the staging file
    /// gets its name, since after a crash the record alone tells whose file it is.
    ///
    /// # Errors
    /// The store failed.
    async fn secure(&self, id: SessionId) -> Result<(), StateError>;

    /// Makes another change; keeps the lease. On disk when it returns. Gives the session as it is
    /// then; a partial upload that was added is the last of its pieces.
    ///
    /// # Errors
    /// See [`LeaseError`]; [`LeaseError::Unknown`] also for a partial upload that is not there.
    async fn change(
        &self,
        id: SessionId,
        holder: Holder,
        change: Change,
    ) -> Result<Session, LeaseError>;

    /// Ends the lease of `holder`, if it still has it. Dropping the guard does the same.
    async fn release(&self, id: SessionId, holder: Holder);

    /// Records that the file of `size` bytes is in place at `target`, and ends the lease.
    /// On disk when it returns. `last_from` is where the finishing request began.
    ///
    /// # Errors
    /// See [`LeaseError`]; the lease is kept then.
    async fn finish(
        &self,
        id: SessionId,
        holder: Holder,
        last_from: Offset,
        target: RelPath,
    ) -> Result<(), LeaseError>;

    /// Up to `max` sessions that expired at or before `now_unix_s`, oldest first, without those
    /// that are being written to.
    ///
    /// # Errors
    /// The store failed.
    async fn expired(&self, now_unix_s: u64, max: usize) -> Result<Vec<Session>, StateError>;

    /// Removes a session from the record. `false`: it is being written to and was kept. An unknown
    /// session is fine.
    ///
    /// # Errors
    /// The store failed.
    async fn forget(&self, id: SessionId) -> Result<bool, StateError>;

    /// Ends every lease and every waiting claim of a session, and removes it from the record: its
    /// bytes can not be trusted, or are not wanted. Holders hear [`LeaseError::Lost`] with their
    /// next report.
    ///
    /// # Errors
    /// The store failed; the leases are over all the same.
    async fn abandon(&self, id: SessionId) -> Result<(), StateError>;
}

/// An [`Offset`] as a plain number.
mod offset_as_number {
    use proxy_core::units::Offset;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(offset: &Offset, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(offset.get())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Offset, D::Error> {
        u64::deserialize(from).map(Offset::new)
    }
}
