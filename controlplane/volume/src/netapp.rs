//! NetApp ONTAP: a volume is a FlexVol or FlexGroup that is mounted, a scope is a qtree of it.
//!
//! Files are worked on through the mount; qtrees, limits and snapshots through ONTAP's REST
//! interface. A limit is a tree quota rule, which ONTAP enforces.
//!
//! Laws
//! - A scope is made in an order that a second try can go on from: qtree, rule, quotas on.
//! - Snapshots are of the whole volume; only those with our prefix are seen or touched, and a
//!   vfolder gets its own part back by copying.
//! - ONTAP's `expiry_time` keeps a snapshot from being removed before that time, and does not
//!   remove it then: when one ends is therefore in its comment.
//!
//! Source: ONTAP 9 REST; XCP.

mod ontap;
mod xcp;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_anchor::{Dir, VolumeRoot};
use proxy_core::id::{QuotaScopeId, TaskId, VFolderId};
use serde_json::Value;

use crate::backend::{
    Backend, Capacity, Cloned, HwInfo, HwStatus, Metric, Restore, ScopeQuota, Usage, UsedBytes,
};
use crate::capability::{DOT_SNAPSHOT, Kind};
use crate::control::Control;
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::snapshot::{Snapshot, SnapshotName, Unit};
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::vendor::ledger::Ledger;
use crate::vendor::options::Options;
use crate::vendor::pace::Pace;
use crate::vendor::rest::REST_OPTIONS;
use crate::vendor::{READ_PERFORMANCE, VendorError};
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};
use crate::{folder, restore};
use ontap::{NFS_HOST, NFS_WAIT, Ontap, XCP};
use xcp::Xcp;

pub(crate) use ontap::OPTIONS;

/// Begins the names of our snapshots.
const PREFIX: &str = "proxy-";
/// The directory that shows snapshots, in every directory.
const SNAPSHOT_DIR: &str = DOT_SNAPSHOT;
/// Before the time in a snapshot's comment at which it ends.
const EXPIRES: &str = "expires=";

/// See the module.
pub struct NetApp {
    vfs: Vfs,
    ontap: Ontap,
    nfs_wait: Duration,
    xcp: Option<Arc<Xcp>>,
    scan_time_max: Duration,
}

impl NetApp {
    /// A volume whose options were read; nothing is opened or asked yet.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn new(spec: &Spec, path: PathBuf, limits: &Limits) -> Result<Self, SpecError> {
        let tables = [OPTIONS, REST_OPTIONS];
        let options = Options::of(spec, &tables)?;
        Ok(Self {
            vfs: Vfs::new(&spec.name, path, limits),
            ontap: Ontap::new(spec, &options)?,
            nfs_wait: options.seconds(NFS_WAIT)?,
            xcp: xcp_of(&options)?,
            scan_time_max: limits.scan_time_max,
        })
    }

    /// Waits until the mount shows a new qtree. Listing the directory above is what makes an NFS
    /// client forget that it was missing.
    async fn wait_for(&self, tree: &Tree, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(50), ms(1000), self.nfs_wait);
        while !tree.scope_listed(scope).await? {
            if !pace.next().await {
                let seconds = self.nfs_wait.as_secs_f64();
                let cause = format!("its directory is not seen on the mount after {seconds} s");
                return Err(VolumeError::ScopeCreationFailed { scope, cause });
            }
        }
        Ok(())
    }

    /// Whether a scope that is there may be the work of a try that was interrupted: it has no
    /// folders and no limit yet.
    async fn is_half_made(&self, tree: &Tree, scope: QuotaScopeId) -> Result<bool, VolumeError> {
        let name = scope.dir_name();
        Ok(tree.scope_is_empty(scope).await?
            && self.ontap.has_qtree(&name).await?
            && self.ontap.rule(&name).await?.is_none())
    }

    async fn quota_of(&self, qtree: &str) -> Result<ScopeQuota, VendorError> {
        if let Some((used_bytes, limit_bytes)) = self.ontap.report(qtree).await? {
            return Ok(ScopeQuota {
                used_bytes,
                limit_bytes,
            });
        }
        // Without a rule, or while quotas are being switched on.
        let rule = self.ontap.rule(qtree).await?;
        Ok(ScopeQuota {
            used_bytes: None,
            limit_bytes: rule.and_then(|rule| rule.limit_bytes),
        })
    }

    /// What XCP says of a vfolder; `None` where it is not used, or failed.
    async fn counted(&self, vfid: VFolderId) -> Result<Option<(u64, u64)>, VolumeError> {
        let tree = self.tree().await?;
        tree.check_folder(vfid).await?;
        let Some(xcp) = self.xcp.clone() else {
            return Ok(None);
        };
        let path = match self.ontap.place().await {
            Ok(place) => xcp.path(&place.nas_path, &vfid.components().join("/")),
            Err(_) => return Ok(None),
        };
        let bound = self.scan_time_max;
        tree.on_volume(move |_| {
            if !xcp.is_licensed() {
                return Ok(None);
            }
            let counted = xcp.usage(&path, bound, &Control::default());
            if let Err(why) = &counted {
                tracing::warn!(%vfid, why, "XCP failed, usage is counted in the usual way");
            }
            Ok(counted.ok())
        })
        .await
    }

    async fn owned(&self, vfid: VFolderId) -> Result<Vec<(Value, Snapshot)>, VolumeError> {
        let prefix = prefix_of(vfid);
        let records = self.ontap.snapshots(&format!("{prefix}*")).await?;
        let ours = records.into_iter().filter_map(|record| {
            let name = record["name"].as_str()?.strip_prefix(&prefix)?;
            let snapshot = snapshot_of(&record, SnapshotName::parse(name)?);
            Some((record, snapshot))
        });
        let mut ours: Vec<_> = ours.collect();
        ours.sort_by_key(|(_, snapshot)| snapshot.created);
        Ok(ours)
    }
}

