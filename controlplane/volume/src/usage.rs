//! How much a vfolder holds: entries, apparent bytes, allocated bytes.
//!
//! Laws
//! - Every entry below the folder counts: files, links (not followed), directories, special
//!   files. Staging files of uploads count too: they occupy the quota.
//! - Bytes of a file with several names count once. Allocated bytes include the folder's own
//!   directory.
//! - What vanishes or cannot be read is left out; what lies on another file system counts as one
//!   entry and is not entered.
//! - When time runs out, the numbers are what was seen until then and say so.
//!
//! Source: the original's scan for the first two numbers, but for files with several names, and
//! `du -s` for the third; `docs/semantics.md#usage`.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use proxy_anchor::{Dir, FileKind, Stat};
use rustix::io::Errno;

use crate::control::Control;
use crate::crew::{self, Names, Visit};
use crate::entries::survey;
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::place::{Place, Shelf};

/// Unit of `st_blocks`, whatever the file system's block size.
const STAT_BLOCK_BYTES: u64 = 512;

/// The sums of one scan; can be read while it runs.
#[derive(Debug)]
pub(crate) struct Tally {
    entries: AtomicU64,
    apparent_bytes: AtomicU64,
    allocated_bytes: AtomicU64,
    content_bytes: AtomicU64,
    until: Option<Instant>,
    seen: Mutex<HashSet<(u64, u64)>>,
    seen_max: usize,
    names_only: bool,
}

/// What a scan has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) entries: u64,
    pub(crate) apparent_bytes: u64,
    pub(crate) allocated_bytes: u64,
    /// Apparent bytes of regular files alone, each name counted.
    pub(crate) content_bytes: u64,
}

impl Tally {
    /// A scan that ends at `until` at the latest.
    pub(crate) fn new(until: Option<Instant>, limits: &Limits) -> Self {
        Self {
            entries: AtomicU64::new(0),
            apparent_bytes: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            content_bytes: AtomicU64::new(0),
            until,
            seen: Mutex::new(HashSet::new()),
            seen_max: limits.hard_links_max,
            names_only: false,
        }
    }

    /// A scan of which only [`Sums::entries`] is wanted: files are not looked at.
    pub(crate) fn of_names(until: Option<Instant>, limits: &Limits) -> Self {
        Self {
            names_only: true,
            ..Self::new(until, limits)
        }
    }

    pub(crate) fn sums(&self) -> Sums {
        Sums {
            entries: self.entries.load(Ordering::Relaxed),
            apparent_bytes: self.apparent_bytes.load(Ordering::Relaxed),
            allocated_bytes: self.allocated_bytes.load(Ordering::Relaxed),
            content_bytes: self.content_bytes.load(Ordering::Relaxed),
        }
    }

