//! Copies a tree into an empty directory.
//!
//! Laws
//! - Links are copied as links and never followed; hard links within the tree stay hard links.
//! - Kept: content with its holes, permission bits, times, `user.*` attributes and ACLs. Owner is
//!   the server. Set-user and set-group bits of files go when the owner changes with the copy.
//! - Special files and other file systems are left out and reported, never an error.
//! - What vanishes from the source while it is copied is not in the copy, and no error either. A
//!   name that shows up twice is copied once.
//! - Until its last step a directory of the copy is closed to everyone but the server.
//!
//! Source: what `cp --archive` promises, less ownership.

mod again;
pub(crate) mod content;
mod facts;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use proxy_anchor::{Dir, FileKind, Opened, Stat};
use rustix::io::Errno;

use crate::backend::Cloned;
use crate::control::Control;
use crate::copy::content::{Pair, Ways};
use crate::copy::facts::Facts;
use crate::crew::{self, Names, Visit};
use crate::entries::{known_kind, survey};
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::place::{Place, Shelf};

/// Mode of directories that are not finished: what lies in them is nobody else's yet.
const CLOSED_DIR: u32 = 0o700;

/// Copies everything in `from`, and what `from` itself says about itself, to `to`, which is empty
/// or holds what an earlier run has copied: what is whole of that stays.
///
/// Afterwards the copy is complete in the page cache; making it durable is the caller's.
///
/// # Errors
/// [`VolumeError::Cancelled`], and the first refusal of the system; `to` holds a part then.
pub(crate) fn tree(
    from: Dir,
    mut to: Dir,
    ways: &Ways,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    let (from_stat, to_stat) = (from.metadata()?, to.metadata()?);
    let facts = Facts::of(&from)?;
    let mut copying = Copying::new(from_stat.dev, ways, limits, control);
    copying.resumes = to.entries().next().transpose()?.is_some();
    let shelves = shelves(limits);
    let to = Place::root(to, &to_stat, &shelves.1);
    let names = copying.entries(&from, &to)?;
    let from = Place::root(from, &from_stat, &shelves.0);
    let root = Both {
        from,
        to: Arc::clone(&to),
        facts: Facts::default(),
    };
    crew::walk(&copying, root, names, limits.tree_threads_max)?;
    facts.apply(&*to.dir()?)?;
    Ok(copying.report())
}

/// Copies the one entry `name` of `from`, whatever it is, into `to` under the same name.
///
/// # Errors
/// As [`tree`].
pub(crate) fn one(
    from: Dir,
    name: &OsStr,
    to: Dir,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    let (from_stat, to_stat) = (from.metadata()?, to.metadata()?);
    let (stat, ways) = (from.stat(name)?, Ways::default());
    let copying = Copying::new(stat.dev, &ways, limits, control);
    let shelves = shelves(limits);
    let to = Place::root(to, &to_stat, &shelves.1);
    if !stat.is_dir() {
        let kind = match () {
            () if stat.is_file() => FileKind::File,
            () if stat.is_symlink() => FileKind::Symlink,
            () => FileKind::Special,
        };
        copying.leaf(&from, &to, name, kind)?;
        return Ok(copying.report());
    }
    let mut names = Names::default();
    names.push(name);
    let from = Place::root(from, &from_stat, &shelves.0);
    let root = Both {
        from,
        to,
        facts: Facts::default(),
    };
    crew::walk(&copying, root, names, limits.tree_threads_max)?;
    Ok(copying.report())
}

/// The budget of open directories, half for each side.
fn shelves(limits: &Limits) -> (Arc<Shelf>, Arc<Shelf>) {
    let half = (limits.dirs_open_max / 2).max(1);
    (Shelf::new(half), Shelf::new(half))
}

/// One directory and its copy.
#[derive(Debug)]
struct Both {
    from: Arc<Place>,
    to: Arc<Place>,
    facts: Facts,
}

/// The first copy of a file with several names: where the others are linked to.
type FirstCopy = Arc<Mutex<Option<(Arc<Place>, OsString)>>>;

struct Copying<'a> {
    control: &'a Control,
    ways: &'a Ways,
    dev: u64,
    /// The copy holds what an earlier run has made.
    resumes: bool,
    named: Mutex<HashMap<(u64, u64), FirstCopy>>,
    named_max: usize,
    threads_max: usize,
    entries: AtomicU64,
    bytes: AtomicU64,
    skipped: Mutex<Vec<String>>,
    skipped_count: AtomicU64,
    skipped_max: usize,
}

