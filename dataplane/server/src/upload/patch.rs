//! PATCH: going on where a session ends.

use std::rc::Rc;

use proxy_core::units::Offset;
use proxy_transfer::patch::{self, PatchRequest};
use proxy_wire::head::RequestHead;
use proxy_wire::tus::{self, UploadOffset};

use super::answer::{Asked, mismatch, outcome, session_not_found};
use super::ledger::SessionLedger;
use super::{Request, bad};
use crate::body::Body;
use crate::reply::Reply;
use crate::snapshot::Snapshot;
use crate::thread::Thread;

/// See [`super::patch`].
pub(super) async fn answer(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Result<Reply, Reply> {
    let request = Request::parse(thread, snapshot, head)?;
    let Some(value) = head.headers.get(tus::UPLOAD_OFFSET_LOWER) else {
        return match request.exists().await? {
            true => Err(bad("Upload-Offset header is missing".to_owned())),
            false => Err(session_not_found()),
        };
    };
    let offset = match tus::parse_offset(value) {
        Ok(UploadOffset::At(offset)) => offset,
        Ok(UploadOffset::Nowhere) => {
            let have = request.offset().await?;
            return Err(mismatch(have, &String::from_utf8_lossy(value)));
        }
        Err(error) => {
            return match request.exists().await? {
                true => Err(bad(format!(
                    "{error}: {:?}",
                    String::from_utf8_lossy(value)
                ))),
                false => Err(session_not_found()),
            };
        }
    };
    let sessions = SessionLedger { request: &request };
    let wanted = PatchRequest {
        upload_offset: offset,
        reserve: request.volume.reserves,
    };
    let written = patch::patch(&thread.staging, body, &sessions, wanted).await;
    let reply = outcome(&request, Asked::Offset(offset), written)?;
    if request.size() == Offset::ZERO {
        request.move_empty().await?;
    }
    Ok(reply)
}
