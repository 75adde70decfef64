//! Runs background tasks: on record first, then one after another, to the end or to the next start.
//!
//! Laws
//! - Nothing of a task runs before it is durably on record; a submit whose caller goes away is
//!   carried through all the same.
//! - Events of a task come in order: `Task started`, the handler's own, one last. The end is on
//!   record before the last event goes out, and all of them are safe from a crash before that: at
//!   least one run of a task is heard of to its end.
//! - A graceful stop leaves unfinished tasks on record and says nothing about them; only an
//!   explicit cancel ends them.
//! - A handler that panics ends its own task and nothing else. A task that was begun too often is
//!   given up.
//! - Running and waiting tasks are bounded, overall and per key; nothing polls.
//!
//! Source: contract, background tasks 4, 5 and 8.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proxy_core::id::TaskId;
use serde_json::Value;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

pub use self::context::{Stop, StopReason, StopSwitch, TaskContext};
use self::lanes::{Lanes, Limits, NoPlace};
use self::ledger::Ledger;
use crate::clock::unix_ms;
use crate::error::StateError;
use crate::event::EventSink;
use crate::task::{Handler, TaskRecord, TaskStore};

mod context;
mod drive;
mod lanes;
mod ledger;
mod meter;

/// Limits of a [`Runner`].
#[derive(Clone, Debug)]
pub struct RunnerOptions {
    /// Tasks that run at a time. Default 8.
    pub running_max: usize,
    /// Tasks of one key that run at a time. Default 2: tree work of one volume competes for one
    /// file system.
    pub running_per_key_max: usize,
    /// Tasks that wait; further submits are refused. Default 10,000.
    pub queued_max: usize,
    /// How often a task may be begun before it is given up. Default 100; graceful stops do not
    /// count.
    pub attempts_max: u32,
    /// How often it is begun at once; after that it waits before it is begun again, a second at
    /// first, then twice as long each time, up to a minute. Default 5.
    pub attempts_swift_max: u32,
    /// Least time between two progress events of a task. Default 500 ms.
    pub progress_interval: Duration,
    /// How long a task that was told to stop may take to reach a safe point. Default 5 s.
    pub stop_wait: Duration,
    /// How long finished tasks stay on record. Default one day, as long as the original keeps
    /// unfinished ones.
    pub retention: Duration,
    /// Finished tasks that stay on record. Default 1000.
    pub finished_max: usize,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            running_max: 8,
            running_per_key_max: 2,
            queued_max: 10_000,
            attempts_max: 100,
            attempts_swift_max: 5,
            progress_interval: Duration::from_millis(500),
            stop_wait: Duration::from_secs(5),
            retention: Duration::from_secs(24 * 60 * 60),
            finished_max: 1000,
        }
    }
}

/// Why a task was not accepted. It is not on record, unless the store failed in between.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No handler has this name.
    #[error("no handler for tasks named {0:?}")]
    UnknownHandler(String),
    /// Too many tasks wait.
    #[error("too many tasks are waiting")]
    Full,
    /// The program ends.
    #[error("the program is shutting down")]
    Stopping,
    /// It could not be recorded.
    #[error(transparent)]
    Store(#[from] StateError),
}

/// See the module. Cheap to clone; all clones are one runner.
#[derive(Clone)]
pub struct Runner {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Ledger,
    events: Arc<dyn EventSink>,
    handlers: HashMap<&'static str, Arc<dyn Handler>>,
    options: RunnerOptions,
    runtime: Handle,
    state: Mutex<State>,
    /// Tasks that run or are being ended; shutdown waits for it to reach zero.
    running: watch::Sender<usize>,
}

struct State {
    lanes: Lanes<Job>,
    /// Everything that waits or runs.
    jobs: HashMap<TaskId, Entry>,
}

/// A task in its lane. Its body stays on disk until it begins.
struct Job {
    id: TaskId,
    name: String,
    attempts: u32,
    stop: Stop,
}

struct Entry {
    key: String,
    switch: StopSwitch,
    /// Present while the handler runs.
    handler: Option<AbortHandle>,
}

