//! Hands long work to the background, on record before anybody hears of it; shows and cancels it.
//!
//! The names and bodies are those that the original records, so that either program can take up
//! what the other left.
//!
//! Source: contract, background tasks 2 and 3.

use http::StatusCode;
use proxy_core::grammar::{Check, failure};
use proxy_core::id::{TaskId, VFolderId};
use proxy_core::problem::{Kind, Problem};
use proxy_state::SubmitError;
use proxy_volume::tasks::{self, CloneVFolder, DeleteFiles, DeleteVFolder};
use serde::Serialize;
use serde_json::{Value, json};

use crate::call::Call;
use crate::reply::{self, Failure, Outcome};
use crate::state::ApiState;

/// Who hands work over.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    state: &'a ApiState,
    /// What the caller named its request.
    request_id: Option<&'a str>,
}

impl<'a> Asking<'a> {
    pub(super) fn of(call: &'a Call) -> Self {
        Self {
            state: &call.state,
            request_id: call.request_id(),
        }
    }
}

/// `GET /task`: how far a task is, or how it ended. Ours: the original has no such call.
pub(crate) async fn look(mut call: Call) -> Outcome {
    let id = named(&mut call).await?;
    let Some(task) = call.state.runner.look(id).await? else {
        return Err(unknown(id));
    };
    let progress = task.progress.unwrap_or_default();
    reply::ok(&json!({
        "bgtask_id": id,
        "name": task.name,
        "state": task.state,
        "current": progress.current,
        "total": progress.total,
        "message": task.message.or(progress.message),
    }))
}

/// `POST /task/cancel`: the task ends at its next safe point, and its events say so. Ours.
pub(crate) async fn cancel(mut call: Call) -> Outcome {
    let id = named(&mut call).await?;
    if !call.state.runner.cancel(id) {
        return Err(unknown(id));
    }
    Ok(reply::json(StatusCode::ACCEPTED, &json!({"bgtask_id": id})))
}

async fn named(call: &mut Call) -> Result<TaskId, Failure> {
    let mut fields = call.parameters().await?;
    let id = fields.required("bgtask_id", task_id);
    let (id,) = fields.finish((id,)).map_err(Failure::parameters)?;
    Ok(id)
}

fn task_id(value: &Value) -> Check<TaskId> {
    let id = value.as_str().and_then(|text| TaskId::parse(text).ok());
    id.ok_or_else(|| failure("value is not a task identifier"))
}

fn unknown(id: TaskId) -> Failure {
    let text = format!("no task {id} waits or runs here");
    Problem::new(Kind::TaskNotFound).msg(text).into()
}

/// Removes a vfolder.
pub(super) async fn delete_folder(
    asking: Asking<'_>,
    volume: &str,
    vfid: VFolderId,
) -> Result<TaskId, Failure> {
    let body = DeleteVFolder {
        volume: volume.to_owned(),
        vfolder_id: vfid,
    };
    submit(asking, tasks::DELETE_VFOLDER, &body, volume).await
}

/// Copies a vfolder within its volume.
pub(super) async fn clone_folder(
    asking: Asking<'_>,
    volume: &str,
    src: VFolderId,
    dst: VFolderId,
) -> Result<TaskId, Failure> {
    let body = CloneVFolder {
        volume: volume.to_owned(),
        src_vfolder: src,
        dst_vfolder: dst,
    };
    submit(asking, tasks::CLONE_VFOLDER, &body, volume).await
}

/// Removes entries of a vfolder. The paths are as the Manager wrote them.
pub(super) async fn delete_files(
    asking: Asking<'_>,
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
    submit(asking, tasks::DELETE_FILES, &body, volume).await
}

/// Tasks of one volume compete for it, so its name is the key.
pub(super) async fn submit(
    asking: Asking<'_>,
    name: &str,
    body: &impl Serialize,
    volume: &str,
) -> Result<TaskId, Failure> {
    let body = serde_json::to_value(body).expect("bodies of tasks are plain data");
    asking
        .state
        .runner
        .submit_for(name, body, volume, asking.request_id)
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