/// XCP, where it is configured.
fn xcp_of(options: &Options<'_>) -> Result<Option<Arc<Xcp>>, SpecError> {
    let words = options.texts(XCP);
    if words.is_empty() {
        return Ok(None);
    }
    match options.text(NFS_HOST) {
        Some(host) => Ok(Some(Arc::new(Xcp::new(words, host)))),
        None => Err(options.fault(NFS_HOST, format!("is missing, and {XCP} needs it"))),
    }
}

/// Begins the names of a vfolder's snapshots.
fn prefix_of(vfid: VFolderId) -> String {
    format!("{PREFIX}{}-", vfid.folder.simple())
}

fn snapshot_of(record: &Value, name: SnapshotName) -> Snapshot {
    let comment = record["comment"].as_str().unwrap_or_default();
    let expires = comment.split_whitespace().find_map(|word| {
        let seconds: i128 = word.strip_prefix(EXPIRES)?.parse().ok()?;
        Some(Stamp {
            unix_ns: seconds * 1_000_000_000,
        })
    });
    Snapshot {
        name,
        created: stamp(&record["create_time"]).unwrap_or_default(),
        expires,
        unit: Unit::Volume,
        used_bytes: record["size"].as_u64(),
    }
}

/// A time as ONTAP writes it.
fn stamp(value: &Value) -> Option<Stamp> {
    let time: jiff::Timestamp = value.as_str()?.parse().ok()?;
    Some(Stamp {
        unix_ns: time.as_nanosecond(),
    })
}

fn number(value: &Value, pointer: &str) -> f64 {
    value
        .pointer(pointer)
        .and_then(Value::as_f64)
        .unwrap_or(0.0)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: &Value, pointer: &str) -> u64 {
    number(value, pointer).round() as u64
}

#[async_trait]
impl Backend for NetApp {
    fn kind(&self) -> Kind {
        Kind::NetApp
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(self.ontap.rest.ledger())
    }

