//! Background tasks: their records, and what runs them.
//!
//! Laws
//! - A task is on record, durably, before anything of it runs, and before its caller is answered.
//! - A task that was interrupted is on record as unfinished and runs again from the start: its
//!   handler must bring about a state, not repeat an action.
//! - What a task did is on record before its last event goes out; before that, its events are
//!   safe from a crash.
//!
//! Source: contract, background tasks 2, 4 and 8.

use async_trait::async_trait;
use proxy_core::id::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::error::StateError;
use crate::event::Event;
use crate::runner::TaskContext;

/// One task, as recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Names the task.
    pub id: TaskId,
    /// Names its handler.
    pub name: String,
    /// What the handler is asked to do. Once finished, a large one is replaced by `null`.
    pub body: Value,
    /// Tasks of one key share a limit; the volume, as a rule.
    pub key: String,
    /// How far it is.
    pub state: TaskState,
    /// When it was registered, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it ended.
    pub finished_ms: Option<u64>,
    /// How often it was begun. A graceful stop does not count.
    pub attempts: u32,
    /// Its last word.
    pub message: Option<String>,
    /// How far it was when it last said so. Kept in memory while it runs.
    pub progress: Option<Progress>,
    /// The request that asked for it, as its caller named it; goes into its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl TaskRecord {
    /// A task that is about to be registered.
    pub fn new(name: &str, body: Value, key: &str, created_ms: u64) -> Self {
        Self {
            id: TaskId::random(),
            name: name.to_owned(),
            body,
            key: key.to_owned(),
            state: TaskState::Registered,
            created_ms,
            finished_ms: None,
            attempts: 0,
            message: None,
            progress: None,
            request_id: None,
        }
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not begun.
    Registered,
    /// Begun; after a crash, interrupted.
    Running,
    /// Ended as wanted.
    Done,
    /// Ended, but parts of it failed.
    PartlyDone,
    /// Failed.
    Failed,
    /// Cancelled.
    Cancelled,
}

impl TaskState {
    /// Whether nothing more will happen.
    pub const fn is_finished(self) -> bool {
        match self {
            Self::Registered | Self::Running => false,
            Self::Done | Self::PartlyDone | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// How far a task is, in units of its own choice (bytes, entries).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done. `0 <= current <= total`, or anything while `total` is 0.
    pub current: u64,
    /// Units in all; 0 while unknown.
    pub total: u64,
    /// What is going on.
    pub message: Option<String>,
}

/// What identifies and places an unfinished task; its body stays on disk until it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedTask {
    /// Names the task.
    pub id: TaskId,
    /// Names its handler.
    pub name: String,
    /// Tasks of one key share a limit.
    pub key: String,
    /// How often it was begun.
    pub attempts: u32,
}

/// The record of background tasks.
#[async_trait]
pub trait TaskStore: Send + Sync {
    /// Records a new task; durable when it returns.
    ///
    /// # Errors
    /// [`StateError::TooLarge`] for a body past the store's limit; otherwise the store failed and
    /// the task must not run.
    async fn register(&self, task: TaskRecord) -> Result<(), StateError>;

    /// Marks a task as running and counts the attempt; durable when it returns, so that a task
    /// that kills the process is not begun for ever. Yields the record.
    ///
    /// # Errors
    /// [`StateError::Unknown`] if it is not on record or finished; otherwise the store failed.
    async fn begin(&self, id: TaskId) -> Result<TaskRecord, StateError>;

    /// Takes the last [`TaskStore::begin`] back: the task was stopped to be run again.
    ///
    /// # Errors
    /// The store failed; the task will run again all the same.
    async fn park(&self, id: TaskId) -> Result<(), StateError>;

    /// Notes how far a task is. Seen by readers at once, lost with the process.
    fn update(&self, id: TaskId, progress: Progress);

    /// Records the end of a task; durable when it returns. A finished task keeps its first end.
    ///
    /// # Errors
    /// [`StateError::Unknown`] if it is not on record; otherwise the store failed.
    async fn end(&self, id: TaskId, end: TaskState, message: &str) -> Result<(), StateError>;

    /// One task.
    ///
    /// # Errors
    /// The store failed.
    async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StateError>;

    /// All unfinished tasks, oldest first.
    ///
    /// # Errors
    /// The store failed.
    async fn unfinished(&self) -> Result<Vec<UnfinishedTask>, StateError>;

    /// The newest tasks, newest first, at most `max` and at most [`RECENT_TASKS_MAX`].
    ///
    /// # Errors
    /// The store failed.
    async fn recent(&self, max: usize) -> Result<Vec<TaskRecord>, StateError>;

    /// Removes finished tasks that ended before `before_ms`, and the oldest ones beyond
    /// `keep_max`. Yields how many went; a call does a bounded amount of work.
    ///
    /// # Errors
    /// The store failed.
    async fn prune(&self, before_ms: u64, keep_max: usize) -> Result<usize, StateError>;
}

/// Longest answer of [`TaskStore::recent`].
pub const RECENT_TASKS_MAX: usize = 200;

/// A task that did what it should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is done; there is no more to say.
    #[default]
    Done,
    /// Everything is done, with a result to show.
    DoneWith(String),
    /// The rest is done, these parts failed: one text each.
    PartlyDone(Vec<String>),
}

/// A task that did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TaskError {
    /// It cannot be done. The text is shown to people.
    #[error("{0}")]
    Failed(String),
    /// The task was told to stop and did, at a safe point. See [`TaskContext::stop`].
    #[error("stopped")]
    Stopped,
}

/// Does the tasks of one name.
///
/// A handler may be run again after it was interrupted anywhere, also after it did everything but
/// return. It sends the events about its effect itself, after the effect is durable, also when it
/// fails; when it returns [`TaskError::Stopped`] it sends none.
#[async_trait]
pub trait Handler: Send + Sync {
    /// The name its tasks are registered under.
    fn name(&self) -> &'static str;

    /// Does one task. Long blocking work belongs on a blocking thread, and looks at
    /// [`TaskContext::stop`] now and then.
    ///
    /// # Errors
    /// See [`TaskError`].
    async fn run(&self, body: &Value, ctx: TaskContext) -> Result<Outcome, TaskError>;

    /// Called once the end of a task is on record, whatever it is: it will not be run again, and
    /// what it would have known its own work by can go. Not called when the process dies between.
    async fn settled(&self, task: TaskId, body: &Value) {
        let _ = (task, body);
    }

    /// Events about the effect of a task that ends without [`Handler::run`] returning: it was
    /// cancelled, panicked, or was begun too often. `why` is a sentence for people.
    fn last_words(&self, body: &Value, why: &str) -> Vec<Event> {
        let _ = (body, why);
        Vec::new()
    }
}
