//! The second ring of a data-plane thread, woken into monoio through an eventfd.
//!
//! Laws
//! - Everything pushed in one round of the scheduler goes out with one `io_uring_enter`, but bulk
//!   writes, which go out in batches of their own.
//! - What an operation touches lives in its slot until its last completion.
//! - Wakers run outside of every borrow.
//!
//! Flags: SINGLE_ISSUER and COOP_TASKRUN (kernel 6.0); without them an older kernel gets a plain
//! ring. DEFER_TASKRUN is left out: with it every wake-up must enter the kernel once more.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};

use crate::Gauges;
use crate::slots::{Held, Reaped, Slots};

/// Completions that belong to no slot: cancellations.
const NOBODY: u64 = u64::MAX;
/// Bulk writes are submitted together up to this many bytes: neighbours become one request of the
/// disk. One by one, writes of 256 KiB took almost twice as long.
const BATCH_BYTES: usize = 1024 * 1024;
/// How long the end of a thread waits for the kernel to let go of buffers.
const DRAIN: Duration = Duration::from_secs(2);

/// The ring and its operations in flight.
pub(crate) struct Uring {
    ring: RefCell<IoUring>,
    slots: RefCell<Slots>,
    /// Submissions wait for the flusher.
    dirty: Cell<bool>,
    /// Bytes of bulk writes among them.
    bulk_bytes: Cell<usize>,
    flusher: RefCell<Option<Waker>>,
    closed: Cell<bool>,
    gauges: Arc<Gauges>,
}

impl Uring {
    /// Builds the ring on this thread and starts its two tasks on the running monoio runtime.
    pub(crate) fn start(
        entries: u32,
        workers_max: u32,
        gauges: Arc<Gauges>,
    ) -> io::Result<Rc<Self>> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_submit_all();
        let ring = match builder.build(entries) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries)?,
            other => other?,
        };
        let event = File::from(eventfd(0, EventfdFlags::CLOEXEC)?);
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        // io-wq serves what would block; its default bound is 4 threads per CPU, too few for
        // network file systems, which send everything there. Refused by kernels before 5.15.
        let _ = ring
            .submitter()
            .register_iowq_max_workers(&mut [workers_max, 0]);
        let uring = Rc::new(Self {
            ring: RefCell::new(ring),
            slots: RefCell::new(Slots::default()),
            dirty: Cell::new(false),
            bulk_bytes: Cell::new(0),
            flusher: RefCell::new(None),
            closed: Cell::new(false),
            gauges,
        });
        monoio::spawn(flush_task(Rc::clone(&uring)));
        monoio::spawn(wake_task(
            Rc::clone(&uring),
            monoio::fs::File::from_std(event)?,
        ));
        Ok(uring)
    }

    /// Submits one operation. `build` sees the lease and files it will work on.
    pub(crate) fn submit(
        self: &Rc<Self>,
        held: Held,
        build: impl FnOnce(&Held) -> squeue::Entry,
    ) -> Op {
        let key = self.slots.borrow_mut().insert(held);
        self.gauges.inflight_operations.add(1);
        let entry = {
            let slots = self.slots.borrow();
            build(slots.held(key).expect("the slot was filled just now"))
        };
        self.push(&entry.user_data(key));
        Op {
            uring: Rc::clone(self),
            key: Some(key),
        }
    }

    /// As [`Uring::submit`], for a bulk write of `bytes`: [`BATCH_BYTES`] of them go to the kernel
    /// without waiting for the end of the round, so that the disk works on them while this thread
    /// receives what comes next.
    pub(crate) fn submit_bulk(
        self: &Rc<Self>,
        held: Held,
        bytes: usize,
        build: impl FnOnce(&Held) -> squeue::Entry,
    ) -> Op {
        let op = self.submit(held, build);
        self.bulk_bytes.set(self.bulk_bytes.get() + bytes);
        if self.bulk_bytes.get() >= BATCH_BYTES {
            self.dirty.set(false);
            self.flush();
        }
        op
    }

    fn push(&self, entry: &squeue::Entry) {
        let mut ring = self.ring.borrow_mut();
        loop {
            // SAFETY: every pointer and descriptor in `entry` belongs to a slot, which keeps it
            // alive until the completion is reaped (`Slots::complete`), also when the future is
            // dropped. Broken by: freeing a slot before its completion.
            let pushed = unsafe { ring.submission().push(entry) };
            if pushed.is_ok() {
                break;
            }
            // The queue is full: hand it to the kernel. A refusal shows again at the next turn.
            if let Err(error) = ring.submit() {
                tracing::debug!(%error, "submission queue is full and the kernel is busy");
                std::thread::yield_now();
            }
        }
        drop(ring);
        self.mark_dirty();
    }

    fn mark_dirty(&self) {
        if !self.dirty.replace(true)
            && let Some(waker) = self.flusher.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    fn flush(&self) {
        self.bulk_bytes.set(0);
        let outcome = self.ring.borrow_mut().submit();
        if let Err(error) = outcome {
            // EBUSY, EAGAIN, EINTR: completions must be reaped first, then it goes again.
            tracing::debug!(%error, "submission goes again");
            self.reap();
            self.mark_dirty();
        }
    }

    /// Hands completions to their futures. Returns how many there were.
    pub(crate) fn reap(&self) -> usize {
        let mut count = 0;
        loop {
            let next = {
                let mut ring = self.ring.borrow_mut();
                let entry = ring.completion().next();
                entry.map(|entry| (entry.user_data(), entry.result()))
            };
            let Some((key, result)) = next else {
                return count;
            };
            count += 1;
            if key == NOBODY {
                continue;
            }
            let reaped = self.slots.borrow_mut().complete(key, result);
            self.gauges.inflight_operations.sub(1);
            if let Some(Reaped::Wake(waker)) = reaped {
                waker.wake();
            }
        }
    }

    fn abandon(&self, key: u64) {
        let (cancel, held) = self.slots.borrow_mut().abandon(key);
        drop(held);
        if cancel {
            self.push(&opcode::AsyncCancel::new(key).build().user_data(NOBODY));
        }
    }

    /// Ends the two tasks, cancels what is in flight and waits for the kernel to let go.
    ///
    /// Returns false if it did not within two seconds (a hung mount): the ring must then
    /// be leaked, since the kernel may still write into its buffers.
    pub(crate) fn close(&self) -> bool {
        self.closed.set(true);
        if let Some(waker) = self.flusher.borrow_mut().take() {
            waker.wake();
        }
        let keys = self.slots.borrow().waiting_keys();
        for key in keys {
            self.abandon(key);
        }
        let until = Instant::now() + DRAIN;
        while self.slots.borrow().waiting() > 0 {
            let _ = self.ring.borrow_mut().submit();
            if self.reap() == 0 {
                if Instant::now() > until {
                    return false;
                }
                std::thread::yield_now();
            }
        }
        true
    }
}

