//! The backend for any mounted directory: local file systems, NFS, SMB. All defaults.
//!
//! Laws
//! - The directory is opened once. A volume whose directory is missing answers errors, and is
//!   tried again by the next operation: it needs no restart once it is there.
//! - Opening is blocking work like any other: a hung mount holds its own lane, not the process.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use proxy_anchor::VolumeRoot;
use tokio::sync::OnceCell;

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
    tree: OnceCell<Arc<Tree>>,
}

impl Vfs {
    /// A volume on the directory `path`, which is not opened yet.
    pub fn new(name: &str, path: PathBuf, limits: &Limits) -> Self {
        Self {
            name: name.to_owned(),
            path,
            limits: limits.clone(),
            lanes: Arc::new(Bulkhead::new(limits)),
            tree: OnceCell::new(),
        }
    }

    async fn open(&self) -> Result<Arc<Tree>, VolumeError> {
        let (volume, path) = (self.name.clone(), self.path.clone());
        let root = self
            .lanes
            .short(move || {
                VolumeRoot::open(&path).map_err(|error| {
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
        self.tree.get_or_try_init(|| self.open()).await.cloned()
    }

    fn root(&self) -> Option<VolumeRoot> {
        self.tree.get().map(|tree| tree.root().clone())
    }
}
