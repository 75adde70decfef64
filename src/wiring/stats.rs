//! Performance figures of volumes in Redis, where servers of all releases look for them.

use std::time::Duration;

use async_trait::async_trait;
use proxy_api::StatsCache;
use proxy_fleet::link::{Link, LinkError};

/// Keeps them under `storage:volume_stats:<volume>`.
pub struct SharedStats {
    /// Role `statistics`.
    pub link: Link,
    /// How long they are good.
    pub ttl: Duration,
}

#[async_trait]
impl StatsCache for SharedStats {
    async fn load(&self, volume: &str) -> Option<String> {
        let mut get = redis::cmd("GET");
        let found: Result<Option<String>, LinkError> = self.link.query(get.arg(key(volume))).await;
        found.unwrap_or_else(|error| {
            tracing::debug!(volume, %error, "can not look for performance figures");
            None
        })
    }

    async fn store(&self, volume: &str, text: String) {
        let mut set = redis::cmd("SET");
        set.arg(key(volume))
            .arg(text)
            .arg("EX")
            .arg(self.ttl.as_secs().max(1));
        let kept: Result<(), LinkError> = self.link.query(&set).await;
        if let Err(error) = kept {
            tracing::debug!(volume, %error, "can not share performance figures");
        }
    }
}

fn key(volume: &str) -> String {
    format!("storage:volume_stats:{volume}")
}
