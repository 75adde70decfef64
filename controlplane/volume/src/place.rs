//! Directories of a tree that can be closed and opened again, so that depth costs no descriptors.
//!
//! Laws
//! - The root stays open; beside it at most `dirs_open_max` directories that have
//!   sub-directories, and one per thread that is in a visit.
//! - Half of those are the latest used ones; the other half are spread over the way to the root,
//!   so that opening again from a great depth does not begin at the root each time.
//! - Opening again goes down from the nearest open ancestor by names, never through a link, and
//!   takes only the very directory that was left: another one of that name counts as vanished.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use proxy_anchor::{Dir, Stat};
use rustix::io::Errno;

use crate::error::VolumeError;

type Slot = Mutex<Option<Arc<Dir>>>;

/// The open directories of one tree.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// Of each kind.
    open_max: usize,
    /// The one that is closed next first.
    latest: Mutex<VecDeque<Weak<Slot>>>,
    /// Stay open until their places are dropped.
    landings: Mutex<Vec<Weak<Slot>>>,
}

impl Shelf {
    pub(crate) fn new(open_max: usize) -> Arc<Self> {
        let open_max = (open_max / 2).max(1);
        Arc::new(Self {
            open_max,
            latest: Mutex::default(),
            landings: Mutex::default(),
        })
    }

    fn keep(&self, slot: &Arc<Slot>) {
        let oldest = {
            let mut latest = self.latest.lock();
            latest.push_back(Arc::downgrade(slot));
            if latest.len() > self.open_max {
                latest.pop_front()
            } else {
                None
            }
        };
        if let Some(slot) = oldest.and_then(|slot| slot.upgrade()) {
            slot.lock().take();
        }
    }

    /// How many levels of a way of `length` lie between two landings; `None`: no more landings.
    fn stride(&self, length: usize) -> Option<usize> {
        if length <= self.open_max {
            return None;
        }
        let mut landings = self.landings.lock();
        landings.retain(|slot| 0 < slot.strong_count());
        let free = self.open_max.saturating_sub(landings.len());
        (0 < free).then(|| length.div_ceil(free))
    }

    /// Keeps a landing open, if there is still room for one.
    fn land(&self, slot: &Arc<Slot>) {
        let mut landings = self.landings.lock();
        if landings.len() < self.open_max {
            landings.push(Arc::downgrade(slot));
            return;
        }
        drop(landings);
        self.keep(slot);
    }
}

/// One directory of a tree.
#[derive(Debug)]
pub(crate) struct Place {
    parent: Option<Arc<Place>>,
    name: OsString,
    /// What tells this directory from another one of its name.
    identity: (u64, u64),
    /// Empty while closed; never empty in the root.
    slot: Arc<Slot>,
    shelf: Arc<Shelf>,
}

impl Drop for Place {
    /// Takes the chain of parents apart in a loop: a deep tree would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(place) = next {
            next = Arc::into_inner(place).and_then(|mut place| place.parent.take());
        }
    }
}

impl Place {
    /// The root of a tree; `stat` is about `dir`.
    pub(crate) fn root(dir: Dir, stat: &Stat, shelf: &Arc<Shelf>) -> Arc<Self> {
        Self::new(None, OsStr::new(""), dir, stat, shelf)
    }

    /// The directory `name` of this one, which the caller has opened; `stat` is about `dir`.
    ///
    /// It stays open until [`Self::shelve`], or until the place is dropped.
    pub(crate) fn child(self: &Arc<Self>, name: &OsStr, dir: Dir, stat: &Stat) -> Arc<Self> {
        Self::new(Some(Arc::clone(self)), name, dir, stat, &self.shelf)
    }

    fn new(
        parent: Option<Arc<Self>>,
        name: &OsStr,
        dir: Dir,
        stat: &Stat,
        shelf: &Arc<Shelf>,
    ) -> Arc<Self> {
        Arc::new(Self {
            parent,
            name: name.to_owned(),
            identity: (stat.dev, stat.ino),
            slot: Arc::new(Mutex::new(Some(Arc::new(dir)))),
            shelf: Arc::clone(shelf),
        })
    }

    /// Allows this directory to be closed while its descendants are worked on.
    pub(crate) fn shelve(&self) {
        if self.parent.is_some() {
            self.shelf.keep(&self.slot);
        }
    }

    /// The directory above; `None` for the root.
    pub(crate) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// Its name in the directory above.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// The open directory, opened again if need be.
    ///
    /// # Errors
    /// `ENOENT` when it is not there any more.
    pub(crate) fn dir(&self) -> Result<Arc<Dir>, VolumeError> {
        let mut closed = Vec::new();
        let mut at = self;
        let mut dir = loop {
            if let Some(dir) = at.slot.lock().clone() {
                break dir;
            }
            closed.push(at);
            at = at
                .parent
                .as_deref()
                .ok_or(VolumeError::Internal("the root was closed"))?;
        };
        let stride = self.shelf.stride(closed.len());
        for (level, place) in closed.into_iter().rev().enumerate() {
            dir = place.open_again(&dir)?;
            *place.slot.lock() = Some(Arc::clone(&dir));
            if stride.is_some_and(|stride| (level + 1).is_multiple_of(stride)) {
                self.shelf.land(&place.slot);
            } else {
                self.shelf.keep(&place.slot);
            }
        }
        Ok(dir)
    }

    fn open_again(&self, above: &Dir) -> Result<Arc<Dir>, VolumeError> {
        let dir = above.open_dir(&self.name)?;
        let stat = dir.metadata()?;
        if (stat.dev, stat.ino) != self.identity {
            return Err(VolumeError::os("open directory again", Errno::NOENT));
        }
        Ok(Arc::new(dir))
    }
}
