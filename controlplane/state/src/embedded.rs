//! State in one file beside the program: no server, safe against crashes.
//!
//! One writer thread commits everything that is queued in one synced transaction, so a hundred
//! uploads that end together wait for one sync, not for a hundred. Readers see the last commit and
//! wait for nobody. Leases are in memory only.
//!
//! Laws
//! - See [`Sessions`] and [`TaskStore`]; this module adds none to them.
//! - The file has one user: a second process gets an error that names the first.
//! - Every queue has a limit, see [`StoreOptions`].
//!
//! The file has to be on a local disk: its lock and its syncs are those of the file system.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_core::extent::{Extent, Extents, Recorded};
use proxy_core::id::{SessionId, TaskId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use redb::ReadTransaction;
use tokio::sync::oneshot;

use self::engine::Engine;
use self::file::StateFile;
use self::queue::{Change, Queue};
use self::tables::{Tables, TaskEnd};
use crate::clock::unix_ms;
use crate::error::{OpenError, StateError};
use crate::lease::{self, Leases, Refused};
use crate::session::{
    self, Claim, ClaimError, ClaimOutcome, Grant, Holder, LeaseError, LeaseGuard, Pieces, Session,
    SessionState, Sessions,
};
use crate::task::{Progress, RECENT_TASKS_MAX, TaskRecord, TaskState, TaskStore, UnfinishedTask};

mod engine;
#[cfg(test)]
mod faults;
mod file;
#[cfg(test)]
mod power_tests;
mod queue;
mod tables;
#[cfg(test)]
mod tests;

/// Limits of an [`EmbeddedStore`].
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Pages of the file kept in memory. Default 16 MiB: the records of some 40,000 sessions.
    pub cache_bytes: usize,
    /// Changes that wait for a commit; further callers wait for room. Default 4096.
    pub queue_len_max: usize,
    /// Changes of one commit: bounds how long one takes. Default 1024.
    pub batch_len_max: usize,
    /// New sessions that wait for a commit; further callers wait for the commit. Default 4096.
    pub created_len_max: usize,
    /// How long a new session may wait for other changes to share a commit with. Default 1 s:
    /// losing it is harmless.
    pub created_linger: Duration,
    /// How long a claim waits for an older holder to let go. Default 10 s: a holder has to sync
    /// what it received.
    pub lease_wait: Duration,
    /// Separate ranges of durable bytes that one session may have. Default 256: with their header
    /// they fit into what clients read, and into a page of the file.
    pub ranges_max: usize,
    /// Largest body of a task, as JSON text. Default 1 MiB.
    pub task_body_bytes_max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            queue_len_max: 4096,
            batch_len_max: 1024,
            created_len_max: 4096,
            created_linger: Duration::from_secs(1),
            lease_wait: Duration::from_secs(10),
            ranges_max: 256,
            task_body_bytes_max: 1 << 20,
        }
    }
}

/// What a store has done and holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Synced commits so far.
    pub commits: u64,
    /// Changes in them. Divided by `commits`: how many callers share a sync.
    pub changes: u64,
    /// Commits that failed.
    pub failures: u64,
    /// Changes that wait for a commit now.
    pub queue_len: usize,
    /// New sessions that wait for a commit now.
    pub created_len: usize,
    /// Sessions with a holder or a waiting claim now.
    pub leases: usize,
}

