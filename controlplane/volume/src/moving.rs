//! Moving and renaming an entry within its vfolder.
//!
//! Laws
//! - The entry itself moves: a link, not what it leads to. Only parents are followed, inside.
//! - Onto an existing directory means into it; onto a file replaces the file by a file.
//! - Between file systems or quota projects it is a copy that appears as a whole, then a removal.
//!
//! Source: Python's `shutil.move`, less its habit of following links and showing server paths.

use std::ffi::OsStr;

use proxy_anchor::{Dir, Stat, VFolderRoot};
use proxy_core::id::SessionId;
use proxy_core::relpath::RelPath;
use rustix::io::Errno;

use crate::control::Control;
use crate::copy;
use crate::durable;
use crate::error::{In, VolumeError};
use crate::limits::Limits;
use crate::remove;

/// Rounds over an entry that becomes something else whenever it is to be removed.
const CHANGED_ROUNDS_MAX: u32 = 8;
const TAKEN: &str = "the destination directory already has an entry of this name";
const INTO_ITSELF: &str = "a directory cannot be moved into itself";
const SPECIAL: &str = "special files cannot be moved to another file system";

/// The path of `from` after its last name was replaced by `name`.
///
/// # Errors
/// [`VolumeError::InvalidName`] for a name that is none, or that would move the entry elsewhere.
pub(crate) fn renamed(
    folder: &VFolderRoot,
    from: &RelPath,
    name: &str,
) -> Result<RelPath, VolumeError> {
    let odd = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
    let parent = from.parent().filter(|_| from.file_name().is_some());
    match (odd, parent, RelPath::parse(name)) {
        (false, Some(parent), Ok(name)) => Ok(parent.join(&name)),
        (true, ..) | (_, _, Err(_)) => Err(VolumeError::InvalidName {
            vfid: *folder.id(),
            name: name.to_owned(),
        }),
        (false, None, Ok(_)) => Err(VolumeError::os_at("rename", Errno::BUSY, from)),
    }
}

/// Moves `from` to `to`.
///
/// # Errors
/// `ENOENT` for a missing entry or destination directory, `EEXIST` for a directory onto a file,
/// [`VolumeError::Refused`] for a taken name in the destination and for a move into itself.
pub(crate) fn move_entry(
    folder: &VFolderRoot,
    from: &RelPath,
    to: &RelPath,
    limits: &Limits,
) -> Result<(), VolumeError> {
    let at = |path: &RelPath, error| In(*folder.id(), path).err(error);
    let moved = folder.stat(from, false).map_err(|error| at(from, error))?;
    let Some(name) = from.file_name() else {
        return Err(VolumeError::os_at("rename", Errno::BUSY, from));
    };
    let name = RelPath::parse(name).map_err(|_| VolumeError::Internal("a name with a slash"))?;
    let there = folder.stat(to, false).ok();
    // A directory has one name only, so this one is its own, however the path is written.
    if there.is_some_and(|there| is_same(&there, &moved)) && (from == to || moved.is_dir()) {
        return Ok(());
    }
    let to = match folder.stat(to, true) {
        Ok(there) if there.is_dir() && !is_same(&there, &moved) => {
            let inside = to.join(&name);
            if folder
                .exists(&inside, false)
                .map_err(|error| at(&inside, error))?
            {
                return Err(VolumeError::Refused(TAKEN));
            }
            inside
        }
        Ok(there) if there.is_dir() => return Err(VolumeError::Refused(INTO_ITSELF)),
        // Not there, or not a directory, or a link that leads nowhere: the entry is meant.
        _ => to.clone(),
    };
    if moved.is_dir() && folder.exists(&to, false).map_err(|error| at(&to, error))? {
        return Err(VolumeError::os_at("rename", Errno::EXIST, &to));
    }
    let error = match folder.rename(from, &to) {
        Ok(()) => return Ok(()),
        // The source was there a moment ago: what is wrong is the destination.
        Err(error) => at(&to, error).about(&to),
    };
    match error.errno() {
        Some(Errno::XDEV) => across(folder, from, &to, limits),
        Some(Errno::INVAL) if moved.is_dir() => Err(VolumeError::Refused(INTO_ITSELF)),
        _ => Err(error),
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.dev, one.ino) == (other.dev, other.ino)
}

