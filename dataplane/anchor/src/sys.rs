//! System calls as this crate makes them: close-on-exec, repeated when interrupted.
//!
//! Laws
//! - Names are bytes; a NUL has been refused before they come here.
//! - `O_CLOEXEC` is on every descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::stat::{Opened, Stat};

/// How often a lookup that lost a race is repeated. A loss needs a rename or removal in the
/// same microseconds; whoever can cause this many in a row gets `EAGAIN` for it.
pub(crate) const RACES_MAX: u32 = 64;

/// A handle to walk from: no permission on the object itself is needed.
pub(crate) const HANDLE: OFlags = OFlags::PATH;

/// A directory to walk from.
pub(crate) const DIR_HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// A directory to read and sync.
pub(crate) const DIR_READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// A file of any type for reading, without waiting for it: `O_NONBLOCK` for FIFOs and
/// leases, `O_NOCTTY` for terminals.
pub(crate) const FILE_READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Set once the kernel said that it has no `openat2`.
static OPENAT2_MISSING: AtomicBool = AtomicBool::new(false);

/// Repeats a call for as long as signals interrupt it.
pub(crate) fn retry<T>(call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    rustix::io::retry_on_intr(call)
}

/// Opens one component; the last word on links is the caller's `flags`.
pub(crate) fn open(dir: impl AsFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    create(dir, name, flags, 0)
}

/// Opens one component that may be made, with `mode` through the umask.
pub(crate) fn create(
    dir: impl AsFd,
    name: &[u8],
    flags: OFlags,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let dir = dir.as_fd();
    let mode = Mode::from_raw_mode(mode);
    retry(|| rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, mode))
}

/// Opens a whole path beneath `dir`, links refused (`ELOOP`).
pub(crate) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    if OPENAT2_MISSING.load(Ordering::Relaxed) {
        return Err(Errno::NOSYS);
    }
    let rules =
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS | more;
    let flags = flags | OFlags::CLOEXEC;
    let opened = retry(|| rustix::fs::openat2(dir, path, flags, Mode::empty(), rules));
    if matches!(opened, Err(Errno::NOSYS)) {
        OPENAT2_MISSING.store(true, Ordering::Relaxed);
    }
    opened
}

/// The directory itself, opened anew: own position, other flags.
pub(crate) fn reopen_dir(dir: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(dir, b".", flags | OFlags::DIRECTORY)
}

/// Takes the facts of a fresh [`FILE_READ`] descriptor and takes `O_NONBLOCK` off it.
///
/// Off, because io_uring answers `EAGAIN` instead of waiting for the disk on a descriptor
/// that has it.
pub(crate) fn settle(fd: OwnedFd) -> Result<Opened, Errno> {
    let stat = Stat::of(&fd)?;
    if stat.is_file() || stat.is_dir() {
        retry(|| rustix::fs::fcntl_setfl(&fd, OFlags::empty()))?;
    }
    Ok(Opened { fd, stat })
}

/// Opens for reading what `handle` already holds, for callers that may wait.
///
/// The one use of `/proc/self/fd` for opening: the handle pins a regular file or a directory,
/// so neither a FIFO nor a link can be opened instead, whatever happens to the name.
pub(crate) fn reopen_pinned(handle: OwnedFd) -> Result<Opened, Errno> {
    use std::os::fd::AsRawFd;
    let stat = Stat::of(&handle)?;
    let flags = match stat.kind() {
        FileType::RegularFile => OFlags::RDONLY,
        FileType::Directory => return reopen_dir(&handle, DIR_READ).and_then(settle),
        _ => return Ok(Opened { fd: handle, stat }),
    };
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let opened = settle(open(rustix::fs::CWD, link.as_bytes(), flags)?)?;
    // Only a /proc that is not the kernel's could answer with another file.
    if (opened.stat.dev, opened.stat.ino) != (stat.dev, stat.ino) {
        return Err(Errno::STALE);
    }
    Ok(opened)
}

/// Opens the regular file that `file` already holds, for writing with O_DIRECT.
///
/// By `/proc/self/fd`, as in [`reopen_pinned`]: the descriptor pins a regular file.
pub(crate) fn reopen_direct(file: impl AsFd, identity: (u64, u64)) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::DIRECT;
    let opened = open(rustix::fs::CWD, link.as_bytes(), flags)?;
    let stat = Stat::of(&opened)?;
    // Only a /proc that is not the kernel's could answer with another file.
    if (stat.dev, stat.ino) != identity {
        return Err(Errno::STALE);
    }
    Ok(opened)
}

/// Sets the permission bits of what `handle` pins, which need not be open for anything.
pub(crate) fn chmod_pinned(handle: impl AsFd, mode: u32) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    let mode = Mode::from_raw_mode(mode);
    retry(|| rustix::fs::chmodat(rustix::fs::CWD, &link, mode, AtFlags::empty()))
}

/// Makes a directory with `mode` through the umask.
pub(crate) fn mkdir(dir: impl AsFd, name: &[u8], mode: u32) -> Result<(), Errno> {
    let dir = dir.as_fd();
    retry(|| rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)))
}

/// Removes an entry that is not a directory.
pub(crate) fn unlink(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let dir = dir.as_fd();
    retry(|| rustix::fs::unlinkat(dir, name, AtFlags::empty()))
}

/// Removes an empty directory.
pub(crate) fn rmdir(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let dir = dir.as_fd();
    retry(|| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR))
}

/// Renames an entry itself, replacing what `rename(2)` replaces.
pub(crate) fn rename(from: impl AsFd, old: &[u8], to: impl AsFd, new: &[u8]) -> Result<(), Errno> {
    let (from, to) = (from.as_fd(), to.as_fd());
    retry(|| rustix::fs::renameat(from, old, to, new))
}

/// The target of a link, by name or (with `name` empty) of the handle itself.
pub(crate) fn readlink(dir: impl AsFd, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let dir = dir.as_fd();
    retry(|| rustix::fs::readlinkat(dir, name, Vec::new())).map(std::ffi::CString::into_bytes)
}

/// Makes the entries of a readable directory durable.
///
/// File systems whose directories cannot be synced (some FUSE) answer `EINVAL` or so: they
/// have no stronger promise to give, so that counts as done.
pub(crate) fn sync(dir: impl AsFd) -> Result<(), Errno> {
    let dir = dir.as_fd();
    match retry(|| rustix::fs::fsync(dir)) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        done => done,
    }
}

/// As [`sync`], for a directory that is only a handle. `EACCES` when it cannot be read.
pub(crate) fn sync_handle(dir: impl AsFd) -> Result<(), Errno> {
    sync(reopen_dir(dir, DIR_READ)?)
}
