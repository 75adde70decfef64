//! What is answered to what became of a request.

use proxy_anchor::Room;
use proxy_core::extent::Extents;
use proxy_core::partial::Partial;
use proxy_core::problem::{self, Kind, Problem};
use proxy_core::token::UploadClaims;
use proxy_core::units::{ByteLen, Offset};
use proxy_transfer::PeerError;
use proxy_transfer::ledger::LedgerError;
use proxy_transfer::write::{Written, is_away};
use proxy_wire::head::RequestHead;
use proxy_wire::response::ResponseHead;
use proxy_wire::{date, part, tus};
use serde_json::{Map, Value, json};

use super::Request;
use crate::bridge::Refusal;
use crate::download::storage_away;
use crate::reply::{Content, Reply};

pub(super) fn session_not_found() -> Reply {
    let problem = Problem::new(Kind::TusSessionNotFound);
    problem
        .msg("the upload was never begun, was removed, or its folder is gone")
        .into()
}

pub(super) fn invalid_target(claims: &UploadClaims, why: &str) -> Reply {
    let text = format!(
        "{why} (vfid: {}, path: {})",
        claims.vfid,
        claims.relpath.as_str()
    );
    Problem::new(Kind::InvalidSubpath)
        .msg(text.clone())
        .data(json!(text))
        .into()
}

/// ENOSPC, EDQUOT.
pub(super) fn is_full(errno: i32) -> bool {
    matches!(errno, 28 | EDQUOT)
}

pub(super) const EDQUOT: i32 = 122;

/// 507: the quota or the disk is full. Clients retry it like any server error, and can go on from
/// the offset that HEAD tells. File systems say the one or the other as they like: the numbers
/// decide, where there are any.
pub(super) fn no_space(errno: i32, room: Option<Room>, durable: Option<Offset>) -> Reply {
    no_room_for(None, errno, room, durable)
}

/// As [`no_space`], where it is known how many bytes more were wanted.
pub(super) fn no_room_for(
    bytes: Option<u64>,
    errno: i32,
    room: Option<Room>,
    durable: Option<Offset>,
) -> Reply {
    let ended = room.and_then(|room| room.ends_with_quota());
    let quota = ended.or_else(|| room?.quota.filter(|_| errno == EDQUOT));
    let by_quota = errno == EDQUOT || quota.is_some();
    let mut data = Map::new();
    if let Some(durable) = durable {
        data.insert("upload_offset".to_owned(), durable.get().into());
    }
    let problem = if by_quota {
        let mut text = "quota exceeded".to_owned();
        if let Some(quota) = quota {
            let (used, limit) = (quota.used_bytes, quota.limit_bytes);
            text = format!("quota exceeded: {used} of {limit} bytes used");
            data.insert("used_bytes".to_owned(), used.into());
            data.insert("limit_bytes".to_owned(), limit.into());
        }
        if let Some(bytes) = bytes {
            text.push_str(&format!(", {bytes} more needed"));
            data.insert("needed_bytes".to_owned(), bytes.into());
        }
        Problem::new(Kind::QuotaExceeded).msg(text + "; continue when there is room again")
    } else {
        let mut text = "no space left on the volume".to_owned();
        if let Some(room) = room {
            text = format!("{text}: {} bytes free", room.free_bytes);
            data.insert("free_bytes".to_owned(), room.free_bytes.into());
        }
        Problem::new(Kind::NoSpace).msg(text + "; continue when there is space again")
    };
    let problem = match data.is_empty() {
        true => problem,
        false => problem.data(Value::Object(data)),
    };
    let mut reply = Reply::from(problem);
    if let Some(durable) = durable {
        reply.head.push(tus::UPLOAD_OFFSET, durable.get());
    }
    reply
}

pub(super) fn store_failed(request: &Request<'_>, text: &str) -> Reply {
    request.log("the session store failed", &text);
    problem::internal_error().into()
}

