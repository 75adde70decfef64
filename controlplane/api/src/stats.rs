//! Performance figures of volumes, shared by the fleet for a short time.
//!
//! Laws
//! - The figures that are shared answer before a backend is asked.
//! - A cache that fails is a cache that has nothing; nobody hears of it here.
//!
//! Source: reference of the original, state 4.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_volume::{Capability, Metric, Volumes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where the figures are kept, as text under the name of the volume.
#[async_trait]
pub trait StatsCache: Send + Sync {
    /// What is known of a volume, unless it is too old. Bounded in time.
    async fn load(&self, volume: &str) -> Option<String>;
    /// Keeps what was learnt. Bounded in time.
    async fn store(&self, volume: &str, text: String);
}

/// One reading, as servers of all releases write it; the order of the fields is theirs.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Reading {
    volume_name: String,
    iops_read: u64,
    iops_write: u64,
    io_bytes_read: u64,
    io_bytes_write: u64,
    io_usec_read: f64,
    io_usec_write: f64,
    observed_at: String,
}

impl Reading {
    fn of(volume: &str, metric: &Metric) -> Self {
        Self {
            volume_name: volume.to_owned(),
            iops_read: metric.iops_read,
            iops_write: metric.iops_write,
            io_bytes_read: metric.io_bytes_read,
            io_bytes_write: metric.io_bytes_write,
            io_usec_read: metric.io_usec_read,
            io_usec_write: metric.io_usec_write,
            // The cache has the zone as a letter, the answer as an offset.
            observed_at: metric.observed_at.to_string().replace("+00:00", "Z"),
        }
    }

    fn answer(&self) -> Value {
        json!({
            "metric": {
                "iops_read": self.iops_read,
                "iops_write": self.iops_write,
                "io_bytes_read": self.io_bytes_read,
                "io_bytes_write": self.io_bytes_write,
                "io_usec_read": self.io_usec_read,
                "io_usec_write": self.io_usec_write,
            },
            "observed_at": self.observed_at.replace('Z', "+00:00"),
        })
    }
}

/// What is shared about a volume, in the form of an answer.
pub(crate) async fn shared(cache: Option<&Arc<dyn StatsCache>>, volume: &str) -> Option<Value> {
    let text = cache?.load(volume).await?;
    let reading: Reading = serde_json::from_str(&text).ok()?;
    Some(reading.answer())
}

/// Shares a reading, and gives it the form of an answer.
pub(crate) async fn share(
    cache: Option<&Arc<dyn StatsCache>>,
    volume: &str,
    metric: &Metric,
) -> Value {
    let reading = Reading::of(volume, metric);
    if let (Some(cache), Ok(text)) = (cache, serde_json::to_string(&reading)) {
        cache.store(volume, text).await;
    }
    reading.answer()
}

/// Reads the figures of all volumes that have some, at every interval, for ever.
pub async fn observe(
    volumes: Arc<Volumes>,
    cache: Arc<dyn StatsCache>,
    interval: Duration,
    time_max: Duration,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut asked = tokio::task::JoinSet::new();
        for volume in volumes.listed() {
            if !volume.capabilities().contains(&Capability::Metric) {
                continue;
            }
            let (volume, cache) = (Arc::clone(volume), Arc::clone(&cache));
            asked.spawn(async move {
                match tokio::time::timeout(time_max, volume.metric()).await {
                    Ok(Ok(metric)) => drop(share(Some(&cache), volume.name(), &metric).await),
                    Ok(Err(error)) => {
                        tracing::debug!(volume = volume.name(), %error, "no performance figures");
                    }
                    Err(_) => {
                        tracing::debug!(volume = volume.name(), "performance figures are late");
                    }
                }
            });
        }
        while asked.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: &str = concat!(
        r#"{"volume_name":"v","iops_read":1,"iops_write":2,"io_bytes_read":3,"io_bytes_write":4,"#,
        r#""io_usec_read":5.0,"io_usec_write":6.5,"observed_at":"2026-11-22T07:37:19.582600Z"}"#
    );

    struct Holds(Option<&'static str>);

    #[async_trait]
    impl StatsCache for Holds {
        async fn load(&self, _volume: &str) -> Option<String> {
            self.0.map(str::to_owned)
        }
        async fn store(&self, _volume: &str, text: String) {
            assert_eq!(text, SHARED);
        }
    }

    #[tokio::test]
    async fn what_the_original_shares_is_answered() {
        let answer = concat!(
            r#"{"metric":{"iops_read":1,"iops_write":2,"io_bytes_read":3,"io_bytes_write":4,"#,
            r#""io_usec_read":5.0,"io_usec_write":6.5},"#,
            r#""observed_at":"2026-11-22T07:37:19.582600+00:00"}"#
        );
        for (held, want) in [
            (Some(SHARED), Some(answer)),
            (Some("{}"), None),
            (Some("nonsense"), None),
            (None, None),
        ] {
            let cache: Arc<dyn StatsCache> = Arc::new(Holds(held));
            let got = shared(Some(&cache), "v")
                .await
                .map(|value| value.to_string());
            assert_eq!(got.as_deref(), want, "{held:?}");
        }
        assert_eq!(shared(None, "v").await, None);
    }

    #[tokio::test]
    async fn what_is_shared_is_what_the_original_shares() {
        let time: jiff::Timestamp = "2026-11-22T07:37:19.5826Z".parse().unwrap_or_default();
        let metric = Metric {
            iops_read: 1,
            iops_write: 2,
            io_bytes_read: 3,
            io_bytes_write: 4,
            io_usec_read: 5.0,
            io_usec_write: 6.5,
            observed_at: proxy_volume::Stamp {
                unix_ns: time.as_nanosecond(),
            },
        };
        let cache: Arc<dyn StatsCache> = Arc::new(Holds(None));
        let answer = share(Some(&cache), "v", &metric).await;
        assert_eq!(answer["observed_at"], "2026-11-22T07:37:19.582600+00:00");
    }
}
