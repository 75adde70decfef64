//! A disk, a peer and a ledger that fail on purpose, from a printed seed.
//!
//! Fault model
//! - Writes finish in any order, may be short once, may fail with ENOSPC or EIO.
//! - A crash keeps synced bytes; bytes that were only written may be there, lost, or garbage.
//! - A sync keeps what was written before it began, nothing of what is written meanwhile.
//! - A sync may fail; after that nothing since the last success is kept, and whoever had the file
//!   open is told by the next sync.
//! - A peer may stop in the middle of a body, or send more than it announced.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use proxy_core::extent::{Extent, Extents, Recorded, Want};
use proxy_core::units::{ByteLen, Offset};

use crate::ledger::{Claimed, Ledger, LedgerError};
use crate::seam::{Buffer, Disk, Fill, Partial, PeerError, Source};

/// Bytes of a model buffer: small, so that one body needs many.
pub(crate) const BUF: usize = 16;

/// xorshift: all that a model needs, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Rng(Rc<Cell<u64>>);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(Cell::new(
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        )))
    }

    pub(crate) fn below(&self, n: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x % n
    }
}

/// Yields to the other futures a few times.
pub(crate) struct Dawdle(pub(crate) u64);

impl Future for Dawdle {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
    panic!("the machine is stuck");
}

/// A buffer that is counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Bytes(Vec<u8>, Rc<Cell<i64>>);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.1.set(self.1.get() - 1);
    }
}

impl Buffer for Bytes {
    fn capacity(&self) -> usize {
        BUF
    }
    fn as_slice(&self) -> &[u8] {
        &self.0
    }
    fn clear(&mut self) {
        self.0.clear();
    }
}

/// One file: what is in the page cache, and what a crash would leave.
#[derive(Debug, Default)]
pub(crate) struct ModelFile {
    pub(crate) cache: RefCell<Vec<u8>>,
    pub(crate) durable: RefCell<Vec<u8>>,
    /// When each byte of the cache, and of the disk, was written.
    times: RefCell<(Vec<u64>, Vec<u64>)>,
    clock: Cell<u64>,
    /// How often each byte was written.
    pub(crate) counts: RefCell<Vec<u32>>,
    /// Syncs that failed, and how the last one did.
    failures: Cell<(u64, i32)>,
}

/// An open model file.
#[derive(Debug)]
pub(crate) struct ModelFd {
    file: Rc<ModelFile>,
    /// Failures that were told here.
    told: Cell<u64>,
}

impl ModelFd {
    pub(crate) fn open(file: &Rc<ModelFile>) -> Self {
        Self {
            file: Rc::clone(file),
            told: Cell::new(file.failures.get().0),
        }
    }
}

impl ModelFile {
    /// A crash: only synced bytes are sure to be there; others may be, or be garbage.
    pub(crate) fn crash(&self, rng: &Rng) {
        let durable = self.durable.borrow();
        let (written, kept) = &mut *self.times.borrow_mut();
        for (at, byte) in self.cache.borrow_mut().iter_mut().enumerate() {
            let sure = kept.get(at).copied().unwrap_or(0);
            if written[at] <= sure {
                *byte = durable.get(at).copied().unwrap_or(0);
            } else if rng.below(2) == 0 {
                *byte = rng.below(256) as u8;
            }
        }
    }
}

/// Faults to come: the n-th write or sync fails with the errno.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) write: Option<(u64, i32)>,
    pub(crate) sync: Option<(u64, i32)>,
    /// Bytes that fit on the disk.
    pub(crate) space: Option<u64>,
}

pub(crate) struct ModelDisk {
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) writes: Cell<u64>,
    pub(crate) syncs: Cell<u64>,
    pub(crate) out: Rc<Cell<i64>>,
    pub(crate) in_flight_most: Cell<u64>,
    in_flight: Cell<u64>,
}

impl ModelDisk {
    pub(crate) fn new(rng: Rng, faults: Faults) -> Self {
        Self {
            rng,
            faults,
            writes: Cell::new(0),
            syncs: Cell::new(0),
            out: Rc::default(),
            in_flight_most: Cell::new(0),
            in_flight: Cell::new(0),
        }
    }

