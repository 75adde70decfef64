//! Walks a tree of directories with a few threads, bounded memory and no recursion.
//!
//! Knows nothing of files: a [`Visit`] enters a directory, handles whatever lies in it and hands
//! back the names of its sub-directories; the crew sees to it that every one of them is entered
//! once and left after all its descendants.
//!
//! Laws
//! - Depth costs memory on the heap, never stack: walking, leaving and dropping are loops.
//! - Pending work is kept as packed names, one list per directory, taken from the deepest first.
//! - The first error stops everyone; a visit that panics stops everyone too.
//! - A small tree is walked by the caller's thread alone: helpers come when there is work for them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::VolumeError;

/// Directories that the caller's thread walks alone before it asks for help.
/// A thread costs about as much as reading this many small directories from the cache.
const DIRS_ALONE: usize = 32;

/// What is done with the directories of one tree.
pub(crate) trait Visit: Sync {
    /// What the visit keeps for one directory until it is left.
    type Place: Send + Sync;

    /// Opens directory `name` of `parent`, handles its entries, and names its sub-directories.
    ///
    /// `None` when there is nothing to descend into: it vanished, or is not to be entered.
    fn enter(
        &self,
        parent: &Self::Place,
        name: &OsStr,
    ) -> Result<Option<(Self::Place, Names)>, VolumeError>;

    /// Called once for each entered directory, after all its descendants were left.
    fn leave(&self, place: &Self::Place) -> Result<(), VolumeError>;
}

/// Names of entries, packed: each is followed by a NUL, which no name contains.
#[derive(Debug, Default)]
pub(crate) struct Names {
    packed: Vec<u8>,
    count: usize,
}

impl Names {
    /// Adds one name of a directory entry.
    pub(crate) fn push(&mut self, name: &OsStr) {
        assert!(!name.is_empty(), "a directory entry has a name");
        self.packed.extend_from_slice(name.as_bytes());
        self.packed.push(0);
        self.count += 1;
    }

    /// Adds all names of `more`.
    pub(crate) fn append(&mut self, more: &mut Self) {
        self.packed.append(&mut more.packed);
        self.count += std::mem::take(&mut more.count);
    }

    /// How many names are left.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Takes the one that was added last.
    pub(crate) fn pop(&mut self) -> Option<OsString> {
        self.packed.pop()?;
        let start = self
            .packed
            .iter()
            .rposition(|byte| *byte == 0)
            .map_or(0, |at| at + 1);
        self.count -= 1;
        Some(OsString::from_vec(self.packed.split_off(start)))
    }
}

/// Walks everything below `root`, whose sub-directories are `first`. `root` itself is not left.
///
/// # Errors
/// The first error of a visit; by then some directories may have been entered and not left.
pub(crate) fn walk<V: Visit>(
    visit: &V,
    root: V::Place,
    first: Names,
    threads_max: usize,
) -> Result<(), VolumeError> {
    if first.len() == 0 {
        return Ok(());
    }
    let crew = Crew {
        visit,
        queue: Mutex::new(Queue::default()),
        wake: Condvar::new(),
    };
    let root = Frame {
        place: root,
        parent: None,
        pending: AtomicUsize::new(first.len()),
    };
    crew.queue.lock().jobs.push(Job {
        parent: Arc::new(root),
        names: first,
    });
    thread::scope(|scope| {
        let mut helpers = 0;
        while let Some((parent, name)) = crew.take() {
            crew.step(parent, &name);
            if helpers + 1 < threads_max && crew.wants_help() {
                let helper = thread::Builder::new().name("tree".to_owned());
                // A refused thread is no error: the tree is walked with those that are there.
                let _ = helper.spawn_scoped(scope, || crew.work());
                helpers += 1;
            }
        }
    });
    match crew.queue.into_inner().failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Crew<'a, V: Visit> {
    visit: &'a V,
    queue: Mutex<Queue<V::Place>>,
    wake: Condvar,
}

struct Queue<P> {
    jobs: Vec<Job<P>>,
    /// Threads that are in a visit now and may bring more jobs.
    busy: usize,
    dirs_done: usize,
    stopped: bool,
    failed: Option<VolumeError>,
}

