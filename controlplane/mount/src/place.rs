//! From a path to descriptors, beneath a configured directory and past no link.
//!
//! A mount point is kept as the directory above it and a name: a descriptor of the mount point
//! itself would keep it busy.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, open, openat2, statx,
};
use rustix::io::Errno;

use crate::policy::Beneath;

const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A name in a directory that is open.
#[derive(Debug)]
pub(crate) struct Spot {
    above: OwnedFd,
    name: OsString,
    /// Whether it is a configured directory itself.
    pub(crate) is_root: bool,
}

impl Spot {
    /// Opens the directory above the path.
    pub(crate) fn find(at: &Beneath<'_>) -> io::Result<Self> {
        let directory = PATH.union(OFlags::DIRECTORY);
        let is_root = at.rest.as_os_str().is_empty();
        let whole = if is_root { at.root } else { &at.rest };
        let name = whole.file_name().ok_or(Errno::INVAL)?.to_owned();
        // The operator's own path may have links; what comes after it may not.
        let above = if is_root {
            let parent = at.root.parent().ok_or(Errno::INVAL)?;
            open(parent, directory, Mode::empty())?
        } else {
            let root = open(at.root, directory, Mode::empty())?;
            let parent = at.rest.parent().filter(|p| !p.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            openat2(&root, parent, directory, Mode::empty(), INSIDE)?
        };
        Ok(Self {
            above,
            name,
            is_root,
        })
    }

    /// The directory above.
    pub(crate) fn above(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.above.as_fd()
    }

    /// The name in it.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// What is there now, which keeps it busy; a link is refused.
    pub(crate) fn open(&self, more: OFlags) -> io::Result<OwnedFd> {
        let flags = PATH.union(OFlags::NOFOLLOW).union(more);
        let opened = openat2(&self.above, &self.name, flags, Mode::empty(), INSIDE);
        Ok(opened?)
    }

    /// Whether something is mounted there; `None` when there is nothing at all.
    pub(crate) fn is_mounted(&self) -> io::Result<Option<bool>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match statx(&self.above, &self.name, flags, StatxFlags::TYPE) {
            Ok(found) => Ok(Some(
                found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            )),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A path for calls that take no descriptor, safe against renames of what is above.
    pub(crate) fn path(&self) -> PathBuf {
        proc_path(&self.above).join(&self.name)
    }
}

/// The path of a descriptor, also for processes that this one starts.
pub(crate) fn proc_path(of: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), of.as_raw_fd()).into()
}

/// A directory of one of `prefixes`, or below one, past no link.
pub(crate) fn listed_dir(path: &Path, prefixes: &[String]) -> io::Result<OwnedFd> {
    let directory = PATH.union(OFlags::DIRECTORY);
    for prefix in prefixes.iter().filter(|prefix| prefix.starts_with('/')) {
        let Ok(rest) = path.strip_prefix(prefix) else {
            continue;
        };
        let base = rustix::fs::openat(CWD, prefix.as_str(), directory, Mode::empty())?;
        if rest.as_os_str().is_empty() {
            return Ok(base);
        }
        return Ok(openat2(&base, rest, directory, Mode::empty(), INSIDE)?);
    }
    Err(Errno::ACCESS.into())
}
