//! Hammerspace: a scope is a share of its own, which is mounted below the volume's path.
//!
//! Files are worked on through the mounts; shares, sizes and snapshots through the REST interface.
//! A limit is the share's size, which Hammerspace enforces.
//!
//! Laws
//! - A scope is made in an order that a second try can go on from: share, mount. It is there once
//!   its mount is: nothing is ever written below the mount point.
//! - Names of snapshots are Hammerspace's own. A note in the share says whose each one is; it is
//!   written after the snapshot, so that no note is without one.
//!
//! Source: Hammerspace management API v1.2, as its CSI driver uses it.

mod base;
mod shares;

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_anchor::VolumeRoot;
use proxy_core::id::{QuotaScopeId, TaskId, VFolderId};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};

use crate::backend::{Backend, Capacity, Cloned, Restore, ScopeQuota};
use crate::capability::{DOT_SNAPSHOT, Kind};
use crate::control::Control;
use crate::directory_quota::{note, write_note};
use crate::error::VolumeError;
use crate::folder::Job;
use crate::limits::Limits;
use crate::outside::{Outside, ShareMount};
use crate::restore;
use crate::snapshot::{self, Snapshot, SnapshotName};
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::vendor::ledger::Ledger;
use crate::vendor::options::Options;
use crate::vendor::pace::Pace;
use crate::vendor::rest::REST_OPTIONS;
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};
use shares::Shares;

pub use base::HammerspaceBase;
pub(crate) use shares::OPTIONS;

/// Begins the names of notes about snapshots, in the share.
const NOTE: &str = ".proxy-snapshot-";
/// Shows snapshots, at the root of a share.
const SNAPSHOTS_DIR: &str = DOT_SNAPSHOT;

/// See the module.
pub struct Hammerspace {
    vfs: Vfs,
    shares: Shares,
    volume: String,
    source: String,
    /// Whether shares are mounted one by one; if not, the volume's path shows them all.
    mounts: bool,
    mount_wait: Duration,
    outside: Arc<Outside>,
}

