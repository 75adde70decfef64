//! Counting a folder again without reading the directories that have not changed.
//!
//! A directory's own times tell that its list of entries is the same. They do not tell that a file
//! in it was written to in place: such bytes are seen late, and what is said is not called exact.
//!
//! Laws
//! - Every directory is looked at, in every scan. It is read again when its times are others,
//!   when they were too fresh to be relied on when it was read, and at the latest in every
//!   `usage_recount_scans`-th scan; directories take turns at that.
//! - Where the program itself writes in place, in the staging area, nothing is relied on.
//! - A scan that ends before the end is not remembered.
//!
//! Source: `docs/semantics.md#usage`. The idea of times that are too fresh is git's.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use proxy_anchor::{Dir, Stat};
use proxy_core::relpath::STAGING_DIR;

use crate::backend::{Known, Usage};
use crate::book::{Link, Pages, Record, ns};
use crate::control::Control;
use crate::crew::{self, Names, Visit};
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::place::{Place, Shelf};
use crate::stamp::Stamp;
use crate::usage::{allocated, is_unreadable};

/// What a scan has counted; can be read while it runs.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    entries: AtomicU64,
    apparent_bytes: AtomicU64,
    allocated_bytes: AtomicU64,
    dirs_read: AtomicU64,
    dirs_skipped: AtomicU64,
    entries_looked_at: AtomicU64,
}

impl Totals {
    /// The numbers as of now.
    pub(crate) fn known(&self, as_of: Stamp, complete: bool) -> Known {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let dirs_skipped = of(&self.dirs_skipped);
        Known {
            usage: Usage {
                file_count: of(&self.entries),
                used_bytes: of(&self.apparent_bytes),
                complete,
            },
            allocated_bytes: of(&self.allocated_bytes),
            as_of,
            exact: complete && dirs_skipped == 0,
            dirs_read: of(&self.dirs_read),
            dirs_skipped,
            entries_looked_at: of(&self.entries_looked_at),
        }
    }
}

impl Pages {
    /// What the last scan found.
    pub(crate) fn known(&self) -> Known {
        Known {
            usage: Usage {
                file_count: self.entries,
                used_bytes: self.apparent_bytes,
                complete: true,
            },
            allocated_bytes: self.allocated_bytes,
            as_of: self.as_of,
            exact: self.exact,
            ..Known::default()
        }
    }
}

/// How a scan is bounded.
pub(crate) struct Bounds<'a> {
    pub(crate) until: Option<Instant>,
    pub(crate) threads: usize,
    pub(crate) limits: &'a Limits,
    pub(crate) control: &'a Control,
}

/// Counts what is in `dir`. Yields what is to be remembered; `None` when it did not get to the end.
///
/// # Errors
/// Those of reading `dir` itself.
pub(crate) fn count(
    dir: Dir,
    old: Option<Pages>,
    totals: &Totals,
    bounds: &Bounds<'_>,
) -> Result<Option<Pages>, VolumeError> {
    let stat = dir.metadata()?;
    let as_of = Stamp::now();
    let old = old.unwrap_or_default();
    let counting = Counting {
        totals,
        bounds,
        dev: stat.dev,
        scan: old.scans.saturating_add(1),
        old: Mutex::new(old),
        new: Mutex::default(),
        seen: Mutex::default(),
    };
    totals
        .allocated_bytes
        .fetch_add(allocated(&stat), Ordering::Relaxed);
    let shelf = Shelf::new(bounds.limits.dirs_open_max);
    let walked = counting
        .content(&stat, || Ok(&dir), true)
        .and_then(|names| {
            let root = Place::root(dir.try_clone()?, &stat, &shelf);
            crew::walk(&counting, root, names, bounds.threads)
        });
    match walked {
        Ok(()) => {}
        Err(VolumeError::Cancelled) => return Ok(None),
        Err(error) => return Err(error),
    }
    let known = totals.known(as_of, true);
    let mut pages = counting.new.into_inner();
    pages.root_ino = stat.ino;
    pages.scans = counting.scan;
    pages.as_of = as_of;
    pages.exact = known.exact;
    pages.entries = known.usage.file_count;
    pages.apparent_bytes = known.usage.used_bytes;
    pages.allocated_bytes = known.allocated_bytes;
    Ok(Some(pages))
}

struct Counting<'a> {
    totals: &'a Totals,
    bounds: &'a Bounds<'a>,
    dev: u64,
    scan: u32,
    old: Mutex<Pages>,
    new: Mutex<Pages>,
    /// Files with several names that were counted.
    seen: Mutex<HashSet<u64>>,
}

