//! The files behind an archive, as the sending machine asks for them.
//!
//! Law: everything here that may wait for a disk runs on the threads for names, within the
//! volume's share; the data-plane thread only waits for the outcome.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use proxy_anchor::Stat;
use proxy_core::units::{ByteLen, KIB, Offset};
use proxy_ring::FileRef;
use proxy_transfer::archive::{Listed, Member, Members, Packed, Sent};
use proxy_transfer::seam::SinkError;
use proxy_wire::zip::Checksum;

use super::listing::{Listing, is_still, read_exact};
use crate::names;
use crate::snapshot::{Limits, VolumeEntry};
use crate::thread::Thread;

/// Bytes that a checksum is made of at a time: they are still in the second-level cache when it
/// reads them. Measured: 0.058 s of CPU per GiB from 64 KiB on, of which 0.04 are the copy.
const SUM_BUFFER_BYTES: usize = (64 * KIB) as usize;
/// Bytes that the kernel is asked for at a time: it takes no more of one such call than the
/// largest request of the device.
const AHEAD_BYTES: u64 = 512 * KIB;

/// Asks the kernel for bytes that a checksum is about to be made of, and as many behind them, so
/// that the disk is busy meanwhile. What is in memory costs one look per half a MiB.
fn read_ahead(file: &FileRef, at: u64, len: u64) {
    let end = at.saturating_add(len.saturating_mul(2));
    let mut at = at;
    while at < end {
        if !proxy_ring::socket::is_cached(file, at) {
            let len = std::num::NonZeroU64::new(AHEAD_BYTES);
            // Advice only: an error shows again at the read.
            let _ = rustix::fs::fadvise(file, at, len, rustix::fs::Advice::WillNeed);
        }
        at += AHEAD_BYTES;
    }
}

/// See the module.
pub(super) struct Contents<'a> {
    pub(super) listing: &'a Arc<Listing>,
    pub(super) volume: &'a VolumeEntry,
    pub(super) thread: &'a Rc<Thread>,
    pub(super) limits: &'a Limits,
}

impl Contents<'_> {
    /// Runs `job` where it may wait.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Listing) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let listing = Arc::clone(self.listing);
        let job = move || job(&listing);
        let names = &self.thread.setup.names;
        match names::run(names, self.volume, self.limits, job).await {
            Ok(outcome) => outcome,
            Err(busy) => {
                let text = format!("volume {}: {busy:?}", self.volume.name);
                Err(SinkError::Disk(io::Error::other(text)))
            }
        }
    }
}

impl Contents<'_> {
    /// The content of small members, one behind the other. Each is what was listed.
    pub(super) async fn read(&self, members: Range<usize>) -> Result<Vec<u8>, SinkError> {
        let job = move |listing: &Listing| listing.read(members);
        self.run(job).await
    }
}

impl Listed for Contents<'_> {
    fn count(&self) -> usize {
        self.listing.count()
    }

    fn show<T>(&self, index: usize, show: impl FnOnce(&Member<'_>) -> T) -> T {
        self.listing.show(index, show)
    }
}

impl Members for Contents<'_> {
    type File = FileRef;

    fn known_sum(&self, index: usize) -> Option<u32> {
        let entry = self.listing.entry(index)?;
        if self.listing.show(index, |member| member.data_len()) == 0 {
            return Some(0);
        }
        self.thread.setup.archives.sums.find(&entry)
    }

    async fn open(&self, index: usize) -> Result<FileRef, SinkError> {
        let job = move |listing: &Listing| listing.open(index);
        let (_, file) = self.run(job).await?;
        Ok(Arc::new(file))
    }

    async fn pack(&self, members: Range<usize>, window: Range<u64>) -> Result<Packed, SinkError> {
        let shared = Arc::clone(&self.thread.setup.archives);
        let job = move |listing: &Listing| listing.pack(members, &window, &shared.sums);
        self.run(job).await
    }

    async fn sum(&self, file: &FileRef, at: Offset, len: ByteLen) -> Result<Checksum, SinkError> {
        let file = Arc::clone(file);
        let job = move |_: &Listing| {
            read_ahead(&file, at.get(), len.get());
            let mut sum = Checksum::new();
            let mut room = vec![0; SUM_BUFFER_BYTES];
            let (mut at, end) = (at.get(), at.get() + len.get());
            while at < end {
                let left = usize::try_from(end - at).unwrap_or(usize::MAX);
                let room = &mut room[..left.min(SUM_BUFFER_BYTES)];
                read_exact(&file, room, Offset::new(at))?;
                sum.update(room);
                at += room.len() as u64;
            }
            Ok(sum)
        };
        self.run(job).await
    }

    async fn check(&self, sent: Vec<Sent<FileRef>>) -> Result<(), SinkError> {
        let shared = Arc::clone(&self.thread.setup.archives);
        let job = move |listing: &Listing| {
            for Sent { index, file, sum } in sent {
                let entry = listing.entry(index).ok_or(SinkError::Truncated)?;
                is_still(&entry, &Stat::of_open(&file).map_err(SinkError::Disk)?)?;
                if let Some(sum) = sum {
                    shared.sums.keep(&entry, sum);
                }
            }
            Ok(())
        };
        self.run(job).await
    }
}
