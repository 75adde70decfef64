//! The background tasks of volumes: clone, delete, delete files.
//!
//! Laws
//! - Manifests are the original's, key for key, so that a task registered by either is revived by
//!   the other. Unknown keys fail the task.
//! - Every task can be run again after it was interrupted anywhere.
//! - The event about a folder goes out after the effect is durable, and never for a task that
//!   was stopped to be run again.
//!
//! Source: the original's manifests of `clone_vfolder`, `delete_vfolder` and `delete_files`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_core::id::{TaskId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_state::{Event, Handler, Outcome, StopReason, TaskContext, TaskError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::backend::{Cloned, Deleted};
use crate::control::{Control, Progress};
use crate::error::VolumeError;
use crate::volumes::Volumes;

pub mod snapshots;

/// How often a running task tells how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// Name of the task that copies a folder.
pub const CLONE_VFOLDER: &str = "clone_vfolder";
/// Name of the task that removes a folder.
pub const DELETE_VFOLDER: &str = "delete_vfolder";
/// Name of the task that removes entries of a folder.
pub const DELETE_FILES: &str = "delete_files";

/// Body of a [`CLONE_VFOLDER`] task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneVFolder {
    /// Name of the volume of both folders.
    pub volume: String,
    /// The original.
    pub src_vfolder: VFolderId,
    /// The copy.
    pub dst_vfolder: VFolderId,
}

/// Body of a [`DELETE_VFOLDER`] task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteVFolder {
    /// Name of the volume.
    pub volume: String,
    /// The folder.
    pub vfolder_id: VFolderId,
}

/// Body of a [`DELETE_FILES`] task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteFiles {
    /// Name of the volume.
    pub volume: String,
    /// The folder.
    pub vfolder_id: VFolderId,
    /// Entries, relative to the folder.
    pub relpaths: Vec<String>,
    /// Also directories that are not empty.
    #[serde(default)]
    pub recursive: bool,
}

/// All handlers of this crate, for the runner.
pub fn handlers(volumes: &Arc<Volumes>) -> Vec<Arc<dyn Handler>> {
    vec![
        Arc::new(CloneHandler {
            volumes: Arc::clone(volumes),
        }),
        Arc::new(DeleteHandler {
            volumes: Arc::clone(volumes),
        }),
        Arc::new(DeleteFilesHandler {
            volumes: Arc::clone(volumes),
        }),
        Arc::new(snapshots::Handler::new(volumes, snapshots::CREATE)),
        Arc::new(snapshots::Handler::new(volumes, snapshots::DELETE)),
        Arc::new(snapshots::Handler::new(volumes, snapshots::RESTORE)),
        Arc::new(snapshots::Handler::new(volumes, snapshots::RETAIN)),
    ]
}

/// Runs [`CLONE_VFOLDER`] tasks.
pub struct CloneHandler {
    volumes: Arc<Volumes>,
}

/// Runs [`DELETE_VFOLDER`] tasks.
pub struct DeleteHandler {
    volumes: Arc<Volumes>,
}

/// Runs [`DELETE_FILES`] tasks.
pub struct DeleteFilesHandler {
    volumes: Arc<Volumes>,
}

#[async_trait]
impl Handler for CloneHandler {
    fn name(&self) -> &'static str {
        CLONE_VFOLDER
    }

    async fn run(&self, body: &Value, ctx: TaskContext) -> Result<Outcome, TaskError> {
        let CloneVFolder {
            volume,
            src_vfolder: src,
            dst_vfolder: dst,
        } = read(body)?;
        let control = Arc::new(Control::default());
        let work = async {
            let volume = self.volumes.find(&volume)?;
            volume
                .clone_folder(src, dst, ctx.task(), Arc::clone(&control))
                .await
        };
        match watched(&ctx, &control, copied, work).await {
            Ok(cloned) => {
                ctx.emit(Event::VFolderCloned { src, dst });
                Ok(left_out(&cloned))
            }
            Err(VolumeError::Cancelled) => Err(TaskError::Stopped),
            Err(error) => {
                let message = error.to_string();
                ctx.emit(Event::VFolderCloneFailed {
                    src,
                    dst,
                    message: message.clone(),
                });
                Err(TaskError::Failed(message))
            }
        }
    }

    async fn settled(&self, task: TaskId, body: &Value) {
        if let Ok(clone) = read::<CloneVFolder>(body) {
            settle(&self.volumes, &clone.volume, clone.dst_vfolder, task).await;
        }
    }

    fn last_words(&self, body: &Value, why: &str) -> Vec<Event> {
        let Ok(CloneVFolder {
            src_vfolder: src,
            dst_vfolder: dst,
            ..
        }) = read(body)
        else {
            return Vec::new();
        };
        vec![Event::VFolderCloneFailed {
            src,
            dst,
            message: why.to_owned(),
        }]
    }
}

