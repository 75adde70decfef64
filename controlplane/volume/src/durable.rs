//! Making a tree that was copied durable: with one call, where that can be believed.
//!
//! A million small files cannot be synced one by one, so the whole file system is (syncfs(2)). What
//! it says is about everybody: over NFS the refusal of somebody else's bytes, for their quota, is
//! told to whoever syncs next. Only then each file is asked by itself.
//!
//! What was copied is written while more is copied, so that the disk does not wait for the
//! processor, nor the end for the disk.
//!
//! Law: of the tree's own bytes no refusal is missed.
//!
//! Source: syncfs(2); `Documentation/filesystems/vfs.rst` of Linux, on the reporting of errors.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use proxy_anchor::{Dir, FileKind};
use rustix::io::Errno;

use crate::control::Control;
use crate::crew::{self, Names, Visit};
use crate::entries::{for_each, kind_of};
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::place::{Place, Shelf};

/// How much of a copy, in time, is written behind it at once.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Fills the tree `dir` and makes it durable.
///
/// # Errors
/// Those of `fill`, the refusal of the system, and [`VolumeError::Cancelled`].
pub(crate) fn filled<T>(
    dir: &Dir,
    limits: &Limits,
    control: &Control,
    fill: impl FnOnce() -> Result<T, VolumeError>,
) -> Result<T, VolumeError> {
    let (working, done) = mpsc::channel::<()>();
    let (filled, refused) = thread::scope(|scope| {
        let flusher = thread::Builder::new().name("tree-flush".to_owned());
        let flusher = flusher.spawn_scoped(scope, move || {
            while done.recv_timeout(FLUSH_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // It is told once only, and must not get lost.
                rustix::fs::syncfs(dir)?;
            }
            Ok(())
        });
        let filled = fill();
        drop(working);
        // A refused thread is no error: all is written at the end then.
        let flushed = flusher.map_or(Ok(()), |flusher| flusher.join().unwrap_or(Err(Errno::IO)));
        (filled, flushed.err())
    });
    let filled = filled?;
    match refused {
        Some(errno) => each(dir, errno, limits, control)?,
        None => tree(dir, limits, control)?,
    }
    Ok(filled)
}

/// Makes the tree `dir` durable.
///
/// # Errors
/// The refusal of the system, and [`VolumeError::Cancelled`].
pub(crate) fn tree(dir: &Dir, limits: &Limits, control: &Control) -> Result<(), VolumeError> {
    match rustix::fs::syncfs(dir) {
        Ok(()) => Ok(()),
        Err(errno) => each(dir, errno, limits, control),
    }
}

/// Asks each file by itself, since all together were refused.
fn each(dir: &Dir, refused: Errno, limits: &Limits, control: &Control) -> Result<(), VolumeError> {
    tracing::debug!(%refused, "a file system could not be synced: the tree's files are");
    let mut dir = dir.try_clone()?;
    let stat = dir.metadata()?;
    let names = sync_entries(&mut dir, control)?;
    let root = Place::root(dir, &stat, &Shelf::new(limits.dirs_open_max));
    crew::walk(&Syncing(control), root, names, limits.tree_threads_max)
}

struct Syncing<'a>(&'a Control);

/// Syncs the files of a directory and the directory; returns the names of its directories.
fn sync_entries(dir: &mut Dir, control: &Control) -> Result<Names, VolumeError> {
    let mut names = Names::default();
    for_each(dir, |dir, entry| {
        control.check()?;
        match kind_of(dir, entry)? {
            FileKind::Dir => names.push(&entry.name),
            FileKind::File => {
                let file = dir.open_file(&entry.name)?;
                sync(rustix::fs::fsync(&file.fd))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    sync(rustix::fs::fsync(&*dir))?;
    Ok(names)
}

fn sync(synced: Result<(), Errno>) -> Result<(), VolumeError> {
    synced.map_err(|errno| VolumeError::os("sync", errno))
}

impl Visit for Syncing<'_> {
    type Place = Arc<Place>;

    fn enter(
        &self,
        parent: &Arc<Place>,
        name: &OsStr,
    ) -> Result<Option<(Arc<Place>, Names)>, VolumeError> {
        let mut dir = parent.dir()?.open_dir(name)?;
        let stat = dir.metadata()?;
        let names = sync_entries(&mut dir, self.0)?;
        let place = parent.child(name, dir, &stat);
        if names.len() > 0 {
            place.shelve();
        }
        Ok(Some((place, names)))
    }

    fn leave(&self, _: &Arc<Place>) -> Result<(), VolumeError> {
        Ok(())
    }
}
