//! The state file: made whole or not at all, locked, checked, and mended after a failed sync.
//!
//! Laws
//! - A new file appears under its name complete and synced, with mode 0600; its directory is
//!   synced too. A crash while it is made leaves nothing that the next start stumbles over.
//! - Every page is verified when the file is opened. What does not verify is an error that names
//!   the file, never a reason to begin anew.
//! - After a failed sync the pages in memory may look clean without being on disk. They are
//!   written again and synced before the file is trusted.
//!
//! Source: redb 4 (`StorageBackend`, "close and re-open the database"); fsync(2), on errors.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, DatabaseError, ReadableDatabase, StorageBackend};

use super::tables;
use crate::error::OpenError;

/// Nobody but the owner: the file names folders and files of users.
const MODE: u32 = 0o600;
/// Step in which [`StateFile::write_again`] goes through the file.
const REWRITE_BYTES: usize = 1 << 20;

/// Where the state lives, and what is known about the disk below it.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    cache_bytes: usize,
    fate: Arc<Fate>,
}

/// What happened to the file since it was opened.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// A sync failed: see the last law of the module.
    sync_failed: AtomicBool,
    /// Failures that a test orders.
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

impl StateFile {
    /// Names the file; does not touch it.
    pub(super) fn new(path: &Path, cache_bytes: usize) -> Self {
        Self {
            path: path.to_owned(),
            cache_bytes,
            fate: Arc::default(),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, making it if there is none.
    pub(super) fn open_or_create(&self) -> Result<Database, OpenError> {
        let exists = self
            .path
            .try_exists()
            .map_err(self.io("look for state file"))?;
        if !exists {
            self.create()?;
        }
        self.open()
    }

    /// Opens the file again after a failure, mending it first where that is needed.
    pub(super) fn reopen(&self) -> Result<Database, OpenError> {
        if self.fate.sync_failed.load(Ordering::Acquire) {
            self.write_again()
                .map_err(self.io("write state file again"))?;
            self.fate.sync_failed.store(false, Ordering::Release);
        }
        self.open()
    }

    /// Opens, locks and verifies the file.
    fn open(&self) -> Result<Database, OpenError> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = file.map_err(self.io("open state file"))?;
        let found = file.metadata().map_err(self.io("open state file"))?;
        if !found.is_file() {
            return Err(self.damaged("not a regular file"));
        }
        if found.len() == 0 {
            return Err(self.damaged("the file is empty"));
        }
        if found.mode() & 0o777 & !MODE != 0 {
            tracing::warn!(path = %self.path.display(), "state file was open to others: mode 0600");
            let tighten = file.set_permissions(Permissions::from_mode(MODE));
            tighten.map_err(self.io("set mode of state file"))?;
        }
        let inode = (found.dev(), found.ino());
        let database = self
            .engine(file)
            .map_err(|error| self.open_error(error, inode))?;
        self.check_format(&database)?;
        Ok(database)
    }

    /// The database over an open file.
    fn engine(&self, file: File) -> Result<Database, DatabaseError> {
        let medium = Medium {
            file: FileBackend::new(file)?,
            fate: Arc::clone(&self.fate),
        };
        let mut builder = Builder::new();
        builder
            .set_cache_size(self.cache_bytes)
            .set_check_integrity_on_open(true);
        // The engine may panic on a file that it did not write like that.
        catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(medium))).unwrap_or_else(
            |_| {
                let text = "the check of the file panicked".to_owned();
                Err(DatabaseError::Storage(redb::StorageError::Corrupted(text)))
            },
        )
    }

    fn check_format(&self, database: &Database) -> Result<(), OpenError> {
        let read = || -> Result<_, redb::Error> { tables::format(&database.begin_read()?) };
        match read().map_err(|error| self.damaged(&error.to_string()))? {
            Some(found) if found <= tables::FORMAT => Ok(()),
            Some(found) => Err(OpenError::Newer {
                path: self.path.clone(),
                found: u32::try_from(found).unwrap_or(u32::MAX),
                known: u32::try_from(tables::FORMAT).unwrap_or(u32::MAX),
            }),
            None => Err(self.damaged("a database, but not a state file")),
        }
    }

    /// Makes the file under another name and moves it into place.
    ///
    /// The lock on the directory keeps two starting processes apart; it is held for milliseconds.
    fn create(&self) -> Result<(), OpenError> {
        let parent = self.parent();
        let directory = File::open(parent).map_err(Self::io_at("open directory", parent))?;
        directory
            .lock()
            .map_err(Self::io_at("lock directory", parent))?;
        if self
            .path
            .try_exists()
            .map_err(self.io("look for state file"))?
        {
            return Ok(());
        }
        let mut draft = self.path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        self.draw_up(&draft)?;
        std::fs::rename(&draft, &self.path).map_err(self.io("move into place state file"))?;
        directory
            .sync_all()
            .map_err(Self::io_at("sync directory", parent))
    }

    fn draw_up(&self, draft: &Path) -> Result<(), OpenError> {
        let io = |source| OpenError::Io {
            op: "create state file",
            path: draft.to_owned(),
            source,
        };
        match std::fs::remove_file(draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let mut open = OpenOptions::new();
        open.read(true).write(true).create_new(true).mode(MODE);
        let file = open.open(draft).map_err(io)?;
        let synced = file.try_clone().map_err(io)?;
        let made = || -> Result<(), redb::Error> {
            let database = self.engine(file)?;
            let txn = database.begin_write()?;
            tables::create(&txn)?;
            txn.commit()?;
            Ok(())
        };
        made().map_err(|error| io(io_error(error)))?;
        synced.sync_all().map_err(io)
    }

    /// Reads and writes every byte, then syncs: pages that a failed sync left looking clean reach
    /// the disk now. Space is not needed, and a page that was lost already does not verify later.
    fn write_again(&self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let mut at = 0;
        let mut step = vec![0; REWRITE_BYTES];
        loop {
            let count = file.read_at(&mut step, at)?;
            if count == 0 {
                break;
            }
            file.write_all_at(&step[..count], at)?;
            at += count as u64;
        }
        #[cfg(test)]
        self.fate.faults.before_sync()?;
        file.sync_all()
    }

    fn open_error(&self, error: DatabaseError, inode: (u64, u64)) -> OpenError {
        match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse {
                path: self.path.clone(),
                owner_pid: lock_owner(inode),
            },
            DatabaseError::Storage(redb::StorageError::Io(source))
                if source.kind() != io::ErrorKind::InvalidData
                    && source.kind() != io::ErrorKind::UnexpectedEof =>
            {
                OpenError::Io {
                    op: "open state file",
                    path: self.path.clone(),
                    source,
                }
            }
            other => self.damaged(&other.to_string()),
        }
    }

    fn damaged(&self, reason: &str) -> OpenError {
        OpenError::Damaged {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }

    fn parent(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn io(&self, op: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        Self::io_at(op, &self.path)
    }

    fn io_at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_owned();
        move |source| OpenError::Io { op, path, source }
    }

    /// Failures that a test orders.
    #[cfg(test)]
    pub(super) fn faults(&self) -> &super::faults::Faults {
        &self.fate.faults
    }
}