#[async_trait]
impl Handler for DeleteHandler {
    fn name(&self) -> &'static str {
        DELETE_VFOLDER
    }

    async fn run(&self, body: &Value, ctx: TaskContext) -> Result<Outcome, TaskError> {
        let DeleteVFolder {
            volume,
            vfolder_id: vfid,
        } = read(body)?;
        let control = Arc::new(Control::default());
        let work = async {
            let volume = self.volumes.find(&volume)?;
            volume.delete_folder(vfid, Arc::clone(&control)).await
        };
        match watched(&ctx, &control, removed, work).await {
            Ok(()) => {
                ctx.emit(Event::VFolderDeleted { vfid });
                Ok(Outcome::Done)
            }
            Err(VolumeError::Cancelled) => Err(TaskError::Stopped),
            Err(error) => {
                let message = error.to_string();
                ctx.emit(Event::VFolderDeleteFailed {
                    vfid,
                    message: message.clone(),
                });
                Err(TaskError::Failed(message))
            }
        }
    }

    fn last_words(&self, body: &Value, why: &str) -> Vec<Event> {
        let Ok(DeleteVFolder {
            vfolder_id: vfid, ..
        }) = read(body)
        else {
            return Vec::new();
        };
        vec![Event::VFolderDeleteFailed {
            vfid,
            message: why.to_owned(),
        }]
    }
}

#[async_trait]
impl Handler for DeleteFilesHandler {
    fn name(&self) -> &'static str {
        DELETE_FILES
    }

    async fn run(&self, body: &Value, ctx: TaskContext) -> Result<Outcome, TaskError> {
        let DeleteFiles {
            volume,
            vfolder_id: vfid,
            relpaths,
            recursive,
        } = read(body)?;
        let control = Arc::new(Control::default());
        let work = async {
            let volume = self.volumes.find(&volume)?;
            let paths = relpaths.iter().map(|path| {
                RelPath::parse(path).map_err(|_| VolumeError::InvalidSubpath {
                    vfid,
                    path: path.clone(),
                })
            });
            let paths = paths.collect::<Result<Vec<_>, _>>()?;
            volume
                .delete_files(vfid, paths, recursive, Arc::clone(&control))
                .await
        };
        match watched(&ctx, &control, removed, work).await {
            Ok(deleted) => Ok(kept(&deleted)),
            Err(VolumeError::Cancelled) => Err(TaskError::Stopped),
            Err(error) => Err(TaskError::Failed(error.to_string())),
        }
    }
}

/// Takes the mark of an ended task away; the sweep does so where this fails.
async fn settle(volumes: &Volumes, volume: &str, vfid: VFolderId, task: TaskId) {
    if let Ok(volume) = volumes.find(volume)
        && let Err(error) = volume.settle(vfid, task).await
    {
        tracing::debug!(%vfid, %error, "the mark of a task is left to the sweep");
    }
}

fn read<T: DeserializeOwned>(body: &Value) -> Result<T, TaskError> {
    T::deserialize(body).map_err(|error| TaskError::Failed(format!("invalid task: {error}")))
}

/// Waits for `work`, passes stops on to it, and tells how far it is.
async fn watched<T>(
    ctx: &TaskContext,
    control: &Control,
    tell: fn(&Progress) -> Told,
    work: impl Future<Output = Result<T, VolumeError>>,
) -> Result<T, VolumeError> {
    let mut ticks = interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut stopped = false;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            reason = ctx.stop().wanted(), if !stopped => {
                stopped = true;
                match reason {
                    StopReason::Cancelled => control.cancel(),
                    StopReason::Shutdown => control.halt(),
                }
            }
            _ = ticks.tick() => {
                let Told {
                    current,
                    total,
                    text,
                } = tell(&control.progress());
                ctx.progress(current, total, Some(&text));
            }
        }
    }
}

/// How far a task is, as its events say it. Nothing is done before the total is known, so that a
/// bar never runs backwards.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    current: u64,
    total: u64,
    text: String,
}

/// A copy takes as long as its bytes, unless it has none.
fn copied(progress: &Progress) -> Told {
    let (current, total) = match progress.bytes_total {
        0 => of_entries(progress),
        total => (progress.bytes_done, total),
    };
    let text = told("cloned", progress);
    Told {
        current,
        total,
        text,
    }
}

