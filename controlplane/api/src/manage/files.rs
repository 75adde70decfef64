//! Entries of a vfolder: directories, listings, renames, moves, deletions.
//!
//! Source: manager-facing API 5.

use std::sync::Arc;

use http::StatusCode;
use proxy_core::grammar::{self, Check, failure};
use proxy_core::relpath::RelPath;
use proxy_volume::{Control, Mkdir, VolumeError};
use serde_json::{Value, json};

use super::tasks::{self, Asking};
use crate::call::{self, Call};
use crate::reply::{self, Failure, Outcome};

/// Most directories of one request.
const MKDIRS_MAX: usize = 50;

/// `POST /folder/file/mkdir`: each directory succeeds or fails by itself.
pub(crate) async fn mkdir(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let paths = fields.required("relpath", one_or_many);
    let parents = fields.defaulted("parents", true, grammar::to_bool);
    let exist_ok = fields.defaulted("exist_ok", false, grammar::to_bool);
    let (volume, vfid, paths, parents, exist_ok) = fields
        .finish((volume, vfid, paths, parents, exist_ok))
        .map_err(Failure::parameters)?;
    let volume = call.state.volumes.find(&volume)?;
    let (mut made, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        match volume
            .mkdir(vfid, path.clone(), Mkdir { parents, exist_ok })
            .await
        {
            Ok(()) => made.push(json!({"msg": null, "item": path})),
            Err(error) => failed.push(json!({"msg": short_text(&error), "item": path})),
        }
    }
    let status = match (made.is_empty(), failed.is_empty()) {
        (false, true) => StatusCode::OK,
        (false, false) => StatusCode::MULTI_STATUS,
        (true, _) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Ok(reply::json(
        status,
        &json!({"results": {"success": made, "failed": failed}}),
    ))
}

/// The Manager shows these texts to its users.
fn short_text(error: &VolumeError) -> String {
    match error {
        VolumeError::Os { errno, .. } => proxy_volume::strerror(*errno),
        other => other.to_string(),
    }
}

/// `POST /folder/file/rename`.
pub(crate) async fn rename(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let path = fields.required("relpath", grammar::rel_path);
    let name = fields.required("new_name", grammar::string);
    let is_dir = fields.defaulted("is_dir", false, grammar::to_bool);
    let (volume, vfid, path, name, _) = fields
        .finish((volume, vfid, path, name, is_dir))
        .map_err(Failure::parameters)?;
    call.state
        .volumes
        .find(&volume)?
        .rename(vfid, path, name)
        .await?;
    reply::no_content()
}

/// `POST /folder/file/move`.
pub(crate) async fn move_entry(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let from = fields.required("src_relpath", grammar::rel_path);
    let to = fields.required("dst_relpath", grammar::rel_path);
    let (volume, vfid, from, to) = fields
        .finish((volume, vfid, from, to))
        .map_err(Failure::parameters)?;
    call.state
        .volumes
        .find(&volume)?
        .move_entry(vfid, from, to)
        .await?;
    reply::no_content()
}

/// `POST /folder/file/delete`. The Manager takes deletion for idempotent: what is missing already
/// is deleted.
pub(crate) async fn delete(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let paths = fields.required("relpaths", grammar::list(grammar::rel_path));
    let recursive = fields.defaulted("recursive", false, grammar::to_bool);
    let (volume, vfid, paths, recursive) = fields
        .finish((volume, vfid, paths, recursive))
        .map_err(Failure::parameters)?;
    let control = Arc::new(Control::default());
    call.state
        .volumes
        .find(&volume)?
        .delete_files(vfid, paths, recursive, control)
        .await?;
    reply::ok(&json!({"status": "ok"}))
}

/// `POST /folder/file/delete-async`: on record before the answer; the task checks everything.
pub(crate) async fn delete_async(mut call: Call) -> Outcome {
    let mut fields = call.model().await?;
    let volume = fields.required("volume", grammar::string_or_blank);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let paths = fields.required("relpaths", grammar::list(grammar::string_or_blank));
    let recursive = fields.defaulted("recursive", false, grammar::bool_lenient);
    let (volume, vfid, paths, recursive) = fields
        .finish((volume, vfid, paths, recursive))
        .map_err(call::model_failure)?;
    let id = tasks::delete_files(Asking::of(&call), &volume, vfid, paths, recursive).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &json!({"bgtask_id": id})))
}

/// A path, or a list of at most [`MKDIRS_MAX`].
fn one_or_many(value: &Value) -> Check<Vec<RelPath>> {
    let Value::Array(items) = value else {
        return grammar::rel_path(value).map(|path| vec![path]);
    };
    if items.len() > MKDIRS_MAX {
        return Err(failure(&format!(
            "list length is greater than {MKDIRS_MAX}"
        )));
    }
    grammar::list(grammar::rel_path)(value)
}
