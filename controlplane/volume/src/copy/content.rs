//! The content of one file into another, by the cheapest way that both file systems allow.
//!
//! Laws
//! - Order of ways: share the extents (FICLONE), let the kernel or the server copy what is not
//!   small (`copy_file_range`), read and write. A refusal leads to the next way, a full disk does
//!   not.
//! - What is a hole in the source is a hole in the copy.
//! - A way that a file system does not know is asked for once per tree, not once per file.
//!
//! Source: ioctl_ficlone(2), copy_file_range(2), lseek(2); NFS 3 knows none of the first two.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use proxy_anchor::Dir;
use proxy_core::units::{KIB, MIB};
use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

use crate::control::Control;
use crate::error::VolumeError;

/// Bytes per `copy_file_range`: between two of them progress moves and a cancel is noticed.
const PIECE_BYTES: u64 = 16 * MIB;
/// Bytes per read and write, the size that `cp` found to be past the knee of the curve.
const BUFFER_BYTES: usize = 256 * KIB as usize;
/// Up to here reading and writing takes less time than asking the kernel to copy, by pipes.
const SMALL_BYTES: u64 = 64 * KIB;
/// Unit of `st_blocks`, whatever the file system's block size.
const STAT_BLOCK_BYTES: u64 = 512;

/// Names for trying things out, in a directory that nobody sees.
const PROBES: [&str; 2] = [".probe-from", ".probe-to"];

/// Which ways a pair of file systems has refused. One per tree.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    no_clone: AtomicBool,
    no_range: AtomicBool,
}

impl Ways {
    /// Removes what a crash may have left of [`Self::shares_extents`].
    pub(crate) fn forget_probe(dir: &Dir) {
        for name in PROBES {
            let _ = dir.unlink(OsStr::new(name));
        }
    }

    /// Whether files in `dir` can share their extents, so that a copy of them needs no space.
    pub(crate) fn shares_extents(&self, dir: &Dir) -> bool {
        let [from, to] = PROBES.map(OsStr::new);
        let shared = || -> Result<bool, VolumeError> {
            let source = dir.create_file(from, 0o600)?;
            let pair = Pair {
                from: source.as_fd(),
                to: source.as_fd(),
                size: 0,
                blocks: 0,
            };
            write_all(pair, &[1; 4096], 0)?;
            let copy = dir.create_file(to, 0o600)?;
            share_extents(
                Pair {
                    to: copy.as_fd(),
                    size: 4096,
                    ..pair
                },
                self,
            )
        };
        let shared = shared().unwrap_or(false);
        let _ = dir.unlink(from);
        let _ = dir.unlink(to);
        shared
    }
}

/// Source and destination of one copy; both are regular files open in the needed direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) from: BorrowedFd<'a>,
    /// Empty; it gets exactly `size` bytes.
    pub(crate) to: BorrowedFd<'a>,
    pub(crate) size: u64,
    /// Allocated blocks of the source, in units of 512 bytes.
    pub(crate) blocks: u64,
}

/// Copies what the source holds now; `size` bytes unless the source shrinks meanwhile.
///
/// # Errors
/// The first refusal that no other way can mend, without a path: the caller knows it.
pub(crate) fn copy(pair: Pair<'_>, ways: &Ways, control: &Control) -> Result<(), VolumeError> {
    control.check()?;
    if pair.size == 0 {
        return Ok(());
    }
    if share_extents(pair, ways)? {
        control.add_bytes(pair.size);
        return Ok(());
    }
    let sparse = pair.blocks.saturating_mul(STAT_BLOCK_BYTES) < pair.size;
    let mut at = 0;
    // How far the copy reaches by itself.
    let mut written = 0;
    while at < pair.size {
        let (start, end) = if sparse {
            next_data(pair, at)?
        } else {
            (at, pair.size)
        };
        control.add_bytes(start - at);
        if start < end {
            if !copy_span(pair, start, end, ways, control)? {
                break;
            }
            written = end;
        }
        at = end;
    }
    if written == pair.size {
        return Ok(());
    }
    ftruncate(pair.to, pair.size).map_err(|errno| VolumeError::os("set file size", errno))
}

/// Whether the source's extents are now shared.
fn share_extents(pair: Pair<'_>, ways: &Ways) -> Result<bool, VolumeError> {
    if ways.no_clone.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let Err(errno) = ioctl_ficlone(pair.to, pair.from) else {
        return Ok(true);
    };
    if is_final(errno) {
        return Err(VolumeError::os("clone file", errno));
    }
    if is_unknown(errno) {
        ways.no_clone.store(true, Ordering::Relaxed);
    }
    Ok(false)
}

/// The next piece of data at or after `at`; an empty one at the end when only a hole follows.
fn next_data(pair: Pair<'_>, at: u64) -> Result<(u64, u64), VolumeError> {
    let start = match seek(pair.from, SeekFrom::Data(at)) {
        Ok(start) => start.min(pair.size),
        Err(Errno::NXIO) => return Ok((pair.size, pair.size)),
        // The file system does not tell holes from data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, pair.size)),
        Err(errno) => return Err(VolumeError::os("find data", errno)),
    };
    match seek(pair.from, SeekFrom::Hole(start)) {
        Ok(end) if start < end => Ok((start, end.min(pair.size))),
        Ok(_) | Err(Errno::NXIO) => Ok((start, pair.size)),
        Err(errno) => Err(VolumeError::os("find hole", errno)),
    }
}