impl<'a> Copying<'a> {
    fn new(dev: u64, ways: &'a Ways, limits: &Limits, control: &'a Control) -> Self {
        Self {
            control,
            ways,
            dev,
            resumes: false,
            named: Mutex::new(HashMap::new()),
            named_max: limits.hard_links_max,
            threads_max: limits.tree_threads_max,
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            skipped: Mutex::new(Vec::new()),
            skipped_count: AtomicU64::new(0),
            skipped_max: limits.skipped_named_max,
        }
    }

    fn report(self) -> Cloned {
        Cloned {
            entries: self.entries.into_inner(),
            bytes: self.bytes.into_inner(),
            skipped: self.skipped_count.into_inner(),
            skipped_named: self.skipped.into_inner(),
        }
    }

    /// Copies all entries of a directory but its directories, whose names are returned.
    fn entries(&self, from: &Dir, to: &Arc<Place>) -> Result<Names, VolumeError> {
        let found_dirs = Mutex::new(Names::default());
        let each = |names: &mut Names, name: &OsStr, kind| {
            self.control.check()?;
            match found(known_kind(from, name, kind))? {
                Some(FileKind::Dir) => names.push(name),
                Some(kind) => self.leaf(from, to, name, kind)?,
                None => {}
            }
            Ok(())
        };
        let done = |mut names: Names| {
            if 0 < names.len() {
                found_dirs.lock().append(&mut names);
            }
            Ok(())
        };
        survey(from, self.threads_max, Names::default, each, done)?;
        Ok(found_dirs.into_inner())
    }

    /// Copies one entry that is no directory.
    fn leaf(
        &self,
        from: &Dir,
        to: &Arc<Place>,
        name: &OsStr,
        kind: FileKind,
    ) -> Result<(), VolumeError> {
        let copied = match kind {
            FileKind::File => self.file(from, to, name),
            FileKind::Symlink => self.link(from, to, name),
            FileKind::Special | FileKind::Unknown | FileKind::Dir => {
                self.skip(from, name);
                Ok(())
            }
        };
        once(copied).map(drop)
    }

    fn link(&self, from: &Dir, to: &Arc<Place>, name: &OsStr) -> Result<(), VolumeError> {
        let read = from
            .readlink(name)
            .and_then(|target| Ok((target, from.stat(name)?)));
        let Some((target, stat)) = found(read.map_err(VolumeError::from))? else {
            return Ok(());
        };
        let to = to.dir()?;
        if !self.resumes || !again::has_link(&to, name, &target)? {
            to.symlink(name, &target)?;
        }
        // Some file systems keep no times for links; that is no loss worth failing for.
        let _ = to.set_times(name, stat.mtime_ns, stat.mtime_ns);
        self.done(0);
        Ok(())
    }

    fn file(&self, from: &Dir, to: &Arc<Place>, name: &OsStr) -> Result<(), VolumeError> {
        let opened = from.open_source(name).map_err(VolumeError::from);
        let Some(opened) = found(opened)? else {
            return Ok(());
        };
        if !opened.stat.is_file() {
            self.skip(from, name);
            return Ok(());
        }
        let there = match self.resumes {
            true => again::file(&*to.dir()?, name, &opened)?,
            false => None,
        };
        let first = if opened.stat.nlink < 2 {
            None
        } else {
            self.first_copy(&opened.stat)
        };
        let Some(first) = first else {
            return self.content(&opened, there, &*to.dir()?, name);
        };
        // Held while copying: another thread with another name of the same file waits for it.
        let mut first = first.lock();
        if let Some((place, first_name)) = &*first {
            let above = place.dir()?;
            let to = to.dir()?;
            let linked = match there {
                Some(there) if again::is_one(&above, first_name, &there)? => Ok(()),
                there => there
                    .map_or(Ok(()), |_| to.unlink(name))
                    .and_then(|()| above.link(first_name, &to, name)),
            };
            match linked.map_err(VolumeError::from) {
                Ok(()) => {
                    self.done(0);
                    self.control.add_bytes(opened.stat.size);
                    return Ok(());
                }
                // Too many names for this file system, or none beside the first.
                Err(error) if is_link_refused(&error) => {}
                Err(error) => return Err(error),
            }
            self.content(&opened, None, &to, name)?;
        } else {
            self.content(&opened, there, &*to.dir()?, name)?;
        }
        *first = Some((Arc::clone(to), name.to_owned()));
        Ok(())
    }

