//! Deleting entries that a user names.
//!
//! Laws
//! - Links are deleted themselves; what they lead to stays.
//! - Every path is looked at before anything is deleted: one that leads out refuses them all.
//! - What is not there is deleted: the Manager repeats deletions.
//! - The folder itself is not an entry of itself.

use std::ffi::OsStr;

use proxy_anchor::VFolderRoot;
use proxy_core::relpath::RelPath;
use rustix::io::Errno;

use crate::backend::Deleted;
use crate::control::Control;
use crate::error::{In, VolumeError};
use crate::limits::Limits;
use crate::moving::{parent_of, remove_entry};

const THE_ROOT: &str = "the folder itself cannot be deleted by this operation";

/// Deletes `paths` in order; directories that are not empty only if `recursive`.
///
/// # Errors
/// [`VolumeError::InvalidSubpath`] and [`VolumeError::Refused`] before anything is deleted. After
/// any other error what was deleted before stays deleted.
pub(crate) fn delete(
    folder: &VFolderRoot,
    paths: &[RelPath],
    recursive: bool,
    limits: &Limits,
    control: &Control,
) -> Result<Deleted, VolumeError> {
    let mut entries = Vec::new();
    for path in paths {
        control.check()?;
        entries.extend(aim(folder, path)?);
    }
    let mut deleted = Deleted::default();
    for path in entries {
        control.check()?;
        let before = control.progress().entries_done;
        if !delete_one(folder, &path, recursive, limits, control)? {
            deleted.kept.push(path);
        }
        deleted.entries += control.progress().entries_done - before;
    }
    Ok(deleted)
}

/// The entry that a path means; `None` when there is none.
fn aim(folder: &VFolderRoot, path: &RelPath) -> Result<Option<RelPath>, VolumeError> {
    let at = |error| In(*folder.id(), path).err(error);
    let entry = match path.file_name() {
        Some(_) => path.clone(),
        None => folder.resolve_path(path).map_err(at)?,
    };
    if entry.is_root() {
        return Err(VolumeError::Refused(THE_ROOT));
    }
    match folder.stat(&entry, false) {
        Ok(_) => Ok(Some(entry)),
        Err(error) if error.is_not_found() => Ok(None),
        // A name longer than any name is not there either.
        Err(error) if error.errno() == Some(Errno::NAMETOOLONG.raw_os_error()) => Ok(None),
        Err(error) => Err(at(error)),
    }
}

/// `false`: a directory that is not empty, and stays.
fn delete_one(
    folder: &VFolderRoot,
    path: &RelPath,
    recursive: bool,
    limits: &Limits,
    control: &Control,
) -> Result<bool, VolumeError> {
    let (dir, name) = match parent_of(folder, path) {
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(true),
        found => found?,
    };
    let name = OsStr::new(name);
    if recursive {
        return remove_entry(&dir, name, limits, control).map(|()| true);
    }
    let removed = match dir.unlink(name) {
        Err(error) if error.errno() == Some(Errno::ISDIR.raw_os_error()) => dir.rmdir(name),
        done => done,
    };
    match removed.map_err(VolumeError::from) {
        Ok(()) => {
            control.add_entries(1);
            Ok(true)
        }
        Err(error) => match error.errno() {
            Some(Errno::NOENT) => Ok(true),
            Some(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            _ => Err(error),
        },
    }
}
