//! Removes everything in a directory.
//!
//! Laws
//! - Links are removed, never followed; another file system is never entered.
//! - Whatever somebody else removes meanwhile counts as removed: two removals of one tree both
//!   succeed. Whatever somebody else adds is removed too, for a bounded number of rounds.
//! - A directory that its owner closed is opened first: the folder is to go.
//! - A directory of CephFS that has snapshots loses them first: it cannot go before.
//! - A file that a network mount keeps under another name while it is open is waited for a
//!   little, then named in the error.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proxy_anchor::{AnchorError, Dir, FileKind};
use rustix::io::Errno;

use crate::cephfs::snapshots;
use crate::control::Control;
use crate::crew::{self, Names, Visit};
use crate::entries::{known_kind, survey};
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::place::{Place, Shelf};

/// Rounds over what is left before the rest is an error.
const ROUNDS_MAX: u32 = 8;
/// Pause before a round when the last one removed nothing; doubles each time, 3 s in all.
const PAUSE_MIN: Duration = Duration::from_millis(25);

/// Removes everything in `dir`, which itself stays. Returns how many entries are gone.
///
/// # Errors
/// [`VolumeError::Cancelled`], and the first refusal of the system.
pub(crate) fn empty(dir: Dir, limits: &Limits, control: &Control) -> Result<u64, VolumeError> {
    let stat = dir.metadata()?;
    let removal = Removal {
        control,
        limits,
        dev: stat.dev,
        removed: AtomicU64::new(0),
        stuck: Mutex::new(None),
    };
    let mut pause = PAUSE_MIN;
    let mut rounds = 0;
    loop {
        let before = removal.removed.load(Ordering::Relaxed);
        let names = removal.clear(&dir)?;
        let shelf = Shelf::new(limits.dirs_open_max);
        let root = Place::root(dir.try_clone()?, &stat, &shelf);
        crew::walk(&removal, root, names, limits.tree_threads_max)?;
        let after = removal.removed.load(Ordering::Relaxed);
        let Some(stuck) = removal.stuck.lock().take() else {
            return Ok(after);
        };
        rounds += 1;
        if rounds == ROUNDS_MAX {
            return Err(stuck);
        }
        if before == after {
            std::thread::sleep(pause);
            pause *= 2;
        }
    }
}

/// Removes an empty directory by `rmdir`, if need be after its snapshots; `open` opens it.
///
/// # Errors
/// Those of `rmdir`.
pub(crate) fn emptied<D: AsRef<Dir>>(
    rmdir: impl Fn() -> Result<(), AnchorError>,
    open: impl FnOnce() -> Option<D>,
    limits: &Limits,
) -> Result<(), AnchorError> {
    let refused = match rmdir() {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let not_empty = refused.errno() == Some(Errno::NOTEMPTY.raw_os_error());
    let snapshots = |dir: D| snapshots::delete_own(dir.as_ref(), &limits.snapshot_dir);
    if not_empty && open().is_some_and(snapshots) {
        return rmdir();
    }
    Err(refused)
}

struct Removal<'a> {
    control: &'a Control,
    limits: &'a Limits,
    dev: u64,
    removed: AtomicU64,
    /// The first thing that would not go in this round.
    stuck: Mutex<Option<VolumeError>>,
}

impl Removal<'_> {
    /// Removes all entries of `dir` but the directories, whose names are returned.
    fn clear(&self, dir: &Dir) -> Result<Names, VolumeError> {
        let found = Mutex::new(Names::default());
        let each = |names: &mut Names, name: &OsStr, kind| {
            self.control.check()?;
            match known_kind(dir, name, kind) {
                Ok(FileKind::Dir) => names.push(name),
                Ok(_) => self.unlink(dir, name, names)?,
                Err(error) if error.errno() == Some(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        };
        let done = |mut names: Names| {
            if 0 < names.len() {
                found.lock().append(&mut names);
            }
            Ok(())
        };
        survey(
            dir,
            self.limits.tree_threads_max,
            Names::default,
            each,
            done,
        )?;
        Ok(found.into_inner())
    }

    fn unlink(&self, dir: &Dir, name: &OsStr, names: &mut Names) -> Result<(), VolumeError> {
        match self.removing(dir, |dir| dir.unlink(name)) {
            // It has become a directory since it was listed.
            Err(error) if error.errno() == Some(Errno::ISDIR) => {
                names.push(name);
                Ok(())
            }
            done => done,
        }
    }

    /// Runs one removal in `dir`; makes `dir` writable if that is what it takes.
    fn removing(
        &self,
        dir: &Dir,
        remove: impl Fn(&Dir) -> Result<(), AnchorError>,
    ) -> Result<(), VolumeError> {
        let mut done = remove(dir).map_err(VolumeError::from);
        let refused = |done: &Result<(), VolumeError>| {
            let errno = done.as_ref().err().and_then(VolumeError::errno);
            matches!(errno, Some(Errno::ACCESS | Errno::PERM))
        };
        if refused(&done) && dir.chmod(0o700).is_ok() {
            done = remove(dir).map_err(VolumeError::from);
        }
        let Err(error) = done else {
            self.removed.fetch_add(1, Ordering::Relaxed);
            self.control.add_entries(1);
            return Ok(());
        };
        match error.errno() {
            Some(Errno::NOENT | Errno::STALE) => Ok(()),
            Some(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => {
                self.stuck.lock().get_or_insert(error);
                Ok(())
            }
            _ => Err(error),
        }
    }
}

impl Visit for Removal<'_> {
    type Place = Arc<Place>;

    fn enter(
        &self,
        parent: &Arc<Place>,
        name: &OsStr,
    ) -> Result<Option<(Arc<Place>, Names)>, VolumeError> {
        self.control.check()?;
        let above = match parent.dir() {
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
            above => above?,
        };
        let mut opened = above.open_dir(name).map_err(VolumeError::from);
        if opened.as_ref().err().and_then(VolumeError::errno) == Some(Errno::ACCESS) {
            // Its owner cannot read it, and the owner may be us. If not, opening says so again.
            let _ = above.unlock_dir(name);
            opened = above.open_dir(name).map_err(VolumeError::from);
        }
        let dir = match opened {
            Ok(dir) => dir,
            Err(error) => match error.errno() {
                Some(Errno::NOENT | Errno::STALE) => return Ok(None),
                // It is no directory any more: the next round removes it.
                Some(Errno::NOTDIR | Errno::LOOP) => {
                    self.stuck.lock().get_or_insert(error);
                    return Ok(None);
                }
                _ => return Err(error),
            },
        };
        let stat = dir.metadata()?;
        if stat.dev != self.dev {
            let path = String::from_utf8_lossy(dir.location()).into_owned();
            return Err(VolumeError::os("remove mounted file system", Errno::BUSY).at(|| path));
        }
        let names = self.clear(&dir)?;
        let place = parent.child(name, dir, &stat);
        if names.len() > 0 {
            place.shelve();
        }
        Ok(Some((place, names)))
    }

    fn leave(&self, place: &Arc<Place>) -> Result<(), VolumeError> {
        let Some(parent) = place.parent() else {
            return Ok(());
        };
        match parent.dir() {
            Ok(above) => self.removing(&above, |above| {
                let rmdir = || above.rmdir(place.name());
                emptied(rmdir, || place.dir().ok(), self.limits)
            }),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
