//! POST with `Upload-Concat: final`: the pieces become the file.
//!
//! Pieces were placed when they were made, in the order of making. If the client's order is the
//! same, nothing is moved: the staging file gets its name. If not, the pieces are copied in the
//! right order into a new file, by the file system's own copy, which shares blocks where it can;
//! the old one stays until the new one has its name, so a crash costs a repetition.
//!
//! Source: tus 1.0.0, extension concatenation.

use std::io;
use std::sync::Arc;

use proxy_anchor::{AnchorError, staging};
use proxy_core::extent::{Extents, Want};
use proxy_core::grammar::parse_query;
use proxy_core::id::SessionId;
use proxy_core::partial::{self, Partial};
use proxy_core::problem::{Kind, Problem};
use proxy_core::relpath::STAGING_DIR;
use proxy_core::units::{MIB, Offset};
use proxy_ring::FileRef;
use proxy_transfer::ledger::Ledger;
use proxy_wire::tus;

use super::answer::progress;
use super::create::told;
use super::ledger::{Held, SessionLedger, Taken};
use super::{Request, bad};
use crate::bridge::{Known, Report};
use crate::reply::Reply;

/// Bytes that one call copies: no call may take as long as a call on names may.
const COPY_BYTES: u64 = 64 * MIB;

/// See [`super::post`].
pub(super) async fn answer(request: &Request<'_>, addresses: &[String]) -> Result<Reply, Reply> {
    let sessions = SessionLedger {
        request,
        part: None,
    };
    let taken = sessions.take(Want::alone()).await;
    if let Taken::Ours(held) = taken.map_err(|error| told(request, error))? {
        let pieces = order(request, &held.grant.known, addresses)?;
        if partial::are_in_place(&pieces) {
            let finished = sessions.finish(&held, Offset::ZERO).await;
            finished.map_err(|error| told(request, error))?;
        } else {
            rearrange(request, &held, &pieces).await?;
        }
    }
    let mut reply = progress(request, 201, &Extents::prefix_of(request.size().get()));
    reply.head.push("Location", request.location(None));
    reply
        .head
        .push(tus::UPLOAD_CONCAT, format!("final;{}", addresses.join(" ")));
    Ok(reply)
}

/// The pieces in the client's order: each once, each whole, together the file.
fn order(
    request: &Request<'_>,
    known: &Known,
    addresses: &[String],
) -> Result<Vec<Partial>, Reply> {
    let mut pieces: Vec<Partial> = Vec::new();
    for address in addresses {
        let number = number_in(request, address);
        let piece = number.and_then(|number| known.partial(number));
        let piece = piece.ok_or_else(|| bad("no such partial upload".to_owned()))?;
        if pieces.iter().any(|other| other.number == piece.number) {
            return Err(bad("a partial upload is named twice".to_owned()));
        }
        if !piece.is_whole() {
            return Err(bad(format!(
                "partial upload {} is not finished",
                piece.number
            )));
        }
        pieces.push(piece);
    }
    let sum: u64 = pieces.iter().map(|piece| piece.length).sum();
    if sum != request.size().get() {
        let text = format!("the partial uploads have {sum} bytes together");
        return Err(Problem::new(Kind::InvalidDataLength).msg(text).into());
    }
    Ok(pieces)
}

/// The number of a partial upload of this session in its address.
fn number_in(request: &Request<'_>, address: &str) -> Option<u32> {
    let pairs = parse_query(tus::query_of(address)?);
    let value = |key: &str| {
        let found = pairs.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    };
    let token = value("token")?;
    if !request.is_own_token(token) {
        return None;
    }
    value("part")?.parse().ok()
}

/// Copies the pieces into a new file in their order, and puts that one in its place.
async fn rearrange(request: &Request<'_>, held: &Held, pieces: &[Partial]) -> Result<(), Reply> {
    let scratch = SessionId::random();
    let copied = copy(request, held, pieces, scratch).await;
    let finished = match copied {
        Ok(()) => publish(request, held, scratch).await,
        Err(reply) => Err(reply),
    };
    let gone = if finished.is_ok() {
        request.claims.session
    } else {
        scratch
    };
    let removed = request.on_folder(move |folder| staging::discard(folder, &gone));
    // What can not be removed now is collected later.
    let _ = removed.await;
    finished
}

async fn copy(
    request: &Request<'_>,
    held: &Held,
    pieces: &[Partial],
    scratch: SessionId,
) -> Result<(), Reply> {
    let made = request.on_folder(move |folder| staging::create(folder, &scratch));
    let made = request.told(made.await?).await?;
    let (from, to) = (Arc::clone(held.file.plain()), Arc::new(made.fd));
    let mut at = 0;
    for piece in pieces {
        let mut done = 0;
        while done < piece.length {
            let count = (piece.length - done).min(COPY_BYTES);
            let (from, to) = (Arc::clone(&from), Arc::clone(&to));
            let source = piece.place + done;
            let step = request.on_folder(move |_| copy_range(&from, source, &to, at, count));
            request.told(step.await?).await?;
            at += count;
            done += count;
        }
    }
    let synced = request.on_folder(move |_| {
        rustix::fs::fsync(&to).map_err(|errno| os("sync", io::Error::from(errno)))
    });
    request.told(synced.await?).await
}

fn copy_range(
    from: &FileRef,
    source: u64,
    to: &FileRef,
    target: u64,
    count: u64,
) -> Result<(), AnchorError> {
    let (mut source, mut target, end) = (source, target, target + count);
    while target < end {
        let want = usize::try_from(end - target).unwrap_or(usize::MAX);
        let copied =
            rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), want);
        match copied {
            Ok(0) => return Err(os("copy", io::ErrorKind::UnexpectedEof.into())),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(os("copy", io::Error::from(errno))),
        }
    }
    Ok(())
}

fn os(op: &'static str, error: io::Error) -> AnchorError {
    AnchorError::Os {
        op,
        errno: error.raw_os_error().unwrap_or(5),
        path: STAGING_DIR.to_owned(),
    }
}

async fn publish(request: &Request<'_>, held: &Held, scratch: SessionId) -> Result<(), Reply> {
    let target = request.target.clone();
    let published = request.on_folder(move |folder| staging::publish(folder, &scratch, &target));
    request.told(published.await?).await?;
    let target = request.target.clone();
    let finished = held.grant.report(|reply| Report::Finish {
        last_from: Offset::ZERO,
        target,
        reply,
    });
    let sessions = SessionLedger {
        request,
        part: None,
    };
    let finished = finished.await;
    finished.map_err(|refusal| told(request, sessions.told(refusal)))
}
