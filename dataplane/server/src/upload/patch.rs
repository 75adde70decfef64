//! PATCH: going on where a session ends.

use proxy_core::partial::Partial;
use proxy_core::units::{ByteLen, Offset};
use proxy_transfer::Source;
use proxy_transfer::parts::{self, PartialRequest};
use proxy_transfer::patch::{self, PatchRequest};
use proxy_transfer::write::Written;
use proxy_wire::head::RequestHead;
use proxy_wire::tus::{self, UploadOffset};

use super::answer::{Asked, mismatch, outcome, partial_progress, paused, session_not_found};
use super::checked::Checked;
use super::ledger::SessionLedger;
use super::{Request, bad};
use crate::body::Body;
use crate::reply::Reply;

/// See [`super::patch`].
pub(super) async fn answer(
    request: &Request<'_>,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Result<Reply, Reply> {
    let offset = upload_offset(request, head).await?;
    let length = head.headers.get(tus::UPLOAD_LENGTH_LOWER);
    if length.is_some_and(|value| tus::parse_length(value) != Some(request.size().get()))
        && request.part.is_none()
    {
        let text = format!("the upload has {} bytes", request.size().get());
        return Err(bad(format!("Upload-Length: {text}")));
    }
    if request.volume.late_quota {
        request
            .fits(body.remaining(), request.offset().await?)
            .await?;
    }
    let mut body = Checked::new(head, body)?;
    if let Some(number) = request.part {
        let partial = store_partial(request, number, offset, &mut body).await?;
        return Ok(partial_progress(request, 204, &partial));
    }
    let written = store(request, offset, &mut body).await;
    if let Some(reply) = paused(request, head, offset, &written) {
        return Ok(reply);
    }
    let reply = outcome(request, Asked::Offset(offset), written).await?;
    if request.size() == Offset::ZERO {
        request.move_empty().await?;
    }
    Ok(reply)
}

/// Stores a body that goes on at `offset`.
pub(super) async fn store(
    request: &Request<'_>,
    offset: Offset,
    body: &mut Checked<'_, '_>,
) -> Written<Reply> {
    let sessions = SessionLedger {
        request,
        part: None,
    };
    let wanted = PatchRequest {
        upload_offset: offset,
        reserve: request.volume.reserves,
    };
    patch::patch(&request.thread.staging, body, &sessions, wanted).await
}

async fn upload_offset(request: &Request<'_>, head: &RequestHead) -> Result<Offset, Reply> {
    let Some(value) = head.headers.get(tus::UPLOAD_OFFSET_LOWER) else {
        return match request.exists().await? {
            true => Err(bad("Upload-Offset header is missing".to_owned())),
            false => Err(session_not_found()),
        };
    };
    match tus::parse_offset(value) {
        Ok(UploadOffset::At(offset)) => Ok(offset),
        Ok(UploadOffset::Nowhere) => {
            let have = request.offset().await?;
            Err(mismatch(have, &String::from_utf8_lossy(value)))
        }
        Err(error) => match request.exists().await? {
            true => Err(bad(format!(
                "{error}: {:?}",
                String::from_utf8_lossy(value)
            ))),
            false => Err(session_not_found()),
        },
    }
}

/// Goes on with a partial upload; says how far it is then.
pub(super) async fn store_partial(
    request: &Request<'_>,
    number: u32,
    offset: Offset,
    body: &mut Checked<'_, '_>,
) -> Result<Partial, Reply> {
    let known = request.look().await?;
    let partial = known.and_then(|known| known.partial(number));
    let mut partial = partial.ok_or_else(session_not_found)?;
    let sessions = SessionLedger {
        request,
        part: Some(number),
    };
    let wanted = PartialRequest {
        extent: partial.extent(),
        upload_offset: offset,
        size: ByteLen::new(request.size().get()),
        reserve: request.volume.reserves,
    };
    let written = parts::partial(&request.thread.staging, body, &sessions, wanted).await;
    if let Written::Stored { durable, .. } = &written {
        partial.offset = durable.end_of(partial.place) - partial.place;
        return Ok(partial);
    }
    match outcome(request, Asked::Offset(offset), written).await {
        Ok(reply) | Err(reply) => Err(reply),
    }
}
