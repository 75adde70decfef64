//! A vfolder and the operations on names inside it.
//!
//! Laws
//! - Read-like operations follow links that stay inside; a link that leaves is
//!   [`AnchorError::Escapes`].
//! - Write-like operations follow such links up to the parent and act on the entry itself.
//! - A path of a client that is, or ends in, `.upload` is [`AnchorError::Reserved`].
//! - `ESTALE` is answered once by looking the vfolder up again from the volume; then it means
//!   that something is missing.
//!
//! Source: POSIX for what each call does; where the Python proxy acted on link targets, the
//! link itself is meant here.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy_core::id::VFolderId;
use proxy_core::relpath::{RelPath, STAGING_DIR};
use rustix::io::Errno;

use crate::components::{Links, Missing};
use crate::dir::Dir;
use crate::error::{AnchorError, Result, Stop};
use crate::resolve::{Base, Last, Parent, split};
use crate::room::Room;
use crate::stat::{Opened, Stat};
use crate::sys;
use crate::tree::{self, Removed, Watch};
use crate::volume::VolumeRoot;

/// A vfolder, held by a descriptor: it stays the same directory whatever happens to names.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct VFolderRoot {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `O_PATH`.
    fd: OwnedFd,
    /// Canonical.
    host: PathBuf,
    volume: VolumeRoot,
    id: VFolderId,
}

impl VFolderRoot {
    pub(crate) fn new(fd: OwnedFd, host: PathBuf, volume: VolumeRoot, id: VFolderId) -> Self {
        Self {
            inner: Arc::new(Inner {
                fd,
                host,
                volume,
                id,
            }),
        }
    }

    /// Its path on this host, without links. For mounting, never for answers to clients.
    pub fn host_path(&self) -> &Path {
        &self.inner.host
    }

    /// Which vfolder this is.
    pub fn id(&self) -> &VFolderId {
        &self.inner.id
    }

    /// True while the directory is linked somewhere; false once it was removed.
    pub fn is_alive(&self) -> bool {
        Stat::of(&self.inner.fd).is_ok_and(|stat| stat.nlink != 0)
    }

    /// The room of its scope, or of the volume for a folder without one.
    pub fn room(&self) -> Result<Room> {
        self.inner.volume.room(self.inner.id.scope.as_ref())
    }

    /// Opens for reading. Any type is answered, see [`Opened`].
    ///
    /// Cost: one `openat2` when no link and no `..` is on the way.
    pub fn open_read(&self, path: &RelPath) -> Result<Opened> {
        self.open_read_at(path).map(|(opened, _)| opened)
    }

    /// As [`VFolderRoot::open_read`], and where the file is after links.
    pub fn open_read_at(&self, path: &RelPath) -> Result<(Opened, OsString)> {
        self.open_as(self.check(path)?, Links::Follow)
    }

    /// As [`VFolderRoot::open_read`], from the kernel's caches alone: never waits for a disk
    /// or a server, and so may run on a data-plane thread.
    ///
    /// `None`: waiting would be needed, a link or `..` is on the way, the file system is not
    /// known to open without waiting, or the kernel is too old. Then call
    /// [`VFolderRoot::open_read`] where waiting is allowed.
    pub fn open_read_cached(&self, path: &RelPath) -> Option<Result<Opened>> {
        let name = match self.check(path) {
            Ok(name) => name,
            Err(error) => return Some(Err(error)),
        };
        if !self.inner.volume.opens_without_waiting() {
            return None;
        }
        let opened = self.base().read_cached(name)?;
        Some(opened.map_err(|errno| AnchorError::os("open", errno, name)))
    }

    /// As [`VFolderRoot::open_read`], but any link on the way is `ELOOP`.
    pub fn open_exact(&self, path: &RelPath) -> Result<Opened> {
        self.open_as(self.check(path)?, Links::Refuse)
            .map(|(opened, _)| opened)
    }

