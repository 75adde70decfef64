//! The loop that keeps tasks alive, and takes up what others left.

use std::collections::HashMap;

use proxy_core::id::TaskId;
use proxy_state::{Runner, SubmitError, TaskRecord, TaskState};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::keys::{self, Found, found};
use super::{End, Inner, Known, SharedTasks, unix_ms};
use crate::link::LinkError;

type Fields = HashMap<String, String>;

impl SharedTasks {
    /// Keeps the record shared, for ever: heartbeats, what Redis missed, what others left. What is
    /// taken up is run by `runner`.
    pub async fn run(self, runner: Runner) {
        let inner = &self.inner;
        let mut beats = interval(inner.options.heartbeat);
        let mut checks = interval(inner.options.check);
        let mut looks = interval(inner.options.look);
        for ticks in [&mut beats, &mut checks, &mut looks] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut link = inner.link.watch();
        let mut is_checked = false;
        loop {
            tokio::select! {
                biased;
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !link.borrow_and_update().up {
                        continue;
                    }
                    // A server that was away may have forgotten.
                    inner.catch_up().await;
                    inner.heartbeat().await;
                }
                _ = beats.tick() => {
                    inner.catch_up().await;
                    inner.heartbeat().await;
                }
                _ = checks.tick() => is_checked = false,
                _ = looks.tick() => inner.take_back(&runner).await,
            }
            if !is_checked && inner.link.is_up() {
                is_checked = inner.check(&runner).await;
            }
        }
    }
}

impl Inner {
    async fn take_back(&self, runner: &Runner) {
        if self.elsewhere.lock().is_empty() {
            return;
        }
        for task in self.look_elsewhere().await {
            match self.local.get(task.id).await {
                Ok(Some(record)) => self.adopt(runner, record).await,
                Ok(None) | Err(_) => tracing::warn!(task = %task.id, "a task is not on record"),
            }
        }
    }

    /// Looks at everything that this node identifier has; `false`: Redis went away meanwhile.
    async fn check(&self, runner: &Runner) -> bool {
        let candidates: Vec<String> = match self.link.query(&self.keys.candidates()).await {
            Ok(candidates) => candidates,
            Err(error) => {
                tracing::debug!(%error, "what others left was not looked at");
                return false;
            }
        };
        for candidate in candidates {
            let Ok(id) = TaskId::parse(&candidate) else {
                tracing::warn!(candidate, "no identifier of a task");
                continue;
            };
            let is_elsewhere = self.elsewhere.lock().iter().any(|task| task.id == id);
            if is_elsewhere || self.known.lock().contains_key(&id) {
                continue;
            }
            if let Err(error) = self.examine(id, runner).await {
                tracing::warn!(task = %id, %error, "a task was not looked at");
                if !self.link.is_up() {
                    return false;
                }
            }
        }
        true
    }

    async fn examine(&self, id: TaskId, runner: &Runner) -> Result<(), LinkError> {
        // Ended here, and not told any more: a crash came between.
        if let Ok(Some(task)) = self.local.get(id).await
            && task.state.is_finished()
        {
            self.known.lock().insert(id, Known::live(true));
            self.note_end(id, task.state, task.message.as_deref().unwrap_or_default());
            self.settle(id).await;
            return Ok(());
        }
        let answer: String = self.link.script(&self.keys.classify(id)).await?;
        match found(&answer) {
            Found::Missing => tracing::warn!(task = %id, "a task has no record any more"),
            Found::Alive | Found::Eternal => {}
            Found::Stale => self.take_up(id, runner).await?,
        }
        Ok(())
    }

    /// Takes up a task that nobody has.
    async fn take_up(&self, id: TaskId, runner: &Runner) -> Result<(), LinkError> {
        let meta = self.fields(keys::meta(id)).await?;
        let mut members = redis::cmd("SMEMBERS");
        members.arg(keys::subkeys(id));
        let subkeys: Vec<String> = self.link.query(&members).await?;
        let mut ongoing = Vec::new();
        for subkey in subkeys {
            let subtask = self.fields(keys::subtask(id, &subkey)).await?;
            match subtask.get("status").map(String::as_str) {
                Some("ongoing") => ongoing.push(subkey),
                Some(_) => {}
                None => return self.discard(id, "a sub-task has no record").await,
            }
        }
        let (Some(name), Some(body)) = (meta.get("task_name"), meta.get("body")) else {
            return self.discard(id, "its record is incomplete").await;
        };
        if !runner.handles(name) {
            tracing::error!(task = %id, name, "a task was left that nobody here can do");
            let end = End {
                is_success: false,
                message: format!("Task handler not registered: {name}"),
            };
            for subkey in &ongoing {
                let finish = keys::finish(id, subkey, &end);
                self.link.pipe::<redis::Value>(&finish).await?;
            }
            return Ok(());
        }
        let [subkey] = ongoing.as_slice() else {
            let sub_tasks = ongoing.len();
            tracing::error!(task = %id, sub_tasks, "one sub-task should be unfinished");
            return Ok(());
        };
        tracing::info!(task = %id, name, "a task that another server left is taken up");
        let mut own = redis::Pipeline::new();
        self.keys.own(&mut own, id);
        self.link.pipe::<redis::Value>(&own).await?;
        let known = Known {
            subkey: subkey.clone(),
            ..Known::live(true)
        };
        self.known.lock().insert(id, known);
        self.adopt(runner, record(id, name, body)).await;
        Ok(())
    }

    async fn adopt(&self, runner: &Runner, task: TaskRecord) {
        let id = task.id;
        match runner.adopt(task).await {
            Ok(true) => {}
            // It runs here already, or the program ends: the next start sees it.
            Ok(false) | Err(SubmitError::Stopping) => {}
            Err(error) => {
                tracing::error!(task = %id, %error, "a task cannot be taken up");
                self.known.lock().remove(&id);
            }
        }
    }

    async fn discard(&self, id: TaskId, why: &str) -> Result<(), LinkError> {
        tracing::warn!(task = %id, why, "the rest of a task is cleared away");
        self.unregister(id, keys::WHOLE).await
    }

    async fn fields(&self, key: String) -> Result<Fields, LinkError> {
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(key);
        self.link.query(&cmd).await
    }
}

/// A body that is no JSON is passed on as text: no handler takes it, and the task fails properly.
fn record(id: TaskId, name: &str, body: &str) -> TaskRecord {
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    let key = body.get("volume").and_then(Value::as_str).unwrap_or("");
    let key = key.to_owned();
    let task = TaskRecord::new(name, body, &key, unix_ms());
    TaskRecord {
        id,
        state: TaskState::Registered,
        ..task
    }
}