    fn fault(&self, bytes: &[u8], at: u64) -> Option<Partial> {
        let n = self.writes.get();
        self.writes.set(n + 1);
        if let Some((when, errno)) = self.faults.write
            && n == when
        {
            let written = self.rng.below(bytes.len() as u64) as usize;
            return Some(Partial {
                written,
                error: io::Error::from_raw_os_error(errno),
            });
        }
        let space = self.faults.space?;
        (at + bytes.len() as u64 > space).then(|| Partial {
            written: space.saturating_sub(at) as usize,
            error: io::Error::from_raw_os_error(28),
        })
    }
}

fn put(file: &ModelFile, at: u64, bytes: &[u8]) {
    let mut cache = file.cache.borrow_mut();
    let end = at as usize + bytes.len();
    if cache.len() < end {
        cache.resize(end, 0);
    }
    cache[at as usize..end].copy_from_slice(bytes);
    let now = file.clock.get() + 1;
    file.clock.set(now);
    let written = &mut file.times.borrow_mut().0;
    let mut counts = file.counts.borrow_mut();
    let len = cache.len();
    written.resize(len, 0);
    counts.resize(len, 0);
    for at in at as usize..end {
        written[at] = now;
        counts[at] += 1;
    }
}

impl Disk for ModelDisk {
    type File = ModelFd;
    type Buf = Bytes;

    async fn buffer(&self) -> Bytes {
        Dawdle(self.rng.below(3)).await;
        self.out.set(self.out.get() + 1);
        Bytes(Vec::new(), Rc::clone(&self.out))
    }

    async fn read_at(
        &self,
        file: &ModelFd,
        mut buf: Bytes,
        at: Offset,
        want: usize,
    ) -> (io::Result<usize>, Bytes) {
        Dawdle(self.rng.below(3)).await;
        let cache = file.file.cache.borrow();
        let from = (at.get() as usize).min(cache.len());
        let to = (from + want).min(cache.len());
        buf.0.extend_from_slice(&cache[from..to]);
        (Ok(to - from), buf)
    }

    async fn write_at(
        &self,
        file: &ModelFd,
        buf: Bytes,
        at: Offset,
    ) -> (Result<usize, Partial>, Bytes) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.in_flight_most
            .set(self.in_flight_most.get().max(self.in_flight.get()));
        Dawdle(self.rng.below(12)).await;
        self.in_flight.set(self.in_flight.get() - 1);
        if let Some(partial) = self.fault(&buf.0, at.get()) {
            put(&file.file, at.get(), &buf.0[..partial.written]);
            return (Err(partial), buf);
        }
        put(&file.file, at.get(), &buf.0);
        (Ok(buf.0.len()), buf)
    }

    async fn sync(&self, fd: &ModelFd) -> io::Result<()> {
        let file = &fd.file;
        let n = self.syncs.get();
        self.syncs.set(n + 1);
        let (bytes, times) = (file.cache.borrow().clone(), file.times.borrow().0.clone());
        Dawdle(self.rng.below(4)).await;
        if let Some((when, errno)) = self.faults.sync
            && n == when
        {
            file.cache.borrow_mut().clone_from(&file.durable.borrow());
            file.failures.set((file.failures.get().0 + 1, errno));
        }
        let (failures, errno) = file.failures.get();
        if fd.told.replace(failures) < failures {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let mut durable = file.durable.borrow_mut();
        let kept = &mut file.times.borrow_mut().1;
        let len = durable.len().max(bytes.len());
        durable.resize(len, 0);
        kept.resize(len, 0);
        for (at, byte) in bytes.into_iter().enumerate() {
            // Another sync may have begun later and ended before.
            if kept[at] <= times[at] {
                (durable[at], kept[at]) = (byte, times[at]);
            }
        }
        Ok(())
    }

    async fn reserve(&self, _: &ModelFd, _: Offset, _: ByteLen) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(95))
    }
}

/// A body: what it announces, what it sends, and how it ends.
pub(crate) struct ModelBody {
    pub(crate) bytes: VecDeque<u8>,
    pub(crate) announced: Option<u64>,
    pub(crate) ends: Result<(), PeerError>,
    pub(crate) rng: Rng,
    /// What its checksum will say.
    pub(crate) intact: Option<bool>,
}

