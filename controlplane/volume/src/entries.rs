//! Going through the entries of a directory while working on it.
//!
//! Small directories, nearly all of them, are read whole and then worked on. A large one is
//! read by a second descriptor, so that memory does not follow the number of its entries; one
//! whose entries are only looked at is shared by several threads.

use std::ffi::OsStr;
use std::thread;

use parking_lot::Mutex;
use proxy_anchor::{Dir, DirEntry, FileKind};

use crate::crew::Names;
use crate::error::VolumeError;

/// Batches of entries, about a thousand each, after which a directory is large: from there on
/// looking at its entries takes longer than starting threads.
const BATCHES_ALONE: usize = 4;

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

/// Looks at every entry of `dir`, which was just opened; up to `threads` threads look at a large
/// one. Each gathers into something of its own, which `done` takes whenever a batch is done.
///
/// # Errors
/// Those of reading, and those of `each` and `done`; the first ends all.
pub(crate) fn survey<A>(
    dir: &Dir,
    threads: usize,
    begin: impl Fn() -> A + Sync,
    each: impl Fn(&mut A, &OsStr) + Sync,
    done: impl Fn(A) -> Result<(), VolumeError> + Sync,
) -> Result<(), VolumeError> {
    let turn = |buffer: &mut Vec<u8>| {
        let mut gathered = begin();
        let more = dir.read_batch(buffer, |name, _| each(&mut gathered, name))?;
        done(gathered).map(|()| more)
    };
    let mut buffer = Vec::new();
    for _ in 0..BATCHES_ALONE {
        if !turn(&mut buffer)? {
            return Ok(());
        }
    }
    // One at a time reads names; looking at them, which takes longer, is done side by side.
    let reading = Mutex::new(true);
    let work = || {
        let mut buffer = Vec::new();
        loop {
            let mut names = Names::default();
            let mut more = reading.lock();
            if !*more {
                return Ok(());
            }
            let read = dir.read_batch(&mut buffer, |name, _| names.push(name));
            *more = *read.as_ref().unwrap_or(&false);
            drop(more);
            read?;
            let mut gathered = begin();
            while let Some(name) = names.pop() {
                each(&mut gathered, &name);
            }
            if let Err(error) = done(gathered) {
                *reading.lock() = false;
                return Err(error);
            }
        }
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
