//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

/// Asks `ready` again and again until it gives a value.
///
/// # Panics
/// When `bound` is over; `what` names the thing that did not come.
#[track_caller]
pub fn until<T>(what: &str, bound: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    match within(bound, &mut ready) {
        Some(value) => value,
        None => panic!("{what}: not within {bound:?}"),
    }
}

/// As [`until`], but `None` after the bound.
pub fn within<T>(bound: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + bound;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if end <= Instant::now() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}
