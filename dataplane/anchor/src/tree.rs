//! Removal of whole trees, of any depth and size.
//!
//! Laws
//! - Directories are opened by one name below an open directory, `O_NOFOLLOW`: a link is
//!   removed, never followed.
//! - At most `DEPTH_HELD_MAX` descriptors and as many batches of names are held. What lies
//!   deeper is moved up to the top of the tree first and removed from there.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use proxy_core::id::SessionId;
use rustix::io::Errno;

use crate::dir::{Dir, FileKind};
use crate::error::Result;
use crate::sys;

/// Deeper than real trees; few enough for a hundred removals at once under the usual limit of
/// 1024 descriptors to be nobody's concern.
const DEPTH_HELD_MAX: usize = 48;

/// Passes over one directory that others keep filling.
const PASSES_MAX: u32 = 16;

/// Told after every batch how many entries are gone; may stop the removal.
pub type Watch<'w> = &'w mut dyn FnMut(u64) -> ControlFlow<()>;

/// What a removal did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Entries that are gone.
    pub entries: u64,
    /// `false`: stopped by the watch.
    pub complete: bool,
}

/// Removes everything in `dir`, but not `dir` itself.
///
/// # Errors
/// The first refusal ends the removal; what was removed stays removed. Entries that others
/// remove meanwhile are fine.
pub fn empty(dir: Dir, watch: Watch<'_>) -> Result<Removed> {
    let mut removal = Removal {
        levels: Vec::new(),
        entries: 0,
        buf: Vec::new(),
    };
    removal.enter(dir, Vec::new())?;
    while !removal.levels.is_empty() {
        if watch(removal.entries).is_break() {
            return Ok(Removed {
                entries: removal.entries,
                complete: false,
            });
        }
        removal.step()?;
    }
    Ok(Removed {
        entries: removal.entries,
        complete: true,
    })
}

struct Level {
    dir: Dir,
    /// Its name in the level above.
    name: Vec<u8>,
    /// Directories of the last batch that are still to be removed.
    pending: Vec<Vec<u8>>,
    /// Something was seen since the last rewind, so another pass is due.
    dirty: bool,
    passes: u32,
}

struct Removal {
    levels: Vec<Level>,
    entries: u64,
    buf: Vec<u8>,
}

impl Removal {
    fn enter(&mut self, dir: Dir, name: Vec<u8>) -> Result<()> {
        dir.rewind().map_err(|errno| dir.os("list", b"", errno))?;
        self.levels.push(Level {
            dir,
            name,
            pending: Vec::new(),
            dirty: false,
            passes: 0,
        });
        Ok(())
    }

    /// One directory of the batch, or the next batch, or the end of a level.
    fn step(&mut self) -> Result<()> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        if let Some(name) = level.pending.pop() {
            return self.descend(name);
        }
        let mut names = Vec::new();
        let more = level
            .dir
            .next_batch(&mut self.buf, |name, kind, _| {
                names.push((name.to_vec(), kind))
            })
            .map_err(|errno| level.dir.os("list", b"", errno))?;
        level.dirty |= !names.is_empty();
        for (name, kind) in names {
            self.remove(name, kind)?;
        }
        if more { Ok(()) } else { self.end_of_pass() }
    }

    fn remove(&mut self, name: Vec<u8>, kind: FileKind) -> Result<()> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        if kind == FileKind::Dir {
            level.pending.push(name);
            return Ok(());
        }
        match sys::unlink(&level.dir, &name) {
            Ok(()) => self.entries += 1,
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => level.pending.push(name),
            Err(errno) => return Err(level.dir.os("unlink", &name, errno)),
        }
        Ok(())
    }

    fn descend(&mut self, name: Vec<u8>) -> Result<()> {
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        // Empty directories are common and need no descriptor.
        match sys::rmdir(&level.dir, &name) {
            Ok(()) => {
                self.entries += 1;
                return Ok(());
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR) => return self.remove(name, FileKind::Unknown),
            // The next step says why: not empty, no permission, a mount.
            Err(_) => {}
        }
        if DEPTH_HELD_MAX <= self.levels.len() {
            return self.lift(&name);
        }
        match level.dir.open_dir_raw(&name) {
            Ok(dir) => self.enter(dir, name),
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => self.remove(name, FileKind::Unknown),
            Err(errno) => Err(level.dir.os("open", &name, errno)),
        }
    }

    /// Moves a directory that lies too deep to the top, where a later pass finds it.
    fn lift(&mut self, name: &[u8]) -> Result<()> {
        let (Some(top), Some(level)) = (self.levels.first(), self.levels.last()) else {
            return Ok(());
        };
        let new = format!(".deep-{}", SessionId::random());
        match sys::rename(&level.dir, name, &top.dir, OsStr::new(&new).as_bytes()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(level.dir.os("rename", name, errno)),
        }
        self.levels[0].dirty = true;
        Ok(())
    }

    fn end_of_pass(&mut self) -> Result<()> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        if !level.pending.is_empty() {
            return Ok(());
        }
        if level.dirty && level.passes < PASSES_MAX {
            level.dirty = false;
            level.passes += 1;
            return level
                .dir
                .rewind()
                .map_err(|errno| level.dir.os("list", b"", errno));
        }
        let Some(done) = self.levels.pop() else {
            return Ok(());
        };
        let Some(above) = self.levels.last() else {
            return Ok(());
        };
        match sys::rmdir(&above.dir, &done.name) {
            Ok(()) => self.entries += 1,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(above.dir.os("rmdir", &done.name, errno)),
        }
        Ok(())
    }
}
