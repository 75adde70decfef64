//! Putting another tree in the place of a vfolder.
//!
//! Laws
//! - Where the file system exchanges names (`RENAME_EXCHANGE`), the vfolder is never missing.
//!   Elsewhere (NFS) it is missing between two renames, and back in place if the second fails.
//! - The old tree keeps a hidden name in the same quota scope until it is removed.

use std::os::fd::{AsFd, OwnedFd};

use proxy_core::id::{SessionId, VFolderId};
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use crate::components::Missing;
use crate::dir::Dir;
use crate::error::Result;
use crate::hidden::{Detached, Hidden, Why};
use crate::resolve::Parent;
use crate::sys;
use crate::vfolder::on_entry;
use crate::volume::{VolumeRoot, unless_unreadable};

impl VolumeRoot {
    /// Gives a hidden tree its vfolder's name, which may be taken: what was there is returned, to
    /// be removed. The content is as durable as the caller made it, the name is durable.
    pub fn replace_vfolder(&self, hidden: &Hidden) -> Result<Option<Detached>> {
        let path = hidden.id.components().join("/");
        let trash = Why::Trash.name(&hidden.id, SessionId::random());
        let holder = self.holder(&hidden.id)?;
        let mut old = None;
        let swap = |dir: &Parent<'_>, last: &[u8]| {
            old = swapped(hidden, &holder, trash.as_bytes(), dir.as_fd(), last)?;
            unless_unreadable(dir.sync())?;
            unless_unreadable(sys::sync(&hidden.holder))
        };
        on_entry(
            &self.base(),
            "replace",
            path.as_bytes(),
            Missing::Make,
            swap,
        )?;
        Ok(old.map(|fd| detached(fd, holder, trash, hidden.id)))
    }
}

fn detached(fd: OwnedFd, holder: OwnedFd, name: String, id: VFolderId) -> Detached {
    Detached {
        dir: Dir::new(fd, Vec::new()),
        holder,
        name,
        id,
    }
}

/// The old tree, if there was one; it is called `trash` in `holder` then.
fn swapped(
    hidden: &Hidden,
    holder: &OwnedFd,
    trash: &[u8],
    to: impl AsFd,
    last: &[u8],
) -> std::result::Result<Option<OwnedFd>, Errno> {
    let (to, name) = (to.as_fd(), hidden.name.as_bytes());
    let open = || sys::open(holder, trash, sys::DIR_READ | OFlags::NOFOLLOW);
    let exchange =
        || rustix::fs::renameat_with(&hidden.holder, name, to, last, RenameFlags::EXCHANGE);
    match sys::retry(exchange) {
        Ok(()) => {
            sys::rename(&hidden.holder, name, holder, trash)?;
            return open().map(Some);
        }
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno),
    }
    renamed(hidden, holder, trash, to, last)
}

/// As [`swapped`], where names cannot be exchanged.
fn renamed(
    hidden: &Hidden,
    holder: &OwnedFd,
    trash: &[u8],
    to: impl AsFd,
    last: &[u8],
) -> std::result::Result<Option<OwnedFd>, Errno> {
    let (to, name) = (to.as_fd(), hidden.name.as_bytes());
    let open = || sys::open(holder, trash, sys::DIR_READ | OFlags::NOFOLLOW);
    let old = match sys::rename(to, last, holder, trash) {
        Ok(()) => Some(open()?),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(errno),
    };
    if let Err(errno) = sys::rename(&hidden.holder, name, to, last) {
        // Better the old state than none.
        let _ = sys::rename(holder, trash, to, last);
        return Err(errno);
    }
    Ok(old)
}

impl Dir {
    /// The same directory as the root of a vfolder, or of a kept state of one: what belongs to
    /// uploads is hidden in it.
    #[must_use]
    pub fn as_vfolder(self) -> Self {
        Self::for_client(self.into_fd(), Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_takes_the_place_of_another() {
        let home = tempfile::tempdir().unwrap();
        let root = VolumeRoot::open(home.path()).unwrap();
        let scope = "user:11111111-2222-3333-4444-555555555555";
        let id = format!("{scope}/0123456789abcdef0123456789abcdef");
        let id = VFolderId::parse(&id).unwrap();
        root.create_scope(&id.scope.unwrap()).unwrap();
        let place = home.path().join(id.components().join("/"));
        let state = |text: &str| {
            let hidden = root.create_hidden(&id, 0o755).unwrap();
            hidden.dir.mkdir(text.as_ref(), 0o755).unwrap();
            hidden
        };
        assert!(root.replace_vfolder(&state("one")).unwrap().is_none());
        assert!(place.join("one").is_dir(), "nothing was there");
        let mut old = root.replace_vfolder(&state("two")).unwrap().unwrap();
        assert!(place.join("two").is_dir() && !place.join("one").exists());
        let names = old.dir.entries().map(|entry| entry.unwrap().name);
        assert_eq!(names.collect::<Vec<_>>(), ["one"]);
        let names: Vec<_> = root.detached().unwrap();
        assert_eq!(names.len(), 1, "the old one waits to be removed");
        assert!(root.unfinished_clones(&id).unwrap().is_empty());
    }

    #[test]
    fn without_exchange_two_renames_do_and_the_first_is_undone() {
        let home = tempfile::tempdir().unwrap();
        let root = VolumeRoot::open(home.path()).unwrap();
        let id = VFolderId::parse("0123456789abcdef0123456789abcdef").unwrap();
        root.create_vfolder(&id, 0o755).unwrap();
        let place = home.path().join(id.components().join("/"));
        std::fs::create_dir(place.join("one")).unwrap();
        let holder = root.holder(&id).unwrap();
        let above = std::fs::File::open(place.parent().unwrap()).unwrap();
        let last = id.components().pop().unwrap();
        let swap = |hidden: &Hidden, trash: &str| {
            renamed(hidden, &holder, trash.as_bytes(), &above, last.as_bytes())
        };
        let hidden = root.create_hidden(&id, 0o755).unwrap();
        hidden.dir.mkdir("two".as_ref(), 0o755).unwrap();
        assert!(hidden.is_hidden());
        assert!(swap(&hidden, ".trash").unwrap().is_some());
        assert!(place.join("two").is_dir() && !hidden.is_hidden());
        assert!(home.path().join(".trash/one").is_dir());
        // Its own name is gone: the second rename fails.
        assert_eq!(swap(&hidden, ".other").err(), Some(Errno::NOENT));
        assert!(place.join("two").is_dir(), "put back");
        assert!(!home.path().join(".other").exists());
    }
}
