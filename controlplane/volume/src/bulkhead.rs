//! Runs blocking work of one volume on tokio's blocking threads, a bounded number at a time.
//!
//! A mount that hangs keeps its threads for as long as the kernel likes. What it cannot do is
//! take more of them than its lanes have places, so the other volumes go on.
//!
//! Laws
//! - A place is held until the work has really ended, not until somebody stops waiting for it.
//! - Nobody waits longer for a place than `turn_wait_max`, except background tasks, which queue.
//! - A panic in the work is an error of that call alone.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::VolumeError;
use crate::limits::Limits;

/// The kinds of work of one volume; each has places of its own, so none starves the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Listing, mkdir, move, stat.
    Short,
    /// Usage scans.
    Scan,
    /// Clones and deletions.
    Tree,
}

/// The lanes of one volume.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    short: Arc<Semaphore>,
    scan: Arc<Semaphore>,
    tree: Arc<Semaphore>,
    turn_wait_max: Duration,
    answer_wait_max: Duration,
}

impl Bulkhead {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            short: Arc::new(Semaphore::new(limits.ops_in_flight_max)),
            scan: Arc::new(Semaphore::new(limits.scans_in_flight_max)),
            tree: Arc::new(Semaphore::new(limits.tree_ops_in_flight_max)),
            turn_wait_max: limits.turn_wait_max,
            answer_wait_max: limits.answer_wait_max,
        }
    }

    /// Runs short work and waits for it within bounds.
    ///
    /// # Errors
    /// [`VolumeError::Busy`] when there was no place or no answer in time. In the second case the
    /// work may still be done later.
    pub(crate) async fn short<T, F>(&self, work: F) -> Result<T, VolumeError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, VolumeError> + Send + 'static,
    {
        let permit = within(self.turn_wait_max, self.place(Lane::Short)).await?;
        within(self.answer_wait_max, joined(spawn(permit, work))).await
    }

    /// As [`Self::short`], for work that may take long and whose end the caller waits for.
    ///
    /// # Errors
    /// [`VolumeError::Busy`] when there was no place in time.
    pub(crate) async fn patient<T, F>(&self, work: F) -> Done<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Done<T> + Send + 'static,
    {
        let permit = within(self.turn_wait_max, self.place(Lane::Short)).await?;
        joined(spawn(permit, work)).await
    }

    /// Starts a scan once there is a place for it. The caller decides how long to wait for it.
    pub(crate) async fn scan<T, F>(&self, work: F) -> Result<JoinHandle<Done<T>>, VolumeError>
    where
        T: Send + 'static,
        F: FnOnce() -> Done<T> + Send + 'static,
    {
        let permit = within(self.turn_wait_max, self.place(Lane::Scan)).await?;
        Ok(spawn(permit, work))
    }

    /// Runs long work of a background task: waits for its place and for its end without bound.
    pub(crate) async fn tree<T, F>(&self, work: F) -> Result<T, VolumeError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, VolumeError> + Send + 'static,
    {
        let permit = self.place(Lane::Tree).await?;
        joined(spawn(permit, work)).await
    }

    async fn place(&self, lane: Lane) -> Result<OwnedSemaphorePermit, VolumeError> {
        let places = match lane {
            Lane::Short => &self.short,
            Lane::Scan => &self.scan,
            Lane::Tree => &self.tree,
        };
        Arc::clone(places)
            .acquire_owned()
            .await
            .map_err(|_| VolumeError::Busy)
    }
}

/// What blocking work ends in.
pub(crate) type Done<T> = Result<T, VolumeError>;

fn spawn<T, F>(permit: OwnedSemaphorePermit, work: F) -> JoinHandle<Done<T>>
where
    T: Send + 'static,
    F: FnOnce() -> Done<T> + Send + 'static,
{
    tokio::task::spawn_blocking(move || {
        let done = work();
        drop(permit);
        done
    })
}

/// The result of a handle; a panic inside becomes an error and was reported by the panic hook.
pub(crate) async fn joined<T>(handle: JoinHandle<Done<T>>) -> Done<T> {
    match handle.await {
        Ok(done) => done,
        Err(error) if error.is_panic() => Err(VolumeError::Internal("an operation panicked")),
        Err(_) => Err(VolumeError::Cancelled),
    }
}

async fn within<T>(time: Duration, future: impl Future<Output = Done<T>>) -> Done<T> {
    timeout(time, future)
        .await
        .unwrap_or(Err(VolumeError::Busy))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    fn bulkhead(places: usize, wait_ms: u64) -> Bulkhead {
        Bulkhead::new(&Limits {
            ops_in_flight_max: places,
            turn_wait_max: Duration::from_millis(wait_ms),
            answer_wait_max: Duration::from_millis(wait_ms),
            ..Limits::default()
        })
    }

    #[tokio::test]
    async fn a_hanging_operation_is_given_up_and_keeps_its_place() {
        let lanes = bulkhead(1, 20);
        let (release, hang) = mpsc::channel::<()>();
        let hung = lanes
            .short(move || hang.recv().map_err(|_| VolumeError::Cancelled))
            .await;
        assert!(matches!(hung, Err(VolumeError::Busy)), "no answer in time");
        let refused = lanes.short(|| Ok(())).await;
        assert!(
            matches!(refused, Err(VolumeError::Busy)),
            "no place in time"
        );
        assert!(
            lanes.tree(|| Ok(7)).await.is_ok_and(|seven| seven == 7),
            "other lanes go on"
        );
        release.send(()).unwrap();
        while lanes.short.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(lanes.short(|| Ok(())).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_frees_the_place() {
        let lanes = bulkhead(1, 1000);
        let done: Done<()> = lanes.short(|| panic!("expected by this test")).await;
        assert!(matches!(done, Err(VolumeError::Internal(_))));
        assert!(lanes.short(|| Ok(())).await.is_ok());
    }
}
