//! What an earlier run of a copy has left at a place, and whether it can stay.
//!
//! Laws
//! - A file is whole when it has the source's size, time and rights: those are set last. What is
//!   not whole is removed, to be copied anew.
//! - Whatever else is in the way of an entry is removed, too: the copy is nobody's yet. Only a
//!   directory in the place of something else stays, as what the source was before.

use std::ffi::OsStr;

use proxy_anchor::{AnchorError, Dir, Opened, Stat};
use rustix::io::Errno;

use crate::error::VolumeError;

/// Bits that a whole copy shares with its source whoever owns it.
const RIGHTS: u32 = 0o1777;

/// The copy of `source` that is there as a whole. After `None` nothing is there.
///
/// # Errors
/// Those of the system; `EEXIST` when a directory is in the way.
pub(super) fn file(to: &Dir, name: &OsStr, source: &Opened) -> Result<Option<Stat>, VolumeError> {
    let there = match to.stat(name) {
        Err(error) if error.is_not_found() => return Ok(None),
        there => there?,
    };
    let (own, its) = (&there, &source.stat);
    let is_whole = own.is_file()
        && own.size == its.size
        && own.mtime_ns == its.mtime_ns
        && own.mode & RIGHTS == its.mode & RIGHTS;
    if is_whole {
        return Ok(Some(there));
    }
    make_way(to, name)?;
    Ok(None)
}

/// Whether `there` is the file of this name.
///
/// # Errors
/// Those of the system.
pub(super) fn is_one(dir: &Dir, name: &OsStr, there: &Stat) -> Result<bool, VolumeError> {
    let first = dir.stat(name)?;
    Ok((first.dev, first.ino) == (there.dev, there.ino))
}

/// Whether the link is there; after `false` nothing is.
///
/// # Errors
/// As [`file`].
pub(super) fn has_link(to: &Dir, name: &OsStr, target: &OsStr) -> Result<bool, VolumeError> {
    match to.readlink(name) {
        Ok(there) if there == target => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        _ => make_way(to, name).map(|()| false),
    }
}

/// Opens the directory that is there, as one that is being worked on.
///
/// # Errors
/// Those of the system.
pub(super) fn dir(above: &Dir, name: &OsStr, mode: u32) -> Result<Dir, VolumeError> {
    match above.unlock_dir(name) {
        Err(error) if is(&error, Errno::NOTDIR) || is(&error, Errno::LOOP) => {
            make_way(above, name)?;
            above.mkdir(name, mode)?;
        }
        unlocked => unlocked?,
    }
    Ok(above.open_dir(name)?)
}

fn make_way(to: &Dir, name: &OsStr) -> Result<(), VolumeError> {
    match to.unlink(name) {
        Err(error) if is(&error, Errno::ISDIR) => {
            Err(VolumeError::os("replace directory", Errno::EXIST))
        }
        done => Ok(done?),
    }
}

fn is(error: &AnchorError, errno: Errno) -> bool {
    error.errno() == Some(errno.raw_os_error())
}
