//! CephFS: quotas, usage and snapshots are attributes and names of directories.
//!
//! No program of Ceph is run, and no cluster is spoken to: the mount is all there is.
//!
//! Laws
//! - The client that writes enforces quotas, coarsely and late: what is known to be too large is
//!   refused before it is taken.
//! - Snapshots are made and removed by making and removing names in `.snap`: clients of this
//!   server cannot do that in passing.
//! - Restoring in place fills the same directory again, since snapshots belong to it.
//!
//! Source: CephFS quotas, snapshots and virtual attributes; measured on 16.2.

pub(crate) mod snapshots;

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use proxy_anchor::{Dir, VFolderRoot, VolumeRoot};
use proxy_core::id::{QuotaScopeId, TaskId, VFolderId};
use proxy_core::relpath::RelPath;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use tokio::sync::OnceCell;

use crate::backend::{
    Backend, Cloned, Freshness, Known, Memory, Restore, ScopeQuota, Usage, UsedBytes,
};
use crate::capability::Kind;
use crate::control::Control;
use crate::error::{In, VolumeError};
use crate::limits::Limits;
use crate::snapshot::{Snapshot, SnapshotName};
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::vendor::options::{BackendOption, OptionKind, Options, optional};
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};

/// Bytes of all files below a directory, and below its sub-directories.
const BYTES: &CStr = c"ceph.dir.rbytes";
/// Files below, likewise.
const FILES: &CStr = c"ceph.dir.rfiles";
/// Directories below, and the directory itself.
const DIRS: &CStr = c"ceph.dir.rsubdirs";
/// Bytes that may lie below a directory.
const LIMIT: &CStr = c"ceph.quota.max_bytes";
/// Longest value of an attribute that is a number.
const NUMBER_BYTES_MAX: usize = 64;

const SNAPSHOT_DIR: &str = "snapshot-dir";

/// The options of this backend.
pub(crate) const OPTIONS: &[BackendOption] = &[optional(
    SNAPSHOT_DIR,
    OptionKind::Text,
    ".snap",
    "what the mount calls the place of snapshots (`snapdirname`, `client_snapdir`)",
)];

/// See the module.
pub struct CephFs {
    name: String,
    vfs: Vfs,
    snapshot_dir: String,
    checked: OnceCell<()>,
}

impl CephFs {
    /// A volume on the directory `path`, which is not opened yet.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn new(spec: &Spec, path: PathBuf, limits: &Limits) -> Result<Self, SpecError> {
        let tables = [OPTIONS];
        let options = Options::of(spec, &tables)?;
        let snapshot_dir = options.need(SNAPSHOT_DIR)?;
        if snapshot_dir.contains('/') || matches!(snapshot_dir.as_str(), "." | "..") {
            return Err(options.fault(SNAPSHOT_DIR, "must be: one name"));
        }
        let limits = Limits {
            snapshot_dir: snapshot_dir.clone(),
            reserved_name: Some(snapshot_dir.clone()),
            ..limits.clone()
        };
        Ok(Self {
            name: spec.name.clone(),
            vfs: Vfs::new(&spec.name, path, &limits),
            snapshot_dir,
            checked: OnceCell::new(),
        })
    }

    async fn check(&self, tree: &Tree) -> Result<(), VolumeError> {
        let volume = self.name.clone();
        let checked = tree.on_volume(move |root| {
            let Err(error) = number(&root.open_scope(None)?, BYTES) else {
                return Ok(());
            };
            let cause = match error.errno() {
                Some(Errno::NODATA | Errno::OPNOTSUPP) => "no CephFS is mounted there".to_owned(),
                _ => error.to_string(),
            };
            Err(VolumeError::Unavailable { volume, cause })
        });
        checked.await
    }

    async fn in_folder<T: Send + 'static>(
        &self,
        vfid: VFolderId,
        work: impl FnOnce(&VFolderRoot) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        self.tree().await?.in_folder(vfid, work).await
    }
}

fn number(dir: &Dir, name: &CStr) -> Result<u64, VolumeError> {
    let mut text = [0_u8; NUMBER_BYTES_MAX];
    let length = rustix::fs::fgetxattr(dir, name, &mut text[..])
        .map_err(|errno| VolumeError::os("read CephFS attribute", errno))?;
    let number = std::str::from_utf8(&text[..length]).ok();
    number
        .and_then(|number| number.trim().parse().ok())
        .ok_or(VolumeError::Internal("a CephFS attribute is no number"))
}

