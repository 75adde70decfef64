//! What the machine itself can do, measured in the same run: no server is faster than these.
//!
//! Each bound is a loop of a few hundred milliseconds with nothing in it but the calls that no
//! server can do without. The best of several is taken: a bound is what the machine can, not what
//! it did while something else ran.
//!
//! Laws
//! - Sender and receiver are on different cores, as server and client are in a run.
//! - What is written is random: a disk that compresses or finds zeroes must not flatter itself.
//! - Nothing stays behind in the directory.
//!
//! Source: ARCHITECTURE.md, "How bytes move".

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::process;

pub mod disk;
pub mod memory;

/// How long one loop goes on.
const LOOP: Duration = Duration::from_millis(300);
/// How many loops the best is taken of.
const LOOPS: usize = 3;
const GIB: f64 = (1_u64 << 30) as f64;

/// Rates of this machine; `None` where it could not be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// GiB/s: one core copies memory.
    pub memcpy: Option<f64>,
    /// GiB/s: one core splices a cached file into a loopback socket, another discards.
    pub loopback: Option<f64>,
    /// GiB/s: the disk reads sequentially, direct I/O, eight requests of 1 MiB in flight.
    pub disk_read: Option<f64>,
    /// GiB/s: the disk writes sequentially, direct I/O, eight requests of 1 MiB in flight into
    /// blocks that were laid out before, and a sync at the end.
    pub disk_write: Option<f64>,
    /// Seconds, median: 4 KiB are appended to a file and synced.
    #[serde(default)]
    pub sync_seconds: Option<f64>,
    /// Files/s: created, 4 KiB written, synced, renamed, 64 at the same time.
    #[serde(default)]
    pub small_files: Option<f64>,
    /// Files/s: the same, one after the other.
    #[serde(default)]
    pub small_files_alone: Option<f64>,
}

impl Bounds {
    /// These, and those of `other` that are not there; of both the better one: a bound is what the
    /// machine can.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let more = |one, two| either(one, two, f64::max);
        Self {
            memcpy: more(self.memcpy, other.memcpy),
            loopback: more(self.loopback, other.loopback),
            disk_read: more(self.disk_read, other.disk_read),
            disk_write: more(self.disk_write, other.disk_write),
            sync_seconds: either(self.sync_seconds, other.sync_seconds, f64::min),
            small_files: more(self.small_files, other.small_files),
            small_files_alone: more(self.small_files_alone, other.small_files_alone),
        }
    }
}

/// Measures all of them, in some five seconds; `dir` is where the files of a run lie, `sender` and
/// `receiver` are the cores of servers and clients.
#[must_use]
pub fn measure(dir: &Path, sender: &[usize], receiver: &[usize]) -> Bounds {
    let one = &sender[..sender.len().min(1)];
    let disk: Vec<(f64, f64)> = (0..LOOPS)
        .filter_map(|_| disk::sequential(dir).ok())
        .collect();
    Bounds {
        memcpy: best(|| memory::copy(one)),
        loopback: best(|| memory::loopback(dir, one, receiver)),
        disk_write: disk.iter().map(|(write, _)| *write).max_by(f64::total_cmp),
        disk_read: disk.iter().map(|(_, read)| *read).max_by(f64::total_cmp),
        sync_seconds: disk::sync(dir).ok(),
        small_files: best(|| disk::small_files(dir, 64)),
        small_files_alone: best(|| disk::small_files(dir, 1)),
    }
}

fn either(one: Option<f64>, two: Option<f64>, choose: fn(f64, f64) -> f64) -> Option<f64> {
    match (one, two) {
        (Some(one), Some(two)) => Some(choose(one, two)),
        (one, two) => one.or(two),
    }
}

fn best(measure: impl Fn() -> io::Result<f64>) -> Option<f64> {
    let rates = (0..LOOPS).filter_map(|_| measure().ok());
    rates.max_by(f64::total_cmp)
}

/// Runs `turn` until the time is over; returns units per second, where `turn` says how many units
/// it did.
fn rate(mut turn: impl FnMut() -> io::Result<u64>) -> io::Result<f64> {
    let started = Instant::now();
    let mut units = 0;
    while started.elapsed() < LOOP {
        units += turn()?;
    }
    Ok(units as f64 / started.elapsed().as_secs_f64())
}

/// Runs `work` on a thread of its own that is kept on these cores.
fn on<T: Send>(cores: &[usize], work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            process::pin(cores)?;
            work()
        });
        pinned
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a measuring thread panicked")))
    })
}

/// Bytes that do not compress; the same for the same length. For what goes to a disk.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_a_rate_and_nothing_stays_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let cores = process::cores();
        let (first, last) = (&cores[..1], &cores[cores.len() - 1..]);
        let bounds = measure(dir.path(), first, last);
        for (name, rate) in [
            ("memcpy", bounds.memcpy),
            ("loopback", bounds.loopback),
            ("sync", bounds.sync_seconds),
            ("small files", bounds.small_files),
            ("small files alone", bounds.small_files_alone),
        ] {
            assert!(rate.is_some_and(|rate| 0.0 < rate), "{name}: {rate:?}");
        }
        // A file system may refuse direct I/O: then these two are unknown, both.
        assert_eq!(bounds.disk_read.is_some(), bounds.disk_write.is_some());
        assert_eq!(
            std::fs::read_dir(dir.path()).expect("it is there").count(),
            0
        );
    }

    #[test]
    fn noise_does_not_repeat() {
        let bytes = noise(4096);
        let mut words: Vec<&[u8]> = bytes.chunks(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 512);
    }
}
