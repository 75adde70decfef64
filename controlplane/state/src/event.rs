//! What the outside hears of background work.
//!
//! Laws
//! - An event about a folder is sent after its effect is durable, and before the task's last event.
//! - Emitting never waits and never fails: a sink that has to send over a network queues.
//! - A sink that queues keeps what must arrive on disk. Before the end of a task goes on record,
//!   its events are there, its last one included ([`EventSink::secure`]); after a crash the sink
//!   sends what it kept.
//! - Text is UTF-8 and bounded, since it is shown to people: [`clip`].
//!
//! Source: contract, event catalogue.

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_core::id::{TaskId, VFolderId};
use tokio::sync::Notify;

/// Longest text of one event, in bytes.
pub const EVENT_TEXT_BYTES_MAX: usize = 1023;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task began or got on.
    TaskUpdated {
        /// Which.
        task: TaskId,
        /// Units done. `0 <= current <= total`
        current: u64,
        /// Units in all; 0 while unknown.
        total: u64,
        /// What is going on.
        message: Option<String>,
    },
    /// A task ended as wanted.
    TaskDone {
        /// Which.
        task: TaskId,
        /// Its result.
        message: String,
    },
    /// A task ended, but parts of it failed.
    TaskPartlyDone {
        /// Which.
        task: TaskId,
        /// A summary.
        message: String,
        /// One text per failed part.
        errors: Vec<String>,
    },
    /// A task failed.
    TaskFailed {
        /// Which.
        task: TaskId,
        /// Why, in a sentence for people.
        message: String,
    },
    /// A task was cancelled.
    TaskCancelled {
        /// Which.
        task: TaskId,
        /// What to say about it.
        message: String,
    },
    /// A folder is gone from disk.
    VFolderDeleted {
        /// Which.
        vfid: VFolderId,
    },
    /// A folder could not be removed.
    VFolderDeleteFailed {
        /// Which.
        vfid: VFolderId,
        /// Why.
        message: String,
    },
    /// A folder has a copy.
    VFolderCloned {
        /// The original.
        src: VFolderId,
        /// The copy.
        dst: VFolderId,
    },
    /// A folder could not be copied.
    VFolderCloneFailed {
        /// The original.
        src: VFolderId,
        /// What the copy would have been.
        dst: VFolderId,
        /// Why.
        message: String,
    },
}

impl Event {
    /// The name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TaskUpdated { .. } => "bgtask_updated",
            Self::TaskDone { .. } => "bgtask_done",
            Self::TaskPartlyDone { .. } => "bgtask_partial_success",
            Self::TaskFailed { .. } => "bgtask_failed",
            Self::TaskCancelled { .. } => "bgtask_cancelled",
            Self::VFolderDeleted { .. } => "vfolder_deletion_success",
            Self::VFolderDeleteFailed { .. } => "vfolder_deletion_failure",
            Self::VFolderCloned { .. } => "vfolder_clone_success",
            Self::VFolderCloneFailed { .. } => "vfolder_clone_failure",
        }
    }

    /// The task it is about, if it is about one.
    pub const fn task(&self) -> Option<TaskId> {
        match self {
            Self::TaskUpdated { task, .. }
            | Self::TaskDone { task, .. }
            | Self::TaskPartlyDone { task, .. }
            | Self::TaskFailed { task, .. }
            | Self::TaskCancelled { task, .. } => Some(*task),
            Self::VFolderDeleted { .. }
            | Self::VFolderDeleteFailed { .. }
            | Self::VFolderCloned { .. }
            | Self::VFolderCloneFailed { .. } => None,
        }
    }
}

/// Where events go. Nothing has a default: a sink that wraps another must pass everything on.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Takes one event. Does not block.
    fn emit(&self, event: Event);

    /// As [`Self::emit`], for an event that a request of this name brought about.
    fn emit_for(&self, event: Event, request_id: Option<&str>);

    /// Waits until everything emitted so far, and `last`, survive a crash. `last` is the last
    /// event of a task whose end goes on record next; it is emitted after that, as usual.
    async fn secure(&self, last: &Event, request_id: Option<&str>);

    /// Called once, at the start, with the tasks that are on record as unfinished: what was
    /// secured as the last event of any other task is due now, of these never.
    fn resume(&self, unfinished: &[TaskId]);
}

/// Writes events to the log, for an installation without a Manager listening.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSink;

#[async_trait]
impl EventSink for LogSink {
    fn emit_for(&self, event: Event, _: Option<&str>) {
        self.emit(event);
    }

    async fn secure(&self, _: &Event, _: Option<&str>) {}

    fn resume(&self, _: &[TaskId]) {}