    /// Opens an entry of a [`crate::walk::Snapshot`]; its path need not be UTF-8. Compare
    /// `stat.ino` with the entry: the tree may have changed since.
    pub fn open_entry(&self, entry: &crate::walk::Entry) -> Result<Opened> {
        let links = match entry.kind {
            crate::walk::EntryKind::LinkToFile => Links::Follow,
            crate::walk::EntryKind::File | crate::walk::EntryKind::Dir => Links::Refuse,
        };
        self.open_as(self.check_bytes(&entry.path)?, links)
            .map(|(opened, _)| opened)
    }

    /// Facts about an entry of a [`crate::walk::Snapshot`], as [`VFolderRoot::open_entry`] would
    /// find it.
    pub fn stat_entry(&self, entry: &crate::walk::Entry) -> Result<Stat> {
        let links = match entry.kind {
            crate::walk::EntryKind::LinkToFile => Links::Follow,
            crate::walk::EntryKind::File | crate::walk::EntryKind::Dir => Links::Refuse,
        };
        let path = self.check_bytes(&entry.path)?;
        self.run(|base| {
            let found = base
                .handle(path, links)
                .map_err(|stop| stop.at("stat", path))?;
            Stat::of(&found.it).map_err(|errno| AnchorError::os("stat", errno, path))
        })
    }

    fn open_as(&self, path: &[u8], links: Links) -> Result<(Opened, OsString)> {
        self.run(|base| {
            let found = base
                .read(path, links)
                .map_err(|stop| stop.at("open", path))?;
            Ok((found.it, OsString::from_vec(found.location)))
        })
    }

    /// Facts about a file; with `follow` about what links lead to, else about the entry.
    pub fn stat(&self, path: &RelPath, follow: bool) -> Result<Stat> {
        let path = self.check(path)?;
        let links = if follow {
            Links::Follow
        } else {
            Links::KeepLast
        };
        self.run(|base| {
            let found = base
                .handle(path, links)
                .map_err(|stop| stop.at("stat", path))?;
            Stat::of(&found.it).map_err(|errno| AnchorError::os("stat", errno, path))
        })
    }