    fn first_copy(&self, stat: &Stat) -> Option<FirstCopy> {
        let mut named = self.named.lock();
        let identity = (stat.dev, stat.ino);
        if self.named_max <= named.len() && !named.contains_key(&identity) {
            return None;
        }
        Some(Arc::clone(named.entry(identity).or_default()))
    }

    /// Copies a file, unless it is `there`.
    fn content(
        &self,
        source: &Opened,
        there: Option<Stat>,
        to: &Dir,
        name: &OsStr,
    ) -> Result<(), VolumeError> {
        if there.is_some() {
            self.control.add_bytes(source.stat.size);
            self.done(source.stat.size);
            return Ok(());
        }
        let facts = Facts::of(&source.fd)?;
        let file = to.create_file(name, facts.mode_at_first())?;
        let pair = Pair {
            from: source.fd.as_fd(),
            to: file.as_fd(),
            size: source.stat.size,
            blocks: source.stat.blocks,
        };
        let path = || {
            let name = name.to_string_lossy();
            match to.location() {
                b"" => name.into_owned(),
                above => format!("{}/{name}", String::from_utf8_lossy(above)),
            }
        };
        content::copy(pair, self.ways, self.control).map_err(|error| error.at(path))?;
        facts.apply_to_file(&file).map_err(|error| error.at(path))?;
        self.done(source.stat.size);
        Ok(())
    }

    fn done(&self, bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.control.add_entries(1);
    }

    fn skip(&self, from: &Dir, name: &OsStr) {
        self.skipped_count.fetch_add(1, Ordering::Relaxed);
        let mut skipped = self.skipped.lock();
        if skipped.len() < self.skipped_max {
            let above = String::from_utf8_lossy(from.location());
            let slash = if above.is_empty() { "" } else { "/" };
            skipped.push(format!("{above}{slash}{}", name.to_string_lossy()));
        }
    }

    fn directory(&self, parent: &Both, name: &OsStr) -> Result<Option<(Both, Names)>, VolumeError> {
        let Some(above) = found(parent.from.dir())? else {
            return Ok(None);
        };
        let opened = above.open_dir(name).map_err(VolumeError::from);
        let Some(from) = found(opened)? else {
            return Ok(None);
        };
        let stat = from.metadata()?;
        if stat.dev != self.dev {
            self.skip(&above, name);
            return Ok(None);
        }
        let facts = Facts::of(&from)?;
        let to_above = parent.to.dir()?;
        let made = to_above.mkdir(name, CLOSED_DIR).map_err(VolumeError::from);
        let to = match once(made)? {
            Some(()) => to_above.open_dir(name)?,
            None if self.resumes => again::dir(&to_above, name, CLOSED_DIR)?,
            None => return Ok(None),
        };
        let to_stat = to.metadata()?;
        let to = parent.to.child(name, to, &to_stat);
        let names = self.entries(&from, &to)?;
        let from = parent.from.child(name, from, &stat);
        if names.len() > 0 {
            from.shelve();
            to.shelve();
        }
        Ok(Some((Both { from, to, facts }, names)))
    }
}

impl Visit for Copying<'_> {
    type Place = Both;

    fn enter(&self, parent: &Both, name: &OsStr) -> Result<Option<(Both, Names)>, VolumeError> {
        self.control.check()?;
        self.directory(parent, name)
    }

    fn leave(&self, both: &Both) -> Result<(), VolumeError> {
        both.facts.apply(&*both.to.dir()?)?;
        self.done(0);
        Ok(())
    }
}

/// `None` when the source has changed under our hands: the entry is gone or something else.
/// Only for steps that look at the source; from the copy nothing may vanish.
fn found<T>(step: Result<T, VolumeError>) -> Result<Option<T>, VolumeError> {
    let gone = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::LOOP,
        Errno::INVAL,
        Errno::STALE,
    ];
    match step {
        Ok(it) => Ok(Some(it)),
        Err(error) if error.errno().is_some_and(|errno| gone.contains(&errno)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `None` when the copy has this name: a directory that changes while it is read may show a name
/// twice, and what it was first is what is copied.
fn once<T>(made: Result<T, VolumeError>) -> Result<Option<T>, VolumeError> {
    match made {
        Err(error) if error.errno() == Some(Errno::EXIST) => Ok(None),
        made => made.map(Some),
    }
}

fn is_link_refused(error: &VolumeError) -> bool {
    let refused = [
        Errno::MLINK,
        Errno::PERM,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::XDEV,
        Errno::ACCESS,
    ];
    error.errno().is_some_and(|errno| refused.contains(&errno))
}
