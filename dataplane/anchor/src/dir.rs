//! An open directory, and its entries by their one name.
//!
//! Laws
//! - A name is one component: no `/`, not `.` or `..`. Nothing here follows a link.
//! - A directory that clients reached at the vfolder root does not have `.upload`: it is
//!   neither listed nor opened.

use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use proxy_core::relpath::STAGING_DIR;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Timestamps};
use rustix::io::Errno;

use crate::error::{AnchorError, Result};
use crate::stat::{Opened, Stat};
use crate::sys;

/// One `getdents64` fills at most this: about a thousand entries.
pub(crate) const BATCH_BYTES: usize = 32 * 1024;

/// What a directory says about an entry without asking the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// FIFO, socket or device.
    Special,
    /// The file system does not say: ask [`Dir::stat`].
    Unknown,
}

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::Unknown => Self::Unknown,
            _ => Self::Special,
        }
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Any bytes but NUL and `/`.
    pub name: OsString,
    /// As the directory says.
    pub kind: FileKind,
    /// Inode number.
    pub ino: u64,
}

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Below the vfolder (or whatever tree it belongs to), for errors.
    path: Vec<u8>,
    hides_staging: bool,
    batch: Vec<u8>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRef<Dir> for Dir {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Dir {
    /// `fd` is a [`sys::DIR_READ`] descriptor.
    pub(crate) fn new(fd: OwnedFd, path: Vec<u8>) -> Self {
        Self {
            fd,
            path,
            hides_staging: false,
            batch: Vec::new(),
        }
    }

    /// As [`Dir::new`], for a directory that a client named: below a vfolder.
    pub(crate) fn for_client(fd: OwnedFd, location: Vec<u8>) -> Self {
        let hides_staging = location.is_empty();
        Self {
            hides_staging,
            ..Self::new(fd, location)
        }
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Where it was when it was opened: joined names below the vfolder, empty at its root.
    pub fn location(&self) -> &[u8] {
        &self.path
    }

    /// The same directory with a position of its own.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = sys::reopen_dir(&self.fd, sys::DIR_READ).map_err(|e| self.os("open", b"", e))?;
        let hides_staging = self.hides_staging;
        Ok(Self {
            hides_staging,
            ..Self::new(fd, self.path.clone())
        })
    }

    /// Facts about the directory itself.
    pub fn metadata(&self) -> Result<Stat> {
        Stat::of(&self.fd).map_err(|e| self.os("stat", b"", e))
    }

    /// The entries, from the start, in the order of the file system. What changes meanwhile
    /// may or may not be seen.
    pub fn entries(&mut self) -> Entries<'_> {
        let start = self.rewind();
        self.batch.reserve(BATCH_BYTES);
        let Self {
            fd,
            path,
            hides_staging,
            batch,
        } = self;
        let fd: &OwnedFd = fd;
        let raw = RawDir::new(fd.as_fd(), batch.spare_capacity_mut());
        Entries {
            raw,
            path,
            hides_staging: *hides_staging,
            failed: start.err(),
        }
    }

    pub(crate) fn rewind(&self) -> std::result::Result<(), Errno> {
        rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0)).map(|_| ())
    }

    /// Facts about an entry itself.
    pub fn stat(&self, name: &OsStr) -> Result<Stat> {
        let name = self.name(name)?;
        Stat::of_entry(&self.fd, name).map_err(|e| self.os("stat", name, e))
    }

    /// A directory in here. A link is `ENOTDIR`.
    pub fn open_dir(&self, name: &OsStr) -> Result<Self> {
        let name = self.name(name)?;
        self.open_dir_raw(name)
            .map_err(|e| self.os("open", name, e))
    }

    pub(crate) fn open_dir_raw(&self, name: &[u8]) -> std::result::Result<Self, Errno> {
        let fd = sys::open(&self.fd, name, sys::DIR_READ | OFlags::NOFOLLOW)?;
        Ok(Self::new(fd, self.path_of(name)))
    }

    /// Anything in here, as [`Opened`] promises. A link is `ELOOP`.
    pub fn open_file(&self, name: &OsStr) -> Result<Opened> {
        let name = self.name(name)?;
        let os = |errno| self.os("open", name, errno);
        match sys::open(&self.fd, name, sys::FILE_READ | OFlags::NOFOLLOW) {
            Ok(fd) => sys::settle(fd).map_err(os),
            // Sockets, devices without a driver, files with a lease: a handle can tell.
            Err(Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::AGAIN) => {
                let handle = sys::open(&self.fd, name, sys::HANDLE | OFlags::NOFOLLOW);
                let handle = handle.map_err(os)?;
                if Stat::of(&handle).map_err(os)?.is_symlink() {
                    return Err(os(Errno::LOOP));
                }
                sys::reopen_pinned(handle).map_err(os)
            }
            Err(errno) => Err(os(errno)),
        }
    }

    /// As [`Dir::open_file`], to copy from: where the owner asks, reading is not noted as an
    /// access (`O_NOATIME`, open(2)). The descriptor keeps `O_NONBLOCK`, which regular files
    /// ignore.
    pub fn open_source(&self, name: &OsStr) -> Result<Opened> {
        let bytes = self.name(name)?;
        let flags = sys::FILE_READ | OFlags::NOFOLLOW | OFlags::NOATIME;
        match sys::open(&self.fd, bytes, flags) {
            Ok(fd) => {
                let stat = Stat::of(&fd).map_err(|errno| self.os("stat", bytes, errno))?;
                Ok(Opened { fd, stat })
            }
            Err(_) => self.open_file(name),
        }
    }

    /// A new file, open for reading and writing; `mode` through the umask. `EEXIST` when the
    /// name is taken, also by a link.
    pub fn create_file(&self, name: &OsStr, mode: u32) -> Result<OwnedFd> {
        let name = self.name(name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        sys::create(&self.fd, name, flags, mode).map_err(|e| self.os("create", name, e))
    }

    /// A new directory; `mode` through the umask.
    pub fn mkdir(&self, name: &OsStr, mode: u32) -> Result<()> {
        let name = self.name(name)?;
        sys::mkdir(&self.fd, name, mode).map_err(|e| self.os("mkdir", name, e))
    }

    /// Removes an entry that is not a directory.
    pub fn unlink(&self, name: &OsStr) -> Result<()> {
        let name = self.name(name)?;
        sys::unlink(&self.fd, name).map_err(|e| self.os("unlink", name, e))
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, name: &OsStr) -> Result<()> {
        let name = self.name(name)?;
        sys::rmdir(&self.fd, name).map_err(|e| self.os("rmdir", name, e))
    }

    /// The text of a link.
    pub fn readlink(&self, name: &OsStr) -> Result<OsString> {
        let name = self.name(name)?;
        let target = sys::readlink(&self.fd, name).map_err(|e| self.os("readlink", name, e))?;
        Ok(OsString::from_vec(target))
    }

    /// A new link with the text `target`, which is not looked at.
    pub fn symlink(&self, name: &OsStr, target: &OsStr) -> Result<()> {
        let name = self.name(name)?;
        if target.as_bytes().contains(&0) {
            return Err(AnchorError::InvalidName);
        }
        sys::retry(|| rustix::fs::symlinkat(target, &self.fd, name))
            .map_err(|e| self.os("symlink", name, e))
    }

    /// A second name, in `to`, for a file in here. A link gets a second name itself.
    pub fn link(&self, name: &OsStr, to: &Self, new: &OsStr) -> Result<()> {
        let (name, new) = (self.name(name)?, to.name(new)?);
        sys::retry(|| rustix::fs::linkat(&self.fd, name, &to.fd, new, AtFlags::empty()))
            .map_err(|e| to.os("link", new, e))
    }

    /// Gives an entry another name, in `to`; replaces what `rename(2)` replaces.
    pub fn rename(&self, name: &OsStr, to: &Self, new: &OsStr) -> Result<()> {
        let (name, new) = (self.name(name)?, to.name(new)?);
        sys::rename(&self.fd, name, &to.fd, new).map_err(|e| self.os("rename", name, e))
    }

    /// Sets the times of an entry itself, nanoseconds since 1970.
    pub fn set_times(&self, name: &OsStr, atime_ns: i128, mtime_ns: i128) -> Result<()> {
        let name = self.name(name)?;
        let times = timestamps(atime_ns, mtime_ns);
        sys::retry(|| rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|e| self.os("set times of", name, e))
    }

    /// Sets the permission bits of the directory itself.
    pub fn chmod(&self, mode: u32) -> Result<()> {
        sys::retry(|| rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode)))
            .map_err(|e| self.os("chmod", b"", e))
    }

    /// Gives the owner all rights to a directory in here, also to one that cannot even be
    /// opened, so that it can be removed. A link is `ENOTDIR`.
    pub fn unlock_dir(&self, name: &OsStr) -> Result<()> {
        let name = self.name(name)?;
        let os = |errno| self.os("chmod", name, errno);
        let handle = sys::open(&self.fd, name, sys::DIR_HANDLE | OFlags::NOFOLLOW).map_err(os)?;
        sys::chmod_pinned(&handle, 0o700).map_err(os)
    }

    /// Makes the names in here durable.
    pub fn sync(&self) -> Result<()> {
        sys::sync(&self.fd).map_err(|e| self.os("sync", b"", e))
    }

    /// Calls `each` for the next entries, about a thousand, from where the last call ended; `false`
    /// when the directory is at its end. `buf` is scratch memory for any number of calls.
    ///
    /// Unlike [`Dir::entries`] it takes no copy of a name, and other calls may work on the
    /// directory meanwhile.
    pub fn read_batch(
        &self,
        buf: &mut Vec<u8>,
        mut each: impl FnMut(&OsStr, FileKind, u64),
    ) -> Result<bool> {
        let more = self.next_batch(buf, |name, kind, ino| {
            if !(self.hides_staging && name == STAGING_DIR.as_bytes()) {
                each(OsStr::from_bytes(name), kind, ino);
            }
        });
        more.map_err(|errno| self.os("list", b"", errno))
    }

    /// As [`Dir::read_batch`], from a `position` that an earlier call gave for an entry: what comes
    /// behind that entry. 0 is the start. A file system keeps positions for as long as the
    /// directory lives (readdir(3), `d_off`), also over a change of other entries.
    pub fn read_batch_at(
        &self,
        position: u64,
        buf: &mut Vec<u8>,
        mut each: impl FnMut(&OsStr, u64),
    ) -> Result<bool> {
        let os = |errno| self.os("list", b"", errno);
        rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(position)).map_err(os)?;
        buf.reserve(BATCH_BYTES);
        let mut raw = RawDir::new(self.fd.as_fd(), buf.spare_capacity_mut());
        loop {
            let entry = match raw.next() {
                None | Some(Err(Errno::NOENT)) => return Ok(false),
                Some(Err(Errno::INTR)) => continue,
                Some(Err(errno)) => return Err(os(errno)),
                Some(Ok(entry)) => entry,
            };
            if let Some(name) = proper(entry.file_name())
                && !(self.hides_staging && name == STAGING_DIR.as_bytes())
            {
                each(OsStr::from_bytes(name), entry.next_entry_cookie());
            }
            if raw.is_buffer_empty() {
                return Ok(true);
            }
        }
    }

    /// Lets [`Dir::read_batch`] begin anew.
    pub fn begin_anew(&self) -> Result<()> {
        self.rewind().map_err(|errno| self.os("list", b"", errno))
    }

    /// Reads entries up to a batch. `false` when the directory is at its end.
    pub(crate) fn next_batch(
        &self,
        buf: &mut Vec<u8>,
        mut each: impl FnMut(&[u8], FileKind, u64),
    ) -> std::result::Result<bool, Errno> {
        buf.reserve(BATCH_BYTES);
        let mut raw = RawDir::new(self.fd.as_fd(), buf.spare_capacity_mut());
        loop {
            match raw.next() {
                None => return Ok(false),
                Some(Err(Errno::INTR)) => {}
                // The directory was removed while it was open.
                Some(Err(Errno::NOENT)) => return Ok(false),
                Some(Err(errno)) => return Err(errno),
                Some(Ok(entry)) => {
                    if let Some(name) = proper(entry.file_name()) {
                        each(name, entry.file_type().into(), entry.ino());
                    }
                    if raw.is_buffer_empty() {
                        return Ok(true);
                    }
                }
            }
        }
    }

    pub(crate) fn os(&self, op: &'static str, name: &[u8], errno: Errno) -> AnchorError {
        AnchorError::os(op, errno, &self.path_of(name))
    }

    pub(crate) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path.clone();
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    fn name<'n>(&self, name: &'n OsStr) -> Result<&'n [u8]> {
        let bytes = name.as_bytes();
        let odd = matches!(bytes, b"" | b"." | b"..");
        if odd || bytes.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(AnchorError::InvalidName);
        }
        if self.hides_staging && bytes == STAGING_DIR.as_bytes() {
            return Err(AnchorError::Reserved);
        }
        Ok(bytes)
    }
}

