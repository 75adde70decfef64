//! The entries of one directory, as the file browser shows them.
//!
//! Laws
//! - The order is the directory's own; `.upload` is not there at the folder's root.
//! - Everything is said of the entry itself: a link is not followed for its numbers.
//! - What vanishes or cannot be looked at is left out.
//! - Names are text: bytes that are none become U+FFFD, since one odd name must not make the
//!   whole answer unreadable.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use proxy_anchor::VFolderRoot;
use proxy_core::relpath::{RelPath, STAGING_DIR};
use rustix::io::Errno;

use crate::entries::for_each_while;
use crate::error::{In, VolumeError};
use crate::stamp::Stamp;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: EntryType,
    /// The whole `st_mode`, type bits included.
    pub mode: u32,
    /// `st_size`; of a link, the length of its text.
    pub size: u64,
    /// `st_ctime`: the wire calls it creation.
    pub created: Stamp,
    /// `st_mtime`.
    pub modified: Stamp,
    /// Where a link leads, relative to the listed directory; empty when that is not below it.
    pub symlink_target: String,
}

/// The kinds of entries that the wire knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file, and everything that is none of the others.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

impl EntryType {
    /// The word on the wire.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::File => "FILE",
            Self::Directory => "DIRECTORY",
            Self::Symlink => "SYMLINK",
        }
    }
}

/// Lists at most `limit` entries of `path`.
///
/// # Errors
/// Those of the directory itself, never those of an entry.
pub(crate) fn list(
    folder: &VFolderRoot,
    path: &RelPath,
    limit: usize,
) -> Result<Vec<Entry>, VolumeError> {
    let here = In(*folder.id(), path);
    let mut dir = folder.open_dir(path).map_err(|error| here.err(error))?;
    let location = dir.location().to_vec();
    let mut found = Vec::new();
    for_each_while(&mut dir, |dir, entry| {
        if found.len() == limit {
            return Ok(false);
        }
        let stat = match dir.stat(&entry.name).map_err(VolumeError::from) {
            Ok(stat) => stat,
            Err(error) => match error.errno() {
                Some(Errno::NOENT | Errno::ACCESS | Errno::PERM) => return Ok(true),
                _ => return Err(error),
            },
        };
        let kind = match () {
            () if stat.is_dir() => EntryType::Directory,
            () if stat.is_symlink() => EntryType::Symlink,
            () => EntryType::File,
        };
        let symlink_target = match kind {
            EntryType::Symlink => target(folder, &location, &entry.name),
            EntryType::File | EntryType::Directory => String::new(),
        };
        found.push(Entry {
            name: entry.name.to_string_lossy().into_owned(),
            kind,
            mode: stat.mode,
            size: stat.size,
            created: Stamp {
                unix_ns: stat.ctime_ns,
            },
            modified: Stamp {
                unix_ns: stat.mtime_ns,
            },
            symlink_target,
        });
        Ok(true)
    })?;
    Ok(found)
}

/// Where the link `name` in the directory at `location` leads, if that is below the directory.
fn target(folder: &VFolderRoot, location: &[u8], name: &OsStr) -> String {
    let mut path = location.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    let resolved = folder.resolve_os(&OsString::from_vec(path));
    resolved
        .map(OsString::into_vec)
        .map_or_else(|_| String::new(), |end| below(location, &end))
}

fn below(location: &[u8], end: &[u8]) -> String {
    let rest = match end.strip_prefix(location) {
        Some(b"") => b".",
        Some(rest) if location.is_empty() => rest,
        Some([b'/', rest @ ..]) => rest,
        _ => return String::new(),
    };
    let first = rest.split(|byte| *byte == b'/').next();
    if location.is_empty() && first == Some(STAGING_DIR.as_bytes()) {
        return String::new();
    }
    String::from_utf8_lossy(rest).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_relative_to_the_listed_directory() {
        for (location, end, want) in [
            ("", "a", "a"),
            ("", "a/b", "a/b"),
            ("", "", "."),
            ("", ".upload/x", ""),
            ("d", "d/a", "a"),
            ("d", "d/.upload", ".upload"),
            ("d", "d", "."),
            ("d", "a", ""),
            ("d", "da", ""),
            ("d/e", "d", ""),
        ] {
            assert_eq!(
                below(location.as_bytes(), end.as_bytes()),
                want,
                "{location} {end}"
            );
        }
    }
}
