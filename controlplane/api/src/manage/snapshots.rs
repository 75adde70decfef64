//! States of vfolders: keep, show, bring back, remove. All routes are ours.
//!
//! What can be told at once is told at once; the work is a background task.
//!
//! Source: `docs/semantics.md#snapshots`.

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use proxy_core::grammar::{self, Check, failure};
use proxy_core::id::TaskId;
use proxy_volume::tasks::snapshots::{self, Keep, One};
use proxy_volume::{Snapshot, SnapshotName, VolumeError};
use serde_json::{Value, json};

use super::tasks::{self, Asking};
use crate::call::Call;
use crate::reply::{self, Failure, Outcome};

/// `GET /snapshot`: the snapshots of a vfolder, oldest first.
pub(crate) async fn list(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let (volume, vfid) = fields.finish((volume, vfid)).map_err(Failure::parameters)?;
    let volume = call.state.volumes.find(&volume)?;
    let items: Vec<Value> = volume.snapshots(vfid).await?.iter().map(shown).collect();
    reply::ok(&json!({ "items": items }))
}

fn shown(snapshot: &Snapshot) -> Value {
    json!({
        "name": snapshot.name.as_str(),
        "created": snapshot.created.to_string(),
        "expires": snapshot.expires.map(|at| at.to_string()),
        "unit": snapshot.unit.wire(),
        "used_bytes": snapshot.used_bytes,
    })
}

/// `POST /snapshot/create`.
pub(crate) async fn create(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let name = fields.required("name", name);
    let keep_s = fields.defaulted("keep_seconds", None, grammar::nullable(seconds));
    let (volume, vfid, name, keep_s) = fields
        .finish((volume, vfid, name, keep_s))
        .map_err(Failure::parameters)?;
    let there = call.state.volumes.find(&volume)?.snapshots(vfid).await?;
    if there.iter().any(|snapshot| snapshot.name == name) {
        return Err(VolumeError::SnapshotExists(name).into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now.map_or(0, |since| since.as_secs());
    let at = |keep_s: u64| i64::try_from(now_s.saturating_add(keep_s)).unwrap_or(i64::MAX);
    let one = One {
        volume,
        vfolder_id: vfid,
        name: name.to_string(),
        expires_s: keep_s.map(at),
        dst_vfolder: None,
    };
    begin(Asking::of(&call), snapshots::CREATE, &one).await
}

/// `POST /snapshot/restore`: in place, or as a new vfolder.
pub(crate) async fn restore(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let name = fields.required("name", name);
    let dst = fields.defaulted("dst_vfid", None, grammar::nullable(grammar::vfolder_id));
    let (volume, vfid, name, dst) = fields
        .finish((volume, vfid, name, dst))
        .map_err(Failure::parameters)?;
    let there = call.state.volumes.find(&volume)?.snapshots(vfid).await?;
    if there.iter().all(|snapshot| snapshot.name != name) {
        return Err(VolumeError::SnapshotNotFound(name).into());
    }
    let one = One {
        volume,
        vfolder_id: vfid,
        name: name.to_string(),
        expires_s: None,
        dst_vfolder: dst,
    };
    begin(Asking::of(&call), snapshots::RESTORE, &one).await
}

/// `POST /snapshot/delete`. Missing is fine.
pub(crate) async fn delete(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let name = fields.required("name", name);
    let (volume, vfid, name) = fields
        .finish((volume, vfid, name))
        .map_err(Failure::parameters)?;
    call.state.volumes.find(&volume)?;
    let one = One {
        volume,
        vfolder_id: vfid,
        name: name.to_string(),
        expires_s: None,
        dst_vfolder: None,
    };
    begin(Asking::of(&call), snapshots::DELETE, &one).await
}

/// `POST /snapshot/retain`: removes what has expired, and what the given policy does not keep.
pub(crate) async fn retain(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.defaulted("vfid", None, grammar::nullable(grammar::vfolder_id));
    let count_max = fields.defaulted("count_max", None, grammar::nullable(seconds));
    let age_max_s = fields.defaulted("age_max_seconds", None, grammar::nullable(seconds));
    let (volume, vfid, count_max, age_max_s) = fields
        .finish((volume, vfid, count_max, age_max_s))
        .map_err(Failure::parameters)?;
    call.state.volumes.find(&volume)?;
    let keep = Keep {
        volume: volume.clone(),
        vfolder_id: vfid,
        count_max: count_max.map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
        age_max_s,
    };
    let id = tasks::submit(Asking::of(&call), snapshots::RETAIN, &keep, &volume).await?;
    accepted(id)
}

async fn begin(asking: Asking<'_>, task: &str, one: &One) -> Outcome {
    let id = tasks::submit(asking, task, one, &one.volume).await?;
    accepted(id)
}

fn accepted(id: TaskId) -> Outcome {
    Ok(reply::json(StatusCode::ACCEPTED, &json!({"bgtask_id": id})))
}

fn name(value: &Value) -> Check<SnapshotName> {
    let name = value.as_str().and_then(SnapshotName::parse);
    name.ok_or_else(|| {
        failure("value should be 1 to 40 letters, digits, \"-\" and \".\", no mark at either end")
    })
}

fn seconds(value: &Value) -> Check<u64> {
    let number = u64::try_from(grammar::int(value)?);
    number.map_err(|_| failure("value should be 0 or more"))
}
