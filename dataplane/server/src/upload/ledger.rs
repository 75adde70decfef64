//! The sessions behind the bridge and the names behind `anchor`, as the upload machine sees them.

use std::os::fd::AsFd;
use std::sync::Arc;

use proxy_anchor::{AnchorError, VFolderRoot, staging};
use proxy_core::extent::{Extent, Extents, Recorded, Want};
use proxy_core::problem;
use proxy_core::relpath::{RelPath, STAGING_DIR};
use proxy_core::units::{MIB, Offset};
use proxy_ring::{FileRef, StagedFile};
use proxy_transfer::ledger::{Claimed, Ledger, LedgerError};

use super::Request;
use super::answer::refused_claim;
use crate::bridge::{self, Change, Known, Refusal, Report};
use crate::reply::Reply;

/// The sessions behind the bridge and the names behind `anchor`, as the upload machine sees them.
pub(super) struct SessionLedger<'r> {
    pub(super) request: &'r Request<'r>,
    /// The partial upload that is written, not the file.
    pub(super) part: Option<u32>,
}

/// Uploads from this size on go past the page cache where the volume can do that: below, the copy
/// costs less than the second descriptor.
const DIRECT_BYTES_MIN: u64 = MIB;

/// A claimed session and its staging file.
pub(crate) struct Held {
    pub(super) grant: bridge::Grant,
    pub(super) file: StagedFile,
    laid_out: bool,
    /// The grant's signal has come, one way or the other: it must not be waited for again.
    told: bool,
}

impl From<Refusal> for LedgerError<Reply> {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Held => Self::Held,
            Refusal::Lost => Self::Lost,
            Refusal::NotFound => Self::NotFound,
            Refusal::Closed => Self::Ending,
            Refusal::TooManyRanges | Refusal::Mixed | Refusal::Away | Refusal::Store(_) => {
                Self::Other(problem::internal_error().into())
            }
        }
    }
}

impl SessionLedger<'_> {
    pub(super) fn told(&self, refusal: Refusal) -> LedgerError<Reply> {
        match refusal {
            Refusal::TooManyRanges | Refusal::Mixed | Refusal::Away | Refusal::Store(_) => {
                LedgerError::Other(refused_claim(self.request, &refusal))
            }
            other => other.into(),
        }
    }
}

/// A session that was asked for.
pub(super) enum Taken {
    Ours(Held),
    /// It is complete; where its last request began.
    Finished(Offset),
}

impl SessionLedger<'_> {
    /// Claims a session, whatever it is used for.
    pub(super) async fn take(&self, want: Want) -> Result<Taken, LedgerError<Reply>> {
        let request = self.request;
        let session = request.claims.session;
        let size = request.size();
        let (target, bytes) = (request.target.clone(), size.get());
        let is_large = request.volume.direct && bytes >= DIRECT_BYTES_MIN;
        let opened = request
            .on_folder(move |folder| {
                let staged = staging::open(folder, &session)?;
                let direct = is_large.then(|| staged.direct()).flatten();
                // Known before the bytes are taken: a target that can not be.
                staging::check_target(folder, &target)?;
                let laid_out = is_laid_out(&staged.fd, bytes);
                Ok((staged, direct, laid_out))
            })
            .await
            .map_err(LedgerError::Other)?;
        let finished = |known: &Known| {
            let last_from = known.finished.as_ref().map_or(size, |(_, from)| *from);
            Taken::Finished(last_from)
        };
        let (staged, direct, laid_out) = match opened {
            Ok(opened) => opened,
            Err(error) if error.is_not_found() && is_about_staging(&error) => {
                let known = request.thread.setup.bridge.look(session).await;
                return match known.map_err(|refusal| self.told(refusal))? {
                    Some(known) if known.finished.is_some() => Ok(finished(&known)),
                    Some(known) => {
                        let published = request.is_published(&known).await;
                        if !published.map_err(LedgerError::Other)? {
                            return Err(LedgerError::NotFound);
                        }
                        let last_from = Offset::new(known.durable.prefix());
                        Ok(Taken::Finished(last_from))
                    }
                    None => Err(LedgerError::NotFound),
                };
            }
            Err(error) => return Err(LedgerError::Other(request.refused(&error))),
        };
        let place = (staged.ino, staged.dev);
        let bridge = &request.thread.setup.bridge;
        let claimed = bridge.claim(request.claims.clone(), place, want).await;
        match claimed.map_err(|refusal| self.told(refusal))? {
            bridge::Claimed::Finished(known) => Ok(finished(&known)),
            bridge::Claimed::Granted(grant) => {
                let file = StagedFile::new(Arc::new(staged.fd), direct.map(Arc::new));
                Ok(Taken::Ours(Held {
                    grant,
                    file,
                    laid_out,
                    told: false,
                }))
            }
        }
    }

    /// Has a change made to the session.
    pub(super) async fn change(
        &self,
        held: &Held,
        change: Change,
    ) -> Result<Known, LedgerError<Reply>> {
        let told = held
            .grant
            .report(|reply| Report::Change { change, reply })
            .await;
        told.map_err(|refusal| self.told(refusal))
    }
}

