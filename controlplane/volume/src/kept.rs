//! States of vfolders kept as copies beside them, for file systems that copy without copying.
//!
//! A snapshot is a tree of its own whose files share their extents with those of the vfolder
//! (FICLONE): it takes as long as making its names, and as much room as what changes later. It lies
//! at `<scope>/.snapshots/<folder>/<name>`, and `<name>_facts` beside it says when it was made and
//! when it expires.
//!
//! Laws
//! - A snapshot appears under its name as a whole; one that is removed loses its name first.
//!   `<name>_new` and `<name>_gone` are leftovers of interrupted work: a name has no `_`.
//! - Where extents can not be shared nothing is kept: a full copy is not what was asked for.
//! - The state is that of each file when it is copied, as with any copy of a folder in use.

use std::ffi::{OsStr, OsString};

use proxy_anchor::{AnchorError, Dir, VolumeRoot};
use proxy_core::id::{QuotaScopeId, VFolderId};
use proxy_core::relpath::RelPath;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::error::VolumeError;
use crate::folder::{HIDDEN_MODE, fill, of};
use crate::limits::Limits;
use crate::remove;
use crate::restore::Place;
use crate::snapshot::{Snapshot, SnapshotName, Unit};
use crate::stamp::Stamp;
use crate::usage::Tally;

/// Where the snapshots of a scope's folders lie.
const HOME: &str = ".snapshots";
const FACTS: &str = "_facts";
const NEW: &str = "_new";
const GONE: &str = "_gone";
/// Far more than facts take.
const FACTS_BYTES_MAX: usize = 4096;

/// What lies beside a snapshot.
#[derive(Serialize, Deserialize)]
struct Facts {
    created_unix_ns: i128,
    expires_unix_ns: Option<i128>,
}

/// Where a snapshot can be seen.
pub(crate) fn place(vfid: VFolderId, name: &SnapshotName) -> Place {
    let folder = vfid.folder.simple().to_string();
    Place::Scope(vec![HOME.to_owned(), folder, name.to_string()])
}

