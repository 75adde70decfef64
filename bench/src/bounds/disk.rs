//! The file system that a run works on: sequential direct I/O, syncs, small files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::{GIB, LOOP, noise};

/// Size of the file that is written and read.
const FILE: u64 = 512 << 20;
const BLOCK: usize = 1 << 20;
/// Requests in flight, each on a thread of its own.
const DEPTH: u64 = 8;
/// What direct I/O wants of addresses: no disk of today asks for more.
const ALIGN: usize = 4096;
const SMALL: usize = 4096;

/// Sequential direct writes into blocks laid out before, and a sync; then reads of the same.
/// GiB/s each.
///
/// # Errors
/// No direct I/O there, or no room for half a GiB.
pub fn sequential(dir: &Path) -> io::Result<(f64, f64)> {
    let scratch = tempfile::tempdir_in(dir)?;
    let file = direct(&scratch.path().join("file"))?;
    lay_out(&file)?;
    let started = Instant::now();
    transfer(|block, at| file.write_all_at(block, at))?;
    file.sync_data()?;
    let written = started.elapsed();
    let started = Instant::now();
    transfer(|block, at| file.read_exact_at(block, at))?;
    let gib = FILE as f64 / GIB;
    Ok((
        gib / written.as_secs_f64(),
        gib / started.elapsed().as_secs_f64(),
    ))
}

fn direct(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.custom_flags(flags).open(path)
}

/// Where the file system cannot, the blocks are found while writing.
fn lay_out(file: &File) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, FILE) {
        Err(rustix::io::Errno::OPNOTSUPP) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Calls `one` for each block of the file, from [`DEPTH`] threads that take them in order.
fn transfer(one: impl Fn(&mut [u8], u64) -> io::Result<()> + Sync) -> io::Result<()> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut memory = noise(BLOCK + ALIGN);
        // Where the allocator put it decides how far the next boundary is.
        let skip = memory.as_ptr().align_offset(ALIGN);
        let block = &mut memory[skip..skip + BLOCK];
        loop {
            let at = next.fetch_add(BLOCK as u64, Ordering::Relaxed);
            if FILE <= at {
                return Ok(());
            }
            one(block, at)?;
        }
    };
    all(DEPTH, work)
}

/// Runs `work` on so many threads; the first error counts.
fn all(threads: u64, work: impl Fn() -> io::Result<()> + Sync) -> io::Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let ended = running.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a measuring thread panicked")))
        });
        ended.fold(Ok(()), Result::and)
    })
}

/// Appends 4 KiB and syncs, again and again: the median of the syncs, in seconds.
///
/// # Errors
/// As the file system says.
pub fn sync(dir: &Path) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(dir)?;
    let bytes = noise(SMALL);
    let started = Instant::now();
    let mut taken = Vec::new();
    while started.elapsed() < LOOP || taken.is_empty() {
        file.write_all(&bytes)?;
        let before = Instant::now();
        file.sync_data()?;
        taken.push(before.elapsed().as_secs_f64());
    }
    taken.sort_by(f64::total_cmp);
    Ok(taken[taken.len() / 2])
}

/// Creates files as a careful server does: under another name, 4 KiB, synced, renamed into place.
/// Files/s with `threads` at the same time.
///
/// # Errors
/// As the file system says.
pub fn small_files(dir: &Path, threads: u64) -> io::Result<f64> {
    let scratch = tempfile::tempdir_in(dir)?;
    let bytes = noise(SMALL);
    let made = AtomicU64::new(0);
    let started = Instant::now();
    let work = || {
        while started.elapsed() < LOOP {
            let number = made.fetch_add(1, Ordering::Relaxed);
            let path = scratch.path().join(format!("{number}.part"));
            let mut file = File::create_new(&path)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&path, path.with_extension("done"))?;
        }
        Ok(())
    };
    all(threads, work)?;
    Ok(made.into_inner() as f64 / started.elapsed().as_secs_f64())
}
