//! What a volume asked of its storage system, and how it went, for those who watch.
//!
//! Laws
//! - Labels are words of this program: what a call is for, and what kind of end it had.
//! - Counting never waits for a call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::VendorError;

/// Upper bounds of the durations of calls, in seconds.
pub const CALL_BUCKETS_S: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// What a volume asked of its storage system since the start, and how it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VendorStats {
    /// Operations begun.
    pub calls: u64,
    /// Requests sent for them; more than the calls where some were repeated.
    pub tries: u64,
    /// Operations that failed in the end.
    pub failures: u64,
    /// Requests that were sent again after one that failed.
    pub retries: u64,
    /// Answers that asked to wait.
    pub throttled: u64,
    /// Requests that were not sent, since too many had failed.
    pub suspended: u64,
    /// Times that credentials were asked for.
    pub logins: u64,
    /// Bytes of all answers.
    pub bytes_received: u64,
    /// Microseconds of all tries together.
    pub elapsed_us: u64,
    /// Requests under way now.
    pub in_flight: u64,
    /// Nothing is sent now.
    pub is_suspended: bool,
}

/// Operations of one kind that had one kind of end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallTally {
    /// What they were for, in words with hyphens.
    pub operation: String,
    /// `ok`, or what kind of failure it was.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
    /// Seconds, all together, repetitions included.
    pub seconds: f64,
    /// How many per bucket of [`CALL_BUCKETS_S`], not cumulative; the last is beyond all bounds.
    pub buckets: Vec<u64>,
}

/// The counters of one volume. See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(crate) calls: AtomicU64,
    pub(crate) tries: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) suspended: AtomicU64,
    pub(crate) logins: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) elapsed_us: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) is_suspended: AtomicBool,
    tallies: Mutex<BTreeMap<(&'static str, &'static str), CallTally>>,
}

impl Ledger {
    /// The numbers so far.
    pub fn stats(&self) -> VendorStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        VendorStats {
            calls: of(&self.calls),
            tries: of(&self.tries),
            failures: of(&self.failures),
            retries: of(&self.retries),
            throttled: of(&self.throttled),
            suspended: of(&self.suspended),
            logins: of(&self.logins),
            bytes_received: of(&self.bytes),
            elapsed_us: of(&self.elapsed_us),
            in_flight: of(&self.in_flight),
            is_suspended: self.is_suspended.load(Ordering::Relaxed),
        }
    }

    /// The operations so far, by what they were for and how they ended.
    pub fn tallies(&self) -> Vec<CallTally> {
        self.tallies.lock().values().cloned().collect()
    }

    /// An operation ended.
    pub(crate) fn ended<T>(
        &self,
        operation: &'static str,
        done: &Result<T, VendorError>,
        took: Duration,
    ) {
        let outcome = match done {
            Ok(_) => "ok",
            Err(error) => error.cause.label(),
        };
        if done.is_err() {
            add(&self.failures, 1);
        }
        let mut tallies = self.tallies.lock();
        let tally = tallies
            .entry((operation, outcome))
            .or_insert_with(|| CallTally {
                operation: operation.replace(' ', "-"),
                outcome,
                buckets: vec![0; CALL_BUCKETS_S.len() + 1],
                ..CallTally::default()
            });
        let seconds = took.as_secs_f64();
        let bucket = CALL_BUCKETS_S.iter().position(|bound| seconds <= *bound);
        tally.buckets[bucket.unwrap_or(CALL_BUCKETS_S.len())] += 1;
        tally.count += 1;
        tally.seconds += seconds;
    }

    /// A request begins; it is under way until what is returned is dropped.
    pub(crate) fn flying(&self) -> Flying<'_> {
        add(&self.tries, 1);
        add(&self.in_flight, 1);
        Flying(&self.in_flight)
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Counts one request while it is under way, however it ends.
pub(crate) struct Flying<'a>(&'a AtomicU64);

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cause;
    use super::*;

    #[test]
    fn operations_are_counted_by_their_end() {
        let ledger = Ledger::default();
        let error = |cause| {
            Err::<(), _>(VendorError {
                system: "Weka",
                operation: "set quota",
                cause,
                code: None,
                text: String::new(),
            })
        };
        let ms = Duration::from_millis;
        ledger.ended("set quota", &Ok(()), ms(20));
        ledger.ended("set quota", &Ok(()), ms(70_000));
        ledger.ended("set quota", &error(Cause::NotFound), ms(5));
        let tallies = ledger.tallies();
        let row = |at: usize| {
            let CallTally {
                operation, outcome, ..
            } = &tallies[at];
            (operation.as_str(), *outcome, tallies[at].count)
        };
        assert_eq!(row(0), ("set-quota", "not-found", 1));
        assert_eq!(row(1), ("set-quota", "ok", 2));
        let mut want = vec![0; CALL_BUCKETS_S.len() + 1];
        (want[2], want[CALL_BUCKETS_S.len()]) = (1, 1);
        assert_eq!(tallies[1].buckets, want);
        assert!((tallies[1].seconds - 70.02).abs() < 0.001);
        assert_eq!(ledger.stats().failures, 1);
        let flying = ledger.flying();
        assert_eq!((ledger.stats().tries, ledger.stats().in_flight), (1, 1));
        drop(flying);
        assert_eq!(ledger.stats().in_flight, 0);
    }
}
