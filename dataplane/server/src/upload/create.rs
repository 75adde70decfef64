//! POST: creating an upload, as a whole or a part of one, with its first bytes or without.
//!
//! The token says what file it is, so creating means to begin the token's own session. A client
//! that asks again gets the same upload.
//!
//! Source: tus 1.0.0, extensions creation, creation-with-upload, creation-defer-length.

use proxy_core::extent::{Extent, Extents, Want};
use proxy_core::problem::{Kind, Problem};
use proxy_core::units::Offset;
use proxy_transfer::Source;
use proxy_transfer::ledger::LedgerError;
use proxy_transfer::write::Written;
use proxy_wire::head::RequestHead;
use proxy_wire::tus::{self, Concat};

use super::answer::{Asked, outcome, partial_progress, progress, settled};
use super::checked::Checked;
use super::ledger::{Held, SessionLedger, Taken};
use super::{Request, bad, concat, patch};
use crate::body::Body;
use crate::bridge::{Change, Known};
use crate::reply::Reply;

/// Whether a POST is about an upload at all.
pub(super) fn is_creation(head: &RequestHead) -> bool {
    let names = [
        tus::UPLOAD_LENGTH_LOWER,
        tus::UPLOAD_DEFER_LENGTH_LOWER,
        tus::UPLOAD_CONCAT_LOWER,
    ];
    names.iter().any(|name| head.headers.get(name).is_some())
}

/// See [`super::post`].
pub(super) async fn answer(
    request: &Request<'_>,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Result<Reply, Reply> {
    let metadata = metadata(head)?;
    let concat = match head.headers.get(tus::UPLOAD_CONCAT_LOWER) {
        None => None,
        Some(value) => {
            let concat = tus::parse_concat(value);
            Some(concat.ok_or_else(|| bad("Upload-Concat is not understood".to_owned()))?)
        }
    };
    let mut body = Checked::new(head, body)?;
    match concat {
        None => whole(request, head, metadata, &mut body).await,
        Some(Concat::Partial) => partial(request, head, &mut body).await,
        Some(Concat::Final(addresses)) => concat::answer(request, &addresses).await,
    }
}

fn metadata(head: &RequestHead) -> Result<Option<String>, Reply> {
    let Some(value) = head.headers.get(tus::UPLOAD_METADATA_LOWER) else {
        return Ok(None);
    };
    if value.trim_ascii().is_empty() {
        return Ok(None);
    }
    let text = tus::check_metadata(value);
    let text = text.ok_or_else(|| bad("Upload-Metadata is not understood".to_owned()))?;
    Ok(Some(text.to_owned()))
}

/// The length that a client says; `None` when it will say it later.
fn length(head: &RequestHead) -> Result<Option<u64>, Reply> {
    let said = head.headers.get(tus::UPLOAD_LENGTH_LOWER);
    let deferred = head.headers.get(tus::UPLOAD_DEFER_LENGTH_LOWER);
    match (said, deferred.map(<[u8]>::trim_ascii)) {
        (Some(value), None) => match tus::parse_length(value) {
            Some(length) => Ok(Some(length)),
            None => Err(bad("Upload-Length is not a number of bytes".to_owned())),
        },
        (None, Some(b"1")) => Ok(None),
        _ => Err(bad(
            "either Upload-Length or Upload-Defer-Length: 1".to_owned()
        )),
    }
}

/// Refuses a length that is not the token's.
pub(super) fn check_length(request: &Request<'_>, length: Option<u64>) -> Result<(), Reply> {
    let size = request.size().get();
    let size_max = request.snapshot.upload_size_max.get();
    if size_max < size || length.is_some_and(|length| size_max < length) {
        let text = format!("uploads have at most {size_max} bytes");
        return Err(Problem::new(Kind::UploadTooLarge).msg(text).into());
    }
    if length.is_some_and(|length| length != size) {
        return Err(bad(format!("the token is for an upload of {size} bytes")));
    }
    Ok(())
}

async fn whole(
    request: &Request<'_>,
    head: &RequestHead,
    metadata: Option<String>,
    body: &mut Checked<'_, '_>,
) -> Result<Reply, Reply> {
    check_length(request, length(head)?)?;
    let known = request.begin().await?;
    if let Some(metadata) = metadata
        && known.as_ref().is_none_or(|known| known.finished.is_none())
    {
        let held = hold(request).await?;
        if let Some((sessions, held)) = &held {
            let change = Change::Describe { metadata };
            let described = sessions.change(held, change).await;
            described.map_err(|error| told(request, error))?;
        }
    }
    let durable = match body.remaining() {
        Some(0) => known.map(|known| known.durable).unwrap_or_default(),
        _ => match patch::store(request, Offset::ZERO, body).await {
            Written::Stored { durable, .. } => durable,
            // It was begun before: the client goes on from there.
            Written::Mismatch { have } => Extents::prefix_of(have.get()),
            other => return outcome(request, Asked::Offset(Offset::ZERO), other).await,
        },
    };
    if request.size() == Offset::ZERO {
        request.move_empty().await?;
    }
    let mut reply = progress(request, 201, &durable);
    reply.head.push("Location", request.location(None));
    Ok(reply)
}

async fn partial(
    request: &Request<'_>,
    head: &RequestHead,
    body: &mut Checked<'_, '_>,
) -> Result<Reply, Reply> {
    let Some(length) = length(head)? else {
        return Err(bad("a partial upload has a length".to_owned()));
    };
    check_length(request, None)?;
    request.begin().await?;
    let Some((sessions, held)) = hold(request).await? else {
        return Err(bad("the upload is finished".to_owned()));
    };
    let known = sessions.change(&held, Change::AddPartial { length }).await;
    let known: Known = known.map_err(|error| told(request, error))?;
    drop(held);
    let Some(made) = known.partials.last().copied() else {
        return Err(told(request, LedgerError::NotFound));
    };
    let made = match body.remaining() {
        Some(0) => made,
        _ => patch::store_partial(request, made.number, Offset::ZERO, body).await?,
    };
    let mut reply = partial_progress(request, 201, &made);
    let location = request.location(Some(made.number));
    reply.head.push("Location", location);
    Ok(reply)
}

/// A claim for a change, which is in nobody's way. `None`: the upload is finished.
async fn hold<'r>(request: &'r Request<'r>) -> Result<Option<(SessionLedger<'r>, Held)>, Reply> {
    let sessions = SessionLedger {
        request,
        part: None,
    };
    let want = Want::Part(Extent::new(0, 0));
    let taken = sessions.take(want).await;
    Ok(match taken.map_err(|error| told(request, error))? {
        Taken::Ours(held) => Some((sessions, held)),
        Taken::Finished(_) => None,
    })
}

/// The answer to a refusal of the ledger.
pub(super) fn told(request: &Request<'_>, error: LedgerError<Reply>) -> Reply {
    match settled(request, Asked::Part, Written::Ledger(error)) {
        Ok(reply) | Err(reply) => reply,
    }
}
