//! Pure Storage FlashBlade: a volume is a file system of the array that is mounted.
//!
//! The array has no quotas of directories: scopes are plain directories, as in `vfs`. Capacity,
//! performance, health and snapshots come from its REST interface; with its RapidFile Toolkit
//! trees are measured faster, and with `.fast-remove` the array removes them itself.
//!
//! Laws
//! - Nothing but what is asked of the array depends on the array: the mount is used without it.
//! - Snapshots are of the whole file system; their suffixes say whose they are (`suffix`), and a
//!   vfolder gets its own part back by copying.
//!
//! Source: FlashBlade REST 1.x and 2.x; RapidFile Toolkit 1 and 2.

mod flashblade;
mod rapidfile;
mod suffix;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_anchor::{Dir, VolumeRoot};
use proxy_core::id::{TaskId, VFolderId};
use serde_json::Value;

use crate::backend::{Backend, Capacity, Cloned, HwInfo, HwStatus, Metric, Restore, Usage};
use crate::capability::{DOT_SNAPSHOT, Kind};
use crate::control::Control;
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::snapshot::{Snapshot, SnapshotName, Unit};
use crate::stamp::Stamp;
use crate::vendor::ledger::Ledger;
use crate::vendor::options::Options;
use crate::vendor::rest::REST_OPTIONS;
use crate::vendor::{Cause, VendorError};
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};
use crate::{folder, restore};
use flashblade::{FAST_REMOVE, FlashBlade, TOOLKIT, TOOLKIT_DIR};
use rapidfile::RapidFile;

pub(crate) use flashblade::OPTIONS;

/// The directory that shows snapshots, at the mount point.
const SNAPSHOT_DIR: &str = DOT_SNAPSHOT;
/// The directory whose entries the array removes.
const FAST_REMOVE_DIR: &str = ".fast-remove";
const TOO_LONG: &str = "this storage system takes no name as long as this one";

/// See the module.
pub struct PureStorage {
    vfs: Vfs,
    array: FlashBlade,
    fast_remove: bool,
    toolkit: Option<Arc<RapidFile>>,
    scan_time_max: Duration,
}

impl PureStorage {
    /// A volume whose options were read; nothing is opened or asked yet.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn new(spec: &Spec, path: PathBuf, limits: &Limits) -> Result<Self, SpecError> {
        let tables = [OPTIONS, REST_OPTIONS];
        let options = Options::of(spec, &tables)?;
        Ok(Self {
            vfs: Vfs::new(&spec.name, path, limits),
            array: FlashBlade::new(spec, &options)?,
            fast_remove: options.flag(FAST_REMOVE),
            toolkit: options
                .flag(TOOLKIT)
                .then(|| Arc::new(RapidFile::new(options.path(TOOLKIT_DIR)))),
            scan_time_max: limits.scan_time_max,
        })
    }

    /// What the toolkit says of a vfolder; `None` where it is not there, or failed.
    async fn counted(&self, vfid: VFolderId) -> Result<Option<(u64, u64)>, VolumeError> {
        let Some(toolkit) = self.toolkit.clone() else {
            return Ok(None);
        };
        let bound = self.scan_time_max;
        let tree = self.tree().await?;
        tree.in_folder(vfid, move |folder| {
            if toolkit.version().is_none() {
                return Ok(None);
            }
            let counted = toolkit.usage(folder.host_path(), bound, &Control::default());
            if let Err(why) = &counted {
                tracing::warn!(%vfid, why, "pdu failed, usage is counted in the usual way");
            }
            Ok(counted.ok())
        })
        .await
    }

    /// The vfolder's snapshots, with their suffixes.
    async fn owned(&self, vfid: VFolderId) -> Result<Vec<(String, Snapshot)>, VolumeError> {
        let all = self.array.snapshots().await?;
        let ours = all.iter().filter_map(|record| snapshot_of(vfid, record));
        let mut ours: Vec<_> = ours.collect();
        ours.sort_by_key(|(_, snapshot)| snapshot.created);
        Ok(ours)
    }

    async fn find(
        &self,
        vfid: VFolderId,
        name: &SnapshotName,
    ) -> Result<Option<String>, VolumeError> {
        let owned = self.owned(vfid).await?;
        let found = owned.into_iter().find(|(_, one)| one.name == *name);
        Ok(found.map(|(suffix, _)| suffix))
    }

    /// Without its directory nobody could see what is in a snapshot.
    async fn check_visible(&self) -> Result<Value, VendorError> {
        let operation = "look at file system";
        let file_system = self.array.file_system(operation).await?;
        if file_system["snapshot_directory_enabled"] == Value::Bool(false) {
            let text = "snapshot_directory_enabled is off for the file system";
            return Err(self.array.rest.error(operation, Cause::Refused, text));
        }
        Ok(file_system)
    }

    async fn ask_health(&self) -> Result<HwInfo, VendorError> {
        let array = self.array.array().await?;
        let blades = self.array.blades().await?;
        let bad = |blade: &&Value| {
            let status = blade["status"].as_str().unwrap_or_default();
            matches!(status, "critical" | "unhealthy" | "unrecognized")
        };
        let bad = blades.iter().filter(bad).count();
        let keys = ["id", "name", "os", "revision", "version"];
        let facts = keys.iter().filter_map(|key| {
            let value = array[*key].as_str()?;
            Some(((*key).to_owned(), value.to_owned()))
        });
        let mut metadata: Vec<_> = facts.collect();
        metadata.push(("blade_count".to_owned(), blades.len().to_string()));
        metadata.push(("console_url".to_owned(), self.array.endpoint.clone()));
        Ok(HwInfo {
            status: if bad > 0 {
                HwStatus::Degraded
            } else {
                HwStatus::Healthy
            },
            status_info: (bad > 0)
                .then(|| format!("{bad} of {} blades are not well", blades.len())),
            metadata,
        })
    }
}

