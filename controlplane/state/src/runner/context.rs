//! What a running task gets from its runner: a way to be stopped, and a way to tell.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proxy_core::id::TaskId;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::meter::Meter;
use crate::event::{Event, EventSink, clip};
use crate::task::{Progress, TaskStore};

/// Why a task has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody does not want it any more.
    Cancelled,
    /// The program ends; the task will run again at the next start.
    Shutdown,
}

/// Whether a task has to stop. Cheap to clone and to ask, from any thread.
#[derive(Clone, Debug)]
pub struct Stop {
    reason: watch::Receiver<Option<StopReason>>,
}

/// Tells a task to stop.
#[derive(Debug)]
pub struct StopSwitch {
    reason: watch::Sender<Option<StopReason>>,
}

impl Stop {
    /// A stop that does not come unless the switch is used.
    pub fn pair() -> (StopSwitch, Self) {
        let (sender, receiver) = watch::channel(None);
        (StopSwitch { reason: sender }, Self { reason: receiver })
    }

    /// A stop that never comes.
    pub fn never() -> Self {
        Self::pair().1
    }

    /// Why to stop; `None`: go on.
    pub fn reason(&self) -> Option<StopReason> {
        *self.reason.borrow()
    }

    /// Whether to stop at the next safe point.
    pub fn is_wanted(&self) -> bool {
        self.reason().is_some()
    }

    /// Waits until the task has to stop; for ever, if that never happens.
    pub async fn wanted(&self) -> StopReason {
        let mut reason = self.reason.clone();
        match reason.wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl StopSwitch {
    /// Tells the task to stop. Being cancelled outweighs a shutdown.
    pub fn stop(&self, why: StopReason) {
        self.reason.send_if_modified(|reason| match reason {
            None | Some(StopReason::Shutdown) if *reason != Some(why) => {
                *reason = Some(why);
                true
            }
            _ => false,
        });
    }
}

/// What a running task gets. Cheap to clone and to move to blocking threads.
#[derive(Clone)]
pub struct TaskContext {
    inner: Arc<Inner>,
}

struct Inner {
    task: TaskId,
    attempt: u32,
    stop: Stop,
    request_id: Option<Arc<str>>,
    events: Arc<dyn EventSink>,
    store: Option<Arc<dyn TaskStore>>,
    /// `None` once the task has ended: a thread that was left behind says nothing more.
    meter: Mutex<Option<Meter>>,
    unsaid: Notify,
}

impl TaskContext {
    pub(super) fn new(
        (task, request_id): (TaskId, Option<Arc<str>>),
        attempt: u32,
        stop: Stop,
        events: Arc<dyn EventSink>,
        store: Option<Arc<dyn TaskStore>>,
        interval: Duration,
    ) -> Self {
        let meter = Mutex::new(Some(Meter::new(interval)));
        let unsaid = Notify::new();
        Self {
            inner: Arc::new(Inner {
                task,
                attempt,
                stop,
                request_id,
                events,
                store,
                meter,
                unsaid,
            }),
        }
    }

    /// A context without a runner, for tests of handlers. Every report is emitted.
    pub fn detached(events: Arc<dyn EventSink>, stop: Stop) -> Self {
        Self::new(
            (TaskId::random(), None),
            1,
            stop,
            events,
            None,
            Duration::ZERO,
        )
    }

    /// Which task runs.
    pub fn task(&self) -> TaskId {
        self.inner.task
    }

    /// Which attempt this is, from 1. Above 1, an earlier one was interrupted.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// Whether to stop.
    pub fn stop(&self) -> &Stop {
        &self.inner.stop
    }

    /// Sends an event about the task's effect. The effect must be durable.
    pub fn emit(&self, event: Event) {
        let request_id = self.inner.request_id.as_deref();
        self.inner.events.emit_for(event, request_id);
    }

    /// Says how far the task is, in units of its own choice; `total` 0 while unknown. May be
    /// called as often as wanted: readers see the latest at once, events are sent rarely.
    pub fn progress(&self, current: u64, total: u64, message: Option<&str>) {
        let message = message.map(|message| clip(message).to_owned());
        let mut slot = self.inner.meter.lock();
        let Some(meter) = slot.as_mut() else { return };
        let said = meter.report(
            Instant::now(),
            Progress {
                current,
                total,
                message,
            },
        );
        if let Some(store) = &self.inner.store {
            store.update(self.inner.task, meter.last().clone());
        }
        // Emitted under the lock: reports must not overtake each other, and sinks do not wait.
        match said {
            Some(said) => self.emit_progress(said),
            None => self.inner.unsaid.notify_one(),
        }
    }

    /// Says what could not be said when it was reported. Runs beside the task, never returns.
    pub(super) async fn catch_up(&self) -> Infallible {
        loop {
            let due = self.inner.meter.lock().as_ref().and_then(Meter::due);
            match due {
                Some(due) => sleep_until(due).await,
                None => self.inner.unsaid.notified().await,
            }
            let mut slot = self.inner.meter.lock();
            if let Some(said) = slot.as_mut().and_then(|meter| meter.say(Instant::now())) {
                self.emit_progress(said);
            }
        }
    }

    /// From now on reports are not heard.
    pub(super) fn end(&self) {
        *self.inner.meter.lock() = None;
    }

    fn emit_progress(&self, said: Progress) {
        let Progress {
            current,
            total,
            message,
        } = said;
        self.emit(Event::TaskUpdated {
            task: self.inner.task,
            current,
            total,
            message,
        });
    }
}