impl Counting<'_> {
    fn check(&self) -> Result<(), VolumeError> {
        let late = |until: Instant| until <= Instant::now();
        if self.bounds.until.is_some_and(late) {
            return Err(VolumeError::Cancelled);
        }
        self.bounds.control.check()
    }

    /// Counts what lies in a directory, from what is remembered or by reading it; yields its
    /// directories.
    fn content<'d>(
        &self,
        stat: &Stat,
        open: impl FnOnce() -> Result<&'d Dir, VolumeError>,
        remember: bool,
    ) -> Result<Names, VolumeError> {
        self.check()?;
        let old = self.old.lock().take(stat.ino);
        let (ino, record) = match old.filter(|old| self.is_as_it_was(old, stat)) {
            Some(record) => {
                self.totals.dirs_skipped.fetch_add(1, Ordering::Relaxed);
                (stat.ino, record)
            }
            None => self.read(open()?)?,
        };
        self.add(&record);
        let mut names = Names::default();
        for name in record
            .dirs
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            names.push(OsStr::from_bytes(name));
        }
        // Nothing is remembered of what was too fresh.
        if remember && record.due != 0 {
            self.new.lock().insert(ino, record);
        }
        Ok(names)
    }

    fn is_as_it_was(&self, old: &Record, stat: &Stat) -> bool {
        let same = (old.mtime_ns, old.ctime_ns) == (ns(stat.mtime_ns), ns(stat.ctime_ns));
        same && self.scan < old.due
    }

    /// Reads a directory; yields which one it is.
    fn read(&self, dir: &Dir) -> Result<(u64, Record), VolumeError> {
        let (stat, now) = (dir.metadata()?, Stamp::now());
        let mut record = Record {
            mtime_ns: ns(stat.mtime_ns),
            ctime_ns: ns(stat.ctime_ns),
            ..Record::default()
        };
        let settle_ns = self.bounds.limits.usage_settle_time.as_nanos() as i128;
        if stat.mtime_ns.max(stat.ctime_ns) + settle_ns <= now.unix_ns {
            record.due = self.due(stat.ino);
        }
        let mut buffer = Vec::new();
        let mut more = true;
        while more {
            self.check()?;
            let mut looked = 0;
            more = dir.read_batch(&mut buffer, |name, _, _| {
                looked += 1;
                if let Ok(stat) = dir.stat(name) {
                    note(&mut record, name, &stat);
                }
            })?;
            self.totals
                .entries_looked_at
                .fetch_add(looked, Ordering::Relaxed);
        }
        self.totals.dirs_read.fetch_add(1, Ordering::Relaxed);
        Ok((stat.ino, record))
    }

    /// The scan in which a directory that is read now is read again: in the second half of the
    /// round, spread by its number.
    fn due(&self, ino: u64) -> u32 {
        let round = self.bounds.limits.usage_recount_scans.max(1);
        let half = round / 2;
        let turn = (ino.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % u64::from(round - half);
        let later = half + 1 + u32::try_from(turn).unwrap_or(0);
        self.scan.saturating_add(later)
    }

    fn add(&self, record: &Record) {
        let entries = record.entries + record.links.len() as u64;
        self.totals.entries.fetch_add(entries, Ordering::Relaxed);
        self.add_bytes(record.apparent_bytes, record.allocated_bytes);
        for link in record.links.iter().filter(|link| self.is_first(link.ino)) {
            self.add_bytes(link.apparent_bytes, link.allocated_bytes);
        }
    }

    fn add_bytes(&self, apparent: u64, allocated: u64) {
        let totals = self.totals;
        totals.apparent_bytes.fetch_add(apparent, Ordering::Relaxed);
        totals
            .allocated_bytes
            .fetch_add(allocated, Ordering::Relaxed);
    }

    fn is_first(&self, ino: u64) -> bool {
        let mut seen = self.seen.lock();
        if seen.len() < self.bounds.limits.hard_links_max {
            return seen.insert(ino);
        }
        !seen.contains(&ino)
    }

    fn step(
        &self,
        parent: &Arc<Place>,
        name: &OsStr,
    ) -> Result<Option<(Arc<Place>, Names)>, VolumeError> {
        let above = parent.dir()?;
        let stat = above.stat(name)?;
        self.totals.entries.fetch_add(1, Ordering::Relaxed);
        self.add_bytes(stat.size, allocated(&stat));
        if !stat.is_dir() || stat.dev != self.dev {
            return Ok(None);
        }
        let is_staging = parent.parent().is_none() && name == STAGING_DIR;
        // Opened only if it is to be read, or something in it is to be looked at.
        let dir = std::cell::OnceCell::new();
        let open = || match dir.get() {
            Some(dir) => Ok(dir),
            None => above
                .open_dir(name)
                .map_err(VolumeError::from)
                .map(|it| dir.get_or_init(|| it)),
        };
        let names = self.content(&stat, open, !is_staging)?;
        if names.len() == 0 {
            return Ok(None);
        }
        open()?;
        let Some(dir) = dir.into_inner() else {
            return Ok(None);
        };
        let stat = dir.metadata()?;
        let place = parent.child(name, dir, &stat);
        place.shelve();
        Ok(Some((place, names)))
    }
}

/// Counts one entry of a directory. Directories in it are counted when they are looked at.
fn note(record: &mut Record, name: &OsStr, stat: &Stat) {
    if stat.is_dir() {
        record.dirs.extend_from_slice(name.as_bytes());
        record.dirs.push(0);
    } else if stat.nlink < 2 {
        record.entries += 1;
        record.apparent_bytes += stat.size;
        record.allocated_bytes += allocated(stat);
    } else {
        record.links.push(Link {
            ino: stat.ino,
            apparent_bytes: stat.size,
            allocated_bytes: allocated(stat),
        });
    }
}

impl Visit for Counting<'_> {
    type Place = Arc<Place>;

    fn enter(
        &self,
        parent: &Arc<Place>,
        name: &OsStr,
    ) -> Result<Option<(Arc<Place>, Names)>, VolumeError> {
        match self.step(parent, name) {
            Err(error) if is_unreadable(&error) => Ok(None),
            entered => entered,
        }
    }

    fn leave(&self, _: &Arc<Place>) -> Result<(), VolumeError> {
        Ok(())
    }
}