impl Hammerspace {
    /// A volume whose options were read; nothing is opened or asked yet.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn new(
        spec: &Spec,
        limits: &Limits,
        outside: &Arc<Outside>,
    ) -> Result<Self, SpecError> {
        let tables = [OPTIONS, REST_OPTIONS];
        let options = Options::of(spec, &tables)?;
        Ok(Self {
            vfs: Vfs::new(&spec.name, spec.path.clone(), limits),
            shares: Shares::new(spec, &options)?,
            volume: spec.name.clone(),
            source: options.need(shares::SOURCE)?,
            mounts: options.flag(shares::MOUNTS),
            mount_wait: options.seconds(shares::MOUNT_WAIT)?,
            outside: Arc::clone(outside),
        })
    }

    /// Whether a scope is there to be written to.
    async fn is_there(&self, tree: &Tree, scope: QuotaScopeId) -> Result<bool, VolumeError> {
        Ok(tree.scope_listed(scope).await? && self.is_mounted(tree, scope).await?)
    }

    /// Whether the directory of a scope, which is there, is its share.
    async fn is_mounted(&self, tree: &Tree, scope: QuotaScopeId) -> Result<bool, VolumeError> {
        if !self.mounts {
            return Ok(true);
        }
        tree.on_volume(move |root| {
            let dir = root.open_scope(Some(&scope))?;
            let found = statx(&dir, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
                .map_err(|errno| VolumeError::os("look at mount", errno))?;
            Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        })
        .await
    }

    /// The tree, for work that writes to a vfolder: what lies below a mount point is no share.
    async fn tree_of(&self, vfid: VFolderId) -> Result<Arc<Tree>, VolumeError> {
        let tree = self.tree().await?;
        if let Some(scope) = vfid.scope
            && tree.scope_exists(scope).await?
            && !self.is_mounted(&tree, scope).await?
        {
            return Err(VolumeError::ScopeNotFound(scope));
        }
        Ok(tree)
    }

    /// Has the share of a scope mounted, and waits until it is.
    async fn mount(&self, tree: &Tree, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let share = scope.dir_name();
        if self.is_there(tree, scope).await? {
            return Ok(());
        }
        if self.mounts {
            let wanted = self.wanted(scope);
            match self.outside.mounts.get() {
                Some(mounts) => mounts.mount(wanted),
                None => tracing::warn!(
                    volume = self.volume,
                    location = wanted.location,
                    "there is no channel to ask for mounts, the share must be mounted otherwise"
                ),
            }
        }
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(50), ms(1000), self.mount_wait);
        while !self.is_there(tree, scope).await? {
            if !pace.next().await {
                let seconds = self.mount_wait.as_secs_f64();
                let cause = format!("its share {share} is not mounted after {seconds} s");
                return Err(VolumeError::ScopeCreationFailed { scope, cause });
            }
        }
        Ok(())
    }

    /// Has the share of a scope unmounted everywhere, and waits until it is here.
    async fn unmount(&self, tree: &Tree, scope: QuotaScopeId) -> Result<(), VolumeError> {
        if let Some(mounts) = self.outside.mounts.get() {
            mounts.unmount(self.wanted(scope));
        }
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(50), ms(1000), self.mount_wait);
        while tree.scope_exists(scope).await? && self.is_mounted(tree, scope).await? {
            if !pace.next().await {
                return Err(VolumeError::Busy);
            }
        }
        Ok(())
    }

    fn wanted(&self, scope: QuotaScopeId) -> ShareMount {
        let share = scope.dir_name();
        ShareMount {
            volume: self.volume.clone(),
            location: format!("{}:/{share}", self.source),
            dir_name: share,
            scope,
        }
    }

    /// The snapshots of a vfolder with Hammerspace's names for them, oldest first.
    async fn own(&self, vfid: VFolderId) -> Result<Vec<Kept>, VolumeError> {
        let Some(scope) = vfid.scope else {
            return Err(VolumeError::Unsupported);
        };
        let tree = self.tree().await?;
        let notes = tree.on_volume(move |root| notes_of(root, vfid)).await?;
        if notes.is_empty() {
            return Ok(Vec::new());
        }
        let there = self.shares.snapshots(&scope.dir_name()).await?;
        let mut own = Vec::new();
        for (file, snapshot) in notes {
            let vendor = note(&tree, scope, &file).await?;
            // Others may remove snapshots as well.
            if let Some(vendor) = vendor.filter(|vendor| there.contains(vendor)) {
                own.push(Kept {
                    file,
                    vendor,
                    snapshot,
                });
            }
        }
        own.sort_by_key(|kept| kept.snapshot.created);
        Ok(own)
    }

    async fn forget(&self, scope: QuotaScopeId, kept: Kept) -> Result<(), VolumeError> {
        let (share, vendor) = (scope.dir_name(), &kept.vendor);
        self.shares.delete_snapshot(&share, vendor).await?;
        let gone = move |root: &VolumeRoot| {
            let dir = root.open_scope(Some(&scope))?;
            match dir.unlink(OsStr::new(&kept.file)) {
                Err(error) if error.is_not_found() => Ok(()),
                done => Ok(done?),
            }
        };
        self.tree().await?.on_volume(gone).await
    }
}

/// A snapshot with its note and Hammerspace's name for it.
struct Kept {
    file: String,
    vendor: String,
    snapshot: Snapshot,
}

fn notes_of(root: &VolumeRoot, vfid: VFolderId) -> Result<Vec<(String, Snapshot)>, VolumeError> {
    let mut dir = root.open_scope(vfid.scope.as_ref())?;
    let mut notes = Vec::new();
    for entry in dir.entries() {
        let entry = entry?;
        let Some(file) = entry.name.to_str() else {
            continue;
        };
        if let Some(snapshot) = snapshot::noted(NOTE, vfid, file) {
            notes.push((file.to_owned(), snapshot));
        }
    }
    Ok(notes)
}

#[async_trait]
impl Backend for Hammerspace {
    fn kind(&self) -> Kind {
        Kind::Hammerspace
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(self.shares.rest.ledger())
    }

