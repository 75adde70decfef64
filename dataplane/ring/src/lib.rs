//! The file engine of one data-plane thread: aligned buffers, pipes, and an `io_uring` of its own.
//!
//! monoio drives sockets and timers; this crate moves file bytes. It is the only crate of the
//! product that may hold `unsafe` code, and each block says why it is sound.
//!
//! Laws
//! - The kernel borrows: a buffer goes in by value and comes back beside the result.
//! - A slot is freed at its last completion; a dropped future leaves its slot `abandoned`,
//!   with everything that the kernel may still touch inside.
//! - The pool never grows past its budget: an empty pool is backpressure.
//! - Nothing here decides: policies live in `transfer` and `server`.
//!
//! Where `io_uring` is forbidden (container profiles, `kernel.io_uring_disabled`) the same
//! operations run on a bounded thread pool, see [`Engine`].
//!
//! Source: io_uring(7), `docs/kernel.md`.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![deny(clippy::multiple_unsafe_ops_per_block)]

pub mod buffer;
pub mod disk;
pub mod engine;
pub mod measure;
pub mod memory;
pub mod pipe;
pub mod quota;
mod slots;
pub mod socket;
pub mod staged;
pub mod threads;
mod uring;

pub use buffer::{Lease, Pool, PoolLimits};
pub use disk::Files;
pub use engine::{Done, Engine, EngineKind, FileRef, Ring, RingLimits};
pub use pipe::{Pipe, Pipes};
pub use staged::{StagedFile, Staging};
pub use threads::ThreadPool;

use std::sync::atomic::{AtomicU64, Ordering};

/// What one thread's engine has in use. Written by its thread, read by the metrics page.
///
/// Every gauge reads zero when nothing is under way: tests hold it to that.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Buffers that are leased out, count.
    pub buffers_in_use: Gauge,
    /// Bytes of memory that the pool has mapped, leased or free.
    pub buffer_bytes_mapped: Gauge,
    /// Operations that the kernel (or the thread pool) has not answered yet, count.
    pub inflight_operations: Gauge,
    /// Pipes that are leased out, count.
    pub pipes_in_use: Gauge,
}

/// A counter with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds `n`. Relaxed: the value is only ever shown, nothing is decided by it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` off.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
