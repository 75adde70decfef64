//! Weka: a volume is one file system that is mounted at its root, a scope is a directory in it with
//! a directory quota.
//!
//! Files are worked on through the mount; limits, snapshots and numbers come from the REST
//! interface. A limit is soft and hard limit of the quota, which Weka enforces.
//!
//! Laws
//! - Quotas go by inode number, so a scope needs no note: its directory is the key.
//! - Snapshots are of the whole file system; those of a vfolder are told by their access points,
//!   which are made from the vfolder, the time at which they end, and our name.
//! - While the interface cannot be reached, files and folders are worked on as ever.
//!
//! Source: Weka REST v2.

mod api;

use std::sync::Arc;

use async_trait::async_trait;
use proxy_core::id::{QuotaScopeId, TaskId, VFolderId};
use serde_json::Value;

use crate::backend::{Backend, Capacity, Cloned, HwInfo, HwStatus, Metric, Restore};
use crate::capability::{DOT_SNAPSHOTS, Kind};
use crate::control::Control;
use crate::directory_quota::{Found, Held, Lately, Limited, Limiter};
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::restore;
use crate::snapshot::{Snapshot, SnapshotName, Unit};
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::vendor::ledger::Ledger;
use crate::vendor::options::Options;
use crate::vendor::rest::REST_OPTIONS;
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};
use api::Api;

pub(crate) use api::OPTIONS;

/// Shows snapshots, at the root of the file system.
const SNAPSHOTS_DIR: &str = DOT_SNAPSHOTS;
/// Begins the access points of all our snapshots.
const PREFIX: &str = "proxy-";
const SECOND_NS: i128 = 1_000_000_000;

/// See the module.
pub struct Weka {
    vfs: Vfs,
    lately: Lately,
    api: Api,
}

/// A scope's quota: by the inode number that Weka has for its directory.
struct Quotas<'a> {
    api: &'a Api,
    tree: &'a Tree,
}

impl Weka {
    /// A volume whose options were read; nothing is opened or asked yet.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn new(spec: &Spec, limits: &Limits) -> Result<Self, SpecError> {
        let tables = [OPTIONS, REST_OPTIONS];
        let options = Options::of(spec, &tables)?;
        Ok(Self {
            lately: Lately::default(),
            vfs: Vfs::new(&spec.name, spec.path.clone(), limits),
            api: Api::new(spec, &options)?,
        })
    }

    async fn own(&self, vfid: VFolderId) -> Result<Vec<(Kept, Snapshot)>, VolumeError> {
        let all = self.api.snapshots().await?;
        let mut own: Vec<_> = all.iter().filter_map(|one| read(vfid, one)).collect();
        own.sort_by_key(|(_, snapshot)| snapshot.created);
        Ok(own)
    }
}

impl Quotas<'_> {
    async fn inode(&self, scope: QuotaScopeId) -> Result<u64, VolumeError> {
        if let Some(inode) = self.api.inode(&path_of(scope)).await? {
            return Ok(inode);
        }
        let stat = self
            .tree
            .on_volume(move |root| Ok(root.open_scope(Some(&scope))?.metadata()?));
        Ok(stat.await?.ino)
    }
}

/// A scope from the root of the file system.
fn path_of(scope: QuotaScopeId) -> String {
    format!("/{}", scope.dir_name())
}

#[async_trait]
impl Limiter for Quotas<'_> {
    fn note(&self) -> Option<&'static str> {
        None
    }

    async fn find(
        &self,
        scope: QuotaScopeId,
        _: Option<String>,
    ) -> Result<Option<Found>, VolumeError> {
        let inode = self.inode(scope).await?;
        let quota = self.api.quota(inode).await?;
        Ok(quota.and_then(|quota| api::found(&quota, inode)))
    }

    async fn make(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<String, VolumeError> {
        let inode = self.inode(scope).await?;
        self.api
            .set_quota(inode, &path_of(scope), limit_bytes)
            .await?;
        Ok(inode.to_string())
    }

    async fn change(
        &self,
        scope: QuotaScopeId,
        _: &str,
        limit_bytes: u64,
    ) -> Result<(), VolumeError> {
        self.make(scope, limit_bytes).await.map(|_| ())
    }

    async fn remove(&self, scope: QuotaScopeId, _: &str) -> Result<(), VolumeError> {
        let inode = self.inode(scope).await?;
        Ok(self.api.delete_quota(inode).await?)
    }
}

