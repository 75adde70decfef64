//! A bounded pool of threads for calls that may wait: names, directories, and, where `io_uring`
//! is forbidden, file bytes.
//!
//! Laws
//! - Threads are made on demand up to a maximum and end after a while without work.
//! - The queue is bounded by the callers (each volume has its own share): a job is never lost.
//! - A panic in a job ends that job alone; its caller sees [`Gone`].

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The job panicked or its thread could not be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

/// Threads shared by the data plane. Cheap to clone.
#[derive(Clone)]
pub struct ThreadPool(Arc<Shared>);

struct Shared {
    name: &'static str,
    threads_max: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadPool")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

impl ThreadPool {
    /// A pool of at most `threads_max` threads named `name`; none is started yet.
    pub fn new(name: &'static str, threads_max: usize) -> Self {
        assert!(threads_max > 0);
        let state = Mutex::new(State::default());
        Self(Arc::new(Shared {
            name,
            threads_max,
            state,
            work: Condvar::new(),
        }))
    }

    /// Runs `job` on a thread of the pool.
    ///
    /// # Cancellation
    /// Dropping the future does not stop the job; its result is then dropped.
    ///
    /// # Errors
    /// [`Gone`] when the job panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (sender, receiver) = oneshot::channel();
        self.submit(Box::new(move || {
            // The receiver may be gone; then nobody wants the result.
            let _ = sender.send(job());
        }));
        receiver.await.map_err(|_| Gone)
    }

    fn submit(&self, job: Job) {
        let mut state = self.0.state.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads == self.0.threads_max {
            drop(state);
            self.0.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        let spawned = std::thread::Builder::new()
            .name(self.0.name.to_owned())
            .stack_size(256 * 1024)
            .spawn(move || shared.work_loop());
        if let Err(error) = spawned {
            let mut state = self.0.state.lock();
            state.threads -= 1;
            if state.threads == 0 {
                // Nobody is left to run it: dropping the jobs tells their callers.
                state.jobs.clear();
            }
            tracing::error!(pool = self.0.name, %error, "can not start a thread");
        }
    }
}

impl Shared {
    fn work_loop(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!(pool = self.name, "a job panicked");
                }
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timed_out = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
            .build()
            .expect("a runtime for the test")
            .block_on(future)
    }

    #[test]
    fn jobs_return_their_result_and_panics_stay_alone() {
        let pool = ThreadPool::new("test", 2);
        let results = block_on(async {
            let mut results = Vec::new();
            for n in 0..100_u32 {
                results.push(
                    pool.run(move || if n == 50 { panic!("as planned") } else { n })
                        .await,
                );
            }
            results
        });
        assert_eq!(results[50], Err(Gone));
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 99);
        assert!(pool.0.state.lock().threads <= 2);
    }
}
