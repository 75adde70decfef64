//! The connections to Redis, and the settings that lead them.
//!
//! Laws
//! - What etcd says goes before the configuration; without either, links wait.
//! - A change in etcd switches the links, nothing is started again.
//! - A password is never in the log.

use std::sync::Arc;

use proxy_fleet::etcd::{Etcd, Scope};
use proxy_fleet::link::{Link, RedisSettings, Role, Target};
use serde_json::{Map, Value};

/// The prefix of the settings in etcd.
const IN_ETCD: &str = "config/redis";

/// One link per role.
#[derive(Clone, Debug)]
pub struct Links {
    /// Caches.
    pub statistics: Link,
    /// Announcements.
    pub live: Link,
    /// Events.
    pub stream: Link,
    /// Background tasks.
    pub bgtask: Link,
    /// Upload sessions.
    #[allow(dead_code)]
    pub tus: Link,
}

impl Links {
    /// Links that lead where the settings say, or wait to hear of a place.
    pub fn open(settings: Option<&RedisSettings>) -> Self {
        let link = |role: Role| {
            let target = settings.map_or_else(Target::unknown, |settings| settings.target(role));
            Link::open(target, role.database(), role.name())
        };
        Self {
            statistics: link(Role::Statistics),
            live: link(Role::Live),
            stream: link(Role::Stream),
            bgtask: link(Role::BgTask),
            tus: link(Role::Tus),
        }
    }

    fn switch(&self, settings: &RedisSettings) {
        for (role, link) in [
            (Role::Statistics, &self.statistics),
            (Role::Live, &self.live),
            (Role::Stream, &self.stream),
            (Role::BgTask, &self.bgtask),
            (Role::Tus, &self.tus),
        ] {
            link.switch(settings.target(role));
        }
    }
}

/// The settings of a nested map; what is wrong with it is told once.
pub fn read(map: &Map<String, Value>, from: &str) -> Option<RedisSettings> {
    match RedisSettings::from_nested(map) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, from, "the settings of redis can not be used");
            None
        }
    }
}

/// The settings as etcd has them now.
pub async fn from_etcd(etcd: &Etcd) -> Option<RedisSettings> {
    match etcd.get_prefix(IN_ETCD, Scope::Merged).await {
        Ok(map) => read(&map, "etcd"),
        Err(error) => {
            tracing::warn!(%error, "can not read the settings of redis");
            None
        }
    }
}

/// Says where Redis is.
pub fn tell(settings: &RedisSettings, from: &str) {
    tracing::info!(from, "configured redis_config: {}", shown(&settings.base));
    for (role, target) in &settings.overrides {
        tracing::info!(
            from,
            role = role.name(),
            "configured redis_config: {}",
            shown(target)
        );
    }
}

fn shown(target: &Target) -> String {
    let secret = |text: &Option<String>| match text {
        Some(text) if !text.is_empty() => "********",
        _ => "(none)",
    };
    let tls = if target.tls.is_some() { " tls=on" } else { "" };
    let password = secret(&target.password);
    format!(
        "addr={target} password={password}{tls} timeout={:?}",
        target.response_bound
    )
}

/// Leads the links where etcd says, for ever.
pub async fn follow(etcd: Etcd, links: Arc<Links>, mut known: Option<RedisSettings>) {
    let mut followed = etcd.follow(IN_ETCD, Scope::Merged);
    loop {
        let map = followed.changed().await;
        match read(&map, "etcd") {
            Some(settings) if known.as_ref() != Some(&settings) => {
                tell(&settings, "etcd");
                links.switch(&settings);
                known = Some(settings);
            }
            Some(_) => {}
            None => tracing::warn!("etcd says nothing of redis, what was known before counts"),
        }
    }
}
