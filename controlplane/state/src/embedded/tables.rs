//! The tables of the state file and every change that can be made to them.
//!
//! Laws
//! - A refused change writes nothing: all checks come before the first write.
//! - An index row exists if and only if its record says so; both are written in one transaction.
//! - What is checked here is checked at the moment of the commit, against what is on disk.

use std::ops::Bound;

use proxy_core::extent::{Extent, Extents, Recorded};
use proxy_core::id::{SessionId, TaskId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::error::StateError;
use crate::session::{Change, LeaseError, Session, SessionState};
use crate::task::{TaskRecord, TaskState, UnfinishedTask};

/// The format that this release writes.
pub(super) const FORMAT: u64 = 1;
/// Bodies of finished tasks above this are dropped: they are only kept for people to look at.
const FINISHED_BODY_BYTES_MAX: usize = 4096;
/// Most rows that one [`Tables::prune`] looks at.
const PRUNE_ROWS_MAX: usize = 10_000;

type Key = &'static [u8; 16];
type TimeKey = &'static [u8; 24];
type Json = &'static [u8];

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SESSIONS: TableDefinition<Key, Json> = TableDefinition::new("sessions");
/// Sessions by expiry: seconds (big-endian), then the identifier.
const EXPIRY: TableDefinition<TimeKey, ()> = TableDefinition::new("session_expiry");
const TASKS: TableDefinition<Key, Json> = TableDefinition::new("tasks");
/// Tasks by registration: milliseconds (big-endian), then the identifier.
const TASK_TIMES: TableDefinition<TimeKey, ()> = TableDefinition::new("task_times");
/// Unfinished tasks.
const TASKS_OPEN: TableDefinition<Key, ()> = TableDefinition::new("tasks_open");

/// All tables, open for changes in one transaction.
pub(super) struct Tables<'txn> {
    sessions: Table<'txn, Key, Json>,
    expiry: Table<'txn, TimeKey, ()>,
    tasks: Table<'txn, Key, Json>,
    task_times: Table<'txn, TimeKey, ()>,
    tasks_open: Table<'txn, Key, ()>,
    changed: bool,
}

/// A refusal, or a value; the outer error is a failure of the storage.
type Checked<T, E> = Result<Result<T, E>, redb::Error>;

/// Makes all tables and marks the file as ours.
pub(super) fn create(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(META)?.insert("format", FORMAT)?;
    Tables::open(txn).map(drop)
}

/// The format of the file; `None` if it is not one of ours.
pub(super) fn format(txn: &ReadTransaction) -> Result<Option<u64>, redb::Error> {
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    Ok(meta.get("format")?.map(|format| format.value()))
}

