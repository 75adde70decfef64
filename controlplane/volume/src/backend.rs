//! The one interface of all backends, and what they all do unless they say otherwise.
//!
//! A backend that manages a mounted directory names its [`Tree`] and overrides what its vendor
//! does in another way: quotas, capacity, metrics. One without a directory overrides everything.
//!
//! Laws
//! - Every operation is `async`; blocking work goes through the tree's lanes.
//! - Values that a backend cannot know are `None`, never a number that looks like one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_anchor::staging::Staged;
use proxy_anchor::{Room, VolumeRoot};
use proxy_core::id::{QuotaScopeId, SessionId, TaskId, VFolderId};
use proxy_core::relpath::RelPath;

use crate::book::Book;
use crate::capability::{Capability, Kind};
use crate::control::Control;
use crate::directory_quota::{self, Limited};
use crate::error::VolumeError;
use crate::fetch::Fetch;
use crate::folder::Job;
use crate::listing::Listing;
use crate::paging::{Page, PageWish};
use crate::snapshot::{Snapshot, SnapshotName};
use crate::stamp::Stamp;
use crate::sweep::KeepSession;
use crate::tree::Tree;
use crate::vendor::VendorError;
use crate::vendor::ledger::Ledger;
use crate::vfs::Vfs;
use crate::{kept, restore};

/// Numbers of a quota scope; `None` is "not known" or "no limit".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeQuota {
    /// Bytes in use.
    pub used_bytes: Option<u64>,
    /// Bytes that may be used.
    pub limit_bytes: Option<u64>,
}

/// What a scan of a vfolder found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries below the folder: files, links, directories, anything.
    pub file_count: u64,
    /// Apparent size of all entries in bytes, directories included, files with several names once.
    pub used_bytes: u64,
    /// `false`: time ran out, the numbers are what was seen until then.
    pub complete: bool,
}

/// What a vfolder occupies on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsedBytes {
    /// Allocated bytes, files with several names once.
    pub used_bytes: u64,
    /// `false`: time ran out, the number is what was seen until then.
    pub complete: bool,
}

/// What is known of a vfolder's size, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Entries and apparent bytes.
    pub usage: Usage,
    /// Allocated bytes, files with several names once.
    pub allocated_bytes: u64,
    /// When the counting began.
    pub as_of: Stamp,
    /// Whether every directory was read for it: bytes written in place are in it, too.
    pub exact: bool,
    /// Directories read for this answer.
    pub dirs_read: u64,
    /// Directories that were looked at and had not changed.
    pub dirs_skipped: u64,
    /// Entries looked at, beside directories themselves.
    pub entries_looked_at: u64,
}

/// Where scans of a volume remember what they saw.
#[derive(Clone, Debug)]
pub struct Memory(pub(crate) Book);

/// How fresh numbers have to be, and how long they may take.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// Numbers of this age at most will do.
    pub age_max: Duration,
    /// A scan that takes longer answers with what it has seen; `None`: it takes as long as it
    /// takes, on one thread.
    pub time_max: Option<Duration>,
}

/// Size of a whole volume; `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes in all.
    pub capacity_bytes: Option<u64>,
    /// Bytes in use or reserved.
    pub used_bytes: Option<u64>,
}

impl Capacity {
    /// Bytes that can still be written, if known.
    pub fn free_bytes(&self) -> Option<u64> {
        Some(self.capacity_bytes?.saturating_sub(self.used_bytes?))
    }
}

/// Health of the storage system under a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HwInfo {
    /// How it is.
    pub status: HwStatus,
    /// A remark for people.
    pub status_info: Option<String>,
    /// Facts by name.
    pub metadata: Vec<(String, String)>,
}

/// The words for health that the Manager knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HwStatus {
    /// Nothing is known to be wrong.
    Healthy,
    /// It works, with losses.
    Degraded,
    /// It is switched off.
    Offline,
    /// It cannot be asked.
    Unavailable,
}

impl HwStatus {
    /// The word on the wire.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
        }
    }
}

