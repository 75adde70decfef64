//! Reads, writes, syncs and splices of regular files, on the ring or on threads.
//!
//! Shape: positions and lengths are bytes; a [`Lease`] goes in and comes back in every case.
//! Durability: a completed write is in the page cache; only [`Ring::sync`] makes it durable.
//!
//! Source: io_uring_enter(2), `docs/kernel.md`.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{opcode, types};
use rustix::fs::{Advice, FallocateFlags};
use rustix::pipe::SpliceFlags;

use proxy_transfer::Partial;

use crate::Gauges;
use crate::buffer::Lease;
use crate::slots::Held;
use crate::threads::{Gone, ThreadPool};
use crate::uring::Uring;

/// An open file that operations in flight keep open.
pub type FileRef = Arc<OwnedFd>;

/// The kernel hands back the buffer in every case, and the count or the error beside it.
pub type Done<B> = (io::Result<usize>, B);

/// Sizes of one thread's ring.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Submission queue entries, a power of two.
    pub entries: u32,
    /// Kernel worker threads for operations that wait, per data-plane thread.
    pub workers_max: u32,
}

/// Which engine moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// `io_uring`.
    Uring,
    /// A pool of threads, because the kernel refused a ring.
    Threads,
}

/// The file engine of one data-plane thread. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct Ring(Engine);

/// The engine in use.
#[derive(Clone)]
pub enum Engine {
    #[doc(hidden)]
    Uring(Rc<Guard>),
    #[doc(hidden)]
    Threads(ThreadPool, Arc<Gauges>),
}

/// Closes the ring when its last user is gone.
#[doc(hidden)]
pub struct Guard(Rc<Uring>);

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.0.close() {
            tracing::warn!("operations are stuck in the kernel, their buffers are left to it");
            #[expect(
                clippy::disallowed_methods,
                reason = "the kernel may still write into them"
            )]
            std::mem::forget(Rc::clone(&self.0));
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ring").field(&self.kind()).finish()
    }
}

