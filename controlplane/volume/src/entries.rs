//! Going through the entries of a directory while working on it.
//!
//! Small directories, nearly all of them, are read whole and then worked on. A large one is
//! read by a second descriptor, so that memory does not follow the number of its entries; one
//! whose entries are only looked at is shared by several threads.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::thread;

use parking_lot::Mutex;
use proxy_anchor::{Dir, DirEntry, FileKind};

use crate::error::VolumeError;

/// Batches of entries, about a thousand each, after which a directory is large: from there on
/// working on its entries takes longer than starting threads.
const BATCHES_ALONE: usize = 4;

/// Batches that one thread takes at a time from a large directory.
const BATCHES_SHARED: usize = 8;

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
    let first = dir
        .entries()
        .take(READ_AHEAD_MAX + 1)
        .collect::<Result<Vec<_>, _>>()?;
    if first.len() <= READ_AHEAD_MAX {
        return first.iter().try_for_each(|entry| each(dir, entry));
    }
    drop(first);
    let mut reader = dir.try_clone()?;
    for entry in reader.entries() {
        each(dir, &entry?)?;
    }
    Ok(())
}

/// Calls `each` for every entry of `dir`, from its first; up to `threads` threads share a large
/// one. Each gathers into something of its own, which `done` takes whenever a batch is done.
///
/// # Errors
/// Those of reading, and those of `each` and `done`; the first ends all.
pub(crate) fn survey<A>(
    dir: &Dir,
    threads: usize,
    begin: impl Fn() -> A + Sync,
    each: impl Fn(&mut A, &OsStr, FileKind) -> Result<(), VolumeError> + Sync,
    done: impl Fn(A) -> Result<(), VolumeError> + Sync,
) -> Result<(), VolumeError> {
    dir.begin_anew()?;
    let turn = |buffer: &mut Vec<u8>| {
        let (mut gathered, mut worked) = (begin(), Ok(()));
        let more = dir.read_batch(buffer, |name, kind, _| {
            if worked.is_ok() {
                worked = each(&mut gathered, name, kind);
            }
        })?;
        worked.and_then(|()| done(gathered)).map(|()| more)
    };
    let mut buffer = Vec::new();
    for _ in 0..BATCHES_ALONE {
        if !turn(&mut buffer)? {
            return Ok(());
        }
    }
    // One at a time reads names; working on them, which takes longer, is done side by side.
    let reading = Mutex::new(true);
    let share = || {
        let mut buffer = Vec::new();
        loop {
            let mut batch = Batch::default();
            let mut more = reading.lock();
            for _ in 0..BATCHES_SHARED {
                if *more {
                    let push = |name: &OsStr, kind, ino| batch.push(name, kind, ino);
                    *more = dir.read_batch(&mut buffer, push)?;
                }
            }
            drop(more);
            if batch.entries.is_empty() {
                return Ok(());
            }
            let mut gathered = begin();
            batch.each(|name, kind| each(&mut gathered, name, kind))?;
            done(gathered)?;
        }
    };
    let work = || {
        let worked = share();
        if worked.is_err() {
            *reading.lock() = false;
        }
        worked
    };
    thread::scope(|scope| {
        let spawn = |_| {
            let helper = thread::Builder::new().name("tree".to_owned());
            // A refused thread is no error: the others read on.
            helper.spawn_scoped(scope, work).ok()
        };
        let helpers: Vec<_> = (1..threads).filter_map(spawn).collect();
        let mut worked = work();
        for helper in helpers {
            let helped = helper.join();
            worked = worked.and(helped.unwrap_or(Err(VolumeError::Internal("a survey panicked"))));
        }
        worked
    })
}

/// Entries of some readings, packed.
#[derive(Default)]
struct Batch {
    names: Vec<u8>,
    entries: Vec<Packed>,
}

struct Packed {
    ino: u64,
    name: Range<usize>,
    kind: FileKind,
}

impl Batch {
    fn push(&mut self, name: &OsStr, kind: FileKind, ino: u64) {
        let start = self.names.len();
        self.names.extend_from_slice(name.as_bytes());
        let name = start..self.names.len();
        self.entries.push(Packed { ino, name, kind });
    }

    /// In the order of their inodes, as they lie on the disk: names come in the order of hashes.
    fn each(
        mut self,
        mut each: impl FnMut(&OsStr, FileKind) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.entries.sort_unstable_by_key(|entry| entry.ino);
        self.entries.into_iter().try_for_each(|entry| {
            let name = OsStr::from_bytes(&self.names[entry.name]);
            each(name, entry.kind)
        })
    }
}

/// The kind of an entry, asking the entry itself where the directory does not say.
///
/// # Errors
/// Those of asking, `ENOENT` when it has vanished.
pub(crate) fn kind_of(dir: &Dir, entry: &DirEntry) -> Result<FileKind, VolumeError> {
    known_kind(dir, &entry.name, entry.kind)
}

/// As [`kind_of`], of a name and what its directory says.
///
/// # Errors
/// As [`kind_of`].
pub(crate) fn known_kind(dir: &Dir, name: &OsStr, said: FileKind) -> Result<FileKind, VolumeError> {
    if said != FileKind::Unknown {
        return Ok(said);
    }
    let stat = dir.stat(name)?;
    Ok(match () {
        () if stat.is_dir() => FileKind::Dir,
        () if stat.is_file() => FileKind::File,
        () if stat.is_symlink() => FileKind::Symlink,
        () => FileKind::Special,
    })
}
