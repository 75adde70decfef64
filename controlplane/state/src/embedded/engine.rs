//! One writer, many readers, and what happens when the disk below them fails.
//!
//! Laws
//! - Everything that is queued while a commit syncs goes into the next commit: callers share syncs.
//! - A caller is answered after the commit that holds its change, never before.
//! - After a failure the file is closed and opened again before anybody is answered, so the next
//!   call finds a working store, or a fresh attempt at one. There is no poisoned state and no loop
//!   that tries by itself.
//! - Readers never wait for a sync.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use proxy_core::id::SessionId;
use redb::{Database, ReadTransaction, ReadableDatabase};

use super::file::StateFile;
use super::queue::{Change, Queue, Work};
use super::tables::Tables;
use crate::error::{OpenError, StateError};
use crate::session::Session;

/// The database with its queue.
pub(super) struct Engine {
    file: StateFile,
    /// `None` after a failure, until the file could be opened again.
    database: RwLock<Option<Database>>,
    /// A reader met a failing disk: open the file again before the next batch.
    suspect: AtomicBool,
    /// The failure that is not mended yet, for health probes.
    fault: Mutex<Option<StateError>>,
    pub(super) queue: Queue,
    pub(super) created: Created,
    linger: Duration,
    batch_len_max: usize,
    pub(super) commits: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) failures: AtomicU64,
}

/// Sessions that were created and are not committed yet. Readers look here when the file does not
/// have them.
#[derive(Debug, Default)]
pub(super) struct Created {
    sessions: Mutex<HashMap<SessionId, Session>>,
}

impl Created {
    /// Adds a session. `false`: there are `len_max` already.
    pub(super) fn insert(&self, session: &Session, len_max: usize) -> Result<bool, StateError> {
        let mut sessions = self.sessions.lock();
        if sessions.contains_key(&session.id) {
            return Err(StateError::Exists);
        }
        if len_max <= sessions.len() {
            return Ok(false);
        }
        sessions.insert(session.id, session.clone());
        Ok(true)
    }

    /// The session, if it awaits its commit.
    pub(super) fn look(&self, id: SessionId) -> Option<Session> {
        self.sessions.lock().get(&id).cloned()
    }

    /// How many await their commit.
    pub(super) fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    fn snapshot(&self) -> Vec<Session> {
        self.sessions.lock().values().cloned().collect()
    }

    fn remove(&self, committed: &[Session]) {
        let mut sessions = self.sessions.lock();
        for session in committed {
            sessions.remove(&session.id);
        }
    }
}

impl Engine {
    /// An engine over a file that is open.
    pub(super) fn new(
        file: StateFile,
        database: Database,
        queue: Queue,
        batch_len_max: usize,
        linger: Duration,
    ) -> Self {
        assert!(batch_len_max > 0);
        Self {
            file,
            database: RwLock::new(Some(database)),
            suspect: AtomicBool::new(false),
            fault: Mutex::default(),
            queue,
            created: Created::default(),
            linger,
            batch_len_max,
            commits: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// The failure that is not mended yet.
    pub(super) fn fault(&self) -> Option<StateError> {
        self.fault.lock().clone()
    }

    /// Where the state lives.
    pub(super) const fn file(&self) -> &StateFile {
        &self.file
    }

    /// Reads the last committed state. Short: a few pages, from memory as a rule.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StateError> {
        let database = self.database.read();
        let Some(database) = database.as_ref() else {
            return Err(self.fault().unwrap_or(StateError::Closed));
        };
        let got = catch_unwind(AssertUnwindSafe(|| read(&database.begin_read()?)));
        got.unwrap_or_else(|_| Err(panicked())).map_err(|error| {
            self.suspect.store(true, Ordering::Release);
            state_error(error)
        })
    }

    /// The writer thread: commits batches until the queue has ended.
    pub(super) fn run(&self) {
        while let Work::Batch(mut batch) = self.queue.take(self.batch_len_max) {
            let committed = self.commit(&mut batch);
            if let Err(error) = &committed {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, changes = batch.len(), "commit failed");
                self.heal();
            }
            for change in batch {
                change.settle(committed.clone());
            }
            if 0 < self.created.len() {
                self.queue.work_within(self.linger);
            }
        }
        if 0 < self.created.len()
            && let Err(error) = self.commit(&mut [])
        {
            // Harmless: a claim records them again.
            tracing::warn!(%error, "new sessions were not recorded at the end");
        }
        *self.database.write() = None;
    }

    /// Commits new sessions and `batch` in one transaction.
    fn commit(&self, batch: &mut [Box<dyn Change>]) -> Result<(), StateError> {
        if self.suspect.swap(false, Ordering::AcqRel) || self.database.read().is_none() {
            self.heal();
        }
        let database = self.database.read();
        let Some(database) = database.as_ref() else {
            return Err(self.fault().unwrap_or(StateError::Closed));
        };
        let created = self.created.snapshot();
        let write = AssertUnwindSafe(|| write(database, &created, batch));
        if catch_unwind(write)
            .unwrap_or_else(|_| Err(panicked()))
            .map_err(state_error)?
        {
            self.commits.fetch_add(1, Ordering::Relaxed);
            self.changes
                .fetch_add((batch.len() + created.len()) as u64, Ordering::Relaxed);
        }
        self.created.remove(&created);
        Ok(())
    }

    /// Closes the file and opens it again. What remains wrong is in [`Engine::fault`].
    fn heal(&self) {
        let old = self.database.write().take();
        let closed = catch_unwind(AssertUnwindSafe(|| drop(old)));
        if closed.is_err() {
            tracing::error!("closing the failed state file panicked");
        }
        match self.file.reopen() {
            Ok(database) => {
                *self.fault.lock() = None;
                *self.database.write() = Some(database);
                tracing::info!(path = %self.file.path().display(), "state file is open again");
            }
            Err(error) => {
                tracing::error!(%error, "state file stays closed until the next call");
                *self.fault.lock() = Some(match error {
                    OpenError::Io { source, .. } => io_state_error(&source),
                    other => StateError::Disk {
                        text: other.to_string(),
                    },
                });
            }
        }
    }
}

/// One transaction. `true` if there was anything to commit.
fn write(
    database: &Database,
    created: &[Session],
    batch: &mut [Box<dyn Change>],
) -> Result<bool, redb::Error> {
    let txn = database.begin_write()?;
    let mut tables = Tables::open(&txn)?;
    for session in created {
        tables.insert_session(session)?;
    }
    for change in batch {
        change.apply(&mut tables)?;
    }
    let is_changed = tables.is_changed();
    drop(tables);
    if is_changed {
        // The default durability: synced when this returns.
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(is_changed)
}

fn panicked() -> redb::Error {
    redb::Error::Corrupted("the storage engine panicked".to_owned())
}

fn state_error(error: redb::Error) -> StateError {
    match error {
        redb::Error::Io(error) => io_state_error(&error),
        redb::Error::Corrupted(text) => StateError::Damaged { text },
        other => StateError::Disk {
            text: other.to_string(),
        },
    }
}

fn io_state_error(error: &io::Error) -> StateError {
    let text = error.to_string();
    match error.kind() {
        // A limit on file sizes (RLIMIT_FSIZE, the file system's own) is room that lacks, too.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StateError::NoSpace { text }
        }
        _ => StateError::Disk { text },
    }
}