/// Submits once per round of the scheduler.
async fn flush_task(uring: Rc<Uring>) {
    std::future::poll_fn(|cx| {
        if uring.closed.get() {
            return Poll::Ready(());
        }
        *uring.flusher.borrow_mut() = Some(cx.waker().clone());
        if uring.dirty.replace(false) {
            uring.flush();
            // Cached reads are complete already: no need to wait for the eventfd.
            uring.reap();
        }
        Poll::Pending
    })
    .await;
}

/// Reaps when the kernel says that something completed.
async fn wake_task(uring: Rc<Uring>, event: monoio::fs::File) {
    let mut count = Box::new([0_u8; 8]);
    while !uring.closed.get() {
        // The eventfd blocks: a non-blocking one would answer EAGAIN instead of waiting.
        let (outcome, back) = event.read_at(count, 0).await;
        count = back;
        if let Err(error) = outcome
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "eventfd of the ring is broken");
            return;
        }
        uring.reap();
    }
}

/// One operation in flight: its result as the kernel gave it, and what it had lent.
pub(crate) struct Op {
    uring: Rc<Uring>,
    key: Option<u64>,
}

impl Future for Op {
    type Output = (i32, Held);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self
            .key
            .expect("an operation is not polled after it is done");
        let mut done = self.uring.slots.borrow_mut().poll(key, cx.waker());
        // It may be complete already, and the eventfd's turn still to come.
        if done.is_none() && self.uring.reap() > 0 {
            done = self.uring.slots.borrow_mut().poll(key, cx.waker());
        }
        match done {
            Some(done) => {
                self.key = None;
                Poll::Ready(done)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.uring.abandon(key);
        }
    }
}