/// The directory of a folder's snapshots; `None` if it has none.
fn home(root: &VolumeRoot, vfid: VFolderId) -> Result<Option<Dir>, VolumeError> {
    let folder = vfid.folder.simple().to_string();
    let found = root
        .open_scope(vfid.scope.as_ref())
        .and_then(|scope| scope.open_dir(OsStr::new(HOME)))
        .and_then(|home| home.open_dir(OsStr::new(&folder)));
    match found {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn home_made(root: &VolumeRoot, vfid: VFolderId) -> Result<Dir, VolumeError> {
    let folder = vfid.folder.simple().to_string();
    let mut dir = root.open_scope(vfid.scope.as_ref())?;
    for name in [HOME, &folder] {
        match dir.mkdir(OsStr::new(name), HIDDEN_MODE) {
            Err(error) if error.errno() != Some(Errno::EXIST.raw_os_error()) => {
                return Err(error.into());
            }
            _ => {}
        }
        dir.sync()?;
        dir = dir.open_dir(OsStr::new(name))?;
    }
    Ok(dir)
}

/// The snapshots of a folder, oldest first.
///
/// # Errors
/// [`VolumeError::VFolderNotFound`], and those of the system.
pub(crate) fn list(root: &VolumeRoot, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
    root.vfolder(&vfid).map_err(of(vfid))?;
    let Some(mut home) = home(root, vfid)? else {
        return Ok(Vec::new());
    };
    let names = home.entries().map(|entry| entry.map(|entry| entry.name));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let named = names
        .iter()
        .filter_map(|name| SnapshotName::parse(name.to_str()?));
    let mut found = Vec::new();
    for name in named {
        match snapshot(&home, name) {
            Ok(snapshot) => found.extend(snapshot),
            Err(error) if error.errno() == Some(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
    Ok(found)
}

/// `None` for what has the name of a snapshot and is no directory.
fn snapshot(home: &Dir, name: SnapshotName) -> Result<Option<Snapshot>, VolumeError> {
    let stat = home.stat(OsStr::new(name.as_str()))?;
    if !stat.is_dir() {
        return Ok(None);
    }
    let facts = facts(home, &name)?.unwrap_or(Facts {
        created_unix_ns: stat.ctime_ns,
        expires_unix_ns: None,
    });
    let stamp = |unix_ns| Stamp { unix_ns };
    Ok(Some(Snapshot {
        name,
        created: stamp(facts.created_unix_ns),
        expires: facts.expires_unix_ns.map(stamp),
        unit: Unit::VFolder,
        used_bytes: None,
    }))
}

fn facts(home: &Dir, name: &SnapshotName) -> Result<Option<Facts>, VolumeError> {
    let file = match home.open_file(&beside(name, FACTS)) {
        Err(error) if error.is_not_found() => return Ok(None),
        file => file?,
    };
    let mut text = vec![0; FACTS_BYTES_MAX];
    let got = rustix::io::read(&file.fd, &mut text[..])
        .map_err(|errno| VolumeError::os("read facts of snapshot", errno))?;
    Ok(serde_json::from_slice(&text[..got]).ok())
}

fn beside(name: &SnapshotName, end: &str) -> OsString {
    format!("{name}{end}").into()
}

/// Keeps the present state of a folder.
///
/// # Errors
/// [`VolumeError::SnapshotExists`], [`VolumeError::Unsupported`] where extents can not be shared,
/// [`VolumeError::Cancelled`], and the first refusal of the system. Nothing is left then.
pub(crate) fn create(
    root: &VolumeRoot,
    vfid: VFolderId,
    name: SnapshotName,
    expires: Option<Stamp>,
    limits: &Limits,
    control: &Control,
) -> Result<Snapshot, VolumeError> {
    control.check()?;
    if !root.abilities().reflink {
        return Err(VolumeError::Unsupported);
    }
    let source = root.vfolder(&vfid).map_err(of(vfid))?;
    let from = || source.open_dir(&RelPath::root()).map_err(of(vfid));
    let home = home_made(root, vfid)?;
    let own = OsStr::new(name.as_str());
    if home.stat(own).is_ok() {
        return Err(VolumeError::SnapshotExists(name));
    }
    let (new, facts_name) = (beside(&name, NEW), beside(&name, FACTS));
    discard(&home, &new, limits, &Control::default())?;
    let tally = Tally::new(None, limits);
    tally.scan(from()?, limits, control)?;
    control.check()?;
    let sums = tally.sums();
    control.announce(sums.entries, sums.content_bytes);
    home.mkdir(&new, HIDDEN_MODE)?;
    let now = Stamp::now();
    let facts = Facts {
        created_unix_ns: now.unix_ns,
        expires_unix_ns: expires.map(|at| at.unix_ns),
    };
    let made = fill(from()?, &home.open_dir(&new)?, sums, None, limits, control).and_then(|_| {
        write_facts(&home, &facts_name, &facts)?;
        home.rename(&new, &home, own)?;
        Ok(home.sync()?)
    });
    if let Err(error) = made {
        if !control.is_halted() {
            let cleared = discard(&home, &new, limits, &Control::default());
            if let Err(error) = cleared {
                tracing::warn!(%vfid, %error, "a part of a snapshot is left to the next one");
            }
        }
        return Err(error);
    }
    Ok(Snapshot {
        name,
        created: now,
        expires,
        unit: Unit::VFolder,
        used_bytes: None,
    })
}

fn write_facts(home: &Dir, name: &OsStr, facts: &Facts) -> Result<(), VolumeError> {
    match home.unlink(name) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    let text = serde_json::to_vec(facts).map_err(|_| VolumeError::Internal("facts as JSON"))?;
    let file = home.create_file(name, 0o600)?;
    let os = |errno| VolumeError::os("write facts of snapshot", errno);
    if rustix::io::write(&file, &text).map_err(os)? < text.len() {
        return Err(os(Errno::NOSPC));
    }
    rustix::fs::fsync(&file).map_err(os)
}

/// Removes a snapshot. A missing one is no error.
///
/// # Errors
/// [`VolumeError::Cancelled`], and the first refusal of the system: the rest goes with the next
/// removal.
pub(crate) fn delete(
    root: &VolumeRoot,
    vfid: VFolderId,
    name: &SnapshotName,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    let Some(home) = home(root, vfid)? else {
        return Ok(());
    };
    let gone = beside(name, GONE);
    discard(&home, &gone, limits, control)?;
    match home.rename(OsStr::new(name.as_str()), &home, &gone) {
        Err(error) if error.is_not_found() => {}
        done => done?,
    }
    match home.unlink(&beside(name, FACTS)) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    home.sync()?;
    discard(&home, &gone, limits, control)
}

/// Removes all snapshots of a folder that is no more.
///
/// # Errors
/// As [`delete`].
pub(crate) fn delete_all(
    root: &VolumeRoot,
    vfid: VFolderId,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    let scope = match root.open_scope(vfid.scope.as_ref()) {
        Err(error) if error.is_not_found() => return Ok(()),
        scope => scope?,
    };
    let above = match scope.open_dir(OsStr::new(HOME)) {
        Err(error) if error.is_not_found() => return Ok(()),
        above => above?,
    };
    let folder = vfid.folder.simple().to_string();
    discard(&above, OsStr::new(&folder), limits, control)
}

/// The folders of a volume that have snapshots.
///
/// # Errors
/// Those of reading the volume.
pub(crate) fn folders(root: &VolumeRoot) -> Result<Vec<VFolderId>, VolumeError> {
    let mut found = Vec::new();
    for scope in crate::sweep::scopes(root)? {
        found.extend(folders_of(root, scope)?);
    }
    Ok(found)
}

fn folders_of(root: &VolumeRoot, scope: QuotaScopeId) -> Result<Vec<VFolderId>, VolumeError> {
    let home = root
        .open_scope(Some(&scope))
        .and_then(|scope| scope.open_dir(OsStr::new(HOME)));
    let mut home = match home {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        home => home?,
    };
    let names = home.entries().map(|entry| entry.map(|entry| entry.name));
    let names = names.collect::<Result<Vec<_>, AnchorError>>()?;
    let id = |name: &OsString| VFolderId::parse(&format!("{scope}/{}", name.to_str()?)).ok();
    Ok(names.iter().filter_map(id).collect())
}

fn discard(
    above: &Dir,
    name: &OsStr,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    let dir = match above.open_dir(name) {
        Err(error) if error.is_not_found() => return Ok(()),
        dir => dir?,
    };
    remove::empty(dir, limits, control)?;
    match above.rmdir(name) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
