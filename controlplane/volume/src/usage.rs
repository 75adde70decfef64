//! How much a vfolder holds: entries, apparent bytes, allocated bytes.
//!
//! Laws
//! - Every entry below the folder counts with its own size: files, links (not followed),
//!   directories, special files. Staging files of uploads count too: they occupy the quota.
//! - Allocated bytes count a file with several names once, and the folder's own directory too.
//! - What vanishes or cannot be read is left out; what lies on another file system counts as one
//!   entry and is not entered.
//! - When time runs out, the numbers are what was seen until then and say so.
//!
//! Source: the original's scan for the first two numbers, `du -s` for the third.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use proxy_anchor::{Dir, Stat};
use rustix::io::Errno;

use crate::control::Control;
use crate::crew::{self, Names, Visit};
use crate::entries::for_each;
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
        mut dir: Dir,
        limits: &Limits,
        control: &Control,
    ) -> Result<bool, VolumeError> {
        let stat = dir.metadata()?;
        self.add_allocated(&stat);
        let scan = Scan {
            tally: self,
            control,
            dev: stat.dev,
        };
        let shelf = Shelf::new(limits.dirs_open_max);
        let walked = scan.count(&mut dir).and_then(|names| {
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

    fn add(&self, stat: &Stat) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.apparent_bytes.fetch_add(stat.size, Ordering::Relaxed);
        if stat.is_file() {
            self.content_bytes.fetch_add(stat.size, Ordering::Relaxed);
        }
        if stat.is_dir() || stat.nlink < 2 || self.is_first(stat) {
            self.add_allocated(stat);
        }
    }

    fn add_allocated(&self, stat: &Stat) {
        let bytes = stat.blocks.saturating_mul(STAT_BLOCK_BYTES);
        self.allocated_bytes.fetch_add(bytes, Ordering::Relaxed);
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

struct Scan<'a> {
    tally: &'a Tally,
    control: &'a Control,
    dev: u64,
}

impl Scan<'_> {
    fn count(&self, dir: &mut Dir) -> Result<Names, VolumeError> {
        let mut names = Names::default();
        for_each(dir, |dir, entry| {
            self.tally.check(self.control)?;
            let Ok(stat) = dir.stat(&entry.name) else {
                return Ok(());
            };
            self.tally.add(&stat);
            if stat.is_dir() && stat.dev == self.dev {
                names.push(&entry.name);
            }
            Ok(())
        })?;
        Ok(names)
    }

    fn enter_readable(
        &self,
        parent: &Arc<Place>,
        name: &OsStr,
    ) -> Result<(Arc<Place>, Names), VolumeError> {
        let mut dir = parent.dir()?.open_dir(name)?;
        let stat = dir.metadata()?;
        let names = self.count(&mut dir)?;
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
        self.tally.check(self.control)?;
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
fn is_unreadable(error: &VolumeError) -> bool {
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
