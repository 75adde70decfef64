//! HEAD: which bytes of a session are durable.

use proxy_anchor::staging;
use proxy_core::extent::Extents;
use proxy_wire::tus;

use super::Request;
use super::answer::{partial_progress, progress, session_not_found};
use crate::bridge::Known;
use crate::reply::Reply;

/// See [`super::head`].
pub(super) async fn answer(request: &Request<'_>) -> Result<Reply, Reply> {
    let (durable, known) = state(request).await?;
    if let Some(number) = request.part {
        let partial = known.and_then(|known| known.partial(number));
        let partial = partial.ok_or_else(session_not_found)?;
        return Ok(partial_progress(request, 200, &partial));
    }
    let mut reply = progress(request, 200, &durable);
    if let Some(metadata) = known.and_then(|known| known.metadata) {
        reply.head.push(tus::UPLOAD_METADATA, metadata);
    }
    Ok(reply)
}

/// What is durable of the whole file, and what is on record.
pub(super) async fn state(request: &Request<'_>) -> Result<(Extents, Option<Known>), Reply> {
    let session = request.claims.session;
    let known = request.look().await?;
    if let Some(known) = known.as_ref().filter(|known| known.finished.is_some()) {
        return Ok((known.durable.clone(), Some(known.clone())));
    }
    let opened = request
        .on_folder(move |folder| staging::open(folder, &session))
        .await?;
    match opened {
        Ok(staged) => {
            // A file that is not the one on record holds none of the recorded bytes. The record of
            // an original server names none.
            let ours = known.filter(|known| [0, staged.ino].contains(&known.staged.0));
            let durable = ours.as_ref().map(|known| known.durable.clone());
            Ok((durable.unwrap_or_default(), ours))
        }
        Err(error) if error.is_not_found() => {
            if let Some(known) = known
                && request.is_published(&known).await?
            {
                return Ok((Extents::prefix_of(known.size), None));
            }
            Err(session_not_found())
        }
        Err(error) => Err(request.refused(&error)),
    }
}
