//! Calls on names, from a data-plane thread: in the kernel's caches if it can be, on a bounded
//! thread pool otherwise.
//!
//! Laws
//! - A data-plane thread never waits for a directory.
//! - A volume that hangs takes its own share of threads and no more: past it, and past the time
//!   limit, requests are refused with 503 while other volumes work on.

use std::sync::Arc;

use proxy_ring::ThreadPool;

use crate::rt;
use crate::snapshot::{Limits, VolumeEntry};

/// Why a call on names got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The volume's share of threads is taken, or its answer takes too long.
    TimedOut,
    /// The call panicked.
    Broken,
}

/// Runs `job` for `volume` on a thread that may wait.
///
/// # Cancellation
/// The job goes on; its share is given back when it ends.
///
/// # Errors
/// See [`Busy`].
pub async fn run<T: Send + 'static>(
    threads: &ThreadPool,
    volume: &VolumeEntry,
    limits: &Limits,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Busy> {
    let names = Arc::clone(&volume.names);
    let answer = async {
        let permit = names.acquire_owned().await.map_err(|_| Busy::Broken)?;
        let done = threads.run(move || {
            let result = job();
            drop(permit);
            result
        });
        done.await.map_err(|_| Busy::Broken)
    };
    match rt::within(limits.names_timeout, answer).await {
        Ok(done) => done,
        Err(rt::Elapsed) => Err(Busy::TimedOut),
    }
}
