//! A Hammerspace share that is mounted as it is: a plain directory, and nothing is asked.
//!
//! Laws
//! - How large it is nobody knows: what the mount says is not true of shares without a size.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use proxy_anchor::VolumeRoot;

use crate::backend::{Backend, Capacity};
use crate::capability::Kind;
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::tree::Tree;
use crate::vfs::Vfs;

/// See the module.
pub struct HammerspaceBase(Vfs);

impl HammerspaceBase {
    /// A volume on the directory `path`, which is not opened yet.
    pub fn new(name: &str, path: PathBuf, limits: &Limits) -> Self {
        Self(Vfs::new(name, path, limits))
    }
}

#[async_trait]
impl Backend for HammerspaceBase {
    fn kind(&self) -> Kind {
        Kind::HammerspaceBase
    }

    async fn tree(&self) -> Result<Arc<Tree>, VolumeError> {
        self.0.tree().await
    }

    fn root(&self) -> Option<VolumeRoot> {
        self.0.root()
    }

    async fn refresh(&self) -> Result<bool, VolumeError> {
        self.0.refresh().await
    }

    fn close(&self) {
        self.0.close();
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        Ok(Capacity::default())
    }
}
