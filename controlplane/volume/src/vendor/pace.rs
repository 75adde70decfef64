//! When to call: how many at once, how many per second, not at all for a while, and when again.
//!
//! Laws
//! - A storage system that fails is left alone: after some failures in a row nothing is sent for
//!   a time that doubles, then one call tries.
//! - Waiting times that repeat grow, and are spread by chance, so that many proxies do not call
//!   in step.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How many calls at once, and per second.
#[derive(Debug)]
pub(crate) struct Gate {
    at_once: Semaphore,
    step: Duration,
    burst: Duration,
    /// The place of the next call in time.
    next: Mutex<Instant>,
}

impl Gate {
    /// Lets `at_once` calls be under way, and `per_second` begin, after a burst of `at_once`.
    pub(crate) fn new(at_once: usize, per_second: u32) -> Self {
        let step = Duration::from_secs(1) / per_second.max(1);
        Self {
            at_once: Semaphore::new(at_once.max(1)),
            step,
            burst: step.saturating_mul(u32::try_from(at_once).unwrap_or(u32::MAX)),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for a turn, which lasts until the permit is dropped.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        let permit = self.at_once.acquire().await;
        let wait = {
            let now = Instant::now();
            let mut next = self.next.lock();
            let earliest = now.checked_sub(self.burst).unwrap_or(now);
            let mine = (*next).max(earliest);
            *next = mine + self.step;
            mine.saturating_duration_since(now)
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        permit.expect("the semaphore is never closed")
    }
}

/// Stops calls to what fails. See the module.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: Mutex<State>,
    failures_max: u32,
    pause_min: Duration,
    pause_max: Duration,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    pause: Duration,
    open_until: Option<Instant>,
    probing: bool,
    last: String,
}

/// The right to send one call; dropped without a word, it gives the right back.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    /// Stops after `failures_max` failures in a row, for `pause_min` at first.
    pub(crate) fn new(failures_max: u32, pause_min: Duration, pause_max: Duration) -> Self {
        Self {
            state: Mutex::default(),
            failures_max: failures_max.max(1),
            pause_min,
            pause_max,
        }
    }

    /// Whether nothing is sent now.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().open_until.is_some()
    }

    /// Asks to send a call.
    ///
    /// # Errors
    /// What failed last, when nothing is to be sent now.
    pub(crate) fn admit(&self) -> Result<Admission<'_>, String> {
        let mut state = self.state.lock();
        let probe = match state.open_until {
            None => false,
            Some(until) if until <= Instant::now() && !state.probing => {
                state.probing = true;
                true
            }
            Some(_) => return Err(state.last.clone()),
        };
        Ok(Admission {
            breaker: self,
            probe,
        })
    }
}

impl Admission<'_> {
    /// The storage system answered. True when calls were stopped before this.
    pub(crate) fn answered(self) -> bool {
        let mut state = self.breaker.state.lock();
        let last = std::mem::take(&mut state.last);
        let was_open = state.open_until.is_some();
        // An answer to an old call does not end the pause that newer failures began.
        if self.probe || !was_open {
            *state = State::default();
            return was_open;
        }
        state.last = last;
        false
    }

    /// It failed. Gives the pause, when this begins one.
    pub(crate) fn failed(self, why: &str) -> Option<Duration> {
        let breaker = self.breaker;
        let mut state = breaker.state.lock();
        why.clone_into(&mut state.last);
        state.failures = state.failures.saturating_add(1);
        let opens =
            self.probe || (state.open_until.is_none() && breaker.failures_max <= state.failures);
        if !opens {
            return None;
        }
        state.pause = (state.pause * 2).clamp(breaker.pause_min, breaker.pause_max);
        state.open_until = Some(Instant::now() + state.pause);
        Some(state.pause)
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state.lock().probing = false;
        }
    }
}

/// Waiting times that grow up to a bound, for asking again and again until a deadline.
#[derive(Debug)]
pub(crate) struct Pace {
    wait: Duration,
    wait_max: Duration,
    end: Instant,
}

impl Pace {
    /// From `first` on, at most `wait_max` each, `bound` in all.
    pub(crate) fn new(first: Duration, wait_max: Duration, bound: Duration) -> Self {
        Self {
            wait: first,
            wait_max,
            end: Instant::now() + bound,
        }
    }

    /// Waits for the next time; `false` when the deadline has passed.
    pub(crate) async fn next(&mut self) -> bool {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.wait.min(left)).await;
        self.wait = self.wait.mul_f64(1.6).min(self.wait_max);
        true
    }
}

/// A time between half of `wait` and `wait`, by chance.
pub(crate) fn spread(wait: Duration) -> Duration {
    // A hasher with random keys is enough chance for this, and needs no crate.
    use std::hash::{BuildHasher, RandomState};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let chance = RandomState::new().hash_one(CALLS.fetch_add(1, Ordering::Relaxed));
    let part = f64::from((chance >> 32) as u32) / f64::from(u32::MAX);
    wait.mul_f64(0.5 + part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn the_breaker_opens_after_failures_in_a_row() {
        let breaker = Breaker::new(3, LONG, LONG);
        for (failures, opens) in [(1, false), (2, false), (3, true)] {
            let pause = breaker.admit().unwrap().failed("no route");
            assert_eq!(pause.is_some(), opens, "{failures}");
            if failures == 1 {
                assert!(
                    !breaker.admit().unwrap().answered(),
                    "which counts from new"
                );
                assert!(breaker.admit().unwrap().failed("no route").is_none());
            }
        }
        assert!(breaker.is_open());
        assert_eq!(breaker.admit().unwrap_err(), "no route");
    }

    #[test]
    fn one_call_tries_after_the_pause() {
        let breaker = Breaker::new(1, Duration::ZERO, LONG);
        let late = breaker.admit().unwrap();
        breaker.admit().unwrap().failed("gone");
        assert!(!late.answered(), "an answer to an old call proves nothing");
        let probe = breaker.admit().unwrap();
        assert_eq!(breaker.admit().unwrap_err(), "gone", "only one");
        drop(probe);
        let probe = breaker
            .admit()
            .expect("a dropped probe gives its right back");
        assert!(probe.answered());
        assert!(!breaker.is_open());
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let breaker = Breaker::new(1, SHORT, SHORT * 3);
        let first = breaker.admit().unwrap().failed("");
        assert_eq!(first, Some(SHORT));
        for want in [SHORT * 2, SHORT * 3, SHORT * 3] {
            let probe = loop {
                if let Ok(probe) = breaker.admit() {
                    break probe;
                }
                std::thread::yield_now();
            };
            assert_eq!(probe.failed(""), Some(want));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_wait_for_their_turn() {
        let gate = Gate::new(1, 10);
        let begin = Instant::now();
        let first = gate.turn().await;
        let second = tokio::time::timeout(SHORT, gate.turn()).await;
        assert!(second.is_err(), "one at once");
        drop(first);
        for _ in 0..4 {
            drop(gate.turn().await);
        }
        let waited = begin.elapsed().as_millis();
        assert!(
            (200..=400).contains(&waited),
            "{waited} ms for 5 calls at 10 per second"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_grows_and_ends() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(200), ms(400), ms(2_000_000));
        let mut waits = Vec::new();
        for _ in 0..4 {
            let begin = Instant::now();
            assert!(pace.next().await);
            waits.push(begin.elapsed().as_millis());
        }
        assert_eq!(waits, [200, 320, 400, 400]);
        assert!(!Pace::new(ms(1), ms(1), Duration::ZERO).next().await);
        let spread = spread(ms(100));
        assert!(ms(50) <= spread && spread <= ms(100), "{spread:?}");
    }
}
