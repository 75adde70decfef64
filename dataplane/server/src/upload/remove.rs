//! DELETE: ending an upload, or one of its parts.
//!
//! Source: tus 1.0.0, extension termination.

use proxy_anchor::staging;
use proxy_core::extent::Want;
use proxy_wire::response::ResponseHead;
use proxy_wire::tus;

use super::Request;
use super::answer::session_not_found;
use super::create::told;
use super::ledger::{SessionLedger, Taken};
use crate::bridge::{Change, Report};
use crate::reply::{Content, Reply};

/// See [`super::delete`].
pub(super) async fn answer(request: &Request<'_>) -> Result<Reply, Reply> {
    match request.part {
        Some(number) => partial(request, number).await?,
        None => whole(request).await?,
    }
    let head = ResponseHead::new(204).with(tus::TUS_RESUMABLE, tus::VERSION);
    Ok(Reply::new(head, Content::None))
}

/// Ends all writers, then forgets and removes what they wrote. The file of a finished upload is
/// the user's and stays.
async fn whole(request: &Request<'_>) -> Result<(), Reply> {
    let sessions = SessionLedger {
        request,
        part: None,
    };
    let taken = sessions.take(Want::alone()).await;
    let held = match taken.map_err(|error| told(request, error))? {
        Taken::Ours(held) => held,
        Taken::Finished(_) => return Err(session_not_found()),
    };
    let ended = held.grant.report(|reply| Report::Abort { reply }).await;
    ended.map_err(|refusal| told(request, sessions.told(refusal)))?;
    let session = request.claims.session;
    let removed = request
        .on_folder(move |folder| staging::discard(folder, &session))
        .await?;
    removed.map_err(|error| request.refused(&error))
}

async fn partial(request: &Request<'_>, number: u32) -> Result<(), Reply> {
    let known = request.look().await?;
    let partial = known.and_then(|known| known.partial(number));
    let partial = partial.ok_or_else(session_not_found)?;
    let sessions = SessionLedger {
        request,
        part: None,
    };
    let taken = sessions.take(Want::Part(partial.extent())).await;
    let held = match taken.map_err(|error| told(request, error))? {
        Taken::Ours(held) => held,
        Taken::Finished(_) => return Err(session_not_found()),
    };
    let dropped = sessions.change(&held, Change::DropPartial { number }).await;
    dropped.map(drop).map_err(|error| told(request, error))
}
