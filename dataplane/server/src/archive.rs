//! Folders and selections as one archive: `/download?archive=true` and `/download-archive`.
//!
//! The tree is listed before the first byte, so the length is announced and any range can be had;
//! file data is read while it is sent. What changed in between ends the connection instead of
//! spoiling the archive.
//!
//! Source: `docs/semantics.md#archives`.

mod answer;
mod compress;
mod contents;
mod deflate;
mod listing;
mod sums;

use std::rc::Rc;
use std::sync::Arc;

use proxy_anchor::walk::{self, EntryKind};
use proxy_anchor::{AnchorError, VFolderRoot, VolumeRoot};
use proxy_core::filename::check_archive_name;
use proxy_core::id::VFolderId;
use proxy_core::problem::{self, Kind, Problem};
use proxy_core::relpath::RelPath;
use proxy_core::token::{ArchiveClaims, TokenError};
use proxy_ring::ThreadPool;
use proxy_wire::head::RequestHead;
use proxy_wire::query::{ArchiveParams, Package};
use proxy_wire::zip;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::EngineLimits;
use crate::download::{busy, storage_away, unavailable, volume};
use crate::metrics::{ArchiveGauges, Cause};
use crate::names;
use crate::reply::Reply;
use crate::rt;
use crate::snapshot::{Limits, Snapshot, VolumeEntry};
use crate::story::About;
use crate::thread::{Thread, unix_now_s};

pub(crate) use answer::Archive;
use answer::{Asked, answer};
use listing::{Listing, Part};
use sums::Sums;

const NAME: &str = "archive.zip";

/// What the archives of all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Checksums of files.
    sums: Sums,
    /// What compresses.
    threads: ThreadPool,
    /// Archives that may be compressed at once.
    compressing: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(limits: &EngineLimits, gauges: &Arc<ArchiveGauges>) -> Self {
        let compressing_max = limits.archives_compressing_max.max(1);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            sums: Sums::new(limits.archive_checksums_max, Arc::clone(gauges)),
            threads: ThreadPool::new("compress", cores.min(compressing_max)),
            compressing: Arc::new(Semaphore::new(compressing_max)),
        }
    }
}

/// Why no archive was made.
enum Refused {
    Anchor(AnchorError),
    /// The entry of a selection that is at fault, and why.
    Entry(String, AnchorError),
    NotAFile(String),
    Zip(zip::ZipError),
}

impl From<AnchorError> for Refused {
    fn from(error: AnchorError) -> Self {
        Self::Anchor(error)
    }
}

/// `GET /download-archive`.
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
    let missing = |failures: Vec<(String, String)>| {
        let text = failures.first().map(|(key, text)| format!("{key} {text}"));
        Reply::from(Problem::new(Kind::CommonInvalidAPIParameters).msg(text.unwrap_or_default()))
    };
    let params = ArchiveParams::parse(head.query.as_deref()).map_err(missing)?;
    let package = params.package;
    let claims = ArchiveClaims::verify(&snapshot.secret, &params.token, unix_now_s())
        .map_err(|error| bad_token(&error))?;
    let name = claims.filename.as_deref().unwrap_or(NAME);
    check_archive_name(name)
        .map_err(|text| Reply::from(Problem::new(Kind::JWTPayloadValidation).msg(text)))?;
    let volume = volume(snapshot, &claims.volume)?;
    *about = Some(About::new(volume, claims.vfid));
    let root = volume.root.clone().ok_or_else(|| unavailable(volume))?;
    let turn = turn(&snapshot.archives, snapshot).await?;
    let (limits, vfid, files) = (walk_limits(&snapshot.limits), claims.vfid, claims.files);
    let made = names::run(&thread.setup.names, volume, &snapshot.limits, move || {
        select(&root, &vfid, &files, limits, package)
    });
    let made = made.await.map_err(|error| busy(error, volume))?;
    let listing = made.map_err(|refused| refused_selection(&refused))?;
    let asked = Asked {
        head,
        package,
        name: named(name, package),
    };
    answer(thread, snapshot, volume, turn, listing, asked).await
}

fn bad_token(error: &TokenError) -> Reply {
    let kind = match error {
        TokenError::Expired => Kind::JWTExpired,
        TokenError::BadSignature => Kind::JWTInvalidSignature,
        TokenError::Claims(_) | TokenError::MissingExpiry => Kind::JWTPayloadValidation,
        _ => Kind::JWTDecode,
    };
    let reply = Reply::from(Problem::new(kind).msg(error.text()));
    Reply {
        cause: Cause::Token,
        ..reply
    }
}

/// Waits for its turn to make an archive, or to compress one.
async fn turn(turns: &Arc<Semaphore>, snapshot: &Snapshot) -> Result<OwnedSemaphorePermit, Reply> {
    let turn = Arc::clone(turns).acquire_owned();
    match rt::within(snapshot.limits.names_timeout, turn).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => {
            let text = "too many archives are being made, try again later";
            let mut reply = Reply::from(Problem::new(Kind::Overloaded).msg(text));
            reply.head.push("Retry-After", "5");
            Err(reply)
        }
    }
}

