//! Hands long work to the background, on record before anybody hears of it.
//!
//! The names and bodies are those that the original records, so that either program can take up
//! what the other left.
//!
//! Source: contract, background tasks 2 and 3.

use proxy_core::id::{TaskId, VFolderId};
use proxy_core::problem::{Kind, Problem};
use proxy_state::SubmitError;
use proxy_volume::tasks::{self, CloneVFolder, DeleteFiles, DeleteVFolder};
use serde::Serialize;

use crate::reply::Failure;
use crate::state::ApiState;

/// Removes a vfolder.
pub(super) async fn delete_folder(
    state: &ApiState,
    volume: &str,
    vfid: VFolderId,
) -> Result<TaskId, Failure> {
    let body = DeleteVFolder {
        volume: volume.to_owned(),
        vfolder_id: vfid,
    };
    submit(state, tasks::DELETE_VFOLDER, &body, volume).await
}

/// Copies a vfolder within its volume.
pub(super) async fn clone_folder(
    state: &ApiState,
    volume: &str,
    src: VFolderId,
    dst: VFolderId,
) -> Result<TaskId, Failure> {
    let body = CloneVFolder {
        volume: volume.to_owned(),
        src_vfolder: src,
        dst_vfolder: dst,
    };
    submit(state, tasks::CLONE_VFOLDER, &body, volume).await
}

/// Removes entries of a vfolder. The paths are as the Manager wrote them.
pub(super) async fn delete_files(
    state: &ApiState,
    volume: &str,
    vfid: VFolderId,
    relpaths: Vec<String>,
    recursive: bool,
) -> Result<TaskId, Failure> {
    let body = DeleteFiles {
        volume: volume.to_owned(),
        vfolder_id: vfid,
        relpaths,
        recursive,
    };
    submit(state, tasks::DELETE_FILES, &body, volume).await
}

/// Tasks of one volume compete for it, so its name is the key.
async fn submit(
    state: &ApiState,
    name: &str,
    body: &impl Serialize,
    volume: &str,
) -> Result<TaskId, Failure> {
    let body = serde_json::to_value(body).expect("bodies of tasks are plain data");
    state
        .runner
        .submit(name, body, volume)
        .await
        .map_err(|error| match error {
            SubmitError::Store(error) => error.into(),
            SubmitError::Full | SubmitError::Stopping => {
                Problem::new(Kind::Overloaded).msg(error.to_string()).into()
            }
            other => Problem::new(Kind::BgtaskNotRegistered)
                .msg(other.to_string())
                .into(),
        })
}
