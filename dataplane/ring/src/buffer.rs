//! Aligned buffers with a budget, owned by one thread.
//!
//! Laws
//! - `filled <= capacity`; bytes past `filled` are never shown.
//! - A [`Lease`] returns its block to the pool when it is dropped, wherever that happens.
//! - The pool maps blocks on demand, never more than `budget_bytes`, and keeps a few for reuse;
//!   waiters are served in the order in which they asked.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustix::mm::{MapFlags, ProtFlags};

use crate::Gauges;

/// Alignment of every buffer: a page, which suits direct I/O on every file system we know.
pub const ALIGN_BYTES: usize = 4096;

/// One anonymous mapping. Always initialised: the kernel hands out zeroed pages.
#[derive(Debug)]
pub(crate) struct Block {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a block owns its mapping alone, no part of it is bound to a thread. Broken by: sharing
// `ptr` outside `Block`.
unsafe impl Send for Block {}

impl Block {
    fn map(len: usize) -> io::Result<Self> {
        assert!(len > 0);
        assert!(len.is_multiple_of(ALIGN_BYTES));
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        // Broken by: passing a fixed address.
        let raw = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let ptr = NonNull::new(raw.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { ptr, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address handed to the kernel. Valid as long as the block lives.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `ptr` and `len` are one live mapping that this value owns, and anonymous pages
        // are initialised by the kernel; `&self` keeps writers out, because a block in flight is
        // inside its slot. Broken by: handing `as_ptr` to the kernel while keeping the block.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes this the only reference. Broken by: the
        // same.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, is unmapped once, and no reference outlives the
        // value. Broken by: copying `ptr` out of the block.
        let outcome = unsafe { rustix::mm::munmap(self.ptr.as_ptr().cast(), self.len) };
        debug_assert!(outcome.is_ok());
    }
}

/// Sizes of one thread's pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Bytes of one buffer, a multiple of [`ALIGN_BYTES`].
    pub buffer_bytes: usize,
    /// Most bytes that the pool may map.
    pub budget_bytes: usize,
    /// Free bytes that are kept for reuse; what comes back beyond is unmapped.
    pub keep_bytes: usize,
}

/// The buffers of one thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: PoolLimits,
    free: RefCell<Vec<Block>>,
    out: Cell<usize>,
    waiters: RefCell<VecDeque<(u64, Waker)>>,
    next_waiter: Cell<u64>,
    gauges: Arc<Gauges>,
}

impl Pool {
    /// An empty pool; blocks are mapped when they are first asked for.
    pub fn new(limits: PoolLimits, gauges: Arc<Gauges>) -> Self {
        assert!(limits.buffer_bytes.is_multiple_of(ALIGN_BYTES));
        assert!(limits.buffer_bytes <= limits.budget_bytes);
        Self(Rc::new(Shared {
            limits,
            free: RefCell::new(Vec::new()),
            out: Cell::new(0),
            waiters: RefCell::new(VecDeque::new()),
            next_waiter: Cell::new(0),
            gauges,
        }))
    }

    /// Bytes of one buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.0.limits.buffer_bytes
    }

    /// `None` means that every buffer is in use: stop reading from the socket until one returns.
    pub fn take(&self) -> Option<Lease> {
        if self.0.contended() {
            None
        } else {
            self.0.lease()
        }
    }

    /// Waits for a buffer, first come first served.
    pub fn lease(&self) -> Leasing {
        Leasing {
            pool: self.clone(),
            ticket: None,
        }
    }
}

impl Shared {
    fn lease(self: &Rc<Self>) -> Option<Lease> {
        let reused = self.free.borrow_mut().pop();
        let block = match reused {
            Some(block) => block,
            None => self.map_one()?,
        };
        self.out.set(self.out.get() + 1);
        self.gauges.buffers_in_use.add(1);
        Some(Lease {
            block: Some(block),
            filled: 0,
            pool: Rc::clone(self),
        })
    }

    fn map_one(&self) -> Option<Block> {
        let mapped = (self.out.get() + self.free.borrow().len()) * self.limits.buffer_bytes;
        if mapped + self.limits.buffer_bytes > self.limits.budget_bytes {
            return None;
        }
        // A refused mapping is an empty pool: the caller waits, nothing is lost.
        let block = Block::map(self.limits.buffer_bytes).ok()?;
        self.gauges.buffer_bytes_mapped.add(block.len() as u64);
        Some(block)
    }

    fn give_back(&self, block: Block) {
        assert!(self.out.get() > 0);
        self.out.set(self.out.get() - 1);
        self.gauges.buffers_in_use.sub(1);
        let kept = self.free.borrow().len() * self.limits.buffer_bytes;
        if kept < self.limits.keep_bytes || self.contended() {
            self.free.borrow_mut().push(block);
        } else {
            self.gauges.buffer_bytes_mapped.sub(block.len() as u64);
            drop(block);
        }
        self.wake_first();
    }

    fn contended(&self) -> bool {
        !self.waiters.borrow().is_empty()
    }

