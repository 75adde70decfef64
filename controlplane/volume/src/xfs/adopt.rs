//! Takes a tree into a project that was made without one.
//!
//! Laws
//! - A directory is tagged before its entries are read: what is made in it later inherits.
//! - Links and special files have no tag; they weigh an inode and no blocks.
//! - Whatever vanishes meanwhile is left out.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use proxy_anchor::{Dir, FileKind};
use proxy_ring::quota::{ProjectTag, project_tag, set_project_tag};
use rustix::io::Errno;

use super::refused;
use crate::control::Control;
use crate::crew::{self, Names, Visit};
use crate::entries::{for_each, kind_of};
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::place::{Place, Shelf};

/// Tags everything in `dir`, which itself is the caller's.
pub(super) fn adopt(
    mut dir: Dir,
    project: u32,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    let stat = dir.metadata()?;
    let adoption = Adoption {
        project,
        dev: stat.dev,
        control,
    };
    let names = adoption.entries(&mut dir)?;
    let shelf = Shelf::new(limits.dirs_open_max);
    let root = Place::root(dir, &stat, &shelf);
    crew::walk(&adoption, root, names, limits.tree_threads_max)
}

struct Adoption<'a> {
    project: u32,
    dev: u64,
    control: &'a Control,
}

impl Adoption<'_> {
    fn tag(&self, file: impl AsFd, inherited: bool) -> Result<(), VolumeError> {
        let tag = ProjectTag {
            project: self.project,
            inherited,
        };
        let tagged = match project_tag(&file) {
            Ok(known) if known == tag => return Ok(()),
            Ok(_) => set_project_tag(&file, tag),
            Err(error) => Err(error),
        };
        tagged.map_err(|error| refused("set project", &error))
    }

    /// Tags the files of a directory; returns the names of its directories.
    fn entries(&self, dir: &mut Dir) -> Result<Names, VolumeError> {
        let mut names = Names::default();
        for_each(dir, |dir, entry| {
            self.control.check()?;
            match present(kind_of(dir, entry))? {
                Some(FileKind::Dir) => names.push(&entry.name),
                Some(FileKind::File) => {
                    let opened = dir.open_file(&entry.name).map_err(VolumeError::from);
                    if let Some(file) = present(opened)?
                        && file.stat.is_file()
                    {
                        self.tag(&file.fd, false)?;
                        self.control.add_entries(1);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(names)
    }
}

impl Visit for Adoption<'_> {
    type Place = Arc<Place>;

    fn enter(
        &self,
        parent: &Arc<Place>,
        name: &OsStr,
    ) -> Result<Option<(Arc<Place>, Names)>, VolumeError> {
        let Some(above) = present(parent.dir())? else {
            return Ok(None);
        };
        let opened = above.open_dir(name).map_err(VolumeError::from);
        let Some(mut dir) = present(opened)? else {
            return Ok(None);
        };
        let stat = dir.metadata()?;
        if stat.dev != self.dev {
            return Ok(None);
        }
        self.tag(&dir, true)?;
        let names = self.entries(&mut dir)?;
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

/// `None` for what has vanished or become something else.
fn present<T>(step: Result<T, VolumeError>) -> Result<Option<T>, VolumeError> {
    match step {
        Ok(it) => Ok(Some(it)),
        Err(error) => match error.errno() {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
    }
}
