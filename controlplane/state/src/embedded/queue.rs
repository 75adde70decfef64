//! The way to the writer thread: a bounded queue that is emptied in batches.
//!
//! Laws
//! - Bounded: a caller waits for room without holding anything, and can be dropped while it waits.
//! - A change that is queued is applied and settled exactly once, also when its caller is gone,
//!   also when the store closes.
//! - The writer sleeps until there is work, until recorded-later work is due, or until the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::tables::Tables;
use crate::error::StateError;

/// One change to the store, with what it needs to answer its caller.
pub(super) trait Change: Send {
    /// Makes the change inside the transaction of the batch. An error is a failure of the storage
    /// and fails the batch; a refusal is kept for [`Change::settle`] and writes nothing.
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), redb::Error>;

    /// Tells the caller, after the commit.
    fn settle(self: Box<Self>, committed: Result<(), StateError>);
}

/// See the module.
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// When work that is kept elsewhere has to be committed.
    due: Option<Instant>,
    closed: bool,
}

struct Item {
    change: Box<dyn Change>,
    /// Room in the queue, given back when the writer takes the change.
    _room: OwnedSemaphorePermit,
}

/// What the writer should do next.
pub(super) enum Work {
    /// Commit these, and what is kept elsewhere. May be empty.
    Batch(Vec<Box<dyn Change>>),
    /// Nothing will come any more.
    End,
}

impl Queue {
    /// A queue for up to `len_max` changes.
    pub(super) fn new(len_max: usize) -> Self {
        assert!(len_max > 0);
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            room: Arc::new(Semaphore::new(len_max)),
        }
    }

    /// Queues a change, waiting for room.
    pub(super) async fn push(&self, change: Box<dyn Change>) -> Result<(), StateError> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(|_| StateError::Closed)?;
        let mut state = self.state.lock();
        if state.closed {
            return Err(StateError::Closed);
        }
        state.items.push_back(Item {
            change,
            _room: room,
        });
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Says that work kept elsewhere has to be committed within `linger`.
    pub(super) fn work_within(&self, linger: Duration) {
        let mut state = self.state.lock();
        if state.due.is_none() {
            state.due = Some(Instant::now() + linger);
            drop(state);
            self.work.notify_one();
        }
    }

    /// Refuses new changes; what is queued will be done.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.work.notify_one();
    }

    /// Changes waiting.
    pub(super) fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Waits for work; takes up to `batch_max` changes.
    pub(super) fn take(&self, batch_max: usize) -> Work {
        let mut state = self.state.lock();
        loop {
            let due_now = state.due.is_some_and(|due| due <= Instant::now());
            if !state.items.is_empty() || due_now {
                state.due = None;
                let count = state.items.len().min(batch_max);
                return Work::Batch(state.items.drain(..count).map(|item| item.change).collect());
            }
            if state.closed {
                return Work::End;
            }
            match state.due {
                Some(due) => {
                    let _ = self.work.wait_until(&mut state, due);
                }
                None => self.work.wait(&mut state),
            }
        }
    }
}
