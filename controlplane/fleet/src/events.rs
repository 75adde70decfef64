//! The event bus: what this server has to say to the fleet, over Redis.
//!
//! Laws
//! - Emitting never waits. What must arrive (events for consumer groups, the last word about a
//!   task) is on disk before the end of its task is on record, and is sent at least once, in its
//!   order, however long Redis is away. Progress may be lost, and is counted then.
//! - Order within a task: started, progress, events about folders, bookkeeping, last word.
//! - The stream is short for everybody: while its consumers lag, events wait here, for a time.
//! - No consumer group is made, and the stream is never read from.
//!
//! Source: contract, events 4, 6 and 10.

mod pace;
mod passing;
mod send;
mod subscriber;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_core::id::TaskId;
use proxy_state::{Event, EventSink};
use tokio::sync::Notify;
use tokio::time::timeout;

use self::passing::Passing;
pub use self::subscriber::{VolumeRequests, listen};
use crate::frame::catalogue::Way;
use crate::frame::{FleetEvent, Frame};
use crate::link::Link;
pub use crate::outbox::OutboxLimits;
use crate::outbox::{Kept, Outbox};

/// Name of the outbox in the data directory.
const OUTBOX: &str = "outbox.jsonl";

/// Limits of an [`EventBus`].
#[derive(Clone, Debug)]
pub struct BusOptions {
    /// What may wait on disk.
    pub outbox: OutboxLimits,
    /// Events that wait in memory: progress, replies, registrations. Default 1024.
    pub passing_max: usize,
    /// How long events wait for a consumer that does not read. Default 5 minutes: a Manager that
    /// is being replaced.
    pub lag_wait: Duration,
    /// How long they wait for one that reads and does not acknowledge. Default 30 seconds.
    pub pending_wait: Duration,
    /// Whether every event is logged. Default no.
    pub log_events: bool,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self {
            outbox: OutboxLimits::default(),
            passing_max: 1024,
            lag_wait: Duration::from_secs(5 * 60),
            pending_wait: Duration::from_secs(30),
            log_events: false,
        }
    }
}

/// What the bus has done and holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusStats {
    /// Events sent.
    pub sent: u64,
    /// Those of them that an earlier process had left.
    pub replayed: u64,
    /// Attempts that failed and were, or will be, repeated.
    pub retried: u64,
    /// Events that nobody will hear.
    pub dropped: u64,
    /// Events sent although their consumers did not keep up.
    pub forced: u64,
    /// Events put on disk.
    pub kept: u64,
    /// Events on disk now.
    pub spooled: usize,
    /// Events in memory now.
    pub passing: usize,
}

#[derive(Debug, Default)]
struct Counters {
    kept: AtomicU64,
    sent: AtomicU64,
    replayed: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
    forced: AtomicU64,
}

/// What has to be done before the last word about a task goes out.
#[async_trait]
pub trait Bookkeeper: Send + Sync {
    /// Settles the shared record of a task that has ended. Bounded in time, never fails: what
    /// could not be done is done later.
    async fn settle(&self, task: TaskId);
}

/// See the module. Cheap to clone; all clones are one bus.
#[derive(Clone)]
pub struct EventBus {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    outbox: Outbox,
    passing: Mutex<Passing>,
    /// Last words that were secured and not emitted.
    promised: Mutex<HashMap<TaskId, u64>>,
    books: OnceLock<Arc<dyn Bookkeeper>>,
    options: BusOptions,
    counters: Counters,
    /// Something was added.
    work: Notify,
    /// Something was sent.
    progress: Notify,
}

impl EventBus {
    /// A bus over `link` (role `stream`) with its outbox in `data_dir`. Blocks for the disk;
    /// nothing is sent until [`Self::run`].
    ///
    /// # Errors
    /// The outbox could not be opened.
    pub fn open(link: Link, data_dir: &Path, options: BusOptions) -> io::Result<Self> {
        let outbox = Outbox::open(&data_dir.join(OUTBOX), options.outbox)?;
        let left = outbox.len();
        if 0 < left {
            tracing::info!(events = left, "events of an earlier run wait to be sent");
        }
        let passing = Mutex::new(Passing::new(options.passing_max));
        Ok(Self {
            inner: Arc::new(Inner {
                link,
                outbox,
                passing,
                promised: Mutex::default(),
                books: OnceLock::new(),
                options,
                counters: Counters::default(),
                work: Notify::new(),
                progress: Notify::new(),
            }),
        })
    }

