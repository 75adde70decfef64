//! A task store in memory that fails when told to and remembers what was asked of it.

use std::collections::HashMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_core::id::TaskId;
use proxy_state::{Progress, StateError, TaskRecord, TaskState, TaskStore, UnfinishedTask};
use tokio::sync::Notify;

#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    failed: Notify,
}

#[derive(Default)]
struct State {
    tasks: HashMap<TaskId, TaskRecord>,
    calls: HashMap<TaskId, Vec<&'static str>>,
    failed: HashMap<TaskId, usize>,
    fails: bool,
}

impl MemoryStore {
    /// Whether calls fail from now on.
    pub fn fail(&self, fails: bool) {
        self.state.lock().fails = fails;
    }

    /// The successful calls about one task.
    pub fn calls(&self, id: TaskId) -> Vec<&'static str> {
        self.state
            .lock()
            .calls
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until a call about `id` has failed.
    pub async fn until_failed(&self, id: TaskId) {
        loop {
            let mut failed = std::pin::pin!(self.failed.notified());
            failed.as_mut().enable();
            if self.state.lock().failed.contains_key(&id) {
                return;
            }
            failed.await;
        }
    }

    fn change<T>(
        &self,
        id: TaskId,
        call: &'static str,
        change: impl FnOnce(&mut HashMap<TaskId, TaskRecord>) -> Option<T>,
    ) -> Result<T, StateError> {
        let mut state = self.state.lock();
        if state.fails {
            *state.failed.entry(id).or_default() += 1;
            self.failed.notify_waiters();
            return Err(StateError::NoSpace {
                text: "told to fail".into(),
            });
        }
        state.calls.entry(id).or_default().push(call);
        change(&mut state.tasks).ok_or(StateError::Unknown)
    }
}

#[async_trait]
impl TaskStore for MemoryStore {
    async fn register(&self, task: TaskRecord) -> Result<(), StateError> {
        if self.state.lock().tasks.contains_key(&task.id) {
            return Err(StateError::Exists);
        }
        self.change(task.id, "register", |tasks| {
            tasks.insert(task.id, task);
            Some(())
        })
    }

    async fn begin(&self, id: TaskId) -> Result<TaskRecord, StateError> {
        self.change(id, "begin", |tasks| {
            let task = tasks.get_mut(&id)?;
            task.state = TaskState::Running;
            task.attempts += 1;
            Some(task.clone())
        })
    }

    async fn park(&self, id: TaskId) -> Result<(), StateError> {
        self.change(id, "park", |tasks| {
            let task = tasks.get_mut(&id)?;
            task.state = TaskState::Registered;
            task.attempts -= 1;
            Some(())
        })
    }

    fn update(&self, id: TaskId, progress: Progress) {
        if let Some(task) = self.state.lock().tasks.get_mut(&id) {
            task.progress = Some(progress);
        }
    }

    async fn end(&self, id: TaskId, end: TaskState, message: &str) -> Result<(), StateError> {
        self.change(id, "end", |tasks| {
            let task = tasks.get_mut(&id)?;
            task.state = end;
            task.finished_ms = Some(1);
            task.message = Some(message.to_owned());
            Some(())
        })
    }

    async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StateError> {
        Ok(self.state.lock().tasks.get(&id).cloned())
    }

    async fn unfinished(&self) -> Result<Vec<UnfinishedTask>, StateError> {
        let state = self.state.lock();
        let open = state
            .tasks
            .values()
            .filter(|task| !task.state.is_finished());
        Ok(open
            .map(|task| UnfinishedTask {
                id: task.id,
                name: task.name.clone(),
                key: task.key.clone(),
                attempts: task.attempts,
            })
            .collect())
    }

    async fn recent(&self, max: usize) -> Result<Vec<TaskRecord>, StateError> {
        Ok(self
            .state
            .lock()
            .tasks
            .values()
            .take(max)
            .cloned()
            .collect())
    }

    async fn prune(&self, _: u64, _: usize) -> Result<usize, StateError> {
        Ok(0)
    }
}
