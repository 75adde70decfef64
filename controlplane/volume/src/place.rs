//! Directories of a tree that can be closed and opened again, so that depth costs no descriptors.
//!
//! Laws
//! - The root stays open; beside it at most `dirs_open_max` directories that have
//!   sub-directories, and one per thread that is in a visit.
//! - What stays open lies dense around the latest one and ever thinner towards the root: going
//!   back up a way of `n` levels opens about `n * log(n)` directories again, not `n * n`.
//! - Opening again goes down from the nearest open ancestor by names, never through a link, and
//!   takes only the very directory that was left: another one of that name counts as vanished.

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
    open_max: usize,
    /// Depth and slot, by depth.
    open: Mutex<Vec<(usize, Weak<Slot>)>>,
}

impl Shelf {
    pub(crate) fn new(open_max: usize) -> Arc<Self> {
        assert!(open_max > 0, "the way down needs a directory to stand on");
        Arc::new(Self {
            open_max,
            open: Mutex::default(),
        })
    }

    /// Takes in an open directory, and closes another one if there are too many.
    fn keep(&self, depth: usize, slot: &Arc<Slot>) {
        let mut open = self.open.lock();
        if open.len() == self.open_max {
            open.retain(|(_, slot)| slot.strong_count() > 0);
        }
        let closed = if open.len() == self.open_max {
            let at = least_missed(&open, depth);
            open.remove(at).1.upgrade()
        } else {
            None
        };
        let at = open.partition_point(|(other, _)| *other <= depth);
        open.insert(at, (depth, Arc::downgrade(slot)));
        drop(open);
        if let Some(slot) = closed {
            slot.lock().take();
        }
    }
}

/// The open directory that is missed least by one at `depth`: the gap it leaves is smallest for
/// its distance. Keeping to this rule spaces them like powers of two.
fn least_missed(open: &[(usize, Weak<Slot>)], depth: usize) -> usize {
    let mut least = (0, f64::INFINITY);
    for (at, (own, _)) in open.iter().enumerate() {
        let above = if at == 0 { 0 } else { open[at - 1].0 };
        let below = open.get(at + 1).map_or(depth.max(*own), |next| next.0);
        let cost = (below - above) as f64 / (own.abs_diff(depth) + 1) as f64;
        if cost < least.1 {
            least = (at, cost);
        }
    }
    least.0
}

/// One directory of a tree.
#[derive(Debug)]
pub(crate) struct Place {
    parent: Option<Arc<Place>>,
    name: OsString,
    /// Levels below the root.
    depth: usize,
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
            depth: parent.as_ref().map_or(0, |parent| parent.depth + 1),
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
            self.shelf.keep(self.depth, &self.slot);
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
        for place in closed.into_iter().rev() {
            dir = place.open_again(&dir)?;
            *place.slot.lock() = Some(Arc::clone(&dir));
            self.shelf.keep(place.depth, &place.slot);
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