/// Lists the entries of a selection, in its order, checking all of them first.
fn select(
    root: &VolumeRoot,
    vfid: &VFolderId,
    files: &[String],
    limits: walk::Limits,
    package: Package,
) -> Result<Listing, Refused> {
    let folder = root.vfolder(vfid)?;
    let mut paths = Vec::with_capacity(files.len());
    for file in files {
        let at_fault = |error| Refused::Entry(file.clone(), error);
        let path = RelPath::parse(file).map_err(|_| at_fault(AnchorError::Escapes))?;
        let stat = folder.stat(&path, true).map_err(at_fault)?;
        paths.push((file, path, stat));
    }
    let mut parts = Vec::with_capacity(paths.len());
    for (file, path, stat) in paths {
        if !stat.is_file() && !stat.is_dir() {
            return Err(Refused::NotAFile(file.clone()));
        }
        let snapshot = walk::snapshot(&folder, &path, limits)?;
        let alone = snapshot.is_empty() && stat.is_dir() && snapshot.base().is_empty();
        parts.push(Part {
            snapshot,
            cut: 0,
            alone,
        });
    }
    Listing::new(folder, parts, package).map_err(Refused::Zip)
}

/// A folder that is to be sent.
pub(crate) struct Whole<'a> {
    pub(crate) volume: &'a Arc<VolumeEntry>,
    pub(crate) folder: VFolderRoot,
    /// `None` for something that is neither file nor folder: an empty archive.
    pub(crate) path: Option<RelPath>,
    /// The name of the file, without what the package adds.
    pub(crate) stem: String,
    pub(crate) package: Package,
}

/// One folder, with names relative to it.
pub(crate) async fn of_one(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    whole: Whole<'_>,
) -> Result<Reply, Reply> {
    let Whole {
        volume,
        folder,
        path,
        stem,
        package,
    } = whole;
    let turn = turn(&snapshot.archives, snapshot).await?;
    let limits = walk_limits(&snapshot.limits);
    let made = names::run(&thread.setup.names, volume, &snapshot.limits, move || {
        let parts = match path {
            Some(path) => vec![below(&folder, &path, limits)?],
            None => Vec::new(),
        };
        Listing::new(folder, parts, package).map_err(Refused::Zip)
    });
    let made = made.await.map_err(|error| busy(error, volume))?;
    let listing = made.map_err(|refused| refused_folder(&refused))?;
    let asked = Asked {
        head,
        package,
        name: stem + package.suffix(),
    };
    answer(thread, snapshot, volume, turn, listing, asked).await
}

fn below(folder: &VFolderRoot, path: &RelPath, limits: walk::Limits) -> Result<Part, Refused> {
    let snapshot = walk::snapshot(folder, path, limits)?;
    let alone = is_alone(&snapshot);
    let cut = if snapshot.base().is_empty() {
        0
    } else {
        snapshot.base().len() + 1
    };
    Ok(Part {
        snapshot,
        cut,
        alone,
    })
}

/// Nothing but the listed folder itself.
fn is_alone(snapshot: &walk::Snapshot) -> bool {
    let first = snapshot.entry(0);
    first.is_none_or(|entry| entry.kind == EntryKind::Dir && entry.path == snapshot.base())
}

fn walk_limits(limits: &Limits) -> walk::Limits {
    let clamp = |limit: u64| u32::try_from(limit).unwrap_or(u32::MAX);
    walk::Limits {
        entries_max: clamp(limits.archive_entries_max),
        depth_max: clamp(limits.archive_depth_max),
        name_bytes_max: clamp(limits.archive_name_bytes_max),
    }
}

/// What an archive is called, without its suffix: as the directory; the folder itself goes by the
/// last digits of its identifier.
pub(crate) fn folder_name(folder: &VFolderRoot, path: &RelPath) -> String {
    let own = || folder.id().components().pop().unwrap_or_default();
    path.file_name().map_or_else(own, str::to_owned)
}

/// The name that a token gives, for another package than the zip that it was minted for.
fn named(name: &str, package: Package) -> String {
    match package {
        Package::Zip | Package::ZipDeflate => name.to_owned(),
        _ => name.strip_suffix(".zip").unwrap_or(name).to_owned() + package.suffix(),
    }
}

fn refused_folder(refused: &Refused) -> Reply {
    match refused {
        Refused::Anchor(AnchorError::Limit { .. }) | Refused::Zip(_) => too_large(refused),
        Refused::Anchor(error) if is_away(error) => storage_away("list"),
        _ => problem::download_not_found().into(),
    }
}

fn refused_selection(refused: &Refused) -> Reply {
    match refused {
        Refused::Anchor(AnchorError::VFolderMissing) => Problem::new(Kind::VFolderNotFound).into(),
        Refused::Anchor(AnchorError::Limit { .. }) | Refused::Zip(_) => too_large(refused),
        Refused::Entry(file, AnchorError::Escapes | AnchorError::Reserved) => {
            Problem::new(Kind::InvalidAPIParameters)
                .msg(format!("invalid path: {file}"))
                .into()
        }
        Refused::Entry(_, error) | Refused::Anchor(error) if is_away(error) => storage_away("list"),
        Refused::Entry(file, _) => {
            let text = format!("file not found: {file}");
            Problem::new(Kind::StorageBucketFileNotFound)
                .msg(text)
                .into()
        }
        Refused::NotAFile(file) => Problem::new(Kind::UnsupportedFileType)
            .msg(file.clone())
            .into(),
        Refused::Anchor(_) => problem::internal_error().into(),
    }
}

fn is_away(error: &AnchorError) -> bool {
    error.errno().is_some_and(problem::is_away)
}

fn too_large(refused: &Refused) -> Reply {
    let text = match refused {
        Refused::Anchor(error) => error.to_string(),
        Refused::Zip(error) => error.to_string(),
        _ => String::new(),
    };
    Problem::new(Kind::InvalidAPIParameters)
        .msg(format!("{text}; download smaller folders"))
        .data(json!({ "limit": text }))
        .into()
}
