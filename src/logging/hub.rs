//! Where records go from whoever logs: over a bounded queue to one thread, which writes them.
//!
//! Laws
//! - Who logs never waits for a terminal, a disk or a network: what does not fit into the queue is
//!   dropped and counted.
//! - Until [`Hub::start`] there is no such thread (the process may still change its user), and
//!   records are written at once.
//! - Whatever is written was scrubbed of secrets.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::line::{Form, write_line};
use super::record::Record;
use super::scrub::Scrub;

/// Bytes that are gathered for one write.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// How long the end waits for the last records.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// What became of the records of one place.
#[derive(Debug, Default)]
pub struct Count {
    /// Written, or taken by the other side.
    pub written: AtomicU64,
    /// Lost.
    pub dropped: AtomicU64,
}

/// A place that records go to, by its name.
pub(super) type Counted = (&'static str, Arc<Count>);

/// Writes lines, in order.
pub(super) struct Output {
    pub(super) form: Form,
    pub(super) out: Box<dyn Write + Send>,
    pub(super) count: Counted,
}

/// Ships records over a network, on its own time.
pub(super) struct Feed {
    pub(super) to: tokio::sync::mpsc::Sender<Arc<Record>>,
    pub(super) level: tracing::Level,
    pub(super) count: Counted,
}

enum Message {
    Record(Box<Record>),
    Feeds(Vec<Feed>),
    /// Answered when everything before it is written; the feeds end with it.
    Flush(SyncSender<()>),
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hub(Arc<Inner>);

struct Inner {
    queue: OnceLock<SyncSender<Message>>,
    writer: Mutex<Option<Writer>>,
    scrub: Arc<Scrub>,
    /// What did not fit into the queue.
    lost: Counted,
    counts: Mutex<Vec<Counted>>,
}

struct Writer {
    outputs: Vec<(Output, String)>,
    feeds: Vec<Feed>,
    scrub: Arc<Scrub>,
}

impl Hub {
    pub(super) fn new(outputs: Vec<Output>, scrub: Scrub) -> Self {
        let scrub = Arc::new(scrub);
        let lost: Counted = ("queue", Arc::default());
        let mut counts: Vec<Counted> = outputs.iter().map(|out| out.count.clone()).collect();
        counts.push(lost.clone());
        let writer = Writer {
            outputs: outputs
                .into_iter()
                .map(|out| (out, String::new()))
                .collect(),
            feeds: Vec::new(),
            scrub: Arc::clone(&scrub),
        };
        Self(Arc::new(Inner {
            queue: OnceLock::new(),
            writer: Mutex::new(Some(writer)),
            scrub,
            lost,
            counts: Mutex::new(counts),
        }))
    }

    /// Takes a record.
    pub(super) fn give(&self, record: Record) {
        if let Some(queue) = self.0.queue.get() {
            match queue.try_send(Message::Record(Box::new(record))) {
                Ok(()) => return,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    self.0.lost.1.dropped.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
        if let Some(writer) = &mut *self.writer() {
            writer.take(record);
            writer.write();
        }
    }

    /// Also hides this text from now on.
    pub(super) fn hide(&self, secret: &str) {
        self.0.scrub.hide(secret);
    }

    /// Starts the thread that writes; at most `records` wait for it.
    pub(super) fn start(&self, records: usize) {
        let Some(writer) = self.writer().take() else {
            return;
        };
        let (queue, incoming) = sync_channel(records);
        let thread = std::thread::Builder::new().name("log".into());
        if thread.spawn(move || writer.run(&incoming)).is_ok() {
            // Only ever set here, where the writer was taken.
            let _ = self.0.queue.set(queue);
        }
    }

    /// Ships records to these, too.
    pub(super) fn feed(&self, feeds: Vec<Feed>) {
        let counts = feeds.iter().map(|feed| feed.count.clone());
        let mut known = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(counts);
        if let Some(queue) = self.0.queue.get() {
            // Sent before anything else is logged: there is room, or the thread is gone.
            let _ = queue.send(Message::Feeds(feeds));
        }
    }

    /// Waits until what was given so far is written, for a while; ends the feeds.
    pub(super) fn flush(&self) {
        let Some(queue) = self.0.queue.get() else {
            return;
        };
        let (done, flushed) = sync_channel(1);
        if queue.send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_WAIT);
        }
    }

    /// Places with their counts.
    pub(super) fn counts(&self) -> Vec<Counted> {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Option<Writer>> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn run(mut self, incoming: &Receiver<Message>) {
        while let Ok(first) = incoming.recv() {
            let mut next = Some(first);
            let mut flushed = Vec::new();
            while let Some(message) = next {
                match message {
                    Message::Record(record) => self.take(*record),
                    Message::Feeds(feeds) => self.feeds.extend(feeds),
                    Message::Flush(done) => {
                        self.feeds.clear();
                        flushed.push(done);
                    }
                }
                let is_full = |(_, text): &(Output, String)| GATHERED_BYTES_MAX < text.len();
                next = match self.outputs.iter().any(is_full) {
                    true => None,
                    false => incoming.try_recv().ok(),
                };
            }
            self.write();
            for done in flushed {
                // Whoever waited may have given up.
                let _ = done.send(());
            }
        }
    }

    fn take(&mut self, mut record: Record) {
        self.scrub.clean(&mut record);
        for (output, text) in &mut self.outputs {
            write_line(&record, output.form, text);
            output.count.1.written.fetch_add(1, Ordering::Relaxed);
        }
        if self.feeds.is_empty() {
            return;
        }
        let record = Arc::new(record);
        for feed in self.feeds.iter().filter(|feed| record.level <= feed.level) {
            if feed.to.try_send(Arc::clone(&record)).is_err() {
                feed.count.1.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A log that can not be written has nowhere to say so.
    fn write(&mut self) {
        for (output, text) in &mut self.outputs {
            if !text.is_empty() {
                for line in text.split_inclusive('\n') {
                    let _ = output.out.write_all(line.as_bytes());
                }
                let _ = output.out.flush();
                text.clear();
            }
        }
    }
}