/// Keeps the system's error where the engine has one.
pub(super) fn io_error(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// The process that holds an flock(2) on the file, as `/proc/locks` tells it.
fn lock_owner((dev, ino): (u64, u64)) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // The two parts of a device number, as Linux packs them.
    let major = ((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff);
    let minor = (dev & 0xff) | ((dev >> 12) & !0xff);
    let place = format!("{major:02x}:{minor:02x}:{ino}");
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok(),
            _ => None,
        }
    })
}

/// The engine's view of the file. Remembers a failed sync.
#[derive(Debug)]
struct Medium {
    file: FileBackend,
    fate: Arc<Fate>,
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        #[cfg(test)]
        self.fate.faults.before_read()?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        self.fate.faults.before_write()?;
        #[cfg(test)]
        self.fate.faults.note(|| super::faults::Op::SetLen(len));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        let synced = self
            .fate
            .faults
            .before_sync()
            .and_then(|()| self.file.sync_data());
        #[cfg(not(test))]
        let synced = self.file.sync_data();
        if synced.is_err() {
            self.fate.sync_failed.store(true, Ordering::Release);
        }
        #[cfg(test)]
        self.fate.faults.note(|| super::faults::Op::Sync);
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        self.fate.faults.before_write()?;
        #[cfg(test)]
        self.fate.faults.note(|| super::faults::Op::Write {
            at: offset,
            data: data.to_vec(),
        });
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(from, to)
    }

    fn try_lock_shared_range(
        &self,
        from: Bound<u64>,
        to: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(from, to)
    }

    fn lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(from, to)
    }

    fn lock_shared_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(from, to)
    }

    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(from, to)
    }

    fn query_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(from, to)
    }
}
