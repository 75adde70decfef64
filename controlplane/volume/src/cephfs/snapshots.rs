//! Snapshots of a vfolder: names in its `.snap`, ours told from others' by how they begin.
//!
//! On disk a snapshot is `proxy.<name>`, or `proxy.<name>@<unix seconds>` if it expires: that is
//! all that is known of it, so nothing can disagree.

use std::ffi::OsStr;

use proxy_anchor::{Dir, FileKind, VolumeRoot};
use proxy_core::id::{TaskId, VFolderId};
use proxy_core::relpath::RelPath;
use rustix::io::Errno;

use crate::backend::{Cloned, Restore};
use crate::control::Control;
use crate::error::{In, VolumeError};
use crate::folder::{self, Job};
use crate::limits::Limits;
use crate::snapshot::{Snapshot, SnapshotName, Unit};
use crate::stamp::Stamp;

const PREFIX: &str = "proxy.";
const SECOND_NS: i128 = 1_000_000_000;
/// When a snapshot was made, seconds and nanoseconds with a point between them.
const BORN: &std::ffi::CStr = c"ceph.snap.btime";

/// A snapshot and its name on disk.
struct Kept {
    snapshot: Snapshot,
    name: String,
}

fn parse(name: &str) -> Option<(SnapshotName, Option<Stamp>)> {
    let name = name.strip_prefix(PREFIX)?;
    let (name, expires) = match name.split_once('@') {
        None => (name, None),
        Some((name, seconds)) => (name, Some(i128::from(seconds.parse::<i64>().ok()?))),
    };
    let expires = expires.map(|seconds| Stamp {
        unix_ns: seconds * SECOND_NS,
    });
    Some((SnapshotName::parse(name)?, expires))
}

fn on_disk(name: &SnapshotName, expires: Option<Stamp>) -> String {
    match expires {
        None => format!("{PREFIX}{name}"),
        Some(expires) => format!("{PREFIX}{name}@{}", expires.unix_ns.div_euclid(SECOND_NS)),
    }
}

fn created(snapshot: &Dir) -> Result<Stamp, VolumeError> {
    let mut text = [0_u8; 64];
    let length = rustix::fs::fgetxattr(snapshot, BORN, &mut text[..]).unwrap_or(0);
    let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
    let born = text.trim().split_once('.').and_then(|(seconds, nanos)| {
        let (seconds, nanos) = (seconds.parse::<i64>().ok()?, nanos.parse::<u32>().ok()?);
        Some(i128::from(seconds) * SECOND_NS + i128::from(nanos))
    });
    let unix_ns = match born {
        Some(unix_ns) => unix_ns,
        // An older Ceph does not say it; the folder's last change was before.
        None => snapshot.metadata()?.mtime_ns,
    };
    Ok(Stamp { unix_ns })
}

fn kept(folder: &Dir, place: &str) -> Result<Vec<Kept>, VolumeError> {
    let mut dir = folder.open_dir(place.as_ref())?;
    let mut names = Vec::new();
    for entry in dir.entries() {
        names.extend(entry?.name.into_string());
    }
    let mut kept = Vec::new();
    for name in names {
        let Some((parsed, expires)) = parse(&name) else {
            continue;
        };
        let snapshot = match dir.open_dir(name.as_ref()) {
            Err(error) if error.is_not_found() => continue,
            snapshot => snapshot?,
        };
        let snapshot = Snapshot {
            name: parsed,
            created: created(&snapshot)?,
            expires,
            unit: Unit::VFolder,
            used_bytes: None,
        };
        kept.push(Kept { snapshot, name });
    }
    kept.sort_by(|one, other| {
        let key = |kept: &Kept| (kept.snapshot.created, kept.snapshot.name.clone());
        key(one).cmp(&key(other))
    });
    Ok(kept)
}

fn find(folder: &Dir, place: &str, name: &SnapshotName) -> Result<Option<Kept>, VolumeError> {
    let kept = kept(folder, place)?;
    Ok(kept.into_iter().find(|kept| kept.snapshot.name == *name))
}

/// The snapshots of an open vfolder, oldest first.
pub(super) fn list(folder: &Dir, place: &str) -> Result<Vec<Snapshot>, VolumeError> {
    let kept = kept(folder, place)?;
    Ok(kept.into_iter().map(|kept| kept.snapshot).collect())
}

