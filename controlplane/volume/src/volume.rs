//! One volume: its name, where it lies, and what can be done with it.
//!
//! A thin layer over a [`Backend`]: what concerns several operations of a backend at once, such
//! as making a missing quota scope on the way, happens here and once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use proxy_anchor::{Quota, VolumeRoot};
use proxy_core::id::{QuotaScopeId, SessionId, TaskId, VFolderId};
use proxy_core::relpath::RelPath;

use crate::backend::{
    Backend, Capacity, Cloned, Deleted, Freshness, HwInfo, Known, Memory, Metric, Mkdir, Prepared,
    Restore, ScopeQuota, Swept, Usage, UsedBytes,
};
use crate::book::Book;
use crate::capability::{Capability, Kind};
use crate::control::Control;
use crate::error::VolumeError;
use crate::fetch::Fetch;
use crate::listing::Listing;
use crate::marks::EndedTask;
use crate::paging::{Page, PageWish};
use crate::snapshot::{Retained, Retention, Snapshot, SnapshotName};
use crate::stamp::Stamp;
use crate::sweep::KeepSession;
use crate::vendor::ledger::Ledger;
use crate::volumes::Spec;

/// Deleted vfolders whose snapshots are remembered to be dropped later.
const OWED_MAX: usize = 10_000;

/// See the module.
pub struct Volume {
    spec: Spec,
    backend: Arc<dyn Backend>,
    /// Deleted vfolders whose snapshots could not be dropped.
    owed: Mutex<BTreeSet<VFolderId>>,
    /// What scans remember; not set: nothing.
    book: OnceLock<Book>,
}

impl Volume {
    /// A volume of this name and place on a backend.
    pub fn new(spec: Spec, backend: Arc<dyn Backend>) -> Self {
        let owed = Mutex::default();
        Self {
            spec,
            backend,
            owed,
            book: OnceLock::new(),
        }
    }

    /// Its name, the only one that the Manager uses.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its kind; [`Kind::wire`] is the `backend` of the configuration.
    pub fn kind(&self) -> Kind {
        self.backend.kind()
    }

    /// The `backend` of the configuration, which may be another name of the kind.
    pub fn backend(&self) -> &str {
        &self.spec.backend
    }

    /// The mount point as configured.
    pub fn path(&self) -> &Path {
        &self.spec.path
    }

    /// The prefix as configured; it is reported and used nowhere.
    pub fn fsprefix(&self) -> &str {
        &self.spec.fsprefix
    }

    /// What it can do, in the order of the wire.
    pub fn capabilities(&self) -> Vec<Capability> {
        self.backend.capabilities()
    }

