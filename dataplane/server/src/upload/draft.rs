//! Resumable Uploads for HTTP, interop version 8, on the same resource.
//!
//! The token says the length, so an upload is complete when its bytes are there, whatever a
//! request says of it; one that says it is complete before that is refused.
//!
//! Source: draft-ietf-httpbis-resumable-upload; `docs/semantics.md#draft`.

use proxy_core::extent::Extents;
use proxy_core::units::Offset;
use proxy_transfer::Source;
use proxy_transfer::write::Written;
use proxy_wire::head::{RequestHead, Version};
use proxy_wire::response::ResponseHead;
use proxy_wire::{draft, tus};
use serde_json::Value;

use super::answer::{Asked, outcome};
use super::checked::Checked;
use super::create::check_length;
use super::{Request, bad, head, patch};
use crate::body::Body;
use crate::reply::{Content, Reply};
use crate::thread::unix_now_s;

/// HEAD: how far it is.
pub(super) async fn head(request: &Request<'_>) -> Result<Reply, Reply> {
    let (durable, _) = head::state(request).await?;
    Ok(state(request, 204, &durable))
}

/// POST and PUT: creates the upload and takes its first bytes.
pub(super) async fn create(
    request: &Request<'_>,
    head: &RequestHead,
    is_complete: bool,
    body: &mut Body<'_>,
) -> Result<Reply, Reply> {
    check_lengths(request, head, Offset::ZERO, is_complete, body)?;
    check_length(request, None)?;
    request.begin().await?;
    let location = request.location(None);
    if head.version != Version::Http10 {
        let interim = draft::interim(&location, &limit(request));
        // A client that does not take it is gone: the body will say so.
        let _ = body.inform(&interim).await;
    }
    let mut reply = append(request, head, Offset::ZERO, is_complete, body).await?;
    if reply.head.status() == 204 {
        reply = restated(reply, 201);
    }
    reply.head.push("Location", location);
    Ok(reply)
}

/// PATCH: goes on.
pub(super) async fn patch(
    request: &Request<'_>,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Result<Reply, Reply> {
    let content_type = head.headers.get("content-type");
    if !content_type.is_some_and(draft::is_partial_upload) {
        let mut reply = Reply::text(415, "415: Unsupported Media Type");
        reply.head.push("Accept-Patch", draft::PARTIAL_UPLOAD);
        return Err(reply);
    }
    let offset = head.headers.get(tus::UPLOAD_OFFSET_LOWER);
    let offset = offset.and_then(tus::parse_length).map(Offset::new);
    let offset = offset.ok_or_else(|| bad("Upload-Offset is missing".to_owned()))?;
    let is_complete = head.headers.get(draft::UPLOAD_COMPLETE_LOWER);
    let is_complete = is_complete.and_then(draft::parse_bool);
    let is_complete = is_complete.ok_or_else(|| bad("Upload-Complete is missing".to_owned()))?;
    check_lengths(request, head, offset, is_complete, body)?;
    request.fits(body.remaining(), offset).await?;
    append(request, head, offset, is_complete, body).await
}

async fn append(
    request: &Request<'_>,
    head: &RequestHead,
    offset: Offset,
    is_complete: bool,
    body: &mut Body<'_>,
) -> Result<Reply, Reply> {
    let mut body = Checked::new(head, body)?;
    match patch::store(request, offset, &mut body).await {
        Written::Stored { durable, .. } => {
            if is_complete && !durable.is_whole(request.size().get()) {
                return Err(problem(400, &draft::inconsistent_length()));
            }
            if request.size() == Offset::ZERO {
                request.move_empty().await?;
            }
            Ok(state(request, 204, &durable))
        }
        Written::Mismatch { have } if have == request.size() => {
            let mut reply = problem(400, &draft::completed_upload());
            reply
                .head
                .push(draft::UPLOAD_COMPLETE, draft::boolean(true));
            reply.head.push(tus::UPLOAD_OFFSET, have.get());
            Err(reply)
        }
        Written::Mismatch { have } => {
            let body = draft::mismatching_offset(have.get(), offset.get());
            let mut reply = problem(409, &body);
            reply
                .head
                .push(draft::UPLOAD_COMPLETE, draft::boolean(false));
            reply.head.push(tus::UPLOAD_OFFSET, have.get());
            Err(reply)
        }
        Written::TooLong { .. } => Err(problem(400, &draft::inconsistent_length())),
        other => outcome(request, Asked::Offset(offset), other).await,
    }
}

/// Every way in which a request says a length must say the token's.
fn check_lengths(
    request: &Request<'_>,
    head: &RequestHead,
    offset: Offset,
    is_complete: bool,
    body: &Body<'_>,
) -> Result<(), Reply> {
    let size = request.size().get();
    let said = head.headers.get(tus::UPLOAD_LENGTH_LOWER);
    // A length that is no number counts as absent.
    let said = said.and_then(tus::parse_length);
    let ends = body
        .remaining()
        .map(|bytes| offset.get().saturating_add(bytes));
    let is_whole = ends.is_none_or(|end| end == size);
    // An empty request that only says "complete" is answered with the offset, if that is wrong.
    let is_empty = body.remaining() == Some(0) && offset.get() <= size;
    if said.is_some_and(|said| said != size) || (is_complete && !is_whole && !is_empty) {
        return Err(problem(400, &draft::inconsistent_length()));
    }
    Ok(())
}

fn limit(request: &Request<'_>) -> String {
    let age = request.claims.exp.saturating_sub(unix_now_s());
    draft::limit(request.snapshot.upload_size_max.get(), Some(age))
}

/// The state of an upload, in the draft's words.
fn state(request: &Request<'_>, status: u16, durable: &Extents) -> Reply {
    let size = request.size().get();
    let head = ResponseHead::new(status)
        .with("Cache-Control", "no-store")
        .with(draft::INTEROP, draft::INTEROP_VERSION)
        .with(
            draft::UPLOAD_COMPLETE,
            draft::boolean(durable.is_whole(size)),
        )
        .with(tus::UPLOAD_OFFSET, durable.prefix())
        .with(tus::UPLOAD_LENGTH, size)
        .with(draft::UPLOAD_LIMIT, limit(request));
    Reply::new(head, Content::None)
}

/// The same answer with another status, and with a body that is empty.
fn restated(reply: Reply, status: u16) -> Reply {
    let head = reply.head.restated(status);
    let content = Content::Bytes(Vec::new());
    Reply {
        head,
        content,
        ..reply
    }
}

fn problem(status: u16, body: &Value) -> Reply {
    let mut head = ResponseHead::new(status);
    head.push("Content-Type", "application/problem+json");
    head.push(draft::INTEROP, draft::INTEROP_VERSION);
    Reply::new(head, Content::Bytes(body.to_string().into_bytes()))
}
