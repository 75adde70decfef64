//! DDN EXAScaler (Lustre): a volume is a Lustre mount, a scope is a directory with a project.
//!
//! Limits are quotas of projects, hard ones on blocks, which Lustre enforces; they are set and read
//! by the program `lfs`. The number of a scope's project is noted in the scope.
//!
//! Laws
//! - A scope is made in an order that a second try can go on from: directory, number, note,
//!   project, limit. A number that was noted is never drawn again.
//! - Numbers are the same for all servers of a file system: they come from the fleet, or else
//!   from a directory of the volume.
//! - `lfs` gets fixed arguments and no shell, is waited for a bounded time, and ends with us.
//!
//! Source: `lfs-project`, `lfs-quota`, `lfs-setquota` of Lustre 2.12 and later.

mod lfs;
mod numbers;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use proxy_core::id::QuotaScopeId;

use crate::backend::{Backend, ScopeQuota};
use crate::capability::Kind;
use crate::directory_quota::{note, write_note};
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::outside::Outside;
use crate::tree::Tree;
use crate::vendor::Cause;
use crate::vendor::ledger::Ledger;
use crate::vendor::options::Options;
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};
use lfs::Lfs;

pub(crate) use lfs::OPTIONS;

/// The file in a scope with the number of its project; the original's.
const NOTE: &str = "project_id";

/// See the module.
pub struct Exascaler {
    vfs: Vfs,
    lfs: Lfs,
    path: PathBuf,
    outside: Arc<Outside>,
    /// One draws a number, the others wait.
    drawing: tokio::sync::Mutex<()>,
}

impl Exascaler {
    /// A volume whose options were read; nothing is opened or run yet.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn new(
        spec: &Spec,
        limits: &Limits,
        outside: &Arc<Outside>,
    ) -> Result<Self, SpecError> {
        let options = Options::of(spec, &[OPTIONS])?;
        Ok(Self {
            vfs: Vfs::new(&spec.name, spec.path.clone(), limits),
            lfs: Lfs::new(&options)?,
            path: spec.path.clone(),
            outside: Arc::clone(outside),
            drawing: tokio::sync::Mutex::default(),
        })
    }

    fn place(&self, scope: QuotaScopeId) -> PathBuf {
        self.path.join(scope.dir_name())
    }

    /// The number that a scope has; `None` for none, or a note of no use.
    async fn noted(&self, tree: &Tree, scope: QuotaScopeId) -> Result<Option<u32>, VolumeError> {
        let text = note(tree, scope, NOTE).await?;
        Ok(text.and_then(|text| text.parse().ok()).filter(|id| *id > 0))
    }

    /// The number of a scope, drawn if it has none.
    async fn number(&self, tree: &Tree, scope: QuotaScopeId) -> Result<u32, VolumeError> {
        let _turn = self.drawing.lock().await;
        if let Some(id) = self.noted(tree, scope).await? {
            return Ok(id);
        }
        let id = match self.outside.project_ids.get() {
            Some(ids) => ids.next().await.map_err(|text| {
                let operation = "draw project number";
                lfs::error(operation, Cause::Unreachable, text)
            })?,
            None => tree.on_volume(numbers::draw).await?,
        };
        write_note(tree, scope, NOTE, id.to_string()).await?;
        Ok(id)
    }

    /// Makes sure that a scope belongs to its project, all that lies in it as well.
    async fn tagged(&self, tree: &Tree, scope: QuotaScopeId) -> Result<u32, VolumeError> {
        let id = self.number(tree, scope).await?;
        let place = self.place(scope);
        if self.lfs.project(&place).await? != Some((id, true)) {
            self.lfs.tag(&place, id).await?;
        }
        Ok(id)
    }

    async fn quota(&self, tree: &Tree, scope: QuotaScopeId) -> Result<ScopeQuota, VolumeError> {
        match self.noted(tree, scope).await? {
            Some(id) => Ok(self.lfs.quota(&self.place(scope), id).await?),
            None => Ok(ScopeQuota::default()),
        }
    }

    /// Whether a scope that is there may be the work of a try that was interrupted: it holds
    /// nothing but the note, and has no limit yet.
    async fn is_half_made(&self, tree: &Tree, scope: QuotaScopeId) -> Result<bool, VolumeError> {
        let is_bare = tree.on_volume(move |root| {
            let mut dir = root.open_scope(Some(&scope))?;
            for entry in dir.entries() {
                let name = entry?.name;
                if !name.to_string_lossy().starts_with(NOTE) {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        Ok(is_bare.await? && self.quota(tree, scope).await?.limit_bytes.is_none())
    }
}

#[async_trait]
impl Backend for Exascaler {
    fn kind(&self) -> Kind {
        Kind::Exascaler
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(&self.lfs.ledger)
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    async fn create_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        match tree.create_scope(scope).await {
            Err(VolumeError::ScopeExists(_))
                if limit_bytes.is_some() && self.is_half_made(&tree, scope).await? => {}
            done => done?,
        }
        let id = self.tagged(&tree, scope).await?;
        if let Some(limit_bytes) = limit_bytes {
            let place = self.place(scope);
            self.lfs.limit(&place, id, Some(limit_bytes)).await?;
        }
        Ok(())
    }

    async fn describe_scope(&self, scope: QuotaScopeId) -> Result<Option<ScopeQuota>, VolumeError> {
        let tree = self.tree().await?;
        if !tree.scope_exists(scope).await? {
            return Ok(None);
        }
        self.quota(&tree, scope).await.map(Some)
    }

    async fn update_scope(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        let id = self.tagged(&tree, scope).await?;
        let place = self.place(scope);
        Ok(self.lfs.limit(&place, id, Some(limit_bytes)).await?)
    }

    async fn delete_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        let id = self.noted(&tree, scope).await?;
        tree.delete_scope(scope).await?;
        // Its number is never given again: a limit that stays harms nobody.
        if let Some(id) = id
            && let Err(error) = self.lfs.limit(&self.path, id, None).await
        {
            tracing::warn!(%scope, id, %error, "the limit of a removed scope stays");
        }
        Ok(())
    }

    async fn unset_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        match self.noted(&tree, scope).await? {
            Some(id) => Ok(self.lfs.limit(&self.place(scope), id, None).await?),
            None => Ok(()),
        }
    }
}
