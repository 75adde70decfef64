//! How tasks ended, on record: also when the store fails for a while.
//!
//! Laws
//! - An end that could not be recorded is tried again with every later one, and at shutdown.
//! - What is lost at last is that a task ended: it runs again at the next start, and its handler
//!   brings about a state that is there already.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proxy_core::id::TaskId;
use tokio::time::Instant;

use crate::clock::unix_ms;
use crate::error::StateError;
use crate::task::{TaskState, TaskStore};

/// Ends that wait for the store; beyond that the oldest are dropped.
const UNRECORDED_MAX: usize = 1000;
/// Least time between two clean-ups.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Ledger {
    store: Arc<dyn TaskStore>,
    retention: Duration,
    finished_max: usize,
    unrecorded: Mutex<Vec<End>>,
    pruned_at: Mutex<Option<Instant>>,
}

struct End {
    id: TaskId,
    state: TaskState,
    message: String,
}

impl Ledger {
    pub(super) fn new(store: Arc<dyn TaskStore>, retention: Duration, finished_max: usize) -> Self {
        let unrecorded = Mutex::default();
        let pruned_at = Mutex::default();
        Self {
            store,
            retention,
            finished_max,
            unrecorded,
            pruned_at,
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn TaskStore> {
        &self.store
    }

    /// Records the end of a task, and what is left from before.
    pub(super) async fn end(&self, id: TaskId, state: TaskState, message: &str) {
        let end = End {
            id,
            state,
            message: message.to_owned(),
        };
        if let Err(error) = self.store.end(id, state, message).await {
            tracing::error!(task = %id, %error, "the end of a task is not on record yet");
            self.put_off(end);
            return;
        }
        self.settle().await;
        let pruned_at = *self.pruned_at.lock();
        if pruned_at.is_none_or(|at| PRUNE_INTERVAL <= at.elapsed()) {
            self.prune().await;
        }
    }

    /// Records what could not be recorded before.
    pub(super) async fn settle(&self) {
        let ends = std::mem::take(&mut *self.unrecorded.lock());
        for end in ends {
            match self.store.end(end.id, end.state, &end.message).await {
                Ok(()) | Err(StateError::Unknown) => {}
                Err(_) => self.put_off(end),
            }
        }
    }

    /// Removes what is old or too much. Failing is harmless: the next clean-up does it.
    pub(super) async fn prune(&self) {
        *self.pruned_at.lock() = Some(Instant::now());
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let before_ms = unix_ms().saturating_sub(retention_ms);
        match self.store.prune(before_ms, self.finished_max).await {
            Ok(0) => {}
            Ok(tasks) => tracing::debug!(tasks, "records of finished tasks removed"),
            Err(error) => tracing::warn!(%error, "records of finished tasks were not removed"),
        }
    }

    fn put_off(&self, end: End) {
        let mut unrecorded = self.unrecorded.lock();
        if UNRECORDED_MAX <= unrecorded.len() {
            unrecorded.remove(0);
        }
        unrecorded.push(end);
    }
}
