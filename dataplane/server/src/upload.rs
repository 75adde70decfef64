//! `/upload`: tus 1.0.0, core protocol.
//!
//! Source: tus 1.0.0; `docs/semantics.md#uploads`.

use std::rc::Rc;
use std::sync::Arc;

use proxy_anchor::{AnchorError, VFolderRoot, VolumeRoot, staging};
use proxy_core::problem::{self, Kind, Problem};
use proxy_core::relpath::{RelPath, STAGING_DIR};
use proxy_core::token::UploadClaims;
use proxy_core::units::{ByteLen, MIB, Offset};
use proxy_ring::{FileRef, StagedFile};
use proxy_transfer::PeerError;
use proxy_transfer::patch::{self, Claimed, Ledger, LedgerError, PatchRequest, Patched};
use proxy_wire::head::RequestHead;
use proxy_wire::query::UploadParams;
use proxy_wire::response::ResponseHead;
use proxy_wire::tus::{self, UploadOffset};
use serde_json::json;

use crate::body::Body;
use crate::bridge::{self, Known, Refusal, Report};
use crate::download::{bad_token, busy, unavailable, volume};
use crate::names;
use crate::reply::{Content, Reply};
use crate::route;
use crate::snapshot::{Snapshot, VolumeEntry};
use crate::thread::{Thread, unix_now_s};

/// `OPTIONS /upload`: what the server can do.
pub(crate) fn options(snapshot: &Snapshot) -> Reply {
    let mut head = ResponseHead::new(200);
    head.extend(tus::options_headers(snapshot.upload_size_max));
    Reply::new(head, Content::Bytes(Vec::new()))
}

/// One request about one session.
struct Request<'r> {
    thread: &'r Rc<Thread>,
    snapshot: &'r Snapshot,
    volume: &'r Arc<VolumeEntry>,
    root: VolumeRoot,
    claims: UploadClaims,
    /// Where the file goes.
    target: RelPath,
}

impl<'r> Request<'r> {
    fn parse(
        thread: &'r Rc<Thread>,
        snapshot: &'r Snapshot,
        head: &RequestHead,
    ) -> Result<Self, Reply> {
        let params = UploadParams::parse(head.query.as_deref()).map_err(route::invalid)?;
        let claims = UploadClaims::verify(&snapshot.secret, &params.token, unix_now_s())
            .map_err(bad_token)?;
        let volume = volume(snapshot, &claims.volume)?;
        let root = volume.root.clone().ok_or_else(|| unavailable(volume))?;
        let target = match &params.dst_dir {
            Some(dir) => RelPath::parse(dir)
                .map_err(|_| invalid_target(&claims, "dst_dir is absolute"))?
                .join(&claims.relpath),
            None => claims.relpath.clone(),
        };
        Ok(Self {
            thread,
            snapshot,
            volume,
            root,
            claims,
            target,
        })
    }

    fn size(&self) -> Offset {
        Offset::new(u64::try_from(self.claims.size).unwrap_or(0))
    }

