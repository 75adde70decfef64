//! Checksums of files that earlier archives left, so that a download that goes on behind a file
//! need not read it again.
//!
//! Laws
//! - A checksum belongs to one version of one file: device, inode, size, and both times to the
//!   nanosecond. Whatever else stands there has another key.
//! - A file that changed a moment ago is not remembered: within one step of its file system's
//!   clock it could change again and keep its times.
//! - Memory is bounded: two generations of maps, the older is dropped when the younger is full.
//!   What is used moves to the younger.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use proxy_anchor::walk::{Entry, Time};

use crate::metrics::ArchiveGauges;

/// Seconds after which a file counts as settled: two is the coarsest clock of a file system in
/// use, and hosts may differ by a little.
const SETTLED_S: i64 = 3;

/// One version of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: Time,
    ctime: Time,
}

impl Key {
    const fn of(entry: &Entry) -> Self {
        Self {
            dev: entry.dev,
            ino: entry.ino,
            size: entry.size,
            mtime: entry.mtime,
            ctime: entry.ctime,
        }
    }
}

#[derive(Debug, Default)]
struct Generations {
    younger: HashMap<Key, u32>,
    older: HashMap<Key, u32>,
}

/// See the module. Shared by all threads.
#[derive(Debug)]
pub(crate) struct Sums {
    /// Of one generation.
    entries_max: usize,
    gauges: Arc<ArchiveGauges>,
    known: Mutex<Generations>,
}

impl Sums {
    /// Remembers up to `entries_max` checksums.
    pub(crate) fn new(entries_max: usize, gauges: Arc<ArchiveGauges>) -> Self {
        Self {
            entries_max: entries_max.div_ceil(2),
            gauges,
            known: Mutex::default(),
        }
    }

    /// The checksum of the file's data, if it is known.
    pub(crate) fn find(&self, entry: &Entry) -> Option<u32> {
        let key = Key::of(entry);
        let mut known = self.known.lock();
        let sum = match known.younger.get(&key) {
            Some(sum) => *sum,
            None => {
                let sum = known.older.remove(&key)?;
                self.add(&mut known, key, sum);
                sum
            }
        };
        drop(known);
        self.gauges.sums_found.add(1);
        Some(sum)
    }

    /// Remembers the checksum of a file that was just seen to be what was listed.
    pub(crate) fn keep(&self, entry: &Entry, sum: u32) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        if self.entries_max == 0 || now_s < entry.ctime.s.saturating_add(SETTLED_S) {
            return;
        }
        let key = Key::of(entry);
        let mut known = self.known.lock();
        known.older.remove(&key);
        self.add(&mut known, key, sum);
    }

    fn add(&self, known: &mut Generations, key: Key, sum: u32) {
        if self.entries_max <= known.younger.len() {
            known.older = std::mem::take(&mut known.younger);
        }
        known.younger.insert(key, sum);
        let count = known.younger.len() + known.older.len();
        self.gauges.sums_kept.set(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use proxy_anchor::walk::EntryKind;

    use super::*;

    fn entry(ino: u64, ctime_s: i64) -> Entry {
        Entry {
            path: b"a".to_vec(),
            kind: EntryKind::File,
            size: 1,
            mtime: Time { s: ctime_s, ns: 1 },
            ctime: Time { s: ctime_s, ns: 2 },
            mode: 0o644,
            ino,
            dev: 1,
        }
    }

    #[test]
    fn a_checksum_is_found_for_the_same_version_alone() {
        let sums = Sums::new(10, Arc::default());
        let kept = entry(1, 1_000);
        sums.keep(&kept, 7);
        assert_eq!(sums.find(&kept), Some(7));
        let later = |ns| Time { s: 1_000, ns };
        let others = [
            Entry {
                ino: 2,
                ..kept.clone()
            },
            Entry {
                dev: 2,
                ..kept.clone()
            },
            Entry {
                size: 2,
                ..kept.clone()
            },
            Entry {
                mtime: later(9),
                ..kept.clone()
            },
            Entry {
                ctime: later(9),
                ..kept.clone()
            },
        ];
        for other in others {
            assert_eq!(sums.find(&other), None, "{other:?}");
        }
    }

    #[test]
    fn what_changed_a_moment_ago_is_not_kept() {
        let sums = Sums::new(10, Arc::default());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let fresh = entry(1, now.as_secs() as i64);
        sums.keep(&fresh, 7);
        assert_eq!(sums.find(&fresh), None);
    }

    #[test]
    fn the_number_kept_is_bounded_and_what_is_used_stays() {
        let gauges = Arc::<ArchiveGauges>::default();
        let sums = Sums::new(100, Arc::clone(&gauges));
        for ino in 0..1_000 {
            sums.keep(&entry(ino, 1_000), ino as u32);
            assert_eq!(sums.find(&entry(0, 1_000)), Some(0), "after {ino}");
            assert!(gauges.sums_kept.value() <= 100);
        }
        assert_eq!(sums.find(&entry(500, 1_000)), None);
        assert_eq!(sums.find(&entry(999, 1_000)), Some(999));
    }
}