/// The state of a session: how far it is without a gap, and which bytes are there beyond.
pub(super) fn progress(request: &Request<'_>, status: u16, durable: &Extents) -> Reply {
    let mut head = ResponseHead::new(status);
    let (offset, size) = (Offset::new(durable.prefix()), request.size());
    head.extend(tus::progress_headers(offset, ByteLen::new(size.get())));
    if let Some(ranges) = part::upload_ranges(durable) {
        head.push(part::UPLOAD_RANGES, ranges);
    }
    if offset < size {
        head.push(tus::UPLOAD_EXPIRES, expires(request));
    }
    Reply::new(head, content_of(status))
}

/// The state of a partial upload.
pub(super) fn partial_progress(request: &Request<'_>, status: u16, partial: &Partial) -> Reply {
    let mut head = ResponseHead::new(status);
    let (offset, size) = (Offset::new(partial.offset), ByteLen::new(partial.length));
    head.extend(tus::progress_headers(offset, size));
    head.push(tus::UPLOAD_CONCAT, "partial");
    head.push(tus::UPLOAD_EXPIRES, expires(request));
    Reply::new(head, content_of(status))
}

fn content_of(status: u16) -> Content {
    if status == 201 {
        Content::Bytes(Vec::new())
    } else {
        Content::None
    }
}

/// When the session ends with its token.
fn expires(request: &Request<'_>) -> String {
    date::format(i64::try_from(request.claims.exp).unwrap_or(i64::MAX))
}

pub(super) fn refused_claim(request: &Request<'_>, refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::Held => Problem::new(Kind::TusLeaseHeld).into(),
        Refusal::Lost => Problem::new(Kind::TusLeaseLost).into(),
        Refusal::NotFound => session_not_found(),
        Refusal::Mixed => Problem::new(Kind::UploadPartConflict)
            .msg("an upload is sent as a whole or in partial uploads; DELETE it to begin anew")
            .into(),
        Refusal::TooManyRanges => Problem::new(Kind::UploadRangesMax)
            .msg("too many gaps: send parts that are next to those on record first")
            .into(),
        Refusal::Store(text) => store_failed(request, text),
        Refusal::Away => {
            let mut reply = Reply::text(503, "503: the other servers can not be asked now");
            reply.head.push("Retry-After", "1");
            reply
        }
        Refusal::Closed => {
            let mut reply = Reply::text(503, "503: the server is shutting down");
            reply.head.push("Retry-After", "5");
            reply
        }
    }
}

pub(super) fn mismatch(have: Offset, got: &dyn std::fmt::Display) -> Reply {
    let text = format!("the upload continues at {}, not at {got}", have.get());
    Problem::new(Kind::UploadOffsetMismatch).msg(text).into()
}

/// Where a request said that it begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// At an offset, to go on from there.
    Offset(Offset),
    /// At the place of a part.
    Part,
}

/// The answer to what became of a body.
pub(super) async fn outcome(
    request: &Request<'_>,
    asked: Asked,
    written: Written<Reply>,
) -> Result<Reply, Reply> {
    match written {
        Written::NoSpace { durable, error } => Err(full(request, &durable, &error).await),
        written => settled(request, asked, written),
    }
}

