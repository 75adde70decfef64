//! Events that must arrive, on disk until they did.
//!
//! One append-only file of JSON lines in the data directory: `put` adds an event, `due` lets a
//! held one go, `gone` strikes one. A thread of its own writes; whoever needs an event to survive
//! a crash waits for [`Outbox::sync`], and everyone who waits shares one sync.
//!
//! Laws
//! - What [`Outbox::sync`] covered is there after a crash, in its order, unless it is gone. What is
//!   gone may be there again: events are sent at least once.
//! - Bounded by count and bytes: what is dropped first is the oldest last word about a task, whose
//!   readers are long gone, then the oldest of all. Each is counted.
//! - A line that cannot be read (a torn end) costs that line only.
//! - A full disk stops nothing: events stay in memory and are written when there is room.

mod book;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use proxy_core::id::TaskId;
use tokio::sync::oneshot;

use self::book::Book;
pub(crate) use self::book::Kept;
use self::writer::{Line, Writer};

/// Limits of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Events that wait.
    pub len_max: usize,
    /// Their bytes on disk.
    pub bytes_max: usize,
}

impl Default for OutboxLimits {
    /// 100,000 deletions while Redis is away.
    fn default() -> Self {
        Self {
            len_max: 100_000,
            bytes_max: 64 << 20,
        }
    }
}

/// See the module. Dropping it writes what is left and ends the thread.
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    book: Book,
    lines: Vec<u8>,
    waiters: Vec<oneshot::Sender<bool>>,
    closed: bool,
}

impl Outbox {
    /// Opens the file at `path`, or makes it. Blocks.
    pub(crate) fn open(path: &Path, limits: OutboxLimits) -> io::Result<Self> {
        let (writer, book) = Writer::open(path, limits)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                book,
                lines: Vec::new(),
                waiters: Vec::new(),
                closed: false,
            }),
            work: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("outbox-writer".into());
        let writer = thread.spawn(move || writer.run(&theirs))?;
        Ok(Self {
            shared,
            writer: Some(writer),
        })
    }

    /// Adds an event. A held one is not sent until [`Self::release`].
    pub(crate) fn put(&self, kept: Kept, held: bool) -> u64 {
        let mut state = self.shared.state.lock();
        let (number, dropped) = state.book.put(kept, held);
        for gone in dropped {
            Line::Gone(gone).append(&mut state.lines);
        }
        let State { book, lines, .. } = &mut *state;
        if let Some((kept, held)) = book.get(number) {
            Line::Put { number, held, kept }.append(lines);
        }
        self.shared.work.notify_one();
        number
    }

    /// Lets a held event go.
    pub(crate) fn release(&self, number: u64) {
        let mut state = self.shared.state.lock();
        if state.book.release(number) {
            Line::Due(number).append(&mut state.lines);
            self.shared.work.notify_one();
        }
    }

    /// Strikes an event: it was sent, or is not to be.
    pub(crate) fn strike(&self, number: u64) {
        let mut state = self.shared.state.lock();
        if state.book.strike(number) {
            Line::Gone(number).append(&mut state.lines);
            self.shared.work.notify_one();
        }
    }

    /// The oldest event that may be sent.
    pub(crate) fn first(&self) -> Option<(u64, Kept)> {
        self.shared.state.lock().book.first()
    }

    /// Held events with their tasks.
    pub(crate) fn held(&self) -> Vec<(u64, TaskId)> {
        self.shared.state.lock().book.held()
    }

    /// How many events wait, held ones included.
    pub(crate) fn len(&self) -> usize {
        self.shared.state.lock().book.len()
    }

    /// Events that were dropped because there were too many.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.state.lock().book.dropped()
    }

    /// Waits until everything so far is on disk; `false` when the disk refused.
    pub(crate) async fn sync(&self) -> bool {
        let (waiter, synced) = oneshot::channel();
        self.shared.state.lock().waiters.push(waiter);
        self.shared.work.notify_one();
        synced.await.unwrap_or(false)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the outbox panicked");
        }
    }
}

#[cfg(test)]
mod tests;
