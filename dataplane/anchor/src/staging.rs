//! Staged uploads: `<vfolder>/.upload/<session>`, and how one becomes a file with a name.
//!
//! Laws
//! - `.upload` is opened `O_NOFOLLOW`: a link that a user planted in its place is refused
//!   (`ENOTDIR`), never followed.
//! - A target appears by one rename, whole, or not at all.
//! - After [`publish`], or after [`is_published`] said yes, the name of the target survives a
//!   power loss: every directory on its way that was touched has been synced. The content is
//!   the caller's to sync, before. Directories that were there already are as durable as
//!   whoever made them left them; file systems that journal names write them out in order.
//! - Everything may be repeated after a crash at any point.
//!
//! Source: tus 1.0.0 for what an upload is; the layout is the Python proxy's.

use std::os::fd::{AsFd, OwnedFd};

use proxy_core::id::SessionId;
use proxy_core::relpath::{RelPath, STAGING_DIR};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::components::{Links, Missing};
use crate::dir::Dir;
use crate::error::{AnchorError, Result, Stop};
use crate::resolve::{Base, Last, Parent, split};
use crate::stat::Stat;
use crate::sys;
use crate::vfolder::VFolderRoot;

const STAGING: &[u8] = STAGING_DIR.as_bytes();

/// Mode of `.upload` before the umask.
const STAGING_MODE: u32 = 0o755;

/// Mode of a staged file before the umask; the published file keeps it.
const FILE_MODE: u32 = 0o666;

/// The longest name on every file system that Linux has.
const NAME_BYTES_MAX: usize = 255;

/// An open staging file.
#[derive(Debug)]
pub struct Staged {
    /// Read and write, close-on-exec.
    pub fd: OwnedFd,
    /// Inode number: tells whether a published file is this one.
    pub ino: u64,
    /// Device number.
    pub dev: u64,
    /// Bytes at the moment of opening.
    pub size: u64,
}

impl Staged {
    fn of(fd: OwnedFd) -> std::result::Result<Self, Errno> {
        let stat = Stat::of(&fd)?;
        if !stat.is_file() {
            // Whoever can write the vfolder can put anything here. It is not our session.
            return Err(Errno::NOENT);
        }
        Ok(Self {
            fd,
            ino: stat.ino,
            dev: stat.dev,
            size: stat.size,
        })
    }
}

impl Staged {
    /// The same file once more, for writing past the page cache. `None` where the file system
    /// has no direct I/O.
    pub fn direct(&self) -> Option<OwnedFd> {
        sys::reopen_direct(&self.fd, (self.dev, self.ino)).ok()
    }
}

fn path_of(session: &SessionId) -> Vec<u8> {
    format!("{STAGING_DIR}/{session}").into_bytes()
}

/// Makes the empty file of a new session. `EEXIST` when there is one.
///
/// The name is not synced: a session without a file starts at offset 0.
pub fn create(root: &VFolderRoot, session: &SessionId) -> Result<Staged> {
    let (name, path) = (session.to_string(), path_of(session));
    root.run(|base| {
        let os = |errno| AnchorError::os("create", errno, &path);
        let mut result = Err(Errno::NOENT);
        for _ in 0..sys::RACES_MAX {
            result = try_create(base, name.as_bytes());
            // ENOENT: a finished upload removed `.upload` between our two steps.
            if !matches!(result, Err(Errno::NOENT)) {
                break;
            }
            if !root.is_alive() {
                return Err(AnchorError::VFolderMissing);
            }
        }
        result.map_err(os)
    })
}

