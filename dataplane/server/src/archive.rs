//! Folders and selections as one zip: `/download?archive=true` and `/download-archive`.
//!
//! The tree is listed before the first byte, so the length is announced; file data is read while
//! it is sent. What changed in between ends the connection instead of spoiling the archive.
//!
//! Source: `docs/semantics.md#archives`.

use std::rc::Rc;
use std::sync::Arc;

use proxy_anchor::walk::{self, EntryKind};
use proxy_anchor::{AnchorError, VFolderRoot, VolumeRoot};
use proxy_core::filename::check_archive_name;
use proxy_core::id::VFolderId;
use proxy_core::problem::{self, Kind, Problem};
use proxy_core::relpath::RelPath;
use proxy_core::token::{ArchiveClaims, TokenError};
use proxy_ring::FileRef;
use proxy_transfer::archive::{Members, send_zip};
use proxy_transfer::seam::SinkError;
use proxy_wire::disposition;
use proxy_wire::head::RequestHead;
use proxy_wire::query::ArchiveParams;
use proxy_wire::response::ResponseHead;
use proxy_wire::zip::{self, Layout};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::download::{busy, unavailable, volume};
use crate::names;
use crate::reply::{Content, Reply};
use crate::rt;
use crate::sink::StreamSink;
use crate::snapshot::{Limits, Snapshot, VolumeEntry};
use crate::thread::{Thread, unix_now_s};

const NAME: &str = "archive.zip";

/// An archive that is ready to be sent.
pub(crate) struct Archive {
    /// Its share of [`Snapshot::archives`].
    _turn: OwnedSemaphorePermit,
    volume: Arc<VolumeEntry>,
    folder: VFolderRoot,
    parts: Vec<Part>,
    layout: Layout,
}

/// One snapshot, and how its names are cut for the archive.
struct Part {
    snapshot: walk::Snapshot,
    /// Bytes of each path that the archive does not show.
    cut: usize,
    /// The requested folder itself is empty: it is the only member, as `./`.
    alone: bool,
}

impl Part {
    fn count(&self) -> usize {
        if self.alone { 1 } else { self.snapshot.len() }
    }

