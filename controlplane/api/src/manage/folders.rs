//! Virtual folders: make, mount, measure, delete, clone.
//!
//! Source: manager-facing API 4.

use std::time::Duration;

use http::StatusCode;
use proxy_core::grammar::{self, Check, Checked, failure};
use proxy_core::id::VFolderId;
use proxy_core::problem::{self, Kind, Problem};
use proxy_core::relpath::RelPath;
use proxy_volume::{Freshness, VolumeError};
use serde_json::{Value, json};

use super::scopes::initial_limit;
use super::tasks::{self, Asking};
use super::volumes::volume_name;
use crate::call::Call;
use crate::reply::{self, Failure, Outcome};

/// Mode of a folder whose creator names none.
const FOLDER_MODE: u32 = 0o755;

/// `POST /folder/create`. A repetition of a call whose answer was lost succeeds: an empty folder
/// of that name is what was asked for.
pub(crate) async fn create(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let mode = fields.defaulted("mode", None, grammar::nullable(mode));
    let limit = fields.defaulted("options", None, grammar::nullable(initial_limit));
    let (volume, vfid, mode, limit) = fields
        .finish((volume, vfid, mode, limit))
        .map_err(Failure::parameters)?;
    let on_demand = call.settings.scopes_on_demand;
    let created = call
        .state
        .volumes
        .find(&volume)?
        .create_folder(
            vfid,
            mode.unwrap_or(FOLDER_MODE),
            limit.flatten(),
            on_demand,
        )
        .await;
    match created {
        Ok(()) => reply::no_content(),
        Err(error @ VolumeError::FolderExists(_)) => Err(Problem::new(Kind::VFolderExists)
            .msg(error.to_string())
            .into()),
        Err(error) => Err(error.into()),
    }
}

/// `POST /folder/delete`: on record before the answer, whatever the volume and the folder are.
pub(crate) async fn delete(mut call: Call) -> Outcome {
    let (volume, vfid) = folder_of(call.parameters().await?)?;
    let id = tasks::delete_folder(Asking::of(&call), &volume, vfid).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &json!({"bgtask_id": id})))
}

/// `POST /folder/clone`: on record before the answer.
pub(crate) async fn clone(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?.allow_extras();
    let src_volume = fields.required("src_volume", grammar::string);
    let src = fields.required("src_vfid", grammar::vfolder_id);
    let dst_volume = fields.required("dst_volume", grammar::nullable(grammar::string));
    let dst = fields.required("dst_vfid", grammar::vfolder_id);
    let (volume, src, dst_volume, dst) = fields
        .finish((src_volume, src, dst_volume, dst))
        .map_err(Failure::parameters)?;
    if dst_volume.is_some_and(|other| other != volume) {
        let text = "cloning from one volume to another is not implemented";
        return Err(Problem::new(Kind::StorageProxy).msg(text).into());
    }
    let id = tasks::clone_folder(Asking::of(&call), &volume, src, dst).await?;
    reply::ok(&json!({"bgtask_id": id}))
}

/// `GET /folder/mount`: where the folder lies. The sub-path is only checked.
pub(crate) async fn mount(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let subpath = fields.defaulted("subpath", ".".to_owned(), grammar::string);
    let (volume, vfid, subpath) = fields
        .finish((volume, vfid, subpath))
        .map_err(Failure::parameters)?;
    let volume = call.state.volumes.find(&volume)?;
    let Ok(relpath) = RelPath::parse(&subpath) else {
        return Err(outside(vfid, &subpath));
    };
    match volume.mount_path(vfid, relpath).await {
        Ok(path) => reply::ok(&json!({"path": path.to_string_lossy()})),
        Err(error @ VolumeError::VFolderNotFound(_)) => {
            let body = json!({"msg": "VFolder not found", "vfid": vfid});
            Err(Failure::new(problem::plain(400, &body), error.to_string()))
        }
        Err(VolumeError::InvalidSubpath { .. } | VolumeError::InvalidName { .. }) => {
            Err(outside(vfid, &subpath))
        }
        Err(error) => Err(error.into()),
    }
}

