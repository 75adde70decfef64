//! Tasks and events on their way through, counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use proxy_api::metrics::{Durations, Sample, Source, TASK_BUCKETS_S, row};
use proxy_core::id::TaskId;
use proxy_state::{Event, EventSink, Handler, Outcome, TaskContext, TaskError};
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What was counted. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Watched(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    running: BTreeMap<&'static str, u64>,
    /// By task and how it ended.
    ended: BTreeMap<(&'static str, &'static str), Durations>,
    events: BTreeMap<&'static str, u64>,
}

impl Watched {
    /// The same handlers, counted.
    pub fn handlers(&self, handlers: Vec<Arc<dyn Handler>>) -> Vec<Arc<dyn Handler>> {
        let counted = |inner: Arc<dyn Handler>| {
            self.counts().running.insert(inner.name(), 0);
            let watched = self.clone();
            Arc::new(Counted { inner, watched }) as Arc<dyn Handler>
        };
        handlers.into_iter().map(counted).collect()
    }

    /// The same sink, counted.
    pub fn events(&self, inner: Arc<dyn EventSink>) -> Arc<dyn EventSink> {
        let watched = self.clone();
        Arc::new(CountedSink { inner, watched })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counted {
    inner: Arc<dyn Handler>,
    watched: Watched,
}

/// One run. Dropped without an end, it was cancelled, or it panicked.
struct Run<'w> {
    watched: &'w Watched,
    name: &'static str,
    begun: Instant,
    ended: &'static str,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut counts = self.watched.counts();
        if let Some(running) = counts.running.get_mut(self.name) {
            *running = running.saturating_sub(1);
        }
        let durations = counts.ended.entry((self.name, self.ended)).or_default();
        durations.count(seconds, TASK_BUCKETS_S);
    }
}

#[async_trait::async_trait]
impl Handler for Counted {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn run(&self, body: &Value, ctx: TaskContext) -> Result<Outcome, TaskError> {
        let name = self.inner.name();
        *self.watched.counts().running.entry(name).or_default() += 1;
        let mut run = Run {
            watched: &self.watched,
            name,
            begun: Instant::now(),
            ended: "cancelled",
        };
        let outcome = self.inner.run(body, ctx).await;
        run.ended = match &outcome {
            Ok(Outcome::PartlyDone(_)) => "partial_success",
            Ok(_) => "success",
            Err(TaskError::Stopped) => "cancelled",
            Err(TaskError::Failed(_)) => "failure",
        };
        outcome
    }

    async fn settled(&self, task: TaskId, body: &Value) {
        self.inner.settled(task, body).await;
    }

    fn last_words(&self, body: &Value, why: &str) -> Vec<Event> {
        self.inner.last_words(body, why)
    }
}

struct CountedSink {
    inner: Arc<dyn EventSink>,
    watched: Watched,
}

#[async_trait::async_trait]
impl EventSink for CountedSink {
    fn emit(&self, event: Event) {
        self.emit_for(event, None);
    }

    fn emit_for(&self, event: Event, request_id: Option<&str>) {
        *self
            .watched
            .counts()
            .events
            .entry(event.name())
            .or_default() += 1;
        self.inner.emit_for(event, request_id);
    }

    async fn secure(&self, last: &Event, request_id: Option<&str>) {
        self.inner.secure(last, request_id).await;
    }

    fn resume(&self, unfinished: &[TaskId]) {
        self.inner.resume(unfinished);
    }
}

impl Source for Watched {
    fn samples(&self) -> Vec<Sample> {
        let counts = self.counts();
        let mut samples = Vec::new();
        for (name, running) in &counts.running {
            samples.push(Sample::number(&row::TASKS_NOW, &[name], *running as f64));
        }
        for ((name, status), durations) in &counts.ended {
            let labels = ["", "", "", status, name];
            let count = durations.count as f64;
            samples.push(Sample::number(&row::TASKS_DONE, &labels, count));
            let (row, durations) = (&row::TASK_DURATION, durations.clone());
            samples.push(Sample::durations(row, &labels, durations, TASK_BUCKETS_S));
        }
        for (name, count) in &counts.events {
            samples.push(Sample::number(&row::EVENTS, &[name], *count as f64));
        }
        samples
    }
}
