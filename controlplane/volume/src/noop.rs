//! The backend that keeps nothing: for folders whose data somebody else manages.
//!
//! Every operation succeeds without effect, and reads are empty. The listing has its one odd
//! entry because the original's has.
//!
//! Source: the original's stand-in volume.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_anchor::VolumeRoot;
use proxy_core::id::{QuotaScopeId, SessionId, TaskId, VFolderId};
use proxy_core::relpath::RelPath;

use crate::backend::{
    Backend, Capacity, Cloned, Deleted, Metric, Mkdir, Prepared, ScopeQuota, Swept, Usage,
    UsedBytes,
};
use crate::capability::Kind;
use crate::control::Control;
use crate::error::VolumeError;
use crate::fetch::Fetch;
use crate::listing::{Entry, EntryType, Listing};
use crate::stamp::Stamp;
use crate::sweep::KeepSession;
use crate::tree::{LAYOUT_CURRENT, Tree};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noop;

#[async_trait]
impl Backend for Noop {
    fn kind(&self) -> Kind {
        Kind::Noop
    }

    async fn tree(&self) -> Result<Arc<Tree>, VolumeError> {
        Err(VolumeError::Unsupported)
    }

    fn root(&self) -> Option<VolumeRoot> {
        None
    }

    async fn create_scope(&self, _: QuotaScopeId, _: Option<u64>) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn describe_scope(&self, _: QuotaScopeId) -> Result<Option<ScopeQuota>, VolumeError> {
        Ok(None)
    }

    async fn update_scope(&self, _: QuotaScopeId, _: u64) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn unset_scope(&self, _: QuotaScopeId) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn create_folder(&self, _: VFolderId, _: u32) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn delete_folder(&self, _: VFolderId, _: Arc<Control>) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn clone_folder(
        &self,
        _: VFolderId,
        _: VFolderId,
        _: TaskId,
        _: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        Ok(Cloned::default())
    }

    async fn mount_path(&self, _: VFolderId, _: RelPath) -> Result<PathBuf, VolumeError> {
        Ok(PathBuf::from("."))
    }

    async fn usage(&self, _: VFolderId) -> Result<Usage, VolumeError> {
        Ok(Usage {
            complete: true,
            ..Usage::default()
        })
    }

    async fn used_bytes(&self, _: VFolderId) -> Result<UsedBytes, VolumeError> {
        Ok(UsedBytes {
            used_bytes: 0,
            complete: true,
        })
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        Ok(Capacity {
            capacity_bytes: Some(0),
            used_bytes: Some(0),
        })
    }

    async fn metric(&self) -> Result<Metric, VolumeError> {
        Ok(Metric {
            observed_at: Stamp::now(),
            ..Metric::default()
        })
    }

    async fn list(&self, _: VFolderId, _: RelPath, _: usize) -> Result<Listing, VolumeError> {
        let now = Stamp::now();
        Ok(Listing::of(vec![Entry {
            name: String::new(),
            kind: EntryType::File,
            mode: 0,
            size: 0,
            created: now,
            modified: now,
            symlink_target: String::new(),
        }]))
    }

    async fn mkdir(&self, _: VFolderId, _: RelPath, _: Mkdir) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn rename(&self, _: VFolderId, _: RelPath, _: String) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn move_entry(&self, _: VFolderId, _: RelPath, _: RelPath) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn delete_files(
        &self,
        _: VFolderId,
        _: Vec<RelPath>,
        _: bool,
        _: Arc<Control>,
    ) -> Result<Deleted, VolumeError> {
        Ok(Deleted::default())
    }

    async fn fetch(&self, _: VFolderId, _: RelPath) -> Result<Fetch, VolumeError> {
        Ok(Fetch::empty())
    }

    async fn prepare_upload(
        &self,
        _: VFolderId,
        _: RelPath,
        _: u64,
        _: SessionId,
    ) -> Result<Prepared, VolumeError> {
        Ok(Prepared::Nothing)
    }

    async fn layout_version(&self) -> Result<u32, VolumeError> {
        Ok(LAYOUT_CURRENT)
    }

    async fn sweep(
        &self,
        _: Duration,
        _: KeepSession,
        _: Arc<Control>,
    ) -> Result<Swept, VolumeError> {
        Ok(Swept::default())
    }
}
