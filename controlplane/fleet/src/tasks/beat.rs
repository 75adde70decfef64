//! When Redis last heard of this data directory: tells our own heartbeats from those of others
//! after a crash.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the note in the data directory.
const NOTE: &str = "tasks.beat";

/// The note. Not synced: a process that dies leaves it in the page cache, and after a loss of
/// power it only costs patience.
pub(super) struct Beat {
    file: File,
    at_ms: AtomicU64,
}

impl Beat {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(data_dir.join(NOTE))?;
        let mut text = [0; 20];
        let len = file.read_at(&mut text, 0)?;
        let text = std::str::from_utf8(&text[..len]).unwrap_or_default();
        let at_ms = text.trim().parse().unwrap_or(0);
        let at_ms = AtomicU64::new(at_ms);
        Ok(Self { file, at_ms })
    }

    /// When Redis heard of us last, in milliseconds since 1970; 0: never.
    pub(super) fn at_ms(&self) -> u64 {
        self.at_ms.load(Ordering::Relaxed)
    }

    /// Redis heard of us at `now_ms`.
    pub(super) fn note(&self, now_ms: u64) {
        self.at_ms.store(now_ms, Ordering::Relaxed);
        // Always 20 digits: the note is overwritten as a whole.
        if let Err(error) = self
            .file
            .write_all_at(format!("{now_ms:020}").as_bytes(), 0)
        {
            tracing::debug!(%error, "the note of the last heartbeat was not written");
        }
    }
}