    async fn create_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        let name = scope.dir_name();
        let made = match self.shares.find(&name).await? {
            None => {
                self.shares.create(&name, limit_bytes).await?;
                true
            }
            // One that nobody could use yet was made by an earlier try.
            Some(share) if !self.is_there(&tree, scope).await? => {
                if shares::quota_of(&share).limit_bytes != limit_bytes {
                    self.shares.resize(&name, limit_bytes).await?;
                }
                true
            }
            Some(_) => false,
        };
        if !made {
            return Err(VolumeError::ScopeExists(scope));
        }
        self.mount(&tree, scope).await
    }

    async fn describe_scope(&self, scope: QuotaScopeId) -> Result<Option<ScopeQuota>, VolumeError> {
        let share = self.shares.find(&scope.dir_name()).await?;
        let tree = self.tree().await?;
        let is_there = tree.scope_exists(scope).await? && self.is_mounted(&tree, scope).await?;
        Ok(match share {
            Some(share) if is_there => Some(shares::quota_of(&share)),
            // A directory that somebody made has no limit.
            None if is_there => Some(ScopeQuota::default()),
            _ => None,
        })
    }

    async fn update_scope(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<(), VolumeError> {
        let name = scope.dir_name();
        Ok(self.shares.resize(&name, Some(limit_bytes)).await?)
    }

    async fn unset_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        Ok(self.shares.resize(&scope.dir_name(), None).await?)
    }

    async fn delete_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let (tree, share) = (self.tree().await?, scope.dir_name());
        let exists = tree.scope_exists(scope).await?;
        if exists && !tree.scope_is_bare(scope, SNAPSHOTS_DIR).await? {
            return Err(VolumeError::ScopeNotEmpty(scope));
        }
        if self.shares.find(&share).await?.is_some() {
            if exists && self.mounts && self.is_mounted(&tree, scope).await? {
                self.unmount(&tree, scope).await?;
            }
            self.shares.delete(&share).await?;
        }
        // The mount point, or what is left of a plain directory.
        tree.delete_scope(scope).await
    }

    async fn create_folder(&self, vfid: VFolderId, mode: u32) -> Result<(), VolumeError> {
        self.tree_of(vfid).await?.create_folder(vfid, mode).await
    }

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
        self.tree_of(dst).await?.clone_folder(job, control).await
    }

    async fn forget_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        let Some(scope) = vfid.scope else {
            return Ok(());
        };
        if !self.tree().await?.scope_exists(scope).await? {
            return Ok(());
        }
        for kept in self.own(vfid).await? {
            self.forget(scope, kept).await?;
        }
        Ok(())
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        Ok(self.shares.capacity().await?)
    }

    async fn snapshots(&self, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
        self.tree().await?.check_folder(vfid).await?;
        let own = self.own(vfid).await?;
        Ok(own.into_iter().map(|kept| kept.snapshot).collect())
    }

    async fn create_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        expires: Option<Stamp>,
        _control: Arc<Control>,
    ) -> Result<Snapshot, VolumeError> {
        let Some(scope) = vfid.scope else {
            return Err(VolumeError::Unsupported);
        };
        let tree = self.tree().await?;
        tree.check_folder(vfid).await?;
        tree.flush().await?;
        let own = self.own(vfid).await?;
        if own.iter().any(|kept| kept.snapshot.name == name) {
            return Err(VolumeError::SnapshotExists(name));
        }
        let file = snapshot::noted_name(NOTE, vfid, Stamp::now(), &name, expires);
        let share = scope.dir_name();
        let vendor = self.shares.create_snapshot(&share).await?;
        if let Err(error) = write_note(&tree, scope, &file, vendor.clone()).await {
            // Nobody could tell whose it is.
            self.shares.delete_snapshot(&share, &vendor).await?;
            return Err(error);
        }
        snapshot::noted(NOTE, vfid, &file).ok_or(VolumeError::SnapshotNotFound(name))
    }

    async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        _control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let Some(scope) = vfid.scope else {
            return Err(VolumeError::Unsupported);
        };
        let own = self.own(vfid).await?.into_iter();
        for kept in own.filter(|kept| kept.snapshot.name == name) {
            self.forget(scope, kept).await?;
        }
        Ok(())
    }

    async fn restore_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        to: Restore,
        task: TaskId,
        control: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        let mut own = self.own(vfid).await?.into_iter();
        let Some(kept) = own.find(|kept| kept.snapshot.name == name) else {
            return Err(VolumeError::SnapshotNotFound(name));
        };
        let mut shown = vec![SNAPSHOTS_DIR.to_owned(), kept.vendor];
        // Below the scope, which is the first of them.
        shown.extend(vfid.components().into_iter().skip(1));
        let job = restore::Job {
            vfid,
            places: vec![restore::Place::Scope(shown)],
            name,
            to,
            task,
            free_bytes: self.free_bytes().await?,
        };
        self.tree_of(job.target())
            .await?
            .restore(job, control)
            .await
    }
}