    /// Sends what comes, for ever. To be run once, beside everything else.
    pub async fn run(self) {
        send::run(&self.inner).await;
    }

    /// Takes one event of any kind. Does not block.
    pub fn publish(&self, event: &FleetEvent, request_id: Option<&str>) {
        let frame = Frame::of(event, request_id);
        let inner = &self.inner;
        if inner.options.log_events {
            let body = &*frame.payload;
            tracing::info!(event = event.name(), request_id, body, "event sent");
        }
        match event.way() {
            Way::Kept => drop(inner.put(Kept::new(&frame, None), false)),
            Way::Last(task) => match inner.promised.lock().remove(&task) {
                Some(number) => inner.outbox.release(number),
                None => drop(inner.put(Kept::new(&frame, Some(task)), false)),
            },
            way @ (Way::Passing | Way::Heard | Way::Progress(_)) => {
                let dropped = inner.passing.lock().push(frame, way);
                inner.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        inner.work.notify_one();
    }

    /// What it has done and holds.
    pub fn stats(&self) -> BusStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Inner {
            counters, outbox, ..
        } = self.inner.as_ref();
        BusStats {
            sent: count(&counters.sent),
            replayed: count(&counters.replayed),
            retried: count(&counters.retried),
            dropped: count(&counters.dropped) + outbox.dropped(),
            forced: count(&counters.forced),
            kept: count(&counters.kept),
            spooled: outbox.len(),
            passing: self.inner.passing.lock().len(),
        }
    }

    /// Waits until everything that may be sent is sent; `false` when that takes longer than
    /// `bound`, or Redis is away. What is left on disk is sent after the next start.
    pub async fn flush(&self, bound: Duration) -> bool {
        let flushed = async {
            loop {
                let mut progress = std::pin::pin!(self.inner.progress.notified());
                progress.as_mut().enable();
                if self.inner.is_idle() {
                    return true;
                }
                if !self.inner.link.is_up() {
                    return false;
                }
                progress.await;
            }
        };
        timeout(bound, flushed).await.unwrap_or(false)
    }

    /// Whether events are logged.
    pub fn logs_events(&self) -> bool {
        self.inner.options.log_events
    }

    /// The link it sends over.
    pub fn link(&self) -> &Link {
        &self.inner.link
    }

    /// Who settles the shared record of a task before its last word goes out.
    pub fn set_bookkeeper(&self, books: Arc<dyn Bookkeeper>) {
        // The first one stays: there is one store of tasks.
        let _ = self.inner.books.set(books);
    }
}

impl Inner {
    fn put(&self, kept: Kept, held: bool) -> u64 {
        self.counters.kept.fetch_add(1, Ordering::Relaxed);
        self.outbox.put(kept, held)
    }

    fn is_idle(&self) -> bool {
        self.passing.lock().is_empty() && self.outbox.first().is_none()
    }
}

#[async_trait]
impl EventSink for EventBus {
    fn emit(&self, event: Event) {
        self.emit_for(event, None);
    }

    fn emit_for(&self, event: Event, request_id: Option<&str>) {
        self.publish(&FleetEvent::Work(event), request_id);
    }

    async fn secure(&self, last: &Event, request_id: Option<&str>) {
        let event = FleetEvent::Work(last.clone());
        let Way::Last(task) = event.way() else { return };
        let kept = Kept::new(&Frame::of(&event, request_id), Some(task));
        let number = self.inner.put(kept, true);
        if let Some(older) = self.inner.promised.lock().insert(task, number) {
            self.inner.outbox.strike(older);
        }
        if !self.inner.outbox.sync().await {
            tracing::warn!(%task, "the events of a task are in memory only");
        }
    }

    fn resume(&self, unfinished: &[TaskId]) {
        let unfinished: HashSet<&TaskId> = unfinished.iter().collect();
        let promised = self.inner.promised.lock();
        let is_ours = |number: &u64| promised.values().any(|ours| ours == number);
        for (number, task) in self.inner.outbox.held() {
            match () {
                () if is_ours(&number) => {}
                () if unfinished.contains(&task) => self.inner.outbox.strike(number),
                () => self.inner.outbox.release(number),
            }
        }
        self.inner.work.notify_one();
    }
}