    fn wake_first(&self) {
        let first = self
            .waiters
            .borrow()
            .front()
            .map(|(_, waker)| waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let kept: usize = self.free.borrow().iter().map(Block::len).sum();
        self.gauges.buffer_bytes_mapped.sub(kept as u64);
    }
}

/// The wait for a [`Lease`]. Dropping it gives up the place in the queue.
#[derive(Debug)]
pub struct Leasing {
    pool: Pool,
    ticket: Option<u64>,
}

impl Future for Leasing {
    type Output = Lease;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Lease> {
        let shared = Rc::clone(&self.pool.0);
        let mut waiters = shared.waiters.borrow_mut();
        let my_turn = match self.ticket {
            None => waiters.is_empty(),
            Some(ticket) => waiters.front().is_some_and(|(first, _)| *first == ticket),
        };
        if my_turn && let Some(lease) = shared.lease() {
            if self.ticket.take().is_some() {
                waiters.pop_front();
            }
            drop(waiters);
            // Two buffers may have come back for one wake-up: the next in line looks as well.
            shared.wake_first();
            return Poll::Ready(lease);
        }
        match self.ticket {
            Some(ticket) => {
                if let Some(entry) = waiters.iter_mut().find(|(id, _)| *id == ticket) {
                    entry.1.clone_from(cx.waker());
                }
            }
            None => {
                let ticket = shared.next_waiter.get();
                shared.next_waiter.set(ticket + 1);
                waiters.push_back((ticket, cx.waker().clone()));
                self.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }
}

impl Drop for Leasing {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let shared = &self.pool.0;
            shared.waiters.borrow_mut().retain(|(id, _)| *id != ticket);
            shared.wake_first();
        }
    }
}

/// One buffer, out of its pool. `filled` bytes of it mean something.
#[derive(Debug)]
pub struct Lease {
    /// `None` only while the block is with a thread of the fallback engine.
    block: Option<Block>,
    /// `0 <= filled <= capacity`
    filled: usize,
    pool: Rc<Shared>,
}

impl Lease {
    /// Bytes that fit.
    pub fn capacity(&self) -> usize {
        self.pool.limits.buffer_bytes
    }

    /// Bytes that are filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Bytes that still fit.
    pub fn spare(&self) -> usize {
        self.capacity() - self.filled
    }

    /// The filled bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.block
            .as_ref()
            .map_or(&[], |block| &block.bytes()[..self.filled])
    }

    /// Room after the filled bytes. Says nothing about what stands there.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let filled = self.filled;
        self.block
            .as_mut()
            .map_or(&mut [], |block| &mut block.bytes_mut()[filled..])
    }

    /// Declares the next `n` bytes filled.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.spare());
        self.filled += n;
    }

    /// Forgets the filled bytes.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Appends as much of `bytes` as fits; returns how many bytes that were.
    ///
    /// Copy: bytes that came with a request head, or out of TLS, have no other way in.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.spare());
        self.spare_mut()[..n].copy_from_slice(&bytes[..n]);
        self.advance(n);
        n
    }

    pub(crate) fn block(&self) -> &Block {
        self.block
            .as_ref()
            .expect("a lease has its block unless it is with the engine")
    }

    pub(crate) fn detach(&mut self) -> Block {
        self.block
            .take()
            .expect("a lease has its block unless it is with the engine")
    }

    pub(crate) fn attach(&mut self, block: Block) {
        assert!(self.block.is_none());
        self.block = Some(block);
    }

    pub(crate) fn set_filled(&mut self, filled: usize) {
        assert!(filled <= self.capacity());
        self.filled = filled;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.block.take() {
            Some(block) => self.pool.give_back(block),
            // The block went down with a thread of the fallback engine.
            None => {
                let shared = &self.pool;
                shared.out.set(shared.out.get().saturating_sub(1));
                shared.gauges.buffers_in_use.sub(1);
                shared
                    .gauges
                    .buffer_bytes_mapped
                    .sub(shared.limits.buffer_bytes as u64);
                shared.wake_first();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pool(count: usize) -> (Pool, Arc<Gauges>) {
        let gauges = Arc::new(Gauges::default());
        let limits = PoolLimits {
            buffer_bytes: ALIGN_BYTES,
            budget_bytes: count * ALIGN_BYTES,
            keep_bytes: ALIGN_BYTES,
        };
        (Pool::new(limits, Arc::clone(&gauges)), gauges)
    }

    fn poll_once(leasing: &mut Leasing) -> Option<Lease> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(leasing).poll(&mut cx) {
            Poll::Ready(lease) => Some(lease),
            Poll::Pending => None,
        }
    }

    #[test]
    fn budget_is_kept_and_gauges_return_to_zero() {
        let (pool, gauges) = pool(2);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert_eq!(gauges.buffers_in_use.value(), 2);
        drop((first, second));
        assert_eq!(gauges.buffers_in_use.value(), 0);
        assert_eq!(gauges.buffer_bytes_mapped.value(), ALIGN_BYTES as u64);
        drop(pool);
        assert_eq!(gauges.buffer_bytes_mapped.value(), 0);
    }

    #[test]
    fn waiters_are_served_in_order_and_may_leave() {
        let (pool, _) = pool(1);
        let held = pool.take().unwrap();
        let (mut a, mut b, mut c) = (pool.lease(), pool.lease(), pool.lease());
        assert!(poll_once(&mut a).is_none());
        assert!(poll_once(&mut b).is_none());
        assert!(poll_once(&mut c).is_none());
        drop(held);
        assert!(pool.take().is_none(), "a newcomer does not overtake");
        assert!(poll_once(&mut b).is_none(), "second in line");
        drop(a);
        let got = poll_once(&mut b).unwrap();
        drop(got);
        assert!(poll_once(&mut c).is_some());
    }

    #[test]
    fn bytes_past_filled_are_not_shown() {
        let (pool, _) = pool(1);
        let mut lease = pool.take().unwrap();
        assert_eq!(lease.append(b"hello world"), 11);
        assert_eq!(lease.as_slice(), b"hello world");
        lease.clear();
        assert_eq!(lease.as_slice(), b"");
        assert_eq!(lease.append(&vec![7; ALIGN_BYTES + 1]), ALIGN_BYTES);
        assert_eq!(lease.spare(), 0);
    }
}