fn outside(vfid: VFolderId, subpath: &str) -> Failure {
    let body = json!({"msg": "Invalid vfolder subpath", "vfid": vfid, "subpath": subpath});
    Failure::new(
        problem::plain(400, &body),
        "subpath leads out of the vfolder",
    )
}

/// `GET /folder/metadata`: a stub in every release, and nobody calls it.
pub(crate) async fn metadata(mut call: Call) -> Outcome {
    folder_of(call.parameters().await?)?;
    reply::ok(&json!({"status": "ok"}))
}

/// `POST /folder/metadata`: its payload is bytes, which JSON does not have.
pub(crate) async fn set_metadata(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let payload = fields.required("payload", |_| -> Check<()> {
        Err(failure("value is not a bytes string"))
    });
    fields
        .finish((volume, vfid, payload))
        .map_err(Failure::parameters)?;
    reply::ok(&json!({"status": "ok"}))
}

/// `GET /folder/usage`: what was counted in time. With `max_age` numbers of that age will do, and
/// what has not changed is not read again; the answer says since when and how it knows.
pub(crate) async fn usage(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let max_age = fields.defaulted("max_age", None, grammar::nullable(age));
    let (volume, vfid, max_age) = fields
        .finish((volume, vfid, max_age))
        .map_err(Failure::parameters)?;
    let volume = call.state.volumes.find(&volume)?;
    let Some(age_max) = max_age else {
        let usage = volume.usage(vfid).await?;
        let numbers = json!({"file_count": usage.file_count, "used_bytes": usage.used_bytes});
        return reply::ok(&counted(numbers, usage.complete));
    };
    let time_max = Some(call.settings.usage_time_max);
    let wish = Freshness { age_max, time_max };
    let known = volume.usage_lately(vfid, wish).await?;
    let numbers = json!({
        "file_count": known.usage.file_count,
        "used_bytes": known.usage.used_bytes,
        "as_of": known.as_of.to_string(),
        "exact": known.exact,
    });
    reply::ok(&counted(numbers, known.usage.complete))
}

/// Seconds.
fn age(value: &Value) -> Check<Duration> {
    let seconds = grammar::int(value)?;
    u64::try_from(seconds)
        .map(Duration::from_secs)
        .map_err(|_| failure("value should be greater than or equal to 0"))
}

/// Numbers that are not all there is say so. Those that are look as in the original.
fn counted(mut numbers: Value, complete: bool) -> Value {
    if !complete {
        numbers["complete"] = json!(false);
    }
    numbers
}

/// `GET /folder/used-bytes`: exact, where the original rounds.
pub(crate) async fn used_bytes(mut call: Call) -> Outcome {
    let (volume, vfid) = folder_of(call.parameters().await?)?;
    let used = call.state.volumes.find(&volume)?.used_bytes(vfid).await?;
    reply::ok(&counted(
        json!({"used_bytes": used.used_bytes}),
        used.complete,
    ))
}

/// `GET /folder/fs-usage`: of the whole volume; -1 where a backend cannot know.
pub(crate) async fn fs_usage(mut call: Call) -> Outcome {
    let volume = volume_name(call.parameters().await?)?;
    let usage = call.state.volumes.find(&volume)?.fs_usage().await?;
    reply::ok(&json!({
        "capacity_bytes": known(usage.capacity_bytes),
        "used_bytes": known(usage.used_bytes),
    }))
}

fn known(bytes: Option<u64>) -> Value {
    bytes.map_or_else(|| json!(-1), Value::from)
}

fn folder_of(mut fields: Checked) -> Result<(String, VFolderId), Failure> {
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    fields.finish((volume, vfid)).map_err(Failure::parameters)
}

/// Permission bits as a decimal number.
fn mode(value: &Value) -> Check<u32> {
    let mode = grammar::int(value)?;
    u32::try_from(mode)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| failure("value is not a file mode"))
}
