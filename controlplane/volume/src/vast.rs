//! VAST Data: a volume is a directory of the element store that is mounted, a scope is a directory
//! in it with a quota object.
//!
//! Files are worked on through the mount; limits, snapshots and numbers come from the management
//! service. A limit is soft and hard limit of the object, which VAST enforces.
//!
//! Laws
//! - The file `.vast-quota-id` in a scope is a hint; the quota's path counts.
//! - While the service cannot be reached, files and folders are worked on as ever.
//!
//! Source: OpenAPI of VMS 5.3.

mod vms;

use std::sync::Arc;

use async_trait::async_trait;
use proxy_core::id::{TaskId, VFolderId};
use serde_json::Value;

use crate::backend::{Backend, Capacity, Cloned, HwInfo, HwStatus, Metric, Restore};
use crate::capability::Kind;
use crate::control::Control;
use crate::directory_quota::{Held, Lately, Limited};
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::snapshot::{Snapshot, SnapshotName, Unit};
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::vendor::ledger::Ledger;
use crate::vendor::options::Options;
use crate::vendor::rest::REST_OPTIONS;
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};
use crate::{dot_snapshot, restore};
use vms::Vms;

pub(crate) use vms::OPTIONS;

/// What is told of a cluster, of all that it says.
const FACTS: &[&str] = &[
    "id",
    "guid",
    "ip",
    "mgmt_vip",
    "name",
    "state",
    "physical_space",
    "physical_space_in_use",
    "usable_capacity_bytes",
    "iops",
    "rd_iops",
    "wr_iops",
    "bw",
    "rd_bw",
    "wr_bw",
    "latency",
    "rd_latency",
    "wr_latency",
    "max_file_size",
    "max_performance",
];

/// See the module.
pub struct Vast {
    vfs: Vfs,
    lately: Lately,
    vms: Vms,
}

impl Vast {
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
            vms: Vms::new(spec, &options)?,
        })
    }

    async fn own(&self, vfid: VFolderId) -> Result<Vec<(Value, Snapshot)>, VolumeError> {
        let path = self.vms.stored(&dot_snapshot::kept(vfid));
        let prefix = dot_snapshot::prefix(vfid);
        let all = self.vms.snapshots_named(&prefix, &path).await?;
        let own = all.into_iter().filter_map(|one| {
            let snapshot = read(vfid, &one)?;
            Some((one["id"].clone(), snapshot))
        });
        let mut own: Vec<_> = own.collect();
        own.sort_by_key(|(_, snapshot)| snapshot.created);
        Ok(own)
    }
}

fn read(vfid: VFolderId, one: &Value) -> Option<Snapshot> {
    let time = |key: &str| {
        let time: jiff::Timestamp = one[key].as_str()?.parse().ok()?;
        let unix_ns = time.as_nanosecond();
        Some(Stamp { unix_ns })
    };
    Some(Snapshot {
        name: dot_snapshot::own_name(vfid, one["name"].as_str()?)?,
        created: time("created").unwrap_or_default(),
        expires: time("expiration_time"),
        unit: Unit::VFolder,
        used_bytes: one["unique_phys_estimation"].as_u64(),
    })
}