impl HwInfo {
    /// What a backend says that has nobody to ask.
    pub const fn healthy() -> Self {
        Self {
            status: HwStatus::Healthy,
            status_info: None,
            metadata: Vec::new(),
        }
    }

    /// What to say of a storage system that cannot be asked.
    pub(crate) fn unavailable(error: &VendorError) -> Self {
        Self {
            status: HwStatus::Unavailable,
            status_info: Some(error.to_string()),
            metadata: Vec::new(),
        }
    }
}

/// One reading of a volume's performance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metric {
    /// Reads per second.
    pub iops_read: u64,
    /// Writes per second.
    pub iops_write: u64,
    /// Bytes read per second.
    pub io_bytes_read: u64,
    /// Bytes written per second.
    pub io_bytes_write: u64,
    /// Microseconds per read.
    pub io_usec_read: f64,
    /// Microseconds per write.
    pub io_usec_write: f64,
    /// When it was taken.
    pub observed_at: Stamp,
}

/// What an upload begins with.
#[derive(Debug)]
pub enum Prepared {
    /// An empty staging file waits for the bytes.
    Staged(Staged),
    /// The file is in place already: it has no bytes. These facts are what a session records.
    Published(Staged),
    /// The backend keeps no files.
    Nothing,
}

/// What a deletion of entries did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Entries removed.
    pub entries: u64,
    /// Directories that were not empty and therefore stayed: they needed `recursive`.
    pub kept: Vec<RelPath>,
}

/// What a clone did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cloned {
    /// Entries copied: files, links, directories.
    pub entries: u64,
    /// Bytes of content, apparent.
    pub bytes: u64,
    /// Special files, and directories of other file systems, that were left out.
    pub skipped: u64,
    /// The first of them, relative to the folder.
    pub skipped_named: Vec<String>,
}

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Abandoned uploads whose staging files are gone.
    pub sessions: Vec<(VFolderId, SessionId)>,
    /// Bytes that they held.
    pub bytes: u64,
    /// Half-made clones and half-deleted folders that are gone.
    pub hidden: u64,
}

/// Where a snapshot is brought back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// The vfolder gets the state that it had; what it has now is gone.
    InPlace,
    /// A new vfolder gets the state; the vfolder of the snapshot stays as it is.
    Into(VFolderId),
}