/// The answer to what became of a body, where nothing has to be asked for it.
pub(super) fn settled(
    request: &Request<'_>,
    asked: Asked,
    written: Written<Reply>,
) -> Result<Reply, Reply> {
    match written {
        Written::Stored { durable, .. } => Ok(progress(request, 204, &durable)),
        Written::Mismatch { have } => Err(match asked {
            Asked::Offset(offset) => mismatch(have, &offset.get()),
            Asked::Part => mismatch(have, &"the place of this part"),
        }),
        Written::TooLong { missing } => {
            let text = format!(
                "the body is longer than the {} bytes missing",
                missing.get()
            );
            Err(Problem::new(Kind::InvalidDataLength).msg(text).into())
        }
        Written::TooShort { missing } => {
            let text = format!(
                "the body ended {} bytes before its Content-Range",
                missing.get()
            );
            Err(Problem::new(Kind::InvalidDataLength).msg(text).into())
        }
        Written::Differs { at } => {
            let text = format!("other bytes than these are on record from {} on", at.get());
            Err(Problem::new(Kind::UploadPartConflict).msg(text).into())
        }
        Written::Checksum => Err(Problem::new(Kind::UploadChecksumMismatch)
            .msg("the body is not what Upload-Checksum says; nothing of it was kept")
            .into()),
        Written::NoSpace { durable, error } => {
            let durable = Offset::new(durable.prefix());
            Err(no_space(
                error.raw_os_error().unwrap_or(28),
                None,
                Some(durable),
            ))
        }
        Written::Paused { .. } => Err(closing(refused_claim(request, &Refusal::Lost))),
        Written::Cut { error, .. } => Err(closing(cut(&error))),
        Written::Disk {
            operation,
            error,
            ended,
        } => {
            request.log(WHAT_ENDED[usize::from(ended)], &error);
            let text = format!("{operation}: {error}");
            if is_away(&error) {
                return Err(storage_away(&text));
            }
            Err(Problem::new(Kind::StorageProxy).msg(text).into())
        }
        Written::Ledger(LedgerError::NotFound) => Err(session_not_found()),
        Written::Ledger(LedgerError::Held) => Err(refused_claim(request, &Refusal::Held)),
        Written::Ledger(LedgerError::Lost) => Err(closing(refused_claim(request, &Refusal::Lost))),
        Written::Ledger(LedgerError::Ending) => {
            Err(closing(refused_claim(request, &Refusal::Closed)))
        }
        Written::Ledger(LedgerError::Other(reply)) => Err(reply),
    }
}

/// The answer to a client of tus whose body was not taken to its end because the server ends: so
/// far it is, go on from there. Clients do, and on a new connection, which a successor answers.
/// `None` for whoever might take 204 for all of it.
pub(super) fn paused(
    request: &Request<'_>,
    head: &RequestHead,
    at: Offset,
    written: &Written<Reply>,
) -> Option<Reply> {
    head.headers.get(tus::TUS_RESUMABLE_LOWER)?;
    if head.headers.get(tus::UPLOAD_CHECKSUM_LOWER).is_some() {
        return None;
    }
    let durable = match written {
        Written::Paused { durable } => durable.clone(),
        Written::Ledger(LedgerError::Ending) => Extents::prefix_of(at.get()),
        _ => return None,
    };
    Some(closing(progress(request, 204, &durable)))
}

const WHAT_ENDED: [&str; 2] = ["an upload failed", "an upload is over"];

async fn full(request: &Request<'_>, durable: &Extents, error: &std::io::Error) -> Reply {
    let durable = Offset::new(durable.prefix());
    let room = request.room().await;
    tracing::warn!(
        volume = request.volume.name,
        backend = request.volume.backend,
        vfolder_id = %request.claims.vfid,
        operation = "upload",
        durable = durable.get(),
        %error,
        "no space left for an upload"
    );
    let errno = error.raw_os_error().unwrap_or(28);
    no_space(errno, room, Some(durable))
}

/// The answer to a body that did not come to its end; the client may be there to read it.
fn cut(error: &PeerError) -> Reply {
    match error {
        PeerError::Malformed(text) => Reply::text(400, &format!("400: Bad Request: {text}")),
        PeerError::Stalled => Reply::text(408, "408: Request Timeout"),
        PeerError::ShuttingDown => Reply::text(503, "503: the server is shutting down"),
        PeerError::Gone => Reply::text(400, "400: Bad Request: the body ended early"),
    }
}

fn closing(mut reply: Reply) -> Reply {
    reply.close = true;
    reply
}
