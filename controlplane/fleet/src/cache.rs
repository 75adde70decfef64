//! What may be looked up again instead of being found out again: facts of vfolders, permissions of
//! users. In database 0, for all servers.
//!
//! Laws
//! - Never a source of truth: a cache that is away, or holds nonsense, costs time and nothing else.
//! - What was found out before a change is not kept after it: every change counts up, and a fact is
//!   kept only if nothing was counted since it was asked for.
//! - Of several callers who miss the same fact, one finds it out and the others wait for it.
//! - Everything ends by itself, see the time to live of each call.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use proxy_core::id::VFolderId;
use redis::Script;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::link::Link;

/// How long a change is remembered: longer than finding out anything takes.
const CHANGE_TTL_S: u64 = 3600;

/// What is known of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Bytes and files of a vfolder.
    Usage,
    /// Its quota.
    Quota,
    /// Whatever a listing of it says.
    Stat,
    /// What a user may do.
    Permissions,
}

impl Fact {
    const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Quota => "quota",
            Self::Stat => "stat",
            Self::Permissions => "perms",
        }
    }
}

/// What facts are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A vfolder: `vfolder:{vfolder_id}:*`.
    VFolder(VFolderId),
    /// A user: `user:{user_id}:perms`.
    User(Uuid),
}

impl About {
    const fn facts(self) -> &'static [Fact] {
        match self {
            Self::VFolder(_) => &[Fact::Usage, Fact::Quota, Fact::Stat],
            Self::User(_) => &[Fact::Permissions],
        }
    }

    fn key(self, fact: Fact) -> String {
        format!("{self}:{}", fact.name())
    }

    fn changes(self) -> String {
        format!("{self}:changes")
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VFolder(id) => write!(f, "vfolder:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
        }
    }
}

/// What happened, for metrics.
#[derive(Debug, Default)]
pub struct CacheCounters {
    /// Facts that were there.
    pub hits: AtomicU64,
    /// Facts that had to be found out.
    pub misses: AtomicU64,
    /// Calls of Redis that failed.
    pub errors: AtomicU64,
}

/// See the module.
pub struct Cache {
    link: Link,
    counters: Arc<CacheCounters>,
    finding: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Keeps a fact unless something changed since it was asked for.
static KEEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3]) return 1",
    )
});

impl Cache {
    /// Over a link to database 0.
    pub fn new(link: Link) -> Self {
        Self {
            link,
            counters: Arc::default(),
            finding: Mutex::default(),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Arc<CacheCounters> {
        Arc::clone(&self.counters)
    }

    /// The fact as it is known, or as `find` finds it out, to be known for `ttl`.
    ///
    /// # Errors
    /// Those of `find`.
    pub async fn fact<T, E>(
        &self,
        about: About,
        fact: Fact,
        ttl: Duration,
        find: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        if !self.link.is_up() {
            return find.await;
        }
        let key = about.key(fact);
        let turn = Arc::clone(self.finding.lock().entry(key.clone()).or_default());
        let found = {
            let _turn = turn.lock().await;
            self.known_or_found(about, &key, ttl, find).await
        };
        let mut finding = self.finding.lock();
        // The map and this call: nobody waits.
        if Arc::strong_count(&turn) <= 2 {
            finding.remove(&key);
        }
        found
    }

    async fn known_or_found<T, E>(
        &self,
        about: About,
        key: &str,
        ttl: Duration,
        find: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let mut ask = redis::cmd("MGET");
        ask.arg(key).arg(about.changes());
        let asked = self.link.query::<(Option<String>, Option<String>)>(&ask);
        let changes = match asked.await {
            Ok((known, changes)) => {
                let known = known.and_then(|text| serde_json::from_str(&text).ok());
                if let Some(known) = known {
                    self.counters.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(known);
                }
                Some(changes.unwrap_or_default())
            }
            Err(_) => {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let found = find.await?;
        if let (Some(changes), Ok(text)) = (changes, serde_json::to_string(&found)) {
            let mut keep = KEEP.prepare_invoke();
            keep.key(key).key(about.changes()).arg(text).arg(changes);
            keep.arg(ttl.as_millis().max(1).to_string());
            self.count_error(self.link.script::<i64>(&keep).await.is_err());
        }
        Ok(found)
    }

    /// Something changed: nothing that was known before is known any more. A cache that is away
    /// forgets by its time to live alone.
    pub async fn changed(&self, about: About) {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("INCR").arg(about.changes()).ignore();
        pipe.cmd("EXPIRE")
            .arg(about.changes())
            .arg(CHANGE_TTL_S)
            .ignore();
        let facts = about.facts().iter();
        let keys: Vec<String> = facts.map(|fact| about.key(*fact)).collect();
        pipe.cmd("DEL").arg(keys).ignore();
        self.count_error(self.link.pipe::<()>(&pipe).await.is_err());
    }

    fn count_error(&self, is_error: bool) {
        let errors = &self.counters.errors;
        errors.fetch_add(u64::from(is_error), Ordering::Relaxed);
    }
}