/// See the module. Dropping it commits what is queued, closes the file and ends the thread; this
/// waits for the disk.
pub struct EmbeddedStore {
    engine: Arc<Engine>,
    leases: Arc<Leases>,
    progress: Mutex<HashMap<TaskId, Progress>>,
    options: StoreOptions,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the state file at `path`, making it (mode 0600) if there is none. Its directory must
    /// exist. Blocks: a file that was not closed properly is verified page by page.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is deleted or emptied.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let file = StateFile::new(path, options.cache_bytes);
        let database = file.open_or_create()?;
        let queue = Queue::new(options.queue_len_max);
        let linger = options.created_linger;
        let engine = Engine::new(file, database, queue, options.batch_len_max, linger);
        let engine = Arc::new(engine);
        let writer = std::thread::Builder::new()
            .name("state-writer".into())
            .spawn({
                let engine = Arc::clone(&engine);
                move || engine.run()
            });
        let writer = writer.map_err(|source| OpenError::Io {
            op: "start the writer of state file",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            engine,
            leases: Arc::default(),
            progress: Mutex::default(),
            options,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Where the state lives.
    pub fn path(&self) -> &Path {
        self.engine.file().path()
    }

    /// Commits everything that was queued and created before the call.
    ///
    /// # Errors
    /// The store failed.
    pub async fn flush(&self) -> Result<(), StateError> {
        self.write(None, |_| Ok(Ok(()))).await
    }

    /// Commits what is queued and closes the file, so that another process can open it. Blocks for
    /// the disk. Every later call is refused with [`StateError::Closed`].
    pub fn close(&self) {
        self.engine.queue.close();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the writer of the state file panicked");
        }
    }

    /// Adds what another record of the same upload knows, and gives what is on record then: on
    /// disk when it returns. Holders and their leases are not touched.
    ///
    /// # Errors
    /// The store failed.
    pub async fn adopt(&self, other: Session) -> Result<Session, StateError> {
        self.write(None, move |tables| tables.adopt(&other)).await
    }

    /// Up to `max` committed sessions behind `after`, in the order of their identifiers.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sessions(
        &self,
        after: Option<SessionId>,
        max: usize,
    ) -> Result<Vec<Session>, StateError> {
        self.read(|txn| tables::read_sessions(txn, after, max))
            .await
    }

    /// The most separate ranges, and partial uploads, of a session.
    pub fn ranges_max(&self) -> usize {
        self.options.ranges_max
    }

    /// The failure of the file that is not mended yet; `None` in health.
    pub fn fault(&self) -> Option<StateError> {
        self.engine.fault()
    }

