//! Trees that are not vfolders: on their way out, or not yet there.
//!
//! They lie in the directory of their quota scope (or the volume root), so that renaming them
//! never crosses a quota boundary, under names that no vfolder can have:
//! `.trash-<folder>-<random>` and `.clone-<folder>-<random>`.

use std::os::fd::OwnedFd;

use proxy_core::id::{SessionId, VFolderId};

use crate::dir::Dir;
use crate::error::{AnchorError, Result};
use crate::stat::Stat;
use crate::sys;
use crate::tree::{self, Removed, Watch};

const TRASH: &str = ".trash-";
const CLONE: &str = ".clone-";

/// Why a tree is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Trash,
    Clone,
}

impl Why {
    pub(crate) fn name(self, id: &VFolderId, number: SessionId) -> String {
        let prefix = self.prefix();
        format!("{prefix}{}-{number}", id.folder.simple())
    }

    /// The folder hex of a hidden name, 32 digits.
    pub(crate) fn folder_of(self, name: &str) -> Option<&str> {
        let (folder, random) = name.strip_prefix(self.prefix())?.split_once('-')?;
        SessionId::parse(random).ok()?;
        SessionId::parse(folder).ok()?;
        Some(folder)
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Trash => TRASH,
            Self::Clone => CLONE,
        }
    }
}

/// A tree that no longer has its vfolder's name, to be removed.
#[derive(Debug)]
pub struct Detached {
    /// The tree, with everything in it.
    pub dir: Dir,
    pub(crate) holder: OwnedFd,
    pub(crate) name: String,
    pub(crate) id: VFolderId,
}

impl Detached {
    /// Which vfolder it was, or was to become. When found after a restart the scope's kind is
    /// not known and reads `user`: it is not on disk.
    pub fn id(&self) -> &VFolderId {
        &self.id
    }

    /// What tells it from other hidden trees of the vfolder.
    pub fn number(&self) -> Option<SessionId> {
        let (_, number) = self.name.rsplit_once('-')?;
        SessionId::parse(number).ok()
    }

    /// Removes all that is in it. May be repeated.
    pub fn remove_tree(&self, watch: Watch<'_>) -> Result<Removed> {
        tree::empty(self.dir.try_clone()?, watch)
    }

    /// Removes the directory itself, once it is empty.
    pub fn rmdir(&self) -> Result<()> {
        match sys::rmdir(&self.holder, self.name.as_bytes()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(AnchorError::os("rmdir", errno, self.name.as_bytes())),
        }
    }
}

/// A tree that is being built, to become a vfolder as a whole.
#[derive(Debug)]
pub struct Hidden {
    /// The root of the tree.
    pub dir: Dir,
    pub(crate) holder: OwnedFd,
    pub(crate) name: String,
    pub(crate) id: VFolderId,
}

impl Hidden {
    /// Which vfolder it will be.
    pub fn id(&self) -> &VFolderId {
        &self.id
    }

    /// Whether the tree still has its hidden name: nobody has seen it then.
    pub fn is_hidden(&self) -> bool {
        let named = Stat::of_entry(&self.holder, self.name.as_bytes());
        let own = self.dir.metadata();
        named.is_ok_and(|named| own.is_ok_and(|own| (named.dev, named.ino) == (own.dev, own.ino)))
    }

    /// Gives up: the tree can be removed.
    pub fn abandon(self) -> Detached {
        let Self {
            dir,
            holder,
            name,
            id,
        } = self;
        Detached {
            dir,
            holder,
            name,
            id,
        }
    }
}