fn try_create(base: &Base<'_>, name: &[u8]) -> std::result::Result<Staged, Errno> {
    let dir = match open_staging(base, sys::DIR_HANDLE) {
        Err(Errno::NOENT) => {
            match sys::mkdir(base.fd, STAGING, STAGING_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            open_staging(base, sys::DIR_HANDLE)?
        }
        dir => dir?,
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    Staged::of(sys::create(&dir, name, flags, FILE_MODE)?)
}

/// `ENOTDIR` for a link or file in its place.
fn open_staging(base: &Base<'_>, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    match sys::open(base.fd, STAGING, flags | OFlags::NOFOLLOW) {
        Err(Errno::LOOP) => Err(Errno::NOTDIR),
        opened => opened,
    }
}

/// Opens the file of a session. `ENOENT` when it is missing, or not a regular file.
pub fn open(root: &VFolderRoot, session: &SessionId) -> Result<Staged> {
    let (name, path) = (session.to_string(), path_of(session));
    root.run(|base| {
        let opened = open_staging(base, sys::DIR_HANDLE).and_then(|dir| {
            // O_NONBLOCK: a FIFO planted under this name would wait for its other end.
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
            let fd = match sys::open(&dir, name.as_bytes(), flags) {
                // A link, a directory, a socket: not our session either.
                Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::NODEV) => {
                    return Err(Errno::NOENT);
                }
                fd => fd?,
            };
            let staged = Staged::of(fd)?;
            sys::retry(|| rustix::fs::fcntl_setfl(&staged.fd, OFlags::empty()))?;
            Ok(staged)
        });
        opened.map_err(|errno| AnchorError::os("open", errno, &path))
    })
}

/// Gives a staged file its name: makes missing directories (0777 through the umask), renames
/// over what is there, syncs every directory touched, and removes `.upload` if that was the
/// last upload.
///
/// # Errors
/// - `EISDIR`: a directory has the target's name, or it is the vfolder itself.
/// - `ENOTDIR`: the target's parent is a file.
/// - `ENOENT`: no such session. After a crash ask [`is_published`].
/// - Anything else the file system says: nothing was renamed, or it was and the sync failed.
///   In both cases the call can be repeated.
pub fn publish(root: &VFolderRoot, session: &SessionId, target: &RelPath) -> Result<()> {
    let (name, staged, target) = (session.to_string(), path_of(session), root.check(target)?);
    let Last::Entry(parent, last) = split(target) else {
        return Err(AnchorError::os("publish", Errno::ISDIR, target));
    };
    let os = |errno| AnchorError::os("publish", errno, target);
    root.run(|base| {
        let here = |errno| AnchorError::os("publish", errno, &staged);
        let upload = open_staging(base, sys::DIR_READ).map_err(here)?;
        for _ in 0..sys::RACES_MAX {
            match Stat::of_entry(&upload, name.as_bytes()) {
                Ok(stat) if stat.is_file() => {}
                Ok(_) => return Err(here(Errno::NOENT)),
                Err(errno) => return Err(here(errno)),
            }
            let dir = base.parent(parent, last, Missing::Make);
            let dir = dir.map_err(|stop| stop.at("publish", target))?;
            match sys::rename(&upload, name.as_bytes(), &dir, last) {
                // The parent was removed after it was found. Or the session was: see above.
                Err(Errno::NOENT) => {}
                renamed => {
                    renamed.map_err(os)?;
                    sync_both(&upload, &dir).map_err(os)?;
                    // Not empty, or gone already: both are fine.
                    let _ = sys::rmdir(base.fd, STAGING);
                    return Ok(());
                }
            }
        }
        Err(os(Errno::AGAIN))
    })
}

fn sync_both(upload: &OwnedFd, parent: &Parent<'_>) -> std::result::Result<(), Errno> {
    match parent.sync() {
        Err(Errno::ACCESS) => sys::retry(|| rustix::fs::syncfs(upload)),
        synced => synced.and_then(|()| sys::sync(upload)),
    }
}