/// A removal takes as long as its entries, whatever they hold.
fn removed(progress: &Progress) -> Told {
    let (current, total) = of_entries(progress);
    let text = match (progress.entries_total, progress.entries_done) {
        (0, done @ 1..) => format!("deleted {} files", grouped(done)),
        _ => told("deleted", progress),
    };
    Told {
        current,
        total,
        text,
    }
}

const fn of_entries(progress: &Progress) -> (u64, u64) {
    match progress.entries_total {
        0 => (0, 0),
        total => (progress.entries_done, total),
    }
}

/// Such as `cloned 1,234 of 5,000 files, 12.3 GiB`.
fn told(done: &str, progress: &Progress) -> String {
    if progress.entries_total == 0 {
        return "counting the files".to_owned();
    }
    let (entries, total) = (
        grouped(progress.entries_done),
        grouped(progress.entries_total),
    );
    let bytes = sized(progress.bytes_done);
    format!("{done} {entries} of {total} files, {bytes}")
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if 0 < at && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the largest unit that leaves a whole number before the point.
fn sized(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut size = bytes as f64;
    let mut unit = "bytes";
    for next in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    match unit {
        "bytes" => format!("{bytes} bytes"),
        _ => format!("{size:.1} {unit}"),
    }
}

/// What a clone has to say beyond that it is done.
fn left_out(cloned: &Cloned) -> Outcome {
    if cloned.skipped == 0 {
        return Outcome::Done;
    }
    let named = cloned.skipped_named.join(", ");
    let more = if (cloned.skipped_named.len() as u64) < cloned.skipped {
        ", …"
    } else {
        ""
    };
    let count = cloned.skipped;
    Outcome::DoneWith(format!(
        "{count} special files were not copied: {named}{more}"
    ))
}

fn kept(deleted: &Deleted) -> Outcome {
    let Some(first) = deleted.kept.first() else {
        return Outcome::Done;
    };
    let count = deleted.kept.len();
    Outcome::DoneWith(format!(
        "{count} directories are not empty and were kept: {first}, …"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const SRC: &str = "user:01234567-89ab-cdef-0123-456789abcdef/11111111222233334444555555555555";
    const DST: &str = "user:01234567-89ab-cdef-0123-456789abcdef/22222222222233334444555555555555";

    #[track_caller]
    fn check<T: DeserializeOwned + Serialize>(text: &str) {
        let body: Value = serde_json::from_str(text).unwrap();
        let manifest: T = read(&body).unwrap();
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
        let mut odd = body;
        odd["more"] = json!(1);
        assert!(read::<T>(&odd).is_err(), "an unknown key is refused");
    }

    #[test]
    fn manifests_are_the_originals_to_the_byte() {
        check::<CloneVFolder>(&format!(
            r#"{{"volume":"volume1","src_vfolder":"{SRC}","dst_vfolder":"{DST}"}}"#
        ));
        check::<DeleteVFolder>(&format!(r#"{{"volume":"volume1","vfolder_id":"{SRC}"}}"#));
        check::<DeleteFiles>(&format!(
            "{{\"volume\":\"volume1\",\"vfolder_id\":\"{SRC}\",\
             \"relpaths\":[\"a.txt\",\"dir\"],\"recursive\":true}}"
        ));
        let short = json!({"volume": "v", "vfolder_id": SRC, "relpaths": []});
        assert!(!read::<DeleteFiles>(&short).unwrap().recursive);
    }

    #[track_caller]
    fn check_told(
        tell: fn(&Progress) -> Told,
        [entries_done, entries_total, bytes_done, bytes_total]: [u64; 4],
        (current, total): (u64, u64),
        text: &str,
    ) {
        let progress = Progress {
            entries_done,
            entries_total,
            bytes_done,
            bytes_total,
        };
        let want = Told {
            current,
            total,
            text: text.to_owned(),
        };
        assert_eq!(tell(&progress), want);
    }

    #[test]
    fn progress_is_told_in_counts_and_bytes() {
        check_told(copied, [3, 0, 0, 0], (0, 0), "counting the files");
        check_told(copied, [3, 5, 0, 0], (3, 5), "cloned 3 of 5 files, 0 bytes");
        let gib = 1 << 30;
        check_told(
            copied,
            [1234, 5000, 123 * gib / 10, 20 * gib],
            (123 * gib / 10, 20 * gib),
            "cloned 1,234 of 5,000 files, 12.3 GiB",
        );
        check_told(removed, [0, 0, 0, 0], (0, 0), "counting the files");
        check_told(removed, [7000, 0, 0, 0], (0, 0), "deleted 7,000 files");
        check_told(
            removed,
            [7, 1_234_567, 1023, 2048],
            (7, 1_234_567),
            "deleted 7 of 1,234,567 files, 1023 bytes",
        );
    }
}