/// How Weka knows a snapshot of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    uid: String,
    access_point: String,
}

/// What tells vfolders of one number in different scopes apart: a few digits of the scope.
fn scope_digits(vfid: VFolderId) -> String {
    let whole = vfid
        .scope
        .map_or_else(|| "0".repeat(8), |scope| scope.dir_name());
    whole[..8].to_owned()
}

/// `proxy-<folder>-<scope's begin>-<seconds at which it ends, or 0>-<our name>`.
fn access_point(vfid: VFolderId, name: &SnapshotName, expires: Option<Stamp>) -> String {
    let seconds = expires.map_or(0, Stamp::seconds_up);
    let (folder, scope) = (vfid.folder.simple(), scope_digits(vfid));
    format!("{PREFIX}{folder}-{scope}-{seconds}-{name}")
}

/// Weka's own name for it, at most 32 characters: the vfolder and our name, mixed.
fn vendor_name(vfid: VFolderId, name: &SnapshotName) -> String {
    let text = format!("{}-{}-{name}", vfid.folder.simple(), scope_digits(vfid));
    // FNV-1a, 128 bits: names only have to differ, nobody attacks them.
    let mixed = text.bytes().fold(
        0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128,
        |mixed, byte| (mixed ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b),
    );
    format!("{PREFIX}{:026x}", mixed >> 24)
}

fn read(vfid: VFolderId, one: &Value) -> Option<(Kept, Snapshot)> {
    let point = one["accessPoint"].as_str()?;
    let begin = format!("{PREFIX}{}-{}-", vfid.folder.simple(), scope_digits(vfid));
    let (seconds, name) = point.strip_prefix(&begin)?.split_once('-')?;
    let seconds: i128 = seconds.parse().ok()?;
    let created: Option<jiff::Timestamp> =
        one["creationTime"].as_str().and_then(|t| t.parse().ok());
    let kept = Kept {
        uid: one["uid"].as_str()?.to_owned(),
        access_point: point.to_owned(),
    };
    let snapshot = Snapshot {
        name: SnapshotName::parse(name)?,
        created: created.map_or_else(Stamp::default, |time| Stamp {
            unix_ns: time.as_nanosecond(),
        }),
        expires: (seconds != 0).then_some(Stamp {
            unix_ns: seconds * SECOND_NS,
        }),
        unit: Unit::Volume,
        used_bytes: None,
    };
    Some((kept, snapshot))
}

/// What Weka's word for its health means to the Manager.
fn health(word: &str) -> HwStatus {
    match word {
        "ok" | "healthy" => HwStatus::Healthy,
        word if word.contains("degraded") || word.contains("partial") => HwStatus::Degraded,
        _ => HwStatus::Unavailable,
    }
}

#[async_trait]
impl Backend for Weka {
    fn kind(&self) -> Kind {
        Kind::Weka
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(self.api.rest.ledger())
    }

    fn limits<'a>(&'a self, tree: &'a Tree) -> Option<Limited<'a>> {
        Some(Limited {
            limiter: Held::Own(Box::new(Quotas {
                api: &self.api,
                tree,
            })),
            lately: &self.lately,
        })
    }

