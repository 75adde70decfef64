//! What happens here, told to Redis: now if it answers, later if not.

use proxy_core::id::TaskId;
use proxy_state::{TaskRecord, TaskState};
use redis::Pipeline;

use super::{End, Inner, Known, Phase, keys, unix_ms};
use crate::link::LinkError;

/// Tasks of one pipeline of heartbeats.
const BEATS_MAX: usize = 500;

impl Inner {
    /// Tells Redis of a task that is on record.
    pub(super) async fn share(&self, task: &TaskRecord) {
        let now = unix_ms();
        let mut pipe = self
            .keys
            .register(task.id, &task.name, &task.body.to_string());
        self.keys.remember(&mut pipe, now);
        let told = self.link.pipe::<redis::Value>(&pipe).await;
        if let Err(error) = &told {
            tracing::debug!(task = %task.id, %error, "a task is on record here only, for now");
        }
        // Half told is told: it has to be cleared away later, and is told again by the heartbeat.
        if told.as_ref().map_or_else(LinkError::is_unknown, |_| true) {
            self.update(task.id, |known| known.is_shared = true);
        }
        if told.is_ok() {
            self.beat.note(now);
        }
    }

    /// A task has ended here. What Redis knows of it is settled before its last word goes out.
    pub(super) fn note_end(&self, id: TaskId, state: TaskState, message: &str) {
        let end = match state {
            TaskState::Cancelled => End {
                is_success: false,
                message: "Task cancelled".to_owned(),
            },
            TaskState::Failed => End {
                is_success: false,
                message: format!("Task failed with exception: {message}"),
            },
            _ => End {
                is_success: true,
                message: message.to_owned(),
            },
        };
        let mut known = self.known.lock();
        match known.get_mut(&id) {
            Some(task) if task.is_shared => task.phase = Phase::Ended(end),
            // Redis never heard of it.
            Some(_) => drop(known.remove(&id)),
            None => {}
        }
    }

    /// Tells Redis that a task has ended, if it has, and Redis does not know yet.
    pub(super) async fn settle(&self, id: TaskId) {
        let (end, subkey) = {
            let mut known = self.known.lock();
            let Some(task) = known.get_mut(&id) else {
                return;
            };
            let Phase::Ended(end) = task.phase.clone() else {
                return;
            };
            task.phase = Phase::Settling;
            (end, task.subkey.clone())
        };
        match self.tell_end(id, &subkey, &end).await {
            Ok(()) => drop(self.known.lock().remove(&id)),
            Err(error) => {
                tracing::debug!(task = %id, %error, "the end of a task is on record here only");
                self.update(id, |task| task.phase = Phase::Ended(end));
            }
        }
    }

    async fn tell_end(&self, id: TaskId, subkey: &str, end: &End) -> Result<(), LinkError> {
        let finish = keys::finish(id, subkey, end);
        self.link.pipe::<redis::Value>(&finish).await?;
        self.unregister(id, subkey).await
    }

    pub(super) async fn unregister(&self, id: TaskId, subkey: &str) -> Result<(), LinkError> {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(keys::subkeys(id));
        let mut subtasks: Vec<String> = self.link.query(&members).await?;
        if !subtasks.iter().any(|known| known == subkey) {
            subtasks.push(subkey.to_owned());
        }
        let unregister = self.keys.unregister(id, &subtasks);
        self.link.pipe::<redis::Value>(&unregister).await.map(drop)
    }

    /// Tells Redis everything that it does not know.
    pub(super) async fn catch_up(&self) {
        let ended = self.ids(|task| matches!(task.phase, Phase::Ended(_)));
        for id in ended {
            if !self.link.is_up() {
                return;
            }
            self.settle(id).await;
        }
        for id in self.ids(|task| !task.is_shared) {
            if !self.link.is_up() {
                return;
            }
            self.share_again(id).await;
        }
    }

    /// Shows that all live tasks are alive, and tells of those that Redis has forgotten.
    pub(super) async fn heartbeat(&self) {
        let live = |task: &Known| matches!(task.phase, Phase::Live) && task.is_shared;
        let subkey = |id| self.known.lock().get(&id).map(|task| task.subkey.clone());
        let live: Vec<(TaskId, String)> = self
            .ids(live)
            .into_iter()
            .filter_map(|id| Some((id, subkey(id)?)))
            .collect();
        let (now, is_idle) = (unix_ms(), live.is_empty());
        let mut rest = live.as_slice();
        loop {
            let (some, others) = rest.split_at(rest.len().min(BEATS_MAX));
            match self.link.pipe::<Vec<u64>>(&self.keys.heartbeat(some)).await {
                Ok(answers) => {
                    let forgotten = some.iter().zip(answers).filter(|(_, there)| *there == 0);
                    for ((id, _), _) in forgotten {
                        self.share_again(*id).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no heartbeat");
                    return;
                }
            }
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        if is_idle {
            return;
        }
        let mut remember = Pipeline::new();
        self.keys.remember(&mut remember, now);
        if self.link.pipe::<redis::Value>(&remember).await.is_ok() {
            self.beat.note(now);
        }
    }

    async fn share_again(&self, id: TaskId) {
        match self.local.get(id).await {
            Ok(Some(task)) if !task.state.is_finished() => self.share(&task).await,
            // It has ended meanwhile.
            Ok(_) | Err(_) => {}
        }
    }

    fn ids(&self, wanted: impl Fn(&Known) -> bool) -> Vec<TaskId> {
        let known = self.known.lock();
        let wanted = known.iter().filter(|(_, task)| wanted(task));
        wanted.map(|(id, _)| *id).collect()
    }

    pub(super) fn update(&self, id: TaskId, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known.lock().get_mut(&id) {
            change(known);
        }
    }
}