impl Runner {
    /// Starts a runner on the current tokio runtime and takes up all unfinished tasks.
    ///
    /// # Errors
    /// The unfinished tasks could not be read.
    pub async fn start(
        store: Arc<dyn TaskStore>,
        events: Arc<dyn EventSink>,
        handlers: impl IntoIterator<Item = Arc<dyn Handler>>,
        options: RunnerOptions,
    ) -> Result<Self, StateError> {
        let unfinished = store.unfinished().await?;
        let limits = Limits {
            running_max: options.running_max,
            per_key_max: options.running_per_key_max,
            queued_max: options.queued_max,
        };
        let state = State {
            lanes: Lanes::new(limits),
            jobs: HashMap::new(),
        };
        let inner = Arc::new(Inner {
            ledger: Ledger::new(store, options.retention, options.finished_max),
            events,
            handlers: handlers
                .into_iter()
                .map(|handler| (handler.name(), handler))
                .collect(),
            options,
            runtime: Handle::current(),
            state: Mutex::new(state),
            running: watch::Sender::new(0),
        });
        if !unfinished.is_empty() {
            tracing::info!(
                tasks = unfinished.len(),
                "unfinished tasks are taken up again"
            );
        }
        let ids: Vec<TaskId> = unfinished.iter().map(|task| task.id).collect();
        inner.events.resume(&ids);
        for task in unfinished {
            inner.state.lock().lanes.reserve_anyway();
            inner.enqueue(task.id, task.name, &task.key, task.attempts);
        }
        inner.ledger.prune().await;
        Ok(Self { inner })
    }

    /// Records a task and runs it as soon as its turn comes. `key` names what it competes for, as
    /// a rule the volume. On record, durably, when this returns.
    ///
    /// # Errors
    /// See [`SubmitError`].
    ///
    /// # Cancellation
    /// Dropping the future does not stop a task from being recorded and run.
    pub async fn submit(&self, name: &str, body: Value, key: &str) -> Result<TaskId, SubmitError> {
        self.submit_for(name, body, key, None).await
    }

    /// As [`Self::submit`], on behalf of a request: the task's events name it.
    ///
    /// # Errors
    /// See [`SubmitError`].
    ///
    /// # Cancellation
    /// As [`Self::submit`].
    pub async fn submit_for(
        &self,
        name: &str,
        body: Value,
        key: &str,
        request_id: Option<&str>,
    ) -> Result<TaskId, SubmitError> {
        let Some(handler) = self.inner.handlers.get(name) else {
            return Err(SubmitError::UnknownHandler(name.to_owned()));
        };
        self.inner
            .state
            .lock()
            .lanes
            .reserve()
            .map_err(|refused| match refused {
                NoPlace::Full => SubmitError::Full,
                NoPlace::Closed => SubmitError::Stopping,
            })?;
        let mut task = TaskRecord::new(handler.name(), body, key, unix_ms());
        task.request_id = request_id.map(str::to_owned);
        let inner = Arc::clone(&self.inner);
        let recorded = self
            .inner
            .runtime
            .spawn(async move { inner.record(task).await });
        match recorded.await {
            Ok(recorded) => Ok(recorded?),
            // Only a runtime that is being dropped cancels it.
            Err(_) => Err(SubmitError::Stopping),
        }
    }

    /// Takes up a task that somebody else began and abandoned, or one that is on record here as
    /// unfinished and was left to somebody else until now. `false`: it waits or runs here already,
    /// or has ended here. It is run whatever waits, as the tasks taken up at the start are.
    ///
    /// # Errors
    /// [`SubmitError::UnknownHandler`], [`SubmitError::Stopping`], [`SubmitError::Store`].
    pub async fn adopt(&self, task: TaskRecord) -> Result<bool, SubmitError> {
        if !self.inner.handlers.contains_key(task.name.as_str()) {
            return Err(SubmitError::UnknownHandler(task.name));
        }
        {
            let mut state = self.inner.state.lock();
            if state.jobs.contains_key(&task.id) {
                return Ok(false);
            }
            if state.lanes.is_closed() {
                return Err(SubmitError::Stopping);
            }
            state.lanes.reserve_anyway();
        }
        let store = self.inner.ledger.store();
        let (id, name, key) = (task.id, task.name.clone(), task.key.clone());
        let known = match store.register(task).await {
            Ok(()) => Ok(Some(0)),
            Err(StateError::Exists) => store.get(id).await.map(|known| {
                let open = known.filter(|task| !task.state.is_finished());
                open.map(|task| task.attempts)
            }),
            Err(error) => Err(error),
        };
        match known {
            Ok(Some(attempts)) => {
                self.inner.enqueue(id, name, &key, attempts);
                Ok(true)
            }
            other => {
                self.inner.state.lock().lanes.give_back();
                other.map(|_| false).map_err(SubmitError::Store)
            }
        }
    }

    /// One task, as recorded; running ones with their latest progress.
    ///
    /// # Errors
    /// The store failed.
    pub async fn look(&self, id: TaskId) -> Result<Option<TaskRecord>, StateError> {
        self.inner.ledger.store().get(id).await
    }