    async fn forget_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        for (kept, _) in self.own(vfid).await? {
            self.api.delete_snapshot(&kept.uid).await?;
        }
        Ok(())
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        let fs = self.api.file_system().await?;
        Ok(Capacity {
            capacity_bytes: fs["total_budget"].as_u64(),
            used_bytes: fs["used_total"].as_u64(),
        })
    }

    async fn hwinfo(&self) -> Result<HwInfo, VolumeError> {
        let asked = async {
            let word = self.api.health().await?;
            Ok((word, self.api.cluster().await?, self.api.quotas().await?))
        };
        let (word, cluster, quotas) = match asked.await {
            Ok(all) => all,
            Err(error) => return Ok(HwInfo::unavailable(&error)),
        };
        let status = health(&word);
        Ok(HwInfo {
            // What is well needs no words, as in the original.
            status_info: (status != HwStatus::Healthy).then_some(word),
            status,
            metadata: vec![
                ("quota".to_owned(), quotas.to_string()),
                ("cluster_info".to_owned(), cluster.to_string()),
            ],
        })
    }

    async fn metric(&self) -> Result<Metric, VolumeError> {
        Ok(self.api.metric().await?)
    }

    async fn snapshots(&self, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
        self.tree().await?.check_folder(vfid).await?;
        let own = self.own(vfid).await?;
        Ok(own.into_iter().map(|(_, snapshot)| snapshot).collect())
    }

    async fn create_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        expires: Option<Stamp>,
        _control: Arc<Control>,
    ) -> Result<Snapshot, VolumeError> {
        let tree = self.tree().await?;
        tree.check_folder(vfid).await?;
        tree.flush().await?;
        let exists = self
            .own(vfid)
            .await?
            .iter()
            .any(|(_, one)| one.name == name);
        let point = access_point(vfid, &name, expires);
        let vendor = vendor_name(vfid, &name);
        if exists || !self.api.create_snapshot(&vendor, &point).await? {
            return Err(VolumeError::SnapshotExists(name));
        }
        let own = self.own(vfid).await?;
        let made = own.into_iter().find(|(_, snapshot)| snapshot.name == name);
        made.map(|(_, snapshot)| snapshot)
            .ok_or(VolumeError::SnapshotNotFound(name))
    }

    async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        _control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        for (kept, _) in self
            .own(vfid)
            .await?
            .iter()
            .filter(|(_, one)| one.name == name)
        {
            self.api.delete_snapshot(&kept.uid).await?;
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
        let Some((kept, _)) = own.into_iter().find(|(_, one)| one.name == name) else {
            return Err(VolumeError::SnapshotNotFound(name));
        };
        let mut shown = vec![SNAPSHOTS_DIR.to_owned(), kept.access_point];
        shown.extend(vfid.components());
        let job = restore::Job {
            vfid,
            places: vec![restore::Place::Volume(shown)],
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
    use serde_json::json;

    #[test]
    fn access_points_carry_the_vfolder_the_end_and_the_name() {
        let scope = "user:11111111-2222-3333-4444-555555555555";
        let folder = "0123456789abcdef0123456789abcdef";
        let vfid = VFolderId::parse(&format!("{scope}/{folder}")).unwrap();
        let other = VFolderId::parse(&format!("{}/{folder}", scope.replace('1', "2"))).unwrap();
        let name = SnapshotName::parse("a-1.b").unwrap();
        let ends = Stamp {
            unix_ns: 1_800_000_000_500_000_000,
        };
        for (expires, text, back) in [
            (None, "0", None),
            (Some(ends), "1800000001", Some(1_800_000_001_000_000_000)),
        ] {
            let point = access_point(vfid, &name, expires);
            assert_eq!(point, format!("proxy-{folder}-11111111-{text}-a-1.b"));
            let one = json!({
                "uid": "u", "accessPoint": point, "creationTime": "2026-01-01T00:00:00Z",
            });
            let (kept, snapshot) = read(vfid, &one).unwrap();
            assert_eq!((kept.uid.as_str(), &snapshot.name), ("u", &name));
            assert_eq!(snapshot.expires.map(|at| at.unix_ns), back);
            assert!(read(other, &one).is_none(), "another scope");
        }
        let vendor = vendor_name(vfid, &name);
        assert_eq!(vendor.len(), 32, "{vendor}");
        assert_ne!(vendor, vendor_name(other, &name));
        assert_ne!(
            vendor,
            vendor_name(vfid, &SnapshotName::parse("a").unwrap())
        );
    }

    #[test]
    fn words_for_health_are_the_managers() {
        for (word, want) in [
            ("ok", HwStatus::Healthy),
            ("degraded", HwStatus::Degraded),
            ("partially protected", HwStatus::Degraded),
            ("down", HwStatus::Unavailable),
            ("", HwStatus::Unavailable),
        ] {
            assert_eq!(health(word), want, "{word}");
        }
    }
}
