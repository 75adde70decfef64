//! The background tasks of snapshots: create, delete, restore, and keep only what a policy keeps.
//!
//! Laws
//! - Their names and bodies are ours: the original has no snapshots, and leaves such tasks alone.
//! - Each can be run again after it was interrupted anywhere. A snapshot that is there already is
//!   taken as made by an earlier run of the same task only if that run had begun.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_core::id::{TaskId, VFolderId};
use proxy_state::{Outcome, TaskContext, TaskError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{copied, left_out, read, removed, settle, watched};
use crate::backend::Restore;
use crate::control::Control;
use crate::error::VolumeError;
use crate::snapshot::{Retained, Retention, SnapshotName};
use crate::stamp::Stamp;
use crate::volumes::Volumes;

/// Name of the task that keeps a state.
pub const CREATE: &str = "create_snapshot";
/// Name of the task that removes one.
pub const DELETE: &str = "delete_snapshot";
/// Name of the task that brings one back.
pub const RESTORE: &str = "restore_snapshot";
/// Name of the task that removes what a policy does not keep.
pub const RETAIN: &str = "retain_snapshots";

/// Failures that a task names; the others are counted.
const FAILURES_NAMED_MAX: usize = 16;

/// Body of [`CREATE`], [`DELETE`] and [`RESTORE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct One {
    /// Name of the volume.
    pub volume: String,
    /// The folder.
    pub vfolder_id: VFolderId,
    /// Name of the snapshot.
    pub name: String,
    /// When it expires, in seconds since 1970; for [`CREATE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<i64>,
    /// The folder to be made; for [`RESTORE`], without it in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_vfolder: Option<VFolderId>,
}

/// Body of [`RETAIN`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Name of the volume.
    pub volume: String,
    /// One folder, or all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfolder_id: Option<VFolderId>,
    /// So many of each folder stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_max: Option<usize>,
    /// Older ones go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_max_s: Option<u64>,
}

/// Runs the tasks of one of the names.
pub struct Handler {
    volumes: Arc<Volumes>,
    name: &'static str,
}

impl Handler {
    /// For the tasks called `name`, one of this module.
    pub fn new(volumes: &Arc<Volumes>, name: &'static str) -> Self {
        Self {
            volumes: Arc::clone(volumes),
            name,
        }
    }

    async fn retain(&self, body: &Value, ctx: &TaskContext) -> Result<Outcome, TaskError> {
        let keep: Keep = read(body)?;
        let policy = Retention {
            count_max: keep.count_max,
            age_max: keep.age_max_s.map(Duration::from_secs),
        };
        let control = Arc::new(Control::default());
        let work = async {
            let volume = self.volumes.find(&keep.volume)?;
            let reins = Arc::clone(&control);
            volume
                .retain_snapshots(keep.vfolder_id, policy, reins)
                .await
        };
        match watched(ctx, &control, removed, work).await {
            Ok(retained) => Ok(told(retained)),
            Err(error) => Err(failed(error)),
        }
    }

    async fn create(&self, one: One, ctx: &TaskContext) -> Result<Outcome, VolumeError> {
        let name = named(&one)?;
        let expires = one.expires_s.map(|s| Stamp {
            unix_ns: i128::from(s) * 1_000_000_000,
        });
        let control = Arc::new(Control::default());
        let work = async {
            let volume = self.volumes.find(&one.volume)?;
            let reins = Arc::clone(&control);
            volume
                .create_snapshot(one.vfolder_id, name, expires, reins)
                .await
        };
        match watched(ctx, &control, copied, work).await {
            Ok(_) => Ok(Outcome::Done),
            Err(VolumeError::SnapshotExists(_)) if 1 < ctx.attempt() => Ok(Outcome::Done),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, one: One, ctx: &TaskContext) -> Result<Outcome, VolumeError> {
        let name = named(&one)?;
        let control = Arc::new(Control::default());
        let work = async {
            let volume = self.volumes.find(&one.volume)?;
            let reins = Arc::clone(&control);
            volume.delete_snapshot(one.vfolder_id, name, reins).await
        };
        watched(ctx, &control, removed, work).await?;
        Ok(Outcome::Done)
    }

    async fn restore(&self, one: One, ctx: &TaskContext) -> Result<Outcome, VolumeError> {
        let name = named(&one)?;
        let to = one.dst_vfolder.map_or(Restore::InPlace, Restore::Into);
        let control = Arc::new(Control::default());
        let work = async {
            let volume = self.volumes.find(&one.volume)?;
            let reins = Arc::clone(&control);
            volume
                .restore_snapshot(one.vfolder_id, name, to, ctx.task(), reins)
                .await
        };
        let restored = watched(ctx, &control, copied, work).await?;
        Ok(left_out(&restored))
    }
}

#[async_trait]
impl proxy_state::Handler for Handler {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&self, body: &Value, ctx: TaskContext) -> Result<Outcome, TaskError> {
        if self.name == RETAIN {
            return self.retain(body, &ctx).await;
        }
        let one: One = read(body)?;
        let done = match self.name {
            CREATE => self.create(one, &ctx).await,
            DELETE => self.delete(one, &ctx).await,
            _ => self.restore(one, &ctx).await,
        };
        done.map_err(failed)
    }

    async fn settled(&self, task: TaskId, body: &Value) {
        if self.name == RESTORE
            && let Ok(one) = read::<One>(body)
        {
            let target = one.dst_vfolder.unwrap_or(one.vfolder_id);
            settle(&self.volumes, &one.volume, target, task).await;
        }
    }
}

fn named(one: &One) -> Result<SnapshotName, VolumeError> {
    SnapshotName::parse(&one.name).ok_or(VolumeError::Refused("no snapshot can have this name"))
}

fn failed(error: VolumeError) -> TaskError {
    match error {
        VolumeError::Cancelled => TaskError::Stopped,
        error => TaskError::Failed(error.to_string()),
    }
}

fn told(retained: Retained) -> Outcome {
    let Retained {
        kept,
        removed,
        mut failed,
    } = retained;
    if failed.is_empty() {
        return Outcome::DoneWith(format!("{removed} snapshots removed, {kept} kept"));
    }
    let more = failed.len().saturating_sub(FAILURES_NAMED_MAX);
    failed.truncate(FAILURES_NAMED_MAX);
    if 0 < more {
        failed.push(format!("and {more} more"));
    }
    Outcome::PartlyDone(failed)
}