impl Ledger for SessionLedger<'_> {
    type File = StagedFile;
    type Grant = Held;
    type Error = Reply;

    async fn claim(&self, want: Want) -> Result<Claimed<Held>, LedgerError<Reply>> {
        let size = self.request.size();
        let held = match self.take(want).await? {
            Taken::Ours(held) => held,
            Taken::Finished(last_from) => return Ok(Claimed::Finished { last_from, size }),
        };
        let known = &held.grant.known;
        let durable = match self.part {
            Some(number) => {
                let partial = known.partial(number).ok_or(LedgerError::NotFound)?;
                let to = partial.place + partial.offset;
                Extents::from_iter([Extent::new(partial.place, to)])
            }
            None if known.partials.is_empty() => known.durable.clone(),
            None => return Err(self.told(Refusal::Mixed)),
        };
        let laid_out = held.laid_out;
        Ok(Claimed::Ours {
            grant: held,
            durable,
            size,
            laid_out,
        })
    }

    async fn open(&self, held: &Held) -> Result<StagedFile, LedgerError<Reply>> {
        Ok(held.file.clone())
    }

    async fn revoked(&self, held: &mut Held) -> Option<Want> {
        if held.told {
            return std::future::pending().await;
        }
        let signal = (&mut held.grant.revoked).await;
        held.told = true;
        match signal {
            Ok(newcomer) => Some(newcomer),
            // The lease ended in another way; the next report will say so.
            Err(_) => std::future::pending().await,
        }
    }

    async fn record(&self, held: &Held, extent: Extent) -> Result<Recorded, LedgerError<Reply>> {
        if let Some(number) = self.part {
            let partial = held.grant.known.partial(number);
            let place = partial.ok_or(LedgerError::NotFound)?.place;
            let to = extent.to.saturating_sub(place);
            let change = Change::AdvancePartial { number, to };
            self.change(held, change).await?;
            return Ok(Recorded {
                durable: Extents::from_iter([Extent::new(place, extent.to)]),
                whole: false,
            });
        }
        let told = held
            .grant
            .report(|reply| Report::Record { extent, reply })
            .await;
        told.map_err(|refusal| self.told(refusal))
    }

    async fn finish(&self, held: &Held, last_from: Offset) -> Result<(), LedgerError<Reply>> {
        let request = self.request;
        let session = request.claims.session;
        let secured = held.grant.report(|reply| Report::Secure { reply }).await;
        secured.map_err(|refusal| self.told(refusal))?;
        let size = request.size().get();
        let (target, file) = (request.target.clone(), Arc::clone(held.file.plain()));
        let published = request
            .on_folder(move |folder| {
                // Blocks may have been reserved, or left by a broken request, beyond the end.
                trim(&file, size)?;
                match staging::publish(folder, &session, &target) {
                    // Another request for the same, whole upload may have been faster.
                    Err(error) if error.is_not_found() && is_about_staging(&error) => {
                        match is_published(folder, &file, size, &target)? {
                            true => Ok(()),
                            false => Err(error),
                        }
                    }
                    published => published,
                }
            })
            .await
            .map_err(LedgerError::Other)?;
        request.told(published).await.map_err(LedgerError::Other)?;
        let target = request.target.clone();
        let told = held
            .grant
            .report(|reply| Report::Finish {
                last_from,
                target,
                reply,
            })
            .await;
        told.map_err(|refusal| self.told(refusal))
    }

    async fn abort(&self, held: &Held) {
        // First the leases of all writers: none may have bytes acknowledged that are removed now.
        let _ = held.grant.report(|reply| Report::Abort { reply }).await;
        let session = self.request.claims.session;
        let removed = self
            .request
            .on_folder(move |folder| staging::discard(folder, &session));
        let _ = removed.await;
    }

    async fn release(&self, held: Held) {
        drop(held);
    }
}

/// `ENOENT` names the staging file here: a target that is missing is fine.
pub(super) fn is_about_staging(error: &AnchorError) -> bool {
    matches!(error, AnchorError::Os { path, .. } if path.starts_with(STAGING_DIR))
}

/// Whether an open staging file has its name already.
fn is_published(
    folder: &VFolderRoot,
    file: &FileRef,
    size: u64,
    target: &RelPath,
) -> Result<bool, AnchorError> {
    let Ok(stat) = rustix::fs::fstat(file) else {
        return Ok(false);
    };
    staging::is_published(folder, stat.st_ino, stat.st_dev, size, target)
}

/// Whether the file has blocks for `size` bytes.
fn is_laid_out(file: impl AsFd, size: u64) -> bool {
    size <= allocated_bytes(file)
}

/// Bytes of the blocks that a file has.
pub(super) fn allocated_bytes(file: impl AsFd) -> u64 {
    let blocks = rustix::fs::fstat(file).map_or(0, |stat| stat.st_blocks);
    u64::try_from(blocks).unwrap_or(0).saturating_mul(512)
}

/// Cuts the file to `size` if it is longer, durably.
fn trim(file: &FileRef, size: u64) -> Result<(), AnchorError> {
    let os = |op, errno: rustix::io::Errno| AnchorError::Os {
        op,
        errno: errno.raw_os_error(),
        path: STAGING_DIR.to_owned(),
    };
    let stat = rustix::fs::fstat(file).map_err(|errno| os("stat", errno))?;
    if u64::try_from(stat.st_size).unwrap_or(0) <= size {
        return Ok(());
    }
    rustix::fs::ftruncate(file, size).map_err(|errno| os("truncate", errno))?;
    rustix::fs::fsync(file).map_err(|errno| os("sync", errno))
}
