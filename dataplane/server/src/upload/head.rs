//! HEAD: which bytes of a session are durable.

use std::rc::Rc;

use proxy_anchor::staging;
use proxy_core::extent::Extents;
use proxy_wire::head::RequestHead;

use super::Request;
use super::answer::{progress, refused_claim, session_not_found};
use crate::reply::Reply;
use crate::snapshot::Snapshot;
use crate::thread::Thread;

/// See [`super::head`].
pub(super) async fn answer(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
) -> Result<Reply, Reply> {
    let request = Request::parse(thread, snapshot, head)?;
    let session = request.claims.session;
    let known = match thread.setup.bridge.look(session).await {
        Ok(known) => known,
        Err(refusal) => return Err(refused_claim(&request, &refusal)),
    };
    if let Some(known) = known.as_ref().filter(|known| known.finished.is_some()) {
        return Ok(progress(200, &known.durable, request.size()));
    }
    let opened = request
        .on_folder(move |folder| staging::open(folder, &session))
        .await?;
    match opened {
        Ok(staged) => {
            // A file that is not the one on record holds none of the recorded bytes.
            let ours = known.filter(|known| known.staged.0 == staged.ino);
            let durable = ours.map(|known| known.durable).unwrap_or_default();
            Ok(progress(200, &durable, request.size()))
        }
        Err(error) if error.is_not_found() => {
            if let Some(known) = known
                && request.is_published(&known).await?
            {
                let all = Extents::prefix_of(known.size);
                return Ok(progress(200, &all, request.size()));
            }
            Err(session_not_found())
        }
        Err(error) => Err(request.refused(&error)),
    }
}