impl<P> Default for Queue<P> {
    fn default() -> Self {
        Self {
            jobs: Vec::new(),
            busy: 0,
            dirs_done: 0,
            stopped: false,
            failed: None,
        }
    }
}

/// Sub-directories of one directory that nobody has entered yet; never empty while queued.
struct Job<P> {
    parent: Arc<Frame<P>>,
    names: Names,
}

/// An entered directory that has not been left.
struct Frame<P> {
    place: P,
    parent: Option<Arc<Frame<P>>>,
    /// Sub-directories that were not left yet. 0 only while the frame itself is being left.
    pending: AtomicUsize,
}

impl<P> Drop for Frame<P> {
    /// Takes the chain of parents apart in a loop: a deep tree would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(frame) = next {
            next = Arc::into_inner(frame).and_then(|mut frame| frame.parent.take());
        }
    }
}

/// Gives the thread's turn back also when the visit panics, so that the others do not wait for
/// ever.
struct Turn<'a, 'b, V: Visit>(&'b Crew<'a, V>);

impl<V: Visit> Drop for Turn<'_, '_, V> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.busy -= 1;
        queue.dirs_done += 1;
        if thread::panicking() {
            queue.stopped = true;
        }
        if queue.stopped || (queue.busy == 0 && queue.jobs.is_empty()) {
            self.0.wake.notify_all();
        }
    }
}

