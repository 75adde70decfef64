//! The sizes of all vfolders, brought up to date in the background.
//!
//! Laws
//! - One vfolder of a volume at a time, on one thread: users come first.
//! - A scrape never waits for a file system; it sees what the last scan found.
//! - No vfolder has a series of its own: their number has no bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proxy_api::metrics::{Sample, Source, row};
use proxy_volume::{Freshness, Stamp, Volume, VolumeError, Volumes};

/// What was found. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Sizes(Arc<Mutex<BTreeMap<String, Size>>>);

#[derive(Clone, Copy, Default)]
struct Size {
    /// As of the last scan of the whole volume; `None` before it.
    last: Option<Sums>,
    /// Vfolders that were scanned: with success, without.
    scans: [u64; 2],
    /// Directories: read, skipped.
    dirs: [u64; 2],
}

#[derive(Clone, Copy, Default)]
struct Sums {
    vfolders: u64,
    entries: u64,
    bytes: u64,
    begun: Stamp,
}

impl Sizes {
    /// Scans all volumes at every interval, for ever; never, if it is zero.
    pub async fn watch(self, volumes: Arc<Volumes>, interval: Duration) {
        if interval.is_zero() {
            return;
        }
        let first = tokio::time::Instant::now() + interval;
        let mut ticks = tokio::time::interval_at(first, interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut scans = tokio::task::JoinSet::new();
            for volume in volumes.listed() {
                scans.spawn(self.clone().scan(Arc::clone(volume)));
            }
            scans.join_all().await;
        }
    }

    async fn scan(self, volume: Arc<Volume>) {
        let begun = Stamp::now();
        let folders = match volume.folders().await {
            Ok(folders) => folders,
            Err(error) => {
                tracing::warn!(volume = volume.name(), %error, "no scan of the vfolders' sizes");
                return;
            }
        };
        let mut sums = Sums {
            begun,
            ..Sums::default()
        };
        let wish = Freshness {
            age_max: Duration::ZERO,
            time_max: None,
        };
        for vfid in folders {
            let known = match volume.usage_lately(vfid, wish).await {
                // It was deleted meanwhile.
                Err(VolumeError::VFolderNotFound(_)) => continue,
                known => known,
            };
            let mut sizes = self.sizes();
            let size = sizes.entry(volume.name().to_owned()).or_default();
            size.scans[usize::from(known.is_err())] += 1;
            match known {
                Ok(known) => {
                    size.dirs[0] += known.dirs_read;
                    size.dirs[1] += known.dirs_skipped;
                    sums.vfolders += 1;
                    sums.entries += known.usage.file_count;
                    sums.bytes += known.allocated_bytes;
                }
                Err(error) => tracing::warn!(%vfid, %error, "the size of a vfolder is not known"),
            }
        }
        let mut sizes = self.sizes();
        sizes.entry(volume.name().to_owned()).or_default().last = Some(sums);
    }

    fn sizes(&self) -> MutexGuard<'_, BTreeMap<String, Size>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Sizes {
    fn samples(&self) -> Vec<Sample> {
        let sizes = self.sizes();
        sizes
            .iter()
            .flat_map(|(name, size)| size.samples(name))
            .collect()
    }
}

impl Size {
    fn samples(&self, volume: &str) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (row, label, count) in [
            (&row::USAGE_SCANS, "success", self.scans[0]),
            (&row::USAGE_SCANS, "failure", self.scans[1]),
            (&row::USAGE_DIRS, "read", self.dirs[0]),
            (&row::USAGE_DIRS, "skipped", self.dirs[1]),
        ] {
            samples.push(Sample::number(row, &[label, volume], count as f64));
        }
        if let Some(last) = self.last {
            let at = last.begun.unix_ns as f64 / 1e9;
            for (row, number) in [
                (&row::VFOLDERS, last.vfolders as f64),
                (&row::VFOLDER_ENTRIES, last.entries as f64),
                (&row::VFOLDER_BYTES, last.bytes as f64),
                (&row::USAGE_SEEN_AT, at),
            ] {
                samples.push(Sample::number(row, &[volume], number));
            }
        }
        samples
    }
}
