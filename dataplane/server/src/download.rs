//! `GET /download`: a file, parts of it, or a folder as zip.
//!
//! Source: RFC 9110 §13, §14; `docs/semantics.md#downloads`.

use std::rc::Rc;
use std::sync::Arc;

use proxy_anchor::{AnchorError, Opened, Stat, VFolderRoot, VolumeRoot};
use proxy_core::problem::{self, Kind, Problem};
use proxy_core::relpath::RelPath;
use proxy_core::token::{DownloadClaims, TokenError};
use proxy_core::units::{ByteLen, Offset};
use proxy_ring::FileRef;
use proxy_transfer::download::Piece;
use proxy_wire::byteranges::Multipart;
use proxy_wire::condition::{self, Outcome, Representation};
use proxy_wire::head::RequestHead;
use proxy_wire::query::DownloadParams;
use proxy_wire::range::{self, RangeOutcome, Span};
use proxy_wire::response::ResponseHead;
use proxy_wire::{date, disposition, etag};
use serde_json::json;

use crate::archive;
use crate::hot::Entry;
use crate::metrics::Cause;
use crate::names::{self, Busy};
use crate::reply::{Content, Reply};
use crate::route;
use crate::snapshot::{Snapshot, VolumeEntry};
use crate::story::About;
use crate::thread::{Thread, unix_now_s};

const OCTETS: &str = "application/octet-stream";

/// Answers `GET` and `HEAD`.
pub(crate) async fn get(thread: &Rc<Thread>, snapshot: &Snapshot, head: &RequestHead) -> Reply {
    let mut about = None;
    let (Ok(mut reply) | Err(mut reply)) = try_get(thread, snapshot, head, &mut about).await;
    reply.about = about;
    reply
}

async fn try_get(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    about: &mut Option<About>,
) -> Result<Reply, Reply> {
    let query = head.query.as_deref().unwrap_or_default();
    let now_unix_s = unix_now_s();
    if let Some(entry) = thread.hot.find(snapshot, query, now_unix_s) {
        *about = Some(entry.about);
        return Ok(file(snapshot, head, &entry.told, Arc::clone(&entry.file)));
    }
    let params = DownloadParams::parse(head.query.as_deref()).map_err(route::invalid)?;
    let claims =
        DownloadClaims::verify(&snapshot.secret, &params.token, now_unix_s).map_err(|error| {
            if names_absolute(&error) {
                not_found()
            } else {
                bad_token(error)
            }
        })?;
    if claims.unmanaged_path.is_some() {
        let problem = Problem::new(Kind::InvalidAPIParameters);
        return Err(problem.msg("unmanaged paths are not served").into());
    }
    let volume = volume(snapshot, &claims.volume)?;
    let known = About::new(volume, claims.vfid);
    *about = Some(known);
    let path = match &params.dst_dir {
        // An absolute prefix would replace the folder, so nothing is found there.
        Some(dir) => RelPath::parse(dir)
            .map_err(|_| not_found())?
            .join(&claims.relpath),
        None => claims.relpath.clone(),
    };
    let root = volume.root.clone().ok_or_else(|| unavailable(volume))?;
    if let Some(opened) = root.open_file_cached(&claims.vfid, &path) {
        let told = Told::new(&opened.stat, &path, params.no_cache);
        let fd = Arc::new(opened.fd);
        let reply = file(snapshot, head, &told, Arc::clone(&fd));
        if thread.hot.has_room() {
            let place = (root, known, path);
            let entry = Entry::new(query, claims.exp, place, (fd, opened.stat), told);
            thread.keep_hot(snapshot, Rc::new(entry));
        }
        return Ok(reply);
    }
    let (folder, opened) = open(thread, snapshot, volume, root, &claims, &path).await?;
    if opened.stat.is_file() {
        let told = Told::new(&opened.stat, &path, params.no_cache);
        return Ok(file(snapshot, head, &told, Arc::new(opened.fd)));
    }
    if !params.archive {
        let problem = Problem::new(Kind::InvalidAPIParameters);
        return Err(problem.msg("not a regular file").into());
    }
    let whole = archive::Whole {
        volume,
        stem: archive::folder_name(&folder, &path),
        folder,
        path: opened.stat.is_dir().then_some(path),
        package: params.package,
    };
    archive::of_one(thread, snapshot, head, whole).await
}