    /// Runs a call on the session's folder on a thread that may wait.
    async fn on_folder<T: Send + 'static>(
        &self,
        job: impl FnOnce(&VFolderRoot) -> Result<T, AnchorError> + Send + 'static,
    ) -> Result<Result<T, AnchorError>, Reply> {
        let (root, vfid) = (self.root.clone(), self.claims.vfid);
        let run = move || root.vfolder(&vfid).and_then(|folder| job(&folder));
        let limits = &self.snapshot.limits;
        names::run(&self.thread.setup.names, self.volume, limits, run)
            .await
            .map_err(|error| busy(error, self.volume))
    }

    fn log(&self, what: &str, error: &dyn std::fmt::Display) {
        tracing::error!(
            volume = self.volume.name,
            backend = self.volume.backend,
            vfolder_id = %self.claims.vfid,
            session = %self.claims.session,
            operation = "upload",
            %error,
            "{what}"
        );
    }

    /// The answer to a name that is refused.
    fn refused(&self, error: &AnchorError) -> Reply {
        match error {
            AnchorError::VFolderMissing => session_not_found(),
            AnchorError::Escapes | AnchorError::Reserved | AnchorError::InvalidName => {
                invalid_target(&self.claims, &error.to_string())
            }
            // A loop of links leads nowhere.
            AnchorError::Os { errno: 40, .. } => invalid_target(&self.claims, &error.to_string()),
            // EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, ENAMETOOLONG: something else has that name.
            AnchorError::Os {
                errno: 17 | 20 | 21 | 39 | 36,
                ..
            } => {
                let text = format!("the file can not get its name: {error}");
                Problem::new(Kind::TargetConflict).msg(text).into()
            }
            AnchorError::Os { errno, .. } if is_full(*errno) => {
                no_space(*errno, &error.to_string(), None)
            }
            AnchorError::Os {
                errno: 1 | 13 | 30, ..
            } => Reply::from(problem::text(403, &format!("403: {error}"))),
            _ => {
                self.log("a name can not be used", error);
                problem::internal_error().into()
            }
        }
    }
}

fn session_not_found() -> Reply {
    let problem = Problem::new(Kind::TusSessionNotFound);
    problem
        .msg("the upload was never begun, was removed, or its folder is gone")
        .into()
}

fn invalid_target(claims: &UploadClaims, why: &str) -> Reply {
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
fn is_full(errno: i32) -> bool {
    matches!(errno, 28 | EDQUOT)
}

const EDQUOT: i32 = 122;

/// Uploads from this size on go past the page cache where the volume can do that: below, the copy
/// costs less than the second descriptor.
const DIRECT_BYTES_MIN: u64 = MIB;

/// 507: the disk or the quota is full. Clients retry it like any server error, and can go on from
/// the offset that HEAD tells.
fn no_space(errno: i32, text: &str, durable: Option<Offset>) -> Reply {
    let kind = if errno == EDQUOT {
        Kind::QuotaExceeded
    } else {
        Kind::NoSpace
    };
    let problem = Problem::new(kind).msg(text);
    let Some(durable) = durable else {
        return problem.into();
    };
    let mut reply = Reply::from(problem.data(json!({ "upload_offset": durable.get() })));
    reply.head.push(tus::UPLOAD_OFFSET, durable.get());
    reply
}

fn store_failed(request: &Request<'_>, text: &str) -> Reply {
    request.log("the session store failed", &text);
    problem::internal_error().into()
}

fn progress(status: u16, offset: Offset, size: Offset) -> Reply {
    let mut head = ResponseHead::new(status);
    head.extend(tus::progress_headers(offset, ByteLen::new(size.get())));
    Reply::new(head, Content::None)
}

/// `HEAD /upload`: how far it is.
pub(crate) async fn head(thread: &Rc<Thread>, snapshot: &Snapshot, head: &RequestHead) -> Reply {
    match try_head(thread, snapshot, head).await {
        Ok(reply) | Err(reply) => reply,
    }
}

async fn try_head(
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
        return Ok(progress(200, known.offset, request.size()));
    }
    let opened = request
        .on_folder(move |folder| staging::open(folder, &session))
        .await?;
    match opened {
        Ok(staged) => {
            // A file that is not the one on record holds none of the recorded bytes.
            let ours = known.filter(|known| known.staged.0 == staged.ino);
            let offset = ours.map_or(Offset::ZERO, |known| known.offset);
            Ok(progress(200, offset, request.size()))
        }
        Err(error) if error.is_not_found() => {
            if let Some(known) = known
                && request.is_published(&known).await?
            {
                return Ok(progress(200, request.size(), request.size()));
            }
            Err(session_not_found())
        }
        Err(error) => Err(request.refused(&error)),
    }
}

