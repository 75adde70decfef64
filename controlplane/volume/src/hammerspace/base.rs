//! A Hammerspace share that is mounted as it is: a plain directory, and nothing is asked.
//!
//! Laws
//! - How large it is nobody knows: what the mount says is not true of shares without a size.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::backend::{Backend, Capacity};
use crate::capability::Kind;
use crate::error::VolumeError;
use crate::limits::Limits;
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

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.0)
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        Ok(Capacity::default())
    }
}