    fn show<T>(&self, index: usize, show: impl FnOnce(&zip::Entry<'_>) -> T) -> Option<T> {
        if self.alone {
            let entry = zip::Entry {
                name: b".",
                mode: 0o755,
                mtime_s: 0,
                size: 0,
                kind: zip::Kind::Dir,
            };
            return Some(show(&entry));
        }
        let entry = self.snapshot.entry(index)?;
        let kind = match entry.kind {
            EntryKind::File | EntryKind::LinkToFile => zip::Kind::File,
            EntryKind::Dir => zip::Kind::Dir,
        };
        let name = entry.path.get(self.cut..).unwrap_or_default();
        let (mode, mtime_s, size) = (entry.mode, entry.mtime_s, entry.size);
        Some(show(&zip::Entry {
            name,
            mode,
            mtime_s,
            size,
            kind,
        }))
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
    match try_get(thread, snapshot, head).await {
        Ok(reply) | Err(reply) => reply,
    }
}

async fn try_get(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
) -> Result<Reply, Reply> {
    let missing = |failures: Vec<(String, String)>| {
        let text = failures.first().map(|(key, text)| format!("{key} {text}"));
        Reply::from(Problem::new(Kind::CommonInvalidAPIParameters).msg(text.unwrap_or_default()))
    };
    let params = ArchiveParams::parse(head.query.as_deref()).map_err(missing)?;
    let claims = ArchiveClaims::verify(&snapshot.secret, &params.token, unix_now_s())
        .map_err(|error| bad_token(&error))?;
    let name = claims.filename.as_deref().unwrap_or(NAME);
    check_archive_name(name)
        .map_err(|text| Reply::from(Problem::new(Kind::JWTPayloadValidation).msg(text)))?;
    let volume = volume(snapshot, &claims.volume)?;
    let root = volume.root.clone().ok_or_else(|| unavailable(volume))?;
    let turn = turn(snapshot).await?;
    let (limits, vfid, files) = (walk_limits(&snapshot.limits), claims.vfid, claims.files);
    let made = names::run(&thread.setup.names, volume, &snapshot.limits, move || {
        select(&root, &vfid, &files, limits)
    });
    let made = made.await.map_err(|error| busy(error, volume))?;
    let (folder, parts, layout) = made.map_err(|refused| refused_selection(&refused))?;
    Ok(answer(turn, volume, folder, parts, layout, name.as_bytes()))
}

fn bad_token(error: &TokenError) -> Reply {
    let kind = match error {
        TokenError::Expired => Kind::JWTExpired,
        TokenError::BadSignature => Kind::JWTInvalidSignature,
        TokenError::Claims(_) | TokenError::MissingExpiry => Kind::JWTPayloadValidation,
        _ => Kind::JWTDecode,
    };
    Problem::new(kind).msg(error.text()).into()
}

/// Waits for its turn to make an archive.
async fn turn(snapshot: &Snapshot) -> Result<OwnedSemaphorePermit, Reply> {
    let turn = Arc::clone(&snapshot.archives).acquire_owned();
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

type Made = (VFolderRoot, Vec<Part>, Layout);

/// Lists the entries of a selection, in its order, checking all of them first.
fn select(
    root: &VolumeRoot,
    vfid: &VFolderId,
    files: &[String],
    limits: walk::Limits,
) -> Result<Made, Refused> {
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
    let layout = layout(&parts)?;
    Ok((folder, parts, layout))
}

fn layout(parts: &[Part]) -> Result<Layout, Refused> {
    let mut layout = Layout::new();
    for part in parts {
        for index in 0..part.count() {
            part.show(index, |entry| layout.add(entry).map(|_| ()))
                .unwrap_or(Ok(()))
                .map_err(Refused::Zip)?;
        }
    }
    Ok(layout)
}

/// One folder, with names relative to it; `None` for something that is neither file nor folder:
/// an empty archive.
pub(crate) async fn of_one(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    volume: &Arc<VolumeEntry>,
    folder: VFolderRoot,
    path: Option<RelPath>,
    name: &[u8],
) -> Result<Reply, Reply> {
    let turn = turn(snapshot).await?;
    let Some(path) = path else {
        return Ok(answer(
            turn,
            volume,
            folder,
            Vec::new(),
            Layout::new(),
            name,
        ));
    };
    let limits = walk_limits(&snapshot.limits);
    let made = names::run(&thread.setup.names, volume, &snapshot.limits, move || {
        let snapshot = walk::snapshot(&folder, &path, limits)?;
        let alone = is_alone(&snapshot);
        let cut = if snapshot.base().is_empty() {
            0
        } else {
            snapshot.base().len() + 1
        };
        let parts = vec![Part {
            snapshot,
            cut,
            alone,
        }];
        let layout = layout(&parts)?;
        Ok((folder, parts, layout))
    });
    let made = made.await.map_err(|error| busy(error, volume))?;
    let (folder, parts, layout) = made.map_err(|refused| refused_folder(&refused))?;
    Ok(answer(turn, volume, folder, parts, layout, name))
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

/// `<directory name>.zip`; the folder itself goes by the last digits of its identifier.
pub(crate) fn folder_name(folder: &VFolderRoot, path: &RelPath) -> Vec<u8> {
    let own = || folder.id().components().pop().unwrap_or_default();
    let name = path.file_name().map_or_else(own, str::to_owned);
    format!("{name}.zip").into_bytes()
}

fn answer(
    turn: OwnedSemaphorePermit,
    volume: &Arc<VolumeEntry>,
    folder: VFolderRoot,
    parts: Vec<Part>,
    layout: Layout,
    name: &[u8],
) -> Reply {
    let unreadable: u64 = parts.iter().map(|part| part.snapshot.unreadable()).sum();
    if unreadable > 0 {
        tracing::warn!(
            volume = volume.name,
            vfolder_id = %folder.id(),
            unreadable,
            "an archive leaves out what can not be read"
        );
    }
    let head = ResponseHead::new(200)
        .with("Content-Type", "application/zip")
        .with("Content-Disposition", disposition::attachment(name))
        .with("Content-Length", layout.total_len().get());
    let archive = Archive {
        _turn: turn,
        volume: Arc::clone(volume),
        folder,
        parts,
        layout,
    };
    Reply::new(head, Content::Archive(Box::new(archive)))
}

fn refused_folder(refused: &Refused) -> Reply {
    match refused {
        Refused::Anchor(AnchorError::Limit { .. }) | Refused::Zip(_) => too_large(refused),
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

impl Archive {
    /// Sends head and archive.
    pub(crate) async fn send(
        self: Box<Self>,
        sink: &mut StreamSink<'_>,
        head: &[u8],
        thread: &Rc<Thread>,
        limits: &Limits,
    ) -> Result<(), SinkError> {
        let layout = self.layout;
        let members = Opening {
            archive: &self,
            thread,
            limits,
        };
        send_zip(&thread.files, &members, layout, head, sink).await
    }

    /// The part and the index in it of member `index`.
    fn place(&self, index: usize) -> Option<(&Part, usize)> {
        let mut index = index;
        for part in &self.parts {
            if index < part.count() {
                return Some((part, index));
            }
            index -= part.count();
        }
        None
    }
}

/// An archive whose members are opened as they are needed.
struct Opening<'a> {
    archive: &'a Archive,
    thread: &'a Rc<Thread>,
    limits: &'a Limits,
}

impl Members for Opening<'_> {
    type File = FileRef;

    fn count(&self) -> usize {
        self.archive.parts.iter().map(Part::count).sum()
    }

    fn entry<T>(&self, index: usize, show: impl FnOnce(&zip::Entry<'_>) -> T) -> T {
        let (part, index) = self.archive.place(index).expect("an index below the count");
        part.show(index, show)
            .expect("every index of a part has an entry")
    }

    async fn open(&self, index: usize) -> Result<FileRef, SinkError> {
        let (part, index) = self.archive.place(index).ok_or(SinkError::Truncated)?;
        let entry = part.snapshot.entry(index).ok_or(SinkError::Truncated)?;
        let folder = self.archive.folder.clone();
        let (ino, size, mtime_s) = (entry.ino, entry.size, entry.mtime_s);
        let job = move || folder.open_entry(&entry);
        let volume = &self.archive.volume;
        let opened = names::run(&self.thread.setup.names, volume, self.limits, job).await;
        let opened = opened
            .map_err(|_| SinkError::Truncated)?
            .map_err(|_| SinkError::Truncated)?;
        let same_time = crate::download::split_ns(opened.stat.mtime_ns).0 == mtime_s;
        if opened.stat.ino != ino || opened.stat.size != size || !same_time {
            return Err(SinkError::Truncated);
        }
        Ok(Arc::new(opened.fd))
    }
}
