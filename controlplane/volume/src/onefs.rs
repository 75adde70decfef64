//! Dell PowerScale (Isilon): a volume is a directory below `/ifs` that is mounted, a scope is a
//! directory in it with a SmartQuotas directory quota.
//!
//! Files are worked on through the mount; limits, snapshots and numbers come from the platform
//! API. A limit is a hard threshold on the logical size, which OneFS enforces.
//!
//! Laws
//! - The file `.quota_id` in a scope is a hint; the quota's path counts.
//! - While the API cannot be reached, files and folders are worked on as ever.
//!
//! Source: OneFS platform API.

mod platform;

use std::sync::Arc;

use async_trait::async_trait;
use proxy_core::id::{TaskId, VFolderId};
use serde_json::{Value, json};

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
use platform::{Hardware, Platform};

pub(crate) use platform::OPTIONS;

/// See the module.
pub struct OneFs {
    vfs: Vfs,
    lately: Lately,
    platform: Platform,
}

impl OneFs {
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
            platform: Platform::new(spec, &options)?,
        })
    }

    async fn own(&self, vfid: VFolderId) -> Result<Vec<(String, Snapshot)>, VolumeError> {
        let path = self.platform.ifs(&dot_snapshot::kept(vfid));
        let all = self.platform.snapshots().await?;
        let mut own: Vec<_> = all
            .iter()
            .filter_map(|one| read(vfid, &path, one))
            .collect();
        own.sort_by_key(|(_, snapshot)| snapshot.created);
        Ok(own)
    }
}

/// A snapshot of this vfolder, and what the cluster calls it.
fn read(vfid: VFolderId, path: &str, one: &Value) -> Option<(String, Snapshot)> {
    let vendor = one["name"].as_str()?;
    if one["path"].as_str()?.trim_end_matches('/') != path || one["state"] == "deleting" {
        return None;
    }
    let second = |key: &str| {
        let seconds = one[key].as_i64().filter(|seconds| *seconds > 0)?;
        let unix_ns = i128::from(seconds) * 1_000_000_000;
        Some(Stamp { unix_ns })
    };
    let snapshot = Snapshot {
        name: dot_snapshot::own_name(vfid, vendor)?,
        created: second("created").unwrap_or_default(),
        expires: second("expires"),
        unit: Unit::VFolder,
        used_bytes: one["size"].as_u64(),
    };
    Some((vendor.to_owned(), snapshot))
}

fn health(hardware: &Hardware) -> (HwStatus, Option<String>) {
    let config = &hardware.config;
    if config["has_quorum"] == false {
        return (
            HwStatus::Degraded,
            Some("the cluster has no quorum".to_owned()),
        );
    }
    let devices = config["devices"].as_array();
    let down = devices
        .into_iter()
        .flatten()
        .find(|device| device["is_up"] == false);
    match down {
        Some(device) => {
            let text = format!("node {} is down", device["lnn"]);
            (HwStatus::Degraded, Some(text))
        }
        None => (HwStatus::Healthy, None),
    }
}

fn facts(hardware: &Hardware) -> Vec<(String, String)> {
    let config = &hardware.config;
    let cluster = json!([{
        "config": {
            "name": config["name"],
            "release": config["onefs_version"]["release"],
            "build": config["onefs_version"]["build"],
            "local_lnn": config["local_lnn"],
        },
        "interface": hardware.interfaces,
    }]);
    let nodes = hardware.nodes.iter().map(|(hardware, status)| {
        let hardware = &hardware["nodes"][0];
        json!({
            "hardware": {
                "id": hardware["id"],
                "model": hardware["product"],
                "configuration": hardware["configuration_id"],
                "serial_number": hardware["serial_number"],
            },
            "status": {"batteries": status["nodes"][0]["batteries"]},
        })
    });
    let nodes = Value::Array(nodes.collect());
    vec![
        ("cluster".to_owned(), cluster.to_string()),
        ("nodes".to_owned(), nodes.to_string()),
    ]
}

#[async_trait]
impl Backend for OneFs {
    fn kind(&self) -> Kind {
        Kind::OneFs
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(self.platform.rest.ledger())
    }

    fn limits<'a>(&'a self, _tree: &'a Tree) -> Option<Limited<'a>> {
        Some(Limited {
            limiter: Held::Lent(&self.platform),
            lately: &self.lately,
        })
    }

    async fn forget_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        for (vendor, _) in self.own(vfid).await? {
            self.platform.delete_snapshot(&vendor).await?;
        }
        Ok(())
    }

    async fn fs_usage(&self) -> Result<Capacity, VolumeError> {
        let pool = self.platform.pool().await?;
        let bytes = |key: &str| {
            let number = &pool["usage"][key];
            number.as_u64().or_else(|| number.as_str()?.parse().ok())
        };
        Ok(Capacity {
            capacity_bytes: bytes("total_bytes"),
            used_bytes: bytes("used_bytes"),
        })
    }

    async fn hwinfo(&self) -> Result<HwInfo, VolumeError> {
        let hardware = match self.platform.hardware().await {
            Ok(hardware) => hardware,
            Err(error) => return Ok(HwInfo::unavailable(&error)),
        };
        let (status, status_info) = health(&hardware);
        Ok(HwInfo {
            status,
            status_info,
            metadata: facts(&hardware),
        })
    }

    async fn metric(&self) -> Result<Metric, VolumeError> {
        Ok(self.platform.metric().await?)
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
        let path = self.platform.ifs(&dot_snapshot::kept(vfid));
        if !self
            .platform
            .create_snapshot(&vendor, &path, expires)
            .await?
        {
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
        let vendor = dot_snapshot::vendor_name(vfid, &name);
        Ok(self.platform.delete_snapshot(&vendor).await?)
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
        if !own.iter().any(|(_, snapshot)| snapshot.name == name) {
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
