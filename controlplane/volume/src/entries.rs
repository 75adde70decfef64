//! Going through the entries of a directory while working on it.
//!
//! Small directories, nearly all of them, are read whole and then worked on. A large one is
//! read by a second descriptor, so that memory does not follow the number of its entries.

use proxy_anchor::{Dir, DirEntry, FileKind};

use crate::error::VolumeError;

/// Entries read ahead at most; about one buffer of the system call.
const READ_AHEAD_MAX: usize = 1024;

/// Calls `each` for every entry, until it fails.
///
/// # Errors
/// Those of reading, and those of `each`.
pub(crate) fn for_each(
    dir: &mut Dir,
    mut each: impl FnMut(&Dir, &DirEntry) -> Result<(), VolumeError>,
) -> Result<(), VolumeError> {
    for_each_while(dir, |dir, entry| each(dir, entry).map(|()| true))
}

/// As [`for_each`], and no further than the first `false`.
///
/// # Errors
/// As [`for_each`].
pub(crate) fn for_each_while(
    dir: &mut Dir,
    mut each: impl FnMut(&Dir, &DirEntry) -> Result<bool, VolumeError>,
) -> Result<(), VolumeError> {
    let first = dir
        .entries()
        .take(READ_AHEAD_MAX + 1)
        .collect::<Result<Vec<_>, _>>()?;
    if first.len() <= READ_AHEAD_MAX {
        for entry in &first {
            if !each(dir, entry)? {
                break;
            }
        }
        return Ok(());
    }
    drop(first);
    let mut reader = dir.try_clone()?;
    for entry in reader.entries() {
        if !each(dir, &entry?)? {
            break;
        }
    }
    Ok(())
}

/// The kind of an entry, asking the entry itself where the directory does not say.
///
/// # Errors
/// Those of asking, `ENOENT` when it has vanished.
pub(crate) fn kind_of(dir: &Dir, entry: &DirEntry) -> Result<FileKind, VolumeError> {
    if entry.kind != FileKind::Unknown {
        return Ok(entry.kind);
    }
    let stat = dir.stat(&entry.name)?;
    Ok(match () {
        () if stat.is_dir() => FileKind::Dir,
        () if stat.is_file() => FileKind::File,
        () if stat.is_symlink() => FileKind::Symlink,
        () => FileKind::Special,
    })
}
