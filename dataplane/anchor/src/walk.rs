//! A snapshot of a tree: what an archive of it will hold.
//!
//! Laws
//! - Directories are opened by one name below an open directory, `O_NOFOLLOW`; links to
//!   directories are not entered.
//! - No recursion; one descriptor per level, at most `depth_max`.
//! - The files of a directory come in the order of their names, then its directories: two
//!   snapshots of an unchanged tree are alike, whoever takes them.
//! - Memory is one arena of names and fixed-size records, both bounded by the limits. Past a
//!   limit the answer is an error, never a part of the tree.
//! - `.upload` at the vfolder root, snapshots of the storage system, special files, and links that
//!   leave, dangle or lead to anything but a file are not in it; what could not be read is counted.

use proxy_core::relpath::{RelPath, STAGING_DIR};
use rustix::io::Errno;

use crate::components::Links;
use crate::dir::{Dir, FileKind};
use crate::error::{AnchorError, Limit, Result, Stop};
use crate::resolve::Base;
use crate::stat::Stat;
use crate::sys;
use crate::vfolder::VFolderRoot;

/// How much of a tree the caller is willing to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries and directories together.
    pub entries_max: u32,
    /// Levels of directories below the start, which is level 0; each costs a descriptor.
    pub depth_max: u32,
    /// Bytes of all names together, without separators.
    pub name_bytes_max: u32,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// An empty directory. Others show by what is in them.
    Dir,
    /// A link to a regular file inside the vfolder; the facts are those of the file.
    LinkToFile,
}

/// One entry of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the vfolder root, names joined by `/`; any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Type and permission bits.
    pub mode: u32,
    /// Inode number.
    pub ino: u64,
    /// Device number; see [`Stat::dev`].
    pub dev: u64,
}

/// A moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Full seconds since 1970.
    pub s: i64,
    /// Nanoseconds beyond; below 1,000,000,000.
    pub ns: u32,
}

impl Time {
    /// From nanoseconds since 1970.
    pub fn from_ns(ns: i128) -> Self {
        let second = 1_000_000_000;
        Self {
            s: i64::try_from(ns.div_euclid(second)).unwrap_or(i64::MAX),
            // Below a second.
            ns: ns.rem_euclid(second) as u32,
        }
    }
}

