//! How full and how fast the volumes are, looked at in the background.
//!
//! Law: a scrape never waits for a file system; it sees what the last look found.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proxy_api::metrics::{Durations, LOOK_BUCKETS_S, Sample, Source, row};
use proxy_volume::{Capacity, Metric, Volume, Volumes};

/// What was seen. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Levels(Arc<Mutex<BTreeMap<String, Level>>>);

#[derive(Clone, Default)]
struct Level {
    backend: &'static str,
    up: bool,
    capacity: Capacity,
    metric: Option<Metric>,
    seen_at_unix_s: f64,
    looks: [u64; 2],
    durations: Durations,
}

impl Levels {
    /// Looks at all volumes at every interval, for ever. No look takes longer than `limit`.
    pub async fn watch(self, volumes: Arc<Volumes>, interval: Duration, limit: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut looks = tokio::task::JoinSet::new();
            for volume in volumes.listed() {
                looks.spawn(self.clone().look(Arc::clone(volume), limit));
            }
            looks.join_all().await;
        }
    }

    async fn look(self, volume: Arc<Volume>, limit: Duration) {
        let begun = Instant::now();
        let look = async { (volume.fs_usage().await, volume.metric().await) };
        let found = tokio::time::timeout(limit, look).await;
        let mut levels = self.levels();
        let level = levels.entry(volume.name().to_owned()).or_default();
        level.backend = volume.kind().wire();
        level
            .durations
            .count(begun.elapsed().as_secs_f64(), LOOK_BUCKETS_S);
        level.up = matches!(found, Ok((Ok(_), _)));
        level.looks[usize::from(level.up)] += 1;
        if let Ok((Ok(capacity), metric)) = found {
            level.capacity = capacity;
            level.metric = metric.ok();
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            level.seen_at_unix_s = now.map_or(0.0, |since| since.as_secs_f64());
        }
    }

    fn levels(&self) -> MutexGuard<'_, BTreeMap<String, Level>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Levels {
    fn samples(&self) -> Vec<Sample> {
        self.levels()
            .iter()
            .flat_map(|(name, level)| level.samples(name))
            .collect()
    }
}

impl Level {
    fn samples(&self, volume: &str) -> Vec<Sample> {
        let of = [self.backend, volume];
        let up = f64::from(u8::from(self.up));
        let mut samples = vec![
            Sample::number(&row::VOLUME_UP, &of, up),
            Sample::number(
                &row::VOLUME_LOOKS,
                &["failure", volume],
                self.looks[0] as f64,
            ),
            Sample::number(
                &row::VOLUME_LOOKS,
                &["success", volume],
                self.looks[1] as f64,
            ),
            Sample::durations(
                &row::VOLUME_LOOK_DURATION,
                &[volume],
                self.durations.clone(),
                LOOK_BUCKETS_S,
            ),
        ];
        let sizes = [
            (&row::VOLUME_CAPACITY, self.capacity.capacity_bytes),
            (&row::VOLUME_USED, self.capacity.used_bytes),
        ];
        for (row, bytes) in sizes {
            samples.extend(bytes.map(|bytes| Sample::number(row, &of, bytes as f64)));
        }
        if 0.0 < self.seen_at_unix_s {
            let at = self.seen_at_unix_s;
            samples.push(Sample::number(&row::VOLUME_SEEN_AT, &[volume], at));
        }
        if let Some(metric) = &self.metric {
            for (row, value) in [
                (&row::VOLUME_IOPS_READ, metric.iops_read as f64),
                (&row::VOLUME_IOPS_WRITE, metric.iops_write as f64),
                (&row::VOLUME_BYTES_READ, metric.io_bytes_read as f64),
                (&row::VOLUME_BYTES_WRITE, metric.io_bytes_write as f64),
                (&row::VOLUME_USEC_READ, metric.io_usec_read),
                (&row::VOLUME_USEC_WRITE, metric.io_usec_write),
            ] {
                samples.push(Sample::number(row, &[volume], value));
            }
        }
        samples
    }
}
