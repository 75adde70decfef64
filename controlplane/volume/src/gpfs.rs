//! IBM Storage Scale (GPFS): a volume is a directory of a file system that is mounted, a scope is
//! a fileset that is linked there.
//!
//! Files are worked on through the mount; filesets, limits and snapshots through Scale's REST
//! interface. A limit is the fileset's block quota, hard and soft alike, which Scale enforces.
//!
//! Laws
//! - A scope is made in an order that a second try can go on from: fileset, link, quota.
//! - What changes something is a job: it is over when the job is, and as the job says.
//! - Only independent filesets have snapshots. A snapshot is of the whole scope; its name says
//!   whose it is, when it was made and when it ends, since Scale's own times have no zone.
//!
//! Source: Scale management API v2, as IBM's CSI driver uses it.

mod scale;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_core::id::{QuotaScopeId, TaskId, VFolderId};

use crate::backend::{Backend, Capacity, Cloned, HwInfo, Metric, Restore, ScopeQuota};
use crate::capability::{Capability, DOT_SNAPSHOTS, Kind};
use crate::control::Control;
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::restore;
use crate::snapshot::{self, Snapshot, SnapshotName};
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::vendor::Cause;
use crate::vendor::ledger::Ledger;
use crate::vendor::options::Options;
use crate::vendor::pace::Pace;
use crate::vendor::rest::REST_OPTIONS;
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};
use scale::{Linked, Scale};

pub(crate) use scale::OPTIONS;

/// Begins the names of our snapshots.
const PREFIX: &str = "proxy-";
/// Shows snapshots, at the root of a fileset.
const SNAPSHOTS_DIR: &str = DOT_SNAPSHOTS;
/// How long a fileset that was linked may take to be seen on the mount.
const SEEN_WAIT: Duration = Duration::from_secs(30);

/// See the module.
pub struct Gpfs {
    vfs: Vfs,
    scale: Scale,
    prefix: String,
    independent: bool,
    path: String,
}

impl Gpfs {
    /// A volume whose options were read; nothing is opened or asked yet.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn new(spec: &Spec, limits: &Limits) -> Result<Self, SpecError> {
        let tables = [OPTIONS, REST_OPTIONS];
        let options = Options::of(spec, &tables)?;
        Ok(Self {
            vfs: Vfs::new(&spec.name, spec.path.clone(), limits),
            scale: Scale::new(spec, &options)?,
            prefix: options.text(scale::PREFIX).unwrap_or_default(),
            independent: options.flag(scale::INDEPENDENT),
            path: absolute(&spec.path),
        })
    }

    fn fileset(&self, scope: QuotaScopeId) -> String {
        format!("{}{}", self.prefix, scope.dir_name())
    }

    /// Where a scope is linked.
    fn link(&self, scope: QuotaScopeId) -> String {
        format!("{}/{}", self.path.trim_end_matches('/'), scope.dir_name())
    }

    /// Whether a scope that is there may be the work of a try that was interrupted: its fileset
    /// is linked, holds nothing and has no limit yet.
    async fn is_half_made(&self, tree: &Tree, scope: QuotaScopeId) -> Result<bool, VolumeError> {
        let name = self.fileset(scope);
        if !tree.scope_is_empty(scope).await? || self.scale.fileset(&name).await?.is_none() {
            return Ok(false);
        }
        let quota = self.scale.quota(&name).await?;
        Ok(quota.is_none_or(|quota| quota.limit_bytes.is_none()))
    }

    /// Makes the fileset, or goes on with one that is there.
    async fn make(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let (name, link) = (self.fileset(scope), self.link(scope));
        let Err(error) = self.scale.create(&name, &link, self.independent).await else {
            return Ok(());
        };
        match self.scale.fileset(&name).await {
            Ok(Some(Linked::At(path))) if path == link => Ok(()),
            Ok(Some(Linked::Nowhere)) => Ok(self.scale.link(&name, &link).await?),
            _ => Err(error.into()),
        }
    }

    async fn wait_for(&self, tree: &Tree, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(50), ms(1000), SEEN_WAIT);
        while !tree.scope_listed(scope).await? {
            if !pace.next().await {
                let cause = format!(
                    "its fileset is linked at {}, and not seen on the mount",
                    scope.dir_name()
                );
                return Err(VolumeError::ScopeCreationFailed { scope, cause });
            }
        }
        Ok(())
    }

    /// The fileset that has the snapshots of a vfolder.
    fn kept_in(&self, vfid: VFolderId) -> Result<String, VolumeError> {
        match vfid.scope {
            Some(scope) if self.independent => Ok(self.fileset(scope)),
            _ => Err(VolumeError::Unsupported),
        }
    }

    /// Removes what our vfolders left in a fileset: Scale keeps one that has snapshots.
    async fn forget_scope(&self, fileset: &str) -> Result<(), VolumeError> {
        let all = self.scale.snapshots(fileset).await?;
        if all.iter().any(|name| !name.starts_with(PREFIX)) {
            let text = "the fileset has snapshots that others made";
            let error = self
                .scale
                .rest
                .error("delete fileset", Cause::Conflict, text);
            return Err(error.into());
        }
        for name in all {
            self.scale.delete_snapshot(fileset, &name).await?;
        }
        Ok(())
    }

    /// The snapshots of a vfolder with Scale's names for them, oldest first.
    async fn own(&self, vfid: VFolderId) -> Result<Vec<(String, Snapshot)>, VolumeError> {
        let names = self.scale.snapshots(&self.kept_in(vfid)?).await?;
        let own = names.into_iter().filter_map(|name| {
            let snapshot = snapshot::noted(PREFIX, vfid, &name)?;
            Some((name, snapshot))
        });
        let mut own: Vec<_> = own.collect();
        own.sort_by_key(|(_, snapshot)| snapshot.created);
        Ok(own)
    }
}