    /// Whether a handler takes tasks of this name.
    pub fn handles(&self, name: &str) -> bool {
        self.inner.handlers.contains_key(name)
    }

    /// Cancels a task. `false`: it neither waits nor runs here. A running task ends at its next
    /// safe point.
    pub fn cancel(&self, id: TaskId) -> bool {
        let mut state = self.inner.state.lock();
        let State { lanes, jobs } = &mut *state;
        let Some(entry) = jobs.get(&id) else {
            return false;
        };
        entry.switch.stop(StopReason::Cancelled);
        if let Some(job) = lanes.remove(&entry.key, |job| job.id == id) {
            let inner = Arc::clone(&self.inner);
            inner.running.send_modify(|running| *running += 1);
            self.inner.runtime.spawn(async move {
                inner.end_unbegun(job).await;
                inner.running.send_modify(|running| *running -= 1);
            });
        }
        true
    }

    /// Tasks that run now.
    pub fn running(&self) -> usize {
        self.inner.state.lock().lanes.running()
    }

    /// Tasks that wait now.
    pub fn queued(&self) -> usize {
        self.inner.state.lock().lanes.queued()
    }

    /// Starts nothing any more, lets running tasks end within `grace`, tells the others to stop,
    /// and abandons those that do not within [`RunnerOptions::stop_wait`]. Yields how many tasks
    /// are left on record for the next start.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.inner.state.lock().lanes.close();
        if !self.inner.wait_idle(grace).await {
            for entry in self.inner.state.lock().jobs.values() {
                entry.switch.stop(StopReason::Shutdown);
            }
            if !self.inner.wait_idle(self.inner.options.stop_wait).await {
                self.inner.abandon();
                // Nothing but the bookkeeping is left to wait for.
                self.inner.wait_idle(self.inner.options.stop_wait).await;
            }
        }
        self.inner.ledger.settle().await;
        let left = self.inner.state.lock().jobs.len();
        if 0 < left {
            tracing::info!(tasks = left, "unfinished tasks are left for the next start");
        }
        left
    }
}

impl Inner {
    /// Records a task whose place is reserved, and queues it.
    async fn record(self: Arc<Self>, task: TaskRecord) -> Result<TaskId, StateError> {
        let (id, name, key) = (task.id, task.name.clone(), task.key.clone());
        match self.ledger.store().register(task).await {
            Ok(()) => {
                self.enqueue(id, name, &key, 0);
                Ok(id)
            }
            Err(error) => {
                self.state.lock().lanes.give_back();
                Err(error)
            }
        }
    }

    /// Puts a recorded task into its lane.
    fn enqueue(self: &Arc<Self>, id: TaskId, name: String, key: &str, attempts: u32) {
        let (switch, stop) = Stop::pair();
        let mut state = self.state.lock();
        state.jobs.insert(
            id,
            Entry {
                key: key.to_owned(),
                switch,
                handler: None,
            },
        );
        state.lanes.push(
            key,
            Job {
                id,
                name,
                attempts,
                stop,
            },
        );
        drop(state);
        self.pump();
    }

    /// Starts whatever may start.
    fn pump(self: &Arc<Self>) {
        loop {
            let Some((key, job)) = self.state.lock().lanes.next() else {
                return;
            };
            self.running.send_modify(|running| *running += 1);
            let place = Place {
                inner: Arc::clone(self),
                key,
            };
            self.runtime.spawn(async move {
                place.inner.drive(job).await;
                drop(place);
            });
        }
    }

    /// Waits until nothing runs; `false` when that takes longer than `bound`.
    async fn wait_idle(&self, bound: Duration) -> bool {
        let mut running = self.running.subscribe();
        timeout(bound, running.wait_for(|running| *running == 0))
            .await
            .is_ok()
    }

    /// Drops the handlers that did not stop. Their blocking threads may go on until the end of the
    /// process; their tasks run again at the next start.
    fn abandon(&self) {
        for (id, entry) in &self.state.lock().jobs {
            if let Some(handler) = &entry.handler {
                tracing::warn!(task = %id, "task did not stop in time and is abandoned");
                handler.abort();
            }
        }
    }

    /// The task neither waits nor runs any more.
    fn forget(&self, id: TaskId) {
        self.state.lock().jobs.remove(&id);
    }
}

/// A running task's place; leaving it in any way makes room for the next.
struct Place {
    inner: Arc<Inner>,
    key: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.state.lock().lanes.done(&self.key);
        self.inner.pump();
        self.inner.running.send_modify(|running| *running -= 1);
    }
}