/// Copies one span; `false` when the source ended before it did.
fn copy_span(
    pair: Pair<'_>,
    start: u64,
    end: u64,
    ways: &Ways,
    control: &Control,
) -> Result<bool, VolumeError> {
    if end - start <= SMALL_BYTES {
        return read_and_write(pair, start, end, control);
    }
    let mut at = start;
    while at < end && !ways.no_range.load(Ordering::Relaxed) {
        control.check()?;
        let (mut from_at, mut to_at) = (at, at);
        let piece = usize::try_from((end - at).min(PIECE_BYTES)).unwrap_or(usize::MAX);
        let copied = copy_file_range(
            pair.from,
            Some(&mut from_at),
            pair.to,
            Some(&mut to_at),
            piece,
        );
        match copied {
            // Some file systems answer 0 for files they do have content of: reading finds out.
            Ok(0) => break,
            Ok(bytes) => {
                at += bytes as u64;
                control.add_bytes(bytes as u64);
            }
            Err(errno) if is_final(errno) => return Err(VolumeError::os("copy file", errno)),
            Err(errno) => {
                if is_unknown(errno) {
                    ways.no_range.store(true, Ordering::Relaxed);
                }
                break;
            }
        }
    }
    read_and_write(pair, at, end, control)
}

thread_local! {
    /// What lies between reading and writing; made by the first file that needs it.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn read_and_write(
    pair: Pair<'_>,
    start: u64,
    end: u64,
    control: &Control,
) -> Result<bool, VolumeError> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, 0);
        let mut at = start;
        while at < end {
            control.check()?;
            let want = usize::try_from(end - at).unwrap_or(usize::MAX);
            let want = want.min(buffer.len());
            let got = pread(pair.from, &mut buffer[..want], at)
                .map_err(|errno| VolumeError::os("read file", errno))?;
            if got == 0 {
                return Ok(false);
            }
            write_all(pair, &buffer[..got], at)?;
            at += got as u64;
            control.add_bytes(got as u64);
        }
        Ok(true)
    })
}

fn write_all(pair: Pair<'_>, bytes: &[u8], at: u64) -> Result<(), VolumeError> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(pair.to, &bytes[done..], at + done as u64) {
            Ok(0) => return Err(VolumeError::os("write file", Errno::IO)),
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(VolumeError::os("write file", errno)),
        }
    }
    Ok(())
}

/// No other way of copying would fare better.
fn is_final(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::FBIG | Errno::STALE
    )
}

/// The file systems will say the same for every other file.
fn is_unknown(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::XDEV
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    /// Copies a file of `size` bytes with data at `spans`, by all ways that are not refused.
    #[track_caller]
    fn check(size: u64, spans: &[(u64, usize)]) {
        for (clone, range) in [(false, false), (true, false), (true, true)] {
            let home = tempfile::tempdir().unwrap();
            let how = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .clone();
            let from = how.open(home.path().join("from")).unwrap();
            from.set_len(size).unwrap();
            for (at, length) in spans {
                let data: Vec<u8> = (0..*length).map(|byte| byte as u8 | 1).collect();
                from.write_all_at(&data, *at).unwrap();
            }
            let to = File::create_new(home.path().join("to")).unwrap();
            let ways = Ways {
                no_clone: AtomicBool::new(clone),
                no_range: AtomicBool::new(range),
            };
            let meta = from.metadata().unwrap();
            let pair = Pair {
                from: from.as_fd(),
                to: to.as_fd(),
                size,
                blocks: meta.blocks(),
            };
            let control = Control::default();
            copy(pair, &ways, &control).unwrap();
            let read = |name| std::fs::read(home.path().join(name)).unwrap();
            assert!(
                read("from") == read("to"),
                "{size} {spans:?} {clone} {range}"
            );
            assert_eq!(
                control.progress().bytes_done,
                size,
                "{spans:?} {clone} {range}"
            );
            // Closed first: XFS holds space behind a file for as long as it is open.
            drop(to);
            let blocks = home.path().join("to").metadata().unwrap().blocks();
            assert!(
                blocks <= meta.blocks() + 1024,
                "{blocks} of {} blocks",
                meta.blocks()
            );
        }
    }

    #[test]
    fn content_and_holes_are_copied_by_every_way() {
        const MI: u64 = MIB;
        check(0, &[]);
        check(1, &[(0, 1)]);
        check(300_000, &[(0, 300_000)]);
        check(40 * MI, &[]);
        check(40 * MI, &[(0, 5)]);
        check(40 * MI, &[(40 * MI - 5, 5)]);
        check(40 * MI, &[(8 * MI, 700_000), (20 * MI + 13, 100_000)]);
        check(20 * MI, &[(0, 20 << 20)]);
    }

    #[test]
    fn a_source_that_shrank_ends_early_and_keeps_its_size() {
        for range in [false, true] {
            let home = tempfile::tempdir().unwrap();
            std::fs::write(home.path().join("from"), vec![7; 10_000]).unwrap();
            let from = File::open(home.path().join("from")).unwrap();
            let to = File::create_new(home.path().join("to")).unwrap();
            let ways = Ways {
                no_clone: AtomicBool::new(true),
                no_range: AtomicBool::new(range),
            };
            let pair = Pair {
                from: from.as_fd(),
                to: to.as_fd(),
                size: 20_000,
                blocks: 99,
            };
            copy(pair, &ways, &Control::default()).unwrap();
            assert_eq!(to.metadata().unwrap().len(), 20_000);
        }
    }

    #[test]
    fn a_cancelled_copy_stops() {
        let home = tempfile::tempdir().unwrap();
        let file = File::create_new(home.path().join("f")).unwrap();
        let control = Control::default();
        control.cancel();
        let pair = Pair {
            from: file.as_fd(),
            to: file.as_fd(),
            size: 5,
            blocks: 1,
        };
        assert_eq!(
            copy(pair, &Ways::default(), &control),
            Err(VolumeError::Cancelled)
        );
    }
}