/// What a volume of one kind does. All paths are relative to the vfolder.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Which kind it is; its name and its capabilities follow.
    fn kind(&self) -> Kind;

    /// What this volume can do, in the order of the wire. Differs from what its kind can do only
    /// where that depends on the file system under it; cheap, does not wait.
    fn capabilities(&self) -> Vec<Capability> {
        let mut all = self.kind().capabilities().to_vec();
        let shares = || self.root().is_some_and(|root| root.abilities().reflink);
        if !all.contains(&Capability::Snapshot) && shares() {
            all.push(Capability::Snapshot);
        }
        all
    }

    /// What was asked of the storage system's own interface, for those that have one.
    fn ledger(&self) -> Option<&Ledger> {
        None
    }

    /// The mounted directory under it, for backends that have one and manage more than that.
    fn mounted(&self) -> Option<&Vfs> {
        None
    }

    /// The mounted directory that the default operations work on.
    ///
    /// # Errors
    /// [`VolumeError::Unavailable`] when it cannot be opened, [`VolumeError::Unsupported`] when
    /// the backend has none.
    async fn tree(&self) -> Result<Arc<Tree>, VolumeError> {
        match self.mounted() {
            Some(mounted) => mounted.tree().await,
            None => Err(VolumeError::Unsupported),
        }
    }

    /// The opened directory for those who cannot wait; `None` until it is open.
    fn root(&self) -> Option<VolumeRoot> {
        self.mounted()?.root()
    }

    /// Looks whether something else is mounted at the volume's path now, and opens that. `true`:
    /// it is another directory than before.
    ///
    /// # Errors
    /// [`VolumeError::Unavailable`]; what was open stays open then.
    async fn refresh(&self) -> Result<bool, VolumeError> {
        match self.mounted() {
            Some(mounted) => mounted.refresh().await,
            None => Ok(false),
        }
    }

    /// Lets go of the opened directory, so that it can be unmounted. The next operation opens it.
    fn close(&self) {
        if let Some(mounted) = self.mounted() {
            mounted.close();
        }
    }

    /// How scopes are limited by objects of the storage system beside them; `None` where they are
    /// not. Whoever says so needs to say nothing else of scopes.
    fn limits<'a>(&'a self, _tree: &'a Tree) -> Option<Limited<'a>> {
        None
    }

    /// Makes a quota scope, with a limit where the backend enforces one.
    ///
    /// # Errors
    /// [`VolumeError::ScopeExists`].
    async fn create_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        match self.limits(&tree) {
            Some(Limited { limiter, .. }) => {
                directory_quota::create(&tree, &*limiter, scope, limit_bytes).await
            }
            None => tree.create_scope(scope).await,
        }
    }

    /// Numbers of a quota scope; `None` when there is no such scope.
    ///
    /// # Errors
    /// Only those of the system.
    async fn describe_scope(&self, scope: QuotaScopeId) -> Result<Option<ScopeQuota>, VolumeError> {
        let tree = self.tree().await?;
        if let Some(Limited { limiter, .. }) = self.limits(&tree) {
            return directory_quota::describe(&tree, &*limiter, scope).await;
        }
        Ok(tree.scope_exists(scope).await?.then(ScopeQuota::default))
    }

    /// Sets the limit of an existing scope.
    ///
    /// # Errors
    /// Only those of the system.
    async fn update_scope(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        match self.limits(&tree) {
            Some(Limited { limiter, .. }) => {
                directory_quota::set(&tree, &*limiter, scope, limit_bytes).await
            }
            None => Ok(()),
        }
    }

    /// Lifts the limit of an existing scope, and keeps the scope.
    ///
    /// # Errors
    /// Only those of the system.
    async fn unset_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        match self.limits(&tree) {
            Some(Limited { limiter, .. }) => directory_quota::unset(&tree, &*limiter, scope).await,
            None => Ok(()),
        }
    }

    /// Removes a scope without vfolders, and its limit. A missing one is no error.
    ///
    /// # Errors
    /// [`VolumeError::ScopeNotEmpty`].
    async fn delete_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        match self.limits(&tree) {
            Some(Limited { limiter, .. }) => directory_quota::delete(&tree, &*limiter, scope).await,
            None => tree.delete_scope(scope).await,
        }
    }

    /// How much can be written into a scope, as far as the file system says.
    ///
    /// # Errors
    /// `ENOENT` for a missing scope.
    async fn room(&self, scope: Option<QuotaScopeId>) -> Result<Room, VolumeError> {
        self.tree().await?.room(scope).await
    }

    /// Makes a vfolder in an existing scope.
    ///
    /// # Errors
    /// [`VolumeError::ScopeNotFound`], [`VolumeError::FolderExists`] unless it is empty.
    async fn create_folder(&self, vfid: VFolderId, mode: u32) -> Result<(), VolumeError> {
        self.tree().await?.create_folder(vfid, mode).await
    }

    /// Removes a vfolder and everything in it. A missing one is no error.
    ///
    /// # Errors
    /// [`VolumeError::Cancelled`], and those of the system; the folder is out of reach by then,
    /// and a repetition removes the rest.
    async fn delete_folder(
        &self,
        vfid: VFolderId,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        tree.delete_folder(vfid, Arc::clone(&control)).await?;
        tree.delete_snapshots(vfid, control).await
    }

    /// Removes the snapshots that the storage system keeps of a vfolder that is gone. Others'
    /// snapshots stay, and none at all is fine.
    ///
    /// # Errors
    /// Those of the storage system; a repetition removes the rest.
    async fn forget_folder(&self, _vfid: VFolderId) -> Result<(), VolumeError> {
        Ok(())
    }

    /// Copies a vfolder. See [`crate::Volume::clone_folder`].
    ///
    /// # Errors
    /// See there.
    async fn clone_folder(
        &self,
        src: VFolderId,
        dst: VFolderId,
        task: TaskId,
        control: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        let free_bytes = self.free_bytes().await?;
        let job = Job {
            src,
            dst,
            task,
            free_bytes,
        };
        self.tree().await?.clone_folder(job, control).await
    }

    /// Where the vfolder lies on this host, after checking that `subpath` stays inside.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`], [`VolumeError::InvalidSubpath`].
    async fn mount_path(&self, vfid: VFolderId, subpath: RelPath) -> Result<PathBuf, VolumeError> {
        self.tree().await?.mount_path(vfid, subpath).await
    }

    /// Counts entries and apparent bytes.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`].
    async fn usage(&self, vfid: VFolderId) -> Result<Usage, VolumeError> {
        self.tree().await?.usage(vfid).await
    }

    /// Sums allocated bytes.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`].
    async fn used_bytes(&self, vfid: VFolderId) -> Result<UsedBytes, VolumeError> {
        self.tree().await?.used_bytes(vfid).await
    }

    /// Counts again what may have changed since the last time. See
    /// [`crate::Volume::usage_lately`].
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`].
    async fn usage_lately(
        &self,
        vfid: VFolderId,
        memory: Memory,
        wish: Freshness,
    ) -> Result<Known, VolumeError> {
        self.tree().await?.usage_lately(vfid, memory.0, wish).await
    }

    /// Size of the whole volume.
    ///
    /// # Errors
    /// Only those of the system.
    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        self.tree().await?.capacity().await
    }

    /// Bytes that can still be written, for work that needs room; not known while the storage
    /// system's own interface cannot say.
    ///
    /// # Errors
    /// Those of the system.
    async fn free_bytes(&self) -> Result<Option<u64>, VolumeError> {
        match self.fs_usage().await {
            Ok(capacity) => Ok(capacity.free_bytes()),
            Err(VolumeError::Vendor(error)) => {
                tracing::warn!(%error, "room is not looked at");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Health of the storage system.
    ///
    /// # Errors
    /// Only those of the storage system.
    async fn hwinfo(&self) -> Result<HwInfo, VolumeError> {
        Ok(HwInfo::healthy())
    }

    /// One reading of the volume's performance.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`].
    async fn metric(&self) -> Result<Metric, VolumeError> {
        Err(VolumeError::Unsupported)
    }

    /// Entries of a directory, at most `limit` (0: all).
    ///
    /// # Errors
    /// Those of the system, for the directory.
    async fn list(
        &self,
        vfid: VFolderId,
        dir: RelPath,
        limit: usize,
    ) -> Result<Listing, VolumeError> {
        self.tree().await?.list(vfid, dir, limit).await
    }

    /// Some entries of a directory or of the tree below it. See [`crate::Volume::page`].
    ///
    /// # Errors
    /// See there.
    async fn page(&self, vfid: VFolderId, wish: PageWish) -> Result<Page, VolumeError> {
        self.tree().await?.page(vfid, wish).await
    }

    /// Makes a directory, mode 0755 through the umask.
    ///
    /// # Errors
    /// Those of the system; `EEXIST` for an existing file also with `exist_ok`.
    async fn mkdir(&self, vfid: VFolderId, dir: RelPath, how: Mkdir) -> Result<(), VolumeError> {
        self.tree().await?.mkdir(vfid, dir, how).await
    }

    /// Gives an entry another name in its directory. See [`crate::Volume::rename`].
    ///
    /// # Errors
    /// See there.
    async fn rename(
        &self,
        vfid: VFolderId,
        from: RelPath,
        name: String,
    ) -> Result<(), VolumeError> {
        self.tree().await?.rename(vfid, from, name).await
    }

    /// Moves an entry itself. See [`crate::Volume::move_entry`].
    ///
    /// # Errors
    /// See there.
    async fn move_entry(
        &self,
        vfid: VFolderId,
        from: RelPath,
        to: RelPath,
    ) -> Result<(), VolumeError> {
        self.tree().await?.move_entry(vfid, from, to).await
    }

    /// Removes entries themselves. See [`crate::Volume::delete_files`].
    ///
    /// # Errors
    /// See there.
    async fn delete_files(
        &self,
        vfid: VFolderId,
        paths: Vec<RelPath>,
        recursive: bool,
        control: Arc<Control>,
    ) -> Result<Deleted, VolumeError> {
        self.tree()
            .await?
            .delete_files(vfid, paths, recursive, control)
            .await
    }

    /// Opens a regular file to be read from its start.
    ///
    /// # Errors
    /// Those of the system; `EISDIR` or `EINVAL` for what is no regular file.
    async fn fetch(&self, vfid: VFolderId, path: RelPath) -> Result<Fetch, VolumeError> {
        self.tree().await?.fetch(vfid, path).await
    }

    /// Makes the staging file of an upload, or the file itself when it has no bytes.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`], and what would keep the file from its place at the end.
    async fn prepare_upload(
        &self,
        vfid: VFolderId,
        path: RelPath,
        size: u64,
        session: SessionId,
    ) -> Result<Prepared, VolumeError> {
        let tree = self.tree().await?;
        if let Some(Limited { limiter, lately }) = self.limits(&tree) {
            lately.refuse(&tree, &*limiter, vfid.scope, size).await?;
        }
        tree.prepare_upload(vfid, path, size, session).await
    }

    /// The version of the layout on disk; 2 when the volume does not say.
    ///
    /// # Errors
    /// Only those of the system.
    async fn layout_version(&self) -> Result<u32, VolumeError> {
        self.tree().await?.layout_version().await
    }

    /// The snapshots of a vfolder that were made through this interface, oldest first.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`], [`VolumeError::VFolderNotFound`].
    async fn snapshots(&self, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
        self.tree().await?.snapshots(vfid).await
    }

    /// The vfolders that may have snapshots.
    ///
    /// # Errors
    /// Those of the system.
    async fn folders_with_snapshots(&self) -> Result<Vec<VFolderId>, VolumeError> {
        let tree = self.tree().await?;
        if self.kind().capabilities().contains(&Capability::Snapshot) {
            return tree.folders().await;
        }
        tree.folders_kept().await
    }

    /// Keeps the present state of a vfolder under a name, durably. The same name again is an
    /// error, so that a repetition after a lost answer is told.
    ///
    /// # Errors
    /// [`VolumeError::SnapshotExists`], [`VolumeError::Unsupported`],
    /// [`VolumeError::VFolderNotFound`].
    async fn create_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        expires: Option<Stamp>,
        control: Arc<Control>,
    ) -> Result<Snapshot, VolumeError> {
        let tree = self.tree().await?;
        tree.create_snapshot(vfid, name, expires, control).await
    }

    /// Removes a snapshot. A missing one is no error.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`], and those of the storage system.
    async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        tree.delete_snapshot(vfid, name, control).await
    }

    /// Brings a snapshot back. Interrupted anywhere, it can be run again with the same `task`;
    /// until it is complete the vfolder keeps the state that it had.
    ///
    /// # Errors
    /// [`VolumeError::SnapshotNotFound`], [`VolumeError::FolderExists`] for a new vfolder that is
    /// there, [`VolumeError::Unsupported`], and those of [`Self::clone_folder`].
    async fn restore_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        to: Restore,
        task: TaskId,
        control: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        let free_bytes = self.fs_usage().await?.free_bytes();
        let job = restore::Job {
            vfid,
            places: vec![kept::place(vfid, &name)],
            name,
            to,
            task,
            free_bytes,
        };
        self.tree().await?.restore(job, control).await
    }

    /// Removes what interrupted uploads, clones and deletions left, if older than `age`.
    ///
    /// # Errors
    /// [`VolumeError::Cancelled`]; what cannot be removed is logged and stays.
    async fn sweep(
        &self,
        age: Duration,
        keep: KeepSession,
        control: Arc<Control>,
    ) -> Result<Swept, VolumeError> {
        self.tree().await?.sweep(age, keep, control).await
    }
}

/// How to make a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mkdir {
    /// Make missing parents as well.
    pub parents: bool,
    /// An existing directory is fine.
    pub exist_ok: bool,
}