impl<V: Visit> Crew<'_, V> {
    fn work(&self) {
        while let Some((parent, name)) = self.take() {
            self.step(parent, &name);
        }
    }

    /// The next directory to enter; waits while others may still bring some. `None`: all is done.
    fn take(&self) -> Option<(Arc<Frame<V::Place>>, OsString)> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(work) = Self::pop(&mut queue) {
                queue.busy += 1;
                return Some(work);
            }
            if queue.busy == 0 {
                queue.stopped = true;
                self.wake.notify_all();
                return None;
            }
            self.wake.wait(&mut queue);
        }
    }

    fn pop(
        queue: &mut MutexGuard<'_, Queue<V::Place>>,
    ) -> Option<(Arc<Frame<V::Place>>, OsString)> {
        let job = queue.jobs.last_mut()?;
        let name = job.names.pop();
        let parent = Arc::clone(&job.parent);
        if job.names.len() == 0 {
            queue.jobs.pop();
        }
        name.map(|name| (parent, name))
    }

    fn wants_help(&self) -> bool {
        let queue = self.queue.lock();
        let deepest = queue.jobs.last().map_or(0, |job| job.names.len());
        queue.dirs_done >= DIRS_ALONE && (queue.jobs.len() > 1 || deepest > 1)
    }

    fn step(&self, parent: Arc<Frame<V::Place>>, name: &OsStr) {
        let _turn = Turn(self);
        if let Err(error) = self.enter(parent, name) {
            let mut queue = self.queue.lock();
            queue.stopped = true;
            queue.failed.get_or_insert(error);
        }
    }

    fn enter(&self, parent: Arc<Frame<V::Place>>, name: &OsStr) -> Result<(), VolumeError> {
        let Some((place, names)) = self.visit.enter(&parent.place, name)? else {
            return self.settle(parent);
        };
        // A directory without sub-directories counts one, which is settled at once.
        let pending = AtomicUsize::new(names.len().max(1));
        let frame = Arc::new(Frame {
            place,
            parent: Some(parent),
            pending,
        });
        if names.len() == 0 {
            return self.settle(frame);
        }
        self.queue.lock().jobs.push(Job {
            parent: frame,
            names,
        });
        self.wake.notify_one();
        Ok(())
    }

    /// One child of `frame` is finished; leaves every ancestor of which it was the last.
    fn settle(&self, frame: Arc<Frame<V::Place>>) -> Result<(), VolumeError> {
        let mut frame = frame;
        while frame.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            let Some(parent) = frame.parent.clone() else {
                break;
            };
            self.visit.leave(&frame.place)?;
            frame = parent;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    /// A model tree: a directory at `depth` has `fan` sub-directories; numbers name the paths.
    struct Model {
        fan: usize,
        depth: usize,
        fail_at: Option<&'static str>,
        entered: Mutex<Vec<String>>,
        left: Mutex<Vec<String>>,
    }

    impl Model {
        fn names(&self, depth: usize) -> Names {
            let mut names = Names::default();
            for child in 0..if depth < self.depth { self.fan } else { 0 } {
                names.push(OsStr::new(&child.to_string()));
            }
            names
        }
    }

    impl Visit for Model {
        type Place = (String, usize);

        fn enter(
            &self,
            parent: &Self::Place,
            name: &OsStr,
        ) -> Result<Option<(Self::Place, Names)>, VolumeError> {
            let path = format!("{}/{}", parent.0, name.to_string_lossy());
            self.entered.lock().push(path.clone());
            if self.fail_at == Some(path.as_str()) {
                return Err(VolumeError::Cancelled);
            }
            let depth = parent.1 + 1;
            Ok(Some(((path, depth), self.names(depth))))
        }

        fn leave(&self, place: &Self::Place) -> Result<(), VolumeError> {
            self.left.lock().push(place.0.clone());
            Ok(())
        }
    }

    fn run(
        fan: usize,
        depth: usize,
        threads: usize,
        fail_at: Option<&'static str>,
    ) -> (Model, bool) {
        let model = Model {
            fan,
            depth,
            fail_at,
            entered: Mutex::new(Vec::new()),
            left: Mutex::new(Vec::new()),
        };
        let first = model.names(0);
        let done = walk(&model, (String::new(), 0), first, threads).is_ok();
        (model, done)
    }

    #[track_caller]
    fn check(fan: usize, depth: usize, threads: usize, want: usize) {
        let (model, done) = run(fan, depth, threads, None);
        assert!(done);
        let entered = model.entered.lock().clone();
        let left = model.left.lock().clone();
        assert_eq!(entered.len(), want);
        assert_eq!(left.len(), want);
        assert_eq!(
            entered.iter().collect::<BTreeSet<_>>(),
            left.iter().collect()
        );
        let order = |path: &str| left.iter().position(|other| other == path).unwrap();
        for path in left.iter().take(200) {
            if let Some((parent, _)) = path
                .rsplit_once('/')
                .filter(|(parent, _)| !parent.is_empty())
            {
                assert!(
                    order(path) < order(parent),
                    "{path} is left before {parent}"
                );
            }
        }
    }

    #[test]
    fn every_directory_is_entered_once_and_left_after_its_descendants() {
        check(0, 3, 4, 0);
        check(1, 1, 4, 1);
        check(3, 3, 1, 39);
        check(3, 3, 4, 39);
        check(10, 3, 8, 1110);
        check(2, 10, 3, 2046);
    }

    #[test]
    fn a_chain_as_deep_as_memory_allows_needs_no_stack() {
        let (model, done) = run(1, 20_000, 4, None);
        assert!(done);
        assert_eq!(model.left.lock().len(), 20_000);
    }

    #[test]
    fn the_first_error_stops_the_walk() {
        for threads in [1, 4] {
            let (model, done) = run(10, 3, threads, Some("/9/9/9"));
            assert!(!done);
            assert!(model.entered.lock().len() < 1110);
        }
    }

    #[test]
    fn a_deep_chain_that_fails_at_its_end_is_dropped_without_recursion() {
        let path: &'static str = Box::leak("/0".repeat(20_000).into_boxed_str());
        let (model, done) = run(1, 30_000, 2, Some(path));
        assert!(!done);
        assert!(model.left.lock().is_empty());
    }

    #[test]
    fn names_come_back_as_they_went_in() {
        let mut names = Names::default();
        let all: [&[u8]; 4] = [b"a", b"\xff\xfe", b"line\nbreak", b"ab cd"];
        for name in all {
            names.push(OsStr::from_bytes(name));
        }
        for name in all.iter().rev() {
            assert_eq!(names.pop().unwrap().as_bytes(), *name);
        }
        assert_eq!((names.pop(), names.len()), (None, 0));
    }
}
