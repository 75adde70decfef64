//! Background tasks, on record here and in Redis, so that others see them and can take them up.
//!
//! The embedded store is the record that counts: a task runs when it is there. Redis holds the
//! original's keys beside it, by which servers of one node identifier take up what a dead one
//! left.
//!
//! Laws
//! - Registering, beginning and ending work without Redis; what it missed is told when it is back.
//! - Every live task is heart-beaten each minute, whatever its own thread does; an ended one never.
//! - What is on record here as unfinished is ours: nobody else has this data directory. It is
//!   taken up at once, unless Redis shows that another process has it now, or has ended it.
//! - What others left is taken up by the original's rule: no heartbeat for five minutes, decided
//!   by a script that lets one win.
//!
//! Source: contract, background tasks 3 to 5, 8 and 10.

mod beat;
mod claim;
mod keys;
mod mirror;
mod recover;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_core::id::TaskId;
use proxy_state::{Progress, StateError, TaskRecord, TaskState, TaskStore, UnfinishedTask};

use self::beat::Beat;
use self::keys::{Keys, WHOLE};
use crate::events::{Bookkeeper, EventBus};
use crate::link::Link;

/// Intervals of a [`SharedTasks`]. Those of the original belong together: changing them on one
/// server only has tasks run twice.
#[derive(Clone, Copy, Debug)]
pub struct TasksOptions {
    /// Between two heartbeats. Default 60 s, the original's.
    pub heartbeat: Duration,
    /// Between two looks for what others left. Default 300 s, the original's.
    pub check: Duration,
    /// Between two looks at tasks of ours that another process has. Default 30 s.
    pub look: Duration,
    /// How long the start waits for Redis, to ask about unfinished tasks. Default 2 s.
    pub start_wait: Duration,
}

impl Default for TasksOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(60),
            check: Duration::from_secs(300),
            look: Duration::from_secs(30),
            start_wait: Duration::from_secs(2),
        }
    }
}

/// What the record holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TasksStats {
    /// Tasks that are heart-beaten.
    pub live: usize,
    /// Those of them that Redis does not know yet.
    pub unshared: usize,
    /// Ended tasks of which Redis does not know it yet.
    pub unsettled: usize,
    /// Unfinished tasks of ours that another process has.
    pub elsewhere: usize,
}

/// See the module. Cheap to clone; all clones are one record.
#[derive(Clone)]
pub struct SharedTasks {
    inner: Arc<Inner>,
}

struct Inner {
    local: Arc<dyn TaskStore>,
    link: Link,
    keys: Keys,
    beat: Beat,
    options: TasksOptions,
    known: Mutex<HashMap<TaskId, Known>>,
    /// Unfinished tasks of ours that another process has.
    elsewhere: Mutex<Vec<UnfinishedTask>>,
}

/// A task as Redis has to know it.
#[derive(Clone, Debug)]
struct Known {
    subkey: String,
    /// Whether Redis has, or may have, its keys.
    is_shared: bool,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Live,
    Ended(End),
    /// Its end is being told.
    Settling,
}

#[derive(Clone, Debug)]
struct End {
    is_success: bool,
    message: String,
}

impl Known {
    fn live(is_shared: bool) -> Self {
        Self {
            subkey: WHOLE.to_owned(),
            is_shared,
            phase: Phase::Live,
        }
    }
}

impl SharedTasks {
    /// The record over `local` and `link` (role `bgtask`) for the node identifier `node_id`.
    /// `data_dir` keeps when Redis last heard of us. `bus` settles a task's record before it sends
    /// the last word about it.
    ///
    /// # Errors
    /// The note in the data directory could not be opened.
    pub fn open(
        local: Arc<dyn TaskStore>,
        link: Link,
        node_id: &str,
        data_dir: &Path,
        bus: &EventBus,
        options: TasksOptions,
    ) -> io::Result<Self> {
        let shared = Self {
            inner: Arc::new(Inner {
                local,
                link,
                keys: Keys::new(node_id),
                beat: Beat::open(data_dir)?,
                options,
                known: Mutex::default(),
                elsewhere: Mutex::default(),
            }),
        };
        bus.set_bookkeeper(Arc::new(shared.clone()));
        Ok(shared)
    }

    /// What it holds.
    pub fn stats(&self) -> TasksStats {
        let known = self.inner.known.lock();
        let is_live = |task: &&Known| matches!(task.phase, Phase::Live);
        let live = known.values().filter(is_live).count();
        TasksStats {
            live,
            unshared: known.values().filter(|task| !task.is_shared).count(),
            unsettled: known.len() - live,
            elsewhere: self.inner.elsewhere.lock().len(),
        }
    }
}

#[async_trait]
impl TaskStore for SharedTasks {
    async fn register(&self, task: TaskRecord) -> Result<(), StateError> {
        let id = task.id;
        self.inner.local.register(task.clone()).await?;
        // One that is taken over is known already: its keys are there.
        let is_new = !self.inner.known.lock().contains_key(&id);
        if is_new {
            self.inner.known.lock().insert(id, Known::live(false));
            self.inner.share(&task).await;
        }
        Ok(())
    }

    async fn begin(&self, id: TaskId) -> Result<TaskRecord, StateError> {
        self.inner.local.begin(id).await
    }

    async fn park(&self, id: TaskId) -> Result<(), StateError> {
        self.inner.local.park(id).await
    }

    fn update(&self, id: TaskId, progress: Progress) {
        self.inner.local.update(id, progress);
    }

    async fn end(&self, id: TaskId, end: TaskState, message: &str) -> Result<(), StateError> {
        self.inner.local.end(id, end, message).await?;
        self.inner.note_end(id, end, message);
        Ok(())
    }

    async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StateError> {
        self.inner.local.get(id).await
    }

    async fn unfinished(&self) -> Result<Vec<UnfinishedTask>, StateError> {
        let tasks = self.inner.local.unfinished().await?;
        if tasks.is_empty() {
            return Ok(tasks);
        }
        self.inner.claim(tasks).await
    }

    async fn recent(&self, max: usize) -> Result<Vec<TaskRecord>, StateError> {
        self.inner.local.recent(max).await
    }

    async fn prune(&self, before_ms: u64, keep_max: usize) -> Result<usize, StateError> {
        self.inner.local.prune(before_ms, keep_max).await
    }
}

#[async_trait]
impl Bookkeeper for SharedTasks {
    async fn settle(&self, task: TaskId) {
        self.inner.settle(task).await;
    }
}

/// Milliseconds since 1970, as the records count.
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