/// Keeps the present state of an open vfolder.
pub(super) fn create(
    folder: &Dir,
    place: &str,
    name: &SnapshotName,
    expires: Option<Stamp>,
) -> Result<Snapshot, VolumeError> {
    let exists = || VolumeError::SnapshotExists(name.clone());
    if find(folder, place, name)?.is_some() {
        return Err(exists());
    }
    let dir = folder.open_dir(place.as_ref())?;
    match dir
        .mkdir(on_disk(name, expires).as_ref(), 0o755)
        .map_err(VolumeError::from)
    {
        Err(error) if error.errno() == Some(Errno::EXIST) => return Err(exists()),
        Err(error) if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM)) => {
            tracing::error!("snapshots need the capability `s` of the mount's Ceph user");
            return Err(error);
        }
        made => made?,
    }
    let made = find(folder, place, name)?.map(|kept| kept.snapshot);
    made.ok_or(VolumeError::Internal("a new snapshot is not listed"))
}

/// Forgets a snapshot of an open vfolder. A missing one is no error.
pub(super) fn delete(folder: &Dir, place: &str, name: &SnapshotName) -> Result<(), VolumeError> {
    let Some(kept) = find(folder, place, name)? else {
        return Ok(());
    };
    match folder.open_dir(place.as_ref())?.rmdir(kept.name.as_ref()) {
        Err(error) if error.is_not_found() => Ok(()),
        done => Ok(done?),
    }
}

/// Removes every snapshot that an open directory has of its own, whoever made it; says whether
/// there was one. On other file systems there is no such place.
pub(crate) fn delete_own(dir: &Dir, place: &str) -> bool {
    let Ok(mut snapshots) = dir.open_dir(place.as_ref()) else {
        return false;
    };
    let entries = snapshots.entries().filter_map(Result::ok);
    let names: Vec<_> = entries
        .filter(|entry| entry.kind == FileKind::Dir)
        .map(|entry| entry.name)
        // Those of directories above, which end with theirs.
        .filter(|name: &std::ffi::OsString| !name.as_encoded_bytes().starts_with(b"_"))
        .collect();
    let removed = |name: &&OsStr| snapshots.rmdir(name).is_ok();
    names.iter().map(AsRef::as_ref).filter(removed).count() > 0
}

/// What is to be brought back, and where to.
pub(super) struct Restoring {
    pub(super) vfid: VFolderId,
    pub(super) name: SnapshotName,
    pub(super) to: Restore,
    pub(super) task: TaskId,
    pub(super) free_bytes: Option<u64>,
    pub(super) snapshot_dir: String,
}

/// Brings a snapshot back.
pub(super) fn restore(
    root: &VolumeRoot,
    it: &Restoring,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    let place = it.snapshot_dir.as_str();
    let of = |error| In(it.vfid, &RelPath::root()).err(error);
    let folder = root.vfolder(&it.vfid).map_err(of)?;
    let whole = folder.open_dir(&RelPath::root()).map_err(of)?;
    let missing = || VolumeError::SnapshotNotFound(it.name.clone());
    let kept = find(&whole, place, &it.name)?.ok_or_else(missing)?;
    let from = || {
        let snapshots = whole.open_dir(place.as_ref())?;
        match snapshots.open_dir(kept.name.as_ref()) {
            Err(error) if error.is_not_found() => Err(missing()),
            opened => Ok(opened?.as_vfolder()),
        }
    };
    let job = |dst| Job {
        src: it.vfid,
        dst,
        task: it.task,
        free_bytes: it.free_bytes,
    };
    match it.to {
        Restore::Into(dst) => folder::clone_from(root, job(dst), &from, limits, control),
        Restore::InPlace => folder::refill(root, job(it.vfid), &from, limits, control),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_on_disk_say_everything() {
        let name = SnapshotName::parse("before-2.0").unwrap();
        let at = |seconds: i128| Stamp {
            unix_ns: seconds * SECOND_NS,
        };
        for (expires, text) in [
            (None, "proxy.before-2.0"),
            (Some(at(1_800_000_000)), "proxy.before-2.0@1800000000"),
        ] {
            assert_eq!(on_disk(&name, expires), text);
            assert_eq!(parse(text), Some((name.clone(), expires)));
        }
        for others in [
            "before-2.0",
            "_proxy.a_1099511627776",
            "proxy.",
            "proxy.a@x",
        ] {
            assert_eq!(parse(others), None, "{others}");
        }
    }
}