/// `Err` carries a negative result as the error that it stands for.
fn check(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn is_again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

fn gone(_: Gone) -> io::Error {
    io::Error::other("a thread of the file engine ended")
}

impl Ring {
    /// Starts the engine of the calling monoio thread: a ring, or `fallback` where the kernel
    /// refuses one. The refusal and its likely cause are logged once.
    pub fn start(limits: RingLimits, fallback: &ThreadPool, gauges: Arc<Gauges>) -> Self {
        match Uring::start(limits.entries, limits.workers_max, Arc::clone(&gauges)) {
            Ok(uring) => Self(Engine::Uring(Rc::new(Guard(uring)))),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "io_uring is refused, file bytes go through threads; likely cause: a container \
                     profile or kernel.io_uring_disabled (see docs/kernel.md)"
                );
                Self::on_threads(fallback, gauges)
            }
        }
    }

    /// The fallback engine, chosen on purpose.
    pub fn on_threads(threads: &ThreadPool, gauges: Arc<Gauges>) -> Self {
        Self(Engine::Threads(threads.clone(), gauges))
    }

    /// Which engine runs.
    pub fn kind(&self) -> EngineKind {
        match &self.0 {
            Engine::Uring(_) => EngineKind::Uring,
            Engine::Threads(..) => EngineKind::Threads,
        }
    }

    /// Reads up to `want` bytes at `at` behind what `lease` holds already.
    ///
    /// Returns the count; zero at the end of the file.
    pub async fn read_at(
        &self,
        file: &FileRef,
        mut lease: Lease,
        at: u64,
        want: usize,
    ) -> Done<Lease> {
        let want = want.min(lease.spare());
        loop {
            let (outcome, back) = self.read_once(file, lease, at, want).await;
            lease = back;
            match outcome {
                Err(error) if is_again(&error) => continue,
                Ok(count) => {
                    lease.set_filled(lease.filled() + count);
                    return (Ok(count), lease);
                }
                Err(error) => return (Err(error), lease),
            }
        }
    }

    async fn read_once(
        &self,
        file: &FileRef,
        mut lease: Lease,
        at: u64,
        want: usize,
    ) -> Done<Lease> {
        match &self.0 {
            Engine::Uring(guard) => {
                let held = Held {
                    lease: Some(lease),
                    files: [Some(Arc::clone(file)), None],
                };
                let op = guard.0.submit(held, |held| {
                    let lease = held.lease.as_ref().expect("a read holds its lease");
                    assert!(lease.filled() + want <= lease.block().len());
                    let start = lease.block().as_ptr().wrapping_add(lease.filled());
                    let fd = held.fd(0);
                    opcode::Read::new(fd, start, want as u32).offset(at).build()
                });
                let (result, held) = op.await;
                (check(result), held.lease.expect("a read returns its lease"))
            }
            Engine::Threads(threads, gauges) => {
                let (mut block, from) = (lease.detach(), lease.filled());
                let file = Arc::clone(file);
                let _counted = InFlight::new(gauges);
                let done = threads
                    .run(move || {
                        let room = &mut block.bytes_mut()[from..from + want];
                        let outcome = rustix::io::pread(&file, room, at).map_err(io::Error::from);
                        (outcome, block)
                    })
                    .await;
                attach(lease, done)
            }
        }
    }

    /// Writes all that `lease` holds at `at`. Short writes are continued.
    ///
    /// Returns the count of bytes that the file system took, also beside an error in the second
    /// half: see [`Partial`].
    pub async fn write_at(
        &self,
        file: &FileRef,
        mut lease: Lease,
        at: u64,
    ) -> (Result<usize, Partial>, Lease) {
        let total = lease.filled();
        let mut written = 0;
        while written < total {
            let (outcome, back) = self.write_once(file, lease, at, written).await;
            lease = back;
            match outcome {
                Err(error) if is_again(&error) => {}
                Err(error) => return (Err(Partial { written, error }), lease),
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return (Err(Partial { written, error }), lease);
                }
                Ok(count) => written += count,
            }
        }
        assert!(written == total);
        (Ok(written), lease)
    }

    async fn write_once(
        &self,
        file: &FileRef,
        mut lease: Lease,
        at: u64,
        from: usize,
    ) -> Done<Lease> {
        let len = lease.filled() - from;
        let at = at + from as u64;
        match &self.0 {
            Engine::Uring(guard) => {
                let held = Held {
                    lease: Some(lease),
                    files: [Some(Arc::clone(file)), None],
                };
                let op = guard.0.submit_bulk(held, len, |held| {
                    let lease = held.lease.as_ref().expect("a write holds its lease");
                    assert!(from + len <= lease.filled());
                    let start = lease.block().as_ptr().wrapping_add(from);
                    let fd = held.fd(0);
                    opcode::Write::new(fd, start, len as u32).offset(at).build()
                });
                let (result, held) = op.await;
                (
                    check(result),
                    held.lease.expect("a write returns its lease"),
                )
            }
            Engine::Threads(threads, gauges) => {
                let block = lease.detach();
                let file = Arc::clone(file);
                let _counted = InFlight::new(gauges);
                let done = threads
                    .run(move || {
                        let bytes = &block.bytes()[from..from + len];
                        let outcome = rustix::io::pwrite(&file, bytes, at).map_err(io::Error::from);
                        (outcome, block)
                    })
                    .await;
                attach(lease, done)
            }
        }
    }

    /// Makes the file's bytes and size durable: fdatasync(2).
    ///
    /// # Errors
    /// After an error the kernel may have dropped the dirty pages: nothing written since the last
    /// success may be trusted.
    pub async fn sync(&self, file: &FileRef) -> io::Result<()> {
        self.call(
            file,
            |fd| {
                opcode::Fsync::new(fd)
                    .flags(types::FsyncFlags::DATASYNC)
                    .build()
            },
            |file| rustix::fs::fdatasync(file),
        )
        .await
    }

    /// Reserves blocks for `len` bytes at `at` and lets the file reach there.
    ///
    /// # Errors
    /// `Unsupported` (ENOTSUP) where the file system can not; ENOSPC and EDQUOT as they come.
    pub async fn allocate(&self, file: &FileRef, at: u64, len: u64) -> io::Result<()> {
        self.call(
            file,
            move |fd| opcode::Fallocate::new(fd, len).offset(at).build(),
            move |file| rustix::fs::fallocate(file, FallocateFlags::empty(), at, len),
        )
        .await
    }

    /// Asks the kernel to read `len` bytes at `at` into the page cache soon.
    pub async fn read_ahead(&self, file: &FileRef, at: u64, len: u64) -> io::Result<()> {
        let bytes = i64::try_from(len).unwrap_or(i64::MAX);
        self.call(
            file,
            move |fd| {
                opcode::Fadvise::new(fd, bytes, libc::POSIX_FADV_WILLNEED)
                    .offset(at)
                    .build()
            },
            move |file| {
                rustix::fs::fadvise(file, at, std::num::NonZeroU64::new(len), Advice::WillNeed)
            },
        )
        .await
    }

    async fn call(
        &self,
        file: &FileRef,
        build: impl Fn(types::Fd) -> io_uring::squeue::Entry,
        run: impl Fn(&OwnedFd) -> rustix::io::Result<()> + Send + Clone + 'static,
    ) -> io::Result<()> {
        loop {
            let outcome = match &self.0 {
                Engine::Uring(guard) => {
                    let held = Held {
                        lease: None,
                        files: [Some(Arc::clone(file)), None],
                    };
                    let op = guard.0.submit(held, |held| build(held.fd(0)));
                    check(op.await.0).map(|_| ())
                }
                Engine::Threads(threads, gauges) => {
                    let (file, run) = (Arc::clone(file), run.clone());
                    let _counted = InFlight::new(gauges);
                    let done = threads
                        .run(move || run(&file).map_err(io::Error::from))
                        .await;
                    done.unwrap_or_else(|lost| Err(gone(lost)))
                }
            };
            match outcome {
                Err(error) if is_again(&error) => {}
                other => return other,
            }
        }
    }

    /// Moves up to `len` bytes at `at` of a file into an empty pipe, waiting for the disk if it
    /// must. Returns the count; zero at the end of the file.
    pub async fn splice_in(
        &self,
        file: &FileRef,
        at: u64,
        pipe: &FileRef,
        len: usize,
    ) -> io::Result<usize> {
        loop {
            let outcome = match &self.0 {
                Engine::Uring(guard) => {
                    let files = [Some(Arc::clone(file)), Some(Arc::clone(pipe))];
                    let held = Held { lease: None, files };
                    let op = guard.0.submit(held, |held| {
                        let (from, to) = (held.fd(0), held.fd(1));
                        let at = i64::try_from(at).unwrap_or(i64::MAX);
                        opcode::Splice::new(from, at, to, -1, len as u32).build()
                    });
                    check(op.await.0)
                }
                Engine::Threads(threads, gauges) => {
                    let (file, pipe) = (Arc::clone(file), Arc::clone(pipe));
                    let _counted = InFlight::new(gauges);
                    let done = threads
                        .run(move || {
                            let mut at = at;
                            let flags = SpliceFlags::empty();
                            rustix::pipe::splice(&file, Some(&mut at), &pipe, None, len, flags)
                                .map_err(io::Error::from)
                        })
                        .await;
                    done.unwrap_or_else(|lost| Err(gone(lost)))
                }
            };
            match outcome {
                Err(error) if is_again(&error) => {}
                other => return other,
            }
        }
    }
}

/// Counts an operation of the fallback engine for as long as somebody waits for it.
struct InFlight<'a>(&'a Gauges);

impl<'a> InFlight<'a> {
    fn new(gauges: &'a Gauges) -> Self {
        gauges.inflight_operations.add(1);
        Self(gauges)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.inflight_operations.sub(1);
    }
}

fn attach(
    mut lease: Lease,
    done: Result<(io::Result<usize>, crate::buffer::Block), Gone>,
) -> Done<Lease> {
    match done {
        Ok((outcome, block)) => {
            lease.attach(block);
            (outcome, lease)
        }
        Err(lost) => (Err(gone(lost)), lease),
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
