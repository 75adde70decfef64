//! Leaves a server alone that fails again and again.

use std::time::{Duration, Instant};

/// Closed, resting, or trying one call after a rest.
#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    failures_max: u32,
    rest: Duration,
    until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, rest: Duration) -> Self {
        Self {
            failures: 0,
            failures_max: failures_max.max(1),
            rest,
            until: None,
        }
    }

    /// How long the rest still lasts. When it is over, one caller may try; the others rest on.
    pub(super) fn is_resting(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let until = self.until?;
        if now < until {
            return Some(until - now);
        }
        self.until = Some(now + self.rest);
        None
    }

    /// How a call went.
    pub(super) fn tell(&mut self, failed: bool) {
        if !failed {
            self.failures = 0;
            self.until = None;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures_max <= self.failures {
            self.until = Some(Instant::now() + self.rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_closes_it_and_a_rest_lets_one_try() {
        let mut breaker = Breaker::new(2, Duration::ZERO);
        breaker.tell(true);
        assert_eq!(breaker.is_resting(), None);
        breaker.rest = Duration::from_secs(60);
        breaker.tell(true);
        assert!(breaker.is_resting().is_some());
        breaker.until = Some(Instant::now());
        assert_eq!(breaker.is_resting(), None, "one may try");
        assert!(breaker.is_resting().is_some(), "and no more than one");
        breaker.tell(false);
        assert_eq!(breaker.is_resting(), None);
    }
}
