//! A disk that fails when a test says so, and that keeps account of what was done to it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Which operations fail, until told otherwise.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Faults {
    /// Writing and growing: no space.
    pub(in crate::embedded) full: AtomicBool,
    /// Syncing: input/output error.
    pub(in crate::embedded) unsyncable: AtomicBool,
    /// Reading: input/output error.
    pub(in crate::embedded) unreadable: AtomicBool,
    /// Everything done since a test began to look.
    pub(in crate::embedded) journal: Mutex<Option<Vec<Op>>>,
}

/// One thing that was done to the file.
#[derive(Clone, Debug)]
pub(in crate::embedded) enum Op {
    Write { at: u64, data: Vec<u8> },
    SetLen(u64),
    Sync,
}

impl Faults {
    pub(in crate::embedded) fn before_write(&self) -> io::Result<()> {
        Self::fail_if(&self.full, io::ErrorKind::StorageFull)
    }

    pub(in crate::embedded) fn before_sync(&self) -> io::Result<()> {
        Self::fail_if(&self.unsyncable, io::ErrorKind::Other)
    }

    pub(in crate::embedded) fn before_read(&self) -> io::Result<()> {
        Self::fail_if(&self.unreadable, io::ErrorKind::Other)
    }

    /// Notes what was done.
    pub(in crate::embedded) fn note(&self, op: impl FnOnce() -> Op) {
        if let Some(journal) = self.journal.lock().as_mut() {
            journal.push(op());
        }
    }

    fn fail_if(ordered: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
        match ordered.load(Ordering::SeqCst) {
            true => Err(io::Error::from(kind)),
            false => Ok(()),
        }
    }
}
