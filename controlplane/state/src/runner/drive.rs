//! One task from its turn to its last event.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use proxy_core::id::TaskId;
use serde_json::Value;
use tokio::task::JoinError;
use tokio::time::timeout;

use super::context::{StopReason, TaskContext};
use super::{Inner, Job};
use crate::error::StateError;
use crate::event::{Event, clip};
use crate::task::{Handler, Outcome, TaskError, TaskRecord, TaskState};

/// First and longest pause before a task's beginning is recorded again.
const BEGIN_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// First and longest pause before a task begins that was interrupted often.
const ATTEMPT_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A task, and the request that asked for it.
#[derive(Clone)]
struct Who {
    id: TaskId,
    request_id: Option<Arc<str>>,
}

impl Who {
    fn of(task: &TaskRecord) -> Self {
        let request_id = task.request_id.as_deref().map(Arc::from);
        Self {
            id: task.id,
            request_id,
        }
    }

    const fn only(id: TaskId) -> Self {
        let request_id = None;
        Self { id, request_id }
    }
}

/// What a handler came to.
enum Ran {
    Returned(Result<Outcome, TaskError>),
    Panicked(String),
    Abandoned,
}

impl Inner {
    /// Runs one task whose turn has come.
    pub(super) async fn drive(&self, job: Job) {
        let Some(handler) = self.handlers.get(job.name.as_str()) else {
            let why = format!("Task handler not registered: {}", job.name);
            return self
                .conclude(&Who::only(job.id), TaskState::Failed, &why, Vec::new())
                .await;
        };
        if job.attempts < self.options.attempts_max {
            self.pause_before(&job).await;
        }
        if self.options.attempts_max <= job.attempts || job.stop.is_wanted() {
            return self.end_unbegun(job).await;
        }
        let task = match self.begin(&job).await {
            Ok(Some(task)) => task,
            Ok(None) => return,
            Err(error) => {
                let why = format!("the record of the task is unusable: {error}");
                return self
                    .conclude(&Who::only(job.id), TaskState::Failed, &why, Vec::new())
                    .await;
            }
        };
        let who = Who::of(&task);
        let started = Event::TaskUpdated {
            task: job.id,
            current: 0,
            total: 0,
            message: Some("Task started".to_owned()),
        };
        self.events.emit_for(started, who.request_id.as_deref());
        let body = Arc::new(task.body);
        let ran = self.run(&who, handler, &job, (task.attempts, &body)).await;
        if self.judge(handler.as_ref(), (&who, &job), &body, ran).await {
            let handler = Arc::clone(handler);
            let settle = async move { handler.settled(who.id, &body).await };
            // As a task of its own, so that a panic stays there.
            let _ = self.runtime.spawn(settle).await;
        }
    }

    /// Waits before a task begins that was interrupted often: it may be what ends the process.
    async fn pause_before(&self, job: &Job) {
        let Some(over) = job.attempts.checked_sub(self.options.attempts_swift_max) else {
            return;
        };
        let pause = ATTEMPT_PAUSE.0 * 2_u32.saturating_pow(over.min(16));
        let _ = timeout(pause.min(ATTEMPT_PAUSE.1), job.stop.wanted()).await;
    }

    /// Ends a task that does not begin: cancelled, or begun too often.
    pub(super) async fn end_unbegun(&self, job: Job) {
        let (state, why) = match job.stop.reason() {
            Some(StopReason::Shutdown) => return,
            Some(StopReason::Cancelled) => (TaskState::Cancelled, "Task cancelled".to_owned()),
            None => {
                let why = format!("Task was interrupted {} times and given up", job.attempts);
                (TaskState::Failed, why)
            }
        };
        let task = self.ledger.store().get(job.id).await.ok().flatten();
        let who = task.as_ref().map_or(Who::only(job.id), Who::of);
        let words = match (self.handlers.get(job.name.as_str()), task) {
            (Some(handler), Some(task)) => last_words(handler.as_ref(), &task.body, &why),
            _ => Vec::new(),
        };
        self.conclude(&who, state, &why, words).await;
    }

    /// Records the beginning. A store that fails is asked again, with growing pauses, until the
    /// task has to stop. `None`: it does not begin.
    async fn begin(&self, job: &Job) -> Result<Option<TaskRecord>, StateError> {
        let (mut pause, pause_max) = BEGIN_PAUSE;
        loop {
            match self.ledger.store().begin(job.id).await {
                Ok(task) => return Ok(Some(task)),
                Err(error) if error.is_transient() => {
                    tracing::warn!(task = %job.id, %error, "task waits for the store");
                }
                Err(StateError::Closed) => return Ok(None),
                Err(error) => return Err(error),
            }
            if timeout(pause, job.stop.wanted()).await.is_ok() {
                let job = Job {
                    stop: job.stop.clone(),
                    name: job.name.clone(),
                    ..*job
                };
                self.end_unbegun(job).await;
                return Ok(None);
            }
            pause = (pause * 2).min(pause_max);
        }
    }