/// Copies beside the destination, renames into place, removes the original.
fn across(
    folder: &VFolderRoot,
    from: &RelPath,
    to: &RelPath,
    limits: &Limits,
) -> Result<(), VolumeError> {
    let (from_dir, from_name) = parent_of(folder, from)?;
    let (to_dir, to_name) = parent_of(folder, to)?;
    let from_name = OsStr::new(from_name);
    let hidden = format!(".moving-{}", SessionId::random());
    let hidden = OsStr::new(&hidden);
    to_dir.mkdir(hidden, 0o700)?;
    let moved = copy_and_place(
        &from_dir,
        from_name,
        &to_dir,
        hidden,
        OsStr::new(to_name),
        limits,
    );
    let emptied = to_dir
        .open_dir(hidden)
        .map_err(VolumeError::from)
        .and_then(|dir| remove::empty(dir, limits, &Control::default()));
    if emptied.is_err() || to_dir.rmdir(hidden).is_err() {
        tracing::warn!(vfid = %folder.id(), "the work directory of a move is left behind");
    }
    moved?;
    remove_entry(&from_dir, from_name, limits, &Control::default())
}

fn copy_and_place(
    from: &Dir,
    from_name: &OsStr,
    to: &Dir,
    hidden: &OsStr,
    to_name: &OsStr,
    limits: &Limits,
) -> Result<(), VolumeError> {
    let work = to.open_dir(hidden)?;
    let control = Control::default();
    let copied = copy::one(
        from.try_clone()?,
        from_name,
        work.try_clone()?,
        limits,
        &control,
    )?;
    if copied.skipped > 0 {
        return Err(VolumeError::Refused(SPECIAL));
    }
    durable::tree(&work, limits, &control)?;
    work.rename(from_name, to, to_name)?;
    Ok(to.sync()?)
}

/// The directory of an entry and its name there.
///
/// # Errors
/// Those of opening the directory; `EBUSY` when the path names no entry.
pub(crate) fn parent_of<'a>(
    folder: &VFolderRoot,
    path: &'a RelPath,
) -> Result<(Dir, &'a str), VolumeError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(VolumeError::os_at("open", Errno::BUSY, path));
    };
    let dir = folder
        .open_dir(&parent)
        .map_err(|error| In(*folder.id(), path).err(error))?;
    Ok((dir, name))
}

/// Removes an entry itself, with everything in it if it is a directory. Gone is fine.
///
/// # Errors
/// [`VolumeError::Cancelled`], and the first refusal of the system.
pub(crate) fn remove_entry(
    dir: &Dir,
    name: &OsStr,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    let mut rounds = 0;
    loop {
        let removed = match dir.unlink(name).map_err(VolumeError::from) {
            Err(error) if error.errno() == Some(Errno::ISDIR) => {
                remove_dir(dir, name, limits, control)
            }
            done => done,
        };
        let Err(error) = removed else {
            control.add_entries(1);
            return Ok(());
        };
        match error.errno() {
            Some(Errno::NOENT) => return Ok(()),
            // Somebody has put something else in its place, or into it.
            Some(Errno::NOTDIR | Errno::LOOP | Errno::NOTEMPTY | Errno::EXIST)
                if rounds < CHANGED_ROUNDS_MAX =>
            {
                rounds += 1;
            }
            _ => return Err(error),
        }
    }
}

fn remove_dir(
    dir: &Dir,
    name: &OsStr,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    let emptied = dir.open_dir(name)?;
    remove::empty(emptied.try_clone()?, limits, control)?;
    Ok(remove::emptied(
        || dir.rmdir(name),
        || Some(&emptied),
        limits,
    )?)
}