/// See [`Dir::entries`].
pub struct Entries<'a> {
    raw: RawDir<'a, BorrowedFd<'a>>,
    path: &'a [u8],
    hides_staging: bool,
    failed: Option<Errno>,
}

impl Entries<'_> {
    fn step(&mut self) -> Option<std::result::Result<DirEntry, Errno>> {
        if let Some(errno) = self.failed.take() {
            return Some(Err(errno));
        }
        loop {
            let entry = match self.raw.next()? {
                Err(Errno::INTR) => continue,
                // The directory was removed while it was open: it is empty.
                Err(Errno::NOENT) => return None,
                Err(errno) => return Some(Err(errno)),
                Ok(entry) => entry,
            };
            let Some(name) = proper(entry.file_name()) else {
                continue;
            };
            if self.hides_staging && name == STAGING_DIR.as_bytes() {
                continue;
            }
            let name = OsStr::from_bytes(name).to_owned();
            return Some(Ok(DirEntry {
                name,
                kind: entry.file_type().into(),
                ino: entry.ino(),
            }));
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step()?;
        Some(step.map_err(|errno| AnchorError::os("list", errno, self.path)))
    }
}

/// `None` for `.` and `..`.
fn proper(name: &CStr) -> Option<&[u8]> {
    match name.to_bytes() {
        b"." | b".." => None,
        name => Some(name),
    }
}

fn timestamps(atime_ns: i128, mtime_ns: i128) -> Timestamps {
    Timestamps {
        last_access: timespec(atime_ns),
        last_modification: timespec(mtime_ns),
    }
}

fn timespec(ns: i128) -> rustix::fs::Timespec {
    const SECOND_NS: i128 = 1_000_000_000;
    let tv_sec = i64::try_from(ns.div_euclid(SECOND_NS)).unwrap_or(i64::MAX);
    // 0..SECOND_NS fits every integer.
    let tv_nsec = ns.rem_euclid(SECOND_NS) as rustix::fs::Nsecs;
    rustix::fs::Timespec { tv_sec, tv_nsec }
}