    /// True when [`VFolderRoot::stat`] would answer.
    pub fn exists(&self, path: &RelPath, follow: bool) -> Result<bool> {
        match self.stat(path, follow) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where a path leads after links, relative to the vfolder; a missing tail is kept as
    /// text, like Python's `Path.resolve(strict=False)`.
    ///
    /// # Errors
    /// [`AnchorError::InvalidName`] when links lead to a name that is not UTF-8: see
    /// [`VFolderRoot::resolve_os`].
    pub fn resolve_path(&self, path: &RelPath) -> Result<RelPath> {
        let resolved = self.resolve_os(OsStr::new(path.as_str()))?;
        let text = resolved.to_str().ok_or(AnchorError::InvalidName)?;
        RelPath::parse(text).map_err(|_| AnchorError::InvalidName)
    }

    /// As [`VFolderRoot::resolve_path`], for names that need not be UTF-8. Empty: the vfolder
    /// itself.
    pub fn resolve_os(&self, path: &OsStr) -> Result<OsString> {
        let path = self.check_bytes(path.as_bytes())?;
        let place = self.run(|base| {
            let place = base.walk(path, Links::Follow, Missing::Keep);
            place
                .map(|place| place.location())
                .map_err(|stop| stop.at("resolve", path))
        })?;
        Ok(OsString::from_vec(place))
    }

    /// Opens a directory. At the root, `.upload` is hidden in it.
    pub fn open_dir(&self, path: &RelPath) -> Result<Dir> {
        let path = self.check(path)?;
        self.run(|base| {
            let found = base
                .dir(path, sys::DIR_READ)
                .map_err(|stop| stop.at("open", path))?;
            Ok(Dir::for_client(found.it, found.location))
        })
    }

    /// The root with everything in it, `.upload` too. For accounting and removal, never to
    /// answer a client.
    pub fn open_whole(&self) -> Result<Dir> {
        self.run(|base| {
            let fd = sys::reopen_dir(base.fd, sys::DIR_READ);
            let fd = fd.map_err(|errno| AnchorError::os("open", errno, b"."))?;
            Ok(Dir::new(fd, Vec::new()))
        })
    }

    /// Makes a directory; `mode` through the umask.
    ///
    /// With `parents`, missing ones are made 0777 through the umask. With `exist_ok`, a
    /// directory that is there already (or a link to one that stays inside) is fine.
    pub fn mkdir(&self, path: &RelPath, parents: bool, exist_ok: bool, mode: u32) -> Result<()> {
        let bytes = self.check(path)?;
        let missing = if parents {
            Missing::Make
        } else {
            Missing::Refuse
        };
        let made = self.run(|base| match split(bytes) {
            Last::Nameless => match base.dir(bytes, sys::DIR_HANDLE) {
                Ok(_) => Err(AnchorError::os("mkdir", Errno::EXIST, bytes)),
                Err(stop) => Err(stop.at("mkdir", bytes)),
            },
            Last::Entry(..) => on_entry(base, "mkdir", bytes, missing, |dir, name| {
                sys::mkdir(dir, name, mode)
            }),
        });
        match made {
            Err(error) if exist_ok && error.kernel() == Some(Errno::EXIST) => {
                let is_dir = self.stat(path, true).is_ok_and(|stat| stat.is_dir());
                if is_dir { Ok(()) } else { Err(error) }
            }
            made => made,
        }
    }

    /// Gives an entry another name; replaces what `rename(2)` replaces. Links are renamed
    /// themselves. The root, or a path ending in `..`, is `EBUSY`.
    pub fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let (from, to) = (self.check(from)?, self.check(to)?);
        let busy = |path| AnchorError::os("rename", Errno::BUSY, path);
        let Last::Entry(old_parent, old) = split(from) else {
            return Err(busy(from));
        };
        let Last::Entry(new_parent, new) = split(to) else {
            return Err(busy(to));
        };
        self.run(|base| {
            let find = |parent, name, path| {
                base.parent(parent, name, Missing::Refuse)
                    .map_err(|e| e.at("rename", path))
            };
            let old_dir = find(old_parent, old, from)?;
            let new_dir = find(new_parent, new, to)?;
            sys::rename(&old_dir, old, &new_dir, new)
                .map_err(|errno| AnchorError::os("rename", errno, from))
        })
    }

    /// Removes an entry that is not a directory; a link itself.
    pub fn unlink(&self, path: &RelPath) -> Result<()> {
        let path = self.check(path)?;
        self.run(|base| {
            on_entry(base, "unlink", path, Missing::Refuse, |dir, name| {
                sys::unlink(dir, name)
            })
        })
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, path: &RelPath) -> Result<()> {
        let path = self.check(path)?;
        self.run(|base| {
            on_entry(base, "rmdir", path, Missing::Refuse, |dir, name| {
                sys::rmdir(dir, name)
            })
        })
    }

    /// Removes a directory with all that is in it, or any other entry; links themselves.
    /// `watch` may stop it: what was removed before stays removed.
    pub fn remove_tree(&self, path: &RelPath, watch: Watch<'_>) -> Result<Removed> {
        let bytes = self.check(path)?;
        match self.unlink(path) {
            Err(error) if error.kernel() == Some(Errno::ISDIR) => {}
            done => {
                return done.map(|()| Removed {
                    entries: 1,
                    complete: true,
                });
            }
        }
        let dir = self.run(|base| {
            let mut opened = None;
            on_entry(base, "open", bytes, Missing::Refuse, |dir, name| {
                let flags = sys::DIR_READ | rustix::fs::OFlags::NOFOLLOW;
                opened = Some(sys::open(dir, name, flags)?);
                Ok(())
            })?;
            let fd = opened.ok_or(AnchorError::InvalidName)?;
            Ok(Dir::new(fd, bytes.to_vec()))
        })?;
        let mut removed = tree::empty(dir, watch)?;
        if removed.complete {
            self.rmdir(path)?;
            removed.entries += 1;
        }
        Ok(removed)
    }