impl<'txn> Tables<'txn> {
    /// Opens (or makes) all tables.
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            sessions: txn.open_table(SESSIONS)?,
            expiry: txn.open_table(EXPIRY)?,
            tasks: txn.open_table(TASKS)?,
            task_times: txn.open_table(TASK_TIMES)?,
            tasks_open: txn.open_table(TASKS_OPEN)?,
            changed: false,
        })
    }

    /// Whether anything was written.
    pub(super) const fn is_changed(&self) -> bool {
        self.changed
    }

    /// Records a session unless its identifier is on record.
    pub(super) fn insert_session(&mut self, session: &Session) -> Result<(), redb::Error> {
        let key = session.id.as_bytes();
        if self.sessions.get(key)?.is_some() {
            return Ok(());
        }
        self.put_session(session)?;
        self.expiry.insert(&time_key(session.exp, key), ())?;
        Ok(())
    }

    /// Adds what another record of the same upload knows; gives what is on record then. A record of
    /// another upload stays as it is.
    pub(super) fn adopt(&mut self, other: &Session) -> Checked<Session, StateError> {
        let known = match session(&self.sessions, other.id)? {
            Ok(known) => known,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let Some(known) = known else {
            self.insert_session(other)?;
            return Ok(Ok(other.clone()));
        };
        let merged = match known.is_same_upload(other) {
            true => known.merged(other),
            false => known.clone(),
        };
        if merged != known {
            self.put_session(&merged)?;
        }
        Ok(Ok(merged))
    }

    /// Moves the recorded offset, over ranges that it reaches.
    pub(super) fn advance(&mut self, id: SessionId, to: Offset) -> Checked<Recorded, LeaseError> {
        let mut session = match self.open_session(id)? {
            Ok(session) => session,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if to < session.offset {
            return Ok(Err(LeaseError::Backwards {
                have: session.offset,
                got: to,
            }));
        }
        if session.size < to.get() {
            return Ok(Err(past_size(&session, to.get())));
        }
        if session.offset < to && !session.pieces.all.is_empty() {
            return Ok(Err(LeaseError::Mixed));
        }
        let mut durable = session.durable();
        if session.offset < to {
            durable.insert(Extent::new(session.offset.get(), to.get()));
            session.set_durable(&durable);
            self.put_session(&session)?;
        }
        let whole = durable.is_whole(session.size);
        Ok(Ok(Recorded { durable, whole }))
    }

    /// Adds durable bytes, unless they are the last ones: those are for [`Tables::finish`].
    pub(super) fn record(
        &mut self,
        id: SessionId,
        extent: Extent,
        ranges_max: usize,
    ) -> Checked<Recorded, LeaseError> {
        let mut session = match self.open_session(id)? {
            Ok(session) => session,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if session.size < extent.to {
            return Ok(Err(past_size(&session, extent.to)));
        }
        if !session.pieces.all.is_empty() {
            return Ok(Err(LeaseError::Mixed));
        }
        let known = session.durable();
        if known.covers(extent) {
            let whole = known.is_whole(session.size);
            return Ok(Ok(Recorded {
                durable: known,
                whole,
            }));
        }
        let mut durable = known;
        durable.insert(extent);
        if durable.is_whole(session.size) {
            let whole = true;
            return Ok(Ok(Recorded { durable, whole }));
        }
        if ranges_max < durable.len() {
            return Ok(Err(LeaseError::TooManyRanges { ranges_max }));
        }
        session.set_durable(&durable);
        self.put_session(&session)?;
        let whole = false;
        Ok(Ok(Recorded { durable, whole }))
    }

    /// Makes a change that is not about bytes of the whole file.
    pub(super) fn change(
        &mut self,
        id: SessionId,
        change: Change,
        pieces_max: usize,
    ) -> Checked<Session, LeaseError> {
        let mut session = match self.open_session(id)? {
            Ok(session) => session,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Err(refusal) = session.apply(change, pieces_max) {
            return Ok(Err(refusal));
        }
        self.put_session(&session)?;
        Ok(Ok(session))
    }

    /// Marks a session as finished.
    pub(super) fn finish(
        &mut self,
        id: SessionId,
        last_from: Offset,
        target: RelPath,
    ) -> Checked<(), LeaseError> {
        let mut session = match self.open_session(id)? {
            Ok(session) => session,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if session.size < last_from.get() {
            return Ok(Err(past_size(&session, last_from.get())));
        }
        session.set_durable(&Extents::prefix_of(session.size));
        session.pieces.all.clear();
        session.state = SessionState::Finished { last_from, target };
        self.put_session(&session)?;
        Ok(Ok(()))
    }

    /// Removes a session; also one that cannot be read.
    pub(super) fn forget(&mut self, id: SessionId) -> Result<(), redb::Error> {
        let key = id.as_bytes();
        let Some(json) = self.sessions.remove(key)?.map(|json| json.value().to_vec()) else {
            return Ok(());
        };
        self.changed = true;
        if let Ok(session) = decode::<Session>(&json, "session", id.as_bytes()) {
            self.expiry.remove(&time_key(session.exp, key))?;
        }
        Ok(())
    }

    fn open_session(&self, id: SessionId) -> Checked<Session, LeaseError> {
        Ok(match session(&self.sessions, id)? {
            Ok(Some(session)) if session.is_finished() => Err(LeaseError::Finished),
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(LeaseError::Unknown),
            Err(damaged) => Err(damaged.into()),
        })
    }

    fn put_session(&mut self, session: &Session) -> Result<(), redb::Error> {
        assert!(session.offset.get() <= session.size, "offset past the size");
        self.changed = true;
        self.sessions
            .insert(session.id.as_bytes(), encode(session).as_slice())?;
        Ok(())
    }

    /// Records a new task.
    pub(super) fn register(&mut self, task: &TaskRecord) -> Checked<(), StateError> {
        let key = task_key(task.id);
        if self.tasks.get(&key)?.is_some() {
            return Ok(Err(StateError::Exists));
        }
        self.put_task(task)?;
        self.task_times
            .insert(&time_key(task.created_ms, &key), ())?;
        self.tasks_open.insert(&key, ())?;
        Ok(Ok(()))
    }

    /// Marks a task as running and counts the attempt.
    pub(super) fn begin(&mut self, id: TaskId) -> Checked<TaskRecord, StateError> {
        let mut task = match self.open_task(id)? {
            Ok(task) => task,
            Err(refusal) => return Ok(Err(refusal)),
        };
        task.state = TaskState::Running;
        task.attempts = task.attempts.saturating_add(1);
        self.put_task(&task)?;
        Ok(Ok(task))
    }

    /// Takes [`Tables::begin`] back.
    pub(super) fn park(&mut self, id: TaskId) -> Checked<(), StateError> {
        let mut task = match self.open_task(id)? {
            Ok(task) => task,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if task.state == TaskState::Running {
            task.state = TaskState::Registered;
            task.attempts = task.attempts.saturating_sub(1);
            self.put_task(&task)?;
        }
        Ok(Ok(()))
    }

    /// Records the end of a task; the first end counts.
    pub(super) fn finish_task(&mut self, id: TaskId, end: &TaskEnd) -> Checked<(), StateError> {
        assert!(end.state.is_finished());
        let mut task = match task(&self.tasks, id)? {
            Ok(Some(task)) if task.state.is_finished() => return Ok(Ok(())),
            Ok(Some(task)) => task,
            Ok(None) => return Ok(Err(StateError::Unknown)),
            Err(damaged) => return Ok(Err(damaged)),
        };
        task.state = end.state;
        task.finished_ms = Some(end.finished_ms);
        task.message = Some(end.message.clone());
        task.progress = end.progress.clone();
        if FINISHED_BODY_BYTES_MAX < encode(&task.body).len() {
            task.body = Value::Null;
        }
        self.put_task(&task)?;
        self.tasks_open.remove(&task_key(id))?;
        Ok(Ok(()))
    }

    /// Removes finished tasks that ended before `before_ms` or are surplus to `keep_max`.
    pub(super) fn prune(&mut self, before_ms: u64, keep_max: usize) -> Checked<usize, StateError> {
        let finished = self
            .task_times
            .len()?
            .saturating_sub(self.tasks_open.len()?);
        let mut surplus = usize::try_from(finished)
            .unwrap_or(usize::MAX)
            .saturating_sub(keep_max);
        let mut gone = Vec::new();
        for row in self.task_times.iter()?.take(PRUNE_ROWS_MAX) {
            let time = *row?.0.value();
            let id = time_key_id(&time);
            let goes = match task(&self.tasks, TaskId::from(Uuid::from_bytes(id)))? {
                Ok(Some(task)) if !task.state.is_finished() => false,
                Ok(Some(_)) if 0 < surplus => {
                    surplus -= 1;
                    true
                }
                Ok(Some(task)) => task.finished_ms.is_some_and(|ended| ended < before_ms),
                Ok(None) | Err(_) => true,
            };
            if goes {
                gone.push((time, id));
            }
        }
        for (time, id) in &gone {
            self.changed = true;
            self.task_times.remove(time)?;
            self.tasks.remove(id)?;
            self.tasks_open.remove(id)?;
        }
        Ok(Ok(gone.len()))
    }

    fn open_task(&self, id: TaskId) -> Checked<TaskRecord, StateError> {
        Ok(match task(&self.tasks, id)? {
            Ok(Some(task)) if !task.state.is_finished() => Ok(task),
            Ok(_) => Err(StateError::Unknown),
            Err(damaged) => Err(damaged),
        })
    }

    fn put_task(&mut self, task: &TaskRecord) -> Result<(), redb::Error> {
        self.changed = true;
        self.tasks
            .insert(&task_key(task.id), encode(task).as_slice())?;
        Ok(())
    }
}

/// How a task ended.
#[derive(Clone, Debug)]
pub(super) struct TaskEnd {
    pub(super) state: TaskState,
    pub(super) message: String,
    pub(super) finished_ms: u64,
    pub(super) progress: Option<crate::task::Progress>,
}

fn past_size(session: &Session, got: u64) -> LeaseError {
    LeaseError::PastSize {
        size: session.size,
        got: Offset::new(got),
    }
}

/// One session as committed.
pub(super) fn read_session(
    txn: &ReadTransaction,
    id: SessionId,
) -> Checked<Option<Session>, StateError> {
    session(&txn.open_table(SESSIONS)?, id)
}

/// Up to `max` sessions that expire at or before `until`, oldest first, if `wanted`. One that
/// cannot be read is left out.
pub(super) fn read_expired(
    txn: &ReadTransaction,
    until: u64,
    max: usize,
    wanted: impl Fn(SessionId) -> bool,
) -> Checked<Vec<Session>, StateError> {
    let sessions = txn.open_table(SESSIONS)?;
    let expiry = txn.open_table(EXPIRY)?;
    let mut found = Vec::new();
    let last = time_key(until, &[0xff; 16]);
    for row in expiry.range::<&[u8; 24]>(..=&last)? {
        if max <= found.len() {
            break;
        }
        let id = SessionId::from_bytes(time_key_id(row?.0.value()));
        if !wanted(id) {
            continue;
        }
        match session(&sessions, id)? {
            Ok(session) => found.extend(session),
            Err(error) => tracing::error!(session = %id, %error, "expired session is unreadable"),
        }
    }
    Ok(Ok(found))
}

/// One task as committed.
pub(super) fn read_task(
    txn: &ReadTransaction,
    id: TaskId,
) -> Checked<Option<TaskRecord>, StateError> {
    task(&txn.open_table(TASKS)?, id)
}

/// The newest `max` tasks, newest first.
pub(super) fn read_recent(
    txn: &ReadTransaction,
    max: usize,
) -> Checked<Vec<TaskRecord>, StateError> {
    let tasks = txn.open_table(TASKS)?;
    let times = txn.open_table(TASK_TIMES)?;
    let mut found = Vec::new();
    for row in times.iter()?.rev().take(max) {
        let id = TaskId::from(Uuid::from_bytes(time_key_id(row?.0.value())));
        match task(&tasks, id)? {
            Ok(task) => found.extend(task),
            Err(damaged) => return Ok(Err(damaged)),
        }
    }
    Ok(Ok(found))
}

/// Up to `max` sessions behind `after`, in the order of their identifiers.
pub(super) fn read_sessions(
    txn: &ReadTransaction,
    after: Option<SessionId>,
    max: usize,
) -> Checked<Vec<Session>, StateError> {
    let table = txn.open_table(SESSIONS)?;
    let from = match &after {
        Some(id) => Bound::Excluded(id.as_bytes()),
        None => Bound::Unbounded,
    };
    let mut found = Vec::new();
    for row in table
        .range::<&[u8; 16]>((from, Bound::Unbounded))?
        .take(max)
    {
        let (key, json) = row?;
        match decode(json.value(), "session", key.value()) {
            Ok(session) => found.push(session),
            Err(damaged) => return Ok(Err(damaged)),
        }
    }
    Ok(Ok(found))
}

/// All unfinished tasks, oldest first. One that cannot be read is left out.
pub(super) fn read_unfinished(txn: &ReadTransaction) -> Checked<Vec<UnfinishedTask>, StateError> {
    let tasks = txn.open_table(TASKS)?;
    let mut found = Vec::new();
    for row in txn.open_table(TASKS_OPEN)?.iter()? {
        let id = TaskId::from(Uuid::from_bytes(*row?.0.value()));
        match task(&tasks, id)? {
            Ok(Some(TaskRecord {
                id,
                name,
                key,
                attempts,
                created_ms,
                ..
            })) => {
                found.push((
                    created_ms,
                    UnfinishedTask {
                        id,
                        name,
                        key,
                        attempts,
                    },
                ));
            }
            Ok(None) => {}
            Err(error) => tracing::error!(task = %id, %error, "unfinished task is unreadable"),
        }
    }
    found.sort_by_key(|(created_ms, _)| *created_ms);
    Ok(Ok(found.into_iter().map(|(_, task)| task).collect()))
}

fn session(
    table: &impl ReadableTable<Key, Json>,
    id: SessionId,
) -> Checked<Option<Session>, StateError> {
    let json = table.get(id.as_bytes())?;
    Ok(json
        .map(|json| decode(json.value(), "session", id.as_bytes()))
        .transpose())
}

fn task(
    table: &impl ReadableTable<Key, Json>,
    id: TaskId,
) -> Checked<Option<TaskRecord>, StateError> {
    let key = task_key(id);
    let json = table.get(&key)?;
    Ok(json
        .map(|json| decode(json.value(), "task", &key))
        .transpose())
}

fn task_key(id: TaskId) -> [u8; 16] {
    id.uuid().into_bytes()
}

fn time_key(time: u64, id: &[u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&time.to_be_bytes());
    key[8..].copy_from_slice(id);
    key
}

fn time_key_id(key: &[u8; 24]) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&key[8..]);
    id
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have text keys only and no failing serializer")
}

fn decode<T: DeserializeOwned>(json: &[u8], what: &str, key: &[u8; 16]) -> Result<T, StateError> {
    serde_json::from_slice(json).map_err(|error| StateError::Damaged {
        text: format!("{what} {:032x}: {error}", u128::from_be_bytes(*key)),
    })
}