    /// What the store has done and holds.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            commits: self.engine.commits.load(Ordering::Relaxed),
            changes: self.engine.changes.load(Ordering::Relaxed),
            failures: self.engine.failures.load(Ordering::Relaxed),
            queue_len: self.engine.queue.len(),
            created_len: self.engine.created.len(),
            leases: self.leases.count(),
        }
    }

    /// Queues a change and waits for the commit that holds it. `keep` is dropped after that,
    /// whether or not the caller still waits.
    async fn write<T, E>(
        &self,
        keep: Option<Keep>,
        change: impl FnOnce(&mut Tables<'_>) -> Result<Result<T, E>, redb::Error> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StateError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let queued = Queued {
            change: Some(change),
            result: None,
            reply: Some(reply),
            keep,
        };
        self.engine.queue.push(Box::new(queued)).await?;
        answer.await.map_err(|_| StateError::Closed)?
    }

    /// Reads the last commit. A failing disk is tried once more, with the file opened anew.
    async fn read<T>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<Result<T, StateError>, redb::Error>,
    ) -> Result<T, StateError> {
        match self.engine.read(&read) {
            Ok(got) => got,
            Err(error) => {
                tracing::warn!(%error, "reading state failed, trying again");
                // Its own failure does not matter: the writer opened the file again either way.
                let _ = self.flush().await;
                self.engine.read(&read)?
            }
        }
    }

    /// The file has the last word: a commit that failed may have reached it, and a session that
    /// waits for its commit must not hide that. A session that is in neither place may have moved
    /// from one to the other in between, so the file is asked again.
    async fn session(&self, id: SessionId) -> Result<Option<Session>, StateError> {
        let committed = |txn: &ReadTransaction| tables::read_session(txn, id);
        if let Some(session) = self.read(committed).await? {
            return Ok(Some(session));
        }
        match self.engine.created.look(id) {
            Some(session) => Ok(Some(session)),
            None => self.read(committed).await,
        }
    }

    /// Makes a session known before its commit. Waits for a commit while too many wait for one.
    async fn add(&self, session: &Session) -> Result<(), StateError> {
        let len_max = self.options.created_len_max;
        while !self.engine.created.insert(session, len_max)? {
            self.flush().await?;
        }
        self.engine.queue.work_within(self.options.created_linger);
        Ok(())
    }

    /// A change that only the holder may make.
    fn holders_change(&self, id: SessionId, holder: Holder) -> Result<lease::Change, LeaseError> {
        self.leases.begin_change(id, holder).ok_or(LeaseError::Lost)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Sessions for EmbeddedStore {
    async fn create(&self, session: Session) -> Result<(), StateError> {
        if self.session(session.id).await?.is_some() {
            return Err(StateError::Exists);
        }
        self.add(&session).await
    }

    async fn look(&self, id: SessionId) -> Result<Option<Session>, StateError> {
        self.session(id).await
    }

    async fn claim(&self, want: Claim) -> Result<ClaimOutcome, ClaimError> {
        let id = want.session.id;
        let lease = self
            .leases
            .acquire(id, want.want, self.options.lease_wait)
            .await;
        // Dropped on every way out but the last: the lease ends then.
        let lease::Lease {
            holder,
            revoked,
            guard,
        } = lease.map_err(|refused| match refused {
            Refused::Held => ClaimError::Held,
            Refused::Superseded => ClaimError::Superseded,
        })?;
        let session = match self.session(id).await? {
            Some(session) => session,
            None => {
                let mut session = want.session.clone();
                session.offset = Offset::ZERO;
                session.ranges = Extents::default();
                session.pieces = Pieces::default();
                session.state = SessionState::Open;
                self.add(&session).await?;
                tracing::info!(session = %id, "session is recorded anew, from byte 0");
                session
            }
        };
        if !session.is_same_upload(&want.session) {
            return Err(ClaimError::OtherUpload);
        }
        if session.is_finished() {
            return Ok(ClaimOutcome::Finished(Box::new(session)));
        }
        Ok(ClaimOutcome::Granted(Box::new(Grant {
            holder,
            session,
            revoked,
            guard,
        })))
    }

    async fn advance(
        &self,
        id: SessionId,
        holder: Holder,
        to: Offset,
    ) -> Result<Recorded, LeaseError> {
        let keep = Keep::Change(self.holders_change(id, holder)?);
        self.write(Some(keep), move |tables| tables.advance(id, to))
            .await
    }

    async fn record(
        &self,
        id: SessionId,
        holder: Holder,
        extent: Extent,
    ) -> Result<Recorded, LeaseError> {
        let keep = Keep::Change(self.holders_change(id, holder)?);
        let ranges_max = self.options.ranges_max;
        self.write(Some(keep), move |tables| {
            tables.record(id, extent, ranges_max)
        })
        .await
    }

    async fn change(
        &self,
        id: SessionId,
        holder: Holder,
        change: session::Change,
    ) -> Result<Session, LeaseError> {
        let keep = Keep::Change(self.holders_change(id, holder)?);
        let pieces_max = self.options.ranges_max;
        self.write(Some(keep), move |tables| {
            tables.change(id, change, pieces_max)
        })
        .await
    }

    async fn secure(&self, id: SessionId) -> Result<(), StateError> {
        if self.engine.created.look(id).is_some() {
            self.flush().await?;
        }
        Ok(())
    }

    async fn release(&self, id: SessionId, holder: Holder) {
        self.leases.end(id, holder);
    }

    async fn finish(
        &self,
        id: SessionId,
        holder: Holder,
        last_from: Offset,
        target: RelPath,
    ) -> Result<(), LeaseError> {
        let keep = Keep::LastChange(self.holders_change(id, holder)?);
        self.write(Some(keep), move |tables| {
            tables.finish(id, last_from, target)
        })
        .await
    }

    async fn expired(&self, now_unix_s: u64, max: usize) -> Result<Vec<Session>, StateError> {
        let wanted = |id| !self.leases.is_held(id);
        self.read(|txn| tables::read_expired(txn, now_unix_s, max, wanted))
            .await
    }

    async fn forget(&self, id: SessionId) -> Result<bool, StateError> {
        let Some(guard) = self.leases.acquire_idle(id) else {
            return Ok(false);
        };
        let forget = move |tables: &mut Tables<'_>| tables.forget(id).map(Ok);
        let keep = Some(Keep::Guard(guard));
        self.write::<(), StateError>(keep, forget)
            .await
            .map(|()| true)
    }

    async fn abandon(&self, id: SessionId) -> Result<(), StateError> {
        self.leases.end_all(id);
        self.write(None, move |tables| tables.forget(id).map(Ok))
            .await
    }
}

#[async_trait]
impl TaskStore for EmbeddedStore {
    async fn register(&self, task: TaskRecord) -> Result<(), StateError> {
        let bytes = task.body.to_string().len();
        let bytes_max = self.options.task_body_bytes_max;
        if bytes_max < bytes {
            return Err(StateError::TooLarge { bytes, bytes_max });
        }
        self.write(None, move |tables| tables.register(&task)).await
    }

    async fn begin(&self, id: TaskId) -> Result<TaskRecord, StateError> {
        self.write(None, move |tables| tables.begin(id)).await
    }

    async fn park(&self, id: TaskId) -> Result<(), StateError> {
        self.progress.lock().remove(&id);
        self.write(None, move |tables| tables.park(id)).await
    }

    fn update(&self, id: TaskId, progress: Progress) {
        self.progress.lock().insert(id, progress);
    }

    async fn end(&self, id: TaskId, end: TaskState, message: &str) -> Result<(), StateError> {
        let progress = self.progress.lock().get(&id).cloned();
        let end = TaskEnd {
            state: end,
            message: message.to_owned(),
            finished_ms: unix_ms(),
            progress,
        };
        let done = self
            .write(None, move |tables| tables.finish_task(id, &end))
            .await;
        self.progress.lock().remove(&id);
        done
    }

    async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StateError> {
        let mut task = self.read(|txn| tables::read_task(txn, id)).await?;
        self.add_progress(task.as_mut_slice());
        Ok(task)
    }

    async fn unfinished(&self) -> Result<Vec<UnfinishedTask>, StateError> {
        self.read(tables::read_unfinished).await
    }

    async fn recent(&self, max: usize) -> Result<Vec<TaskRecord>, StateError> {
        let max = max.min(RECENT_TASKS_MAX);
        let mut tasks = self.read(|txn| tables::read_recent(txn, max)).await?;
        self.add_progress(&mut tasks);
        Ok(tasks)
    }

    async fn prune(&self, before_ms: u64, keep_max: usize) -> Result<usize, StateError> {
        self.write(None, move |tables| tables.prune(before_ms, keep_max))
            .await
    }
}

impl EmbeddedStore {
    /// Puts in what running tasks said last.
    fn add_progress(&self, tasks: &mut [TaskRecord]) {
        let progress = self.progress.lock();
        for task in tasks.iter_mut().filter(|task| !task.state.is_finished()) {
            task.progress = progress.get(&task.id).cloned();
        }
    }
}

/// What has to live until a change is settled.
enum Keep {
    /// A change of a holder: its lease stays meanwhile.
    Change(lease::Change),
    /// The same, and the lease ends if the change is made.
    LastChange(lease::Change),
    /// A lease of the store itself.
    Guard(LeaseGuard),
}

/// A change in the queue.
struct Queued<F, T, E> {
    change: Option<F>,
    result: Option<Result<T, E>>,
    reply: Option<oneshot::Sender<Result<T, E>>>,
    keep: Option<Keep>,
}

impl<F, T, E> Change for Queued<F, T, E>
where
    F: FnOnce(&mut Tables<'_>) -> Result<Result<T, E>, redb::Error> + Send,
    T: Send,
    E: From<StateError> + Send,
{
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), redb::Error> {
        if let Some(change) = self.change.take() {
            self.result = Some(change(tables)?);
        }
        Ok(())
    }

    fn settle(mut self: Box<Self>, committed: Result<(), StateError>) {
        let result = match (committed, self.result.take()) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StateError::Closed.into()),
            (Err(error), _) => Err(error.into()),
        };
        match self.keep.take() {
            Some(Keep::LastChange(change)) if result.is_ok() => change.end_lease(),
            Some(Keep::Change(change) | Keep::LastChange(change)) => drop(change),
            Some(Keep::Guard(guard)) => drop(guard),
            None => {}
        }
        if let Some(reply) = self.reply.take() {
            // A caller that went away does not want to know.
            let _ = reply.send(result);
        }
    }
}
