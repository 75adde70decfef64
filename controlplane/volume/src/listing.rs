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
use std::sync::Arc;

use proxy_anchor::{Dir, VFolderRoot};
use proxy_core::relpath::{RelPath, STAGING_DIR};
use rustix::io::Errno;

use crate::bulkhead::Bulkhead;
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

/// Entries of a directory, a batch at a time, in memory that does not depend on their number.
///
/// No thread is held between two batches, however long the caller takes.
pub struct Listing(Source);

enum Source {
    /// What a backend knows by itself.
    Ready(Option<Vec<Entry>>),
    /// An open directory; `None` at its end.
    Open(Option<Box<Reader>>, Arc<Bulkhead>),
}

/// Some entries of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// In the order of the directory.
    pub entries: Vec<Entry>,
    /// Whether there are no more.
    pub is_last: bool,
}

/// Entries of a batch at least, unless it is the last. Reading them takes about a millisecond.
const BATCH_LEN_MIN: usize = 512;

impl Listing {
    /// Entries that are in memory already.
    pub fn of(entries: Vec<Entry>) -> Self {
        Self(Source::Ready(Some(entries)))
    }

    pub(crate) fn open(reader: Reader, lanes: Arc<Bulkhead>) -> Self {
        Self(Source::Open(Some(Box::new(reader)), lanes))
    }

    /// The next entries; after the last batch, an empty last one.
    ///
    /// # Errors
    /// Those of the directory itself, never those of an entry. There is nothing after an error.
    pub async fn next(&mut self) -> Result<Batch, VolumeError> {
        let (reader, lanes) = match &mut self.0 {
            Source::Ready(entries) => {
                return Ok(Batch {
                    entries: entries.take().unwrap_or_default(),
                    is_last: true,
                });
            }
            Source::Open(reader, lanes) => (reader, lanes),
        };
        let Some(mut taken) = reader.take() else {
            return Ok(Batch {
                entries: Vec::new(),
                is_last: true,
            });
        };
        let work = move || taken.read().map(|batch| (batch, taken));
        let (batch, back) = lanes.short(work).await?;
        if !batch.is_last {
            *reader = Some(back);
        }
        Ok(batch)
    }

    /// All entries at once, for those who hold them all.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn all(mut self) -> Result<Vec<Entry>, VolumeError> {
        let mut all = Vec::new();
        loop {
            let batch = self.next().await?;
            all.extend(batch.entries);
            if batch.is_last {
                return Ok(all);
            }
        }
    }
}

/// An open directory that is being listed.
pub(crate) struct Reader {
    folder: VFolderRoot,
    dir: Dir,
    buffer: Vec<u8>,
    /// Entries that may still be given.
    left: usize,
}

impl Reader {
    /// Opens `path` to list at most `limit` entries.
    ///
    /// # Errors
    /// Those of the directory.
    pub(crate) fn new(
        folder: &VFolderRoot,
        path: &RelPath,
        limit: usize,
    ) -> Result<Self, VolumeError> {
        let here = In(*folder.id(), path);
        let dir = folder.open_dir(path).map_err(|error| here.err(error))?;
        Ok(Self {
            folder: folder.clone(),
            dir,
            buffer: Vec::new(),
            left: limit,
        })
    }

    fn read(&mut self) -> Result<Batch, VolumeError> {
        let mut entries = Vec::new();
        let mut more = true;
        while more && 0 < self.left && entries.len() < BATCH_LEN_MIN {
            let mut failed = None;
            let (folder, dir) = (&self.folder, &self.dir);
            more = dir.read_batch(&mut self.buffer, |name, _, _| {
                if self.left == 0 || failed.is_some() {
                    return;
                }
                match look(folder, dir, name) {
                    Ok(Some(entry)) => {
                        entries.push(entry);
                        self.left -= 1;
                    }
                    Ok(None) => {}
                    Err(error) => failed = Some(error),
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(Batch {
            entries,
            is_last: !more || self.left == 0,
        })
    }
}

/// One entry; `None` when it vanished or is not to be seen.
pub(crate) fn look(
    folder: &VFolderRoot,
    dir: &Dir,
    name: &OsStr,
) -> Result<Option<Entry>, VolumeError> {
    let stat = match dir.stat(name).map_err(VolumeError::from) {
        Ok(stat) => stat,
        Err(error) => match error.errno() {
            Some(Errno::NOENT | Errno::ACCESS | Errno::PERM) => return Ok(None),
            _ => return Err(error),
        },
    };
    let kind = match () {
        () if stat.is_dir() => EntryType::Directory,
        () if stat.is_symlink() => EntryType::Symlink,
        () => EntryType::File,
    };
    let symlink_target = match kind {
        EntryType::Symlink => target(folder, dir.location(), name),
        EntryType::File | EntryType::Directory => String::new(),
    };
    Ok(Some(Entry {
        name: name.to_string_lossy().into_owned(),
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
    }))
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
