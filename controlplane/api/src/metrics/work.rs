//! Operations of the Manager's API on volumes: how long, how many now.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::source::{Durations, Sample};
use super::table::{DURATION_BUCKETS_S, row};

/// What is counted. Labels are names of the program and of configured volumes.
#[derive(Debug, Default)]
pub(crate) struct Work {
    done: Mutex<BTreeMap<Key, Durations>>,
    now: Mutex<BTreeMap<&'static str, u64>>,
}

/// Backend, operation, success, volume.
type Key = (String, &'static str, bool, String);

/// An operation at work.
pub(crate) struct InFlight<'w> {
    work: &'w Work,
    operation: &'static str,
}

impl Work {
    /// Counts an operation for as long as what is returned lives.
    pub(crate) fn begin(&self, operation: &'static str) -> InFlight<'_> {
        *self.now.lock().entry(operation).or_default() += 1;
        InFlight {
            work: self,
            operation,
        }
    }

    /// An operation ended.
    pub(crate) fn done(
        &self,
        operation: &'static str,
        (volume, backend): (&str, &str),
        success: bool,
        took: Duration,
    ) {
        let key = (backend.to_owned(), operation, success, volume.to_owned());
        let mut done = self.done.lock();
        let durations = done.entry(key).or_default();
        durations.count(took.as_secs_f64(), DURATION_BUCKETS_S);
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples: Vec<Sample> = self
            .now
            .lock()
            .iter()
            .map(|(operation, now)| Sample::number(&row::OPERATIONS_NOW, &[operation], *now as f64))
            .collect();
        for ((backend, operation, success, volume), durations) in &*self.done.lock() {
            let success = if *success { "true" } else { "false" };
            let labels = [backend.as_str(), operation, success, volume];
            let (row, durations) = (&row::OPERATION_DURATION, durations.clone());
            samples.push(Sample::durations(
                row,
                &labels,
                durations,
                DURATION_BUCKETS_S,
            ));
        }
        samples
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(now) = self.work.now.lock().get_mut(self.operation) {
            *now = now.saturating_sub(1);
        }
    }
}
