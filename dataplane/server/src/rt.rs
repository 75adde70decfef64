//! The executor behind a seam: tasks, timers, and readiness of sockets.
//!
//! monoio is named here and in [`crate::socket`], nowhere else, so that it can be exchanged.
//! Its house rules: no I/O future is dropped except waits for readiness and timers, which hold
//! no bytes; files go through the ring.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use monoio::net::UnixStream;

/// Starts a task on this thread.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(future));
}

/// Waits.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Lets the other tasks and the rings have their turn.
///
/// A bare wake-up would starve timers and wakers of other threads, and a timer takes a whole
/// millisecond: what is waited for is the readiness of a socket that is always ready, which is
/// one pass through the ring.
pub async fn breathe() {
    thread_local! {
        static READY: Option<Rc<UnixStream>> = always_ready();
    }
    match READY.with(Clone::clone) {
        // An error would come back at once, which is all that is asked for.
        Some(ready) => drop(ready.readable(false).await),
        None => monoio::time::sleep(Duration::ZERO).await,
    }
}

/// A socket whose peer is closed: readable for ever. `None` on epoll, where readiness that is
/// known already is answered without a pass.
fn always_ready() -> Option<Rc<UnixStream>> {
    if !monoio::utils::detect_uring() {
        return None;
    }
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().ok()?;
    drop(theirs);
    UnixStream::from_std(ours).ok().map(Rc::new)
}

/// Time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Waits for `future`, at most `limit`.
///
/// # Cancellation
/// Past the limit the future is dropped: only for futures that hold no received bytes.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    monoio::time::timeout(limit, future)
        .await
        .map_err(|_| Elapsed)
}

/// Which of two came first.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The first.
    Left(A),
    /// The second.
    Right(B),
}

/// Waits for the first of two futures and drops the other: it must hold no received bytes.
pub async fn first<A, B>(
    left: impl Future<Output = A>,
    right: impl Future<Output = B>,
) -> Either<A, B> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|cx| {
        if let Poll::Ready(value) = left.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(value));
        }
        right.as_mut().poll(cx).map(Either::Right)
    })
    .await
}

/// Runs `future` as the only root of this thread, until it is ready.
///
/// # Errors
/// The kernel refuses both io_uring and epoll.
pub fn run<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let builder = monoio::RuntimeBuilder::<monoio::FusionDriver>::new();
    let mut runtime = builder.enable_timer().build()?;
    Ok(runtime.block_on(future))
}

/// Binds the calling thread to one core.
///
/// # Errors
/// The process may not use that core.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    monoio::utils::bind_to_cpu_set([core])
        .map_err(|errno| io::Error::from_raw_os_error(errno as i32))
}
