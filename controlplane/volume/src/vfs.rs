//! The backend for any mounted directory: local file systems, NFS, SMB. All defaults.
//!
//! Laws
//! - The directory is opened once. A volume whose directory is missing answers errors, and is
//!   tried again by the next operation: it needs no restart once it is there.
//! - When something is mounted over the directory later, it is opened anew; what runs meanwhile
//!   ends where it began.
//! - Opening is blocking work like any other: a hung mount holds its own lane, not the process.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use proxy_anchor::VolumeRoot;
use tokio::sync::Mutex;

use crate::backend::Backend;
use crate::bulkhead::Bulkhead;
use crate::capability::Kind;
use crate::error::{VolumeError, strerror};
use crate::limits::Limits;
use crate::tree::Tree;

/// See the module.
pub struct Vfs {
    name: String,
    path: PathBuf,
    limits: Limits,
    lanes: Arc<Bulkhead>,
    tree: RwLock<Option<Arc<Tree>>>,
    /// One opens, the others wait for it.
    opening: Mutex<()>,
}

impl Vfs {
    /// A volume on the directory `path`, which is not opened yet.
    pub fn new(name: &str, path: PathBuf, limits: &Limits) -> Self {
        Self {
            name: name.to_owned(),
            path,
            limits: limits.clone(),
            lanes: Arc::new(Bulkhead::new(limits)),
            tree: RwLock::default(),
            opening: Mutex::default(),
        }
    }

    fn open_already(&self) -> Option<Arc<Tree>> {
        self.tree.read().clone()
    }

    async fn open(&self) -> Result<Arc<Tree>, VolumeError> {
        let (volume, path) = (self.name.clone(), self.path.clone());
        let reserved = self.limits.reserved_name.clone();
        let root = self
            .lanes
            .short(move || {
                VolumeRoot::open_reserving(&path, reserved.as_deref()).map_err(|error| {
                    // The cause is told without the path: it may reach a client.
                    let cause = error
                        .raw_os_error()
                        .map_or_else(|| error.to_string(), strerror);
                    VolumeError::Unavailable { volume, cause }
                })
            })
            .await?;
        Ok(Arc::new(Tree::new(
            root,
            Arc::clone(&self.lanes),
            self.limits.clone(),
        )))
    }
}

#[async_trait]
impl Backend for Vfs {
    fn kind(&self) -> Kind {
        Kind::Vfs
    }

    async fn tree(&self) -> Result<Arc<Tree>, VolumeError> {
        if let Some(tree) = self.open_already() {
            return Ok(tree);
        }
        let _turn = self.opening.lock().await;
        if let Some(tree) = self.open_already() {
            return Ok(tree);
        }
        let tree = self.open().await?;
        *self.tree.write() = Some(Arc::clone(&tree));
        Ok(tree)
    }

    fn root(&self) -> Option<VolumeRoot> {
        self.open_already().map(|tree| tree.root().clone())
    }

    async fn refresh(&self) -> Result<bool, VolumeError> {
        let _turn = self.opening.lock().await;
        if let Some(tree) = self.open_already() {
            let root = tree.root().clone();
            // A path that is gone is an error below, as it is for a volume that was never open.
            let look = move || Ok(root.is_current().unwrap_or(false));
            if self.lanes.short(look).await? {
                return Ok(false);
            }
        }
        let new = self.open().await?;
        *self.tree.write() = Some(new);
        Ok(true)
    }

    fn close(&self) {
        *self.tree.write() = None;
    }
}