impl Entry {
    /// Whether `stat` is of the file that was listed, unchanged since.
    pub fn is(&self, stat: &Stat) -> bool {
        self.ino == stat.ino
            && self.size == stat.size
            && self.mtime == Time::from_ns(stat.mtime_ns)
            && self.ctime == Time::from_ns(stat.ctime_ns)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Snapshot {
    base: Vec<u8>,
    names: Vec<u8>,
    dirs: Vec<Name>,
    records: Vec<Record>,
    unreadable: u64,
}

/// A name in the arena, below a directory.
#[derive(Clone, Copy, Debug)]
struct Name {
    /// Index into `dirs`; `TOP` directly below the base.
    parent: u32,
    at: u32,
    len: u32,
}

const TOP: u32 = u32::MAX;

/// Names of one directory that are held, beyond twice the limit of entries, before it is clear
/// what is behind them.
const NAMES_SPARE: usize = 4096;

/// The start itself.
const NAMELESS: Name = Name {
    parent: TOP,
    at: 0,
    len: 0,
};

#[derive(Debug)]
struct Record {
    name: Name,
    kind: EntryKind,
    mode: u32,
    size: u64,
    mtime: Time,
    ctime: Time,
    ino: u64,
    dev: u64,
}

impl Snapshot {
    /// Where the snapshot starts, after links: every path begins with it. Empty: the vfolder
    /// root.
    pub fn base(&self) -> &[u8] {
        &self.base
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Files and directories that are there but could not be read (`EACCES`).
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The entry at `index`, 0..[`Snapshot::len`].
    pub fn entry(&self, index: usize) -> Option<Entry> {
        let record = self.records.get(index)?;
        Some(Entry {
            path: self.path(record.name),
            kind: record.kind,
            size: record.size,
            mtime: record.mtime,
            ctime: record.ctime,
            mode: record.mode,
            ino: record.ino,
            dev: record.dev,
        })
    }

    /// All entries, each directory in one piece.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.records.len()).filter_map(|index| self.entry(index))
    }

    fn bytes(&self, name: Name) -> &[u8] {
        &self.names[name.at as usize..][..name.len as usize]
    }

    fn path(&self, name: Name) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut next = Some(name);
        while let Some(name) = next {
            parts.push(self.bytes(name));
            next = self.dirs.get(name.parent as usize).copied();
        }
        parts.push(self.base.as_slice());
        parts.reverse();
        parts.retain(|part| !part.is_empty());
        parts.join(&b'/')
    }
}

/// Takes a snapshot of what is below `from`. Links on the way to `from` are followed when
/// they stay inside. A file gives itself alone, anything else that is no directory nothing.
///
/// # Errors
/// [`AnchorError::Limit`] past a limit; what the file system says about `from` itself.
/// Entries that vanish meanwhile are left out.
pub fn snapshot(root: &VFolderRoot, from: &RelPath, limits: Limits) -> Result<Snapshot> {
    let from = root.check(from)?;
    root.run(|base| {
        let found = base
            .handle(from, Links::Follow)
            .map_err(|stop| stop.at("open", from))?;
        let os = |errno| AnchorError::os("open", errno, from);
        let stat = Stat::of(&found.it).map_err(os)?;
        let mut walk = Walk::new(base, limits, found.location);
        if stat.is_dir() {
            let dir = sys::reopen_dir(&found.it, sys::DIR_READ).map_err(os)?;
            walk.run(Dir::new(dir, walk.snapshot.base.clone()), stat)?;
        } else if stat.is_file() {
            walk.add(NAMELESS, EntryKind::File, &stat)?;
        }
        Ok(walk.snapshot)
    })
}

struct Level {
    dir: Dir,
    stat: Stat,
    /// Own name; without bytes for the start.
    name: Name,
    /// Index into `Snapshot::dirs`; `TOP` for the start.
    index: u32,
    /// How many records there were when it was entered.
    records_before: usize,
    /// Directories in it that are still to be entered.
    pending: Vec<Name>,
}

struct Walk<'a> {
    base: &'a Base<'a>,
    limits: Limits,
    snapshot: Snapshot,
    levels: Vec<Level>,
    buf: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(base: &'a Base<'a>, limits: Limits, from: Vec<u8>) -> Self {
        let snapshot = Snapshot {
            base: from,
            names: Vec::new(),
            dirs: Vec::new(),
            records: Vec::new(),
            unreadable: 0,
        };
        Self {
            base,
            limits,
            snapshot,
            levels: Vec::new(),
            buf: Vec::new(),
        }
    }