    async fn create_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        let name = scope.dir_name();
        if tree.scope_exists(scope).await? {
            let goes_on = limit_bytes.is_some() && self.is_half_made(&tree, scope).await?;
            if !goes_on {
                return Err(VolumeError::ScopeExists(scope));
            }
        } else {
            let owner = (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            );
            // One that is there, and not yet seen here, was made by an earlier try.
            self.ontap.create_qtree(&name, owner).await?;
            self.wait_for(&tree, scope).await?;
        }
        if limit_bytes.is_some() {
            self.ontap.set_limit(&name, limit_bytes).await?;
        }
        Ok(())
    }

    async fn describe_scope(&self, scope: QuotaScopeId) -> Result<Option<ScopeQuota>, VolumeError> {
        if !self.tree().await?.scope_exists(scope).await? {
            return Ok(None);
        }
        let name = scope.dir_name();
        let quota = self.quota_of(&name).await?;
        if quota == ScopeQuota::default() && !self.ontap.is_in_place().await? {
            return Ok(Some(self.quota_of(&name).await?));
        }
        Ok(Some(quota))
    }

    async fn update_scope(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<(), VolumeError> {
        let name = scope.dir_name();
        Ok(self.ontap.set_limit(&name, Some(limit_bytes)).await?)
    }

    async fn unset_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        Ok(self.ontap.set_limit(&scope.dir_name(), None).await?)
    }

    async fn delete_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let name = scope.dir_name();
        // The directory first: it is the one that refuses, and with it the qtree goes.
        self.tree().await?.delete_scope(scope).await?;
        self.ontap.delete_rule(&name).await?;
        Ok(self.ontap.delete_qtree(&name).await?)
    }

    async fn delete_folder(
        &self,
        vfid: VFolderId,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        let place = match &self.xcp {
            Some(xcp) => self.ontap.place().await.ok().zip(Some(Arc::clone(xcp))),
            None => None,
        };
        let Some((place, xcp)) = place else {
            return tree.delete_folder(vfid, control).await;
        };
        let work = move |root: &VolumeRoot, limits: &Limits, control: &Control| {
            if !xcp.is_licensed() {
                return folder::delete(root, vfid, limits, control);
            }
            let scope = vfid.scope.map(|scope| scope.dir_name() + "/");
            let scope = scope.unwrap_or_default();
            let remove = |_: &Dir, name: &OsStr| {
                let below = format!("{scope}{}", name.to_string_lossy());
                xcp.remove(&xcp.path(&place.nas_path, &below), control)
            };
            folder::delete_by(root, vfid, &remove, limits, control)
        };
        tree.long(control, work).await
    }

    async fn forget_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        for (record, _) in self.owned(vfid).await? {
            if let Some(uuid) = record["uuid"].as_str() {
                self.ontap.delete_snapshot(uuid).await?;
            }
        }
        Ok(())
    }

    async fn usage(&self, vfid: VFolderId) -> Result<Usage, VolumeError> {
        match self.counted(vfid).await? {
            Some((file_count, used_bytes)) => Ok(Usage {
                file_count,
                used_bytes,
                complete: true,
            }),
            None => self.tree().await?.usage(vfid).await,
        }
    }

    async fn used_bytes(&self, vfid: VFolderId) -> Result<UsedBytes, VolumeError> {
        match self.counted(vfid).await? {
            Some((_, used_bytes)) => Ok(UsedBytes {
                used_bytes,
                complete: true,
            }),
            None => self.tree().await?.used_bytes(vfid).await,
        }
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        let volume = self
            .ontap
            .volume("read volume space", "space.size,space.used")
            .await?;
        let bytes = |pointer: &str| volume.pointer(pointer).and_then(Value::as_u64);
        Ok(Capacity {
            capacity_bytes: bytes("/space/size"),
            used_bytes: bytes("/space/used"),
        })
    }

    async fn hwinfo(&self) -> Result<HwInfo, VolumeError> {
        let volume = match self
            .ontap
            .volume("read volume state", "state,quota,files")
            .await
        {
            Ok(volume) => volume,
            Err(error) => return Ok(HwInfo::unavailable(&error)),
        };
        let state = volume["state"].as_str().unwrap_or("unknown");
        let online = state == "online";
        let fact = |key: &str| (key.to_owned(), volume[key].to_string());
        Ok(HwInfo {
            status: if online {
                HwStatus::Healthy
            } else {
                HwStatus::Degraded
            },
            status_info: (!online).then(|| format!("the volume is {state}")),
            metadata: vec![fact("quota"), fact("files")],
        })
    }

    async fn metric(&self) -> Result<Metric, VolumeError> {
        // Averages of the last seconds; `statistics` has counters since the start.
        let volume = self.ontap.volume(READ_PERFORMANCE, "metric").await?;
        let metric = &volume["metric"];
        Ok(Metric {
            iops_read: whole(metric, "/iops/read"),
            iops_write: whole(metric, "/iops/write"),
            io_bytes_read: whole(metric, "/throughput/read"),
            io_bytes_write: whole(metric, "/throughput/write"),
            io_usec_read: number(metric, "/latency/read"),
            io_usec_write: number(metric, "/latency/write"),
            observed_at: stamp(&metric["timestamp"]).unwrap_or_else(Stamp::now),
        })
    }

    async fn snapshots(&self, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
        self.tree().await?.check_folder(vfid).await?;
        let owned = self.owned(vfid).await?;
        Ok(owned.into_iter().map(|(_, snapshot)| snapshot).collect())
    }

    async fn create_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        expires: Option<Stamp>,
        _control: Arc<Control>,
    ) -> Result<Snapshot, VolumeError> {
        self.tree().await?.check_folder(vfid).await?;
        let vendor_name = format!("{}{name}", prefix_of(vfid));
        let comment = match expires {
            Some(at) => format!("storage-proxy {EXPIRES}{}", at.unix_ns / 1_000_000_000),
            None => "storage-proxy".to_owned(),
        };
        if !self.ontap.create_snapshot(&vendor_name, &comment).await? {
            return Err(VolumeError::SnapshotExists(name));
        }
        let found = self.ontap.snapshots(&vendor_name).await?;
        match found.first() {
            Some(record) => Ok(snapshot_of(record, name)),
            None => Err(VolumeError::SnapshotNotFound(name)),
        }
    }

    async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        _control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let vendor_name = format!("{}{name}", prefix_of(vfid));
        for record in self.ontap.snapshots(&vendor_name).await? {
            if let Some(uuid) = record["uuid"].as_str() {
                self.ontap.delete_snapshot(uuid).await?;
            }
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
        let vendor_name = format!("{}{name}", prefix_of(vfid));
        if self.ontap.snapshots(&vendor_name).await?.is_empty() {
            return Err(VolumeError::SnapshotNotFound(name));
        }
        let mut shown = vec![SNAPSHOT_DIR.to_owned(), vendor_name];
        shown.extend(vfid.components());
        let job = restore::Job {
            vfid,
            name,
            places: vec![restore::Place::Volume(shown)],
            to,
            task,
            free_bytes: self.free_bytes().await?,
        };
        self.tree().await?.restore(job, control).await
    }
}