/// A token whose only fault is an absolute path: it would replace the folder, so nothing is found.
fn names_absolute(error: &TokenError) -> bool {
    let absolute = json!({ "relpath": "expected relative path but the value is absolute" });
    matches!(error, TokenError::Claims(failures) if *failures == absolute)
}

/// The volume of a token.
pub(crate) fn volume<'s>(
    snapshot: &'s Snapshot,
    name: &str,
) -> Result<&'s Arc<VolumeEntry>, Reply> {
    let unknown = || Reply::from(Problem::new(Kind::InvalidVolume).msg(name));
    snapshot.volumes.get(name).ok_or_else(unknown)
}

/// The answer to a token that does not verify.
pub(crate) fn bad_token(error: TokenError) -> Reply {
    let reply = problem::invalid_parameters(json!({ "token": error.failure() })).into();
    Reply {
        cause: Cause::Token,
        ..reply
    }
}

/// The answer to a volume that hangs.
pub(crate) fn busy(busy: Busy, volume: &VolumeEntry) -> Reply {
    tracing::warn!(
        volume = volume.name,
        backend = volume.backend,
        ?busy,
        "names do not answer"
    );
    if busy == Busy::Broken {
        return problem::internal_error().into();
    }
    let text = format!("volume {} does not answer in time", volume.name);
    let mut reply = Reply::from(Problem::new(Kind::VolumeUnavailable).msg(text));
    reply.head.push("Retry-After", "5");
    reply.cause = Cause::Timeout;
    reply
}

/// The answer where a volume's mount is not there.
pub(crate) fn unavailable(volume: &VolumeEntry) -> Reply {
    let text = format!("volume {} is not available", volume.name);
    Problem::new(Kind::VolumeUnavailable).msg(text).into()
}

/// The answer where the storage went away in the middle: the same again, later, may succeed.
pub(crate) fn storage_away(what: &str) -> Reply {
    let text =
        format!("the storage went away ({what}); try again, from the offset that HEAD tells");
    let mut reply = Reply::from(Problem::new(Kind::VolumeUnavailable).msg(text));
    reply.head.push("Retry-After", "1");
    reply
}

fn not_found() -> Reply {
    problem::download_not_found().into()
}

/// Opens from the kernel's caches on this thread, else on one that may wait.
async fn open(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    volume: &Arc<VolumeEntry>,
    root: VolumeRoot,
    claims: &DownloadClaims,
    path: &RelPath,
) -> Result<(VFolderRoot, Opened), Reply> {
    let cached = root
        .vfolder_cached(&claims.vfid)
        .and_then(|folder| match folder {
            Ok(folder) => Some(
                folder
                    .open_read_cached(path)?
                    .map(|opened| (folder, opened)),
            ),
            Err(error) => Some(Err(error)),
        });
    let outcome = match cached {
        Some(outcome) => outcome,
        None => {
            let (vfid, path) = (claims.vfid, path.clone());
            let job = move || {
                let folder = root.vfolder(&vfid)?;
                let opened = folder.open_read(&path)?;
                Ok((folder, opened))
            };
            names::run(&thread.setup.names, volume, &snapshot.limits, job)
                .await
                .map_err(|error| busy(error, volume))?
        }
    };
    outcome.map_err(|error| refused(&error))
}

fn refused(error: &AnchorError) -> Reply {
    // EACCES and EPERM: there is something, and the server may not read it.
    if matches!(error.errno(), Some(1 | 13)) {
        let mut reply = Reply::from(problem::text(403, ""));
        reply.head = ResponseHead::new(403);
        return reply;
    }
    if error.errno().is_some_and(problem::is_away) {
        tracing::error!(%error, "opening a download failed");
        return storage_away("open");
    }
    // EIO, ENOMEM, EMFILE and their like are no statement about the file.
    if let Some(errno @ (5 | 12 | 23 | 24)) = error.errno() {
        tracing::error!(errno, %error, "opening a download failed");
        return problem::internal_error().into();
    }
    not_found()
}

/// A regular file, as the client is told about it.
pub(crate) struct Told {
    disposition: String,
    no_cache: bool,
    tag: String,
    modified: String,
    mtime: (i64, u32),
    size: ByteLen,
}