    /// What was asked of the storage system's own interface; `None` where there is none.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.backend.ledger()
    }

    /// The open mount point, for those who resolve names on their own threads; `None` until the
    /// volume could be opened.
    pub fn root(&self) -> Option<VolumeRoot> {
        self.backend.root()
    }

    /// Opens the volume unless it is open. A volume that fails is tried again by every operation.
    ///
    /// # Errors
    /// [`VolumeError::Unavailable`], [`VolumeError::Busy`].
    pub async fn open(&self) -> Result<(), VolumeError> {
        match self.backend.tree().await {
            Ok(_) | Err(VolumeError::Unsupported) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// See [`Backend::refresh`].
    ///
    /// # Errors
    /// [`VolumeError::Unavailable`].
    pub async fn refresh(&self) -> Result<bool, VolumeError> {
        self.backend.refresh().await
    }

    /// See [`Backend::close`].
    pub fn close(&self) {
        self.backend.close();
    }

    /// Makes a quota scope. Backends without quotas ignore the limit.
    ///
    /// # Errors
    /// [`VolumeError::ScopeExists`], [`VolumeError::LimitRefused`].
    pub async fn create_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        let made = self.backend.create_scope(scope, limit_bytes).await;
        match made {
            Err(error) if limit_bytes.is_some() => Err(error.of_limit()),
            made => self.explained(None, made).await,
        }
    }

    /// Numbers of a quota scope; `None` when there is no such scope.
    ///
    /// # Errors
    /// Only those of the system.
    pub async fn describe_scope(
        &self,
        scope: QuotaScopeId,
    ) -> Result<Option<ScopeQuota>, VolumeError> {
        self.backend.describe_scope(scope).await
    }

    /// Sets the limit of a scope, which is made if it is missing.
    ///
    /// # Errors
    /// [`VolumeError::LimitRefused`], and those of the system.
    pub async fn update_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: u64,
    ) -> Result<(), VolumeError> {
        if self.backend.describe_scope(scope).await?.is_none() {
            match self.create_scope(scope, Some(limit_bytes)).await {
                // Somebody made it meanwhile, with a limit that is not ours.
                Err(VolumeError::ScopeExists(_)) => {}
                done => return done,
            }
        }
        let updated = self.backend.update_scope(scope, limit_bytes).await;
        updated.map_err(VolumeError::of_limit)
    }

    /// Lifts the limit of a scope; the scope stays.
    ///
    /// # Errors
    /// [`VolumeError::ScopeNotFound`].
    pub async fn unset_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        if self.backend.describe_scope(scope).await?.is_none() {
            return Err(VolumeError::ScopeNotFound(scope));
        }
        self.backend.unset_scope(scope).await
    }

    /// Removes a scope without vfolders, and its limit. A missing one is no error.
    ///
    /// # Errors
    /// [`VolumeError::ScopeNotEmpty`].
    pub async fn delete_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        self.forget_owed(|vfid| vfid.scope == Some(scope)).await;
        self.backend.delete_scope(scope).await
    }

    /// Makes a vfolder, durably. With `auto_scope` a missing scope is made first, with the limit
    /// `initial_limit` unless that is 0 or `None`.
    ///
    /// An empty folder that is there already is taken as made by an earlier, unanswered request.
    ///
    /// # Errors
    /// [`VolumeError::ScopeRequired`], [`VolumeError::ScopeNotFound`],
    /// [`VolumeError::ScopeCreationFailed`], [`VolumeError::FolderExists`].
    pub async fn create_folder(
        &self,
        vfid: VFolderId,
        mode: u32,
        initial_limit: Option<u64>,
        auto_scope: bool,
    ) -> Result<(), VolumeError> {
        let Some(scope) = vfid.scope else {
            return Err(VolumeError::ScopeRequired(vfid));
        };
        match self.backend.create_folder(vfid, mode).await {
            Err(VolumeError::ScopeNotFound(_)) if auto_scope => {}
            done => return self.explained(vfid.scope, done).await,
        }
        let limit = initial_limit.filter(|limit| *limit > 0);
        match self.create_scope(scope, limit).await {
            Ok(()) | Err(VolumeError::ScopeExists(_)) => {}
            Err(error) => return Err(error),
        }
        match self.backend.create_folder(vfid, mode).await {
            Err(VolumeError::ScopeNotFound(_)) => Err(VolumeError::ScopeCreationFailed {
                scope,
                cause: "it is still missing after it was made".to_owned(),
            }),
            done => self.explained(vfid.scope, done).await,
        }
    }

    /// Removes a vfolder: first its name, then what is in it, then empty directories above it.
    /// A missing one is no error. Interrupted anywhere, it can be run again.
    ///
    /// # Errors
    /// [`VolumeError::Cancelled`], and the first refusal of the system.
    ///
    /// # Cancellation
    /// Dropping the future stops the removal soon after; the name is gone by then.
    pub async fn delete_folder(
        &self,
        vfid: VFolderId,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        self.backend.delete_folder(vfid, control).await?;
        if let Some(book) = self.book.get() {
            book.forget(vfid);
        }
        self.forget(vfid).await;
        Ok(())
    }

    /// Has the storage system drop the snapshots of a vfolder that is gone, now or, while it
    /// cannot be asked, with the next look through all snapshots.
    async fn forget(&self, vfid: VFolderId) {
        let done = self.backend.forget_folder(vfid).await;
        let mut owed = self.owed.lock();
        match done {
            Ok(()) => drop(owed.remove(&vfid)),
            Err(error) => {
                let volume = self.name();
                tracing::warn!(volume, %vfid, %error, "snapshots of a deleted folder stay");
                if owed.len() < OWED_MAX {
                    owed.insert(vfid);
                }
            }
        }
    }

    /// Tries again what [`Self::forget`] could not do, for vfolders that are still gone.
    async fn forget_owed(&self, which: impl Fn(&VFolderId) -> bool + Send) {
        let owed: Vec<_> = self.owed.lock().iter().copied().filter(&which).collect();
        for vfid in owed {
            match self.backend.mount_path(vfid, RelPath::root()).await {
                Err(VolumeError::VFolderNotFound(_) | VolumeError::ScopeNotFound(_)) => {
                    self.forget(vfid).await;
                }
                // One of the same number: the snapshots are its own now.
                Ok(_) => drop(self.owed.lock().remove(&vfid)),
                Err(_) => {}
            }
        }
    }

    /// Copies a vfolder to a new one on this volume, making the destination's scope if missing.
    ///
    /// The copy is durable and appears as a whole. Links stay links, hard links and holes are
    /// kept; special files are left out and counted in the result; unfinished uploads are not
    /// copied. Interrupted anywhere, it can be run again with the same `task`: leftovers are
    /// removed, and a copy that was finished is recognised (the result then counts nothing).
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`], [`VolumeError::FolderExists`],
    /// [`VolumeError::ScopeCreationFailed`], [`VolumeError::NoRoom`], [`VolumeError::Cancelled`],
    /// and the first refusal of the system. Nothing of the copy is left then.
    ///
    /// # Cancellation
    /// Dropping the future stops the copy soon after, and what was copied is removed.
    pub async fn clone_folder(
        &self,
        src: VFolderId,
        dst: VFolderId,
        task: TaskId,
        control: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        self.scope_of(dst).await?;
        let cloned = self.backend.clone_folder(src, dst, task, control).await;
        self.explained(dst.scope, cloned).await
    }

    /// Says of a refusal for want of space whether the quota or the volume is used up: file
    /// systems say the one or the other as they like.
    async fn explained<T>(
        &self,
        scope: Option<QuotaScopeId>,
        done: Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let error = match done {
            Err(error) if error.is_full() => error,
            done => return done,
        };
        let Ok(mut room) = self.backend.room(scope).await else {
            return Err(error);
        };
        // Storage systems that do not show it in the file system may know it.
        if let (None, Some(scope)) = (room.quota, scope)
            && self.kind().capabilities().contains(&Capability::Quota)
            && let Ok(Some(known)) = self.backend.describe_scope(scope).await
            && let (Some(used_bytes), Some(limit_bytes)) = (known.used_bytes, known.limit_bytes)
        {
            room.quota = Some(Quota {
                used_bytes,
                limit_bytes,
            });
        }
        Err(error.of_room(&room))
    }

    /// Makes the scope of a folder to come, without a limit, unless it is there.
    async fn scope_of(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        if let Some(scope) = vfid.scope
            && self.kind() != Kind::Noop
            // Its numbers are not wanted: the storage system need not be asked.
            && !self.backend.tree().await?.scope_exists(scope).await?
        {
            match self.backend.create_scope(scope, None).await {
                Ok(()) | Err(VolumeError::ScopeExists(_)) => {}
                Err(error) => {
                    let cause = error.to_string();
                    return Err(VolumeError::ScopeCreationFailed { scope, cause });
                }
            }
        }
        Ok(())
    }

    /// Where the vfolder lies on this host: the one answer that shows a path of the server.
    /// `subpath` is checked to stay inside and need not exist.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`], [`VolumeError::InvalidSubpath`].
    pub async fn mount_path(
        &self,
        vfid: VFolderId,
        subpath: RelPath,
    ) -> Result<PathBuf, VolumeError> {
        self.backend.mount_path(vfid, subpath).await
    }

    /// Counts entries and apparent bytes below a vfolder, for a bounded time.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`], [`VolumeError::Busy`].
    pub async fn usage(&self, vfid: VFolderId) -> Result<Usage, VolumeError> {
        self.backend.usage(vfid).await
    }

    /// Lets scans remember in `dir` what they saw, from now on.
    pub fn remember_usage_in(&self, dir: PathBuf) {
        // The first one counts.
        let _ = self.book.set(Book::new(dir));
    }

    /// Entries and bytes of a vfolder as of a while ago, or from a scan that reads only those
    /// directories again that have changed. Bytes that were written to a file in place may be
    /// missing unless the answer is called exact. Without [`Self::remember_usage_in`] every scan
    /// reads everything.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`], [`VolumeError::Busy`].
    pub async fn usage_lately(
        &self,
        vfid: VFolderId,
        wish: Freshness,
    ) -> Result<Known, VolumeError> {
        if let Some(book) = self.book.get() {
            let memory = Memory(book.clone());
            return self.backend.usage_lately(vfid, memory, wish).await;
        }
        let as_of = Stamp::now();
        let usage = self.usage(vfid).await?;
        Ok(Known {
            usage,
            as_of,
            exact: usage.complete,
            ..Known::default()
        })
    }

    /// The vfolders of the volume. Forgets what is remembered of others.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn folders(&self) -> Result<Vec<VFolderId>, VolumeError> {
        let folders = match self.backend.tree().await {
            Err(VolumeError::Unsupported) => Vec::new(),
            tree => tree?.folders().await?,
        };
        if let Some(book) = self.book.get().cloned() {
            let listed = folders.clone();
            let forget = tokio::task::spawn_blocking(move || book.retain(&listed));
            drop(forget.await);
        }
        Ok(folders)
    }

    /// Sums allocated bytes of a vfolder, for a bounded time.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`], [`VolumeError::Busy`].
    pub async fn used_bytes(&self, vfid: VFolderId) -> Result<UsedBytes, VolumeError> {
        self.backend.used_bytes(vfid).await
    }

    /// Size of the whole volume.
    ///
    /// # Errors
    /// Only those of the system.
    pub async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        self.backend.fs_usage().await
    }

    /// Health of the storage system.
    ///
    /// # Errors
    /// Only those of the storage system.
    pub async fn hwinfo(&self) -> Result<HwInfo, VolumeError> {
        self.backend.hwinfo().await
    }

    /// One reading of the volume's performance.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`].
    pub async fn metric(&self) -> Result<Metric, VolumeError> {
        self.backend.metric().await
    }

    /// Entries of a directory in its own order, at most `limit` (0: all). Links to directories
    /// inside the vfolder are followed for `dir`, not for entries.
    ///
    /// # Errors
    /// Those of the system, for the directory: `ENOENT`, `ENOTDIR`.
    pub async fn list(
        &self,
        vfid: VFolderId,
        dir: RelPath,
        limit: usize,
    ) -> Result<Listing, VolumeError> {
        self.backend.list(vfid, dir, limit).await
    }

    /// Some entries of a directory or of the tree below it, and where the next ones begin.
    ///
    /// # Errors
    /// Those of the directory; [`VolumeError::Refused`] for a cursor that no page gave.
    pub async fn page(&self, vfid: VFolderId, wish: PageWish) -> Result<Page, VolumeError> {
        self.backend.page(vfid, wish).await
    }

    /// Makes a directory, mode 0755 through the umask.
    ///
    /// # Errors
    /// `EEXIST`, also for a file in the way when `exist_ok`; `ENOENT` without `parents`.
    pub async fn mkdir(
        &self,
        vfid: VFolderId,
        dir: RelPath,
        how: Mkdir,
    ) -> Result<(), VolumeError> {
        let made = self.backend.mkdir(vfid, dir, how).await;
        self.explained(vfid.scope, made).await
    }

    /// Gives an entry another name in its directory; otherwise as [`Self::move_entry`].
    ///
    /// # Errors
    /// [`VolumeError::InvalidName`] for a name with a slash, `.`, `..` or none.
    pub async fn rename(
        &self,
        vfid: VFolderId,
        from: RelPath,
        name: String,
    ) -> Result<(), VolumeError> {
        let renamed = self.backend.rename(vfid, from, name).await;
        self.explained(vfid.scope, renamed).await
    }

    /// Moves an entry itself: of a link the link. Into `to` if that is a directory, or a link to
    /// one; a file replaces a file. Between file systems it copies, then removes.
    ///
    /// # Errors
    /// `ENOENT` for what is missing, `EEXIST` for a directory onto a file, `EBUSY` for the root,
    /// [`VolumeError::Refused`] for a taken name in `to` and for a move into itself.
    pub async fn move_entry(
        &self,
        vfid: VFolderId,
        from: RelPath,
        to: RelPath,
    ) -> Result<(), VolumeError> {
        let moved = self.backend.move_entry(vfid, from, to).await;
        self.explained(vfid.scope, moved).await
    }

    /// Removes entries themselves: of a link the link. Directories that are not empty only if
    /// `recursive`. What is missing counts as removed.
    ///
    /// # Errors
    /// [`VolumeError::InvalidSubpath`] for a path that leads out and [`VolumeError::Refused`] for
    /// the root, both before anything is removed; otherwise the first refusal of the system, and
    /// what was removed before stays removed.
    pub async fn delete_files(
        &self,
        vfid: VFolderId,
        paths: Vec<RelPath>,
        recursive: bool,
        control: Arc<Control>,
    ) -> Result<Deleted, VolumeError> {
        self.backend
            .delete_files(vfid, paths, recursive, control)
            .await
    }

    /// Opens a regular file to be read from its start. Links that stay inside are followed.
    ///
    /// # Errors
    /// `ENOENT`; `EISDIR` or `EINVAL` for what is no regular file.
    pub async fn open_for_fetch(
        &self,
        vfid: VFolderId,
        path: RelPath,
    ) -> Result<Fetch, VolumeError> {
        self.backend.fetch(vfid, path).await
    }

    /// Makes the staging file of an upload of `size` bytes to `path`, or, when there are none,
    /// the durable empty file itself.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`], [`VolumeError::InvalidSubpath`], `EISDIR` and `ENOTDIR`
    /// for a target that no file can have; nothing is left then.
    pub async fn prepare_upload(
        &self,
        vfid: VFolderId,
        path: RelPath,
        size: u64,
        session: SessionId,
    ) -> Result<Prepared, VolumeError> {
        let prepared = self.backend.prepare_upload(vfid, path, size, session).await;
        self.explained(vfid.scope, prepared).await
    }

    /// The version of the layout on disk; [`crate::LAYOUT_UNMARKED`] when it does not say.
    ///
    /// # Errors
    /// Only those of the system.
    pub async fn layout_version(&self) -> Result<u32, VolumeError> {
        self.backend.layout_version().await
    }

    /// The snapshots of a vfolder, oldest first.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`], [`VolumeError::VFolderNotFound`].
    pub async fn snapshots(&self, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
        self.backend.snapshots(vfid).await
    }

    /// Keeps the present state of a vfolder under a name.
    ///
    /// # Errors
    /// See [`Backend::create_snapshot`].
    pub async fn create_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        expires: Option<Stamp>,
        control: Arc<Control>,
    ) -> Result<Snapshot, VolumeError> {
        let kept = self
            .backend
            .create_snapshot(vfid, name, expires, control)
            .await;
        self.explained(vfid.scope, kept).await
    }

    /// Removes a snapshot. A missing one is no error.
    ///
    /// # Errors
    /// See [`Backend::delete_snapshot`].
    pub async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        self.backend.delete_snapshot(vfid, name, control).await
    }

    /// Removes the snapshots that a policy does not keep, of one vfolder or of all.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`], [`VolumeError::Cancelled`], and those of looking for
    /// snapshots. What can not be removed is counted in the result.
    pub async fn retain_snapshots(
        &self,
        vfid: Option<VFolderId>,
        policy: Retention,
        control: Arc<Control>,
    ) -> Result<Retained, VolumeError> {
        if !self.capabilities().contains(&Capability::Snapshot) {
            return Err(VolumeError::Unsupported);
        }
        let folders = match vfid {
            Some(vfid) => vec![vfid],
            None => {
                self.forget_owed(|_| true).await;
                self.backend.folders_with_snapshots().await?
            }
        };
        let mut retained = Retained::default();
        for vfid in folders {
            control.check()?;
            let kept = match self.backend.snapshots(vfid).await {
                Ok(kept) => kept,
                // It was deleted meanwhile, and its snapshots with it.
                Err(VolumeError::VFolderNotFound(_)) => continue,
                Err(error) => {
                    retained.failed.push(format!("{vfid}: {error}"));
                    continue;
                }
            };
            let stale = policy.stale(&kept, Stamp::now());
            retained.kept += (kept.len() - stale.len()) as u64;
            for name in stale {
                let reins = Arc::clone(&control);
                match self
                    .backend
                    .delete_snapshot(vfid, name.clone(), reins)
                    .await
                {
                    Ok(()) => retained.removed += 1,
                    Err(VolumeError::Cancelled) => return Err(VolumeError::Cancelled),
                    Err(error) => retained.failed.push(format!("{vfid} {name}: {error}")),
                }
            }
        }
        Ok(retained)
    }

    /// Brings a snapshot back, in place or as a new vfolder whose scope is made if missing.
    ///
    /// # Errors
    /// See [`Backend::restore_snapshot`].
    pub async fn restore_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        to: Restore,
        task: TaskId,
        control: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        let mut to_scope = vfid.scope;
        if let Restore::Into(new) = to {
            self.scope_of(new).await?;
            to_scope = new.scope;
        }
        let restored = self
            .backend
            .restore_snapshot(vfid, name, to, task, control)
            .await;
        self.explained(to_scope, restored).await
    }

    /// Takes away what the task that made `vfid` would know its work by: its end is on record.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn settle(&self, vfid: VFolderId, task: TaskId) -> Result<(), VolumeError> {
        self.backend.tree().await?.settle(vfid, task).await
    }

    /// As [`Self::settle`], for all tasks that have ended. Returns how many marks are gone.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn sweep_marks(&self, ended: EndedTask) -> Result<u64, VolumeError> {
        match self.backend.tree().await {
            Err(VolumeError::Unsupported) => Ok(0),
            tree => tree?.sweep_marks(ended).await,
        }
    }

    /// Removes staging files that have not changed for `older_than` and that `keep` does not
    /// know, and the hidden leftovers of
    /// interrupted clones and deletions. `older_than` must exceed the life of an upload token.
    ///
    /// # Errors
    /// [`VolumeError::Cancelled`]; what cannot be removed is logged and stays.
    pub async fn sweep_staging(
        &self,
        older_than: Duration,
        keep: KeepSession,
        control: Arc<Control>,
    ) -> Result<Swept, VolumeError> {
        self.backend.sweep(older_than, keep, control).await
    }
}