impl Request<'_> {
    /// Whether the staged file has its name already, though no record says so: a crash came between
    /// the rename and its record, or the writer is about to make the record. Nothing is claimed
    /// for that: it would revoke the writer.
    async fn is_published(&self, known: &Known) -> Result<bool, Reply> {
        let ((ino, dev), size) = (known.staged, known.size);
        let target = self.target.clone();
        let published = self
            .on_folder(move |folder| staging::is_published(folder, ino, dev, size, &target))
            .await?;
        Ok(published.unwrap_or(false))
    }
}

impl Request<'_> {
    /// Empty files are made with their token, before anybody can say `dst_dir`: the first request
    /// that says it moves the file there, as long as nobody has touched it.
    async fn move_empty(&self) -> Result<(), Reply> {
        let session = self.claims.session;
        let known = self.thread.setup.bridge.look(session).await;
        let known = known.map_err(|refusal| refused_claim(self, &refusal))?;
        let Some((made, (ino, _))) = known
            .and_then(|known| Some((known.finished?.0, known.staged)))
            .filter(|(made, _)| *made != self.target)
        else {
            return Ok(());
        };
        let target = self.target.clone();
        let moved = self.on_folder(move |folder| {
            match folder.stat(&made, false) {
                Ok(stat) if stat.ino == ino && stat.size == 0 => {}
                _ => return Ok(()),
            }
            staging::check_target(folder, &target)?;
            staging::create(folder, &session)?;
            staging::publish(folder, &session, &target)?;
            folder.unlink(&made)
        });
        moved.await?.map_err(|error| self.refused(&error))
    }
}

fn refused_claim(request: &Request<'_>, refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::Held => Problem::new(Kind::TusLeaseHeld).into(),
        Refusal::Lost => Problem::new(Kind::TusLeaseLost).into(),
        Refusal::NotFound => session_not_found(),
        Refusal::Store(text) => store_failed(request, text),
        Refusal::Closed => {
            let mut reply = Reply::text(503, "503: the server is shutting down");
            reply.head.push("Retry-After", "5");
            reply
        }
    }
}