fn snapshot_of(vfid: VFolderId, record: &Value) -> Option<(String, Snapshot)> {
    let text = record["suffix"].as_str()?;
    let (name, expires) = suffix::read(vfid, text)?;
    let created_ms = record["created"].as_i64().unwrap_or_default();
    let snapshot = Snapshot {
        name,
        created: stamp(created_ms),
        expires,
        unit: Unit::Volume,
        used_bytes: record.pointer("/space/unique").and_then(Value::as_u64),
    };
    Some((text.to_owned(), snapshot))
}

fn stamp(unix_ms: i64) -> Stamp {
    Stamp {
        unix_ns: i128::from(unix_ms) * 1_000_000,
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(0.0)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: &Value, key: &str) -> u64 {
    number(value, key).round() as u64
}

#[async_trait]
impl Backend for PureStorage {
    fn kind(&self) -> Kind {
        Kind::PureStorage
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(self.array.rest.ledger())
    }

    async fn delete_folder(
        &self,
        vfid: VFolderId,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let tree = self.tree().await?;
        let (fast, toolkit) = (self.fast_remove, self.toolkit.clone());
        let work = move |root: &VolumeRoot, limits: &Limits, control: &Control| {
            let toolkit = toolkit.filter(|toolkit| toolkit.version().is_some());
            match toolkit {
                _ if fast => folder::delete_into(root, vfid, FAST_REMOVE_DIR, limits, control),
                None => folder::delete(root, vfid, limits, control),
                Some(toolkit) => {
                    let scope = vfid.scope.map(|scope| scope.dir_name()).unwrap_or_default();
                    let remove = |_: &Dir, name: &OsStr| {
                        toolkit.remove(&root.path().join(&scope).join(name), control)
                    };
                    folder::delete_by(root, vfid, &remove, limits, control)
                }
            }
        };
        tree.long(control, work).await
    }

    async fn forget_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        for (text, _) in self.owned(vfid).await? {
            self.array.delete_snapshot(&text).await?;
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

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        let file_system = self.array.file_system("read file system space").await?;
        let bytes = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_u64);
        let used_bytes = bytes(&file_system, "/space/total_physical");
        let provisioned = bytes(&file_system, "/provisioned").filter(|bytes| *bytes > 0);
        if provisioned.is_some() {
            return Ok(Capacity {
                capacity_bytes: provisioned,
                used_bytes,
            });
        }
        let array = self.array.array_space().await?;
        Ok(Capacity {
            capacity_bytes: bytes(&array, "/capacity"),
            used_bytes: bytes(&array, "/space/total_physical").or(used_bytes),
        })
    }

    async fn hwinfo(&self) -> Result<HwInfo, VolumeError> {
        let asked = self.ask_health().await;
        Ok(asked.unwrap_or_else(|error| HwInfo::unavailable(&error)))
    }

    async fn metric(&self) -> Result<Metric, VolumeError> {
        let item = self.array.performance().await?;
        Ok(Metric {
            iops_read: whole(&item, "reads_per_sec"),
            iops_write: whole(&item, "writes_per_sec"),
            io_bytes_read: whole(&item, "read_bytes_per_sec"),
            io_bytes_write: whole(&item, "write_bytes_per_sec"),
            io_usec_read: number(&item, "usec_per_read_op"),
            io_usec_write: number(&item, "usec_per_write_op"),
            observed_at: item["time"].as_i64().map_or_else(Stamp::now, stamp),
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
        let Some(text) = suffix::make(vfid, &name, expires) else {
            return Err(VolumeError::Refused(TOO_LONG));
        };
        self.check_visible().await?;
        // With another end it would have another suffix, so the array cannot tell by itself.
        if self.find(vfid, &name).await?.is_some() {
            return Err(VolumeError::SnapshotExists(name));
        }
        let Some(record) = self.array.create_snapshot(&text).await? else {
            return Err(VolumeError::SnapshotExists(name));
        };
        match snapshot_of(vfid, &record) {
            Some((_, snapshot)) => Ok(snapshot),
            None => Err(VolumeError::Internal("a snapshot whose name is not ours")),
        }
    }

    async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        _control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        if let Some(text) = self.find(vfid, &name).await? {
            self.array.delete_snapshot(&text).await?;
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
        let Some(text) = self.find(vfid, &name).await? else {
            return Err(VolumeError::SnapshotNotFound(name));
        };
        self.check_visible().await?;
        let mut shown = vec![SNAPSHOT_DIR.to_owned(), text];
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