    /// Scans everything in `dir`, until `control` says otherwise. Returns whether it got to the
    /// end.
    ///
    /// # Errors
    /// Those of reading `dir` itself.
    pub(crate) fn scan(
        &self,
        dir: Dir,
        limits: &Limits,
        control: &Control,
    ) -> Result<bool, VolumeError> {
        let stat = dir.metadata()?;
        let own = Sums {
            allocated_bytes: allocated(&stat),
            ..Sums::default()
        };
        self.add(&own);
        let scan = Scan {
            tally: self,
            control,
            dev: stat.dev,
            threads_max: limits.tree_threads_max,
            names_only: self.names_only,
        };
        let shelf = Shelf::new(limits.dirs_open_max);
        let walked = scan.count(&dir).and_then(|names| {
            let root = Place::root(dir, &stat, &shelf);
            crew::walk(&scan, root, names, limits.tree_threads_max)
        });
        match walked {
            Ok(()) => Ok(true),
            Err(VolumeError::Cancelled) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn check(&self, control: &Control) -> Result<(), VolumeError> {
        let late = || self.until.is_some_and(|until| until <= Instant::now());
        if late() {
            Err(VolumeError::Cancelled)
        } else {
            control.check()
        }
    }

    fn add(&self, sums: &Sums) {
        let add = |to: &AtomicU64, more| to.fetch_add(more, Ordering::Relaxed);
        add(&self.entries, sums.entries);
        add(&self.apparent_bytes, sums.apparent_bytes);
        add(&self.allocated_bytes, sums.allocated_bytes);
        add(&self.content_bytes, sums.content_bytes);
    }

    fn is_first(&self, stat: &Stat) -> bool {
        let mut seen = self.seen.lock();
        let identity = (stat.dev, stat.ino);
        if seen.len() < self.seen_max {
            seen.insert(identity)
        } else {
            !seen.contains(&identity)
        }
    }
}

pub(crate) fn allocated(stat: &Stat) -> u64 {
    stat.blocks.saturating_mul(STAT_BLOCK_BYTES)
}

struct Scan<'a> {
    tally: &'a Tally,
    control: &'a Control,
    dev: u64,
    threads_max: usize,
    names_only: bool,
}

/// What one thread has seen of one directory.
#[derive(Default)]
struct Seen {
    sums: Sums,
    dirs: Names,
}

impl Scan<'_> {
    /// Counts the entries of `dir`; yields those to descend into.
    fn count(&self, dir: &Dir) -> Result<Names, VolumeError> {
        self.tally.check(self.control)?;
        let found = Mutex::new(Names::default());
        let done = |mut seen: Seen| {
            self.tally.add(&seen.sums);
            if 0 < seen.dirs.len() {
                found.lock().append(&mut seen.dirs);
            }
            self.tally.check(self.control)
        };
        let each = |seen: &mut Seen, name: &OsStr, kind| {
            if self.names_only && kind != FileKind::Dir && kind != FileKind::Unknown {
                seen.sums.entries += 1;
            } else {
                self.look(dir, name, seen);
            }
            Ok(())
        };
        survey(dir, self.threads_max, Seen::default, each, done)?;
        Ok(found.into_inner())
    }

    fn look(&self, dir: &Dir, name: &OsStr, seen: &mut Seen) {
        let Ok(stat) = dir.stat(name) else {
            return;
        };
        let sums = &mut seen.sums;
        sums.entries += 1;
        if stat.is_file() {
            sums.content_bytes += stat.size;
        }
        if stat.is_dir() || stat.nlink < 2 || self.tally.is_first(&stat) {
            sums.apparent_bytes += stat.size;
            sums.allocated_bytes += allocated(&stat);
        }
        if stat.is_dir() && stat.dev == self.dev {
            seen.dirs.push(name);
        }
    }

    fn enter_readable(
        &self,
        parent: &Arc<Place>,
        name: &OsStr,
    ) -> Result<(Arc<Place>, Names), VolumeError> {
        let dir = parent.dir()?.open_dir(name)?;
        let stat = dir.metadata()?;
        let names = self.count(&dir)?;
        let place = parent.child(name, dir, &stat);
        if names.len() > 0 {
            place.shelve();
        }
        Ok((place, names))
    }
}

impl Visit for Scan<'_> {
    type Place = Arc<Place>;

    fn enter(
        &self,
        parent: &Arc<Place>,
        name: &OsStr,
    ) -> Result<Option<(Arc<Place>, Names)>, VolumeError> {
        match self.enter_readable(parent, name) {
            Ok(entered) => Ok(Some(entered)),
            Err(error) if is_unreadable(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn leave(&self, _: &Arc<Place>) -> Result<(), VolumeError> {
        Ok(())
    }
}

/// It vanished, was replaced by something else, or is not ours to read.
pub(crate) fn is_unreadable(error: &VolumeError) -> bool {
    let skipped = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::LOOP,
        Errno::ACCESS,
        Errno::PERM,
        Errno::STALE,
        Errno::NAMETOOLONG,
    ];
    error.errno().is_some_and(|errno| skipped.contains(&errno))
}
