//! The reins of a long operation: cancel it, and see how far it is, from another thread.
//!
//! Laws
//! - Counters only grow, and totals are set once, before the counted work begins.
//! - A cancelled operation stops at the next directory entry or the next piece of a file.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::VolumeError;

/// Shared between the threads of one operation and whoever watches it.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    halted: AtomicBool,
    entries_done: AtomicU64,
    bytes_done: AtomicU64,
    entries_total: AtomicU64,
    bytes_total: AtomicU64,
}

/// How far an operation is. Totals are 0 as long as they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries finished: files, links, directories.
    pub entries_done: u64,
    /// Bytes of file content copied.
    pub bytes_done: u64,
    /// Entries that there are in all.
    pub entries_total: u64,
    /// Bytes that there are to copy in all.
    pub bytes_total: u64,
}

impl Control {
    /// Asks the operation to stop. It answers [`VolumeError::Cancelled`] as soon as it notices.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// As [`Self::cancel`], and leaves what is half done to the next run: the process ends.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::Relaxed);
        self.cancel();
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    /// How far it is now. `done` never exceeds a known total.
    pub fn progress(&self) -> Progress {
        let entries_total = self.entries_total.load(Ordering::Relaxed);
        let bytes_total = self.bytes_total.load(Ordering::Relaxed);
        let cap = |done: u64, total: u64| if total == 0 { done } else { done.min(total) };
        Progress {
            entries_done: cap(self.entries_done.load(Ordering::Relaxed), entries_total),
            bytes_done: cap(self.bytes_done.load(Ordering::Relaxed), bytes_total),
            entries_total,
            bytes_total,
        }
    }

    pub(crate) fn check(&self) -> Result<(), VolumeError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(VolumeError::Cancelled);
        }
        Ok(())
    }

    /// Sets the totals: so many more than are done already.
    pub(crate) fn announce(&self, entries: u64, bytes: u64) {
        let entries = entries.saturating_add(self.entries_done.load(Ordering::Relaxed));
        let bytes = bytes.saturating_add(self.bytes_done.load(Ordering::Relaxed));
        self.entries_total.store(entries, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_entries(&self, entries: u64) {
        self.entries_done.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_never_exceeds_a_known_total() {
        let control = Control::default();
        control.add_entries(7);
        assert_eq!(control.progress().entries_done, 7);
        control.announce(5, 10);
        control.add_bytes(11);
        control.add_entries(4);
        let progress = control.progress();
        assert_eq!((progress.entries_done, progress.entries_total), (11, 12));
        assert_eq!((progress.bytes_done, progress.bytes_total), (10, 10));
        assert!(control.check().is_ok());
        control.cancel();
        assert!(matches!(control.check(), Err(VolumeError::Cancelled)));
    }
}