    fn run(&mut self, dir: Dir, stat: Stat) -> Result<()> {
        self.enter(dir, stat, NAMELESS, TOP)?;
        while let Some(level) = self.levels.last_mut() {
            match level.pending.pop() {
                Some(name) => self.descend(name)?,
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// Reads a whole directory: its files become entries, its directories wait.
    fn enter(&mut self, dir: Dir, stat: Stat, name: Name, index: u32) -> Result<()> {
        let records_before = self.snapshot.records.len();
        let mut level = Level {
            dir,
            stat,
            name,
            index,
            records_before,
            pending: Vec::new(),
        };
        let at_root = index == TOP && self.snapshot.base.is_empty();
        for (name, kind) in self.list(&level.dir)? {
            let hidden = self.base.is_reserved(&name);
            if !hidden && (!at_root || name != STAGING_DIR.as_bytes()) {
                self.visit(&mut level, &name, kind)?;
            }
        }
        // The last is entered first.
        level.pending.reverse();
        self.levels.push(level);
        Ok(())
    }

    /// The names of a directory, sorted.
    fn list(&mut self, dir: &Dir) -> Result<Vec<(Vec<u8>, FileKind)>> {
        let mut names = Vec::new();
        let most = self.limits.entries_max;
        let mut more = true;
        while more {
            let buf = &mut self.buf;
            more = dir
                .next_batch(buf, |name, kind, _| names.push((name.to_vec(), kind)))
                .map_err(|errno| dir.os("list", b"", errno))?;
            // Not all need become entries: links that lead nowhere do not.
            if (most as usize).saturating_mul(2) + NAMES_SPARE < names.len() {
                return Err(limit(Limit::Entries, most));
            }
        }
        names.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Ok(names)
    }

    /// Ends the top level. A directory that gave no entry becomes one.
    fn leave(&mut self) -> Result<()> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        if level.records_before < self.snapshot.records.len() {
            return Ok(());
        }
        if level.index == TOP {
            return match self.snapshot.base.is_empty() {
                true => Ok(()),
                false => self.add(NAMELESS, EntryKind::Dir, &level.stat),
            };
        }
        // Nothing below refers to it, and every later directory would lie below.
        assert_eq!(self.snapshot.dirs.len(), level.index as usize + 1);
        self.snapshot.dirs.pop();
        self.add(level.name, EntryKind::Dir, &level.stat)
    }

    fn visit(&mut self, level: &mut Level, name: &[u8], kind: FileKind) -> Result<()> {
        match kind {
            FileKind::Dir => {
                let name = self.intern(level.index, name)?;
                level.pending.push(name);
                Ok(())
            }
            FileKind::Special => Ok(()),
            FileKind::File | FileKind::Symlink | FileKind::Unknown => self.visit_entry(level, name),
        }
    }

    fn visit_entry(&mut self, level: &mut Level, name: &[u8]) -> Result<()> {
        let stat = Stat::of_entry(&level.dir, name).map_err(Stop::Errno);
        let Some(stat) = self.present(&level.dir, name, stat)? else {
            return Ok(());
        };
        if stat.is_dir() {
            return self.visit(level, name, FileKind::Dir);
        }
        if stat.is_file() {
            let name = self.intern(level.index, name)?;
            return self.add(name, EntryKind::File, &stat);
        }
        if !stat.is_symlink() {
            return Ok(());
        }
        let target = self.base.handle(&level.dir.path_of(name), Links::Follow);
        let target = target.and_then(|found| Ok(Stat::of(&found.it)?));
        match self.present(&level.dir, name, target)? {
            Some(stat) if stat.is_file() => {
                let name = self.intern(level.index, name)?;
                self.add(name, EntryKind::LinkToFile, &stat)
            }
            _ => Ok(()),
        }
    }

    /// Enters a directory of the top level, or drops it when it is gone.
    fn descend(&mut self, name: Name) -> Result<()> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        let bytes = self.snapshot.bytes(name).to_vec();
        let opened = level.dir.open_dir_raw(&bytes);
        let opened = opened.and_then(|dir| Stat::of(&dir).map(|stat| (dir, stat)));
        let opened = self.present(&level.dir, &bytes, opened.map_err(Stop::Errno))?;
        self.levels.push(level);
        let Some((dir, stat)) = opened else {
            return Ok(());
        };
        if (self.limits.depth_max as usize) < self.levels.len() {
            return Err(limit(Limit::Depth, self.limits.depth_max));
        }
        self.room_for_one()?;
        let index = self.snapshot.dirs.len() as u32;
        self.snapshot.dirs.push(name);
        self.enter(dir, stat, name, index)
    }

    /// `None` when it vanished, became another type, leads nowhere, or may not be read. Other
    /// refusals (too many descriptors, a broken disk) must not look like a smaller tree.
    fn present<T>(
        &mut self,
        dir: &Dir,
        name: &[u8],
        found: std::result::Result<T, Stop>,
    ) -> Result<Option<T>> {
        match found {
            Ok(it) => Ok(Some(it)),
            Err(Stop::Errno(Errno::ACCESS | Errno::PERM)) => {
                self.snapshot.unreadable += 1;
                Ok(None)
            }
            Err(Stop::Escapes | Stop::Reserved) => Ok(None),
            Err(Stop::Errno(
                Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::STALE,
            )) => Ok(None),
            Err(Stop::Errno(errno)) => Err(dir.os("open", name, errno)),
        }
    }

    fn intern(&mut self, parent: u32, name: &[u8]) -> Result<Name> {
        let names = &mut self.snapshot.names;
        let total = names.len() + name.len();
        let max = self.limits.name_bytes_max;
        if (max as usize) < total {
            return Err(limit(Limit::NameBytes, max));
        }
        let at = names.len() as u32;
        names.extend_from_slice(name);
        Ok(Name {
            parent,
            at,
            len: name.len() as u32,
        })
    }

    fn room_for_one(&self) -> Result<()> {
        let max = self.limits.entries_max;
        if (max as usize) <= self.snapshot.records.len() + self.snapshot.dirs.len() {
            return Err(limit(Limit::Entries, max));
        }
        Ok(())
    }

    fn add(&mut self, name: Name, kind: EntryKind, stat: &Stat) -> Result<()> {
        self.room_for_one()?;
        self.snapshot.records.push(Record {
            name,
            kind,
            mode: stat.mode,
            size: stat.size,
            mtime: Time::from_ns(stat.mtime_ns),
            ctime: Time::from_ns(stat.ctime_ns),
            ino: stat.ino,
            dev: stat.dev,
        });
        Ok(())
    }
}

fn limit(limit: Limit, max: u32) -> AnchorError {
    AnchorError::Limit {
        limit,
        max: u64::from(max),
    }
}