    /// Runs the handler as a task of its own, so that a panic stays there.
    async fn run(
        &self,
        who: &Who,
        handler: &Arc<dyn Handler>,
        job: &Job,
        (attempt, body): (u32, &Arc<Value>),
    ) -> Ran {
        let (handler, body) = (Arc::clone(handler), Arc::clone(body));
        let context = TaskContext::new(
            (who.id, who.request_id.clone()),
            attempt,
            job.stop.clone(),
            Arc::clone(&self.events),
            Some(Arc::clone(self.ledger.store())),
            self.options.progress_interval,
        );
        let theirs = context.clone();
        let mut running = self
            .runtime
            .spawn(async move { handler.run(&body, theirs).await });
        if let Some(entry) = self.state.lock().jobs.get_mut(&job.id) {
            entry.handler = Some(running.abort_handle());
        }
        let joined = tokio::select! {
            joined = &mut running => joined,
            never = context.catch_up() => match never {},
        };
        context.end();
        joined.map_or_else(Ran::from, Ran::Returned)
    }

    /// Ends the task by what its handler came to. `false`: it has no end yet.
    async fn judge(
        &self,
        handler: &dyn Handler,
        (who, job): (&Who, &Job),
        body: &Value,
        ran: Ran,
    ) -> bool {
        let stop = job.stop.reason();
        match ran {
            Ran::Returned(Ok(outcome)) => self.succeed(who, outcome).await,
            Ran::Returned(Err(TaskError::Failed(why))) => {
                self.conclude(who, TaskState::Failed, &why, Vec::new())
                    .await;
            }
            Ran::Returned(Err(TaskError::Stopped)) if stop == Some(StopReason::Shutdown) => {
                if let Err(error) = self.ledger.store().park(job.id).await {
                    tracing::warn!(task = %job.id, %error, "a graceful stop counts as an attempt");
                }
                return false;
            }
            Ran::Returned(Err(TaskError::Stopped)) if stop == Some(StopReason::Cancelled) => {
                let words = last_words(handler, body, "Task cancelled");
                self.conclude(who, TaskState::Cancelled, "Task cancelled", words)
                    .await;
            }
            Ran::Returned(Err(TaskError::Stopped)) => {
                let why = "Task stopped without being told to";
                let words = last_words(handler, body, why);
                self.conclude(who, TaskState::Failed, why, words).await;
            }
            Ran::Panicked(text) => {
                tracing::error!(task = %job.id, name = job.name, text, "task handler panicked");
                let why = "Task failed: internal error";
                let words = last_words(handler, body, why);
                self.conclude(who, TaskState::Failed, why, words).await;
            }
            Ran::Abandoned => return false,
        }
        true
    }

    async fn succeed(&self, who: &Who, outcome: Outcome) {
        let (task, done) = (who.id, "Task completed successfully");
        let (state, message, errors) = match outcome {
            Outcome::Done => (TaskState::Done, done.to_owned(), None),
            Outcome::DoneWith(result) => (TaskState::Done, clip(&result).to_owned(), None),
            Outcome::PartlyDone(errors) => {
                let message = format!("errors: {}", errors.join("\n"));
                let message = clip(&message).to_owned();
                (TaskState::PartlyDone, message, Some(errors))
            }
        };
        let last = match errors {
            None => Event::TaskDone {
                task,
                message: message.clone(),
            },
            Some(errors) => Event::TaskPartlyDone {
                task,
                message: message.clone(),
                errors,
            },
        };
        self.finish(who, state, &message, last).await;
    }

    /// Sends the handler's last words, records the end, and sends the last event.
    async fn conclude(&self, who: &Who, state: TaskState, why: &str, words: Vec<Event>) {
        for event in words {
            self.events.emit_for(event, who.request_id.as_deref());
        }
        let (task, text) = (who.id, clip(why));
        let message = text.to_owned();
        let last = match state {
            TaskState::Cancelled => Event::TaskCancelled { task, message },
            _ => Event::TaskFailed { task, message },
        };
        self.finish(who, state, text, last).await;
    }

    /// Makes the events safe, records the end, and says so.
    async fn finish(&self, who: &Who, state: TaskState, message: &str, last: Event) {
        let request_id = who.request_id.as_deref();
        self.events.secure(&last, request_id).await;
        self.ledger.end(who.id, state, message).await;
        self.forget(who.id);
        self.events.emit_for(last, request_id);
    }
}

/// What the handler wants to have said; nothing, if asking it panics.
fn last_words(handler: &dyn Handler, body: &Value, why: &str) -> Vec<Event> {
    let ask = AssertUnwindSafe(|| handler.last_words(body, why));
    catch_unwind(ask).unwrap_or_else(|_| {
        tracing::error!(
            name = handler.name(),
            "asking a task handler for last words panicked"
        );
        Vec::new()
    })
}

impl From<JoinError> for Ran {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::Panicked(panic_text(panic.as_ref())),
            Err(_) => Self::Abandoned,
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}