    fn emit(&self, event: Event) {
        let name = event.name();
        match event {
            Event::TaskUpdated {
                task,
                current,
                total,
                message,
            } => {
                let message = message.unwrap_or_default();
                tracing::debug!(%task, current, total, message, "{name}");
            }
            Event::TaskDone { task, message } => tracing::info!(%task, message, "{name}"),
            Event::TaskCancelled { task, message } => tracing::info!(%task, message, "{name}"),
            Event::TaskFailed { task, message } => tracing::warn!(%task, message, "{name}"),
            Event::TaskPartlyDone {
                task,
                message,
                errors,
            } => {
                tracing::warn!(%task, message, ?errors, "{name}");
            }
            Event::VFolderDeleted { vfid } => tracing::info!(%vfid, "{name}"),
            Event::VFolderCloned { src, dst } => tracing::info!(%src, %dst, "{name}"),
            Event::VFolderDeleteFailed { vfid, message } => {
                tracing::warn!(%vfid, message, "{name}");
            }
            Event::VFolderCloneFailed { src, dst, message } => {
                tracing::warn!(%src, %dst, message, "{name}");
            }
        }
    }
}

/// Keeps events in memory, for tests. Grows without bound.
#[derive(Debug, Default)]
pub struct RecordSink {
    events: Mutex<Vec<Event>>,
    requests: Mutex<Vec<Option<String>>>,
    secured: Mutex<Vec<Event>>,
    emitted: Notify,
}

impl RecordSink {
    /// Everything emitted so far, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// The requests behind everything emitted so far, oldest first.
    pub fn requests(&self) -> Vec<Option<String>> {
        self.requests.lock().clone()
    }

    /// Every last event that was secured so far, oldest first.
    pub fn secured(&self) -> Vec<Event> {
        self.secured.lock().clone()
    }

    /// The names of everything emitted so far, oldest first.
    pub fn names(&self) -> Vec<&'static str> {
        self.events.lock().iter().map(Event::name).collect()
    }

    /// Waits until the events so far satisfy `found`; for ever, if they never do.
    pub async fn until(&self, found: impl Fn(&[Event]) -> bool) {
        loop {
            // Listening before looking: an event in between is not missed.
            let mut emitted = std::pin::pin!(self.emitted.notified());
            emitted.as_mut().enable();
            if found(&self.events.lock()) {
                return;
            }
            emitted.await;
        }
    }
}

#[async_trait]
impl EventSink for RecordSink {
    fn emit(&self, event: Event) {
        self.emit_for(event, None);
    }

    fn emit_for(&self, event: Event, request_id: Option<&str>) {
        self.requests.lock().push(request_id.map(str::to_owned));
        self.events.lock().push(event);
        self.emitted.notify_waiters();
    }

    async fn secure(&self, last: &Event, _: Option<&str>) {
        self.secured.lock().push(last.clone());
    }

    fn resume(&self, _: &[TaskId]) {}
}

/// Cuts `text` to [`EVENT_TEXT_BYTES_MAX`] bytes at a character border.
pub fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(EVENT_TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character_border() {
        for (text, bytes) in [
            (String::new(), 0),
            ("short".to_owned(), 5),
            ("x".repeat(5000), EVENT_TEXT_BYTES_MAX),
            ("é".repeat(5000), EVENT_TEXT_BYTES_MAX - 1),
            ("\u{1f980}".repeat(500), EVENT_TEXT_BYTES_MAX - 3),
        ] {
            assert_eq!(clip(&text).len(), bytes, "{} bytes", text.len());
        }
    }

    #[test]
    fn events_about_tasks_name_their_task() {
        let task = TaskId::random();
        let vfid = VFolderId::parse("aabbccddeeff00112233445566778899").unwrap();
        for (event, name, about) in [
            (
                Event::TaskUpdated {
                    task,
                    current: 0,
                    total: 0,
                    message: None,
                },
                "bgtask_updated",
                Some(task),
            ),
            (
                Event::TaskDone {
                    task,
                    message: String::new(),
                },
                "bgtask_done",
                Some(task),
            ),
            (
                Event::TaskFailed {
                    task,
                    message: String::new(),
                },
                "bgtask_failed",
                Some(task),
            ),
            (
                Event::VFolderDeleted { vfid },
                "vfolder_deletion_success",
                None,
            ),
            (
                Event::VFolderCloned {
                    src: vfid,
                    dst: vfid,
                },
                "vfolder_clone_success",
                None,
            ),
        ] {
            assert_eq!(event.name(), name);
            assert_eq!(event.task(), about, "{name}");
            LogSink.emit(event);
        }
    }
}