/// What a cluster's state means to the Manager.
fn health(state: &str) -> HwStatus {
    match state.to_lowercase().as_str() {
        "online" | "healthy" => HwStatus::Healthy,
        "init" | "activating" | "deactivating" => HwStatus::Degraded,
        _ => HwStatus::Unavailable,
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn metric_of(cluster: &Value) -> Metric {
    let whole = |key: &str| cluster[key].as_f64().unwrap_or(0.0).max(0.0).round() as u64;
    let usec = |key: &str| {
        let ms = cluster[&format!("{key}_ms")].as_f64().map(|ms| ms * 1000.0);
        cluster[key].as_f64().or(ms).unwrap_or(0.0)
    };
    Metric {
        iops_read: whole("rd_iops"),
        iops_write: whole("wr_iops"),
        io_bytes_read: whole("rd_bw"),
        io_bytes_write: whole("wr_bw"),
        io_usec_read: usec("rd_latency"),
        io_usec_write: usec("wr_latency"),
        observed_at: Stamp::now(),
    }
}

#[async_trait]
impl Backend for Vast {
    fn kind(&self) -> Kind {
        Kind::Vast
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(self.vms.rest.ledger())
    }

    fn limits<'a>(&'a self, _tree: &'a Tree) -> Option<Limited<'a>> {
        Some(Limited {
            limiter: Held::Lent(&self.vms),
            lately: &self.lately,
        })
    }

    async fn forget_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        for (id, _) in self.own(vfid).await? {
            self.vms.delete_snapshot(&id).await?;
        }
        Ok(())
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        let cluster = self.vms.cluster().await?;
        Ok(Capacity {
            capacity_bytes: cluster["physical_space"].as_u64(),
            used_bytes: cluster["physical_space_in_use"].as_u64(),
        })
    }

    async fn hwinfo(&self) -> Result<HwInfo, VolumeError> {
        let asked = async { Ok((self.vms.cluster().await?, self.vms.quotas().await?)) };
        let (cluster, quotas) = match asked.await {
            Ok(both) => both,
            Err(error) => return Ok(HwInfo::unavailable(&error)),
        };
        let state = cluster["state"].as_str().unwrap_or("UNKNOWN");
        let facts = FACTS.iter().filter_map(|key| {
            let value = cluster.get(*key)?;
            Some(((*key).to_owned(), value.clone()))
        });
        let facts = Value::Object(facts.collect());
        Ok(HwInfo {
            status: health(state),
            status_info: Some(state.to_owned()),
            metadata: vec![
                ("quota".to_owned(), Value::Array(quotas).to_string()),
                ("cluster_info".to_owned(), facts.to_string()),
            ],
        })
    }

    async fn metric(&self) -> Result<Metric, VolumeError> {
        Ok(metric_of(&self.vms.cluster_now().await?))
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
        let vendor = dot_snapshot::vendor_name(vfid, &name);
        let path = self.vms.stored(&dot_snapshot::kept(vfid));
        if !self.vms.create_snapshot(&vendor, &path, expires).await? {
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
        for (id, _) in self
            .own(vfid)
            .await?
            .iter()
            .filter(|(_, one)| one.name == name)
        {
            self.vms.delete_snapshot(id).await?;
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
        if !self
            .own(vfid)
            .await?
            .iter()
            .any(|(_, one)| one.name == name)
        {
            return Err(VolumeError::SnapshotNotFound(name));
        }
        let job = restore::Job {
            vfid,
            places: dot_snapshot::places(vfid, &name),
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
    use super::*;
    use serde_json::json;

    #[test]
    fn states_of_clusters_are_the_managers_words() {
        for (state, want) in [
            ("ONLINE", HwStatus::Healthy),
            ("healthy", HwStatus::Healthy),
            ("INIT", HwStatus::Degraded),
            ("ACTIVATING", HwStatus::Degraded),
            ("DEACTIVATING", HwStatus::Degraded),
            ("OFFLINE", HwStatus::Unavailable),
            ("FAILED", HwStatus::Unavailable),
            ("UNKNOWN", HwStatus::Unavailable),
            ("", HwStatus::Unavailable),
        ] {
            assert_eq!(health(state), want, "{state}");
        }
    }

    #[test]
    fn fractions_are_rounded_and_milliseconds_converted() {
        let metric = metric_of(&json!({
            "rd_iops": 10.6, "wr_iops": -1, "rd_bw": 5.4e9, "wr_bw": 7,
            "rd_latency": 120.5, "wr_latency_ms": 0.25,
        }));
        assert_eq!((metric.iops_read, metric.iops_write), (11, 0));
        assert_eq!(
            (metric.io_bytes_read, metric.io_bytes_write),
            (5_400_000_000, 7)
        );
        assert_eq!((metric.io_usec_read, metric.io_usec_write), (120.5, 250.0));
    }
}
