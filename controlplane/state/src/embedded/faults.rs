//! A disk that fails when a test says so.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which operations fail, until told otherwise.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Faults {
    /// Writing and growing: no space.
    pub(in crate::embedded) full: AtomicBool,
    /// Syncing: input/output error.
    pub(in crate::embedded) unsyncable: AtomicBool,
    /// Reading: input/output error.
    pub(in crate::embedded) unreadable: AtomicBool,
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

    fn fail_if(ordered: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
        match ordered.load(Ordering::SeqCst) {
            true => Err(io::Error::from(kind)),
            false => Ok(()),
        }
    }
}