/// Would [`publish`] be allowed? Nothing is made.
///
/// # Errors
/// Those of [`publish`] that are about the target; missing parents are fine. `EXDEV` also comes
/// from [`publish`] alone: directories with a quota of their own look like others.
pub fn check_target(root: &VFolderRoot, target: &RelPath) -> Result<()> {
    let target = root.check(target)?;
    let os = |errno| AnchorError::os("upload", errno, target);
    let Last::Entry(parent, last) = split(target) else {
        return Err(os(Errno::ISDIR));
    };
    root.run(|base| {
        let dir = base.parent(parent, last, Missing::Keep);
        let dir = dir.map_err(|stop| stop.at("upload", target))?;
        if NAME_BYTES_MAX < last.len() {
            return Err(os(Errno::NAMETOOLONG));
        }
        // A file system, or a subvolume, of its own: no rename leads there. What is missing is
        // made in the last directory that is there.
        let device = |dir: &dyn AsFd| Stat::of(dir.as_fd()).map(|stat| stat.dev).map_err(os);
        if device(&dir)? != device(&base.fd)? {
            return Err(os(Errno::XDEV));
        }
        if dir.lost {
            return Ok(());
        }
        match Stat::of_entry(&dir, last) {
            Ok(stat) if stat.is_dir() => Err(os(Errno::ISDIR)),
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(os(errno)),
        }
    })
}

/// Is the file at `target` the one that was staged as `ino` on `dev` with `size` bytes?
///
/// Yes means that its name is durable, too: the directories on its way are synced before the
/// answer, since whoever renamed it may have died before doing so.
/// Device numbers of network file systems change with every mount; the vfolder's present one
/// is as good as the recorded one.
pub fn is_published(
    root: &VFolderRoot,
    ino: u64,
    dev: u64,
    size: u64,
    target: &RelPath,
) -> Result<bool> {
    let target = root.check(target)?;
    let Last::Entry(parent, last) = split(target) else {
        return Ok(false);
    };
    root.run(|base| {
        let place = match base.walk(parent, Links::Follow, Missing::Refuse) {
            Err(Stop::Errno(Errno::NOENT | Errno::NOTDIR)) => return Ok(false),
            place => place.map_err(|stop| stop.at("stat", target))?,
        };
        let os = |errno| AnchorError::os("stat", errno, target);
        let stat = match Stat::of_entry(place.chain.top(), last) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            stat => stat.map_err(os)?,
        };
        let same_dev = stat.dev == dev || Stat::of(base.fd).is_ok_and(|base| base.dev == stat.dev);
        let same = same_dev && stat.is_file() && stat.ino == ino && stat.size == size;
        if !same || place.tip.is_some() {
            return Ok(false);
        }
        for dir in place.chain.descriptors() {
            match sys::sync_handle(dir) {
                Err(Errno::ACCESS) => {}
                synced => synced.map_err(|errno| AnchorError::os("sync", errno, target))?,
            }
        }
        Ok(true)
    })
}

/// Removes the file of a session, and `.upload` if that was the last. A missing one is fine.
pub fn discard(root: &VFolderRoot, session: &SessionId) -> Result<()> {
    let (name, path) = (session.to_string(), path_of(session));
    root.run(|base| {
        let dir = match open_staging(base, sys::DIR_HANDLE) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            dir => dir.map_err(|errno| AnchorError::os("discard", errno, &path))?,
        };
        match sys::unlink(dir.as_fd(), name.as_bytes()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(AnchorError::os("discard", errno, &path)),
        }
        // Not empty, or gone already: both are fine.
        let _ = sys::rmdir(base.fd, STAGING);
        Ok(())
    })
}

/// The staged files of a vfolder, for collection. Names that are no sessions are left alone.
pub fn list(root: &VFolderRoot) -> Result<Vec<(SessionId, Stat)>> {
    root.run(|base| {
        let mut dir = match open_staging(base, sys::DIR_READ) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            dir => Dir::new(
                dir.map_err(|e| AnchorError::os("list", e, STAGING))?,
                STAGING.into(),
            ),
        };
        let mut names = Vec::new();
        for entry in dir.entries() {
            names.push(entry?.name);
        }
        let mut found = Vec::new();
        for name in names {
            let session = name.to_str().and_then(|name| {
                SessionId::parse(name)
                    .ok()
                    .filter(|session| session.to_string() == name)
            });
            let Some(session) = session else { continue };
            match dir.stat(&name) {
                Ok(stat) if stat.is_file() => found.push((session, stat)),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    })
}
