//! What a file says about itself, and an open file with it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;

use crate::sys;

/// Facts about one file, from one `statx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Bytes; for a link, the length of its target.
    pub size: u64,
    /// Inode number.
    pub ino: u64,
    /// Device number. Not stable over a remount on network file systems.
    pub dev: u64,
    /// Hard links.
    pub nlink: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Last change of the inode, nanoseconds since 1970.
    pub ctime_ns: i128,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Stat {
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    /// True for a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind() == FileType::Symlink
    }

    /// Facts about an open file, as of now. May wait for a server.
    ///
    /// # Errors
    /// As statx(2) says.
    pub fn of_open(file: impl AsFd) -> std::io::Result<Self> {
        Ok(Self::of(file)?)
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(crate) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        Self::at(fd, b"", AtFlags::EMPTY_PATH)
    }

    /// Of the entry itself: a link is not followed.
    pub(crate) fn of_entry(dir: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        Self::at(dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn at(dir: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Self, Errno> {
        let dir = dir.as_fd();
        sys::retry(|| rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)).map(Self::from)
    }
}

impl From<Statx> for Stat {
    fn from(raw: Statx) -> Self {
        let ns = |at: rustix::fs::StatxTimestamp| {
            i128::from(at.tv_sec) * 1_000_000_000 + i128::from(at.tv_nsec)
        };
        Self {
            mode: u32::from(raw.stx_mode),
            size: raw.stx_size,
            ino: raw.stx_ino,
            dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
            nlink: u64::from(raw.stx_nlink),
            blocks: raw.stx_blocks,
            mtime_ns: ns(raw.stx_mtime),
            ctime_ns: ns(raw.stx_ctime),
            uid: raw.stx_uid,
            gid: raw.stx_gid,
        }
    }
}

/// An open file and its facts, taken from the descriptor itself.
///
/// A regular file or a directory is open for reading and blocks like any other. Anything else
/// (FIFO, socket, device) is open in a way that cannot block, and good for nothing but
/// looking at `stat`.
#[derive(Debug)]
pub struct Opened {
    /// Close-on-exec.
    pub fd: OwnedFd,
    /// As of the moment of opening.
    pub stat: Stat,
}