    pub(crate) fn base(&self) -> Base<'_> {
        let Inner {
            fd, host, volume, ..
        } = &*self.inner;
        Base {
            fd: fd.as_fd(),
            host,
            portable: volume.is_portable(),
            reserved: volume.reserved(),
        }
    }

    /// See [`check`].
    pub(crate) fn check<'p>(&self, path: &'p RelPath) -> Result<&'p [u8]> {
        check(path, self.inner.volume.reserved())
    }

    fn check_bytes<'p>(&self, path: &'p [u8]) -> Result<&'p [u8]> {
        check_bytes(path, self.inner.volume.reserved())
    }

    /// Runs an operation, and once more on a fresh lookup when the server has forgotten the
    /// directory (NFS: `ESTALE`).
    pub(crate) fn run<T>(&self, mut operation: impl FnMut(&Base<'_>) -> Result<T>) -> Result<T> {
        match operation(&self.base()) {
            Err(error) if error.kernel() == Some(Errno::STALE) => {
                let fresh = self.inner.volume.vfolder(&self.inner.id)?;
                operation(&fresh.base()).map_err(|error| fresh.gone(error))
            }
            done => done,
        }
    }

    /// What the server forgot for good was removed there, though its name is still remembered
    /// here: the folder, or something in it.
    fn gone(&self, error: AnchorError) -> AnchorError {
        match error {
            AnchorError::Os { op, errno, path } if errno == Errno::STALE.raw_os_error() => {
                match self.is_alive() {
                    false => AnchorError::VFolderMissing,
                    true => AnchorError::os(op, Errno::NOENT, path.as_bytes()),
                }
            }
            error => error,
        }
    }
}

/// Acts on the entry that `path` names, in its directory; again when that directory was
/// removed between being found (or made) and being used.
pub(crate) fn on_entry(
    base: &Base<'_>,
    op: &'static str,
    path: &[u8],
    missing: Missing,
    mut act: impl FnMut(&Parent<'_>, &[u8]) -> std::result::Result<(), Errno>,
) -> Result<()> {
    let Last::Entry(parent, name) = split(path) else {
        return Err(AnchorError::os(op, Errno::BUSY, path));
    };
    let mut races_left = sys::RACES_MAX;
    loop {
        let dir = base
            .parent(parent, name, missing)
            .map_err(|stop| stop.at(op, path))?;
        match act(&dir, name) {
            // The directory that was just made or found is gone again: make it again.
            Err(Errno::NOENT) if missing != Missing::Refuse && 0 < races_left => races_left -= 1,
            done => return done.map_err(|errno| Stop::Errno(errno).at(op, path)),
        }
    }
}

/// What every client path has to pass before anything is looked up: of the volume's `reserved`
/// name, which it may not have, too.
pub(crate) fn check<'p>(path: &'p RelPath, reserved: Option<&str>) -> Result<&'p [u8]> {
    let bytes = path.as_str().as_bytes();
    if path.is_reserved() {
        Err(AnchorError::Reserved)
    } else {
        check_bytes(bytes, reserved)
    }
}

fn check_bytes<'p>(path: &'p [u8], reserved: Option<&str>) -> Result<&'p [u8]> {
    if path.contains(&0) {
        return Err(AnchorError::InvalidName);
    }
    if reserved.is_some_and(|name| {
        path.split(|byte| *byte == b'/')
            .any(|p| p == name.as_bytes())
    }) {
        return Err(AnchorError::Reserved);
    }
    match path
        .split(|byte| *byte == b'/')
        .find(|part| !matches!(*part, b"" | b"."))
    {
        Some(first) if first == STAGING_DIR.as_bytes() => Err(AnchorError::Reserved),
        _ if path.starts_with(b"/") => Err(AnchorError::Escapes),
        _ if path.is_empty() => Ok(b"."),
        _ => Ok(path),
    }
}