/// A path as Scale has it: from the root, without links where that can be told.
fn absolute(path: &Path) -> String {
    let whole = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    whole.map_or_else(
        |_| path.display().to_string(),
        |path| path.display().to_string(),
    )
}

#[async_trait]
impl Backend for Gpfs {
    fn kind(&self) -> Kind {
        Kind::Gpfs
    }

    fn capabilities(&self) -> Vec<Capability> {
        let all = Kind::Gpfs.capabilities().iter().copied();
        all.filter(|one| self.independent || *one != Capability::Snapshot)
            .collect()
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(self.scale.rest.ledger())
    }

    async fn create_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        if tree.scope_exists(scope).await? {
            let goes_on = limit_bytes.is_some() && self.is_half_made(&tree, scope).await?;
            if !goes_on {
                return Err(VolumeError::ScopeExists(scope));
            }
        } else {
            self.make(scope).await?;
            self.wait_for(&tree, scope).await?;
        }
        if let Some(limit_bytes) = limit_bytes {
            let name = self.fileset(scope);
            self.scale.set_quota(&name, Some(limit_bytes)).await?;
        }
        Ok(())
    }

    async fn describe_scope(&self, scope: QuotaScopeId) -> Result<Option<ScopeQuota>, VolumeError> {
        if !self.tree().await?.scope_exists(scope).await? {
            return Ok(None);
        }
        let quota = self.scale.quota(&self.fileset(scope)).await?;
        Ok(Some(quota.unwrap_or_default()))
    }

    async fn update_scope(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<(), VolumeError> {
        let name = self.fileset(scope);
        Ok(self.scale.set_quota(&name, Some(limit_bytes)).await?)
    }

    async fn unset_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        Ok(self.scale.set_quota(&self.fileset(scope), None).await?)
    }

    async fn delete_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let (name, link) = (self.fileset(scope), self.link(scope));
        let tree = self.tree().await?;
        match self.scale.fileset(&name).await? {
            Some(Linked::At(path)) if path == link => {
                if !tree.scope_is_bare(scope, SNAPSHOTS_DIR).await? {
                    return Err(VolumeError::ScopeNotEmpty(scope));
                }
                self.forget_scope(&name).await?;
                self.scale.unlink(&name).await?;
                // Scale refuses one that is not empty: somebody was faster, and gets it back.
                if let Err(error) = self.scale.delete(&name).await {
                    self.scale.link(&name, &link).await?;
                    return Err(error.into());
                }
                Ok(())
            }
            Some(Linked::Nowhere) => Ok(self.scale.delete(&name).await?),
            // A plain directory, or nothing.
            _ => tree.delete_scope(scope).await,
        }
    }

    async fn forget_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        let Ok(fileset) = self.kept_in(vfid) else {
            return Ok(());
        };
        for (name, _) in self.own(vfid).await? {
            self.scale.delete_snapshot(&fileset, &name).await?;
        }
        Ok(())
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        Ok(self.scale.capacity().await?)
    }

    async fn hwinfo(&self) -> Result<HwInfo, VolumeError> {
        match self.scale.health().await {
            Ok(info) => Ok(info),
            Err(error) => Ok(HwInfo::unavailable(&error)),
        }
    }

    async fn metric(&self) -> Result<Metric, VolumeError> {
        Ok(self.scale.metric().await?)
    }

    async fn snapshots(&self, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
        self.kept_in(vfid)?;
        self.tree().await?.check_folder(vfid).await?;
        let own = self.own(vfid).await?;
        Ok(own.into_iter().map(|(_, snapshot)| snapshot).collect())
    }

    async fn folders_with_snapshots(&self) -> Result<Vec<VFolderId>, VolumeError> {
        if self.independent {
            return self.tree().await?.folders().await;
        }
        Ok(Vec::new())
    }

    async fn create_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        expires: Option<Stamp>,
        _control: Arc<Control>,
    ) -> Result<Snapshot, VolumeError> {
        let fileset = self.kept_in(vfid)?;
        let tree = self.tree().await?;
        tree.check_folder(vfid).await?;
        tree.flush().await?;
        if self
            .own(vfid)
            .await?
            .iter()
            .any(|(_, one)| one.name == name)
        {
            return Err(VolumeError::SnapshotExists(name));
        }
        let vendor = snapshot::noted_name(PREFIX, vfid, Stamp::now(), &name, expires);
        self.scale.create_snapshot(&fileset, &vendor).await?;
        snapshot::noted(PREFIX, vfid, &vendor).ok_or(VolumeError::SnapshotNotFound(name))
    }

    async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        _control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let fileset = self.kept_in(vfid)?;
        let own = self.own(vfid).await?;
        for (vendor, _) in own.iter().filter(|(_, one)| one.name == name) {
            self.scale.delete_snapshot(&fileset, vendor).await?;
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
        let own = self.own(vfid).await?;
        let Some((vendor, _)) = own.into_iter().find(|(_, one)| one.name == name) else {
            return Err(VolumeError::SnapshotNotFound(name));
        };
        let mut shown = vec![SNAPSHOTS_DIR.to_owned(), vendor];
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
        self.tree().await?.restore(job, control).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::snapshot::SECOND_NS;

    #[test]
    fn names_of_snapshots_say_whose_they_are_and_when() {
        let scope = "user:11111111-2222-3333-4444-555555555555";
        let folder = "0123456789abcdef0123456789abcdef";
        let vfid = VFolderId::parse(&format!("{scope}/{folder}")).unwrap();
        let name = SnapshotName::parse("a-1.b").unwrap();
        let at = |seconds: i128| Stamp {
            unix_ns: seconds * SECOND_NS,
        };
        for (ends, text) in [(None, "0"), (Some(at(1_800_000_000)), "1800000000")] {
            let vendor = snapshot::noted_name(PREFIX, vfid, at(1_700_000_000), &name, ends);
            assert_eq!(vendor, format!("proxy-{folder}-1700000000-{text}-a-1.b"));
            let snapshot = snapshot::noted(PREFIX, vfid, &vendor).unwrap();
            assert_eq!((&snapshot.name, snapshot.expires), (&name, ends));
            assert_eq!(snapshot.created, at(1_700_000_000));
        }
        for stranger in [
            "",
            "daily",
            &format!("proxy-{folder}-x-0-a"),
            "proxy-0-1-0-a",
        ] {
            assert!(
                snapshot::noted(PREFIX, vfid, stranger).is_none(),
                "{stranger}"
            );
        }
    }
}