/// `PATCH /upload`: more of it.
pub(crate) async fn patch(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Reply {
    match try_patch(thread, snapshot, head, body).await {
        Ok(reply) | Err(reply) => reply,
    }
}

async fn try_patch(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Result<Reply, Reply> {
    let request = Request::parse(thread, snapshot, head)?;
    let bad = |text: String| Reply::from(Problem::new(Kind::InvalidAPIParameters).msg(text));
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
    let patched = patch::patch(&thread.staging, body, &sessions, wanted).await;
    let reply = answer(&request, offset, patched)?;
    if request.size() == Offset::ZERO {
        request.move_empty().await?;
    }
    Ok(reply)
}

fn mismatch(have: Offset, got: &dyn std::fmt::Display) -> Reply {
    let text = format!("the upload continues at {}, not at {got}", have.get());
    Problem::new(Kind::UploadOffsetMismatch).msg(text).into()
}

fn answer(request: &Request<'_>, asked: Offset, patched: Patched<Reply>) -> Result<Reply, Reply> {
    match patched {
        Patched::Stored { offset, size } => Ok(progress(204, offset, size)),
        Patched::Mismatch { have } => Err(mismatch(have, &asked.get())),
        Patched::TooLong { missing } => {
            let text = format!(
                "the body is longer than the {} bytes missing",
                missing.get()
            );
            Err(Problem::new(Kind::InvalidDataLength).msg(text).into())
        }
        Patched::NoSpace { durable, error } => Err(full(request, durable, &error)),
        Patched::Cut { error, .. } => Err(closing(cut(&error))),
        Patched::Disk {
            operation,
            error,
            ended,
        } => {
            request.log(WHAT_ENDED[usize::from(ended)], &error);
            let text = format!("{operation}: {error}");
            Err(Problem::new(Kind::StorageProxy).msg(text).into())
        }
        Patched::Ledger(LedgerError::NotFound) => Err(session_not_found()),
        Patched::Ledger(LedgerError::Held) => Err(refused_claim(request, &Refusal::Held)),
        Patched::Ledger(LedgerError::Lost) => Err(closing(refused_claim(request, &Refusal::Lost))),
        Patched::Ledger(LedgerError::Other(reply)) => Err(reply),
    }
}

const WHAT_ENDED: [&str; 2] = ["an upload failed", "an upload is over"];

fn full(request: &Request<'_>, durable: Offset, error: &std::io::Error) -> Reply {
    tracing::warn!(
        volume = request.volume.name,
        backend = request.volume.backend,
        vfolder_id = %request.claims.vfid,
        operation = "upload",
        durable = durable.get(),
        %error,
        "no space left for an upload"
    );
    let text = format!("{error}; continue when there is space again");
    let errno = error.raw_os_error().unwrap_or(28);
    no_space(errno, &text, Some(durable))
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

impl Request<'_> {
    /// Whether there is such a session at all.
    async fn exists(&self) -> Result<bool, Reply> {
        let session = self.claims.session;
        let known = self.thread.setup.bridge.look(session).await;
        let known = known.map_err(|refusal| refused_claim(self, &refusal))?;
        if known.is_some_and(|known| known.finished.is_some()) {
            return Ok(true);
        }
        let opened = self
            .on_folder(move |folder| staging::open(folder, &session))
            .await?;
        Ok(opened.is_ok())
    }

    /// Durable bytes of an existing session.
    async fn offset(&self) -> Result<Offset, Reply> {
        if !self.exists().await? {
            return Err(session_not_found());
        }
        let known = self.thread.setup.bridge.look(self.claims.session).await;
        let known = known.map_err(|refusal| refused_claim(self, &refusal))?;
        Ok(known.map_or(Offset::ZERO, |known| known.offset))
    }
}

/// The sessions behind the bridge and the names behind `anchor`, as the upload machine sees them.
struct SessionLedger<'r> {
    request: &'r Request<'r>,
}

/// A claimed session and its staging file.
pub(crate) struct Held {
    grant: bridge::Grant,
    file: StagedFile,
    /// The grant's signal has come, one way or the other: it must not be waited for again.
    told: bool,
}

impl From<Refusal> for LedgerError<Reply> {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Held => Self::Held,
            Refusal::Lost => Self::Lost,
            Refusal::NotFound => Self::NotFound,
            Refusal::Store(_) | Refusal::Closed => Self::Other(problem::internal_error().into()),
        }
    }
}

impl SessionLedger<'_> {
    fn told(&self, refusal: Refusal) -> LedgerError<Reply> {
        match refusal {
            Refusal::Store(_) | Refusal::Closed => {
                LedgerError::Other(refused_claim(self.request, &refusal))
            }
            other => other.into(),
        }
    }
}

