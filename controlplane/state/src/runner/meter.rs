//! Progress of one task: kept sane, and not said too often.
//!
//! Decides, never waits: the clock comes in as an argument.
//!
//! Laws
//! - What is said never goes back and never passes the total; the total, once known, stays.
//! - Two reports are never said within one interval, and the last one is always said in the end:
//!   at once, or when [`Meter::due`] says.
//!
//! Source: contract, background tasks 6.3: each event is fanned out to every node of a cluster.

use std::time::Duration;

use tokio::time::Instant;

use crate::task::Progress;

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    interval: Duration,
    said_at: Option<Instant>,
    last: Progress,
    is_unsaid: bool,
}

impl Meter {
    pub(super) const fn new(interval: Duration) -> Self {
        let last = Progress {
            current: 0,
            total: 0,
            message: None,
        };
        Self {
            interval,
            said_at: None,
            last,
            is_unsaid: false,
        }
    }

    /// Notes a report; yields it if it may be said now.
    pub(super) fn report(&mut self, now: Instant, report: Progress) -> Option<Progress> {
        if self.last.total == 0 {
            self.last.total = report.total;
        }
        let mut current = report.current.max(self.last.current);
        if 0 < self.last.total {
            current = current.min(self.last.total);
        }
        self.last.current = current;
        self.last.message = report.message;
        self.is_unsaid = true;
        self.say(now)
    }

    /// What is left to say, if it may be said now.
    pub(super) fn say(&mut self, now: Instant) -> Option<Progress> {
        if !self.is_unsaid || self.due().is_some_and(|due| now < due) {
            return None;
        }
        self.is_unsaid = false;
        self.said_at = Some(now);
        Some(self.last.clone())
    }

    /// When something may be said again; `None`: now, or there is nothing to say.
    pub(super) fn due(&self) -> Option<Instant> {
        self.said_at
            .filter(|_| self.is_unsaid)
            .map(|said| said + self.interval)
    }

    /// The latest report, said or not.
    pub(super) const fn last(&self) -> &Progress {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn report(current: u64, total: u64) -> Progress {
        Progress {
            current,
            total,
            message: None,
        }
    }

    /// Reports `[ms, current, total]` in turn; wants what is said, `None` for nothing.
    #[track_caller]
    fn check(reports: &[([u64; 3], Option<[u64; 2]>)]) {
        let mut meter = Meter::new(Duration::from_millis(500));
        let start = Instant::now();
        for ([ms, current, total], want) in reports {
            let now = start + Duration::from_millis(*ms);
            let said = meter.report(now, report(*current, *total));
            assert_eq!(
                said,
                want.map(|[current, total]| report(current, total)),
                "at {ms} ms"
            );
        }
    }

    #[test]
    fn reports_are_said_at_most_once_per_interval() {
        check(&[
            ([0, 1, 10], Some([1, 10])),
            ([1, 2, 10], None),
            ([499, 3, 10], None),
            ([500, 4, 10], Some([4, 10])),
            ([999, 5, 10], None),
            ([9000, 6, 10], Some([6, 10])),
        ]);
    }

    #[test]
    fn what_is_said_is_sane() {
        check(&[([0, 1, 0], Some([1, 0])), ([500, 2, 9], Some([2, 9]))]);
        check(&[([0, 5, 9], Some([5, 9])), ([500, 3, 9], Some([5, 9]))]);
        check(&[([0, 5, 9], Some([5, 9])), ([500, 11, 20], Some([9, 9]))]);
        check(&[([0, 9, 5], Some([5, 5]))]);
    }

    #[test]
    fn the_last_report_is_said_in_the_end() {
        let mut meter = Meter::new(Duration::from_millis(500));
        let start = Instant::now();
        assert_eq!(meter.due(), None);
        meter.report(start, report(1, 9)).unwrap();
        assert_eq!(meter.due(), None);
        assert_eq!(meter.report(start, report(2, 9)), None);
        let due = meter.due().unwrap();
        assert_eq!(due, start + Duration::from_millis(500));
        assert_eq!(meter.say(start), None);
        assert_eq!(meter.say(due), Some(report(2, 9)));
        assert_eq!(meter.say(due + Duration::from_secs(9)), None);
    }
}