fn set_limit(root: &VolumeRoot, scope: QuotaScopeId, limit_bytes: u64) -> Result<(), VolumeError> {
    let dir = match root.open_scope(Some(&scope)) {
        Err(error) if error.is_not_found() => return Err(VolumeError::ScopeNotFound(scope)),
        dir => dir?,
    };
    // It may be larger than any disk, but not than the attribute's own type.
    let limit_bytes = limit_bytes.min(i64::MAX.unsigned_abs());
    let text = limit_bytes.to_string();
    match rustix::fs::fsetxattr(&dir, LIMIT, text.as_bytes(), XattrFlags::empty()) {
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
            tracing::error!(%scope, "quotas need the capability `p` of the mount's Ceph user");
            Err(VolumeError::os("set CephFS quota", errno))
        }
        set => set.map_err(|errno| VolumeError::os("set CephFS quota", errno)),
    }
}

fn whole(folder: &VFolderRoot) -> Result<Dir, VolumeError> {
    let opened = folder.open_dir(&RelPath::root());
    opened.map_err(|error| In(*folder.id(), &RelPath::root()).err(error))
}

#[async_trait]
impl Backend for CephFs {
    fn kind(&self) -> Kind {
        Kind::CephFs
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    async fn tree(&self) -> Result<Arc<Tree>, VolumeError> {
        let tree = self.vfs.tree().await?;
        self.checked
            .get_or_try_init(|| self.check(&tree))
            .await
            .map(|()| tree)
    }

    fn root(&self) -> Option<VolumeRoot> {
        self.checked.get().and_then(|()| self.vfs.root())
    }

    async fn create_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        tree.create_scope(scope).await?;
        match limit_bytes {
            Some(limit_bytes) => self.update_scope(scope, limit_bytes).await,
            None => Ok(()),
        }
    }

    async fn describe_scope(&self, scope: QuotaScopeId) -> Result<Option<ScopeQuota>, VolumeError> {
        let describe = move |root: &VolumeRoot| {
            let dir = match root.open_scope(Some(&scope)) {
                Err(error) if error.is_not_found() => return Ok(None),
                dir => dir?,
            };
            let limit = match number(&dir, LIMIT) {
                Err(error) if error.errno() == Some(Errno::NODATA) => 0,
                limit => limit?,
            };
            Ok(Some(ScopeQuota {
                used_bytes: Some(number(&dir, BYTES)?),
                limit_bytes: Some(limit).filter(|limit| *limit > 0),
            }))
        };
        self.tree().await?.on_volume(describe).await
    }

    async fn update_scope(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        tree.on_volume(move |root| set_limit(root, scope, limit_bytes))
            .await
    }

    async fn unset_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        self.update_scope(scope, 0).await
    }

    async fn usage(&self, vfid: VFolderId) -> Result<Usage, VolumeError> {
        let usage = self.in_folder(vfid, |folder| {
            let dir = whole(folder)?;
            let dirs = number(&dir, DIRS)?;
            Ok(Usage {
                // The folder itself is no entry of it.
                file_count: (number(&dir, FILES)? + dirs).saturating_sub(1),
                used_bytes: number(&dir, BYTES)?,
                complete: true,
            })
        });
        usage.await
    }

    /// The file system keeps these numbers itself.
    async fn usage_lately(
        &self,
        vfid: VFolderId,
        _: Memory,
        _: Freshness,
    ) -> Result<Known, VolumeError> {
        let (usage, used) = (self.usage(vfid).await?, self.used_bytes(vfid).await?);
        Ok(Known {
            usage,
            allocated_bytes: used.used_bytes,
            as_of: Stamp::now(),
            exact: true,
            ..Known::default()
        })
    }

    async fn used_bytes(&self, vfid: VFolderId) -> Result<UsedBytes, VolumeError> {
        let used = self.in_folder(vfid, |folder| {
            Ok(UsedBytes {
                used_bytes: number(&whole(folder)?, BYTES)?,
                complete: true,
            })
        });
        used.await
    }

    async fn snapshots(&self, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
        let place = self.snapshot_dir.clone();
        self.in_folder(vfid, move |folder| snapshots::list(&whole(folder)?, &place))
            .await
    }

    async fn create_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        expires: Option<Stamp>,
        _: Arc<Control>,
    ) -> Result<Snapshot, VolumeError> {
        let place = self.snapshot_dir.clone();
        self.in_folder(vfid, move |folder| {
            snapshots::create(&whole(folder)?, &place, &name, expires)
        })
        .await
    }

    async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        _: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let place = self.snapshot_dir.clone();
        self.in_folder(vfid, move |folder| {
            snapshots::delete(&whole(folder)?, &place, &name)
        })
        .await
    }

    async fn restore_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        to: Restore,
        task: TaskId,
        control: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        let free_bytes = self.fs_usage().await?.free_bytes();
        let snapshot_dir = self.snapshot_dir.clone();
        let work = move |root: &VolumeRoot, limits: &Limits, control: &Control| {
            let restoring = snapshots::Restoring {
                vfid,
                name,
                to,
                task,
                free_bytes,
                snapshot_dir,
            };
            snapshots::restore(root, &restoring, limits, control)
        };
        self.tree().await?.long(control, work).await
    }
}
