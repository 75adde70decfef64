//! How soon to try again: at once, then slower, never in step with others.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

const FIRST: Duration = Duration::from_millis(50);
/// While the server was there a short time ago: it is back within seconds of its return.
const RECENT_MAX: Duration = Duration::from_secs(1);
/// After [`RECENT`] without it.
const LONG_MAX: Duration = Duration::from_secs(5);
const RECENT: Duration = Duration::from_secs(600);
/// A connection that lived so long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// The waits between attempts.
pub(crate) struct Pace {
    wait: Duration,
    since: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            wait: FIRST,
            since: Instant::now(),
        }
    }
}

impl Pace {
    /// There was a connection from `since` to now.
    pub(crate) fn was_up(&mut self, since: Instant) {
        self.since = Instant::now();
        if since.elapsed() >= GOOD {
            self.wait = FIRST;
        }
    }

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let is_recent = self.since.elapsed() < RECENT;
        let max = if is_recent { RECENT_MAX } else { LONG_MAX };
        let wait = self.wait.min(max);
        self.wait = (self.wait * 2).min(max);
        // Between a half and the whole.
        let dice = u32::from(Uuid::new_v4().as_bytes()[0]);
        wait / 2 + wait / 2 * dice / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_a_second_and_later_to_five() {
        let mut pace = Pace::default();
        let first = pace.next();
        assert!(FIRST / 2 <= first && first <= FIRST, "{first:?}");
        for _ in 0..20 {
            assert!(pace.next() <= RECENT_MAX);
        }
        tokio::time::advance(RECENT).await;
        let waits: Vec<Duration> = (0..20).map(|_| pace.next()).collect();
        assert!(waits.iter().all(|wait| *wait <= LONG_MAX));
        assert!(waits.iter().any(|wait| RECENT_MAX < *wait), "{waits:?}");
        pace.was_up(Instant::now());
        tokio::time::advance(GOOD).await;
        pace.was_up(Instant::now() - GOOD);
        assert!(pace.next() <= FIRST);
    }
}