impl Ledger for SessionLedger<'_> {
    type File = StagedFile;
    type Grant = Held;
    type Error = Reply;

    async fn claim(&self, wanted: Offset) -> Result<Claimed<Held>, LedgerError<Reply>> {
        let request = self.request;
        let session = request.claims.session;
        let size = request.size();
        let target = request.target.clone();
        let is_large = request.volume.direct && request.size().get() >= DIRECT_BYTES_MIN;
        let opened = request
            .on_folder(move |folder| {
                let staged = staging::open(folder, &session)?;
                let direct = is_large.then(|| staged.direct()).flatten();
                // Known before the bytes are taken: a target that can not be.
                staging::check_target(folder, &target)?;
                Ok((staged, direct))
            })
            .await
            .map_err(LedgerError::Other)?;
        let finished = |known: &Known| {
            let last_from = known.finished.as_ref().map_or(size, |(_, from)| *from);
            Claimed::Finished { last_from, size }
        };
        let (staged, direct) = match opened {
            Ok(opened) => opened,
            Err(error) if error.is_not_found() && is_about_staging(&error) => {
                let known = request.thread.setup.bridge.look(session).await;
                return match known.map_err(|refusal| self.told(refusal))? {
                    Some(known) if known.finished.is_some() => Ok(finished(&known)),
                    Some(known) => {
                        let published = request.is_published(&known).await;
                        if !published.map_err(LedgerError::Other)? {
                            return Err(LedgerError::NotFound);
                        }
                        let last_from = known.offset;
                        Ok(Claimed::Finished { last_from, size })
                    }
                    None => Err(LedgerError::NotFound),
                };
            }
            Err(error) => return Err(LedgerError::Other(request.refused(&error))),
        };
        let place = (staged.ino, staged.dev);
        let bridge = &request.thread.setup.bridge;
        let claimed = bridge.claim(request.claims.clone(), place, wanted).await;
        match claimed.map_err(|refusal| self.told(refusal))? {
            bridge::Claimed::Finished(known) => Ok(finished(&known)),
            bridge::Claimed::Granted(grant) => {
                let offset = grant.offset;
                let file = StagedFile::new(Arc::new(staged.fd), direct.map(Arc::new));
                Ok(Claimed::Ours {
                    grant: Held {
                        grant,
                        file,
                        told: false,
                    },
                    offset,
                    size,
                })
            }
        }
    }

    async fn open(&self, held: &Held) -> Result<StagedFile, LedgerError<Reply>> {
        Ok(held.file.clone())
    }

    async fn revoked(&self, held: &mut Held) -> Option<Offset> {
        if held.told {
            return std::future::pending().await;
        }
        let signal = (&mut held.grant.revoked).await;
        held.told = true;
        match signal {
            Ok(newcomer) => newcomer,
            // The lease ended in another way; the next report will say so.
            Err(_) => std::future::pending().await,
        }
    }

    async fn advance(&self, held: &Held, to: Offset) -> Result<(), LedgerError<Reply>> {
        let told = held
            .grant
            .report(|reply| Report::Advance { to, reply })
            .await;
        told.map_err(|refusal| self.told(refusal))
    }

    async fn finish(&self, held: &Held, last_from: Offset) -> Result<(), LedgerError<Reply>> {
        let request = self.request;
        let session = request.claims.session;
        let secured = held.grant.report(|reply| Report::Secure { reply }).await;
        secured.map_err(|refusal| self.told(refusal))?;
        let size = request.size().get();
        let (target, file) = (request.target.clone(), Arc::clone(held.file.plain()));
        let published = request
            .on_folder(move |folder| {
                // Blocks may have been reserved, or left by a broken request, beyond the end.
                trim(&file, size)?;
                staging::publish(folder, &session, &target)
            })
            .await
            .map_err(LedgerError::Other)?;
        published.map_err(|error| LedgerError::Other(request.refused(&error)))?;
        let target = request.target.clone();
        let told = held
            .grant
            .report(|reply| Report::Finish {
                last_from,
                target,
                reply,
            })
            .await;
        told.map_err(|refusal| self.told(refusal))
    }

    async fn abort(&self, held: &Held) {
        let session = self.request.claims.session;
        let removed = self
            .request
            .on_folder(move |folder| staging::discard(folder, &session));
        let _ = removed.await;
        let _ = held.grant.report(|reply| Report::Abort { reply }).await;
    }

    async fn release(&self, held: Held) {
        drop(held);
    }
}

/// `ENOENT` names the staging file here: a target that is missing is fine.
fn is_about_staging(error: &AnchorError) -> bool {
    matches!(error, AnchorError::Os { path, .. } if path.starts_with(STAGING_DIR))
}

/// Cuts the file to `size` if it is longer, durably.
fn trim(file: &FileRef, size: u64) -> Result<(), AnchorError> {
    let os = |op, errno: rustix::io::Errno| AnchorError::Os {
        op,
        errno: errno.raw_os_error(),
        path: STAGING_DIR.to_owned(),
    };
    let stat = rustix::fs::fstat(file).map_err(|errno| os("stat", errno))?;
    if u64::try_from(stat.st_size).unwrap_or(0) <= size {
        return Ok(());
    }
    rustix::fs::ftruncate(file, size).map_err(|errno| os("truncate", errno))?;
    rustix::fs::fsync(file).map_err(|errno| os("sync", errno))
}