impl Told {
    pub(crate) fn new(stat: &Stat, path: &RelPath, no_cache: bool) -> Self {
        let name = path.file_name().unwrap_or_default();
        let size = ByteLen::new(stat.size);
        let (mtime_s, mtime_ns) = split_ns(stat.mtime_ns);
        Self {
            disposition: disposition::attachment(name.as_bytes()),
            no_cache,
            tag: etag::make(mtime_s, mtime_ns, size.get()),
            modified: date::format(date::last_modified(mtime_s, mtime_ns)),
            mtime: (mtime_s, mtime_ns),
            size,
        }
    }

    fn head(&self, status: u16, content_type: &str) -> ResponseHead {
        let mut answer = ResponseHead::new(status)
            .with("Content-Type", content_type)
            .with("Content-Disposition", self.disposition.as_str());
        if self.no_cache {
            answer.push("Cache-Control", "no-store");
        }
        answer
    }

    fn validated(&self, answer: ResponseHead) -> ResponseHead {
        answer
            .with("Etag", self.tag.as_str())
            .with("Last-Modified", self.modified.as_str())
    }

    /// An answer with `len` bytes of body.
    fn with_body(&self, status: u16, content_type: &str, len: ByteLen) -> ResponseHead {
        self.validated(self.head(status, content_type))
            .with("Accept-Ranges", "bytes")
            .with("Content-Length", len.get())
    }
}

/// The answer for a regular file, by its conditions and ranges.
fn file(snapshot: &Snapshot, head: &RequestHead, told: &Told, file: FileRef) -> Reply {
    let (mtime_s, mtime_ns) = told.mtime;
    let known = Representation {
        etag: &told.tag,
        mtime_s,
        mtime_ns,
        size: told.size.get(),
    };
    let ranges = match condition::evaluate(&head.headers, &known, &head.method) {
        Outcome::NotModified => {
            return Reply::new(told.validated(told.head(304, OCTETS)), Content::None);
        }
        Outcome::PreconditionFailed => {
            return Reply::new(told.head(412, OCTETS), Content::Bytes(Vec::new()));
        }
        Outcome::Proceed { honour_range } if !honour_range => RangeOutcome::Whole,
        Outcome::Proceed { .. } => {
            range::of_request(&head.headers, told.size, &snapshot.limits.range)
        }
    };
    spans(told, ranges, file)
}

/// The answer that sends what `ranges` says.
fn spans(told: &Told, ranges: RangeOutcome, file: FileRef) -> Reply {
    let size = told.size;
    let span = |at, len| Piece::Span { at, len };
    let (answer, pieces) = match ranges {
        RangeOutcome::Whole => {
            let pieces = vec![span(Offset::ZERO, size)];
            (told.with_body(200, OCTETS, size), pieces)
        }
        RangeOutcome::One(one) => {
            let answer = told
                .with_body(206, OCTETS, one.len())
                .with("Content-Range", one.content_range(size));
            (answer, vec![span(one.start(), one.len())])
        }
        RangeOutcome::Many(many) => {
            let frame = Multipart::new(random(), OCTETS, size);
            let Some(len) = frame.content_length(&many) else {
                return problem::internal_error().into();
            };
            let answer = told.with_body(206, &frame.content_type(), len);
            (answer, multipart(&frame, &many))
        }
        RangeOutcome::Unsatisfiable => {
            let answer = told
                .head(416, OCTETS)
                .with("Content-Range", range::content_range_unsatisfied(size));
            return Reply::new(answer, Content::Bytes(Vec::new()));
        }
    };
    Reply::new(answer, Content::File { file, pieces })
}

fn multipart(frame: &Multipart, spans: &[Span]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(2 * spans.len() + 1);
    for span in spans {
        let mut part = Vec::new();
        frame.part_head(span, &mut part);
        pieces.push(Piece::Bytes(part));
        pieces.push(Piece::Span {
            at: span.start(),
            len: span.len(),
        });
    }
    let mut end = Vec::new();
    frame.end(&mut end);
    pieces.push(Piece::Bytes(end));
    pieces
}

/// A number that no file can know beforehand.
fn random() -> u128 {
    let mut bytes = [0; 16];
    // Without randomness the boundary is merely guessable by who writes the file.
    let _ = getrandom::fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// Full seconds and the nanoseconds beyond.
pub(crate) fn split_ns(ns: i128) -> (i64, u32) {
    let second = 1_000_000_000;
    let (s, ns) = (ns.div_euclid(second), ns.rem_euclid(second));
    (
        i64::try_from(s).unwrap_or(0),
        u32::try_from(ns).unwrap_or(0),
    )
}