impl Source for ModelBody {
    type Buf = Bytes;

    fn remaining(&self) -> Option<u64> {
        self.announced
    }

    async fn ready(&mut self) -> Result<(), PeerError> {
        Dawdle(self.rng.below(3)).await;
        Ok(())
    }

    async fn fill(&mut self, mut buf: Bytes, limit: usize) -> (Result<Fill, PeerError>, Bytes) {
        let count = (1 + self.rng.below(BUF as u64) as usize)
            .min(limit)
            .min(self.bytes.len());
        Dawdle(self.rng.below(4)).await;
        buf.0.extend(self.bytes.drain(..count));
        self.announced = self.announced.map(|left| left - count as u64);
        if self.bytes.is_empty() {
            return match std::mem::replace(&mut self.ends, Ok(())) {
                Ok(()) => (Ok(Fill::End), buf),
                Err(error) => (Err(error), buf),
            };
        }
        (Ok(Fill::More), buf)
    }

    async fn is_over(&mut self) -> Result<bool, PeerError> {
        match &self.ends {
            Ok(()) => Ok(self.bytes.is_empty()),
            Err(_) if !self.bytes.is_empty() => Ok(false),
            Err(_) => std::mem::replace(&mut self.ends, Ok(())).map(|()| true),
        }
    }

    fn verdict(&self) -> Option<bool> {
        self.intact
    }
}

/// A ledger for one session.
pub(crate) struct ModelLedger {
    pub(crate) file: Rc<ModelFile>,
    pub(crate) offset: Cell<u64>,
    pub(crate) size: u64,
    pub(crate) finished: Cell<Option<u64>>,
    pub(crate) aborted: Cell<bool>,
    pub(crate) target: RefCell<Option<Vec<u8>>>,
    /// A newcomer wants the session after so many turns, at this offset.
    pub(crate) newcomer: Option<(u64, u64)>,
    pub(crate) releases: Cell<u64>,
}

impl Ledger for ModelLedger {
    type File = ModelFd;
    type Grant = ();
    type Error = String;

    async fn claim(&self, _: Want) -> Result<Claimed<()>, LedgerError<String>> {
        if self.aborted.get() {
            return Err(LedgerError::NotFound);
        }
        let size = Offset::new(self.size);
        Ok(match self.finished.get() {
            Some(from) => Claimed::Finished {
                last_from: Offset::new(from),
                size,
            },
            None => Claimed::Ours {
                grant: (),
                durable: Extents::prefix_of(self.offset.get()),
                size,
                laid_out: false,
            },
        })
    }

    async fn open(&self, (): &()) -> Result<ModelFd, LedgerError<String>> {
        Ok(ModelFd::open(&self.file))
    }

    async fn revoked(&self, (): &mut ()) -> Option<Want> {
        match self.newcomer {
            Some((turns, offset)) => {
                Dawdle(turns).await;
                Some(Want::append(Some(Offset::new(offset))))
            }
            None => std::future::pending().await,
        }
    }

    async fn record(&self, (): &(), extent: Extent) -> Result<Recorded, LedgerError<String>> {
        let durable = self.file.durable.borrow().len() as u64;
        assert!(
            extent.to <= durable,
            "offset {} is recorded, {durable} are durable",
            extent.to
        );
        assert_eq!(extent.from, self.offset.get());
        assert!(!extent.is_empty());
        self.offset.set(extent.to);
        Ok(Recorded {
            durable: Extents::prefix_of(extent.to),
            whole: extent.to == self.size,
        })
    }

    async fn finish(&self, (): &(), last_from: Offset) -> Result<(), LedgerError<String>> {
        let durable = self.file.durable.borrow().clone();
        assert_eq!(
            durable.len() as u64,
            self.size,
            "only a whole file is published"
        );
        *self.target.borrow_mut() = Some(durable);
        self.offset.set(self.size);
        self.finished.set(Some(last_from.get()));
        Ok(())
    }

    async fn abort(&self, (): &()) {
        self.aborted.set(true);
    }

    async fn release(&self, (): ()) {
        self.releases.set(self.releases.get() + 1);
    }
}
