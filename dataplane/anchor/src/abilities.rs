//! What the file system of a volume can do, found out by trying it on a nameless file.
//!
//! Law: nothing is left behind. The file has no name from the start (O_TMPFILE), or loses it at
//! once where the file system wants one.
//!
//! Source: open(2), fallocate(2), ioctl_ficlonerange(2), splice(2), preadv2(2).

use std::os::fd::{AsFd, OwnedFd};

use proxy_core::id::SessionId;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::sys;

/// Bytes of one trial: a page and a block of every file system that we know.
const TRIAL_BYTES: usize = 4096;

/// What one file system can do. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Writes past the page cache, in whole blocks (O_DIRECT).
    pub direct_io: bool,
    /// Copies that share blocks (FICLONE).
    pub reflink: bool,
    /// Blocks can be laid out ahead (fallocate).
    pub reserve: bool,
    /// Pages of a file can be passed on without a copy (splice).
    pub splice: bool,
    /// Reads can be told not to wait for the disk (RWF_NOWAIT).
    pub nowait: bool,
}

impl Abilities {
    /// Each with its name, in a fixed order.
    pub fn named(&self) -> [(&'static str, bool); 5] {
        [
            ("direct-io", self.direct_io),
            ("reflink", self.reflink),
            ("reserve", self.reserve),
            ("splice", self.splice),
            ("nowait", self.nowait),
        ]
    }

    /// Tries each on a file in `dir`. Waits for the disk.
    ///
    /// # Errors
    /// No file can be made there (read-only, full).
    pub(crate) fn probe(dir: impl AsFd) -> Result<Self, Errno> {
        let dir = sys::reopen_dir(dir, sys::DIR_READ)?;
        let file = nameless(&dir)?;
        sys::retry(|| rustix::io::pwrite(&file, &[1; TRIAL_BYTES], 0))?;
        let copy = nameless(&dir)?;
        let fallocate = FallocateFlags::empty();
        Ok(Self {
            direct_io: writes_directly(&file),
            reflink: rustix::fs::ioctl_ficlone(&copy, &file).is_ok(),
            reserve: rustix::fs::fallocate(&file, fallocate, 0, 4 * TRIAL_BYTES as u64).is_ok(),
            splice: splices(&file).is_ok_and(|count| count == TRIAL_BYTES),
            nowait: reads_without_waiting(&file),
        })
    }
}

fn nameless(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let made = sys::retry(|| rustix::fs::openat(dir, c".", flags | OFlags::TMPFILE, mode));
    if made.is_ok() {
        return made;
    }
    // NFS and CephFS want a name. A random one: two proxies may start at a time.
    let name = format!(".probe-{}", SessionId::random());
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let made = sys::retry(|| rustix::fs::openat(dir, name.as_str(), flags, mode))?;
    sys::unlink(dir, name.as_bytes())?;
    Ok(made)
}

/// Some file systems take the flag and refuse the write, so a block is written.
fn writes_directly(file: &OwnedFd) -> bool {
    let room = vec![1; 2 * TRIAL_BYTES];
    let start = room.as_ptr().align_offset(TRIAL_BYTES);
    let Some(block) = room.get(start..start + TRIAL_BYTES) else {
        return false;
    };
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else {
        return false;
    };
    let written = rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT)
        .and_then(|()| sys::retry(|| rustix::io::pwrite(file, block, 0)));
    // An open file never refuses to lose the flag.
    let _ = rustix::fs::fcntl_setfl(file, flags);
    written == Ok(TRIAL_BYTES)
}

fn splices(file: &OwnedFd) -> Result<usize, Errno> {
    let (_reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let mut at = 0;
    let flags = SpliceFlags::empty();
    rustix::pipe::splice(file, Some(&mut at), &writer, None, TRIAL_BYTES, flags)
}

/// EAGAIN is an answer of one who knows the flag.
fn reads_without_waiting(file: &OwnedFd) -> bool {
    let mut byte = [0_u8; 1];
    let mut slices = [std::io::IoSliceMut::new(&mut byte)];
    let read = rustix::io::preadv2(file, &mut slices, 0, ReadWriteFlags::NOWAIT);
    matches!(read, Ok(_) | Err(Errno::AGAIN))
}
