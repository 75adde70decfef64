//! Work that is begun before its result is needed, in order.
//!
//! Law: at most as many as the caller pushes are under way or waiting; dropping the queue drops
//! them all.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

enum Work<'a, T> {
    Running(Pin<Box<dyn Future<Output = T> + 'a>>),
    Done(T),
}

/// See the module.
pub(super) struct Ahead<'a, T>(VecDeque<Work<'a, T>>);

impl<'a, T> Ahead<'a, T> {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Begins `work` at once.
    pub(super) async fn push(&mut self, work: impl Future<Output = T> + 'a) {
        let mut work: Pin<Box<dyn Future<Output = T> + 'a>> = Box::pin(work);
        // Polled once, it is on its way; what it waits for wakes this task, which then asks again.
        let begun = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        self.0.push_back(match begun {
            Poll::Ready(done) => Work::Done(done),
            Poll::Pending => Work::Running(work),
        });
    }

    /// The result of the oldest. `None` when nothing is under way.
    pub(super) async fn next(&mut self) -> Option<T> {
        match self.0.pop_front()? {
            Work::Running(work) => Some(work.await),
            Work::Done(done) => Some(done),
        }
    }
}
